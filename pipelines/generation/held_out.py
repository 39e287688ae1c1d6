"""Held-out rows in which values are hidden as other rows lack them: draws of these values, and their losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.completion import Changes, decoded_blocks, drawn_values, row_blocks
from postprior.pipelines.generation.posterior import has_exact_posterior, powers
from postprior.pipelines.metrics.imputation.scores import energy_score
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.pipelines.progress import substeps
from postprior.pipelines.threads import in_order
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.likelihoods import Likelihood
from postprior.stage1_vae.modalities import LOGARITHMIC, Modality
from postprior.stage2_latent.density import Density

DRAWS = 39  # draws per held-out row: their 90 % interval leaves out the two smallest and the two largest
CHAINS = 19  # the same for draws that are ends of chains (`posterior`), which cost more; it leaves out one and one
CHOOSING, FEW = 200, 16  # rows that choose the power, and draws for each of them

Block = tuple[Ints, dict[str, tuple[Ints, np.ndarray]], list[tuple[Modality, Likelihood]], torch.Generator]
"""Rows (n,) of a block that lack values, what was drawn for them, its likelihoods, and the generator of the block."""


class Hidden:
    """Held-out rows in which values are hidden, and draws of these values.

    Attributes:
        rows: the rows with what they have, (N,).
        incomplete: the rows after hiding.
        missing: missing[m] (N, *shape), what they lack then.
        changes: what is changed in the draws, or None.
    """

    def __init__(
        self,
        model: Autoencoder,
        density: Density,
        rows: Dataset,
        like: Dataset,
        seed: int,
        labels: Ints | None,
        changes: Changes | None = None,
    ) -> None:
        self.model, self.density, self.rows, self.seed, self.labels = model, density, rows, seed, labels
        self.changes = changes
        self.incomplete = hidden_as(rows, like, np.random.default_rng(seed))
        self.missing = {m.name: self.incomplete.missing(m.name) for m in rows.modalities}

    def truth(self, modality: Modality, places: Ints) -> tuple[np.ndarray, NDArray[np.bool_]]:
        """Return the values (n, *shape) of rows (n,), and which of them are hidden."""
        hidden = self.missing[modality.name][places] & ~self.rows.missing(modality.name, places)
        return np.asarray(self.rows.data[modality.name][places]), hidden

    @property
    def draws(self) -> int:
        """The number of draws per row from which intervals are computed."""
        return CHAINS if has_exact_posterior(self.model, self.density) else DRAWS

    def blocks(self, power: float, draws: int, most: int | None = None) -> Iterator[Block]:
        """Draw the missing values of the first `most` rows, `draws` times, block by block."""
        incomplete = self.incomplete if most is None else self.incomplete.select(np.arange(min(most, len(self.rows))))
        drawn = decoded_blocks(self.model, self.density, incomplete, draws, self.seed, self.labels, power=power)
        for _, generator, decoded in substeps(drawn, len(row_blocks(incomplete))):
            likelihoods, block = [], {}
            for m, places, p, _ in decoded:
                x = drawn_values(m, p, generator, self.rows.conversion, self.changes)
                block[m.name] = places, np.where(self.missing[m.name][places], x, self.rows.data[m.name][places])
                likelihoods.append((m, p))
            rows = np.unique(np.concatenate([places for places, _ in block.values()])) if block else np.zeros(0, int)
            yield rows, block, likelihoods, generator

    def best_power(self) -> float:
        """Return the power of `powers` with the least loss of `CHOOSING` rows."""

        def loss(power: float) -> Losses:
            losses = Losses(self.rows.modalities)
            for _, drawn, _, _ in self.blocks(power, FEW, CHOOSING):
                losses.add(drawn, self)
            return losses

        candidates = powers(self.rows.modalities)
        losses = dict(zip(candidates, in_order(loss, candidates), strict=True))
        return min(candidates, key=lambda power: losses[power].relative_to(losses[candidates[-2]]))


class Losses:
    """Sums of the energy scores of hidden values: of each column of tables, and of vectors.

    That of a number is the CRPS; that of a class is that of its indicators.

    Attributes:
        sums: by table, of each column (J,).
        vectors: by vector, of all its hidden values of a row together, as encoders read them: counts as logarithms.
    """

    def __init__(self, modalities: Sequence[Modality]) -> None:
        self.modalities = [m for m in modalities if m.columns]
        self.sums = {m.name: np.zeros(m.shape) for m in self.modalities}
        self.vectors = {m.name: 0.0 for m in modalities if m.kind == "vector"}

    def add(self, drawn: Mapping[str, tuple[Ints, np.ndarray]], hiding: Hidden) -> None:
        """Add the draws of a block."""
        for m in self.modalities:
            if m.name not in drawn:
                continue
            places, x = drawn[m.name]
            truth, hidden = hiding.truth(m, places)
            for j, classes in enumerate(np.atleast_1d(discrete(m))):
                rows = np.flatnonzero(hidden[:, j])
                values, true = x[:, rows, j, None], truth[rows, j, None]
                if classes:
                    levels = np.unique(np.concatenate([values.ravel(), true.ravel()]))
                    values, true = ((each == levels).astype(np.float64) for each in (values, true))
                self.sums[m.name][j] += energy_score(values, true).sum() if len(rows) else 0
        for m in hiding.rows.modalities:
            if m.name in self.vectors and m.name in drawn:
                places, x = drawn[m.name]
                truth, hidden = hiding.truth(m, places)
                read = np.log1p if m.likelihood in LOGARITHMIC else np.asarray
                self.vectors[m.name] += energy_score(read(np.where(hidden, x, truth)), read(truth)).sum()

    def better_than(self, other: Losses) -> set[tuple[str, int]]:
        """Return the columns (table, number) with a smaller loss than in `other`."""
        return {(name, j) for name, each in self.sums.items() for j in np.flatnonzero(each < other.sums[name]).tolist()}

    def relative_to(self, other: Losses) -> float:
        """Return the mean over the columns of their losses in units of those of `other`, and over this and vectors."""
        mine, others = (np.concatenate([*each.sums.values()]) for each in (self, other))
        counted = others > 0
        ratios = [float(np.mean(mine[counted] / others[counted]))] if counted.any() else []
        ratios += [loss / other.vectors[name] for name, loss in self.vectors.items() if other.vectors[name] > 0]
        return float(np.mean(ratios)) if ratios else 1.0


def discrete(modality: Modality) -> NDArray[np.bool_]:
    """Return which values of a modality are classes or binary, not numbers or counts: (J,) for a table, else ()."""
    flags = [part.likelihood in ("categorical", "bernoulli") for part in modality.columns or (modality,)]
    return np.array(flags if modality.columns else flags[0])


def hidden_as(held_out: Dataset, like: Dataset, rng: np.random.Generator) -> Dataset:
    """Hide in each held-out row what a random incomplete row of `like` lacks.

    A row that would have no modality left keeps its modalities.
    """
    incomplete = np.flatnonzero(~like.fully_observed.all(1))
    if not len(incomplete):
        return held_out
    donors = rng.choice(incomplete, len(held_out))
    mask = held_out.observed & like.observed[donors]
    empty = ~mask.any(1)
    mask[empty] = held_out.observed[empty]
    cells = dict(held_out.cells)
    for name, observed in like.cells.items():
        cells[name] = np.array(held_out.cells.get(name, True) & observed[donors])
    return replace(held_out, mask=mask, cells=cells, folder=None)
