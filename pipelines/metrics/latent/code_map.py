"""A two-dimensional map of the latent space with training, held-out and drawn codes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints

MOST = 500  # maximum number of points shown per set
KINDS = ("pca", "umap")


@dataclass(frozen=True)
class CodeMap:
    """Codes projected to the plane."""

    train: NDArray[np.float64]  # (N, 2)
    held_out: NDArray[np.float64]  # (n, 2)
    drawn: dict[str, NDArray[np.float64]]  # by density, each (m, 2)
    explained: float | None  # share of the training codes' variance in the plane; None for UMAP


def code_map(train: Floats, held_out: Floats, drawn: Mapping[str, Floats], kind: str = "pca", seed: int = 0) -> CodeMap:
    """Map training codes (N, D), held-out codes (n, D) and codes drawn from densities (m, D) to the plane.

    D is at least 2, and no value is missing. `pca` projects to the two directions in which training codes vary most.
    `umap` (McInnes, Healy & Melville 2018, https://arxiv.org/abs/1802.03426) preserves neighbourhoods; it is fitted to
    all sets together with this seed.
    """
    sets = [np.asarray(codes, np.float64) for codes in (train, held_out, *drawn.values())]
    points, explained = _principal(sets) if kind == "pca" else (_neighbourhoods(sets, seed), None)
    return CodeMap(points[0], points[1], dict(zip(drawn, points[2:], strict=True)), explained)


def chosen(rows: int, seed: int) -> Ints:
    """Return the rows to show in ascending order: all, or `MOST` drawn at random."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST])


def _principal(sets: list[NDArray[np.float64]]) -> tuple[list[NDArray[np.float64]], float]:
    """Project all sets to the first set's two main directions; return them and the share of variance explained."""
    centre = sets[0].mean(0)
    variances, directions = np.linalg.eigh(np.cov(sets[0].T))
    axes = directions[:, :-3:-1]  # (D, 2), the larger variance first
    # the sign of an eigenvector is arbitrary; its largest entry is made positive, so that maps of one space agree
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0))
    share = variances[-2:].sum() / max(variances.sum(), np.finfo(np.float64).tiny)  # constant codes have no variance
    return [(codes - centre) @ axes for codes in sets], float(share)


def _neighbourhoods(sets: list[NDArray[np.float64]], seed: int) -> list[NDArray[np.float64]]:
    """Return the sets in a common UMAP layout."""
    try:
        from umap import UMAP
    except ImportError:
        raise UserError(
            "compare.map: found umap, but its package is not installed; "
            "run pip install 'postprior[umap]', or choose pca"
        ) from None
    combined = np.concatenate(sets)
    layout = UMAP(n_neighbors=min(15, len(combined) - 1), random_state=seed, n_jobs=1)
    points = layout.fit_transform(combined).astype(np.float64)
    return np.split(points, np.cumsum([len(codes) for codes in sets])[:-1])
