"""Every loss against a derivation from the equation of its paper, in float64, per row and per subset."""

import itertools
import math

import pytest
import torch
from support.equations import (
    CODE,
    FULL,
    HOLES,
    MODALITIES,
    ROWS,
    STANDARD,
    batch,
    build,
    by_mask,
    encoded,
    expert,
    log_likelihood,
    moments,
    names_of,
    product,
    same_loss,
    seeded,
    standard,
)
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from postprior.stage1_vae.models import CRMVAE, MMVAE, MVAE, MVTCAE, MoPoE


@by_mask
def test_mvae(observed: Tensor) -> None:
    """Wu & Goodman 2018, eq. 4."""
    model, data = build(MVAE, subsets=2, beta=1.5), batch(observed)
    subsets = model.draw_subsets(observed, seeded())
    generator = seeded()
    torch.rand((ROWS, 2), generator=generator, dtype=torch.float64)  # the model drew its subsets from these numbers
    noise = torch.randn(ROWS, 6, CODE, generator=generator, dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        bounds = []
        for slot, subset in enumerate(subsets[row].tolist()):
            names = [m.name for m, inside in zip(MODALITIES, subset, strict=True) if inside]
            if names:
                q = product([STANDARD, *(expert(model, data, row, name) for name in names)])
                z = q.mean + q.stddev * noise[row, slot]
                fit = sum(log_likelihood(model, data, row, name, z) for name in names)
                bounds.append(fit - 1.5 * kl_divergence(q, STANDARD))
        assert len(bounds) == 3 + len(names_of(data, row))
        expected.append(-sum(bounds))
    same_loss(model.loss(data, seeded()).per_sample, expected)


@by_mask
def test_mvtcae(observed: Tensor) -> None:
    """Hwang et al. 2021: (M − α)/M E_q log p(X|z) − β [(1 − α) KL(q‖p) + α/M Σ KL(q‖q_m)]."""
    model, data = build(MVTCAE, alpha=0.6, beta=1.7), batch(observed)
    noise = torch.randn(ROWS, 1, CODE, generator=seeded(), dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        names = names_of(data, row)
        experts = [expert(model, data, row, name) for name in names]
        q, count = product(experts), len(names)
        z = q.mean + q.stddev * noise[row, 0]
        fit = sum(log_likelihood(model, data, row, name, z) for name in names)
        to_experts = sum(kl_divergence(q, e) for e in experts)
        penalty = (1 - 0.6) * kl_divergence(q, STANDARD) + 0.6 / count * to_experts
        expected.append(-((count - 0.6) / count * fit - 1.7 * penalty))
    same_loss(model.loss(data, seeded()).per_sample, expected)


@by_mask
def test_crmvae(observed: Tensor) -> None:
    """Suzuki & Matsuo 2023: the mean of the joint bound and of those that condition on one modality."""
    model, data = build(CRMVAE, beta=1.7), batch(observed)
    noise = torch.randn(ROWS, 4, CODE, generator=seeded(), dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        names = names_of(data, row)
        experts = {name: expert(model, data, row, name) for name in names}
        q = product(list(experts.values()))
        z = q.mean + q.stddev * noise[row, 0]
        fits = {name: log_likelihood(model, data, row, name, z) for name in names}
        bounds = [sum(fits.values()) - 1.7 * kl_divergence(q, STANDARD)]
        for m, modality in enumerate(MODALITIES):
            if modality.name in names:
                own = experts[modality.name]
                others = sum(fit for name, fit in fits.items() if name != modality.name)
                alone = own.mean + own.stddev * noise[row, 1 + m]
                again = log_likelihood(model, data, row, modality.name, alone)
                bounds.append(others - 1.7 * kl_divergence(q, own) + again)
        expected.append(-sum(bounds) / len(bounds))
        assert len(bounds) == 1 + len(names)
    same_loss(model.loss(data, seeded()).per_sample, expected)


def test_crmvae_without_unimodal_reconstructions_is_mvtcae() -> None:
    """At α = M/(M + 1), and with neither term halved."""
    data = batch(FULL)
    ours, theirs = build(CRMVAE, beta=1.0), build(MVTCAE, alpha=3 / 4, beta=1.0)
    noise = torch.randn(ROWS, 4, CODE, generator=seeded(), dtype=torch.float64)
    loss = ours.loss(data, seeded())
    experts = theirs.unimodal(data).shared
    q = theirs.aggregate(experts, FULL.unsqueeze(1))
    fit = theirs.log_likelihood(q.loc + q.scale * noise[:, :1], data, FULL.unsqueeze(1)).sum((1, 2))
    reference = theirs.loss(data, seeded())
    penalty = reference.per_sample + (3 - 3 / 4) / 3 * -reference.terms["reconstruction"]
    without = loss.per_sample - loss.terms["unimodal_reconstruction"] / 4
    torch.testing.assert_close(without, penalty - (3 - 3 / 4) / 3 * fit, rtol=1e-9, atol=1e-9)


@by_mask
def test_mopoe_with_private_codes(observed: Tensor) -> None:
    """Each decoder reads z and its own w, whose divergence is subtracted; a missing modality has no w."""
    sizes = {"a": 2, "c": 1}
    model, data = build(MoPoE, beta=2.0, private=sizes), batch(observed)
    generator = seeded()
    uniform = torch.rand(1, ROWS, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, ROWS, CODE + 3, generator=generator, dtype=torch.float64)[0]
    places = {"a": slice(CODE, CODE + 2), "b": slice(0, 0), "c": slice(CODE + 2, CODE + 3)}
    expected = []
    for row in range(ROWS):
        names, experts, private = names_of(data, row), {}, {}
        for name in names:
            loc, scale = moments(encoded(model, data, row, name))
            experts[name] = Independent(Normal(loc[:CODE], scale[:CODE]), 1)
            if name in sizes:
                private[name] = Independent(Normal(loc[CODE:], scale[CODE:]), 1)
        subsets = [s for size in (1, 2, 3) for s in itertools.combinations(names, size)]
        subsets.sort(key=lambda s: sum(2 ** "abc".index(name) for name in s))
        products = [product([experts[n] for n in s]) for s in subsets]
        q = products[int(uniform[0, row, 0] * len(products))]
        z = q.mean + q.stddev * noise[row, :CODE]
        fit = 0.0
        divergence = sum(kl_divergence(p, STANDARD) for p in products) / len(products)
        for name in names:
            w = z[:0]
            if name in private:
                own = private[name]
                w = own.mean + own.stddev * noise[row, places[name]]
                divergence = divergence + kl_divergence(own, standard(len(w)))
            fit = fit + log_likelihood(model, data, row, name, torch.cat([z, w]))
        expected.append(2.0 * divergence - fit)
    same_loss(model.loss(data, seeded()).per_sample, expected)


@by_mask
def test_mopoe(observed: Tensor) -> None:
    """Sutter et al. 2021: E_q log p(X|z) − β mean_S KL(q_S‖p), for the component that each row drew."""
    model, data = build(MoPoE, beta=2.0, draws=3), batch(observed)
    generator = seeded()
    uniform = torch.rand(3, ROWS, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, ROWS, CODE, generator=generator, dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        names = names_of(data, row)
        # In the order of the bits of 1 … 2^M − 1, restricted to what the row has.
        every = [
            [n for n, bit in zip("abc", reversed(bits), strict=True) if bit]
            for bits in itertools.product((0, 1), repeat=3)
        ]
        inside = [subset for subset in every if subset and set(subset) <= set(names)]
        products = [product([expert(model, data, row, n) for n in subset]) for subset in inside]
        assert len(products) == 2 ** len(names) - 1
        fits = []
        for k in range(3):
            q = products[int(uniform[k, row, 0] * len(products))]
            z = q.mean + q.stddev * noise[k, row]
            fits.append(sum(log_likelihood(model, data, row, name, z) for name in names))
        divergence = sum(kl_divergence(q, STANDARD) for q in products) / len(products)
        expected.append(-(sum(fits) / 3 - 2.0 * divergence))
    same_loss(model.loss(data, seeded()).per_sample, expected)


@by_mask
@pytest.mark.parametrize("bound", ["looser", "tight"])
@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_mmvae(observed: Tensor, bound: str, estimator: str) -> None:
    """Shi et al. 2019, eq. 3 (looser) and the tight bound; the estimator does not change the value."""
    options = {"draws": 3, "bound": bound, "estimator": estimator, "family": "normal", "beta": 1.3}
    model, data = build(MMVAE, **options), batch(observed)
    noise = torch.randn(3, ROWS, 3, CODE, generator=seeded(), dtype=torch.float64)
    prior_scale = CODE * model.prior_logits.exp() / model.prior_logits.exp().sum()
    prior = Independent(Normal(torch.zeros(CODE, dtype=torch.float64), prior_scale), 1)
    expected = []
    for row in range(ROWS):
        names = names_of(data, row)
        experts = {name: expert(model, data, row, name) for name in names}
        log_weights = []
        for m, modality in enumerate(MODALITIES):
            if modality.name in names:
                own = experts[modality.name]
                draws = [own.mean + own.stddev * noise[k, row, m] for k in range(3)]
                for z in draws:
                    fit = sum(log_likelihood(model, data, row, name, z) for name in names)
                    mixture = torch.stack([q.log_prob(z) for q in experts.values()]).logsumexp(0) - math.log(len(names))
                    log_weights.append(fit + 1.3 * (prior.log_prob(z) - mixture))
        weights = torch.stack(log_weights).reshape(len(names), 3)
        if bound == "looser":
            value = (weights.logsumexp(1) - math.log(3)).mean()
        else:
            value = weights.flatten().logsumexp(0) - math.log(3 * len(names))
        expected.append(-value)
    same_loss(model.loss(data, seeded()).per_sample, expected)


def test_annealing_scales_the_divergences_alone() -> None:
    for kind in (MVAE, MVTCAE, MoPoE, CRMVAE):
        model, data = build(kind), batch(HOLES)
        losses = [model.loss(data, seeded(), kl_weight).per_sample for kl_weight in (0.0, 0.5, 1.0)]
        torch.testing.assert_close(losses[1], (losses[0] + losses[2]) / 2)
        assert (losses[2] > losses[0]).all()
