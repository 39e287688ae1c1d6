"""Conditional coherence: of the autoencoder alone, and through a density compared with the plain posterior."""

from typing import Any

import numpy as np
import pytest
import torch
from support import copier
from support.copier import MODALITIES, Copier, data
from support.latent import posteriors

from postprior.pipelines.artefacts.codes import posteriors as encoded
from postprior.pipelines.generation.conditional_scores import (
    conditional_scores,
    decoded,
    density_conditional_scores,
    generated_labels,
)
from postprior.pipelines.metrics.coherence.agreement import subsets_by_size
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.stage1_vae.distributions import Block, Normal
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density

ROWS = 90


class Blurred(Copier):
    """An autoencoder whose posterior is a noisy version of the true code."""

    layout = (Block("z", (3,)),)

    def candidates(
        self, batch: Batch, draws: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        stacked = torch.stack(list(batch.data.values()), 1)
        mean = torch.einsum("bm,bmd->bd", batch.observed.float(), stacked) / batch.observed.sum(1)[:, None]
        return Normal(mean, torch.tensor(1.5)).rsample((draws,), generator).transpose(0, 1), None

    def prior(self) -> Normal:
        return Normal(torch.zeros(3), torch.full((3,), 3.0))

    def descend(self, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return z


@pytest.fixture(scope="module")
def classifiers() -> LabelClassifiers:
    return copier.read()


def corners() -> Density:
    """Return a density fitted to the only three codes."""
    labels = torch.arange(300) % 3
    loc = 3 * torch.eye(3)[labels]
    codes = posteriors(loc, torch.tensor(0.3), Blurred.layout)
    return DENSITIES["gmm"](components=[3], passes=20).fit(codes)


def scores(model: Any, density: Density, classifiers: LabelClassifiers, seed: int = 0) -> dict[str, Any]:
    weights = half_samples(np.arange(ROWS), 20, np.random.default_rng(0))
    return density_conditional_scores(model, density, classifiers, data(ROWS), weights, np.random.default_rng(seed))


def test_a_density_that_knows_the_codes_finds_them_in_noise(classifiers: LabelClassifiers) -> None:
    found = scores(Blurred(), corners(), classifiers)
    for size in ("1", "2"):
        assert found["conditional_coherence"][size]["value"] > 0.85
        assert found["conditional_gain"][size]["low"] > 0
    assert 1 / 16 < found["effective_sample_share"]["value"] < 0.5
    assert found["posterior_draws"] == 16
    assert "private_gain" not in found
    assert found == scores(Blurred(), corners(), classifiers)
    assert found != scores(Blurred(), corners(), classifiers, seed=1)


@pytest.mark.parametrize("name", ["mvtcae", "mmvaeplus", "cmvae", "mhvae"])
def test_the_prior_itself_gains_nothing(name: str, classifiers: LabelClassifiers) -> None:
    model = MODELS[name](MODALITIES, latent=3, width=4, seed=0)
    density = DENSITIES["normal"]().fit(encoded(model, data(ROWS), 8, torch.Generator().manual_seed(0)))
    found = scores(model, density, classifiers)
    for gain in found["conditional_gain"].values():
        assert abs(gain["value"]) <= (0.15 if model.blocks else 0)  # private codes are drawn again
    assert found["effective_sample_share"]["value"] == pytest.approx(1)
    assert ("private_gain" in found) == bool(model.blocks)


def scores_alone(model: Any, classifiers: LabelClassifiers) -> dict[str, Any]:
    weights = half_samples(np.arange(90), 20, np.random.default_rng(0))
    return conditional_scores(model, classifiers, data(), weights, np.random.default_rng(0))


def test_a_perfect_translator_is_coherent_from_any_subset(classifiers: LabelClassifiers) -> None:
    assert scores_alone(Copier(), classifiers) == {size: {"value": 1, "low": 1, "high": 1} for size in ("1", "2")}


def test_numbers_of_observed_modalities_are_distinguished(classifiers: LabelClassifiers) -> None:
    by_size = scores_alone(Copier(observed_needed=2), classifiers)
    assert by_size["1"]["value"] == 0  # its codes point to the next label
    assert by_size["2"]["value"] == 1


@pytest.mark.usefixtures("short_chains")
@pytest.mark.parametrize("name", list(MODELS))
def test_every_model_generates_exactly_what_each_subset_lacks(name: str, classifiers: LabelClassifiers) -> None:
    model = MODELS[name](MODALITIES, latent=3, width=4, likelihood_scale=1.0, seed=0)
    subsets = subsets_by_size(3, 60, np.random.default_rng(0))
    with torch.no_grad():
        labels = generated_labels(model, classifiers, data(), subsets, torch.Generator().manual_seed(0))
    assert labels.shape == (90, 6, 3)
    assert ((labels == -1) == subsets).all()


def test_decoded_values_stay_within_their_range() -> None:
    assert decoded(Copier(), MODALITIES[1], torch.full((2, 3), 9.0)).eq(4).all()  # type: ignore[arg-type]
