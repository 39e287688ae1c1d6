"""Compose digits over photographs: multimodal samples from a pool of labelled grey images and some backgrounds.

The pool is split first. All images of a sample come from one *group* of source images that share a label. Groups are
the independent units of a split: an interval that resamples groups resamples source images, regardless of how often
each image was drawn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality

GROUP = 6  # approximate number of source images per group in a held-out split
Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Background (n, 3, H, W) and digit (n, 1, H, W), both in [0, 1] → image (n, 3, H, W)."""


class Pool(NamedTuple):
    """Grey images (n, H, W) in [0, 1] with their labels (n,)."""

    images: np.ndarray
    labels: np.ndarray


def crops(picture: np.ndarray, samples: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Cut random windows (samples, 3, *shape) out of a picture (H, W, 3)."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, shape, axis=(0, 1))  # (rows, columns, 3, *shape)
    return windows[tuple(rng.integers(size, size=samples) for size in windows.shape[:2])]


def compose_splits(
    pools: Mapping[str, Pool],
    samples: Sequence[int],
    layers: Sequence[tuple[np.ndarray, Blend]],
    rng: np.random.Generator,
    provenance: dict[str, Any],
) -> dict[str, Dataset]:
    """Compose one dataset per split from its pool, with the given numbers of samples."""
    return {
        split: compose(pool, count, layers, rng, split, provenance)
        for (split, pool), count in zip(pools.items(), samples, strict=True)
    }


def compose(
    pool: Pool,
    samples: int,
    layers: Sequence[tuple[np.ndarray, Blend]],
    rng: np.random.Generator,
    split: str,
    provenance: dict[str, Any],
) -> Dataset:
    """Compose samples: each layer (picture, blend) shows another image of the label over a random crop.

    The pool of a held-out split is divided into groups of source images, which the dataset stores.
    """
    held_out = split != "train"
    if samples < 1:
        expected = "expected at least 1; request more samples"
        raise UserError(f"{provenance['source']}: {split}: {samples} samples requested, {expected}")
    groups = assign_groups(pool.labels, GROUP, rng) if held_out else np.unique(pool.labels, return_inverse=True)[1]
    rows = draw_tuples(groups, samples, len(layers), rng)  # (N, M)
    shape = pool.images.shape[1:]
    modalities = tuple(Modality(f"m{number}", "image", (3, *shape), "laplace", (0, 1)) for number in range(len(layers)))
    data = {}
    for modality, column, (picture, blend) in zip(modalities, rows.T, layers, strict=True):
        image = blend(crops(picture, samples, shape, rng), pool.images[column, None])
        data[modality.name] = np.clip(image, 0, 1).astype(np.float32, copy=False)
    return Dataset(
        modalities,
        data,
        labels=pool.labels[rows[:, 0]],
        groups=groups[rows[:, 0]] if held_out else None,
        ids=np.char.add(f"{split}-", np.arange(samples).astype(str)),
        label_names=tuple(str(label) for label in range(10)),
        provenance={**provenance, "split": split, "source_images": len(pool.labels)},
    )


def split_by_label(labels: np.ndarray, shares: tuple[float, ...], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Split the rows of `labels` (n,) at random into parts with the given shares of each label.

    The parts are disjoint, and the first part gets the rows that remain after rounding.

    >>> first, second = split_by_label(np.repeat([0, 1], 10), (0.8, 0.2), np.random.default_rng(0))
    >>> len(first), len(second), len(np.intersect1d(first, second))
    (16, 4, 0)
    """
    found = ", ".join(f"{share:g}" for share in shares)
    if not all(share > 0 for share in shares):
        raise UserError(f"shares of the splits: {found} found, expected numbers above 0 with sum 1; lower a share")
    order, rank, count = _ranks(labels, rng)
    bounds = np.cumsum(shares[:0:-1])[::-1]  # share of a label that lies in this part or a later one
    part = (count[:, None] - rank[:, None] <= np.rint(bounds * count[:, None])).sum(1)
    rows = tuple(order[part == number] for number in range(len(shares)))
    if not all(map(len, rows)):
        found = f"{found} of {len(labels)} images leave one split empty"
        raise UserError(f"shares of the splits: {found}, expected at least one image in each; raise its share")
    return rows


def assign_groups(labels: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the group (n,) of each image: about `size` random images of one label share a group.

    All labels have the same number of groups.

    >>> groups = assign_groups(np.repeat([0, 1], 12), 6, np.random.default_rng(0))
    >>> np.bincount(groups).tolist(), np.unique(groups[:12]).tolist()
    ([6, 6, 6, 6], [0, 1])
    """
    order, rank, count = _ranks(labels, rng)
    groups = max(1, round(len(labels) / len(np.unique(labels)) / size))
    pair = np.stack([labels[order], rank * groups // count])
    assigned = np.empty(len(labels), np.int64)
    assigned[order] = np.unique(pair, axis=1, return_inverse=True)[1].reshape(-1)
    return assigned


def draw_tuples(groups: np.ndarray, samples: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw rows (samples, width) of the pool; the rows of a tuple come from one of the `groups` (n,).

    The rows of a tuple are distinct if the group is large enough. All groups give the same number of tuples, plus or
    minus one, in random order.

    >>> draw_tuples(np.array([0, 0, 1, 1, 1]), 2, 3, np.random.default_rng(0)).shape
    (2, 3)
    """
    members = np.argsort(groups, kind="stable")
    sizes = np.bincount(groups)
    chosen = rng.permutation(rng.permutation(len(sizes))[np.arange(samples) % len(sizes)])
    size = sizes[chosen]
    picks = np.empty((samples, width), np.int64)
    for column in range(width):
        distinct = size > column
        pick = rng.integers(np.where(distinct, size - column, size))
        for earlier in np.sort(picks[:, :column], axis=1).T:  # turn the index among the remaining rows into a row
            pick += distinct & (pick >= earlier)
        picks[:, column] = pick
    return members[(np.cumsum(sizes) - sizes)[chosen][:, None] + picks]


def _ranks(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a random order (n,) sorted by label, and in this order the rank within the label and the label's count."""
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    rank = np.arange(len(labels)) - (np.cumsum(sizes) - sizes)[labels[order]]
    return order, rank, sizes[labels[order]]
