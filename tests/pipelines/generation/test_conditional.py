"""Conditional generation through a density: draws have the moments of the reweighted posterior in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from support import linear_gaussian as linear
from support.equations import agree, repeat, seeded
from torch import Tensor
from torch.distributions import MultivariateNormal

from postprior.pipelines.generation.conditional import PosteriorCandidates, conditional_draw, effective_share
from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.layouts import join_blocks

MODALITIES = tuple(Modality(f"m{index}", "vector", (3,), "normal") for index in range(3))
TIMES = 2000  # draws per row
DRAWS = 200


class Gaussian:
    """N(mean, covariance) over the codes of a model, with some capabilities of a density."""

    def __init__(self, model: MultimodalVAE, *capabilities: str) -> None:
        self.layout, size = model.layout, sum(block.size for block in model.layout)
        mixing = torch.randn(size, size, generator=seeded(7), dtype=torch.float64) / size
        self.covariance = 0.3 * torch.eye(size, dtype=torch.float64) + mixing @ mixing.T
        self.mean = 0.4 * torch.randn(size, generator=seeded(8), dtype=torch.float64)
        for name in ("exact_log_prob", "marginal", "conditional"):
            setattr(self, name, name in capabilities)

    def of(self, kept: Tensor) -> MultivariateNormal:
        return MultivariateNormal(self.mean[kept], self.covariance[kept][:, kept])

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.of(torch.ones(z.shape[-1], dtype=torch.bool)).log_prob(z)

    def estimate_log_prob(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """log N(z) + log g with g ~ Exp(1), whose mean is 1."""
        return self.log_prob(z) + torch.empty_like(z[:, 0]).exponential_(generator=generator).log()

    def log_marginal(self, given: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        z, known = join_blocks(self.layout, given)
        return self.of(known).log_prob(z[:, known])

    def given(self, known: Tensor) -> tuple[Tensor, Tensor]:
        """Gain G and covariance of the other coordinates: z_r | z_g ~ N(μ_r + G (z_g − μ_g), ·)."""
        gain = self.covariance[~known][:, known] @ torch.linalg.inv(self.covariance[known][:, known])
        return gain, self.covariance[~known][:, ~known] - gain @ self.covariance[known][:, ~known]

    def condition(self, given: Mapping[str, Tensor], generator: torch.Generator, labels: Tensor | None = None) -> Codes:
        z, known = join_blocks(self.layout, given)
        gain, covariance = self.given(known)
        noise = torch.randn(len(z), len(covariance), generator=generator, dtype=z.dtype)
        z[:, ~known] = self.mean[~known] + (z[:, known] - self.mean[known]) @ gain.T
        z[:, ~known] += noise @ torch.linalg.cholesky(covariance).T
        return Codes.empirical(self.layout, z)


def reweighted(q: Normal, f: Gaussian, known: Tensor, scored: bool) -> tuple[Tensor, Tensor]:
    """Mean and covariance of q(z_g) f(z_g) / p(z_g) · f(z_r | z_g), or without f / p where it is not scored."""
    precision = q.scale[known].pow(-2).diag()
    moment = q.loc[known] / q.scale[known].square()
    if scored:
        own = torch.linalg.inv(f.covariance[known][:, known])
        precision = precision + own - torch.eye(len(own), dtype=own.dtype)
        moment = moment + own @ f.mean[known]
    inner = torch.linalg.inv(precision)
    gain, rest = f.given(known)
    mean, covariance = torch.empty_like(f.mean), torch.empty_like(f.covariance)
    mean[known] = inner @ moment
    mean[~known] = f.mean[~known] + gain @ (mean[known] - f.mean[known])
    covariance[known.outer(known)] = inner.flatten()
    covariance[(~known).outer(known)] = (gain @ inner).flatten()
    covariance[known.outer(~known)] = (gain @ inner).T.flatten()
    covariance[(~known).outer(~known)] = (rest + gain @ inner @ gain.T).flatten()
    return mean, covariance


def have_moments(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Assert that draws (n, D) have these moments, within five standard errors."""
    agree(draws.T, mean)
    centred = draws - mean
    agree(torch.einsum("ni,nj->ijn", centred, centred), covariance)


def rows(*observed: tuple[bool, ...], times: int = TIMES) -> Batch:
    """Return one row of data per pattern, repeated `times` times."""
    data = {m.name: torch.randn(1, 3, generator=seeded(i)).double() for i, m in enumerate(MODALITIES)}
    count = len(observed) * times
    mask = torch.tensor(observed).repeat_interleave(times, 0)
    return Batch({name: values.expand(count, -1).clone() for name, values in data.items()}, mask)


def test_draws_follow_the_posterior_under_another_prior() -> None:
    """The prior of an exact model is replaced: Bayes' rule gives its new posterior."""
    model = linear.exact(MODELS["mvae"](linear.modalities(2), latent=linear.LATENT))
    f = Gaussian(model, "exact_log_prob")
    batch = linear.sample(model, 2)
    observed = torch.tensor([[True, False], [True, True]])
    repeated = repeat(Batch(batch.data, observed), TIMES)
    drawn, share = conditional_draw(model, f, repeated, seeded(), DRAWS)  # type: ignore[arg-type]
    assert ((share > 1 / DRAWS) & (share < 1)).all()
    for row, draws in enumerate(drawn.unflatten(0, (2, TIMES))):
        precision = torch.linalg.inv(f.covariance)
        moment = precision @ f.mean
        for name, inside in zip(batch.data, observed[row], strict=True):
            if inside:  # x = W z + b + σ ε
                decoder: Any = model.decoders[name]
                precision = precision + decoder.weight.T @ decoder.weight / linear.SCALE**2
                moment = moment + decoder.weight.T @ (batch.data[name][row] - decoder.bias) / linear.SCALE**2
        covariance = torch.linalg.inv(precision)
        have_moments(draws, covariance @ moment, covariance)


class PerLabel(Gaussian):
    """N(mean + shift of the label, covariance) given a label, and the even mixture of both without a label."""

    SHIFTS = (-0.2, 0.2)

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        normal = self.of(torch.ones(z.shape[-1], dtype=torch.bool))
        each = torch.stack([normal.log_prob(z - shift) for shift in self.SHIFTS], -1)
        return each.logsumexp(-1) - math.log(2) if labels is None else each.gather(-1, labels.unsqueeze(-1))[:, 0]

    def estimate_log_prob(self, z: Tensor, generator: torch.Generator) -> Tensor:
        return self.log_prob(z)


def test_rows_with_a_label_are_drawn_given_it_and_rows_without_one_over_all() -> None:
    model = linear.exact(MODELS["mvae"](linear.modalities(1), latent=linear.LATENT))
    f = PerLabel(model, "exact_log_prob")
    batch = repeat(Batch(linear.sample(model, 1).data, torch.ones(1, 1, dtype=torch.bool)), 3 * TIMES)
    labels = torch.tensor([-1, 0, 1]).repeat_interleave(TIMES)
    drawn, without = (conditional_draw(model, f, batch, seeded(), DRAWS, (), y)[0] for y in (labels, None))  # type: ignore[arg-type]
    assert torch.equal(drawn[:TIMES], without[:TIMES])
    decoder: Any = model.decoders["m0"]
    own = torch.linalg.inv(f.covariance)
    covariance = torch.linalg.inv(own + decoder.weight.T @ decoder.weight / linear.SCALE**2)
    for label, draws in enumerate(drawn[TIMES:].split(TIMES)):
        moment = own @ (f.mean + f.SHIFTS[label])
        moment = moment + decoder.weight.T @ (batch.data["m0"][0] - decoder.bias) / linear.SCALE**2
        have_moments(draws, covariance @ moment, covariance)


@pytest.mark.parametrize("name", ["dmvae", "unimodal"])
@pytest.mark.parametrize(
    "capabilities",
    [("exact_log_prob", "marginal", "conditional"), ("exact_log_prob",), ("exact_log_prob", "conditional")],
)
def test_private_codes_are_drawn_given_the_others(name: str, capabilities: tuple[str, ...]) -> None:
    """Each pattern's known blocks are reweighted, and the private codes of the missing modalities follow them.

    Without marginals and conditionals the whole vector is reweighted, which has the same limit.
    """
    patterns = ((True, False, False), (False, True, True))
    model = MODELS[name](MODALITIES, latent=2, width=4, private=1, seed=3).double().requires_grad_(False)
    f, batch = Gaussian(model, *capabilities), rows(*patterns)
    drawn, share = conditional_draw(model, f, batch, seeded(), DRAWS)  # type: ignore[arg-type]
    scored = "marginal" in capabilities or "conditional" not in capabilities
    assert bool((share > 1 - 1e-9).all()) != scored
    q = model.posterior(batch)
    for start, pattern in zip((0, TIMES), patterns, strict=True):
        known = torch.tensor([*[True, True][: 2 * model.shares], *pattern])
        expected = reweighted(Normal(q.loc[start], q.scale[start]), f, known, scored)
        have_moments(drawn[start : start + TIMES], *expected)


def test_complete_rows_need_no_marginal() -> None:
    model = MODELS["dmvae"](MODALITIES, latent=2, width=4, private=1, seed=3).double().requires_grad_(False)
    f, batch = Gaussian(model, "exact_log_prob", "conditional"), rows((True, True, True))
    drawn, _ = conditional_draw(model, f, batch, seeded(), DRAWS)  # type: ignore[arg-type]
    q, everything = model.posterior(batch), torch.ones(5, dtype=torch.bool)
    have_moments(drawn, *reweighted(Normal(q.loc[0], q.scale[0]), f, everything, True))


def test_a_density_without_a_score_leaves_the_posterior_as_it_is() -> None:
    model = MODELS["mvtcae"](MODALITIES, latent=2, width=4).double().requires_grad_(False)
    batch = rows((True, False, True), times=50)
    drawn, share = conditional_draw(model, Gaussian(model), batch, seeded(), 8)  # type: ignore[arg-type]
    candidates = PosteriorCandidates.draw(model, batch, seeded(), 8)
    plain = candidates.choose(torch.zeros(50, 8))
    assert torch.equal(drawn, candidates.chosen(plain))
    assert (share == 1).all()
    assert len(plain.unique()) == 8  # all candidates are possible


@pytest.mark.usefixtures("short_chains")
@pytest.mark.parametrize("name", list(MODELS))
def test_a_single_candidate_is_what_the_model_infers(name: str) -> None:
    """For every model, including lower levels of hierarchies and private codes, on rows that lack modalities."""
    model = MODELS[name](MODALITIES, latent=3, width=4).requires_grad_(False)
    batch = rows((True, True, True), (False, True, True), (True, False, False), times=4)
    batch = Batch({name: values.float() for name, values in batch.data.items()}, batch.observed)
    expected = model.infer(batch, torch.ones(1, 3, dtype=torch.bool), seeded())[:, 0]
    generator = seeded()
    candidates = PosteriorCandidates.draw(model, batch, generator, 1)
    index = torch.zeros(len(batch), dtype=torch.int64)
    assert torch.equal(candidates.latents(index, candidates.chosen(index), generator), expected)


def test_the_levels_below_a_code_stay_with_it() -> None:
    """The density of a hierarchical model scores the top level; the lower level is that of the chosen code."""
    model = MODELS["mhvae"](MODALITIES, latent=2, width=4, levels=2).double().requires_grad_(False)
    f, batch = Gaussian(model, "exact_log_prob"), rows((True, True, False))
    candidates = PosteriorCandidates.draw(model, batch, seeded(), DRAWS)
    index = candidates.choose(candidates.log_weights(f, seeded()))  # type: ignore[arg-type]
    codes = candidates.chosen(index)
    q = model.posterior(batch)
    have_moments(codes, *reweighted(Normal(q.loc[0], q.scale[0]), f, torch.tensor([True, True]), True))
    step: Any = model.steps[0]
    below = candidates.latents(index, codes, seeded()) - step(codes)[1].flatten(1)  # W z_1 + b
    assert torch.linalg.matrix_rank((below - below[0])[:100], atol=1e-9) == model.latent


def test_the_effective_share() -> None:
    even, one = torch.zeros(3, 8), torch.zeros(3, 8)
    one[:, 5] = 100
    assert torch.equal(effective_share(even), torch.ones(3).double())
    torch.testing.assert_close(effective_share(one), torch.full((3,), 1 / 8).double())
    halves = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf])
    assert effective_share(halves) == 0.5


def test_choices_follow_the_weights() -> None:
    weights = torch.tensor([0.5, 0.0, 0.3, 0.2])
    uniform = (torch.arange(1000) + 0.5) / 1000
    known = torch.ones(1000, 1, dtype=torch.bool)
    candidates = PosteriorCandidates(None, torch.empty(1000, 4, 2), None, known, uniform)  # type: ignore[arg-type]
    counts = torch.bincount(candidates.choose(weights.log().expand(1000, 4)), minlength=4)
    assert counts.tolist() == [500, 0, 300, 200]
