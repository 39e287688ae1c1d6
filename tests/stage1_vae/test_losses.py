"""Every loss against an independent float64 derivation from its paper's equation, row by row, subset by subset."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Laplace, Normal, kl_divergence

from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import CRMVAE, MMVAE, MVAE, MVTCAE, MoPoE

MODALITIES = [
    Modality("a", "vector", (3,), "normal"),
    Modality("b", "vector", (5,), "laplace"),
    Modality("c", "image", (1, 4, 4), "bernoulli", (0, 1)),
]
LATENT, ROWS, SCALE = 4, 4, 0.7
FULL = torch.ones(ROWS, 3, dtype=torch.bool)
HOLES = torch.tensor([[True, True, False], [True, True, True], [False, True, True], [False, False, True]])


def build(kind: type[MultimodalVAE], **options: object) -> MultimodalVAE:
    model = kind(MODALITIES, latent=LATENT, width=2, likelihood_scale=SCALE, seed=3, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():  # away from the small initial values
            parameter.mul_(2)
    return model


def batch(observed: Tensor) -> Batch:
    generator = torch.Generator().manual_seed(5)
    data = {m.name: torch.rand(ROWS, *m.shape, generator=generator, dtype=torch.float64) for m in MODALITIES}
    return Batch(data, observed)


def expert(model: MultimodalVAE, data: Batch, row: int, name: str) -> tuple[Tensor, Tensor]:
    raw = model.encoders[name](data.data[name][row : row + 1])[0]
    return raw[:LATENT], raw[LATENT:].clamp(-7, 5).exp()


def log_likelihood(model: MultimodalVAE, data: Batch, row: int, name: str, z: Tensor) -> Tensor:
    output, x = model.decoders[name](z[None])[0], data.data[name][row]
    if name == "a":
        return Normal(output, SCALE).log_prob(x).sum()
    if name == "b":
        return Laplace(output, SCALE).log_prob(x).sum()
    return (x * output.sigmoid().log() + (1 - x) * (1 - output.sigmoid()).log()).sum()


def product(experts: list[tuple[Tensor, Tensor]], prior: bool) -> Independent:
    precision = sum((scale**-2 for _, scale in experts), torch.full((LATENT,), float(prior), dtype=torch.float64))
    moment = sum(loc / scale**2 for loc, scale in experts)
    return Independent(Normal(moment / precision, precision**-0.5), 1)


def has(data: Batch, row: int) -> list[str]:
    return [m.name for index, m in enumerate(MODALITIES) if data.observed[row, index]]


STANDARD = Independent(Normal(torch.zeros(LATENT, dtype=torch.float64), 1.0), 1)


@pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])
def test_mvae(observed: Tensor) -> None:
    """Wu & Goodman 2018, eq. 4."""
    model, data = build(MVAE, subsets=2, beta=1.5), batch(observed)
    subsets = model.draw_subsets(observed, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    torch.rand((ROWS, 2), generator=generator, dtype=torch.float64)  # the model has drawn its subsets with these
    noise = torch.randn(ROWS, 6, LATENT, generator=generator, dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        bounds = []
        for slot, subset in enumerate(subsets[row].tolist()):
            names = [m.name for m, inside in zip(MODALITIES, subset, strict=True) if inside]
            if names:
                q = product([expert(model, data, row, name) for name in names], prior=True)
                z = q.mean + q.stddev * noise[row, slot]
                fit = sum(log_likelihood(model, data, row, name, z) for name in names)
                bounds.append(fit - 1.5 * kl_divergence(q, STANDARD))
        assert len(bounds) == 3 + len(has(data, row))
        expected.append(-sum(bounds))
    loss = model.loss(data, torch.Generator().manual_seed(0)).per_sample
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])
def test_mvtcae(observed: Tensor) -> None:
    """Hwang et al. 2021: (M − α)/M E_q log p(X|z) − β [(1 − α) KL(q‖p) + α/M Σ KL(q‖q_m)]."""
    model, data = build(MVTCAE, alpha=0.6, beta=1.7), batch(observed)
    noise = torch.randn(ROWS, 1, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        names = has(data, row)
        experts = [expert(model, data, row, name) for name in names]
        q, count = product(experts, prior=False), len(names)
        z = q.mean + q.stddev * noise[row, 0]
        fit = sum(log_likelihood(model, data, row, name, z) for name in names)
        to_experts = sum(kl_divergence(q, Independent(Normal(*e), 1)) for e in experts)
        penalty = (1 - 0.6) * kl_divergence(q, STANDARD) + 0.6 / count * to_experts
        expected.append(-((count - 0.6) / count * fit - 1.7 * penalty))
    loss = model.loss(data, torch.Generator().manual_seed(0)).per_sample
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])
def test_crmvae(observed: Tensor) -> None:
    """Suzuki & Matsuo 2023: the mean of the joint bound and of those that condition on one modality."""
    model, data = build(CRMVAE, beta=1.7), batch(observed)
    noise = torch.randn(ROWS, 4, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        names = has(data, row)
        experts = {name: expert(model, data, row, name) for name in names}
        q = product(list(experts.values()), prior=False)
        z = q.mean + q.stddev * noise[row, 0]
        fits = {name: log_likelihood(model, data, row, name, z) for name in names}
        bounds = [sum(fits.values()) - 1.7 * kl_divergence(q, STANDARD)]
        for m, modality in enumerate(MODALITIES):
            if modality.name in names:
                own = Independent(Normal(*experts[modality.name]), 1)
                others = sum(fit for name, fit in fits.items() if name != modality.name)
                alone = own.mean + own.stddev * noise[row, 1 + m]
                again = log_likelihood(model, data, row, modality.name, alone)
                bounds.append(others - 1.7 * kl_divergence(q, own) + again)
        expected.append(-sum(bounds) / len(bounds))
        assert len(bounds) == 1 + len(names)
    loss = model.loss(data, torch.Generator().manual_seed(0)).per_sample
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_crmvae_without_unimodal_reconstructions_is_mvtcae() -> None:
    """At α = M/(M + 1), and with neither term halved."""
    data = batch(FULL)
    ours, theirs = build(CRMVAE, beta=1.0), build(MVTCAE, alpha=3 / 4, beta=1.0)
    noise = torch.randn(ROWS, 4, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = ours.loss(data, torch.Generator().manual_seed(0))
    experts = theirs.unimodal(data).shared
    q = theirs.aggregate(experts, FULL.unsqueeze(1))
    fit = theirs.log_likelihood(q.loc + q.scale * noise[:, :1], data, FULL.unsqueeze(1)).sum((1, 2))
    reference = theirs.loss(data, torch.Generator().manual_seed(0))
    penalty = reference.per_sample + (3 - 3 / 4) / 3 * -reference.terms["reconstruction"]
    without = loss.per_sample - loss.terms["unimodal_reconstruction"] / 4
    torch.testing.assert_close(without, penalty - (3 - 3 / 4) / 3 * fit, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])
def test_mopoe_with_private_codes(observed: Tensor) -> None:
    """Each decoder reads z and its own w, whose divergence is taken off; a missing modality has none."""
    sizes = {"a": 2, "c": 1}
    model, data = build(MoPoE, beta=2.0, private=sizes), batch(observed)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(1, ROWS, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, ROWS, LATENT + 3, generator=generator, dtype=torch.float64)[0]
    places = {"a": slice(LATENT, LATENT + 2), "b": slice(0, 0), "c": slice(LATENT + 2, LATENT + 3)}
    expected = []
    for row in range(ROWS):
        names, experts, private = has(data, row), {}, {}
        for name in names:
            loc, scale = model.encoders[name](data.data[name][row : row + 1])[0].chunk(2)
            scale = scale.clamp(-7, 5).exp()
            experts[name] = loc[:LATENT], scale[:LATENT]
            if name in sizes:
                private[name] = Independent(Normal(loc[LATENT:], scale[LATENT:]), 1)
        subsets = [s for size in (1, 2, 3) for s in itertools.combinations(names, size)]
        subsets.sort(key=lambda s: sum(2 ** "abc".index(name) for name in s))
        products = [product([experts[n] for n in s], prior=False) for s in subsets]
        q = products[int(uniform[0, row, 0] * len(products))]
        z = q.mean + q.stddev * noise[row, :LATENT]
        fit = 0.0
        divergence = sum(kl_divergence(p, STANDARD) for p in products) / len(products)
        for name in names:
            w = z[:0]
            if name in private:
                own = private[name]
                w = own.mean + own.stddev * noise[row, places[name]]
                standard = Independent(Normal(torch.zeros_like(own.mean), 1.0), 1)
                divergence = divergence + kl_divergence(own, standard)
            fit = fit + log_likelihood(model, data, row, name, torch.cat([z, w]))
        expected.append(2.0 * divergence - fit)
    loss = model.loss(data, torch.Generator().manual_seed(0)).per_sample
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])
def test_mopoe(observed: Tensor) -> None:
    """Sutter et al. 2021: E_q log p(X|z) − β mean_S KL(q_S‖p), for the component that each row drew."""
    model, data = build(MoPoE, beta=2.0, draws=3), batch(observed)
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(3, ROWS, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, ROWS, LATENT, generator=generator, dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        names = has(data, row)
        # In the order of the bits of 1 … 2^M − 1, restricted to what the row has.
        every = [
            [n for n, bit in zip("abc", reversed(bits), strict=True) if bit]
            for bits in itertools.product((0, 1), repeat=3)
        ]
        inside = [subset for subset in every if subset and set(subset) <= set(names)]
        products = [product([expert(model, data, row, n) for n in subset], prior=False) for subset in inside]
        assert len(products) == 2 ** len(names) - 1
        fits = []
        for k in range(3):
            q = products[int(uniform[k, row, 0] * len(products))]
            z = q.mean + q.stddev * noise[k, row]
            fits.append(sum(log_likelihood(model, data, row, name, z) for name in names))
        divergence = sum(kl_divergence(q, STANDARD) for q in products) / len(products)
        expected.append(-(sum(fits) / 3 - 2.0 * divergence))
    loss = model.loss(data, torch.Generator().manual_seed(0)).per_sample
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("observed", [FULL, HOLES], ids=["complete", "incomplete"])
@pytest.mark.parametrize("bound", ["looser", "tight"])
@pytest.mark.parametrize("estimator", ["iwae", "dreg"])
def test_mmvae(observed: Tensor, bound: str, estimator: str) -> None:
    """Shi et al. 2019, eq. 3 (looser) and its tight relative; the estimator leaves the value alone."""
    options = {"draws": 3, "bound": bound, "estimator": estimator, "family": "normal", "beta": 1.3}
    model, data = build(MMVAE, **options), batch(observed)
    noise = torch.randn(3, ROWS, 3, LATENT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    prior_scale = LATENT * model.prior_logits.exp() / model.prior_logits.exp().sum()
    prior = Independent(Normal(torch.zeros(LATENT, dtype=torch.float64), prior_scale), 1)
    expected = []
    for row in range(ROWS):
        names = has(data, row)
        experts = {name: Independent(Normal(*expert(model, data, row, name)), 1) for name in names}
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
    loss = model.loss(data, torch.Generator().manual_seed(0)).per_sample
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-9, atol=1e-9)


def test_annealing_scales_the_divergences_alone() -> None:
    for kind in (MVAE, MVTCAE, MoPoE, CRMVAE):
        model, data = build(kind), batch(HOLES)
        losses = [
            model.loss(data, torch.Generator().manual_seed(0), kl_weight).per_sample for kl_weight in (0.0, 0.5, 1.0)
        ]
        torch.testing.assert_close(losses[1], (losses[0] + losses[2]) / 2)
        assert (losses[2] > losses[0]).all()
