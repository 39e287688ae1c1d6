"""Scores of the autoencoder itself: what is decoded and judged for every subset, and dimensions that say nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.dataset import Dataset
from pipelines.metrics.autoencoder import conditional_scores, dead_dimensions, decoded, generated_labels
from pipelines.metrics.coherence import subsets_by_size
from pipelines.metrics.intervals import half_samples
from pipelines.metrics.judges import Judges, train_judges
from stage1_vae import MODELS
from stage1_vae.distributions import Normal
from stage1_vae.modalities import Batch, Modality

MODALITIES = tuple(Modality(f"m{index}", "vector", (3,), "normal", (-4, 4)) for index in range(3))
NAMES = ("a", "b", "c")


def data(rows: int = 90) -> Dataset:
    """Three noisy one-hot codes of the label."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 3
    values = {m.name: 3 * np.eye(3)[labels] + 0.3 * rng.normal(size=(rows, 3)) for m in MODALITIES}
    values = {name: array.astype(np.float32) for name, array in values.items()}
    return Dataset(MODALITIES, values, labels=labels, label_names=NAMES)


@pytest.fixture(scope="module")
def judges() -> Judges:
    judges = Judges(MODALITIES, NAMES, 4)
    for _ in train_judges(judges, data(300), 8, 30, 1e-2, torch.Generator().manual_seed(0)):
        pass
    return judges


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


def scores(model: Any, judges: Judges) -> dict[str, Any]:
    weights = half_samples(np.arange(90), 20, np.random.default_rng(0))
    return conditional_scores(model, judges, data(), weights, np.random.default_rng(0))


def test_a_perfect_translator_is_coherent_from_any_subset(judges: Judges) -> None:
    assert scores(Copier(), judges) == {size: {"value": 1, "low": 1, "high": 1} for size in ("1", "2")}


def test_numbers_of_observed_modalities_are_told_apart(judges: Judges) -> None:
    by_size = scores(Copier(observed_needed=2), judges)
    assert by_size["1"]["value"] == 0  # its codes point to the next label
    assert by_size["2"]["value"] == 1


@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_generates_exactly_what_each_subset_lacks(name: str, judges: Judges) -> None:
    model = MODELS[name](MODALITIES, latent=3, width=4, likelihood_scale=1.0, seed=0)
    subsets = subsets_by_size(3, 60, np.random.default_rng(0))
    with torch.no_grad():
        labels = generated_labels(model, judges, data(), subsets, torch.Generator().manual_seed(0))
    assert labels.shape == (90, 6, 3)
    assert ((labels == -1) == subsets).all()


def test_decoded_values_stay_within_their_range() -> None:
    assert decoded(Copier(), MODALITIES[1], torch.full((2, 3), 9.0)).eq(4).all()  # type: ignore[arg-type]


def test_dead_dimensions_are_those_whose_means_do_not_move() -> None:
    means = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.05, 0.0])
    assert dead_dimensions(means) == 2
