"""A trained pair: an autoencoder and the density that stands in for its prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.artefacts.density import KIND, density_of
from postprior.pipelines.artefacts.project import ArtefactFolders
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.manifest import conversion_in
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.completion import as_filled, completions
from postprior.pipelines.generation.request import Labels, Request, check_values
from postprior.pipelines.storage import load_artefact
from postprior.pipelines.texts import quoted
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

if TYPE_CHECKING:
    from postprior.pipelines.generation.calibration import Spread

ROWS = 256
"""Rows of a block. Each block is drawn whole, from a seed of its own, so that the bytes of a row depend on the seed and
its number alone: a longer set begins with the shorter one."""
Block = tuple[int, dict[str, np.ndarray], np.ndarray | None]


class Generator:
    """Draws whole multimodal samples: codes from a density fitted to an autoencoder's, values from its decoders.

    The datasets drawn carry `provenance`, hashes of both and of the training data, and `conversion`, how imported
    values go back into their units and files.

    Example:
        Generator.load("artefacts/densities/gmm").sample(1000, seed=0).save(Path("synthetic"))
    """

    def __init__(
        self,
        model: MultimodalVAE,
        density: Density,
        provenance: Mapping[str, Any],
        conversion: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.density, self.provenance = model, density, dict(provenance)
        self.conversion = conversion

    @classmethod
    def load(cls, folder: Path | str, autoencoder: Path | str | None = None) -> Generator:
        """The pair of a fitted density, such as artefacts/densities/gmm, and its autoencoder.

        That is `autoencoder` two folders above when not given, as the pipeline lays it out.

        Raises:
            UserError: a folder is missing or damaged, or the density belongs to another autoencoder.
        """
        folder = Path(folder)
        artefact = load_artefact(folder, KIND)
        if "autoencoder" not in artefact.manifest:
            raise UserError(
                f"{folder}: this density was fitted to codes of one's own, no autoencoder decodes its draws; draw the "
                "codes themselves with postprior draw"
            )
        home = ArtefactFolders.around(folder).autoencoder if autoencoder is None else Path(autoencoder)
        model, trained = load_autoencoder(home)
        if artefact.manifest["autoencoder"] != trained.hash:
            raise UserError(
                f"{folder}: this density was fitted to autoencoder {artefact.manifest['autoencoder'][:12]}, found "
                f"{trained.hash[:12]} in {home}; fit it again (postprior fit {quoted(folder.name)}) or pass its "
                "autoencoder"
            )
        hashes = {"autoencoder": trained.hash, "density": artefact.hash, "data": trained.manifest["data"]}
        conversion = conversion_in(ArtefactFolders(home.parent).data / "train")
        return cls(model, density_of(artefact, folder), hashes, conversion)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities of what is drawn, which lacks no cell."""
        return tuple(replace(m, partial=False) for m in self.model.modalities)

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """Names of the labels that draws carry, or None."""
        return self.density.classes.names if self.density.classes.labelled else None

    def sample(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: Labels | None = None,
        values: str = "mean",
        temperature: float = 1.0,
        truncation: float = 0.0,
    ) -> Dataset:
        """A synthetic dataset in memory; see `Request` for the arguments.

        Raises:
            UserError: no rows, unknown labels, labels asked of a density that has none, or a truncation of one that
                has no exact score.
        """
        return self.draw(Request(n, seed, labels, values, temperature, truncation))

    def draw(self, request: Request) -> Dataset:
        """A synthetic dataset in memory."""
        blocks = list(self.blocks(request))
        drawn = [labels for _, _, labels in blocks if labels is not None]
        return Dataset(
            self.modalities,
            {m.name: np.concatenate([data[m.name] for _, data, _ in blocks]) for m in self.modalities},
            labels=np.concatenate(drawn) if drawn else None,
            label_names=self.label_names,
            provenance=self.describe(request),
            conversion=self.conversion,
        )

    def blocks(self, request: Request) -> Iterator[Block]:
        """The rows of a synthetic dataset, block by block: (number of the first row, data, labels)."""
        for start, kept, codes, generator in draw_codes(self.density, request):
            data = self.decode(codes.loc[:, 0], request.values, generator)
            labels = None if codes.labels is None else codes.labels[:kept].numpy()
            yield start, {name: array[:kept] for name, array in data.items()}, labels

    def blocks_given(self, data: Dataset, request: Request) -> Iterator[Block]:
        """The same of samples that have what the rows of `data`, which are `conformed` and as many, have."""
        if request.temperature != 1 or request.truncation:
            raise UserError(
                f"--given: found temperature {request.temperature} and truncation {request.truncation}, expected 1 and "
                "0: what is given decides how likely a draw is; leave them out"
            )
        _, labels = request.of_rows(self.density)
        for start, drawn in self.completed(data, 1, request.seed, request.values, labels):
            values = {name: array[0] for name, array in drawn.items()}
            rows = slice(start, start + len(next(iter(values.values()))))
            yield start, values, None if labels is None else labels[rows]

    def represent(self, data: Dataset, components: int = 32, seed: int = 0) -> Codes:
        """The posterior of each row's code, as the stage `encode` gives it."""
        rows = conformed(data, self.model.modalities, self.conversion)
        return posteriors(self.model, rows, components, generator_for("cpu", seed))

    def impute(
        self, data: Dataset, draws: int = 1, seed: int = 0, values: str = "mean", held_out: Dataset | None = None
    ) -> list[Dataset]:
        """The rows of a dataset with all that they lack filled in, so many times (multiple imputation).

        What is filled in differs between the completed datasets as much as it is uncertain; the same seed gives the
        same bytes. With rows that took no part in training, `held_out`, draws are calibrated (`Spread`).

        Args:
            values: `mean` of the decoders, or `draws` from their likelihoods.

        Raises:
            UserError: no draws, or modalities of other data.
        """
        data, spread = conformed(data, self.model.modalities, self.conversion), None
        if held_out is not None and values == "draws":
            spread = self.spread(held_out, data, seed)
        blocks = [block for _, block in self.completed(data, draws, seed, values, spread=spread)]
        filled = as_filled(data)
        return [
            replace(
                data,
                data={name: np.concatenate([block[name][draw] for block in blocks]) for name in data.data},
                **filled,
                folder=None,
                provenance=self.describe_imputed(data, seed, values, draw),
                conversion=data.conversion,
            )
            for draw in range(draws)
        ]

    def spread(self, held_out: Dataset, like: Dataset, seed: int) -> Spread:
        """How far draws for the rows of `like` are to lie apart, learned from rows that took no part in training."""
        from postprior.pipelines.generation.calibration import Spread

        rows = conformed(held_out, like.modalities, self.conversion)
        return Spread.fit(self.model, self.density, rows, like, seed)

    def completed(
        self,
        data: Dataset,
        draws: int,
        seed: int,
        values: str,
        labels: np.ndarray | None = None,
        spread: Spread | None = None,
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The same of `conformed` rows in bounded memory, see `completions`."""
        check_values(values)
        if draws < 1:
            raise UserError(f"draws: found {draws}, expected a whole number of at least 1")
        return completions(self.model, self.density, data, draws, seed, values, labels, spread)

    def describe_imputed(self, data: Dataset, seed: int, values: str, draw: int) -> dict[str, Any]:
        """The provenance of a dataset imputed so."""
        return self._provenance(imputed=data.hash, seed=seed, draw=draw, values=values)

    def describe(self, request: Request) -> dict[str, Any]:
        """The provenance of a dataset drawn so."""
        return self._provenance(
            seed=request.seed,
            labels=request.condition,
            labels_from="density" if self.density.classes.labelled else None,
            values=request.values,
            temperature=request.temperature,
            truncation=request.truncation,
        )

    def _provenance(self, **made: Any) -> dict[str, Any]:
        codes = self.density.stores_training_codes
        return {**self.provenance, "sampler": self.density.name, **made, "stores_training_codes": codes}

    def decode(self, z: torch.Tensor, values: str, generator: torch.Generator) -> dict[str, np.ndarray]:
        """Values of codes (n, D): the decoders' means or draws, as data of the modalities may hold them.

        The lower levels of a hierarchical model are drawn either way.
        """
        with torch.no_grad():
            data, latents = {}, self.model.descend(z, generator)
            for modality in self.model.modalities:
                drawn = self.model.decode_one(modality, latents)
                x = drawn.mean if values == "mean" else drawn.rsample((), generator)
                data[modality.name] = modality.to_support(x).numpy()
        return data


def draw_codes(density: Density, request: Request) -> Iterator[tuple[int, int, Codes, torch.Generator]]:
    """Blocks of `ROWS` codes: (number of the first row, rows that are kept, codes, their generator)."""
    rows, labels = request.of_rows(density)
    for number, start in enumerate(range(0, rows, ROWS)):
        generator = generator_for("cpu", request.seed, number)
        kept = min(ROWS, rows - start)
        wanted = None if labels is None else torch.from_numpy(np.resize(labels[start : start + kept], ROWS))
        try:
            with torch.no_grad():
                codes = density.sample(ROWS, generator, wanted, request.temperature, request.truncation)
        except ValueError as error:
            raise UserError(str(error)) from None
        yield start, kept, codes, generator


def drawn_codes(density: Density, request: Request) -> Codes:
    """The codes of a density that a request asks for, in memory."""
    parts = [codes.select(torch.arange(kept)) for _, kept, codes, _ in draw_codes(density, request)]
    labels = [part.labels for part in parts if part.labels is not None]
    z = torch.cat([part.loc[:, 0] for part in parts])
    return Codes.empirical(density.layout, z, torch.cat(labels) if labels else None, density.classes.names)
