"""The adapter of Pythae, tested with its real models in the environment that `make test-multivae` makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("pythae", reason="Pythae comes with MultiVae in an environment of its own; run make test-multivae")
import pythae.models

from postprior import adapt
from postprior.stage1_vae.adapted import Adapted
from postprior.stage1_vae.adapters import adaptable
from postprior.stage1_vae.adapters.pythae import NORMAL, POINTS
from postprior.stage1_vae.modalities import Batch, Modality

pytestmark = pytest.mark.slow
SHAPE, LATENT = (1, 8, 8), 4
CONFIGS = {"FactorVAE": "FactorVAEConfig", "VAEGAN": "VAEGANConfig", "MSSSIM_VAE": "MSSSIM_VAEConfig"}
CONFIGS |= {name: f"{name}_Config" for name in ("INFOVAE_MMD", "WAE_MMD", "RAE_L2", "RAE_GP")}


def build(name: str) -> Any:
    torch.manual_seed(0)
    config = getattr(pythae.models, CONFIGS.get(name, f"{name}Config"))
    return getattr(pythae.models, name)(config(input_dim=SHAPE, latent_dim=LATENT)).eval()


def images(rows: int) -> torch.Tensor:
    return torch.rand(rows, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", [*NORMAL, *POINTS])
def test_posterior_and_reconstruction_are_those_of_pythae(name: str) -> None:
    """Draws of its encoder with known noise are draws of the posterior, and its decoder gives the values."""
    model, x = build(name), images(5)
    adapted = Adapted(adaptable(model, {"x": SHAPE}), [Modality("x", "image", SHAPE, "normal", (0, 1))]).eval()
    with torch.no_grad():
        q = adapted.posterior(Batch({"x": x}, torch.ones(5, 1, dtype=torch.bool)))
        found = model.encoder(x)
        z = found.embedding
        if name in NORMAL:
            torch.manual_seed(2)
            z, noise = model._sample_gauss(z, torch.exp(0.5 * found.log_covariance))
            torch.testing.assert_close(q.mean + q.components.scale[:, 0] * noise, z)
        else:
            torch.testing.assert_close(q.mean, z)
        torch.testing.assert_close(adapted.decode(z)["x"].mean, model.decoder(z).reconstruction)


@pytest.mark.parametrize("name", ["HVAE", "VQVAE"])
def test_other_codes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"found {name} of Pythae, expected one of VAE"):
        adaptable(build(name), {"x": SHAPE})


def test_one_modality_from_fit_to_samples() -> None:
    """Samples are decoded, holes are not possible, and the model is not changed."""
    model, x = build("VAE"), images(120).numpy()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    settings = {"density.gmm.components": [1], "density.gmm.covariance": ["full"]}
    generator = adapt(model, {"x": x}, density="gmm", settings=settings, progress=False)
    assert np.asarray(generator.sample(7, values="mean").data["x"]).shape == (7, *SHAPE)
    assert len(generator.detect({"x": x[:5]})) == 5
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
