"""Every model in `MODELS` through the stages: training on incomplete rows, codes, densities and samples."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from postprior.pipelines.artefacts.codes import load_codes, posteriors, save_codes
from postprior.pipelines.artefacts.evaluators import load_evaluators
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.conditional_scores import conditional_scores
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.metrics.fidelity.reconstruction import log_evidence
from postprior.pipelines.metrics.statistics.intervals import half_samples
from postprior.pipelines.settings.params import Params
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.training import Settings, train
from postprior.stage2_latent import DENSITIES

SETTINGS = Settings(epochs=2, batch_size=32, learning_rate=1e-3, device="cpu")


@pytest.fixture(scope="module", params=MODELS)
def pair(request: pytest.FixtureRequest, trained: tuple[Path, Params]) -> tuple[MultimodalVAE, Dataset]:
    """A model after two epochs on a hundred rows, a third of them incomplete, and the rows."""
    data = Dataset.load(trained[0] / "artefacts/data/train").select(np.arange(100))
    mask = np.ones((len(data), len(data.modalities)), bool)
    mask[::3] = np.random.default_rng(0).random((34, mask.shape[1])) < 0.5
    mask[:, 0] |= ~mask.any(1)
    data = replace(data, mask=mask)
    kind = MODELS[request.param]
    options = {"private": 2} if "private" in inspect.signature(kind).parameters else {}
    model = kind(data.modalities, latent=4, width=4, **options)
    for _ in train(model, data, SETTINGS):
        pass
    return model, data


@pytest.mark.usefixtures("short_chains")
def test_codes_densities_and_samples_of_every_model(pair: tuple[MultimodalVAE, Dataset], tmp_path: Path) -> None:
    model, data = pair
    codes = posteriors(model, data, 8, torch.Generator().manual_seed(0))
    assert codes.layout == model.layout
    assert codes.loc.shape[1] <= 8
    owners = [block.owner for block in codes.layout]
    names = [m.name for m in data.modalities]
    for column, owner in enumerate(owners):
        expected = np.ones(len(data), bool) if owner is None else data.observed[:, names.index(owner)]
        assert np.array_equal(codes.observed[:, column].numpy(), expected)
    save_codes(tmp_path / "codes", codes, {})
    again = load_codes(tmp_path / "codes")
    assert torch.equal(again.loc, codes.loc)
    z = again.select(again.complete).draw(torch.Generator().manual_seed(0))
    assert torch.equal(again.prior.log_prob(z), codes.prior.log_prob(z))
    for density in (DENSITIES["normal"](), DENSITIES["gmm"](components=[2], passes=5)):
        generator = Generator(model, density.fit(again), {})
        some = generator.sample(10, seed=1)
        assert all(np.isfinite(values).all() for values in some.data.values())
        assert all(np.array_equal(some.data[n], generator.sample(20, seed=1).data[n][:10]) for n in some.data)


@pytest.mark.usefixtures("short_chains")
def test_conditional_generation_and_evidence_of_every_model(
    pair: tuple[MultimodalVAE, Dataset], trained: tuple[Path, Params]
) -> None:
    model, _ = pair
    rows = np.arange(12)
    data = Dataset.load(trained[0] / "artefacts/data/test").select(rows)
    weights = half_samples(rows, 20, np.random.default_rng(0))
    classifiers = load_evaluators(trained[0] / "artefacts/evaluators").classifiers
    assert classifiers is not None
    scores = conditional_scores(model, classifiers, data, weights, np.random.default_rng(0))
    assert set(scores) == {"1", "2", "3", "4"}
    found = log_evidence(model, data, weights, torch.Generator().manual_seed(0))
    if model.tractable:
        assert found["low"] <= found["value"] <= found["high"]
    else:
        assert found is None
