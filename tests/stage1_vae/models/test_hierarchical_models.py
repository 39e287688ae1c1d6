"""Nexus and MHVAE: losses derived again, closed-form oracles, and faults of their public implementations."""

from typing import Any

import pytest
import torch
from support import equations
from support.equations import (
    FULL,
    HOLES,
    ROWS,
    agree,
    by_mask,
    encoded,
    expert,
    log_likelihood,
    names_of,
    normal,
    product,
    repeat,
    same_loss,
    seeded,
    standard,
)
from support.linear_gaussian import LATENT, SCALE, SIZES, evidence, exact, is_exact, posterior, sample
from support.linear_gaussian import modalities as vectors
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from postprior.stage1_vae.distributions import Normal as Diagonal
from postprior.stage1_vae.experts import all_subsets
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MHVAE, Nexus

MIXED = (
    Modality("a", "vector", (3,), "normal"),
    Modality("b", "image", (2, 8, 6), "laplace", (0, 1)),
    Modality("c", "vector", (5,), "normal"),
)
IMAGES = (
    Modality("a", "image", (1, 16, 16), "normal"),
    Modality("b", "image", (2, 16, 16), "laplace", (0, 1)),
    Modality("c", "image", (1, 9, 14), "normal"),
)
CODE = 5
DRAWS = 20_000
FULL_SIZE = pytest.param(IMAGES, {"finest": "full"}, id="full-size")
by_layout = pytest.mark.parametrize(
    ("modalities", "layout"), [pytest.param(MIXED, {}, id="dense"), pytest.param(IMAGES, {}, id="maps"), FULL_SIZE]
)
by_kind = pytest.mark.parametrize("modalities", [MIXED, IMAGES], ids=["dense", "maps"])


def build(kind: type[MultimodalVAE], modalities: tuple[Modality, ...] = MIXED, **options: Any) -> Any:
    return equations.build(kind, modalities, latent=CODE, stretch=1.5, **options)


def data(observed: Tensor = FULL, modalities: tuple[Modality, ...] = MIXED) -> Batch:
    return equations.batch(observed, modalities)


# Nexus


@by_mask
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_nexus(observed: Tensor, training: bool) -> None:
    """Bottom: ELBOs weighted by β_m. Top: γ_m log N(z_m; f_m(z), 1) of all codes minus β KL; z is inferred from the
    codes that dropout left."""
    betas, gammas = {"a": 0.5, "b": 1.0, "c": 2.0}, {"a": 3.0, "b": 1.0, "c": 0.25}
    options = {"bottom": 4, "beta": 1.7, "bottom_beta": {"a": 0.5, "c": 2.0}, "gamma": gammas, "dropout": 0.9}
    model, batch = build(Nexus, **options).train(training), data(observed)
    source = seeded()
    noise = torch.randn(ROWS, 3, 4, generator=source, dtype=torch.float64)
    heard = model.drop_modalities(observed, source) if training else observed
    top_noise = torch.randn(ROWS, 1, CODE, generator=source, dtype=torch.float64)
    expected = []
    for row in range(ROWS):
        value, codes = torch.zeros((), dtype=torch.float64), {}
        for index, m in enumerate(MIXED):
            if observed[row, index]:
                q = expert(model, batch, row, m.name)
                z = q.mean + q.stddev * noise[row, index]
                value = value + log_likelihood(model, batch, row, m.name, z)
                value = value - betas[m.name] * kl_divergence(q, standard(4))
                codes[m.name] = z
        messages = [model.messages[m.name](codes[m.name]) for i, m in enumerate(MIXED) if heard[row, i]]
        q = normal(model.listener((sum(messages) / len(messages))[None])[0])
        z = q.mean + q.stddev * top_noise[row, 0]
        for name, code in codes.items():
            value = value + gammas[name] * Normal(model.rebuilders[name](z[None])[0], 1.0).log_prob(code).sum()
        expected.append(1.7 * kl_divergence(q, standard(CODE)) - value)
    same_loss(model.loss(batch, seeded()).per_sample, expected)


def test_perceptual_dropout_leaves_one_modality_at_least() -> None:
    model = build(Nexus, dropout=0.6)
    observed = torch.tensor([[True] * 3, [True, False, True], [False, True, False]]).repeat_interleave(30_000, 0)
    heard = model.drop_modalities(observed, seeded()).reshape(3, 30_000, 3)
    assert heard.any(-1).all()
    assert not (heard & ~observed.reshape(heard.shape)).any()
    counts = [(heard.sum(-1) == count).double().mean(-1) for count in (1, 2, 3)]
    expected = torch.tensor([[0.3, 0.3, 0.4], [0.6, 0.4, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(counts, -1), expected, rtol=0, atol=0.015)
    of_each = torch.tensor([0.7, 0.7, 0.7], dtype=torch.float64)  # 1 − 0.6 · mean of 1/3 and 2/3
    torch.testing.assert_close(heard[0].double().mean(0), of_each, rtol=0, atol=0.015)


def test_perceptual_dropout_is_off_outside_of_training() -> None:
    always, never = (build(Nexus, dropout=dropout) for dropout in (1.0, 0.0))
    losses = [model.eval().loss(data(), seeded()).terms["rebuilding"] for model in (always, never)]
    drawn = always.train().loss(data(), seeded()).terms["rebuilding"]
    means = [model.train().posterior(data()).mean for model in (always, never)]
    # Both models draw the same numbers for their codes; dropout draws more before the top does.
    assert torch.equal(means[0], means[1])
    repeated = [
        model.eval().loss(repeat(data(), 2000), seeded()).terms["rebuilding"].reshape(ROWS, -1)
        for model in (always, never)
    ]
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(repeated[0], repeated[1])
    assert not torch.equal(drawn, losses[0])


def test_bottom_codes_are_real_numbers_to_the_top() -> None:
    """No sigmoid: the decoders of the top end in a linear map and reach values far outside [0, 1]."""
    model = build(Nexus, bottom=4)
    for rebuilder in model.rebuilders.values():
        last = list(rebuilder.modules())[-1]
        assert isinstance(last, nn.Linear)
        last.bias.data = torch.tensor([-7.0, 9.0, 0.0, 0.5], dtype=torch.float64)
        last.weight.data.zero_()
    rebuilt = model.descend(torch.randn(6, CODE, generator=seeded(), dtype=torch.float64)).reshape(6, 3, 4)
    assert (rebuilt == torch.tensor([-7.0, 9.0, 0.0, 0.5], dtype=torch.float64)).all()


def test_no_gradient_reaches_the_bottom_through_the_top() -> None:
    model = build(Nexus)
    gradients = []
    for gamma in (1.0, 50.0):
        model.gammas = [gamma] * 3
        model.zero_grad()
        model.loss(data(HOLES), seeded()).per_sample.sum().backward()
        bottom = {n: p.grad for n, p in model.named_parameters() if n.startswith(("encoders", "decoders"))}
        gradients.append(bottom)
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    top = [p.grad for name, p in model.named_parameters() if name not in gradients[0]]
    assert all(gradient.abs().sum() > 0 for gradient in top)


def test_nexus_decodes_each_modality_from_its_own_bottom_code() -> None:
    model = build(Nexus, bottom=4)
    z = torch.randn(3, 2, CODE, generator=seeded(), dtype=torch.float64)
    latents = model.descend(z)
    assert latents.shape == (3, 2, 12)
    for index, modality in enumerate(MIXED):
        own = latents[..., 4 * index : 4 * index + 4]
        rebuilt = model.rebuilders[modality.name](z.flatten(0, 1))
        torch.testing.assert_close(own, rebuilt.unflatten(0, (3, 2)))
        expected = model.decoders[modality.name](rebuilt).unflatten(0, (3, 2))
        torch.testing.assert_close(model.decode(z)[modality.name].mean, expected)


def test_nexus_has_no_evidence() -> None:
    with pytest.raises(ValueError, match="log_evidence: found nexus"):
        build(Nexus).log_evidence(data(), seeded())


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Nexus, {"bottom": 0}, "bottom: found 0"),
        (Nexus, {"dropout": 1.5}, "dropout: found 1.5, expected a probability from 0 to 1"),
        (Nexus, {"gamma": {"a": -1.0}}, "gamma: found -1.0"),
        (Nexus, {"bottom_beta": {"x": 1.0}}, "bottom_beta: found 'x', expected modalities: a, b, c"),
        (MHVAE, {"levels": 0}, "levels: found 0"),
        (MHVAE, {"channels": 0}, "channels: found 0"),
        (MHVAE, {"subsets": 0}, "subsets: found 0"),
        (MHVAE, {"finest": "quarter"}, "finest: found 'quarter', expected one of half, full"),
        (MHVAE, {"finest": "full"}, "finest: found full, expected half, because only images"),
        (MHVAE, {"finest": "full", "levels": 1}, "levels: found 1, expected at least 2 for finest: full"),
    ],
)
def test_impossible_options_are_refused(kind: type[MultimodalVAE], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(MIXED, **options)


# MHVAE


def descent(model: Any, batch: Batch, row: int, names: list[str], noise: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Descend level by level from some modalities of one row; return the state and the sum of the divergences."""
    outputs = {name: encoded(model, batch, row, name) for name in names}
    q = product([standard(CODE), *(normal(outputs[name][: 2 * CODE]) for name in names)])
    state = q.mean + q.stddev * noise[0]
    divergence, start = kl_divergence(q, standard(CODE)), 2 * CODE
    for step, own_noise in zip(model.steps, noise[1:], strict=True):
        hidden = step.trunk(state[None])[0]
        prior, end = normal(step.to_prior(hidden)), start + step.positions * step.hidden
        laterals = {name: outputs[name][start:end].reshape(step.positions, step.hidden) for name in names}
        factors = [normal(step.to_factor((step.context(hidden) + laterals[name]).clamp_min(0))) for name in names]
        q, start = product([prior, *factors]), end
        z = (q.mean + q.stddev * own_noise).reshape(step.positions, -1)
        state = (hidden + step.to_state(z)).flatten()
        divergence = divergence + kl_divergence(q, prior)
    return state, divergence


@by_mask
@pytest.mark.parametrize(
    ("modalities", "options"),
    [
        *((modalities, {"levels": levels}) for modalities in (MIXED, IMAGES) for levels in (1, 2, 4)),
        (IMAGES, {"levels": 4, "finest": "full"}),
    ],
)
def test_mhvae(observed: Tensor, modalities: tuple[Modality, ...], options: dict[str, Any]) -> None:
    """The mean over drawn subsets of log p(X | z) − β Σ_l KL, every modality of the row reconstructed."""
    model, batch = build(MHVAE, modalities, subsets=3, beta=1.3, **options), data(observed, modalities)
    source = seeded()
    subsets = model.draw_subsets(observed, source)
    sizes = [CODE, *(step.size for step in model.steps)]
    noise = [torch.randn(ROWS, 3, size, generator=source, dtype=torch.float64) for size in sizes]
    expected = []
    for row in range(ROWS):
        bounds = []
        for slot in range(3):
            names = [m.name for m, inside in zip(modalities, subsets[row, slot], strict=True) if inside]
            assert set(names) <= set(names_of(batch, row))
            state, divergence = descent(model, batch, row, names, [level[row, slot] for level in noise])
            present = [m for m in modalities if m.name in names_of(batch, row)]
            fit = sum(log_likelihood(model, batch, row, m.name, state) for m in present)
            bounds.append(fit - 1.3 * divergence)
        expected.append(-sum(bounds) / 3)
    same_loss(model.loss(batch, seeded()).per_sample, expected)


@by_kind
def test_a_level_s_posterior_is_the_normalised_product_of_its_prior_and_factors(
    modalities: tuple[Modality, ...],
) -> None:
    """log q − log p − Σ_m log q_m does not depend on z_l, and q integrates to 1."""
    model, batch = build(MHVAE, modalities), data(HOLES, modalities)
    step, size = model.steps[0], model.steps[0].size
    features = torch.stack(model.outputs(batch), 1)[..., 2 * CODE :][..., : step.positions * step.hidden]
    above = torch.randn(ROWS, 1, CODE, generator=seeded(), dtype=torch.float64)
    level = model.next_level(step, above, features, HOLES.unsqueeze(1), seeded())
    q, prior = level.posterior, level.prior
    z = torch.randn(50, ROWS, 1, size, generator=seeded(), dtype=torch.float64)
    total = q.log_prob(z) - prior.log_prob(z)
    context = step.context(step(above[:, 0])[1])
    for index in range(3):
        factor = step.factor(context, features[:, index].unflatten(-1, (step.positions, step.hidden)))
        total = total - torch.where(HOLES[:, index], factor.log_prob(z[:, :, 0]), 0).unsqueeze(-1)
    torch.testing.assert_close(total, total[:1].expand_as(total))
    line = q.loc.unsqueeze(0).repeat(4001, 1, 1, 1)
    points = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    line[..., 0] = q.loc[..., 0] + points[:, None, None] * q.scale[..., 0]
    others = Diagonal(q.loc[..., 1:], q.scale[..., 1:]).log_prob(q.loc[..., 1:])
    mass = torch.trapezoid((q.log_prob(line) - others).exp(), line[..., 0], dim=0)
    torch.testing.assert_close(mass, torch.ones_like(mass))


def test_one_level_is_a_product_with_the_prior() -> None:
    """It is the exact posterior of every subset; the bound of a subset is KL(p(z|x_S) ‖ p(z|X)) below the evidence."""
    model = exact(MHVAE(vectors(3), levels=1, subsets=7, **SIZES))
    batch, subsets = sample(model, 4), all_subsets(3)
    q = model.posterior(batch, subsets)
    truth, expected = evidence(model, batch, subsets[-1]), []
    whole = torch.distributions.MultivariateNormal(*posterior(model, batch, subsets[-1]))
    for index, subset in enumerate(subsets):
        is_exact(q[:, index], model, batch, subset)
        part = torch.distributions.MultivariateNormal(*posterior(model, batch, subset))
        expected.append(truth - kl_divergence(part, whole))
    for drawn in (7, 2):  # all subsets; or two of them, without bias
        model.subsets = drawn
        loss = model.loss(repeat(batch, DRAWS), seeded()).per_sample.reshape(4, DRAWS)
        agree(-loss, torch.stack(expected).mean(0))
    for subset in subsets:
        part = Batch(batch.data, subset.expand(4, 3))
        found = model.log_evidence(part, seeded(), draws=3)
        torch.testing.assert_close(found, evidence(model, batch, subset))


class LinearStep(nn.Module):
    """z_1 = a z_2 + b + s ε; the factors of z_1 are the lateral features and do not depend on z_2."""

    positions, hidden, size = 1, 2 * LATENT, LATENT

    def __init__(self) -> None:
        super().__init__()
        self.a = torch.tensor([0.8, -1.5], dtype=torch.float64)
        self.b = torch.tensor([1.0, -0.5], dtype=torch.float64)
        self.s = torch.tensor([0.6, 0.9], dtype=torch.float64)
        self.context = nn.Identity()

    def forward(self, above: Tensor) -> tuple[Diagonal, Tensor]:
        features = above.new_zeros(len(above), 1, self.hidden)
        return Diagonal(self.a * above + self.b, self.s.expand_as(above)), features

    def factor(self, context: Tensor, lateral: Tensor) -> Diagonal:
        return Diagonal.from_raw((context + lateral).flatten(1))

    def state(self, features: Tensor, z: Tensor) -> Tensor:
        return z


class TwoLevels(nn.Module):
    """The exact factors of z_2 and of z_1 side by side; z_1 is integrated out of the factor of z_2."""

    def __init__(self, factor: nn.Module, step: LinearStep) -> None:
        super().__init__()
        self.factor, self.step = factor, step

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.factor(x).chunk(2, -1)
        variance = (2 * log_scale).exp() + self.step.s**2
        top = [(loc - self.step.b) / self.step.a, (variance.sqrt() / self.step.a.abs()).log()]
        return torch.cat([*top, loc, log_scale], -1)


def linear_hierarchy(count: int) -> Any:
    model = exact(MHVAE(vectors(count), levels=2, subsets=2**count - 1, **SIZES))
    step = LinearStep()
    model.steps = nn.ModuleList([step])
    for name in model.decoders:
        model.encoders[name] = TwoLevels(model.encoders[name], step)
    return model


def hierarchical_evidence(model: Any, batch: Batch) -> Tensor:
    """log p(X) with z_1 ~ N(b, a² + s²)."""
    step = model.steps[0]
    weight = torch.cat([decoder.weight for decoder in model.decoders.values()])
    bias = torch.cat([decoder.bias for decoder in model.decoders.values()])
    covariance = weight @ torch.diag(step.a**2 + step.s**2) @ weight.T
    covariance = covariance + SCALE**2 * torch.eye(len(bias), dtype=torch.float64)
    x = torch.cat([batch.data[name] for name in model.decoders], -1)
    return torch.distributions.MultivariateNormal(bias + weight @ step.b, covariance).log_prob(x)


def test_two_levels_are_exact_where_their_factors_are() -> None:
    """One modality: both levels' posteriors are exact, so bound and importance weights are the evidence itself."""
    model = linear_hierarchy(1)
    batch = sample(model, 5)
    truth = hierarchical_evidence(model, batch)
    torch.testing.assert_close(model.log_evidence(batch, seeded(), draws=2), truth)
    agree(-model.loss(repeat(batch, DRAWS), seeded()).per_sample.reshape(5, DRAWS), truth)


def test_the_evidence_of_a_hierarchy_is_estimated_without_bias() -> None:
    """Two modalities: z_2's factors are those of one modality alone, hence no longer exact."""
    model = linear_hierarchy(2)
    batch = sample(model, 5)
    truth = hierarchical_evidence(model, batch)
    single = model.log_evidence(repeat(batch, DRAWS), seeded(), draws=1).reshape(5, DRAWS)
    agree((single - truth.unsqueeze(1)).exp(), torch.ones(5, dtype=torch.float64))
    assert (single.var(-1) > 1e-6).all()
    assert (-model.loss(repeat(batch, DRAWS), seeded()).per_sample.reshape(5, DRAWS).mean(-1) < truth).all()
    many = model.log_evidence(batch, seeded(), draws=5000)
    torch.testing.assert_close(many, truth, rtol=0, atol=0.05)


def test_only_the_top_code_informs_the_decoder_before_training() -> None:
    """If lower levels informed the decoder from the start, the code would stay at its prior."""
    model = MHVAE(IMAGES, latent=CODE, width=8)
    levels = model.posterior_levels(data(modalities=IMAGES).to("cpu", torch.float32), FULL.unsqueeze(1), seeded())
    assert len(levels) > 1
    for level in levels[1:]:
        ratio = level.posterior.scale / level.prior.scale  # near 1: the posterior follows its prior
        assert 0.97 < float(ratio.detach().mean()) <= 1
        shift = (level.posterior.loc - level.prior.loc).abs() / level.prior.scale
        assert float(shift.detach().mean()) < 0.2


def test_the_finest_map_has_the_size_of_the_images_if_it_is_full() -> None:
    """One value per pixel and channel in z_1, and a quarter of the positions on every level above, up to the code."""
    images = [Modality(name, "image", (1, 16, 24), "laplace", (0, 1)) for name in "ab"]
    positions = {
        (finest, levels): [step.positions for step in MHVAE(images, levels=levels, finest=finest, width=2).steps]
        for finest in ("half", "full")
        for levels in (2, 3, 5)
    }
    assert (positions["full", 2], positions["full", 3]) == ([16 * 24], [8 * 12, 16 * 24])
    assert positions["full", 5] == [4 * 6, 4 * 6, 8 * 12, 16 * 24]
    assert positions["half", 5] == [4 * 6, 8 * 12, 8 * 12, 8 * 12]


def test_a_pixel_of_an_image_reaches_its_own_place_in_the_finest_map() -> None:
    """Only the features of a neighbourhood and of coarser levels carry it further: checked on the lateral features."""
    model = build(MHVAE, IMAGES[:1], levels=2, finest="full")
    network = model.encoders["a"]
    network.stem.neighbourhood.weight.data.zero_()
    x = torch.rand(1, 1, 16, 16, generator=seeded(), dtype=torch.float64)
    changed = x.clone()
    changed[0, 0, 3, 11] += 0.5
    laterals = [network(image)[0, 2 * CODE :].reshape(16, 16, -1) for image in (x, changed)]
    moved = (laterals[0] != laterals[1]).any(-1)
    assert moved.nonzero().tolist() == [[3, 11]]


def test_samples_of_the_prior_start_at_the_top_and_descend() -> None:
    """z_1 of prior draws follows p(z_1) = N(b, a² + s²), not N(0, I); without a generator it is the mean a z_2 + b."""
    model = linear_hierarchy(2)
    step, z = model.steps[0], model.prior().rsample((DRAWS,), seeded())
    drawn = model.descend(z, seeded(1))
    agree(drawn.T, step.b)
    agree((drawn - step.b).square().T, step.a**2 + step.s**2)
    torch.testing.assert_close(model.descend(z), step.a * z + step.b)
    decoded = model.decode(z, seeded(1))["m1"].mean
    torch.testing.assert_close(decoded, model.decoders["m1"](drawn))


@by_kind
def test_codes_are_the_top_and_decoders_read_what_is_below(modalities: tuple[Modality, ...]) -> None:
    model = build(MHVAE, modalities, levels=4)
    assert [(block.name, block.shape) for block in model.layout] == [("z", (CODE,))]
    z = model.prior().rsample((2, 3), seeded())
    latents = model.descend(z, seeded())
    assert latents.shape == (2, 3, model.steps[-1].positions * model.steps[-1].hidden)
    again = z.flatten(0, 1)
    for step in model.steps:
        prior, features = step(again)
        again = step.state(features, prior.loc)
    torch.testing.assert_close(model.descend(z), again.unflatten(0, (2, 3)))
    assert not torch.allclose(model.descend(z), latents)
    for modality in modalities:
        assert model.decode(z)[modality.name].mean.shape == (2, 3, *modality.shape)


@by_kind
def test_inference_reads_a_subset_as_if_the_rest_were_missing(modalities: tuple[Modality, ...]) -> None:
    """On every level, whatever the missing entries hold, and in any order of the modalities."""
    model, whole = build(MHVAE, modalities), data(modalities=modalities)
    for subset in all_subsets(3):
        filled = {
            name: x if inside else torch.full_like(x, 1e6)
            for (name, x), inside in zip(whole.data.items(), subset, strict=True)
        }
        masked = Batch(filled, subset.expand(ROWS, 3))
        drawn = model.infer(whole, subset.unsqueeze(0), seeded())
        torch.testing.assert_close(drawn, model.infer(masked, torch.ones(1, 3).bool(), seeded()))
        turned = build(MHVAE, modalities[::-1])
        turned.load_state_dict(model.state_dict())
        backwards = Batch(dict(reversed(whole.data.items())), FULL)
        torch.testing.assert_close(drawn, turned.infer(backwards, subset.flip(0).unsqueeze(0), seeded()))
    with pytest.raises(ValueError, match="no modality of a subset"):
        model.infer(data(HOLES, modalities), all_subsets(3), seeded())


@by_layout
def test_dropping_a_modality_is_masking_it_on_every_level(
    modalities: tuple[Modality, ...], layout: dict[str, str]
) -> None:
    whole, part = build(MHVAE, modalities, **layout), build(MHVAE, modalities[:2], **layout)
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if ".c." not in k})
    masked = data(torch.tensor([True, True, False]).expand(ROWS, 3), modalities)
    dropped = Batch({name: masked.data[name] for name in "ab"}, FULL[:, :2])
    losses = [model.loss(batch, seeded()).per_sample for model, batch in ((whole, masked), (part, dropped))]
    torch.testing.assert_close(*losses)


def test_subsets_are_drawn_evenly_from_those_of_a_row() -> None:
    model = build(MHVAE, subsets=7)
    once = model.draw_subsets(torch.ones(50, 3, dtype=torch.bool), seeded())
    assert all(len(row.unique(dim=0)) == 7 for row in once)
    model.subsets = 2
    observed = torch.tensor([[True, False, True], [True, True, True], [False, True, False]])
    drawn = model.draw_subsets(observed.repeat_interleave(20_000, 0), seeded())
    codes = (drawn.long() * torch.tensor([1, 2, 4])).sum(-1).reshape(3, -1)
    shares = torch.stack([(codes == code).double().mean(-1) for code in range(8)], -1)
    expected = torch.zeros(3, 8, dtype=torch.float64)
    expected[0, [1, 4, 5]], expected[1, 1:], expected[2, 2] = 1 / 3, 1 / 7, 1
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.01)
    assert (shares[expected == 0] == 0).all()


@pytest.mark.parametrize(
    ("levels", "finest"), [(1, "half"), (2, "half"), (3, "half"), (6, "half"), (2, "full"), (6, "full")]
)
@pytest.mark.parametrize(
    "shapes", [[(3, 16, 16)] * 2, [(1, 28, 28), (3, 32, 20)], [(1, 4, 4), (2, 5, 9)], [(1, 33, 18)]]
)
def test_maps_serve_images_of_any_size(levels: int, finest: str, shapes: list[tuple[int, int, int]]) -> None:
    images = [Modality(f"m{i}", "image", shape, "laplace") for i, shape in enumerate(shapes)]
    model = MHVAE(images, latent=4, width=8, levels=levels, finest=finest)
    batch = Batch(
        {m.name: torch.rand(3, *m.shape, generator=seeded()) for m in images},
        torch.ones(3, len(images)).bool(),
    )
    model.loss(batch, seeded()).per_sample.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    decoded = model.decode(model.posterior(batch).mean, seeded())
    assert {name: p.mean.shape[1:] for name, p in decoded.items()} == {m.name: m.shape for m in images}


def test_rows_of_maps_are_independent_of_one_another() -> None:
    model, batch = build(MHVAE, IMAGES), data(HOLES, IMAGES)
    features = torch.stack(model.outputs(batch), 1)
    above = torch.randn(ROWS, 1, CODE, generator=seeded(), dtype=torch.float64)
    step = model.steps[0]
    lateral = features[..., 2 * CODE :][..., : step.positions * step.hidden]
    together = model.next_level(step, above, lateral, HOLES.unsqueeze(1), seeded()).posterior
    for row in range(ROWS):
        rows = slice(row, row + 1)
        alone = model.next_level(step, above[rows], lateral[rows], HOLES[rows].unsqueeze(1), seeded()).posterior
        torch.testing.assert_close(alone.loc, together.loc[rows])
        torch.testing.assert_close(alone.scale, together.scale[rows])


def test_annealing_scales_the_divergences_alone() -> None:
    for kind in (Nexus, MHVAE):
        model = build(kind)
        losses = [model.loss(data(HOLES), seeded(), kl_weight).per_sample for kl_weight in (0.0, 0.5, 1.0)]
        torch.testing.assert_close(losses[1], (losses[0] + losses[2]) / 2)
        assert (losses[2] > losses[0]).all()
