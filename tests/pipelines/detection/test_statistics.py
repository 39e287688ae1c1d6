"""Parts of the detector: surprisals against known distributions, robust distances, and surprisals in closed form."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support import linear_gaussian as linear
from support.equations import agree

from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.detection.normative import DRAWS, Part, Surprisals, surprisals_of
from postprior.pipelines.detection.rarity import CodeDistance, generalised_pareto, surprisals
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density

TIMES = 400
WHOLE = torch.ones(3, dtype=torch.bool)
RNG = np.random.default_rng(0)


# ---- surprisals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [0.0, 0.3, 0.6])
def test_the_tail_recovers_the_distribution_of_its_exceedances(shape: float) -> None:
    """Quantiles of a generalised Pareto distribution with scale 2 replace draws from it."""
    level = (np.arange(20000) + 0.5) / 20000
    exceedances = -2 * np.log1p(-level) if shape == 0 else 2 * ((1 - level) ** -shape - 1) / shape
    assert generalised_pareto(exceedances) == pytest.approx((2, shape), abs=0.05)


def test_a_tail_that_ends_is_taken_for_exponential() -> None:
    level = (np.arange(1000) + 0.5) / 1000
    assert generalised_pareto(level) == (pytest.approx(0.5), 0.0)


def test_surprisals_are_minus_the_log_of_the_probability_to_exceed() -> None:
    """The surprisal of an exponential statistic is the statistic itself, within the range of normal rows and beyond."""
    normal, values = RNG.exponential(size=(50000, 1)), np.array([[0.1], [1.0], [2.0], [8.0], [30.0]])
    np.testing.assert_allclose(surprisals(normal, values), values, rtol=0.15)


def test_a_normal_row_has_one_nat_whatever_the_distribution() -> None:
    normal = np.stack([RNG.normal(size=4000), RNG.standard_t(3, size=4000), RNG.uniform(size=4000)], 1)
    found = surprisals(normal[:2000], normal[2000:])
    np.testing.assert_allclose(found.mean(0), 1, atol=0.1)


def test_surprisals_rise_with_the_statistic() -> None:
    values = np.sort(RNG.standard_cauchy(size=(500, 1)), 0)
    for rows in (2, 3, 15, 30, 500):
        found = surprisals(RNG.standard_cauchy(size=(rows, 1)), values)
        assert np.isfinite(found).all()
        assert (np.diff(found[:, 0]) >= 0).all()


@pytest.mark.parametrize("scale", [-3.0, 1e-6, 1e12])
def test_scale_and_place_of_a_statistic_do_not_matter(scale: float) -> None:
    normal, values = RNG.normal(size=(300, 1)), RNG.normal(size=(300, 1)) * 3
    expected = surprisals(normal, values)
    moved = surprisals(abs(scale) * normal + scale, abs(scale) * values + scale)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_missing_values_and_values_without_normal_rows_have_no_surprisal() -> None:
    normal = np.array([[1.0, np.nan, 2.0], [2.0, np.nan, 2.0], [3.0, 1.0, 2.0]])
    found = surprisals(normal, np.array([[np.nan, 5.0, 2.0], [9.0, np.nan, 2.0]]))
    assert found[:, 1].tolist() == [0, 0]
    assert found[0, 0] == 0
    assert found[1, 0] > 1
    assert np.isfinite(surprisals(normal, np.array([[0.0, 0.0, 1e30]]))).all()


# ---- distances of codes --------------------------------------------------------------------------------


def test_distances_follow_the_distribution_and_ignore_outliers() -> None:
    """With a tenth of outliers, squared distances still follow a chi-squared distribution with D degrees of freedom."""
    root = np.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 1.0, 3.0]])
    codes = RNG.normal(size=(2000, 3)) @ root.T
    fitted = CodeDistance.fit(np.concatenate([codes[:200] + 60, codes]), None)
    x = RNG.normal(size=(4000, 3))
    found = fitted(x @ root.T, None)
    np.testing.assert_allclose(np.corrcoef(found, (x**2).sum(1))[0, 1], 1, atol=0.03)
    assert np.median(found) == pytest.approx(2.366, rel=0.15)  # of chi-squared with 3 degrees of freedom


def test_covariates_do_not_contribute_to_the_distance() -> None:
    age = RNG.normal(size=(800, 1)) * 20 + 50
    codes = age * np.array([[0.3, -0.1]]) + RNG.normal(size=(800, 2))
    young, old = np.array([[20.0]]), np.array([[80.0]])
    fitted = CodeDistance.fit(codes, age)
    expected = np.array([[0.3, -0.1]])
    assert fitted(old * expected, old)[0] < 0.2
    assert fitted(old * expected, young)[0] > 100
    assert fitted(codes, age) == pytest.approx(CodeDistance.fit(codes + 7, age * 2 + 1)(codes + 7, age * 2 + 1))


@pytest.mark.parametrize(("rows", "dimensions"), [(12, 8), (40, 8), (300, 70)])
def test_few_rows_and_many_dimensions_still_give_distances(rows: int, dimensions: int) -> None:
    codes = RNG.normal(size=(rows, dimensions))
    fitted = CodeDistance.fit(codes, None)
    assert np.isfinite(fitted(codes, None)).all()
    assert fitted(codes + 10, None).min() > fitted(codes, None).max()


# ---- surprisals in closed form --------------------------------------------------------------------------


def exact() -> tuple[Any, Density, Dataset]:
    """Return a linear Gaussian model, the density N(0, I), and 5 rows drawn from the model."""
    model: Any = linear.exact(MODELS["mvae"](linear.modalities(3), latent=linear.LATENT, likelihood_scale=linear.SCALE))
    batch = linear.sample(model, 5, seed=3)
    data = Dataset(model.modalities, {name: x.float().numpy() for name, x in batch.data.items()})
    density = DENSITIES["normal"]().fit(posteriors(model.float(), data, 1, torch.Generator()))
    return model, density, data


def surprisals_in(model: Any, density: Density, data: Dataset, pattern: torch.Tensor) -> Surprisals:
    """Return the surprisals of all rows, from the modalities of a pattern."""
    part = Part(data, np.arange(len(data)), pattern.numpy(), (0,))
    with surprisals_of(model, density, [part]) as found:
        assert found is not None
        return next(found)


def of_repeated(model: Any, density: Density, data: Dataset, pattern: torch.Tensor) -> Surprisals:
    """Return surprisals of every row repeated many times, with independent noise."""
    return surprisals_in(model, density, data.select(np.repeat(np.arange(len(data)), TIMES)), pattern)


def unlikely(model: Any, data: Dataset, subset: torch.Tensor, m: int) -> torch.Tensor:
    """E[−log p(x_m | z)] under p(z | x_S): the residual of the mean, and the contribution of the covariance."""
    double = data.batch(slice(None)).to("cpu", torch.float64)
    mean, covariance = linear.posterior(model.double(), double, subset)
    decoder, name = model.decoders[f"m{m}"], f"m{m}"
    residual = (double.data[name] - decoder(mean)).square().sum(-1)
    spread = (decoder.weight @ covariance @ decoder.weight.T).trace()
    constant = linear.SIZE * math.log(linear.SCALE * math.sqrt(2 * math.pi))
    model.float()
    return (residual + spread) / (2 * linear.SCALE**2) + constant


def test_reconstruction_and_inconsistency_are_expectations_over_posteriors() -> None:
    model, density, data = exact()
    found = of_repeated(model, density, data, WHOLE)
    for m in range(3):
        rest = WHOLE.clone()
        rest[m] = False
        for values, subset in ((found.reconstruction, WHOLE), (found.inconsistency, rest)):
            draws = torch.from_numpy(values[:, m]).unflatten(0, (-1, TIMES))
            agree(draws, unlikely(model, data, subset, m))


def test_code_is_the_expected_log_density_of_the_whole_rows_and_each_modalitys_code() -> None:
    model, density, data = exact()
    found = of_repeated(model, density, data, WHOLE)
    double = data.batch(slice(None)).to("cpu", torch.float64)
    whitening = density.whitening  # whitening by N(0, I) is the identity
    assert torch.allclose(whitening.root, torch.eye(linear.LATENT))
    for place, subset in enumerate([WHOLE, *torch.eye(3, dtype=torch.bool)]):
        mean, covariance = linear.posterior(model.double(), double, subset)
        expected = 0.5 * (mean.square().sum(-1) + covariance.trace()) + linear.LATENT / 2 * math.log(2 * math.pi)
        agree(torch.from_numpy(found.code[:, place]).unflatten(0, (-1, TIMES)), expected)
        codes = torch.from_numpy(found.codes[place]).unflatten(0, (-1, TIMES))
        agree(codes.transpose(1, 2), mean)
        model.float()
    assert DRAWS > 1


def test_cells_sum_to_their_modality() -> None:
    model, density, data = exact()
    found = surprisals_in(model, density, data, WHOLE)
    for m in range(3):
        cells = found.cells[f"m{m}"]  # (N, 2, J)
        np.testing.assert_allclose(cells[:, 0].sum(1), found.reconstruction[:, m], rtol=1e-5)
        np.testing.assert_allclose(cells[:, 1].sum(1), found.inconsistency[:, m], rtol=1e-5)


def test_a_pattern_is_the_rows_without_the_other_modalities() -> None:
    """Modalities outside of the pattern are never read; a single modality has no prediction."""
    model, density, data = exact()
    pattern = torch.tensor([True, False, True])
    garbage = replace(data, data={**data.data, "m1": np.full_like(data.data["m1"], 1e6)})
    one, other = (surprisals_in(model, density, rows, pattern) for rows in (data, garbage))
    np.testing.assert_array_equal(one.reconstruction, other.reconstruction)
    np.testing.assert_array_equal(one.inconsistency, other.inconsistency)
    np.testing.assert_array_equal(one.code, other.code)
    assert one.reconstruction.shape == (5, 2)
    assert list(one.cells) == ["m0", "m2"]
    found = of_repeated(model, density, data, pattern)
    draws = torch.from_numpy(found.inconsistency[:, 0]).unflatten(0, (-1, TIMES))
    agree(draws, unlikely(model, data, torch.tensor([False, False, True]), 0))
    alone = surprisals_in(model, density, data, torch.tensor([False, True, False]))
    assert alone.inconsistency.shape == (5, 0)
    assert alone.cells["m1"].shape == (5, 1, linear.SIZE)


def test_missing_cells_are_neither_read_nor_counted() -> None:
    modalities = (
        Modality("t", "table", (3,), "columns", columns=tuple(Column(c, "normal") for c in "abc"), partial=True),
        Modality("v", "vector", (2,), "laplace"),
    )
    model = MODELS["mvtcae"](modalities, latent=2, width=2)
    rows = {"t": RNG.normal(size=(12, 3)), "v": RNG.normal(size=(12, 2))}
    data = Dataset(modalities, {name: x.astype(np.float32) for name, x in rows.items()})
    density = DENSITIES["gaussian"]().fit(posteriors(model, data, 1, torch.Generator()))
    seen = np.ones((12, 3), bool)
    seen[:, 1] = False
    changed = data.data["t"].copy()
    changed[:, 1] = 1e6
    both = torch.ones(2, dtype=torch.bool)
    one, other = (
        surprisals_in(model, density, replace(data, data={**data.data, "t": t}, cells={"t": seen}), both)
        for t in (data.data["t"], changed)
    )
    np.testing.assert_array_equal(one.reconstruction, other.reconstruction)
    np.testing.assert_array_equal(one.code, other.code)
    assert np.isnan(one.cells["t"][:, :, 1]).all()
    np.testing.assert_allclose(one.reconstruction[:, 0], np.nanmean(one.cells["t"][:, 0], 1) * 3, rtol=1e-6)


def test_private_codes_of_missing_modalities_are_integrated_out() -> None:
    """For the code of a single modality, a density with marginals scores the shared block and its private block."""
    modalities = (Modality("a", "vector", (3,), "normal"), Modality("b", "vector", (2,), "normal"))
    model = MODELS["dmvae"](modalities, latent=2, width=2, private=1).requires_grad_(False)
    rows = {m.name: RNG.normal(size=(60, *m.shape)).astype(np.float32) for m in modalities}
    data = Dataset(modalities, rows)
    density = DENSITIES["gaussian"]().fit(posteriors(model, data, 1, torch.Generator()))
    found = surprisals_in(model, density, data, torch.ones(2, dtype=torch.bool))
    assert [codes.shape[1] for codes in found.codes] == [4, 3, 3]
    covariance = density.whitening.root @ density.whitening.root.T
    assert covariance.shape == (4, 4)
    half_logdet = 0.5 * torch.linalg.slogdet(covariance[:3, :3])[1]
    least = float(half_logdet) + 1.5 * math.log(2 * math.pi)  # −log of the maximum of a Gaussian density, 3 coordinates
    assert found.code[:, 1].min() >= least - 1e-3


def test_a_density_predicts_the_private_codes_of_a_modality_from_the_others() -> None:
    """Nothing is shared, so only the density knows that two modalities have the same code: swapped rows disagree."""
    source = linear.exact(MODELS["mvae"](linear.modalities(2), latent=linear.LATENT, likelihood_scale=linear.SCALE))
    model = MODELS["unimodal"](source.modalities, latent=linear.LATENT, likelihood_scale=linear.SCALE)
    model.encoders, model.decoders = source.encoders, source.decoders
    batch = linear.sample(source, 600)
    model = model.float().requires_grad_(False)
    data = Dataset(model.modalities, {name: x.float().numpy() for name, x in batch.data.items()})
    swapped = replace(data, data={**data.data, "m1": np.roll(data.data["m1"], 1, 0)})
    both, codes = torch.ones(2, dtype=torch.bool), posteriors(model, data, 1, torch.Generator())
    told = {}
    for name in ("gaussian", "normal"):
        density = DENSITIES[name]().fit(codes)
        one, other = (surprisals_in(model, density, rows, both).inconsistency for rows in (data, swapped))
        told[name] = (other.mean(0) - one.mean(0)) / one.std(0) * math.sqrt(len(data))  # in standard errors
    assert (told["gaussian"] > 5).all()
    assert (np.abs(told["normal"]) < 1).all()


def test_rows_beyond_all_bounds_stay_finite() -> None:
    model, density, data = exact()
    far = {name: np.full_like(x, 1e30) for name, x in data.data.items()}
    found = surprisals_in(model, density, replace(data, data=far), WHOLE)
    for values in (found.reconstruction, found.inconsistency, found.code, *found.codes):
        assert np.isfinite(values).all()
    near = surprisals_in(model, density, data, WHOLE)
    assert (found.reconstruction.min(0) > near.reconstruction.max(0)).all()
    assert (found.code.min(0) > near.code.max(0)).all()


@pytest.mark.parametrize("name", ["gmm", "flow_matching"])
def test_rows_beyond_all_bounds_stay_finite_where_private_codes_are_predicted(name: str) -> None:
    modalities = (Modality("a", "vector", (3,), "normal"), Modality("b", "vector", (2,), "normal"))
    model = MODELS["unimodal"](modalities, width=2).requires_grad_(False)
    rows = {m.name: RNG.normal(size=(60, *m.shape)).astype(np.float32) for m in modalities}
    data = Dataset(modalities, rows)
    options = {"gmm": {"components": [1], "passes": 5}, "flow_matching": {"hidden": 8, "steps": 10}}[name]
    density = DENSITIES[name](**options).fit(posteriors(model, data, 1, torch.Generator()))
    far = replace(data, data={key: np.full_like(x, 1e30) for key, x in rows.items()})
    found = surprisals_in(model, density, far, torch.ones(2, dtype=torch.bool))
    assert np.isfinite(found.inconsistency).all()


def test_rows_that_mostly_coincide_still_give_distances() -> None:
    codes = np.concatenate([np.zeros((80, 2)), np.random.default_rng(0).normal(size=(20, 2))])
    near, far = CodeDistance.fit(codes, None)(np.array([[0.0, 0.0], [9.0, 9.0]]), None)
    assert 0 <= near < 1 < 50 < far
    assert CodeDistance.fit(np.zeros((100, 2)), None)(codes[:1], None) == 0
