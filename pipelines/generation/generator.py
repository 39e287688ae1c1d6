"""The generator: a trained autoencoder and the density that replaces its prior."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.artefacts.density import KIND, density_of
from postprior.pipelines.artefacts.project import ArtefactFolders
from postprior.pipelines.artefacts.refiner import load_refiner
from postprior.pipelines.data.dataset import Dataset, conformed, joined
from postprior.pipelines.data.decoded import as_data, rows_as_data
from postprior.pipelines.data.manifest import conversion_in
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.completion import completions, filled_fields, typical_values
from postprior.pipelines.generation.missingness.model import Missingness
from postprior.pipelines.generation.relabelling.model import Relabelling
from postprior.pipelines.generation.request import REFINED, Labels, SampleRequest, check_values, is_drawn
from postprior.pipelines.generation.row_factors import RowFactors
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.pipelines.settings.options import check_value
from postprior.pipelines.settings.params import Count, Seed
from postprior.pipelines.space import check_space
from postprior.pipelines.storage import load_artefact, rebuilding
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.refiner import Refiner

if TYPE_CHECKING:
    from postprior.pipelines.generation.calibration import Calibration
    from postprior.pipelines.generation.pseudo_gibbs import CellForests

ROWS = 256
"""Rows per block. Every block is drawn in full, from its own seed. The bytes of a row therefore depend only on the seed
and on the number of the row: a longer dataset begins with the rows of a shorter one."""
Block = tuple[int, Dataset]


class Generator:
    """Draw multimodal samples: codes from a density, values from the decoders of the autoencoder.

    Samples lack values as training rows do, as far as `missingness` has learned; without it, they are complete.
    The rates of counts of a row share one of `row_factors`, which are 1 unless they were learned. Labels that are not
    requested are drawn anew given the values of their rows if there is a `relabelling`.
    `never_missing` has the values of partly observed modalities, by number, that no training row lacked or hid.

    Every dataset drawn carries `provenance` (hashes of the autoencoder, the density and the training data) and
    `conversion` (how to convert values back to the units and files of imported data).

    Example:
        Generator.load("artefacts/densities/gmm").sample(1000, seed=0).save(Path("synthetic"))
    """

    def __init__(
        self,
        model: Autoencoder,
        density: Density,
        provenance: Mapping[str, Any],
        conversion: dict[str, Any] | None = None,
        never_missing: Mapping[str, Sequence[int]] | None = None,
        missingness: Missingness | None = None,
        refiner: Callable[[], tuple[Refiner, str]] | None = None,
        row_factors: RowFactors | None = None,
        relabelling: Relabelling | None = None,
    ) -> None:
        self.model, self.density, self.provenance = model, density, dict(provenance)
        self.conversion, self.never_missing, self.missingness = conversion, never_missing or {}, missingness
        self._load_refiner, self.row_factors, self.relabelling = refiner, row_factors or RowFactors(), relabelling

    @classmethod
    def load(cls, folder: Path | str, autoencoder: Path | str | None = None) -> Self:
        """Load a fitted density, such as artefacts/densities/gmm, and its autoencoder.

        Without `autoencoder`, the autoencoder is loaded from the project in which the density lies.

        Raises:
            UserError: A folder is missing or damaged, or the density was fitted to codes of another autoencoder.
        """
        folder = Path(folder)
        artefact = load_artefact(folder, KIND)
        if "autoencoder" not in artefact.manifest:
            raise UserError(
                f"{folder}: this density was fitted to custom codes, so no autoencoder can decode its draws; draw "
                "codes with postprior draw"
            )
        home = ArtefactFolders.around(folder).autoencoder if autoencoder is None else Path(autoencoder)
        model, trained = load_autoencoder(home)
        if artefact.manifest["autoencoder"] != trained.hash:
            raise UserError(
                f"{folder}: this density was fitted to codes of autoencoder "
                f"{artefact.manifest['autoencoder'][:12]}, found {trained.hash[:12]} in {home}; fit it again "
                f"(postprior fit {shell_quoted(folder.name)}) or pass the folder of its autoencoder"
            )
        hashes = {"autoencoder": trained.hash, "density": artefact.hash, "data": trained.manifest["data"]}
        conversion = conversion_in(ArtefactFolders(home.parent).data / "train")
        missingness = relabelling = None
        with rebuilding(folder):
            if (entry := artefact.manifest.get("missingness")) is not None:
                missingness = Missingness.from_state(artefact.arrays, entry, model.modalities)
            if (entry := artefact.manifest.get("relabelling")) is not None:
                relabelling = Relabelling.from_state(artefact.arrays, entry)
        never_missing = trained.manifest.get("never_missing")
        refiner = partial(load_refiner, ArtefactFolders(home.parent).refiner, trained.hash)
        factors = RowFactors.from_description(trained.manifest)
        density = density_of(artefact, folder)
        return cls(model, density, hashes, conversion, never_missing, missingness, refiner, factors, relabelling)

    @cached_property
    def refiner(self) -> tuple[Refiner, str]:
        """The refiner of the autoencoder, and its hash.

        Raises:
            UserError: there is none.
        """
        if self._load_refiner is None:
            raise UserError("values: found refined, but this generator has no refiner; choose other values")
        return self._load_refiner()

    def refiner_for(self, values: str) -> Refiner | None:
        """The refiner of the autoencoder if `values` are refined, else None."""
        return self.refiner[0] if values == REFINED else None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities of the samples, as datasets describe them."""
        return tuple(replace(m, partial=False) for m in self.model.modalities)

    @property
    def row_bytes(self) -> int:
        """The number of bytes of the values of one sample."""
        return 4 * sum(math.prod(m.shape) for m in self.modalities)

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the labels of the samples; None if samples have no labels."""
        return self.density.classes.names if self.density.classes.labelled else None

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: Labels | None = None,
        values: str = "auto",
        temperature: float = 1.0,
        truncation: float = 0.0,
        complete: bool = False,
    ) -> Dataset:
        """Draw a synthetic dataset in memory; see `SampleRequest` for the arguments.

        Raises:
            UserError: No rows are requested, a label is unknown, labels are requested from a density without labels,
                or truncation is requested from a density without an exact score.
        """
        return self.draw(SampleRequest(n, seed, labels, values, temperature, truncation, complete))

    def draw(self, request: SampleRequest) -> Dataset:
        """Draw a synthetic dataset in memory."""
        check_space(f"samples: {request.size} rows", 2 * request.size * self.row_bytes)  # blocks, then the arrays
        return replace(joined([rows for _, rows in self.blocks(request)]), provenance=self.describe(request))

    def missingness_of(self, request: SampleRequest) -> Missingness | None:
        """What the samples of a request lack; None if they are complete."""
        return None if request.complete else self.missingness

    def relabelling_of(self, request: SampleRequest) -> Relabelling | None:
        """What draws the labels of the samples of a request; None if they are requested, or those of the density."""
        return None if request.labels is not None else self.relabelling

    def blocks(self, request: SampleRequest, numbers: Iterable[int] | None = None) -> Iterator[Block]:
        """Draw the rows of a synthetic dataset block by block: (number of the first row, rows).

        What rows lack is drawn after their values, and labels after both; so values and labels are those of complete
        rows. `numbers` chooses blocks; None: all.
        """
        for start, rows, codes, generator in draw_codes(self.density, request, numbers):
            z = codes.loc[:, 0]
            data = self.decode(z, request.values, generator, codes.labels)
            labels = None if codes.labels is None else codes.labels.numpy()
            whole, relabelling = self._rows(data, labels), self.relabelling_of(request)
            missingness = self.missingness_of(request) if relabelling is None else self.missingness
            known = whole if missingness is None else missingness.applied(whole, z, generator)
            block = whole if request.complete else known
            if relabelling is not None:
                allowed = None if missingness is None else missingness.allows(known, relabelling.labels)
                block = replace(block, labels=relabelling.draw(known, generator, allowed))
            yield start, block.select(np.arange(rows))

    def blocks_given(
        self, data: Dataset, request: SampleRequest, numbers: Iterable[int] | None = None
    ) -> Iterator[Block]:
        """Draw complete rows like `blocks`, given the observed values of `data`: `conformed` rows, one per sample."""
        if request.temperature != 1 or request.truncation:
            raise UserError(
                f"--given: found temperature {request.temperature} and truncation {request.truncation}, expected 1 and "
                "0, because samples given observed values follow their posterior; leave both options out"
            )
        _, labels = request.rows_and_labels(self.density)
        for start, completed in self.completed(data, 1, request.seed, request.values, labels, None, numbers):
            values = {name: array[0] for name, array in completed.items()}
            rows = slice(start, start + len(next(iter(values.values()))))
            yield start, self._rows(values, None if labels is None else labels[rows])

    def _rows(self, data: dict[str, np.ndarray], labels: np.ndarray | None) -> Dataset:
        """Return complete rows with these values and labels."""
        names = None if labels is None else self.label_names
        return Dataset(self.modalities, data, labels=labels, label_names=names, conversion=self.conversion)

    def represent(self, data: Dataset, components: int = 32, seed: int = 0) -> Codes:
        """Return the posterior of the code of each row, as the stage `encode` computes it."""
        check_value("seed", seed, Seed)
        rows = conformed(data, self.model.modalities, self.conversion)
        return posteriors(self.model, rows, components, generator_for("cpu", seed))

    def impute(
        self,
        data: Dataset,
        draws: int = 1,
        seed: int = 0,
        values: str = "mean",
        held_out: Dataset | None = None,
        train: Dataset | None = None,
    ) -> list[Dataset]:
        """Impute all missing values of a dataset `draws` times (multiple imputation).

        The variation of an imputed value between the completed datasets reflects its uncertainty. Rows that have a
        label are imputed given their label if the density has labels; set the labels of `data` to None to ignore them.
        The same seed gives the same bytes.

        Args:
            values: As in `SampleRequest`.
            held_out: Rows that were not used in training; they calibrate values that are drawn (`Calibration`). Without
                them, draws are not calibrated.
            train: Training rows. With them, cells of tables are drawn given the rest of their row (`CellForests`) where
                the held-out rows show that this is better.

        Raises:
            UserError: `draws` is below 1, or the modalities are not those of the model.
        """
        data, calibration = conformed(data, self.model.modalities, self.conversion), None
        if held_out is not None and any(is_drawn(values, m) for m in self.modalities):
            forests = None if train is None else self.cell_forests(train, data, seed)
            calibration = self.calibration(held_out, data, seed, forests)
        blocks = [block for _, block in self.completed(data, draws, seed, values, self.labels_of(data), calibration)]
        fields = filled_fields(data)
        return [
            replace(
                data,
                data={name: np.concatenate([block[name][draw] for block in blocks]) for name in data.data},
                **fields,
                folder=None,
                provenance=self.describe_imputed(data, seed, values, draw),
                conversion=data.conversion,
            )
            for draw in range(draws)
        ]

    def cell_forests(self, train: Dataset, like: Dataset, seed: int) -> CellForests | None:
        """Learn from training rows what may draw cells of tables anew in the rows of `like`; None if nothing may."""
        from postprior.pipelines.generation.pseudo_gibbs import CellForests, can_be_redrawn

        if not can_be_redrawn(self.model):
            return None

        labels = None if self.labels_of(like) is None else self.labels_of(train)
        return CellForests.fit(self.model, conformed(train, like.modalities, self.conversion), labels, seed)

    def calibration(
        self, held_out: Dataset, like: Dataset, seed: int, forests: CellForests | None = None
    ) -> Calibration:
        """Calibrate draws for the rows of `like` on held-out rows that were not used in training; see `impute`."""
        from postprior.pipelines.generation.calibration import Calibration

        rows = conformed(held_out, like.modalities, self.conversion)
        labels = None if self.labels_of(like) is None else self.labels_of(held_out)
        return Calibration.fit(self.model, self.density, rows, like, seed, labels, forests)

    def unlearned(self, data: Dataset) -> list[str]:
        """Return the modalities, and columns, that rows lack in part and that no training row lacked or hid in part."""
        names = []
        for m in self.model.modalities:
            if m.name in data.cells:
                lacking = ~np.asarray(data.cells[m.name])[data.observed[:, self.model.modalities.index(m)]]
                whole = [] if m.partial or not lacking.any() else [m.title]
                columns = [j for j in self.never_missing.get(m.name, ()) if lacking[:, j].any()]
                names += whole + [f"{m.title}.{m.columns[j].name if m.columns else j}" for j in columns]
        return names

    def labels_of(self, data: Dataset) -> Ints | None:
        """Return the labels (N,) of rows as the density numbers them, −1 where it has no such label; None without any.

        Labels are matched by name.
        """
        classes = self.density.classes
        if data.labels is None or data.label_names is None or not classes.labelled:
            return None
        fitted = {classes.names[number] if classes.names else str(number): number for number in classes.labels.tolist()}
        names = data.label_names if classes.names else map(str, range(len(data.label_names)))
        numbers = np.array([*(fitted.get(name, -1) for name in names), -1])
        return numbers[data.labels]  # the label −1 selects the last number

    def completed(
        self,
        data: Dataset,
        draws: int,
        seed: int,
        values: str,
        labels: Ints | None = None,
        calibration: Calibration | None = None,
        numbers: Iterable[int] | None = None,
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Impute missing values of `conformed` rows block by block, in bounded memory; see `completions`."""
        check_values(values)
        check_value("draws", draws, Count)
        check_value("seed", seed, Seed)
        refiner = self.refiner_for(values)
        return completions(self.model, self.density, data, draws, seed, values, labels, calibration, refiner, numbers)

    def describe_imputed(self, data: Dataset, seed: int, values: str, draw: int) -> dict[str, Any]:
        """Return the provenance of one imputed dataset."""
        return self._provenance(imputed=data.hash, seed=seed, draw=draw, values=values)

    def describe(self, request: SampleRequest) -> dict[str, Any]:
        """Return the provenance of a dataset drawn with this request."""
        return self._provenance(
            seed=request.seed,
            labels=request.condition,
            labels_from=self._labels_from(request),
            values=request.values,
            temperature=request.temperature,
            truncation=request.truncation,
            **({} if self.missingness is None else {"complete": request.complete}),
        )

    def _labels_from(self, request: SampleRequest) -> str | None:
        if self.relabelling_of(request) is not None:
            return "values"
        return "density" if self.density.classes.labelled else None

    def _provenance(self, **details: Any) -> dict[str, Any]:
        stored = self.density.stores_training_codes
        refined = {"refiner": self.refiner[1]} if details["values"] == REFINED else {}
        return {**self.provenance, **refined, "sampler": self.density.name, **details, "stores_training_codes": stored}

    def decode(
        self, z: torch.Tensor, values: str, generator: torch.Generator, labels: torch.Tensor | None = None
    ) -> dict[str, np.ndarray]:
        """Decode codes (n, D) to means or draws of the decoders, with the ranges, decimals and constraints of the data.

        The lower levels of a hierarchical model are drawn in any case. `labels` (n,) are those of the codes, if they
        have any; refined values depend on them.
        """
        refiner = self.refiner_for(values)
        with torch.no_grad():
            data, latents = {}, self.model.descend(z, generator)
            for modality in self.model.modalities:
                likelihood = self.model.decode_one(modality, latents)
                if is_drawn(values, modality):
                    x = self.row_factors.applied(modality, likelihood, generator).rsample((), generator)
                else:
                    x = typical_values(modality, likelihood, latents, labels, generator, refiner)
                data[modality.name] = as_data(modality, modality.to_support(x).numpy(), self.conversion)
        return rows_as_data(data, self.conversion)

    def decode_all(
        self, z: torch.Tensor, values: str, generator: torch.Generator, labels: torch.Tensor | None = None
    ) -> dict[str, np.ndarray]:
        """Decode codes (N, D) block by block; see `decode`."""
        parts = [slice(start, start + ROWS) for start in range(0, len(z), ROWS)]
        blocks = [self.decode(z[p], values, generator, None if labels is None else labels[p]) for p in parts]
        return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def draw_codes(
    density: Density, request: SampleRequest, numbers: Iterable[int] | None = None
) -> Iterator[tuple[int, int, Codes, torch.Generator]]:
    """Draw blocks of `ROWS` codes: (number of the first row, number of rows to keep, codes, random generator).

    `numbers` chooses blocks; None: all.
    """
    rows, labels = request.rows_and_labels(density)
    for number in range(-(-rows // ROWS)) if numbers is None else numbers:
        start = number * ROWS
        generator = generator_for("cpu", request.seed, number)
        block_rows = min(ROWS, rows - start)
        block_labels = None if labels is None else torch.from_numpy(np.resize(labels[start : start + block_rows], ROWS))
        try:
            with torch.no_grad():
                codes = density.sample(ROWS, generator, block_labels, request.temperature, request.truncation)
        except ValueError as error:
            raise UserError(str(error)) from None
        yield start, block_rows, codes, generator


def drawn_codes(density: Density, request: SampleRequest) -> Codes:
    """Draw codes from a density, in memory."""
    blocks = [codes.select(torch.arange(rows)) for _, rows, codes, _ in draw_codes(density, request)]
    labels = [block.labels for block in blocks if block.labels is not None]
    z = torch.cat([block.loc[:, 0] for block in blocks])
    return Codes.empirical(density.layout, z, torch.cat(labels) if labels else None, density.classes.names)
