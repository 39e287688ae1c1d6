"""Models with a joint encoder: JMVAE, TELBO, JNF."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from support.equations import (
    CODE,
    HOLES,
    MODALITIES,
    ROWS,
    STANDARD,
    Free,
    agree,
    batch,
    build,
    by_mask,
    expert,
    log_likelihood,
    normal,
    perturb,
    repeat,
    same_loss,
    seeded,
)
from support.linear_gaussian import LATENT, SIZES, evidence, exact, is_exact, modalities, posterior, sample
from torch import Tensor, nn
from torch.distributions import Independent, kl_divergence

from postprior.stage1_vae import distributions
from postprior.stage1_vae.distributions import LOG_SCALE
from postprior.stage1_vae.experts import all_subsets, divided_product
from postprior.stage1_vae.joint import JointVAE
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.models.jmvae import JMVAE
from postprior.stage1_vae.models.jnf import JNF, total_correlation
from postprior.stage1_vae.models.telbo import TELBO
from postprior.stage1_vae.training import freeze_except

JOINT = pytest.mark.parametrize("kind", [JMVAE, TELBO, JNF])


# --- each loss against its paper's equation, row by row ---


def joint(model: JointVAE, data: Batch, row: int) -> Independent:
    hidden = sum(model.joint.trunks[name](x[row : row + 1]) for name, x in data.data.items())
    return normal(model.joint.fusion(hidden)[0])


def bent(bend: float = 0.3, **options: int) -> JNF:
    """JNF whose flows are far from the identity, around normals that overlap."""
    model = build(JNF, flow_hidden=8, **options)
    with torch.no_grad():
        for encoder in model.encoders.values():
            *_, weight, bias = encoder.parameters()
            weight.mul_(0.3)
            bias[CODE:] = -1.5
    for flow in model.flows.values():
        perturb(flow, bend, seeded(7))
    return model


def test_jmvae() -> None:
    """Suzuki et al. 2016: E log p(X|z) − β KL(q‖p) − α Σ KL(q‖q_m)."""
    model, data = build(JMVAE, alpha=0.3, beta=1.4), batch()
    noise = torch.randn(ROWS, CODE, generator=seeded(), dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        q = joint(model, data, row)
        z = q.mean + q.stddev * noise[row]
        fit = sum(log_likelihood(model, data, row, name, z) for name in "abc")
        pull = sum(kl_divergence(q, expert(model, data, row, name)) for name in "abc")
        expected.append(-(fit - 1.4 * kl_divergence(q, STANDARD) - 0.3 * pull))
    same_loss(model.loss(data, seeded()).per_sample, expected)


def test_the_joint_phase_of_telbo_and_jnf() -> None:
    """Σ λ_m E log p(x_m|z) − KL(q‖p) under the joint posterior; JNF has β instead."""
    noise = torch.randn(ROWS, CODE, generator=seeded(), dtype=torch.float64)
    weights = {"a": 2.0, "b": 1.0, "c": 0.5}
    telbo = build(TELBO, joint_weights={"a": 2.0, "c": 0.5})
    for model, lambdas, beta in (
        (telbo, weights, 1.0),
        (build(JNF, beta=1.4), dict.fromkeys("abc", 1.0), 1.4),
    ):
        data, expected = batch(), []
        for row in range(ROWS):
            q = joint(model, data, row)
            z = q.mean + q.stddev * noise[row]
            fit = sum(lambdas[name] * log_likelihood(model, data, row, name, z) for name in "abc")
            expected.append(-(fit - beta * kl_divergence(q, STANDARD)))
        same_loss(model.loss(data, seeded()).per_sample, expected)


@by_mask
def test_the_unimodal_phase_of_telbo(observed: Tensor) -> None:
    """Vedantam et al. 2018: Σ_m γ_m E_{q_m} log p(x_m|z) − KL(q_m‖p), where each posterior has its own divergence."""
    model, data = build(TELBO, unimodal_weights={"b": 3.0}), batch(observed)
    noise = torch.randn(ROWS, 3, CODE, generator=seeded(), dtype=torch.float64)
    gammas, expected = {"a": 1.0, "b": 3.0, "c": 1.0}, []
    for row in range(ROWS):
        bounds = []
        for index, name in enumerate("abc"):
            if observed[row, index]:
                q = expert(model, data, row, name)
                z = q.mean + q.stddev * noise[row, index]
                fit = gammas[name] * log_likelihood(model, data, row, name, z)
                bounds.append(fit - kl_divergence(q, STANDARD))
        expected.append(-sum(bounds))
    same_loss(model.unimodal_loss(data, seeded()).per_sample, expected)


def base(flow: nn.Module, around: Independent, z: Tensor) -> Tensor:
    """The noise that the flow maps to z, computed layer by layer from the weights."""
    u, given = (z - around.mean) / around.stddev, flow.context(torch.cat([around.mean, around.stddev.log()]))
    for mixer, coupling, context in zip(flow.mixers, flow.couplings, given.chunk(2), strict=True):
        lower, upper = torch.eye(CODE, dtype=z.dtype), torch.zeros(CODE, CODE, dtype=z.dtype)
        for matrix, entries, offset in ((lower, "lower", -1), (upper, "upper", 1)):
            rows, columns = (torch.tril_indices if offset < 0 else torch.triu_indices)(CODE, CODE, offset)
            matrix[rows, columns] = getattr(mixer.linear, f"{entries}_entries")
        upper = upper + nn.functional.softplus(mixer.linear.unconstrained_upper_diag).add(1e-3).diag()
        u = lower @ upper @ u[mixer.permutation._permutation] + mixer.linear.bias
        kept, moved = u.chunk(2)
        hidden = nn.functional.silu(coupling.first.weight @ kept + context)
        log_scale, shift = coupling.last(nn.functional.silu(coupling.second(hidden))).chunk(2)
        u = torch.cat([kept, (moved - shift) / (2 * torch.tanh(log_scale / 2)).exp()])
    return u


@pytest.mark.parametrize("dcca", [0, 3])
def test_the_flow_phase_of_jnf(dcca: int) -> None:
    """Senellart et al. 2023: Σ_m E_{q(z|X)} log q_m(z|x_m), the density by its change of variables."""
    model, data = bent(dcca=dcca), batch()
    noise = torch.randn(ROWS, CODE, generator=seeded(), dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        q = joint(model, data, row)
        z, total = (q.mean + q.stddev * noise[row]).detach(), 0.0
        for name in "abc":
            to_base = partial(base, model.flows[name], expert(model, data, row, name))
            jacobian = torch.autograd.functional.jacobian(to_base, z)
            total = total + STANDARD.log_prob(to_base(z)) + torch.linalg.slogdet(jacobian)[1]
        expected.append(-total)
    same_loss(model.flow_loss(data, seeded()).per_sample, expected)


@JOINT
def test_rows_that_lack_a_modality_train_no_joint_encoder(kind: type[JointVAE]) -> None:
    model = build(kind)
    assert not model.incomplete
    for phase in model.phases():
        if phase.complete:
            with pytest.raises(ValueError, match="found a row with a missing modality, expected complete rows"):
                phase.objective(batch(HOLES), seeded(), 1.0)
        else:
            assert phase.objective(batch(HOLES), seeded(), 1.0).per_sample.isfinite().all()


@JOINT
def test_phases_share_one_budget_of_epochs(kind: type[JointVAE]) -> None:
    for options in ({}, {"dcca": 2}) if kind is JNF else ({},):
        phases = build(kind, **options).phases()
        assert math.isclose(sum(phase.share for phase in phases), 1)
        parameters = [id(p) for phase in phases for p in phase.parameters]
        assert len(set(parameters)) == len(parameters)  # nothing is trained twice


# --- products of unimodal posteriors ---


def test_one_expert_alone_is_itself_and_the_prior_is_divided_out_of_several() -> None:
    loc = torch.randn(3, 3, 2, generator=seeded(), dtype=torch.float64)
    scale = 0.2 + 0.5 * torch.rand(3, 3, 2, generator=seeded(1), dtype=torch.float64)
    experts = distributions.Normal(loc, scale)
    prior = distributions.Normal(torch.tensor([0.0, 0.5]).double(), torch.tensor([1.0, 1.5]).double())
    q = divided_product(experts, all_subsets(3).expand(3, 7, 3), prior)
    grid = torch.randn(50, 2, generator=seeded(2), dtype=torch.float64)
    for index, subset in enumerate(all_subsets(3)):
        chosen = [m for m in range(3) if subset[m]]
        if len(chosen) == 1:
            torch.testing.assert_close(q[:, index].loc, loc[:, chosen[0]])
            torch.testing.assert_close(q[:, index].scale, scale[:, chosen[0]])
        for row in range(3):
            parts = sum(experts[row, m].log_prob(grid) for m in chosen)
            gap = q[row, index].log_prob(grid) - (parts - (len(chosen) - 1) * prior.log_prob(grid))
            torch.testing.assert_close(gap, gap[:1].expand(50))  # equal up to a constant


def test_the_product_is_guarded_where_division_would_leave_no_precision() -> None:
    """Two experts as wide as √2: 1/2 + 1/2 − 1 = 0. The guard acts by coordinate."""
    loc = torch.tensor([[[1.0, 1.0], [3.0, 3.0], [0.0, 0.0]]]).double()
    scale = torch.tensor([[[2**0.5, 0.1], [2**0.5, 0.5], [9.0, 9.0]]]).double()
    prior = distributions.Normal(torch.zeros(2).double(), torch.ones(2).double())
    q = divided_product(distributions.Normal(loc, scale), torch.tensor([[[True, True, False]]]), prior)
    torch.testing.assert_close(q.scale[0, 0, 0], scale[0, 0, 0])  # the scale of the narrowest expert
    torch.testing.assert_close(q.loc[0, 0, 0], torch.tensor(2.0).double())  # the mean of the undivided product
    precision = 100 + 4 - 1
    torch.testing.assert_close(q.scale[0, 0, 1], torch.tensor(precision**-0.5).double())
    torch.testing.assert_close(q.loc[0, 0, 1], torch.tensor((100 + 12) / precision).double())
    spread = 1 + 30 * torch.rand(6, 3, 2, generator=seeded(), dtype=torch.float64)
    wide = distributions.Normal(spread.flip(0), spread)
    subsets = all_subsets(3).expand(6, 7, 3)
    q = divided_product(wide, subsets, prior)
    narrowest = torch.where(subsets.unsqueeze(-1), spread.unsqueeze(1), torch.inf).amin(2)
    torch.testing.assert_close(q.scale, narrowest)
    assert q.loc.isfinite().all()


# --- the linear-Gaussian oracle ---


class Unimodal(nn.Module):
    """The exact p(z | x_m): the factor, given as raw output, times the prior."""

    def __init__(self, factor: nn.Module) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.factor(x).chunk(2, -1)
        precision = (-2 * log_scale).exp()
        return torch.cat([loc * precision / (1 + precision), -0.5 * (1 + precision).log()], -1)


class Joint(nn.Module):
    """The exact p(z | X), from the factors."""

    def __init__(self, factors: dict[str, nn.Module]) -> None:
        super().__init__()
        self.factors = nn.ModuleDict(factors)

    def forward(self, data: dict[str, Tensor]) -> Tensor:
        pairs = [self.factors[name](x).chunk(2, -1) for name, x in data.items()]
        precision = 1 + sum((-2 * log_scale).exp() for _, log_scale in pairs)
        moment = sum(loc * (-2 * log_scale).exp() for loc, log_scale in pairs)
        return torch.cat([moment / precision, -0.5 * precision.log()], -1)


def solved(kind: type[JointVAE], count: int = 3, **options: object) -> JointVAE:
    """A model with linear decoders whose joint and unimodal posteriors are the exact ones."""
    with torch.no_grad():  # the factors are made from the decoders' weights
        model = exact(kind(modalities(count), **SIZES, **options))
    model.joint = Joint(dict(model.encoders))
    for name, factor in list(model.encoders.items()):
        model.encoders[name] = Unimodal(factor)
    if isinstance(model, JNF):
        for flow in model.flows.values():
            for coupling in flow.couplings:
                nn.init.zeros_(coupling.last.weight)  # flows that only permute
    return model.requires_grad_(False)


@pytest.mark.parametrize("kind", [JMVAE, TELBO])
def test_exact_unimodal_posteriors_give_the_exact_posterior_of_every_subset(kind: type[JointVAE]) -> None:
    """Π p(z|x_m) / p(z)^(|S|−1): the prior is counted once, whatever the size of the subset."""
    model = solved(kind)
    data, subsets = sample(model, 5), all_subsets(3)
    q = model.posterior(data, subsets)
    for index, subset in enumerate(subsets):
        is_exact(q[:, index], model, data, subset)


@pytest.mark.parametrize(("kind", "options"), [(JMVAE, {"alpha": 0.0}), (TELBO, {}), (JNF, {})])
def test_the_joint_bound_is_tight(kind: type[JointVAE], options: dict[str, float]) -> None:
    model = solved(kind, **options)
    data = sample(model, 4)
    loss = model.loss(repeat(data, 20_000), seeded()).per_sample.reshape(4, -1)
    agree(-loss, evidence(model, data, torch.ones(3, dtype=torch.bool)))


def test_the_unimodal_bounds_of_telbo_are_tight() -> None:
    model = solved(TELBO)
    data = sample(model, 4)
    loss = model.unimodal_loss(repeat(data, 20_000), seeded()).per_sample.reshape(4, -1)
    agree(-loss, sum(evidence(model, data, subset) for subset in torch.eye(3, dtype=torch.bool)))


def joint_gradients(alpha: float, tempered: float) -> Tensor:
    """Gradients of JMVAE's loss with respect to the joint posterior at [p(z|X) Π q_m^a]^(1/(1+Ma)), (2·D, rows)."""
    model = solved(JMVAE, alpha=alpha)
    data = sample(model, 1)
    full = torch.ones(1, 3, dtype=torch.bool)
    mean, covariance = posterior(model, data, full[0])
    experts = model.unimodal(data).shared
    precision = covariance.diagonal().reciprocal() + tempered * experts.scale.pow(-2).sum(1)
    moment = mean / covariance.diagonal() + tempered * (experts.loc * experts.scale.pow(-2)).sum(1)
    # The power divides precision and moment alike.
    raw = torch.cat([moment / precision, -0.5 * (precision / (1 + 3 * tempered)).log()], -1)
    many = repeat(data, 100_000)
    model.joint = Free(raw.expand(len(many), -1).clone())
    model.loss(many, seeded()).per_sample.sum().backward()
    return model.joint.raw.grad.T


def test_the_optimum_of_jmvae_is_a_tempered_product() -> None:
    """[p(z|X) Π q_m^α]^(1/(1+Mα)), and not the exact posterior."""
    zero = torch.zeros(2 * LATENT, dtype=torch.float64)
    agree(joint_gradients(alpha=0.5, tempered=0.5), zero)
    for gradients in (joint_gradients(alpha=0.5, tempered=0.0), joint_gradients(alpha=0.0, tempered=0.5)):
        error = gradients.std(-1) / gradients.shape[-1] ** 0.5
        assert (gradients.mean(-1).abs() > 20 * error).any()


@JOINT
def test_importance_sampling_finds_the_evidence_of_complete_and_incomplete_rows(kind: type[JointVAE]) -> None:
    """From inexact proposals: all posteriors are moved and made 1.5 times as wide."""
    model = solved(kind)

    def spoil(raw: Tensor) -> Tensor:
        loc, log_scale = raw.chunk(2, -1)
        return torch.cat([loc + 0.1, log_scale + math.log(1.5)], -1)

    for network in (model.joint, *model.encoders.values()):
        network.register_forward_hook(lambda module, inputs, raw: spoil(raw))
    data = sample(model, 4)
    observed = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, True, True]])
    many = repeat(Batch(data.data, observed), 300)
    found = model.log_evidence(many, seeded(), draws=60).reshape(4, 300).exp()
    expected = torch.stack([evidence(model, data, subset)[row] for row, subset in enumerate(observed)])
    agree(found / expected.exp().unsqueeze(-1), torch.ones(4, dtype=torch.float64))


def train(objective: Callable, parameters: list, data: Batch, steps: int, rate: float = 0.02) -> None:
    """Train with Adam on fresh posterior draws of all rows; the learning rate falls to 0."""
    optimiser = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    draws = seeded(1)
    for _ in range(steps):
        optimiser.zero_grad()
        objective(data, draws, 1.0).per_sample.mean().backward()
        optimiser.step()
        schedule.step()


class Affine(nn.Module):
    """An encoder that can be exact: a location linear in x, and a constant scale."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.loc = nn.Linear(size, LATENT)
        self.log_scale = nn.Parameter(torch.zeros(LATENT))

    def forward(self, x: Tensor) -> Tensor:
        loc = self.loc(x)
        return torch.cat([loc, self.log_scale.expand_as(loc)], -1)


def untrained(kind: type[JointVAE], **options: object) -> JointVAE:
    """A solved model whose unimodal encoders are untrained."""
    model = solved(kind, 2, **options)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in model.encoders:
            model.encoders[name] = Affine(model.encoders[name].factor.gain.shape[1]).double()
    return model.requires_grad_(True)


def divergence_from_exact(model: JointVAE, log_prob: Callable[[int, Tensor], Tensor], data: Batch) -> Tensor:
    """Mean over rows of KL(p(z|x_m) ‖ q_m) for each modality, by Monte Carlo."""
    found = []
    for index, subset in enumerate(torch.eye(2, dtype=torch.bool)):
        mean, covariance = posterior(model, data, subset)
        truth = distributions.Normal(mean, covariance.diagonal().sqrt().expand_as(mean))
        z = truth.rsample((50,), seeded(3))
        found.append((truth.log_prob(z) - torch.stack([log_prob(index, one) for one in z])).mean())
    return torch.stack(found)


def test_the_unimodal_posteriors_of_telbo_converge_to_the_exact_ones() -> None:
    model = untrained(TELBO)
    with torch.no_grad():
        data, fresh = sample(model, 1000), sample(model, 200, seed=1)
    phase = model.phases()[1]
    start = divergence_from_exact(model, lambda m, z: model.unimodal(fresh).shared[:, m].log_prob(z), fresh)
    with freeze_except(model, phase):
        train(phase.objective, phase.parameters, data, 500)
    end = divergence_from_exact(model, lambda m, z: model.unimodal(fresh).shared[:, m].log_prob(z), fresh)
    assert (start > 0.5).all()
    assert (end.abs() < 0.01).all()


def test_the_flows_of_jnf_converge_to_the_exact_posteriors() -> None:
    """They are trained on draws of the exact joint posterior of rows drawn from the model."""
    model = untrained(JNF, flow_hidden=4, flow_blocks=1)
    with torch.no_grad():
        data, fresh = sample(model, 3000), sample(model, 200, seed=1)
    phase = model.phases()[-1]
    with torch.no_grad():
        start = divergence_from_exact(model, lambda m, z: model.flow_posteriors(fresh)[m].log_prob(z), fresh)
    with freeze_except(model, phase):
        train(phase.objective, phase.parameters, data, 400)
    with torch.no_grad():
        end = divergence_from_exact(model, lambda m, z: model.flow_posteriors(fresh)[m].log_prob(z), fresh)
    assert (start > 0.5).all()
    assert (end.abs() < 0.02).all()


# --- phases ---


@pytest.mark.parametrize(("kind", "options"), [(TELBO, {}), (JNF, {}), (JNF, {"dcca": 3})])
def test_a_later_phase_trains_its_own_parameters_and_leaves_the_first_s_as_they_are(
    kind: type[JointVAE], options: dict[str, int]
) -> None:
    model, data = build(kind, **options), batch()
    for phase in model.phases():
        before = {key: value.clone() for key, value in model.state_dict().items()}
        chosen = {id(p) for p in phase.parameters}
        with freeze_except(model, phase):
            train(phase.objective, phase.parameters, data, 2)
        for key, parameter in model.named_parameters():
            shift = phase.name == "dcca" and key.endswith("bias")  # correlations do not change with shifts
            assert shift or torch.equal(parameter, before[key]) == (id(parameter) not in chosen), key
    names = {key.split(".")[0] for key, p in model.named_parameters() if id(p) in chosen}
    assert names == ({"encoders"} if kind is TELBO else {"encoders", "flows"})


def test_the_unimodal_divergences_of_telbo_do_not_depend_on_the_joint_encoder() -> None:
    """Another joint encoder changes nothing in the second phase; other log-variances of a unimodal encoder do."""
    model, data = build(TELBO), batch()
    first = model.unimodal_loss(data, seeded()).terms["kl"]
    with torch.no_grad():
        for parameter in model.joint.parameters():
            parameter.add_(1.0)
    assert torch.equal(model.unimodal_loss(data, seeded()).terms["kl"], first)
    with torch.no_grad():
        model.encoders["a"][-1].bias[CODE:] += 1.0
    assert not torch.isclose(model.unimodal_loss(data, seeded()).terms["kl"], first).any()


# --- posteriors of JNF ---


def test_the_draws_of_a_flow_have_its_density() -> None:
    """E[h(z)] under draws equals E[h(z) q(z)/r(z)] under another density r."""
    model = bent()
    for flow in model.flow_posteriors(batch()):
        z = flow.rsample(20_000, seeded()).detach()
        wide = distributions.Normal(z.mean((0, 1)), 2.5 * z.std((0, 1)))
        proposals = wide.rsample((20_000,), seeded(1))
        row = torch.zeros(20_000, dtype=torch.int64)
        ratio = (flow[row].log_prob(proposals) - wide.log_prob(proposals)).exp()
        agree(ratio, torch.tensor(1.0).double())
        weighted = ratio.unsqueeze(-1) * proposals
        error = (weighted.var(0) / len(weighted) + z[:, 0].var(0) / len(z)).sqrt()
        assert ((weighted.mean(0) - z[:, 0].mean(0)).abs() < 5 * error).all()


def test_the_product_of_flows_is_drawn_with_its_moments_in_the_linear_gaussian_model() -> None:
    model = solved(JNF, flow_hidden=4, flow_blocks=1)
    data, subsets = sample(model, 3), all_subsets(3)
    z = model.posterior(repeat(data, 1000), subsets).rsample((), seeded())
    z = z.reshape(3, 1000, 7, LATENT).permute(2, 0, 3, 1)  # (S, B, D, R)
    for index, subset in enumerate(subsets):
        mean, covariance = posterior(model, data, subset)
        agree(z[index], mean)
        agree((z[index] - mean.unsqueeze(-1)).square(), covariance.diagonal().expand_as(mean))


def test_the_product_of_bent_flows_is_drawn_with_its_moments() -> None:
    """Against importance sampling from the mixture of the flows."""
    model = bent(bend=0.2)
    pair = torch.tensor([[True, False, True]])
    q = model.posterior(batch(), pair)
    q.CHAINS = 1000
    z = q.rsample((1000,), seeded())[:, :, 0]  # (R, B, D)
    proposals = q.experts[:, 0].stratified(40_000, seeded(1))  # (R, B, D)
    flows = [q.experts.flows[0], q.experts.flows[2]]
    rows = torch.arange(ROWS).expand(len(proposals), ROWS).flatten()
    with torch.no_grad():
        parts = sum(flow[rows].log_prob(proposals.flatten(0, 1)).reshape(-1, ROWS) for flow in flows)
    prior = model.shared_prior().log_prob(proposals.clamp(-6, 6))
    weights = (parts - prior - q.experts[:, 0].log_prob(proposals)).softmax(0)  # (R, B)
    effective = 1 / weights.square().sum(0)
    assert (effective > 200).all()
    for power in (1, 2):
        expected = (weights.unsqueeze(-1) * proposals**power).sum(0)
        spread = (weights.unsqueeze(-1) * (proposals**power - expected).square()).sum(0)
        error = (spread / effective.unsqueeze(-1) + spread / 1000).sqrt()
        assert ((z**power).mean(0) - expected).abs().le(5 * error).all()


def test_the_target_of_hamiltonian_draws_is_proper_whatever_the_flows() -> None:
    """For experts wider than the prior, division by the prior itself would give a density that grows without bound."""
    model = solved(JNF)
    for name in model.encoders:
        model.encoders[name] = Free(
            torch.cat([torch.zeros(2, LATENT), torch.full((2, LATENT), math.log(3.0))], 1).double()
        )
    data = sample(model, 2)
    pair = torch.tensor([[True, True, False]])
    q = model.posterior(data, pair)
    log_density = q.target(torch.ones(2, 1, dtype=torch.bool))
    ray = torch.tensor([1.0, 1.0]).double().expand(2, 2)
    values = torch.stack([log_density(ray * far) for far in (6.0, 12.0, 24.0, 1000.0)])
    assert (values.diff(dim=0) < 0).all()
    by_prior = torch.stack(
        [
            sum(f.log_prob(ray * far) for f in q.experts.flows[:2]) - model.shared_prior().log_prob(ray * far)
            for far in (6.0, 12.0, 24.0)
        ]
    )
    assert (by_prior.diff(dim=0) > 0).all()
    assert q.rsample((100,), seeded()).abs().max() < 60


def test_a_subset_of_one_is_drawn_from_its_flow_and_the_whole_from_the_joint_encoder() -> None:
    model, data = bent(), batch()
    q = model.posterior(data, torch.tensor([[False, True, False], [True, True, True]]))
    z = q.rsample((20_000,), seeded())
    direct = model.flow_posteriors(data)[1].rsample(20_000, seeded(1)).detach()
    error = ((z[:, :, 0].var(0) + direct.var(0)) / len(z)).sqrt()
    assert ((z[:, :, 0].mean(0) - direct.mean(0)).abs() < 5 * error).all()
    whole = model.joint_posterior(data)
    agree(z[:, :, 1].permute(1, 2, 0), whole.loc.detach())
    agree((z[:, :, 1] - whole.loc).detach().square().permute(1, 2, 0), whole.variance.detach())


def test_encoders_run_once_however_many_leapfrog_steps() -> None:
    model, calls = bent(flow_blocks=1), []
    for network in (*model.encoders.values(), model.joint):
        network.register_forward_hook(lambda module, inputs, raw: calls.append(module))
    model.infer(batch(), all_subsets(3), seeded())
    assert len(calls) == 4
    calls.clear()
    model.encode(batch(HOLES), seeded())
    assert len(calls) == 4


def test_codes_of_jnf_are_the_joint_normal_or_narrow_draws() -> None:
    model = bent()
    codes = model.encode(batch(HOLES), seeded(), components=10)
    whole = HOLES.all(1)
    assert codes.weights.shape == (ROWS, 10)
    torch.testing.assert_close(codes.weights[whole], torch.eye(10, dtype=torch.float64)[:1])
    torch.testing.assert_close(codes.weights[~whole], torch.full((3, 10), 0.1).double())
    joint_normal = model.joint_posterior(batch())
    torch.testing.assert_close(codes.components.loc[whole][:, 0], joint_normal.loc[whole])
    torch.testing.assert_close(codes.components.scale[whole][:, 0], joint_normal.scale[whole])
    torch.testing.assert_close(
        codes.components.scale[~whole], torch.full((3, 10, CODE), math.exp(LOG_SCALE[0])).double()
    )
    assert len(codes.components.loc[~whole].flatten(0, 1).unique(dim=0)) > 20  # a rejected move repeats a state
    complete = model.encode(batch(), seeded(), components=10)
    assert complete.weights.shape == (ROWS, 1)


def test_draws_of_a_row_do_not_depend_on_what_the_others_have() -> None:
    model, other = bent(flow_blocks=1), HOLES.clone()
    other[1:] = torch.tensor([[True, False, False], [False, True, True], [True, True, True]])
    for first, second in ((HOLES, other), (other, HOLES)):
        one, two = (model.encode(batch(observed), seeded()).components for observed in (first, second))
        torch.testing.assert_close(one.loc[0], two.loc[0])


def test_the_mixture_of_flows_is_normalised_over_its_strata() -> None:
    """Stratified draws fall on the components evenly, and the density is that of the whole mixture."""
    model = bent()
    q = model.proposal(batch(HOLES))
    z = q.stratified(60, seeded())
    flows = model.flow_posteriors(batch(HOLES))
    whole = model.joint_posterior(batch())
    for row in range(ROWS):
        here = torch.full((60,), row)
        own = [flow[here].log_prob(z[:, row]).exp() for flow, has in zip(flows, HOLES[row], strict=True) if has]
        expected = whole[row].log_prob(z[:, row]) if HOLES[row].all() else torch.stack(own).mean(0).log()
        torch.testing.assert_close(q.log_prob(z)[:, row], expected)


# --- DCCA ---


def test_the_total_correlation_is_that_of_canonical_correlation_analysis() -> None:
    """Computed as cosines between the spaces spanned by the centred columns (Björck & Golub 1973)."""
    one = torch.randn(200, 3, generator=seeded(), dtype=torch.float64)
    other = one @ torch.randn(3, 4, generator=seeded(1), dtype=torch.float64)
    other = other + torch.randn(200, 4, generator=seeded(2), dtype=torch.float64)
    bases = [torch.linalg.qr(x - x.mean(0)).Q for x in (one, other)]
    expected = torch.linalg.svdvals(bases[0].T @ bases[1]).sum()
    torch.testing.assert_close(total_correlation(one, other, ridge=0.0), expected)
    mixed = one @ torch.randn(3, 3, generator=seeded(3), dtype=torch.float64) + 5
    torch.testing.assert_close(total_correlation(mixed, other, ridge=0.0), expected)
    assert total_correlation(one, other) < expected


def test_the_total_correlation_has_a_gradient_where_covariances_are_singular() -> None:
    for rows, one in (
        (5, torch.randn(5, 8)),
        (50, torch.ones(50, 8)),
        (1, torch.randn(1, 8)),
        (64, torch.zeros(64, 8)),
    ):
        one = one.requires_grad_()
        total_correlation(one, torch.randn(rows, 8)).backward()
        assert one.grad.isfinite().all()


def test_dcca_is_trained_between_the_others_on_batches() -> None:
    model, data = build(JNF, dcca=3), batch()
    assert [(p.name, p.scope) for p in model.phases()] == [
        ("joint", "sample"),
        ("dcca", "batch"),
        ("flows", "sample"),
    ]
    loss = model.dcca_loss(data, seeded())
    pairs = itertools.combinations(
        [network(x) for network, x in zip(model.embeddings(), data.data.values(), strict=True)], 2
    )
    expected = -sum(total_correlation(one, other) for one, other in pairs)
    torch.testing.assert_close(loss.per_sample, expected.expand(ROWS))


def test_dcca_finds_what_modalities_share() -> None:
    """Rows share one coordinate among private ones: the correlation of the embeddings rises towards 1."""
    rows = torch.randn(1000, 1, generator=seeded(), dtype=torch.float64)
    data = {
        name: torch.cat([rows, 3 * torch.randn(1000, 3, generator=seeded(s + 1), dtype=torch.float64)], 1)
        for s, name in enumerate(("m0", "m1"))
    }
    model = JNF(modalities(2), **SIZES, dcca=1).double()
    phase, whole = model.phases()[1], Batch(data, torch.ones(1000, 2, dtype=torch.bool))
    before = float(phase.objective(whole, seeded(), 1.0).terms["correlation"][0].detach())
    with freeze_except(model, phase):
        train(phase.objective, phase.parameters, whole, 150)
    assert float(phase.objective(whole, seeded(), 1.0).terms["correlation"][0].detach()) > max(0.9, before + 0.1)


# --- options ---


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("jmvae", {"alpha": -0.1}, "alpha: found -0.1, expected a number of at least 0"),
        ("telbo", {"joint_weights": 0.0}, "joint_weights: found 0.0, expected a number above 0"),
        (
            "telbo",
            {"unimodal_weights": {"x": 1.0}},
            "unimodal_weights: found 'x', expected modalities: a, b, c",
        ),
        ("jnf", {"flow_blocks": 0}, "flow_blocks: found 0, expected a number above 0"),
        ("jnf", {"flow_hidden": 0}, "flow_hidden: found 0, expected a number above 0"),
        ("jnf", {"dcca": -1}, "dcca: found -1, expected a whole number of at least 0"),
        ("jnf", {"latent": 1}, "latent: found 1, expected at least 2"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS[name](MODALITIES, **options)


@pytest.mark.parametrize(
    ("name", "options"), [("telbo", {"joint_weights": {"a": 2.0}}), ("jnf", {"dcca": 2, "flow_blocks": 3})]
)
def test_options_survive_the_state(name: str, options: dict) -> None:
    model = MODELS[name](MODALITIES, latent=4, width=2, **options)
    again = MODELS[name].from_state(*model.state())
    assert again.state()[1] == model.state()[1]
    assert torch.equal(
        again.encode(batch().to("cpu", torch.float32), seeded()).mean,
        model.encode(batch().to("cpu", torch.float32), seeded()).mean,
    )
