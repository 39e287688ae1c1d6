"""A dataset whose values show its labels, label classifiers for it, and an autoencoder that copies its input."""

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import train_label_classifiers
from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.modalities import Batch, Modality

MODALITIES = tuple(Modality(f"m{index}", "vector", (3,), "normal", (-4, 4)) for index in range(3))
NAMES = ("a", "b", "c")


def data(rows: int = 90) -> Dataset:
    """Three noisy one-hot codes of the label."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    values = {m.name: 3 * np.eye(3)[labels] + 0.3 * rng.normal(size=(rows, 3)) for m in MODALITIES}
    values = {name: array.astype(np.float32) for name, array in values.items()}
    return Dataset(MODALITIES, values, labels=labels, label_names=NAMES)


def read() -> LabelClassifiers:
    """Label classifiers trained on such data."""
    classifiers = LabelClassifiers(MODALITIES, NAMES, 4)
    for _ in train_label_classifiers(classifiers, data(300), 8, 30, 1e-2, torch.Generator().manual_seed(0)):
        pass
    return classifiers


class Copier:
    """An autoencoder whose code is the mean of what a subset observes, and whose decoders return it."""

    modalities = MODALITIES

    def __init__(self, observed_needed: int = 1) -> None:
        self.needed = observed_needed

    def infer(self, batch: Batch, subsets: Tensor, generator: torch.Generator) -> Tensor:
        stacked = torch.stack(list(batch.data.values()), 1)  # (B, M, 3)
        mean = torch.einsum("sm,bmd->bsd", subsets.float(), stacked) / subsets.sum(1)[:, None]
        enough = (subsets.sum(1) >= self.needed)[:, None]
        return torch.where(enough, mean, mean.roll(1, -1))

    def decode_one(self, modality: Modality, latents: Tensor) -> Normal:
        return Normal(latents, torch.ones_like(latents))
