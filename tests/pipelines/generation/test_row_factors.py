"""Factors that the counts of a row share: totals of synthetic rows are distributed as those of the data."""

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from support.equations import seeded

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.row_factors import FEWEST, RowFactors
from postprior.stage1_vae.discrete import NegativeBinomial, ZeroInflatedNegativeBinomial
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes

GENES, DISPERSION, MEAN, DEVIATION = 60, 2.0, 0.3, 0.4
COUNTS = Modality("rna", "vector", (GENES,), "negative_binomial", partial=True)
NUMBERS = Modality("size", "vector", (1,), "normal")
RATES = torch.linspace(0.5, 4, GENES)


@pytest.fixture(scope="module")
def generator() -> Generator:
    """Two types of rows with a factor e² between their rates, which the code tells; it tells nothing else."""
    model = MODELS["mvae"]([COUNTS, NUMBERS], latent=1).eval()

    def decode(modality: Modality, z: torch.Tensor) -> object:
        if modality.name == "size":
            return original(modality, z)
        log_mean = RATES.log() + z.sign()
        return NegativeBinomial(log_mean, torch.full_like(log_mean, DISPERSION).log(), 1)

    original, model.decode_one = model.decode_one, decode  # type: ignore[method-assign]
    codes = Codes.empirical(model.layout, torch.tensor([[-1.0], [1.0]]).repeat(50, 1))
    return Generator(model, DENSITIES["kde"](bandwidth=[0.01]).fit(codes, generator=seeded()), {})


def rows(n: int, seed: int, deviation: float = DEVIATION) -> Dataset:
    """Raw counts of both types with log-normal libraries."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 2, n)
    rate = RATES.numpy() * np.exp(2 * kind - 1 + MEAN + deviation * rng.normal(size=n))[:, None]
    counts = rng.poisson(rate * rng.gamma(DISPERSION, 1 / DISPERSION, (n, GENES)))
    data = {"rna": counts.astype(np.float32), "size": np.zeros((n, 1), np.float32)}
    return Dataset((COUNTS, NUMBERS), data, labels=kind)


def with_codes(generator: Generator, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> RowFactors:
    """Fit the factors; the posterior of a row is a point at the code of its type."""
    z = torch.from_numpy(2.0 * np.asarray(data.labels) - 1).float()[:, None, None]
    places = iter(z.split(256))
    monkeypatch.setattr(generator.model, "candidates", lambda *_: (next(places), None))
    return RowFactors.fit(generator.model, data, 0)


def test_synthetic_totals_are_distributed_as_those_of_the_data(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    factors = with_codes(generator, rows(1500, 0), monkeypatch)
    assert factors.moments.keys() == {"rna"}
    assert np.allclose(factors.moments["rna"], (MEAN, DEVIATION), atol=0.03)
    assert RowFactors.from_description(factors.describe()) == factors
    test = np.log(rows(1500, 1).data["rna"].sum(1))

    def distance() -> float:
        return float(ks_2samp(test, np.log(generator.sample(1500, values="draws").data["rna"].sum(1))).statistic)

    assert distance() > 0.2
    monkeypatch.setattr(generator, "row_factors", factors)
    assert distance() < 0.06  # .049 is the 5 % point of two samples from one distribution
    drawn = generator.sample(1500, values="draws").data["rna"]
    assert np.array_equal(drawn, generator.sample(1500, values="draws").data["rna"])
    shares = (drawn / drawn.sum(1, keepdims=True)).mean(0)
    assert np.allclose(shares, (RATES / RATES.sum()).numpy(), rtol=0.1)  # a factor of the row does not change them


def test_rows_without_spread_of_their_own_get_none(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise of the counts is no spread of the libraries, and a few rows or missing counts tell nothing."""
    mean, deviation = with_codes(generator, rows(1500, 0, deviation=0), monkeypatch).moments["rna"]
    assert np.isclose(mean, MEAN, atol=0.02)
    assert deviation < 0.06
    few = rows(FEWEST - 1, 0)
    assert not with_codes(generator, few, monkeypatch).describe()
    lacking = rows(50, 0)
    lacking.cells["rna"] = np.arange(50 * GENES).reshape(50, GENES) > 0
    lacking.cells["rna"][: 50 - FEWEST + 1, 0] = False
    assert not with_codes(generator, lacking, monkeypatch).describe()


def test_moments_of_counts_times_a_factor() -> None:
    log_mean, log_dispersion = torch.tensor([0.3, -1.0]), torch.tensor([0.5, 1.0])
    plain = NegativeBinomial(log_mean, log_dispersion, 1)
    for p in (plain, ZeroInflatedNegativeBinomial(plain, torch.tensor([-0.5, 0.2]))):
        many = p.times(torch.tensor(0.7))
        torch.testing.assert_close(many.mean, p.mean * torch.tensor(0.7).exp())
        drawn = many.rsample((40_000,), seeded())
        torch.testing.assert_close(drawn.mean(0), many.mean, rtol=0.03, atol=0)
        torch.testing.assert_close(drawn.var(0), many.variance, rtol=0.06, atol=0)
