"""Scores of conditional generation through a density, beside the plain posterior on the same draws."""

from typing import Any

import copier
import numpy as np
import pytest
import torch
from copier import MODALITIES, Copier, data
from latent import posteriors

from postprior.pipelines.artefacts.codes import posteriors as encoded
from postprior.pipelines.metrics.coherence.conditional import scores_through
from postprior.pipelines.metrics.features.judges import Judges
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.stage1_vae import MODELS
from postprior.stage1_vae.distributions import Block, Normal
from postprior.stage1_vae.modalities import Batch
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density

ROWS = 90


class Blurred(Copier):
    """An autoencoder that sees the code of the observed modalities through much noise."""

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
def judges() -> Judges:
    return copier.read()


def corners() -> Density:
    """A density that knows the three codes there are."""
    labels = torch.arange(300) % 3
    loc = 3 * torch.eye(3)[labels]
    codes = posteriors(loc, torch.tensor(0.3), Blurred.layout)
    return DENSITIES["gmm"](components=[3], passes=20).fit(codes)


def scores(model: Any, density: Density, judges: Judges, seed: int = 0) -> dict[str, Any]:
    weights = half_samples(np.arange(ROWS), 20, np.random.default_rng(0))
    return scores_through(model, density, judges, data(ROWS), weights, np.random.default_rng(seed))


def test_a_density_that_knows_the_codes_finds_them_in_noise(judges: Judges) -> None:
    found = scores(Blurred(), corners(), judges)
    for size in ("1", "2"):
        assert found["conditional_coherence"][size]["value"] > 0.85
        assert found["conditional_gain"][size]["low"] > 0
    assert 1 / 16 < found["effective_sample_share"]["value"] < 0.5
    assert found["posterior_draws"] == 16
    assert "private_gain" not in found
    assert found == scores(Blurred(), corners(), judges)
    assert found != scores(Blurred(), corners(), judges, seed=1)


@pytest.mark.parametrize("name", ["mvtcae", "mmvaeplus", "cmvae", "mhvae"])
def test_the_prior_itself_gains_nothing(name: str, judges: Judges) -> None:
    model = MODELS[name](MODALITIES, latent=3, width=4, seed=0)
    density = DENSITIES["normal"]().fit(encoded(model, data(ROWS), 8, torch.Generator().manual_seed(0)))
    found = scores(model, density, judges)
    for gain in found["conditional_gain"].values():
        assert abs(gain["value"]) <= (0.15 if model.blocks else 0)  # private codes are drawn anew
    assert found["effective_sample_share"]["value"] == pytest.approx(1)
    assert ("private_gain" in found) == bool(model.blocks)
