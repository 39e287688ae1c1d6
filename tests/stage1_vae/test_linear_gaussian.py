"""Losses and posteriors in the linear–Gaussian model, whose evidence and posteriors have closed forms."""

import math

import pytest
import torch
from support.equations import Free, agree, repeat, seeded
from support.linear_gaussian import LATENT, SIZES, evidence, exact, is_exact, modalities, posterior, sample

from postprior.stage1_vae.bounds import importance_bound
from postprior.stage1_vae.experts import all_subsets
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import CRMVAE, MMVAE, MVAE, MVTCAE, MoPoE

DRAWS = 20_000


def test_a_product_with_the_prior_is_the_exact_posterior_of_every_subset() -> None:
    model = exact(MVAE(modalities(3), **SIZES))
    batch, subsets = sample(model, 5), all_subsets(3)
    q = model.posterior(batch, subsets)
    for index, subset in enumerate(subsets):
        is_exact(q[:, index], model, batch, subset)


def test_a_product_without_the_prior_counts_it_as_often_as_it_has_experts() -> None:
    """Each unimodal posterior contains p once, so their product contains p^|S|; the exact posterior contains p once."""
    model = exact(MVTCAE(modalities(3), **SIZES))
    batch, subsets = sample(model, 5), all_subsets(3)
    factors = model.unimodal(batch).shared
    q = model.posterior(batch, subsets)
    total = torch.einsum("sm,bmd->bsd", subsets.double(), factors.scale**-2)
    torch.testing.assert_close(q.scale**-2, total)
    mean, covariance = posterior(model, batch, subsets[-1])
    exact_precision = torch.linalg.inv(covariance).diagonal()
    torch.testing.assert_close(q[:, -1].scale ** -2 + 1, exact_precision.expand_as(mean))


def test_mvae_maximises_a_sum_of_tight_bounds() -> None:
    model = exact(MVAE(modalities(3), **SIZES, subsets=0))
    batch = sample(model, 4)
    loss = model.loss(repeat(batch, DRAWS), seeded()).per_sample.reshape(4, DRAWS)
    subsets = torch.cat([torch.ones(1, 3, dtype=torch.bool), torch.eye(3, dtype=torch.bool)])
    agree(-loss, sum(evidence(model, batch, subset) for subset in subsets))


def test_mvae_draws_its_subsets_uniformly_from_those_of_a_row() -> None:
    model = exact(MVAE(modalities(3), **SIZES, subsets=4))
    observed = torch.tensor([[True, False, True], [True, True, True]]).repeat_interleave(10_000, 0)
    drawn = model.draw_subsets(observed, seeded())[:, 1:5]
    codes = (drawn.long() * torch.tensor([1, 2, 4])).sum(-1).reshape(2, -1)
    shares = torch.stack([(codes == code).double().mean(-1) for code in range(8)], -1)
    expected = torch.zeros(2, 8, dtype=torch.float64)
    expected[0, [1, 4, 5]], expected[1, 1:] = 1 / 3, 1 / 7
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.01)
    assert (shares[expected == 0] == 0).all()


def test_mopoe_is_tight_for_one_modality_and_a_bound_for_several() -> None:
    alone, several = (exact(MoPoE(modalities(count), **SIZES)) for count in (1, 3))
    with_prior = alone.encoders["m0"]
    precision = (-2 * with_prior.log_scale).exp()
    with_prior.gain *= (precision / (1 + precision))[:, None]  # the exact posterior, not the factor alone
    with_prior.log_scale.copy_(-0.5 * (1 + precision).log())
    batch = sample(alone, 4)
    loss = alone.loss(repeat(batch, DRAWS), seeded()).per_sample.reshape(4, DRAWS)
    agree(-loss, evidence(alone, batch, torch.ones(1, dtype=torch.bool)))
    batch = sample(several, 4)
    loss = several.loss(repeat(batch, DRAWS), seeded()).per_sample.reshape(4, DRAWS)
    assert (-loss.mean(-1) < evidence(several, batch, torch.ones(3, dtype=torch.bool))).all()


def test_the_tight_bound_of_mmvae_rises_to_the_evidence() -> None:
    bounds = []
    for draws in (1, 4, 16, 256):
        model = exact(MMVAE(modalities(2), **SIZES, draws=draws, bound="tight", estimator="iwae", family="normal"))
        batch = sample(model, 3)
        loss = model.loss(repeat(batch, 4000 // draws + 40), seeded()).per_sample.reshape(3, -1)
        bounds.append(-loss)
    means = torch.stack([bound.mean(-1) for bound in bounds])
    assert (means.diff(dim=0) > 0).all()
    truth = evidence(model, batch, torch.ones(2, dtype=torch.bool))
    assert (means < truth + 0.01).all()
    assert (truth - means[-1] < 0.05).all()


def test_the_looser_bound_of_mmvae_tends_to_its_known_limit() -> None:
    """log p(X) + mean_m log E_{p(z|X)}[q_m/q], because the weights of each expert are averaged apart."""
    model = exact(MMVAE(modalities(2), **SIZES, draws=4000, estimator="iwae", family="normal"))
    batch = sample(model, 2)
    bound = -model.loss(repeat(batch, 30), seeded()).per_sample.reshape(2, -1)
    both = torch.ones(2, dtype=torch.bool)
    mean, covariance = posterior(model, batch, both)
    z = torch.distributions.MultivariateNormal(mean, covariance)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = z.sample((200_000,))  # (R, B, D)
    experts, q = model.unimodal(batch).shared, model.posterior(batch)
    ratios = torch.stack([(experts[:, m].log_prob(z) - q.log_prob(z)) for m in range(2)])
    expected = evidence(model, batch, both) + importance_bound(ratios, 1).mean(0)
    torch.testing.assert_close(bound.mean(-1), expected, rtol=0, atol=0.02)


def encoder_gradients(count: int, estimator: str, draws: int, bound: str, rows: int = 60_000) -> torch.Tensor:
    """Gradients of the loss with respect to the parameters of the experts, (M, 2·D, rows), for copies of one row."""
    options = {"draws": draws, "estimator": estimator, "bound": bound, "family": "normal"}
    model = exact(MMVAE(modalities(count), **SIZES, **options))
    batch = repeat(sample(model, 1), rows)
    with torch.no_grad():
        shift = torch.tensor([0.3, -0.2, 0.4, 0.1], dtype=torch.float64)
        free = {name: Free(model.encoders[name](batch.data[name]) + shift) for name in batch.data}
    for name, encoder in free.items():
        model.encoders[name] = encoder
    model.loss(batch, seeded(len(estimator))).per_sample.sum().backward()
    return torch.stack([encoder.raw.grad.T for encoder in free.values()])


@pytest.mark.parametrize(("count", "draws", "bound"), [(1, 6, "looser"), (1, 6, "tight"), (2, 1, "looser")])
def test_dreg_has_the_expectation_of_the_plain_gradient(count: int, draws: int, bound: str) -> None:
    """In the cases where it is unbiased: one expert, or one draw of each expert under its own logarithm."""
    plain, doubly = (encoder_gradients(count, estimator, draws, bound) for estimator in ("iwae", "dreg"))
    agree(doubly - plain.flip(-1), torch.zeros(count, 2 * LATENT, dtype=torch.float64))
    assert doubly.abs().mean() > 0.01


def test_dreg_has_less_variance_than_the_plain_gradient() -> None:
    plain, doubly = (encoder_gradients(1, estimator, 16, "tight", rows=5000) for estimator in ("iwae", "dreg"))
    assert (doubly.var(-1) < plain.var(-1)).all()


def test_missing_modalities_leave_the_evidence_of_the_rest() -> None:
    model = exact(MVAE(modalities(3), **SIZES, subsets=0))
    batch = sample(model, 1)
    observed = torch.tensor([[True, False, True]])
    masked = repeat(Batch(batch.data, observed), DRAWS)
    loss = model.loss(masked, seeded()).per_sample.reshape(1, DRAWS)
    subsets = torch.tensor([[True, False, True], [True, False, False], [False, False, True]])
    agree(-loss, sum(evidence(model, batch, subset) for subset in subsets))


@pytest.mark.parametrize("kind", [MVAE, MMVAE, MoPoE, MVTCAE, CRMVAE])
def test_the_importance_sampled_evidence_is_that_of_every_row(kind: type[MultimodalVAE]) -> None:
    """Unbiased whatever the posterior, with stratified draws of a whole mixture, on complete and incomplete rows."""
    options = {"family": "normal"} if kind is MMVAE else {}
    model = exact(kind(modalities(3), **SIZES, **options))
    patterns = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    batch = Batch(sample(model, 3).data, patterns)
    found = model.log_evidence(repeat(batch, 2000), seeded(), draws=8).reshape(3, -1)
    alone = [Batch({n: x[[row]] for n, x in batch.data.items()}, patterns[[row]]) for row in range(3)]
    truth = torch.cat([evidence(model, one, patterns[row]) for row, one in enumerate(alone)])
    weights = (found - truth[:, None]).exp()
    error = 5 * weights.std(-1) / math.sqrt(weights.shape[-1]) + 1e-9  # none at all for an exact posterior
    assert ((weights.mean(-1) - 1).abs() < error).all()
    precise = model.log_evidence(batch, seeded(), draws=4000)
    torch.testing.assert_close(precise, truth, rtol=0, atol=0.1)
