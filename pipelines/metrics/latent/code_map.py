"""A map of the latent space in two dimensions: training, held-out and drawn codes on one plane."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

MOST = 500  # points of a set that are worth showing
KINDS = ("pca", "umap")


@dataclass(frozen=True)
class CodeMap:
    """Points in the plane."""

    train: NDArray[np.float64]  # (N, 2)
    held_out: NDArray[np.float64]  # (n, 2)
    drawn: dict[str, NDArray[np.float64]]  # by density, (m, 2) each
    explained: float | None  # the share of the training codes' variance in the plane; None where axes mean nothing


def code_map(train: Floats, held_out: Floats, drawn: Mapping[str, Floats], kind: str = "pca", seed: int = 0) -> CodeMap:
    """The map of codes (N, D) and (n, D), and of those drawn from densities (m, D), D at least 2, none missing.

    By `pca` on the two directions in which training codes vary most, or by `umap` (McInnes, Healy & Melville 2018,
    https://arxiv.org/abs/1802.03426), which shows neighbourhoods and is fitted to all sets together, from the seed.
    """
    sets = [np.asarray(codes, np.float64) for codes in (train, held_out, *drawn.values())]
    points, explained = _principal(sets) if kind == "pca" else (_neighbourhoods(sets, seed), None)
    return CodeMap(points[0], points[1], dict(zip(drawn, points[2:], strict=True)), explained)


def chosen(rows: int, seed: int) -> Ints:
    """Rows to show of so many, in order: `MOST` at random, or all."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])


def _principal(sets: list[NDArray[np.float64]]) -> tuple[list[NDArray[np.float64]], float]:
    """The sets on the two directions in which the first varies most, and the share of its variance there."""
    centre = sets[0].mean(0)
    variances, directions = np.linalg.eigh(np.cov(sets[0].T))
    axes = directions[:, :-3:-1]  # (D, 2), the greater variance first
    # an eigenvector has no sign: its largest entry is made positive, so that maps of one space agree
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0))
    share = variances[-2:].sum() / max(variances.sum(), np.finfo(np.float64).tiny)  # codes may not vary at all
    return [(codes - centre) @ axes for codes in sets], float(share)


def _neighbourhoods(sets: list[NDArray[np.float64]], seed: int) -> list[NDArray[np.float64]]:
    """The sets as UMAP lays them out together."""
    try:
        from umap import UMAP
    except ImportError:
        raise UserError(
            "compare.map: found umap, whose package is not installed, expected it or pca; "
            "run pip install 'postprior[umap]'"
        ) from None
    together = np.concatenate(sets)
    layout = UMAP(n_neighbors=min(15, len(together) - 1), random_state=seed, n_jobs=1)
    points = layout.fit_transform(together).astype(np.float64)
    return np.split(points, np.cumsum([len(codes) for codes in sets])[:-1])
