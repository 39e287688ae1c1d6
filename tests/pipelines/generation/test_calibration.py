"""Calibrated draws: intervals have their nominal coverage, probabilities are met, and means are not changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import linear_gaussian as linear

from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.calibration import Calibration, Collected, noise_factors, quantile, reach
from postprior.pipelines.generation.completion import drawn_values
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.held_out import DRAWS, discrete, hidden_as
from postprior.pipelines.metrics.imputation.scores import covered
from postprior.stage1_vae.discrete import Categorical, NegativeBinomial
from postprior.stage1_vae.distributions import Laplace, Normal
from postprior.stage1_vae.likelihoods import Columns
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES


def pair(scale: float) -> tuple[Generator, list[Dataset]]:
    """Return an exact model of noise 0.5 whose decoders have another scale, and two sets of 300 rows drawn from it."""
    model = linear.exact(MODELS["mvae"](linear.modalities(2), latent=linear.LATENT, likelihood_scale=linear.SCALE))
    sets = [
        Dataset(
            model.modalities,
            {name: x.float().numpy() for name, x in linear.sample(model, 300, seed).data.items()},
        )
        for seed in (1, 2)
    ]
    model.scales.given = dict.fromkeys(model.scales.given, scale)
    model = model.float()
    codes = posteriors(model, sets[0], 1, torch.Generator())
    return Generator(model, DENSITIES["normal"]().fit(codes), {}), sets


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.5])
def test_intervals_have_nominal_coverage_whatever_the_scale_of_the_model(scale: float) -> None:
    generator, (held_out, data) = pair(scale)
    mask = np.tile([True, False], (len(data), 1))
    lacking = replace(data, mask=mask)
    shares = []
    for known in (None, held_out):
        drawn = generator.impute(lacking, DRAWS, 0, "draws", known)
        shares.append(covered(np.stack([each.data["m1"] for each in drawn]), data.data["m1"]).mean())
    assert 0.86 < shares[1] < 0.94
    assert abs(shares[0] - 0.9) > 0.08 or scale == linear.SCALE


@pytest.mark.parametrize("scale", [0.1, 1.5])
def test_noise_of_decoders_is_that_of_the_data(scale: float) -> None:
    """If z is drawn from the exact posterior of x, residuals of x given z have the noise 0.5 of the data."""
    generator, (held_out, _) = pair(scale)
    held_out = replace(held_out, mask=np.tile([True, False], (300, 1)))
    factors = noise_factors(generator.model, held_out, 0)
    assert float(factors.pop("m0")) * scale == pytest.approx(linear.SCALE, rel=0.06)  # 1,200 residuals: 2 % each
    assert not factors
    p = Calibration(noise={"m0": torch.tensor(3.0)}).tempered(held_out.modalities[0], Laplace(*torch.ones(2, 1)))
    assert isinstance(p, Laplace)
    assert (p.loc, p.scale) == (1, 3)


def test_means_stay_and_distances_scale() -> None:
    """Per entry of a vector; a single draw, other modalities and draws of exactly 0 stay as they are."""
    modality = Modality("a", "vector", (3,), "normal")
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([2.0, 1.0, 0.5])
    calibration = Calibration({"a": factors})
    changed = calibration.spread(modality, x)
    torch.testing.assert_close(changed.mean(0), x.mean(0))
    torch.testing.assert_close(changed[0] - changed[1], factors * (x[0] - x[1]))
    assert torch.equal(calibration.spread(modality, x[:1]), x[:1])
    assert torch.equal(Calibration({"b": factors}).spread(modality, x), x)
    x[2, 1] = 0
    assert (calibration.spread(modality, x)[2, 1] == 0).all()


TABLE = Modality(
    "t",
    "table",
    (3,),
    "columns",
    columns=(Column("age", "normal"), Column("visits", "negative_binomial"), Column("site", "categorical", 3)),
)


def test_counts_stay_counts_and_classes_stay_classes() -> None:
    x = torch.randint(1, 3, (5, 4, 3), generator=torch.Generator().manual_seed(0)).float()
    changed = Calibration({"t": torch.tensor([3.0, 9.0, 9.0])}).spread(TABLE, x)
    assert torch.equal(changed[..., 2], x[..., 2])
    assert (changed[..., 1] >= 0).all()
    assert (changed[..., 1] > x[..., 1].max()).any()
    torch.testing.assert_close(changed[..., 0].mean(0), x[..., 0].mean(0))
    assert discrete(TABLE).tolist() == [False, False, True]


@pytest.mark.parametrize("confidence", [0.5, 2.0])
def test_probabilities_and_counts_of_held_out_rows_are_met(confidence: float) -> None:
    """Logits that are too large by a factor need it as temperature; intervals of too narrow counts get their level."""
    n, rng, noise = 1500, np.random.default_rng(0), torch.Generator().manual_seed(0)
    logits = torch.from_numpy(1.5 * rng.normal(size=(2, n, 3, 1)))
    log_means = torch.from_numpy(rng.normal(4, 1, (2, n, 1)))
    truth = TableOf(NegativeBinomial(log_means, torch.tensor(1.5), 1), Categorical(logits, 1)).rsample((), noise)
    wide = (DRAWS, n, 1)
    held_out, test = (
        TableOf(
            NegativeBinomial(log_mean.expand(wide), torch.tensor(7.0), 1),
            Categorical((confidence * each).expand(DRAWS, n, 3, 1), 1),
        )
        for log_mean, each in zip(log_means, logits, strict=True)
    )
    found = Collected(TABLE)
    found.add(held_out, drawn_values(TABLE, held_out, noise, None), truth[0].numpy(), np.ones((n, 3), bool))
    factors, temperatures = found.factor(), found.temperature()
    assert factors is not None
    assert temperatures is not None
    assert temperatures[2] == pytest.approx(confidence)
    calibration = Calibration({"t": factors}, {"t": temperatures})
    plain, calibrated = (drawn_values(TABLE, test, noise, None, each)[..., 1:] for each in (None, calibration))
    assert 0.88 < covered(calibrated, truth[1, :, 1:].numpy())[:, 0].mean() < 0.93
    assert covered(plain, truth[1, :, 1:].numpy())[:, 0].mean() < 0.6
    shares = [np.mean(each[..., 1] == truth[1, :, 2].numpy()) for each in (plain, calibrated)]
    assert np.sign(shares[0] - shares[1]) == np.sign(confidence - 1)  # confident draws repeat the likeliest class


class TableOf(Columns):
    """The likelihood of `TABLE`: age N(0, 1), visits and site as given, batch shape (…)."""

    def __init__(self, visits: NegativeBinomial, site: Categorical) -> None:
        zero = torch.zeros_like(visits.log_mean)
        parts = (Normal(zero, torch.ones_like(zero)), visits, site)
        super().__init__([(torch.tensor([place]), part) for place, part in enumerate(parts)])


def test_a_factor_is_what_the_interval_needs_to_reach() -> None:
    draws = np.arange(39.0)[:, None] - 19  # interval −18 … 18 around 0
    assert reach(draws, np.array([9.0])) == pytest.approx(0.5)
    assert reach(draws, np.array([-36.0])) == pytest.approx(2)
    assert reach(draws, np.array([0.0])) == 0
    assert quantile(np.arange(1.0, 100)) == 90  # the 90th of 99: 90 of 100 exchangeable values lie at or below it


def test_rows_lose_what_other_rows_lack_but_never_all_modalities() -> None:
    rng = np.random.default_rng(0)
    generator, (held_out, data) = pair(0.5)
    mask = rng.random((300, 2)) < 0.5
    mask[~mask.any(1), 0] = True
    cells = {"m1": rng.random((300, 4)) < 0.5}
    lacking = replace(data, mask=mask, cells=cells)
    own = np.tile([True, False], (300, 1))
    own[100:] = True
    hidden = hidden_as(replace(held_out, mask=own), lacking, rng)
    assert hidden.mask is not None
    assert hidden.mask.any(1).all()
    assert not (hidden.mask & ~own).any()
    patterns = {tuple(row) for row in cells["m1"].tolist()}
    assert {tuple(row) for row in hidden.cells["m1"].tolist()} <= patterns
    assert hidden_as(held_out, data, rng) is held_out
    assert not generator.calibration(held_out, data, 0).factors
