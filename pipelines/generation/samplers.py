"""Baseline samplers of tables and vectors: they draw rows like the training rows, without any latent codes.

    independent columns: every cell from the training cells of its column
    Gaussian copula: u_j = Φ(z_j), z ~ N(0, R), and x_j = the u_j-quantile of the training cells of column j

R has the correlations of the normal scores Φ⁻¹((r − ½) / n) of the training cells, where equal values share the mean of
their ranks r, over the rows that have both columns. R is shrunk towards the identity by λ = Σ var(R_ij) / Σ R_ij²,
var(R_ij) ≈ (1 − R_ij²)² / (n_ij − 1) (Schäfer & Strimmer 2005, https://doi.org/10.2202/1544-6115.1175), and negative
eigenvalues are set to 0. Classes are ordered as the manifest lists them. Labels are one more column.

A row lacks the modalities of a random training row; in the Gaussian copula it also lacks the cells of this row.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import emptied

Cells = NDArray[np.float64]  # (N, C), NaN where a cell is missing
COLUMNS = 2000  # maximum number of columns: the correlation matrix grows with its square
ROWS = 10_000  # maximum number of training rows that are read


def unsuitable(train: Dataset) -> str:
    """Return why these rows have no baseline samplers, in one clause; "" if they have."""
    if other := next((m for m in train.modalities if not m.tabular), None):
        return (
            f"modality {other.title} is of kind {other.kind}, and only tables and vectors are sampled without a model"
        )
    columns = sum(m.shape[0] for m in train.modalities)
    return f"there are {columns} columns, more than {COLUMNS}" if columns > COLUMNS else ""


def independent_columns(train: Dataset, samples: int, seed: int) -> Dataset:
    """Draw rows whose columns are independent."""
    rng = np.random.default_rng([seed, 1])
    rows, cells = _read(train, rng)
    drawn, mask = np.empty((samples, cells.shape[1])), rows.observed[rng.integers(0, len(rows), samples)]
    present = np.repeat(rows.observed, [m.shape[0] for m in train.modalities], axis=1)
    for c, column in enumerate(cells.T):
        known = column[present[:, c]] if c < present.shape[1] else column
        drawn[:, c] = rng.choice(known, samples) if len(known) else np.nan
    return _dataset(train, drawn, mask)


def gaussian_copula(train: Dataset, samples: int, seed: int) -> Dataset:
    """Draw rows whose columns have a Gaussian copula."""
    from scipy.special import ndtr

    rng = np.random.default_rng([seed, 2])
    rows, cells = _read(train, rng)
    pattern = rng.integers(0, len(rows), samples)
    values, vectors = np.linalg.eigh(shrunk_correlation(normal_scores(cells)))
    root = vectors * np.sqrt(values.clip(0))
    root /= np.linalg.norm(root, axis=1, keepdims=True)
    u = ndtr(rng.standard_normal((samples, len(values))) @ root.T)
    drawn = np.full(u.shape, np.nan)
    for c, column in enumerate(np.sort(cells, axis=0).T):  # NaN last
        if known := int((~np.isnan(column)).sum()):
            drawn[:, c] = column[np.minimum((u[:, c] * known).astype(int), known - 1)]
    return _dataset(train, np.where(np.isnan(cells[pattern]), np.nan, drawn), rows.observed[pattern])


SAMPLERS: dict[str, Callable[[Dataset, int, int], Dataset]] = {
    "gaussian_copula": gaussian_copula,
    "independent_columns": independent_columns,
}
"""The baseline samplers by the name of their row: functions of training rows, a number of samples and a seed."""


def normal_scores(cells: Cells) -> Cells:
    """Return the normal scores (N, C) of the cells of every column; NaN where missing, 0 in a constant column."""
    from scipy.special import ndtri

    scores = np.full(cells.shape, np.nan)
    for c, column in enumerate(cells.T):
        seen = ~np.isnan(column)
        _, places, counts = np.unique(column[seen], return_inverse=True, return_counts=True)
        scores[seen, c] = ndtri((counts.cumsum() - counts / 2) / max(counts.sum(), 1))[places]
    return scores


def shrunk_correlation(scores: Cells) -> NDArray[np.float64]:
    """Return the correlations (C, C) of columns (N, C) with mean 0, over the rows that have both, and shrunk."""
    seen = (~np.isnan(scores)).astype(float)
    filled, rows = np.nan_to_num(scores), seen.T @ seen
    product, squares = filled.T @ filled, (filled**2).T @ seen  # squares[i, j]: of column i in the rows that have j
    scale = np.sqrt(squares * squares.T)
    r = np.divide(product, scale, where=scale > 0, out=np.zeros_like(product)).clip(-1, 1)
    np.fill_diagonal(r, 0)
    noise = (1 - r**2) ** 2 / np.maximum(rows - 1, 1)
    np.fill_diagonal(noise, 0)
    signal = (r**2).sum()
    r *= 1 - min(1.0, noise.sum() / signal) if signal > 0 else 0.0
    np.fill_diagonal(r, 1)
    return r


def _read(train: Dataset, rng: np.random.Generator) -> tuple[Dataset, Cells]:
    """Return at most `ROWS` random training rows, and their cells with the labels as the last column."""
    rows = train.select(np.sort(rng.permutation(len(train))[:ROWS]))
    cells = [np.where(rows.missing(m.name), np.nan, np.asarray(rows.data[m.name], np.float64)) for m in rows.modalities]
    labels = [] if rows.labels is None else [np.where(rows.labelled, np.float64(rows.labels), np.nan)[:, None]]
    return rows, np.concatenate([*cells, *labels], axis=1)


def _dataset(train: Dataset, drawn: Cells, mask: NDArray[np.bool_]) -> Dataset:
    """Return drawn cells (n, C), NaN where missing, as a dataset like the training rows, with its mask (n, M)."""
    parts = np.split(drawn, np.cumsum([m.shape[0] for m in train.modalities]), axis=1)
    values = {m.name: part for m, part in zip(train.modalities, parts, strict=False)}
    known = {name: ~np.isnan(part) for name, part in values.items()}
    labels = None if train.labels is None else np.where(np.isnan(parts[-1]), -1, parts[-1])[:, 0].astype(np.int64)
    rows = Dataset(
        train.modalities,
        {name: np.nan_to_num(part).astype(np.float32) for name, part in values.items()},
        mask=None if train.mask is None else mask,
        cells={name: known[name] | ~mask[:, [m]] for m, name in enumerate(known) if name in train.cells},
        labels=labels,
        label_names=train.label_names,
        conversion=train.conversion,
    )
    return emptied(rows)
