"""Digits over photographs: a dataset of several modalities from a pool of grey images and some backgrounds."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources.tuples import GROUP, deal, draw_tuples
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality

Blend = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Background (n, 3, H, W) and digit (n, 1, H, W), both in [0, 1] → image (n, 3, H, W)."""


class Pool(NamedTuple):
    """Grey images (n, H, W) in [0, 1] with their labels (n,)."""

    images: np.ndarray
    labels: np.ndarray


def crops(picture: np.ndarray, samples: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Random windows (samples, 3, *shape) of a picture (H, W, 3)."""
    # (rows, columns, 3, *shape)
    windows = np.lib.stride_tricks.sliding_window_view(picture, shape, axis=(0, 1))
    return windows[tuple(rng.integers(size, size=samples) for size in windows.shape[:2])]


def composed(
    pools: Mapping[str, Pool],
    samples: Sequence[int],
    layers: Sequence[tuple[np.ndarray, Blend]],
    rng: np.random.Generator,
    provenance: dict[str, Any],
) -> dict[str, Dataset]:
    """A dataset of so many samples from the pool of each split."""
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
    """`samples` tuples: for each layer (picture, blend) another image of the label over a random crop.

    The pool of a split that is held out is dealt into groups of source images, which the dataset keeps; see
    `data.sources.tuples`.
    """
    held_out = split != "train"
    if samples < 1:
        raise UserError(f"{provenance['source']}: {split}: {samples} samples asked for, expected at least one.")
    groups = deal(pool.labels, GROUP, rng) if held_out else np.unique(pool.labels, return_inverse=True)[1]
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
