"""Calibrated spread: intervals have their nominal coverage, and means are not changed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support import linear_gaussian as linear

from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.calibration import DRAWS, SpreadCalibration, hidden_as, quantile, reach
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.metrics.imputation.scores import continuous, covered
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


def test_means_stay_and_distances_scale() -> None:
    modality = Modality("a", "vector", (3,), "normal")
    x = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    spread = SpreadCalibration({"a": 2.0})(modality, x)
    torch.testing.assert_close(spread.mean(0), x.mean(0))
    torch.testing.assert_close(spread[0] - spread[1], 2 * (x[0] - x[1]))
    assert SpreadCalibration({"a": 2.0})(modality, x[:1]) is not None
    assert torch.equal(SpreadCalibration({"a": 2.0})(modality, x[:1]), x[:1])
    assert torch.equal(SpreadCalibration({"b": 2.0})(modality, x), x)


def test_counts_and_classes_stay_as_they_are() -> None:
    columns = (
        Column("age", "normal"),
        Column("visits", "negative_binomial"),
        Column("site", "categorical", 3),
    )
    table = Modality("t", "table", (3,), "columns", columns=columns)
    x = torch.randint(3, (5, 4, 3), generator=torch.Generator().manual_seed(0)).float()
    spread = SpreadCalibration({"t": 3.0})(table, x)
    assert torch.equal(spread[..., 1:], x[..., 1:])
    assert not torch.equal(spread[..., 0], x[..., 0])
    assert continuous(table).tolist() == [True, False, False]


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
    assert not generator.spread(held_out, data, 0).factors
