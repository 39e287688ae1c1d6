"""The contract of every model in `MODELS`."""

import inspect
from typing import Any

import pytest
import torch
from support.equations import repeat, seeded

from postprior.stage1_vae.distributions import Mixture
from postprior.stage1_vae.experts import all_subsets
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE, Sizes
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.networks import BLOCK_ROWS, in_blocks
from postprior.stage1_vae.training import freeze_except

MODALITIES = (
    Modality("a", "vector", (3,), "normal"),
    Modality("b", "image", (2, 8, 6), "laplace", (0, 1)),
    Modality("c", "vector", (5,), "bernoulli", (0, 1)),
)
LATENT, ROWS = 8, 16
every_model = pytest.mark.parametrize("name", MODELS)


def build(name: str, modalities: tuple[Modality, ...] = MODALITIES, **options: Any) -> MultimodalVAE:
    return MODELS[name](modalities, latent=LATENT, width=4, seed=1, **options).double()


def data(observed: torch.Tensor | None = None, modalities: tuple[Modality, ...] = MODALITIES) -> Batch:
    generator = seeded()
    x = {m.name: torch.rand(ROWS, *m.shape, generator=generator, dtype=torch.float64) for m in MODALITIES}
    full = torch.ones(ROWS, len(modalities), dtype=torch.bool)
    return Batch({m.name: x[m.name] for m in modalities}, full if observed is None else observed)


def holes() -> torch.Tensor:
    observed = torch.rand(ROWS, 3, generator=seeded(2)) < 0.5
    observed[torch.arange(ROWS), torch.arange(ROWS) % 3] = True
    return observed


def trainable(model: MultimodalVAE) -> Batch:
    """Rows that the model trains on: with holes, unless it needs them all."""
    return data(holes()) if model.incomplete else data()


def blocks(model: MultimodalVAE, batch: Batch) -> dict[str, list[torch.Tensor]]:
    """Mean and variance of the encoded rows by block; those of private blocks are 0 where the modality is missing."""
    q = model.encode(batch, seeded())
    sizes = [block.size for block in model.layout]
    columns = {m.name: batch.observed[:, index] for index, m in enumerate(model.modalities)}
    found = {}
    for block, mean, variance in zip(model.layout, q.mean.split(sizes, -1), q.variance.split(sizes, -1), strict=True):
        known = torch.ones(len(batch), dtype=torch.bool) if block.owner is None else columns[block.owner]
        found[block.name] = [part.masked_fill(~known.unsqueeze(-1), 0) for part in (mean, variance)]
    return found


def same(ours: dict[str, list[torch.Tensor]], theirs: dict[str, list[torch.Tensor]]) -> None:
    """Assert that two encodings agree in the blocks of the second."""
    for name, moments in theirs.items():
        for one, other in zip(ours[name], moments, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.usefixtures("short_chains")
@every_model
def test_shapes(name: str) -> None:
    model = build(name)
    batch, size = trainable(model), sum(block.size for block in model.layout)
    shared = [block.name for block in model.layout if block.owner is None]
    assert shared == (["z"] if model.shares else [])
    assert [block.owner for block in model.layout[len(shared) :]] in ([], ["a", "b", "c"])
    for phase in model.phases():
        loss = phase.objective(batch, seeded(), 1.0)
        assert loss.per_sample.shape == (ROWS,)
        assert all(term.shape == (ROWS,) for term in loss.terms.values())
    z = model.posterior(data(), all_subsets(3)).rsample((4,), seeded())
    assert z.shape == (4, ROWS, 7, size)
    latents = model.infer(data(), all_subsets(3), seeded())
    assert latents.shape[:-1] == (ROWS, 7)
    decoded = model.decode(z, seeded())
    assert {n: tuple(p.mean.shape) for n, p in decoded.items()} == {m.name: (4, ROWS, 7, *m.shape) for m in MODALITIES}
    assert list(model.decode(z, only=["b"])) == ["b"]
    codes = model.encode(data(holes()), seeded(), components=4)
    assert isinstance(codes, Mixture)
    assert codes.weights.shape[-1] <= 4
    torch.testing.assert_close(codes.weights.sum(-1), torch.ones(ROWS, dtype=torch.float64))
    assert codes.mean.shape == (ROWS, size)
    prior = model.prior()
    assert prior.rsample((5,), seeded()).shape == (5, size)
    assert prior.log_prob(z).shape == (4, ROWS, 7)


@pytest.mark.usefixtures("short_chains")
@every_model
def test_masking_a_modality_is_dropping_it(name: str) -> None:
    """Whatever the missing entries hold. It is the last modality, so that both models draw the same noise."""
    options = {"mvae": {"subsets": 0}, "mopoe": {"draws": 2}, "mmvae": {"draws": 1}}.get(name, {})
    whole = build(name, **options)
    observed = torch.ones(ROWS, 3, dtype=torch.bool)
    observed[:, 2] = False
    masked = data(observed)
    masked.data["c"].fill_(1e6)
    filled = data(observed)
    same(blocks(whole, masked), blocks(whole, filled))
    if not whole.incomplete:
        return  # dropping a modality gives another joint encoder
    part = build(name, MODALITIES[:2], **options)
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if "c" not in key.split(".")})
    dropped = data(modalities=MODALITIES[:2])
    same(blocks(whole, masked), blocks(part, dropped))
    many = 400  # models that also draw for missing experts use other noise here: compare expectations
    losses = [
        model.loss(repeat(batch, many), seeded()).per_sample.detach().reshape(ROWS, many)
        for model, batch in ((whole, masked), (part, dropped))
    ]
    error = (losses[0].var(-1) / many + losses[1].var(-1) / many).sqrt()
    assert ((losses[0].mean(-1) - losses[1].mean(-1)).abs() <= 5 * error + 1e-9).all()


@every_model
def test_the_order_of_modalities_means_nothing(name: str) -> None:
    model, turned = build(name), build(name, MODALITIES[::-1])
    turned.load_state_dict(model.state_dict())
    whole, backwards = torch.ones(ROWS, 3, dtype=torch.bool), MODALITIES[::-1]
    same(blocks(model, data(whole)), blocks(turned, data(whole, backwards)))
    if model.incomplete:
        same(blocks(model, data(holes())), blocks(turned, data(holes().flip(1), backwards)))


@every_model
def test_rows_are_independent_of_one_another(name: str) -> None:
    """Neither the split of a batch nor the masks of other rows change a row's posterior."""
    model = build(name)
    batch = trainable(model)
    together = blocks(model, batch)
    for rows in torch.arange(ROWS).split(5):
        alone = blocks(model, Batch({n: x[rows] for n, x in batch.data.items()}, batch.observed[rows]))
        same(alone, {block: [part[rows] for part in moments] for block, moments in together.items()})
    other = holes()
    other[0], other[1:] = batch.observed[0], True
    changed = blocks(model, data(other))
    same(
        {k: [part[0] for part in v] for k, v in changed.items()},
        {k: [p[0] for p in v] for k, v in together.items()},
    )


@every_model
def test_every_parameter_is_trained_in_its_phase_and_none_out_of_it(name: str) -> None:
    model = build(name)
    reached: set[str] = set()
    for phase in model.phases():
        model.zero_grad()
        chosen = {id(parameter) for parameter in phase.parameters}
        with freeze_except(model, phase):
            phase.objective(data() if phase.complete else trainable(model), seeded(), 1.0).per_sample.mean().backward()
        for key, parameter in model.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert moved == (id(parameter) in chosen), f"{phase.name}: {key}"
            reached |= {key} if moved else set()
    assert reached == {key for key, _ in model.named_parameters()}
    assert all(parameter.requires_grad for parameter in model.parameters())


@every_model
def test_decoders_end_in_no_bound_of_their_own(name: str) -> None:
    """Only the likelihood bounds decoded values: a normal has any number as mean, a Bernoulli a probability."""
    model = build(name)
    size = sum(block.size for block in model.layout)
    z = 1e4 * torch.randn(50, size, generator=seeded(), dtype=torch.float64)
    decoded = model.decode(z)
    assert decoded["a"].mean.min() < 0
    assert decoded["a"].mean.max() > 1
    assert ((decoded["c"].mean >= 0) & (decoded["c"].mean <= 1)).all()


@every_model
def test_missing_values_reach_no_gradient(name: str) -> None:
    model, observed = build(name), torch.ones(ROWS, 3, dtype=torch.bool)
    observed[:, 2] = False
    if not model.incomplete:
        with pytest.raises(ValueError, match="expected complete rows"):
            model.loss(data(observed), seeded())
        return
    model.loss(data(observed), seeded()).per_sample.mean().backward()
    silent = [p.grad for key, p in model.named_parameters() if "c" in key.split(".")]
    assert silent
    assert all(grad is None or not grad.any() for grad in silent)


@every_model
def test_a_subset_s_posterior_is_that_of_rows_which_have_no_more(name: str) -> None:
    model = build(name)
    subsets = all_subsets(3)
    only_first = torch.zeros(ROWS, 3, dtype=torch.bool)
    only_first[:, 0] = True
    with pytest.raises(ValueError, match="no modality of a subset"):
        model.posterior(data(only_first), subsets)
    every = model.posterior(data(), subsets)
    if not hasattr(every, "log_prob"):
        pytest.skip("drawn by a chain: no moments to compare")
    for index, subset in enumerate(subsets):
        alone = model.posterior(data(subset.expand(ROWS, 3)))
        for ours, theirs in ((every[:, index].mean, alone.mean), (every[:, index].variance, alone.variance)):
            torch.testing.assert_close(ours, theirs)


@every_model
def test_the_evidence_of_rows_is_finite_and_their_own(name: str) -> None:
    """With more draws the bound rises on average; a model that declares no tractable evidence refuses."""
    model = build(name)
    batch = data(holes())
    if not model.tractable:
        with pytest.raises(
            ValueError, match=f"log_evidence: found {name}, expected a model with a defined log-likelihood"
        ):
            model.log_evidence(batch, seeded())
        return
    few, many = (model.log_evidence(batch, seeded(), draws) for draws in (4, 400))
    assert few.shape == many.shape == (ROWS,)
    assert bool(many.isfinite().all())
    assert float(few.mean()) < float(many.mean())


@every_model
def test_state_rebuilds_the_model(name: str) -> None:
    model, batch = (
        MODELS[name](MODALITIES, latent=LATENT, width=4, seed=1).eval(),
        data().to("cpu", torch.float32),
    )
    tensors, description = model.state()
    again = MODELS[name].from_state(tensors, description)
    assert again.state()[1] == description
    assert torch.equal(again.encode(batch, seeded()).mean, model.encode(batch, seeded()).mean)
    assert torch.equal(again.loss(batch, seeded()).per_sample, model.loss(batch, seeded()).per_sample)


@every_model
def test_the_seed_decides_and_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    states = [MODELS[name](MODALITIES, latent=LATENT, width=4, seed=seed).state()[0] for seed in (1, 1, 2)]
    model = build(name)
    batch = trainable(model)
    assert torch.equal(model.loss(batch, seeded()).per_sample, model.loss(batch, seeded()).per_sample)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not all(torch.equal(states[0][key], states[2][key]) for key in states[0])
    assert torch.equal(torch.get_rng_state(), before)


@every_model
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 0}, "latent: found 0, expected a number above 0"),
        ({"width": -1}, "width: found -1"),
        ({"likelihood_scale": 0.0}, "likelihood_scale: found 0.0"),
        ({"beta": -2.0}, "beta: found -2.0"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    error: type[Exception] = ValueError
    if not set(options) <= set(inspect.signature(MODELS[name]).parameters) | set(Sizes.__annotations__):
        error, message = (
            TypeError,
            "unexpected keyword argument",
        )  # the loss of this model has no single weight for its divergences
    with pytest.raises(error, match=message):
        MODELS[name](MODALITIES, **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mvtcae", {"alpha": 1.5}, "alpha: found 1.5, expected a number from 0 to 1"),
        ("mvae", {"subsets": -1}, "subsets: found -1"),
        ("mmvae", {"estimator": "reinforce"}, "estimator: found 'reinforce', expected one of iwae, dreg"),
        ("mmvae", {"bound": "none"}, "bound: found 'none', expected one of looser, tight"),
        ("mmvae", {"family": "cauchy"}, "family: found 'cauchy', expected one of normal, laplace"),
        ("mopoe", {"draws": 0}, "draws: found 0"),
    ],
)
def test_a_model_s_own_options_are_checked(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MODELS[name](MODALITIES, **options)


def test_mopoe_draws_a_subset_for_each_row_whatever_the_batch() -> None:
    """A batch smaller than the number of subsets still meets them all, over many draws."""
    model = build("mopoe")
    some = Batch({n: x[:2] for n, x in data().data.items()}, torch.ones(2, 3, dtype=torch.bool))
    q = model.encode(some, seeded())
    assert q.weights.shape == (2, 7)
    z = q.rsample((4000,), seeded())
    error = 5 * (q.variance / len(z)).sqrt()
    assert ((z.mean(0) - q.mean).abs() < error).all()


def test_the_codes_of_mmvae_are_the_mixture_of_its_experts() -> None:
    model, batch = build("mmvae", family="laplace"), data(holes())
    experts, q = model.unimodal(batch).shared, model.encode(batch, seeded())
    z = q.rsample((), seeded())
    densities = experts.log_prob(z.unsqueeze(1)).exp() * batch.observed
    torch.testing.assert_close(q.log_prob(z).exp(), densities.sum(1) / batch.observed.sum(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a/b", "vector", (3,), "normal"), "modality name: found 'a/b'"),
        (("a", "sound", (3,), "normal"), "kind of modality a: found 'sound', expected one of image, vector"),
        (("a", "image", (3,), "normal"), r"shape of modality a: found \[3\], expected 3 positive sizes"),
        (("a", "vector", (0,), "normal"), r"shape of modality a: found \[0\]"),
        (
            ("a", "vector", (3,), "normal", (1.0, 1.0)),
            r"range of modality a: found \[1.0, 1.0\], expected low < high",
        ),
    ],
)
def test_impossible_modalities_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modality(*arguments)


def test_scales_are_numbers_learned_or_by_modality() -> None:
    """A modality whose likelihood has no scale gets no parameter."""
    learned = build("mvtcae", likelihood_scale="learned")
    assert set(learned.scales.log_scale) == {"a", "b"}
    some = build("mvtcae", likelihood_scale={"a": "learned", "b": 0.5})
    assert set(some.scales.log_scale) == {"a"}
    assert some.decode_one(MODALITIES[1], torch.zeros(1, LATENT).double()).scale == 0.5
    some.loss(data(), seeded()).per_sample.mean().backward()
    assert some.scales.log_scale["a"].grad != 0
    each = build("mvtcae", likelihood_scale={"a": "features", "b": "learned"})
    each.loss(data(), seeded()).per_sample.mean().backward()
    assert each.scales["a"].shape == MODALITIES[0].shape
    assert each.scales["b"].shape == ()
    assert len(each.scales.log_scale["a"].grad.unique()) == each.scales["a"].numel() > 1
    for scale, message in (
        ("free", "likelihood_scale of a: found 'free', expected a number above 0, learned or features"),
        ({"z": 1.0}, "likelihood_scale: found 'z', expected modalities: a, b, c"),
        ({"a": -1.0}, "likelihood_scale: found -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            build("mvtcae", likelihood_scale=scale)


def test_rescaling_weighs_the_likelihoods_of_the_objective_and_not_the_evidence() -> None:
    plain, weighed = (build("mvtcae", rescaling=given) for given in (None, {"b": 3.0}))
    z, wanted = torch.zeros(ROWS, 1, LATENT).double(), torch.ones(ROWS, 1, 3, dtype=torch.bool)
    expected = plain.log_likelihood(z, data(), wanted) * torch.tensor([1.0, 3.0, 1.0]).double()
    torch.testing.assert_close(weighed.log_likelihood(z, data(), wanted), expected)
    torch.testing.assert_close(weighed.log_evidence(data(), seeded(), 4), plain.log_evidence(data(), seeded(), 4))
    assert build("mvtcae", rescaling="dimensions").weights == [32.0, 1.0, 19.2]
    with pytest.raises(ValueError, match="rescaling: found 'size', expected none, dimensions"):
        build("mvtcae", rescaling="size")


def test_log_scales_are_clamped_whatever_a_network_says() -> None:
    """Scales neither collapse to 0 nor overflow."""
    for name in MODELS:
        model = build(name)
        batch = data()
        batch.data["a"].mul_(1e8)
        q = model.encode(batch, seeded())
        assert bool(q.components.scale.isfinite().all())
        assert float(q.components.scale[q.weights > 0].detach().min()) > 0


def test_models_refuse_impossible_modalities() -> None:
    vector = Modality("a", "vector", (3,), "normal")
    for modalities, message in (
        ([], "found none, expected one or more"),
        ([vector, vector], "found a, a, expected one or more with different names"),
        (
            [Modality("a", "vector", (3,), "cauchy")],
            "likelihood of modality a: found 'cauchy', expected one of normal",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            MODELS["mvae"](modalities)
    with pytest.raises(ValueError, match="expected at least 4 × 4"):
        MODELS["mvae"]([Modality("a", "image", (3, 2, 9), "normal")], networks={"a": "convolutional"})


def test_batches_refuse_masks_that_do_not_fit() -> None:
    x = {"a": torch.zeros(2, 3), "b": torch.zeros(2, 1)}
    for observed, message in (
        (torch.ones(2, 1, dtype=torch.bool), r"found shape \(2, 1\), expected \(2, 2\)"),
        (torch.tensor([[True, True], [False, False]]), "found a row with no modality"),
    ):
        with pytest.raises(ValueError, match=message):
            Batch(x, observed)
    with pytest.raises(ValueError, match="different numbers of rows"):
        Batch({"a": torch.zeros(2, 3), "b": torch.zeros(3, 1)}, torch.ones(2, 2, dtype=torch.bool))


def test_a_network_gives_the_same_in_blocks() -> None:
    network = torch.nn.Linear(3, 2).double()
    rows = torch.randn(2 * BLOCK_ROWS + 5, 3, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(in_blocks(network, rows), network(rows))
