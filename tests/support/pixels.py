"""Random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from postprior.pipelines.data.pixels.modes import MODES

RNG = np.random.default_rng(0)


def values(mode: str, size: tuple[int, int] = (6, 5)) -> np.ndarray:
    """Random pixels of a mode, over the whole range of its type."""
    shape = (*size, MODES[mode].channels)[: len(MODES[mode].axes)]
    if mode in ("1", "F"):
        return RNG.normal(size=shape).astype(np.float32) if mode == "F" else RNG.random(shape) < 0.5
    ends = np.iinfo(MODES[mode].dtype)
    return RNG.integers(ends.min, ends.max, shape, MODES[mode].dtype, endpoint=True)


def tree(folder: Path, *names: str) -> Path:
    """Write random grey images with these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values("L")).save(folder / f"{name}.png")
    return folder
