"""A dataset with a modality of every kind."""

from __future__ import annotations

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import Column, Modality

COLUMNS = (
    Column("age", "normal"),
    Column("city", "categorical", 3),
    Column("visits", "negative_binomial"),
    Column("smoker", "bernoulli"),
)


MODALITIES = (
    Modality("notes", "sequence", (6,), "categorical", classes=5),
    Modality("codes", "vector", (3,), "categorical", classes=4),
    Modality("reads", "vector", (2,), "zero_inflated_negative_binomial"),
    Modality("scan", "volume", (1, 4, 6, 5), "normal"),
    Modality("segments", "image", (1, 4, 5), "categorical", classes=3),
    Modality("record", "table", (4,), "columns", columns=COLUMNS),
)


LABELS = ("ill", "well")


def example(samples: int = 8, seed: int = 0) -> Dataset:
    """Rows in which all values of every modality show the label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, samples)

    def classes(shape: tuple[int, ...], count: int) -> np.ndarray:
        return (rng.integers(0, count // 2, (samples, *shape)).T + labels * (count - count // 2)).T.astype(np.float32)

    record = [labels + rng.normal(0, 0.1, samples), labels, rng.poisson(1 + 9 * labels), labels]
    data = {
        "notes": classes((6,), 5),
        "codes": classes((3,), 4),
        "reads": rng.poisson(1 + 20 * labels, (2, samples)).T.astype(np.float32),
        "scan": (rng.normal(0, 0.3, (1, 4, 6, 5, samples)) + labels).transpose(4, 0, 1, 2, 3).astype(np.float32),
        "segments": classes((1, 4, 5), 3),
        "record": np.stack(record, 1).astype(np.float32),
    }
    return Dataset(MODALITIES, data, labels=labels, label_names=LABELS)
