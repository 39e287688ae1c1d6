"""A trained pair: an autoencoder and the density that stands in for its prior."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.artefacts.autoencoder import load_autoencoder
from postprior.pipelines.artefacts.density import KIND, density_of
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.manifest import conversion_in
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.params import Generate
from postprior.pipelines.storage import load_artefact
from postprior.pipelines.texts import quoted

if TYPE_CHECKING:
    import torch

    from postprior.pipelines.generation.calibration import Spread
    from postprior.stage1_vae.modalities import Modality
    from postprior.stage1_vae.model import MultimodalVAE
    from postprior.stage2_latent.codes import Codes
    from postprior.stage2_latent.density import Density

ROWS = 256
"""Rows of a block. Each block is drawn whole, from a seed of its own, so that the bytes of a row depend on the seed and
its number alone: a longer set begins with the shorter one."""
VALUES = ("mean", "draws")
Labels = Sequence[int] | np.ndarray | Mapping[str, int]
Block = tuple[int, dict[str, np.ndarray], np.ndarray | None]
Drawn = tuple[int, int, "Codes", "torch.Generator"]


class Generator:
    """Draws whole multimodal samples: codes from a density, values from the decoders.

    Args:
        model: the autoencoder.
        density: a fitted density of its codes.
        provenance: hashes of both and of the training data, for the datasets drawn.
        conversion: how imported values go back into their units and files, for the datasets drawn.

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
        """The pair of a fitted density and its autoencoder.

        Args:
            folder: the density, such as artefacts/densities/gmm.
            autoencoder: its autoencoder; `autoencoder` two folders above when not given, as the pipeline lays it out.

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
        home = folder.resolve().parents[1] / "autoencoder" if autoencoder is None else Path(autoencoder)
        model, trained = load_autoencoder(home)
        if artefact.manifest["autoencoder"] != trained.hash:
            raise UserError(
                f"{folder}: this density was fitted to autoencoder {artefact.manifest['autoencoder'][:12]}, found "
                f"{trained.hash[:12]} in {home}; fit it again (postprior fit {quoted(folder.name)}) or pass its "
                "autoencoder"
            )
        hashes = {"autoencoder": trained.hash, "density": artefact.hash, "data": trained.manifest["data"]}
        conversion = conversion_in(home.parent / "data/train")
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
        """A synthetic dataset in memory; see `blocks` for the arguments."""
        asked = (seed, labels, values, temperature, truncation)
        blocks = list(self.blocks(n, *asked))
        drawn = [block[2] for block in blocks if block[2] is not None]
        return Dataset(
            self.modalities,
            {m.name: np.concatenate([data[m.name] for _, data, _ in blocks]) for m in self.modalities},
            labels=np.concatenate(drawn) if drawn else None,
            label_names=self.label_names,
            provenance=self.describe(*asked),
            conversion=self.conversion,
        )

    def blocks(
        self,
        n: int | None = None,
        seed: int = 0,
        labels: Labels | None = None,
        values: str = "mean",
        temperature: float = 1.0,
        truncation: float = 0.0,
    ) -> Iterator[Block]:
        """The rows of a synthetic dataset, block by block: (number of the first row, data, labels).

        Args:
            n: number of rows; their sum when `labels` holds counts.
            seed: the same seed gives the same bytes.
            labels: None draws them as the density learned them; n labels ask for these, in their order; counts by label
                name ask for so many of each, in an order drawn from the seed.
            values: `mean` of the decoders, or `draws` from their likelihoods; both clipped to the modality's range,
                counts rounded.
            temperature: of the density's noise, above 0 and 1 at most; below 1 the codes are nearer to its modes.
            truncation: codes less likely than all but this share of held-out ones are drawn again.

        Raises:
            UserError: no rows, unknown labels, labels asked of a density that has none, or a truncation of one that
                has no exact score.
        """
        check_values(values)
        drawn = draw_codes(self.density, n, seed, labels, temperature, truncation)
        return self._decoded(drawn, values)

    def represent(self, data: Dataset, components: int = 32, seed: int = 0) -> Codes:
        """The posterior of each row's code, as the stage `encode` gives it."""
        from postprior.pipelines.artefacts.codes import posteriors
        from postprior.stage1_vae.randomness import generator_for

        rows = conformed(data, self.model.modalities, self.conversion)
        return posteriors(self.model, rows, components, generator_for("cpu", seed))

    def impute(
        self,
        data: Dataset,
        draws: int = 1,
        seed: int = 0,
        values: str = "mean",
        held_out: Dataset | None = None,
    ) -> list[Dataset]:
        """The rows of a dataset with all that they lack filled in, so many times (multiple imputation).

        Args:
            data: rows with some or all of the modalities, which may lack cells.
            draws: completed datasets; what is filled in differs between them as much as it is uncertain.
            seed: the same seed gives the same bytes.
            values: `mean` of the decoders, or `draws` from their likelihoods.
            held_out: rows that took no part in training, by which draws are calibrated (`Spread`); None leaves them
                as the model has them.

        Raises:
            UserError: no draws, or modalities of other data.
        """
        from postprior.pipelines.generation.calibration import Spread
        from postprior.pipelines.generation.completion import as_filled

        data, spread = conformed(data, self.model.modalities, self.conversion), None
        if held_out is not None and values == "draws":
            spread = Spread.fit(self, conformed(held_out, data.modalities, self.conversion), data, seed)
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

    def completed(
        self,
        data: Dataset,
        draws: int,
        seed: int,
        values: str,
        labels: np.ndarray | None = None,
        spread: Spread | None = None,
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The same in bounded memory: number of the first row of a block, and its values (draws, n, *shape).

        The rows are of the model's modalities (`conformed`); with labels (n,) the density is conditioned on them.
        """
        from postprior.pipelines.generation.completion import completions

        check_values(values)
        if draws < 1:
            raise UserError(f"draws: found {draws}, expected a whole number of at least 1")
        return completions(self.model, self.density, data, draws, seed, values, labels, spread)

    def describe_imputed(self, data: Dataset, seed: int, values: str, draw: int) -> dict[str, Any]:
        """The provenance of a dataset imputed so."""
        return {
            **self.provenance,
            "sampler": self.density.name,
            "imputed": data.hash,
            "seed": seed,
            "draw": draw,
            "values": values,
            "stores_training_codes": self.density.stores_training_codes,
        }

    def describe(
        self,
        seed: int,
        labels: Labels | None = None,
        values: str = "mean",
        temperature: float = 1.0,
        truncation: float = 0.0,
    ) -> dict[str, Any]:
        """The provenance of a dataset drawn so."""
        condition = (
            dict(labels) if isinstance(labels, Mapping) else None if labels is None else "a label a row"
        )
        return {
            **self.provenance,
            "sampler": self.density.name,
            "seed": seed,
            "labels": condition,
            "labels_from": "density" if self.density.classes.labelled else None,
            "values": values,
            "temperature": temperature,
            "truncation": truncation,
            "stores_training_codes": self.density.stores_training_codes,
        }

    def _decoded(self, drawn: Iterator[Drawn], values: str) -> Iterator[Block]:
        for start, kept, codes, generator in drawn:
            data = self.decode(codes.loc[:, 0], values, generator)
            labels = None if codes.labels is None else codes.labels[:kept].numpy()
            yield start, {name: array[:kept] for name, array in data.items()}, labels

    def decode(self, z: Any, values: str, generator: Any) -> dict[str, np.ndarray]:
        """Values of codes (n, D): the decoders' means or draws, as data of the modalities may hold them.

        The lower levels of a hierarchical model are drawn either way.
        """
        import torch

        with torch.no_grad():
            data, latents = {}, self.model.descend(z, generator)
            for modality in self.model.modalities:
                drawn = self.model.decode_one(modality, latents)
                x = drawn.mean if values == "mean" else drawn.rsample((), generator)
                data[modality.name] = modality.admit(x).numpy()
        return data


def check_values(values: str) -> None:
    """Refuse what decoders do not give."""
    if values not in VALUES:
        raise UserError(f"values: found {values!r}, expected one of {', '.join(VALUES)}")


def draw_codes(
    density: Density,
    n: int | None,
    seed: int,
    labels: Labels | None = None,
    temperature: float = 1.0,
    truncation: float = 0.0,
) -> Iterator[Drawn]:
    """Codes of a density, block by block: (number of the first row, rows that are kept, codes, their generator).

    A block always has `ROWS` codes. The arguments are those of `Generator.blocks`, and all but the share of truncation
    are checked before this returns.
    """
    asked = resolve(density, n, seed, labels)
    rows = n if asked is None else len(asked)
    if rows is None or rows < 1:
        raise UserError(
            f"samples: found {rows}, expected a whole number of at least 1; ask for one sample or more"
        )
    if truncation and not density.exact_log_prob:
        raise UserError(
            f"truncation: found {truncation} for density {density.name}, which has no exact score, expected 0"
        )
    return _draw_blocks(density, rows, seed, asked, temperature, truncation)


def _draw_blocks(
    density: Density, rows: int, seed: int, asked: np.ndarray | None, temperature: float, truncation: float
) -> Iterator[Drawn]:
    import torch

    from postprior.stage1_vae.randomness import generator_for

    for number, start in enumerate(range(0, rows, ROWS)):
        generator = generator_for("cpu", seed, number)
        kept = min(ROWS, rows - start)
        wanted = None if asked is None else torch.from_numpy(np.resize(asked[start : start + kept], ROWS))
        try:
            with torch.no_grad():
                codes = density.sample(ROWS, generator, wanted, temperature, truncation)
        except ValueError as error:
            raise UserError(str(error)) from None
        yield start, kept, codes, generator


def resolve(density: Density, n: int | None, seed: int, labels: Labels | None) -> np.ndarray | None:
    """The label asked for each row, (n,) int64, or None where the density draws them."""
    if labels is None:
        return None
    classes = density.classes
    if not classes.labelled:
        raise UserError(f"labels: density {density.name} has none, expected no labels; leave them out")
    numbers = classes.labels.tolist()
    known = {classes.names[number] if classes.names else str(number): number for number in numbers}
    if isinstance(labels, Mapping):
        counts = {
            pick(known, label, "labels", "label of the codes"): count for label, count in labels.items()
        }
        if any(count < 0 for count in counts.values()):
            raise UserError(
                f"labels: found counts {list(labels.values())}, expected whole numbers of at least 0"
            )
        rows = np.repeat(np.array(list(counts), np.int64), list(counts.values()))
        asked = np.random.default_rng(seed).permutation(rows)
    else:
        asked = np.asarray(labels, np.int64)
    if n is not None and asked.shape != (n,):
        raise UserError(f"labels: found {asked.size} for {n} samples, expected one for each sample")
    if len(unknown := np.setdiff1d(asked, numbers)):
        raise UserError(f"labels: found {unknown[0]}, expected some of {', '.join(map(str, numbers))}")
    return asked


def as_set(settings: Generate, rows: int) -> dict[str, Any]:
    """How params.yaml asks for so many rows: arguments of `Generator.sample` beside their number and the seed."""
    labels = None if settings.balance is None else apportion(settings.balance, rows)
    return {"labels": labels, **settings.model_dump(include={"values", "temperature", "truncation"})}


def apportion(shares: dict[str, float], rows: int) -> dict[str, int]:
    """Counts that sum to `rows` in proportion to the shares, by largest remainders.

    >>> apportion({"a": 1.0, "b": 2.0}, 10)
    {'a': 3, 'b': 7}
    """
    exact = np.array(list(shares.values())) / sum(shares.values()) * rows
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: rows - counts.sum()]] += 1
    return dict(zip(shares, counts.tolist(), strict=True))
