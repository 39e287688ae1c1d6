"""Two modalities that show one of three labels."""

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import Modality

MODALITIES = (Modality("picture", "image", (2, 9, 9), "laplace"), Modality("table", "vector", (5,), "normal"))


NAMES = ("a", "b", "c")


def data(rows: int = 600, seed: int = 0, fill: float | None = None) -> Dataset:
    """Two modalities that show one of three labels; given a fill value, one row in three lacks each in turn."""
    rng = np.random.default_rng(seed)
    patterns = np.random.default_rng(99)
    shapes = [m.shape for m in MODALITIES]
    labels = rng.integers(0, 3, rows)
    values = [
        (4 + patterns.normal(size=(3, *s))[labels] * 3 + rng.normal(size=(rows, *s))).astype(np.float32) for s in shapes
    ]
    mask = np.ones((rows, 2), bool)
    if fill is not None:
        mask[0::3, 0] = mask[1::3, 1] = False
        for index, array in enumerate(values):
            array[~mask[:, index]] = fill
    names = [m.name for m in MODALITIES]
    return Dataset(MODALITIES, dict(zip(names, values, strict=True)), mask, labels=labels, label_names=NAMES)
