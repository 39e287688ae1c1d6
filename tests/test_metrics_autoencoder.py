"""Scores of the autoencoder itself: what is decoded and judged for every subset, and dimensions that say nothing."""

from typing import Any

import copier
import numpy as np
import pytest
import torch
from copier import MODALITIES, Copier, data

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.coherence.agreement import subsets_by_size
from postprior.pipelines.metrics.coherence.reconstruction import (
    conditional_scores,
    dead_dimensions,
    decoded,
    generated_labels,
    reconstruction_scores,
)
from postprior.pipelines.metrics.features.judges import Judges
from postprior.pipelines.metrics.features.readings import Readings
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.stage1_vae import MODELS
from postprior.stage1_vae.modalities import Modality


@pytest.fixture(scope="module")
def judges() -> Judges:
    return copier.read()


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


@pytest.mark.parametrize("labelled", [True, False])
def test_reconstructions_are_compared_by_what_each_modality_is(labelled: bool) -> None:
    modalities = (
        Modality("x", "vector", (2,), "normal"),
        Modality("y", "image", (1, 8, 8), "normal", (0, 1)),
        Modality("z", "image", (1, 8, 8), "normal"),
    )
    rng, labels = np.random.default_rng(0), np.arange(20) % 2
    values = {m.name: rng.random((20, *m.shape)).astype(np.float32) for m in modalities}
    real = Dataset(modalities, values, labels=labels if labelled else None)
    made = Dataset(modalities, {name: np.minimum(of, 0.5) for name, of in values.items()})
    shown = np.stack([labels, 1 - labels, labels], 1) if labelled else None
    readings = Readings(tuple(np.zeros((20, 1), np.float32) for _ in modalities), shown, real.labels)
    weights = half_samples(np.arange(20), 5, rng)
    found = reconstruction_scores(real, made, readings, weights)
    likeness = {"ssim", "psnr", "l1"}
    kinds = {"reconstruction_error", "accuracy"} if labelled else {"reconstruction_error"}
    assert set(found) == kinds | likeness | {"modalities"}
    assert {name: set(of) for name, of in found["modalities"].items()} == {
        "x": kinds,
        "y": kinds | likeness,
        "z": kinds | likeness,
    }
    cut = values["y"] - np.minimum(values["y"], 0.5)
    assert found["modalities"]["y"]["l1"]["value"] == pytest.approx(cut.mean())
    pairs = 10 * np.log10(1 / (cut**2).mean((1, 2, 3)))
    assert found["modalities"]["y"]["psnr"]["value"] == pytest.approx(pairs.mean())
    both = [found["modalities"][name]["ssim"]["value"] for name in "yz"]
    assert found["ssim"]["value"] == pytest.approx(np.mean(both))
    if labelled:
        assert found["accuracy"]["value"] == pytest.approx(2 / 3)
