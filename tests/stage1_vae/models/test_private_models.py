"""Models with shared and private codes: losses derived again, closed-form oracles, and faults that must not return."""

import itertools
import math
from typing import Any

import pytest
import torch
from support import equations
from support.equations import (
    CODE,
    FULL,
    HOLES,
    ROWS,
    Free,
    agree,
    batch,
    by_mask,
    encoded,
    log_likelihood,
    moments,
    names_of,
    repeat,
    same_loss,
    seeded,
    standard,
)
from support.linear_gaussian import SCALE, modalities
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, kl_divergence

from postprior.stage1_vae.distributions import FAMILIES, Mixture
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import CMVAE, DMVAE, MMVAEPlus

PRIVATE = {"a": 2, "b": 3, "c": 1}
mixtures = pytest.mark.parametrize("kind", [MMVAEPlus, CMVAE])


# Losses, row by row from the papers' equations.


def build(kind: type[MultimodalVAE], **options: Any) -> MultimodalVAE:
    return equations.build(kind, shift=0.2, **{"private": PRIVATE} | options)


def expert(model: MultimodalVAE, data: Batch, row: int, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Location and scale of the shared posterior of a modality alone, then of its private one."""
    loc, scale = moments(encoded(model, data, row, name))
    return loc[:CODE], scale[:CODE], loc[CODE:], scale[CODE:]


@by_mask
def test_dmvae(observed: Tensor) -> None:
    """Lee & Pavlovic 2021: ELBOs with the shared code from all modalities and from each, and the same private codes."""
    model, data = build(DMVAE, beta=1.3), batch(observed)
    noise = seeded()
    shared_noise = torch.randn(ROWS, 4, CODE, generator=noise, dtype=torch.float64)
    private_noise = dict(
        zip(
            "abc",
            torch.randn(ROWS, 6, generator=noise, dtype=torch.float64).split([2, 3, 1], -1),
            strict=True,
        )
    )
    expected = []
    for row in range(ROWS):
        has = names_of(data, row)
        experts = {name: expert(model, data, row, name) for name in has}
        precision = 1 + sum(scale**-2 for _, scale, _, _ in experts.values())
        moment = sum(loc * scale**-2 for loc, scale, _, _ in experts.values())
        joint = (moment / precision, precision**-0.5) if len(has) > 1 else experts[has[0]][:2]
        bounds = []
        for slot, (loc, scale) in enumerate([joint, *[experts.get(n, (None, None))[:2] for n in "abc"]]):
            if loc is None:
                continue
            z = loc + scale * shared_noise[row, slot]
            value = -1.3 * kl_divergence(Independent(Normal(loc, scale), 1), standard(CODE))
            for name, (_, _, own_loc, own_scale) in experts.items():
                w = own_loc + own_scale * private_noise[name][row]
                q = Independent(Normal(own_loc, own_scale), 1)
                value = value + log_likelihood(model, data, row, name, torch.cat([z, w]))
                value = value - 1.3 * kl_divergence(q, standard(PRIVATE[name]))
            bounds.append(value)
        assert len(bounds) == 1 + len(has)
        expected.append(-sum(bounds))
    same_loss(model.loss(data, seeded()).per_sample, expected)


@by_mask
def test_dmvae_reconstructs_from_some_unimodal_codes_without_bias(observed: Tensor) -> None:
    model, data = build(DMVAE), batch(observed)
    whole = repeat(data, 3000)
    every = model.loss(whole, seeded())
    model.bounds = 1
    some = model.loss(whole, seeded(1))
    torch.testing.assert_close(some.terms["kl"], every.terms["kl"])
    found, expected = (loss.terms["reconstruction"].detach().reshape(ROWS, -1) for loss in (some, every))
    error = ((found.var(-1) + expected.var(-1)) / 3000).sqrt()
    assert ((found.mean(-1) - expected.mean(-1)).abs() < 5 * error).all()
    weights = model.bound_weights(whole.observed, seeded())
    count = whole.observed.sum(-1)
    assert (weights[:, 0] == 1).all()
    assert ((weights[:, 1:] > 0).sum(-1) == 1).all()
    assert (weights[:, 1:].sum(-1) == count).all()
    assert not (weights[:, 1:][~whole.observed] > 0).any()
    model.bounds = 5
    torch.testing.assert_close(model.loss(data, seeded()).per_sample, build(DMVAE).loss(data, seeded()).per_sample)


def log_prior(model: MultimodalVAE, z: Tensor) -> Tensor:
    """log p(z) of MMVAE+; for CMVAE the term in its place, E_{q(c|z)} log [π_c p(z|c) / q(c|z)]."""
    family = {"normal": Normal, "laplace": Laplace}[model.family]
    if isinstance(model, MMVAEPlus):
        return standard(CODE, family).log_prob(z)
    alive = model.alive.nonzero()[:, 0]
    weights = model.cluster_logits[alive].exp() / model.cluster_logits[alive].exp().sum()
    scales = model.cluster_log_scales[alive].exp()
    clusters = Independent(family(model.cluster_locations[alive], scales), 1)
    joint = weights.log() + clusters.log_prob(z)
    membership = joint.softmax(0)
    torch.testing.assert_close(model.membership(z)[alive], membership)
    return (membership * (joint - membership.log())).sum()


@by_mask
@mixtures
@pytest.mark.parametrize("bound", ["looser", "tight"])
@pytest.mark.parametrize(("estimator", "family"), [("iwae", "normal"), ("dreg", "laplace")])
def test_mixtures(kind: type[MultimodalVAE], observed: Tensor, bound: str, estimator: str, family: str) -> None:
    """Palumbo et al. 2023: private codes from the posterior for the modality of the expert, else auxiliary."""
    model = build(kind, draws=3, bound=bound, estimator=estimator, family=family, beta=1.7)
    if kind is CMVAE:
        model.alive[[1, 4]] = False
    data, noise, standardised = batch(observed), seeded(), FAMILIES[family].noise
    like = torch.zeros((), dtype=torch.float64)
    z_noise = standardised((3, ROWS, 3, CODE), like, noise)
    w_noise = dict(zip("abc", standardised((3, ROWS, 6), like, noise).split([2, 3, 1], -1), strict=True))
    r_noise = dict(zip("abc", standardised((ROWS, 3, 3, 6), like, noise).split([2, 3, 1], -1), strict=True))
    torch_family = {"normal": Normal, "laplace": Laplace}[family]
    expected = []
    for row in range(ROWS):
        has = names_of(data, row)
        experts = {name: expert(model, data, row, name) for name in has}
        weights = []
        for m, name in enumerate("abc"):
            if name not in has:
                continue
            loc, scale, own_loc, own_scale = experts[name]
            for k in range(3):
                z = loc + scale * z_noise[k, row, m]
                w = own_loc + own_scale * w_noise[name][k, row]
                value = log_likelihood(model, data, row, name, torch.cat([z, w]))
                for other in set(has) - {name}:
                    logits = model.auxiliary[other]
                    r_scale = PRIVATE[other] * logits.exp() / logits.exp().sum()
                    drawn = r_scale * r_noise[other][row, m, k]
                    value = value + log_likelihood(model, data, row, other, torch.cat([z, drawn]))
                densities = [torch_family(e[0], e[1]).log_prob(z).sum() for e in experts.values()]
                log_q = torch.stack(densities).logsumexp(0) - math.log(len(has))
                log_q = log_q + torch_family(own_loc, own_scale).log_prob(w).sum()
                log_p = log_prior(model, z) + standard(PRIVATE[name], torch_family).log_prob(w)
                weights.append(value + 1.7 * (log_p - log_q))
        table = torch.stack(weights).reshape(len(has), 3)
        if bound == "looser":
            expected.append(-(table.logsumexp(1) - math.log(3)).mean())
        else:
            expected.append(-(table.flatten().logsumexp(0) - math.log(3 * len(has))))
    same_loss(model.loss(data, seeded()).per_sample, expected)


def test_the_weight_of_the_divergences_counts() -> None:
    """Fault 3, a β that is accepted and ignored: at K = 1 the losses are linear in β and in the KL weight."""
    for kind in (DMVAE, MMVAEPlus, CMVAE):
        data, options = batch(HOLES), {} if kind is DMVAE else {"draws": 1}
        once, twice, thrice = (build(kind, beta=beta, **options).loss(data, seeded()) for beta in (1.0, 2.0, 3.0))
        torch.testing.assert_close(twice.per_sample - once.per_sample, once.terms["kl"])
        torch.testing.assert_close(thrice.per_sample - twice.per_sample, once.terms["kl"])
        half = build(kind, beta=2.0, **options).loss(data, seeded(), 0.5)
        torch.testing.assert_close(half.per_sample, once.per_sample)


# The linear–Gaussian model x_m = A_m z + B_m w_m + b_m + σ ε, the columns of [A_m B_m] orthogonal.

SHARED = 2
SIZES = {"latent": SHARED, "width": 1, "likelihood_scale": SCALE, "private": {"m0": 1, "m1": 2, "m2": 1}}
LOCATIONS = torch.tensor([[2.0, 0.0], [-1.5, 1.0], [0.0, -2.0], [9.0, 9.0]], dtype=torch.float64)


class Posterior(nn.Module):
    """p(z, w_m | x_m) as raw output of an encoder, given precisions of the prior; with 0, the factor of x_m."""

    def __init__(self, decoder: nn.Linear, prior: Tensor) -> None:
        super().__init__()
        self.decoder = decoder
        precision = decoder.weight.square().sum(0) / SCALE**2 + prior
        self.gain = decoder.weight.T / SCALE**2 / precision[:, None]
        self.log_scale = -0.5 * precision.log()

    def forward(self, x: Tensor) -> Tensor:
        loc = (x - self.decoder.bias) @ self.gain.T
        return torch.cat([loc, self.log_scale.expand_as(loc)], -1)


def linear(kind: type[MultimodalVAE], count: int = 2, seed: int = 0, **options: Any) -> MultimodalVAE:
    """A model in float64 with linear decoders and exact unimodal posteriors; those of DMVAE lack the prior of z."""
    private = {f"m{index}": SIZES["private"][f"m{index}"] for index in range(count)}
    if kind is not DMVAE:
        options = {"beta": 1.0, "family": "normal"} | options
    model = kind(modalities(count), **SIZES | {"private": private} | options).double()
    noise = seeded(seed)
    for name, size in private.items():
        decoder = nn.Linear(SHARED + size, 4, dtype=torch.float64)
        basis = torch.linalg.qr(torch.randn(4, SHARED + size, generator=noise, dtype=torch.float64)).Q
        stretch = 0.5 + torch.rand(SHARED + size, generator=noise, dtype=torch.float64)
        decoder.weight.data = basis * stretch
        decoder.bias.data = torch.randn(4, generator=noise, dtype=torch.float64)
        prior = torch.ones(SHARED + size, dtype=torch.float64)
        prior[:SHARED] = float(kind is not DMVAE)
        model.decoders[name], model.encoders[name] = decoder, Posterior(decoder, prior)
    return model.requires_grad_(False)


def mixture(**options: Any) -> MultimodalVAE:
    """The linear model with four clusters, one of them pruned."""
    model = linear(CMVAE, clusters=4, **options)
    model.cluster_locations.copy_(LOCATIONS)
    model.cluster_log_scales.copy_(torch.tensor([[-0.5, 0.0], [0.3, -0.7], [0.0, 0.0], [0.0, 0.0]]))
    model.cluster_logits.copy_(torch.tensor([0.0, 0.7, -0.4, -0.2]))
    model.alive[3] = False
    return model


def loading(model: MultimodalVAE, subset: list[str]) -> tuple[Tensor, Tensor]:
    """Matrix and bias that map the whole code to the modalities of a subset, side by side."""
    size = sum(block.size for block in model.layout)
    blocks, first = {}, 0
    for block in model.layout:
        blocks[block.owner], first = slice(first, first + block.size), first + block.size
    parts = []
    for name in subset:
        part = torch.zeros(4, size, dtype=torch.float64)
        part[:, blocks[None]] = model.decoders[name].weight[:, :SHARED]
        part[:, blocks[name]] = model.decoders[name].weight[:, SHARED:]
        parts.append(part)
    return torch.cat(parts), torch.cat([model.decoders[name].bias for name in subset])


def evidence(model: MultimodalVAE, batch: Batch) -> Tensor:
    """log p(x_S) of the observed modalities of each row, (B,)."""
    prior = model.prior()
    prior = prior if isinstance(prior, Mixture) else Mixture.single(prior)
    found = []
    for row in range(len(batch)):
        has = names_of(batch, row)
        matrix, bias = loading(model, has)
        x = torch.cat([batch.data[name][row] for name in has])
        terms = []
        for weight, loc, scale in zip(prior.weights, prior.components.loc, prior.components.scale, strict=True):
            covariance = matrix * scale**2 @ matrix.T + SCALE**2 * torch.eye(len(x), dtype=torch.float64)
            terms.append(weight.log() + MultivariateNormal(matrix @ loc + bias, covariance).log_prob(x))
        found.append(torch.stack(terms).logsumexp(0))
    return torch.stack(found)


def sample(model: MultimodalVAE, rows: int, observed: Tensor | None = None) -> Batch:
    """Rows drawn from the model."""
    noise = seeded(9)
    z = model.prior().rsample((rows,), noise)
    data = {name: p.rsample((), noise) for name, p in model.decode(z).items()}
    return Batch(data, torch.ones(rows, len(data), dtype=torch.bool) if observed is None else observed)


WITH_HOLES = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [True, True, True]])


@pytest.mark.parametrize("make", [lambda **o: linear(DMVAE, **o), lambda **o: linear(MMVAEPlus, **o), mixture])
def test_the_importance_sampled_evidence_is_that_of_every_row(make: Any) -> None:
    """Faults 5 and 7: no modality is dropped, nothing accumulates across rows, and exp(estimate) is unbiased."""
    model = make(count=3)
    batch = sample(model, 4, WITH_HOLES)
    truth = evidence(model, batch)
    backwards = Batch({n: x.flip(0) for n, x in batch.data.items()}, batch.observed.flip(0))
    for given, expected in ((batch, truth), (backwards, truth.flip(0))):
        ratio = model.log_evidence(repeat(given, 1000), seeded(), 64).reshape(4, -1) - expected[:, None]
        weights = ratio.exp()
        error = weights.std(-1) / math.sqrt(weights.shape[-1])  # none where the posterior is exact
        assert ((weights.mean(-1) - 1).abs() < 5 * error + 1e-9).all()
        assert (ratio.mean(-1).abs() < 0.1).all()


@pytest.mark.parametrize("make", [lambda **o: linear(MMVAEPlus, **o), mixture])
def test_with_auxiliary_priors_equal_to_the_prior_the_mean_weight_is_the_evidence(make: Any) -> None:
    """Then the objective is a bound of the evidence, and its tight form rises to the evidence with K."""
    bounds = []
    for draws in (1, 8, 256):
        model = make(draws=draws, bound="tight")
        batch = sample(model, 3)
        truth = evidence(model, batch)
        loss = model.loss(repeat(batch, 40 + 8000 // draws), seeded()).per_sample.reshape(3, -1)
        agree((-loss - truth[:, None]).exp(), torch.ones(3, dtype=torch.float64))
        bounds.append(-loss.mean(-1))
    assert (torch.stack(bounds).diff(dim=0) > 0).all()
    assert (bounds[-1] < truth + 0.02).all()
    assert (truth - bounds[-1] < 0.1).all()
    looser = -make(draws=1).loss(repeat(batch, 8000), seeded()).per_sample.reshape(3, -1).mean(-1)
    assert (looser < truth).all()


def test_an_auxiliary_prior_of_other_scales_bounds_another_model() -> None:
    """It bounds a model in which w_n is distributed as r_n unless x_n is the modality of the expert."""
    model = linear(MMVAEPlus, draws=256, bound="tight")
    model.auxiliary["m1"].copy_(torch.tensor([1.5, -1.5]))
    batch = sample(model, 3)
    loss = model.loss(repeat(batch, 100), seeded()).per_sample.reshape(3, -1).mean(-1)
    assert ((-loss - evidence(model, batch)).abs() > 0.05).any()


@pytest.mark.parametrize("observed", [[True, True, True], [True, False, True]])
def test_the_joint_bound_of_dmvae_is_tight_at_the_exact_posterior(observed: list[bool]) -> None:
    """The factors of x_m times the prior are the posterior; the bounds from one modality have a closed form."""
    model = linear(DMVAE, count=3)
    batch = sample(model, 4, torch.tensor([observed] * 4))
    unimodal = model.unimodal(batch)
    expected = evidence(model, batch)
    for index in [index for index, has in enumerate(observed) if has]:
        q = Independent(Normal(unimodal.shared.loc[:, index], unimodal.shared.scale[:, index]), 1)
        expected = expected - kl_divergence(q, standard(SHARED))
        own = unimodal.private
        for name, block in zip(batch.data, model.blocks, strict=True):
            mine = torch.tensor([other == list(batch.data).index(name) for other in model.owners.tolist()])
            if not observed[list(batch.data).index(name)]:
                continue
            loc = torch.cat([q.mean, own.loc[:, mine]], -1)
            scale = torch.cat([q.stddev, own.scale[:, mine]], -1)
            decoder = model.decoders[name]
            fit = Normal(decoder(loc), SCALE).log_prob(batch.data[name]).sum(-1)
            spread = (decoder.weight.square() * scale.unsqueeze(1) ** 2).sum((1, 2)) / (2 * SCALE**2)
            private = Independent(Normal(own.loc[:, mine], own.scale[:, mine]), 1)
            expected = expected + fit - spread - kl_divergence(private, standard(block.size))
    loss = model.loss(repeat(batch, 20_000), seeded()).per_sample.reshape(4, -1)
    agree(-loss, expected)


def test_dmvae_takes_the_expert_itself_for_one_modality() -> None:
    """The bounds from one modality train it so; from two modalities on, it is the product with the prior."""
    model = linear(DMVAE, count=3)
    batch = sample(model, 4)
    experts = model.unimodal(batch).shared
    singles = model.aggregate(experts, torch.eye(3, dtype=torch.bool).expand(4, 3, 3))
    torch.testing.assert_close(singles.loc, experts.loc)
    torch.testing.assert_close(singles.scale, experts.scale)
    pair = model.posterior(batch, torch.tensor([[True, False, True]]))
    precision = 1 + experts.scale[:, 0] ** -2 + experts.scale[:, 2] ** -2
    torch.testing.assert_close(pair.scale[:, 0, :SHARED], precision**-0.5)


# Gradients.


def encoder_gradients(count: int, estimator: str, draws: int) -> Tensor:
    """Gradients of the loss with respect to the outputs of the encoders, (…, rows), for copies of one row."""
    model = linear(MMVAEPlus, count, draws=draws, estimator=estimator)
    batch = repeat(sample(model, 1), 40_000)
    raws = {name: model.encoders[name](batch.data[name]) + 0.2 for name in batch.data}
    model.encoders = nn.ModuleDict({name: Free(raw) for name, raw in raws.items()})
    model.loss(batch, seeded(draws + len(estimator))).per_sample.sum().backward()
    return torch.cat([encoder.raw.grad for encoder in model.encoders.values()], -1).T


@pytest.mark.parametrize(("count", "draws"), [(1, 6), (2, 1)])
def test_dreg_has_the_expectation_of_the_plain_gradient(count: int, draws: int) -> None:
    """For shared and private posteriors, in the cases where it is unbiased: one expert, or one draw per expert."""
    plain, doubly = (encoder_gradients(count, estimator, draws) for estimator in ("iwae", "dreg"))
    agree(doubly - plain.flip(-1), torch.zeros(len(plain), dtype=torch.float64))
    assert doubly.var(-1).sum() < plain.var(-1).sum()


@mixtures
def test_dreg_leaves_the_gradients_of_decoders_and_priors_alone(kind: type[MultimodalVAE]) -> None:
    """Codes are also drawn from the auxiliary priors, whose gradients must not change either."""
    gradients = []
    for estimator in ("iwae", "dreg"):
        model = build(kind, draws=4, estimator=estimator, family="normal")
        model.loss(batch(HOLES), seeded()).per_sample.sum().backward()
        kept = {n: p.grad for n, p in model.named_parameters() if not n.startswith("encoders")}
        gradients.append(kept)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert name == "auxiliary.c" or gradient.abs().sum() > 0  # one coordinate has no scale to learn


# Faults.


def codes_of(model: MultimodalVAE, batch: Batch) -> Tensor:
    """The codes that the loss decodes, (B, M·K, D + P)."""
    seen = []
    original = model.log_likelihood
    model.log_likelihood = lambda codes, *rest: seen.append(codes) or original(codes, *rest)  # type: ignore
    model.loss(batch, seeded())
    assert len(seen) == 1
    return seen[0]


@mixtures
def test_every_auxiliary_draw_is_its_own(kind: type[MultimodalVAE]) -> None:
    """Fault 5: draws differ by row, expert, draw and modality; the modality of the expert has its posterior draw."""
    model, data = build(kind, draws=2, family="normal"), batch(FULL)
    codes = codes_of(model, data).reshape(ROWS, 3, 2, -1)
    private = codes[..., CODE:].split([2, 3, 1], -1)
    unimodal, noise = model.unimodal(data), seeded()
    unimodal.shared.rsample((2,), noise)
    own = unimodal.private.rsample((2,), noise).transpose(0, 1).split([2, 3, 1], -1)
    for modality, expert_ in itertools.product(range(3), range(3)):
        drawn = private[modality][:, expert_]
        assert torch.equal(drawn, own[modality]) == (modality == expert_)
    others = torch.cat([private[n][:, m].flatten() for n in range(3) for m in range(3) if m != n])
    assert len(others.unique()) == len(others)


def test_generation_gives_every_modality_its_own_private_code() -> None:
    """Faults 5 and 11: coordinates of the prior are independent across blocks and between draws."""
    for model in (linear(DMVAE), linear(MMVAEPlus), mixture()):
        codes = model.prior().rsample((20_000,), seeded())
        correlation = torch.corrcoef(codes.T)
        assert correlation[SHARED:].fill_diagonal_(0)[:, SHARED:].triu(1).abs().max() < 0.04
        assert correlation[:SHARED, SHARED:].abs().max() < 0.04
        neighbours = torch.corrcoef(torch.cat([codes[:-1], codes[1:]], -1).T)
        assert neighbours[: codes.shape[1], codes.shape[1] :].abs().max() < 0.04


@mixtures
def test_every_row_draws_its_expert_and_keeps_its_private_codes(kind: type[MultimodalVAE]) -> None:
    """Faults 3 and 11: every row draws its expert independently, from one mixture over z and w."""
    model = build(kind, family="normal")
    data = repeat(batch(FULL), 5000)
    q = model.encode(data, seeded())
    assert q.weights.shape == (len(data), 3)
    z = q.rsample((), seeded())
    experts = model.unimodal(data).shared
    nearest = experts.log_prob(z[:, None, :CODE]).exp()
    probability = nearest / nearest.sum(-1, keepdim=True)  # of each expert, given the draw
    agree(probability.reshape(ROWS, 5000, 3).transpose(1, 2), torch.tensor(1 / 3, dtype=torch.float64))
    own = q.components.loc[..., CODE:]
    assert torch.equal(own, own[:, :1].expand_as(own))
    residual = z[:, CODE:] - own[:, 0]
    both = torch.cat([probability[:5000, :2], residual[:5000]], -1)
    assert torch.corrcoef(both.T)[:2, 2:].abs().max() < 5 / math.sqrt(5000)
    lagged = torch.corrcoef(torch.stack([probability[:4999, 0], probability[1:5000, 0]]))
    assert lagged[0, 1].abs() < 5 / math.sqrt(5000)


@pytest.mark.parametrize("kind", [DMVAE, MMVAEPlus, CMVAE])
def test_a_missing_modality_has_the_prior_for_its_private_code(kind: type[MultimodalVAE]) -> None:
    model, data = build(kind), batch(FULL)
    q = model.posterior(data, torch.tensor([[True, False, True]]))
    w = slice(CODE + 2, CODE + 5)  # of the second modality
    components = q.components if isinstance(q, Mixture) else q
    assert (components.loc[..., w] == 0).all()
    assert (components.scale[..., w] == 1).all()
    assert (components.loc[..., CODE : CODE + 2] != 0).all()


def test_the_criterion_of_pruning() -> None:
    """The penalised entropy of the authors, β H[q(c|z)] / log C' − log p(z) / D, over the observed modalities."""
    model, data = build(CMVAE, clusters=5, family="normal", beta=1.7), batch(HOLES)
    z = model.unimodal(data).shared.rsample((), seeded())
    by_row = []
    for row in range(ROWS):
        values = []
        for m in data.observed[row].nonzero()[:, 0]:
            membership = model.membership(z[row, m])
            entropy = -(membership * membership.log()).sum() / math.log(5)
            values.append(1.7 * entropy - model.shared_prior().log_prob(z[row, m]) / CODE)
        by_row.append(torch.stack(values).mean())
    found = model.prune([data], seeded())[5]
    assert found == pytest.approx(torch.stack(by_row).mean().item(), rel=1e-9)


@pytest.mark.parametrize("kind", [DMVAE, MMVAEPlus, CMVAE])
def test_every_network_runs_once_a_step(kind: type[MultimodalVAE]) -> None:
    model, calls = build(kind), []
    for network in (*model.encoders.values(), *model.decoders.values()):
        network.register_forward_hook(lambda module, *_: calls.append(module))
    model.loss(batch(HOLES), seeded())
    assert len(calls) == len(set(calls)) == 6


def pruned() -> tuple[MultimodalVAE, Batch]:
    model = build(CMVAE, clusters=5, family="normal")
    data = batch(HOLES)
    criteria = model.prune([data], seeded())
    assert sorted(criteria) == [2, 3, 4, 5]
    assert int(model.alive.sum()) == min(criteria, key=criteria.__getitem__)
    model.alive[model.alive.nonzero()[-1]] = False  # one more than the criterion pruned
    return model, data


def test_pruned_clusters_survive_reloading_and_leave_likelihoods_finite() -> None:
    """Fault 6."""
    model, data = pruned()
    assert 0 < int(model.alive.sum()) < 5
    tensors, description = model.state()
    again = CMVAE.from_state(tensors, description).double()
    again.load_state_dict(tensors)
    assert torch.equal(again.alive, model.alive)
    for one in (model, again):
        z = one.prior().rsample((1000,), seeded())
        far = torch.full((1, z.shape[-1]), 40.0, dtype=torch.float64)
        assert torch.isfinite(one.prior().log_prob(torch.cat([z, far]))).all()
        assert torch.isfinite(one.log_evidence(data, seeded(), 8)).all()
        assert (one.membership(z[:, :CODE])[:, ~one.alive] == 0).all()
        one.train().requires_grad_(True)
        loss = one.loss(data, seeded()).per_sample
        loss.sum().backward()
        assert all(torch.isfinite(p.grad).all() for p in one.parameters() if p.grad is not None)
        assert (one.cluster_logits.grad[~one.alive] == 0).all()
    assert torch.equal(again.loss(data, seeded()).per_sample, model.loss(data, seeded()).per_sample)


def test_pruning_keeps_the_clusters_in_use() -> None:
    """Rows from three of six clusters; the others are far away."""
    model = linear(CMVAE, clusters=6)
    used = 6 * torch.tensor([[1.0, 0.0], [-1.0, 1.0], [0.0, -1.5]], dtype=torch.float64)
    model.cluster_locations.copy_(torch.cat([used, 10 * used]))
    model.cluster_log_scales.fill_(-1.0)
    model.alive[3:] = False
    batch = sample(model, 300)
    model.alive.fill_(True)
    for name, decoder in model.decoders.items():  # factors alone: N(0, I) is no prior of these codes
        model.encoders[name] = Posterior(decoder, torch.zeros(decoder.weight.shape[1], dtype=torch.float64))
    parts = [Batch({n: x[i::3] for n, x in batch.data.items()}, batch.observed[i::3]) for i in range(3)]
    criteria = model.prune(parts, seeded())
    assert model.alive.tolist() == [True, True, True, False, False, False]
    assert criteria[3] == min(criteria.values())
    assert set(criteria) == {2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MMVAEPlus, {"draws": 0}, "draws: found 0"),
        (MMVAEPlus, {"private": 0}, "private: found 0"),
        (MMVAEPlus, {"estimator": "reinforce"}, "estimator: found 'reinforce', expected one of iwae, dreg"),
        (MMVAEPlus, {"bound": "none"}, "bound: found 'none', expected one of looser, tight"),
        (CMVAE, {"family": "cauchy"}, "family: found 'cauchy', expected one of normal, laplace"),
        (CMVAE, {"clusters": 0}, "clusters: found 0"),
        (DMVAE, {"private": {"x": 2}}, "private: found 'x', expected modalities: a, b, c"),
    ],
)
def test_impossible_options_are_refused(kind: type[MultimodalVAE], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(kind, **options)
