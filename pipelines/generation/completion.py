"""Impute rows: draw missing values given the observed ones, and keep observed values bit for bit."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import as_data, rows_as_data
from postprior.pipelines.generation.conditional import DRAWS, conditional_draw
from postprior.pipelines.generation.posterior import TRUST, has_exact_posterior, posterior_draw
from postprior.pipelines.generation.request import is_drawn
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.threads import in_order
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.likelihoods import Likelihood
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.randomness import generator_for, seed_from
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.refiner import Refiner

ROWS = 64  # rows that lack values per block, at most; every block has its own seed
OF_TABLES = 256  # the same for tables alone, whose rows are small
MOST = 256  # rows per block, at most
CANDIDATES = 4  # candidates per chosen draw of a row; in total at least `DRAWS`, at most `Density.proposals`


class Changes(Protocol):
    """What is changed in values that are drawn, such as `calibration.Calibration`."""

    @property
    def power(self) -> float:
        """The power of the likelihood of observed cells, as in `posterior_draw`."""

    def tempered(self, modality: Modality, p: Likelihood) -> Likelihood:
        """Return the likelihood of a modality from which values are drawn instead."""

    def swept(
        self,
        values: Mapping[str, np.ndarray],
        free: Mapping[str, NDArray[np.bool_]],
        labels: Ints | None,
        context: Floats,
        rng: np.random.Generator,
    ) -> Mapping[str, np.ndarray]:
        """Return rows of tables in which the cells free[m] are drawn anew; see `CellForests.swept`."""

    def context(self, vectors: Mapping[str, np.ndarray], rows: int) -> Floats:
        """Return what `swept` reads of vectors, values[m] (B, X), of B = `rows` complete rows: (B, C)."""

    def spread(self, modality: Modality, x: Tensor) -> Tensor:
        """Return what draws (R, n, *shape) of a modality are replaced by."""


def completions(
    model: Autoencoder,
    density: Density,
    data: Dataset,
    draws: int,
    seed: int,
    values: str,
    labels: Ints | None = None,
    calibration: Changes | None = None,
    refiner: Refiner | None = None,
    numbers: Iterable[int] | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Impute the missing values of every row R = `draws` times, block by block, with the arguments of `imputations`.

    Yields:
        The number of the first row of a block, and its n completed rows by modality, (R, n, *shape).
    """
    imputed = imputations(model, density, data, draws, seed, values, labels, calibration, refiner, numbers)
    for rows, found in imputed:
        block = {name: np.repeat(np.array(array[rows])[None], draws, 0) for name, array in data.data.items()}
        for name, (places, x) in found.items():
            block[name][:, places - rows.start] = x
        yield rows.start, block


@torch.no_grad()
def imputations(
    model: Autoencoder,
    density: Density,
    data: Dataset,
    draws: int,
    seed: int,
    values: str,
    labels: Ints | None = None,
    calibration: Changes | None = None,
    refiner: Refiner | None = None,
    numbers: Iterable[int] | None = None,
) -> Iterator[tuple[slice, dict[str, tuple[Ints, np.ndarray]]]]:
    """Impute the missing values of every row R = `draws` times, block by block.

    Args:
        data: Rows with the modalities of the model.
        values: As in `SampleRequest`.
        labels: As in `decoded_blocks`.
        calibration: What is changed in values that are drawn, or None.
        refiner: Draws the modalities that it knows; None if the values are not refined.
        numbers: As in `decoded_blocks`.

    Yields:
        The rows of a block, and by modality the rows (n,) that lack values of it, with their completed values
        (R, n, *shape); nothing for a modality that no row lacks.
    """
    missing = {m.name: data.missing(m.name) for m in model.modalities}
    power = TRUST if calibration is None else calibration.power
    for block, generator, decoded in decoded_blocks(model, density, data, draws, seed, labels, numbers, power):
        imputed: dict[str, tuple[Ints, np.ndarray]] = {}
        for m, places, p, latents in decoded:
            if is_drawn(values, m):
                x = drawn_values(m, p, generator, data.conversion, calibration)
            else:
                classes = None if labels is None else torch.from_numpy(labels[places]).expand(draws, -1)
                mean = typical_values(m, p, latents, classes, generator, refiner)
                x = as_data(m, m.to_support(mean).numpy(), data.conversion)
            known = data.data[m.name]
            x = np.where(missing[m.name][places], x, known[places])  # (R, n, *shape)
            imputed[m.name] = places, x.astype(known.dtype, copy=False)
        if imputed:
            rows = np.unique(np.concatenate([places for places, _ in imputed.values()]))
            if calibration is not None and all(is_drawn(values, m) for m in model.modalities):
                imputed |= swept(data, rows, missing, imputed, labels, calibration, generator)
            imputed |= on_whole_rows(data, rows, missing, imputed, partial(_constrained, data))
        yield block, imputed


def decoded_blocks(
    model: Autoencoder,
    density: Density,
    data: Dataset,
    draws: int,
    seed: int,
    labels: Ints | None,
    numbers: Iterable[int] | None = None,
    power: float = TRUST,
) -> Iterator[tuple[slice, torch.Generator, Iterator[tuple[Modality, Ints, Likelihood, Tensor]]]]:
    """Decode R = `draws` latents of every row that lacks values, block by block.

    The latents of a row are drawn from its posterior under the density (`posterior_draw` if it suits the model, else
    `conditional_draw`). Only the decoders of modalities with missing values are run.

    Args:
        labels: Labels (N,) that the density is conditioned on, −1 for rows without a label, or None.
        numbers: The numbers of the blocks; None for all.
        power: As in `posterior_draw`.

    Yields:
        The rows of a block, its random generator, and for each modality that some of them lack, at least in part, the
        rows (n,), the likelihood of its values, batch shape (R, n), and what its decoder read, (R, n, F).
    """
    whole = data.fully_observed

    def decoded(rows: Ints, latents: Tensor) -> Iterator[tuple[Modality, Ints, Likelihood, Tensor]]:
        for m, lacks_values in zip(model.modalities, ~whole[rows].T, strict=True):
            if lacks_values.any():
                chosen = latents[:, torch.from_numpy(lacks_values)]
                yield m, rows[lacks_values], model.decode_one(m, chosen), chosen

    blocks, exact = row_blocks(data), has_exact_posterior(model, density)

    def drawn(number: int) -> tuple[slice, torch.Generator, Ints, Tensor]:
        block = blocks[number]
        rows = block.start + np.flatnonzero(~whole[block].all(1))
        generator = generator_for("cpu", seed, number)
        latents = torch.empty(draws, 0)
        if len(rows):
            row_labels = None if labels is None else torch.from_numpy(labels[rows])
            batch, candidates = data.batch(rows), max(DRAWS, min(density.proposals, CANDIDATES * draws))
            if exact:
                latents = posterior_draw(model, density, batch, generator, draws, row_labels, power)
            else:
                latents, _ = conditional_draw(model, density, batch, generator, candidates, (draws,), row_labels)
        return block, generator, rows, latents

    chosen = range(len(blocks)) if numbers is None else [*numbers]
    for block, generator, rows, latents in in_order(drawn, chosen) if exact else map(drawn, chosen):
        yield block, generator, decoded(rows, latents)


def row_blocks(data: Dataset) -> list[slice]:
    """Return the blocks of rows that are imputed together: some that lack values, and complete rows between them."""
    most = OF_TABLES if all(m.kind == "table" for m in data.modalities) else ROWS
    before = np.concatenate([[0], (~data.fully_observed.all(1)).cumsum()])  # rows that lack values before each row
    starts = [0]
    while starts[-1] < len(data):
        end = int(np.searchsorted(before, before[starts[-1]] + most, "right")) - 1
        starts.append(min(end, starts[-1] + MOST))
    return [slice(start, end) for start, end in pairwise(starts)]


def typical_values(
    modality: Modality,
    p: Likelihood,
    latents: Tensor,
    labels: Tensor | None,
    generator: torch.Generator,
    refiner: Refiner | None,
) -> Tensor:
    """Return the means (…, *shape) of a likelihood, or a draw given them by a refiner that knows the modality.

    Args:
        latents: (…, F), what the decoder read.
        labels: (…) int64, −1 for a row without a label; None if no row has one.
    """
    if refiner is None or modality.name not in refiner.shapes:
        return p.mean
    return refiner.sample(modality.name, p.mean, latents, labels, generator)


def drawn_values(
    modality: Modality,
    p: Likelihood,
    generator: torch.Generator,
    conversion: dict[str, Any] | None,
    calibration: Changes | None = None,
) -> np.ndarray:
    """Draw the values (R, n, *shape) of a modality from their likelihood, batch shape (R, n), as the data have them."""
    if calibration is None:
        x = p.rsample((), generator)
    else:
        x = calibration.spread(modality, calibration.tempered(modality, p).rsample((), generator))
    return as_data(modality, modality.to_support(x).numpy(), conversion)


Imputed = Mapping[str, tuple[Ints, np.ndarray]]
"""Imputed rows (k,) of a block and their completed values (R, k, *shape), by modality."""


def on_whole_rows(
    data: Dataset,
    rows: Ints,
    missing: Mapping[str, np.ndarray],
    imputed: Imputed,
    change: Callable[[dict[str, np.ndarray], dict[str, np.ndarray]], Mapping[str, np.ndarray]],
) -> Imputed:
    """Return the imputed tables of a block of `imputations` after a change of whole rows.

    Args:
        rows: The rows (n,) of the block that lack values.
        missing: missing[m] (N, *shape) bool, the cells that are drawn.
        change: Returns other rows of all tables for whole[m] (R · n, J), of which it may change the cells free[m].
    """
    draws = len(next(iter(imputed.values()))[1])
    whole, free, drawn = {}, {}, {}
    for name in (m.name for m in data.modalities if m.columns):
        whole[name], free[name] = (np.tile(array[rows], (draws, 1)) for array in (data.data[name], missing[name]))
        if name in imputed:
            places, x = imputed[name]
            drawn[name] = np.tile(np.isin(rows, places), draws)
            whole[name][drawn[name]] = x.reshape(-1, x.shape[-1])
    changed = change(whole, free)
    return {
        name: (imputed[name][0], changed[name][there].reshape(imputed[name][1].shape)) for name, there in drawn.items()
    }


def swept(
    data: Dataset,
    rows: Ints,
    missing: Mapping[str, np.ndarray],
    imputed: Imputed,
    labels: Ints | None,
    calibration: Changes,
    generator: torch.Generator,
) -> Imputed:
    """Return the imputed tables of a block, with arguments as in `on_whole_rows`, drawn anew by `calibration`."""
    rng, draws = np.random.default_rng(seed_from(generator)), len(next(iter(imputed.values()))[1])
    row_labels = None if labels is None else np.tile(labels[rows], draws)
    context = _context(data, rows, imputed, calibration, draws)
    change = partial(calibration.swept, labels=row_labels, context=context, rng=rng)
    return on_whole_rows(data, rows, missing, imputed, change)


def _context(data: Dataset, rows: Ints, imputed: Imputed, calibration: Changes, draws: int) -> Floats:
    """Return what redrawn tables read of the vectors of rows, (draws · n, C); observed vectors are read once."""
    vectors = {m.name: np.asarray(data.data[m.name][rows]) for m in data.modalities if m.kind == "vector"}
    context = np.tile(calibration.context(vectors, len(rows)), (draws, 1, 1))  # (draws, n, C)
    drawn = {name: imputed[name][0] for name in vectors if name in imputed}
    if drawn and context.size:
        lacking = np.isin(rows, np.concatenate([*drawn.values()]))
        whole = {name: np.tile(x[lacking], (draws, 1, 1)) for name, x in vectors.items()}
        for name, places in drawn.items():
            whole[name][:, np.isin(rows[lacking], places)] = imputed[name][1]
        flat = {name: x.reshape(-1, x.shape[-1]) for name, x in whole.items()}
        context[:, lacking] = calibration.context(flat, draws * lacking.sum()).reshape(draws, lacking.sum(), -1)
    return context.reshape(draws * len(rows), -1)


def _constrained(
    data: Dataset, whole: Mapping[str, np.ndarray], free: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    return rows_as_data(whole, data.conversion, free)


def filled_fields(data: Dataset) -> dict[str, Any]:
    """Return the fields of an imputed dataset: nothing is missing, and imputed values are marked."""
    filled_cells = {name: np.array(data.missing(name)) for name in data.cells}
    return {"mask": None, "cells": {}, "filled": ~data.fully_observed, "filled_cells": filled_cells}


def tiled(data: Dataset, rows: int) -> Dataset:
    """Repeat the rows of a dataset in their order up to `rows` rows, without ids, which would not be unique."""
    return replace(data.select(np.arange(rows) % len(data)), ids=None)
