"""The contract that every model of `MODELS` keeps."""

from typing import Any

import pytest
import torch

from stage1_vae import MODELS
from stage1_vae.distributions import Mixture, all_subsets
from stage1_vae.modalities import Batch, Modality
from stage1_vae.model import MultimodalVAE

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
    generator = torch.Generator().manual_seed(0)
    x = {m.name: torch.rand(ROWS, *m.shape, generator=generator, dtype=torch.float64) for m in MODALITIES}
    full = torch.ones(ROWS, len(modalities), dtype=torch.bool)
    return Batch({m.name: x[m.name] for m in modalities}, full if observed is None else observed)


def holes() -> torch.Tensor:
    observed = torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(2)) < 0.5
    observed[torch.arange(ROWS), torch.arange(ROWS) % 3] = True
    return observed


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(q: Any) -> list[torch.Tensor]:
    """The moments of a posterior; of a mixture, those of the whole."""
    return [q.mean, q.variance]


@every_model
def test_shapes(name: str) -> None:
    model, batch = build(name), data(holes())
    loss = model.loss(batch, generator())
    assert loss.per_sample.shape == (ROWS,)
    assert all(term.shape == (ROWS,) for term in loss.terms.values())
    q = model.posterior(data(), all_subsets(3))
    z = q.rsample((4,), generator())
    assert q.mean.shape == (ROWS, 7, LATENT)
    assert z.shape == (4, ROWS, 7, LATENT)
    assert q.log_prob(z).shape == (4, ROWS, 7)
    decoded = model.decode(z)
    assert {n: tuple(p.mean.shape) for n, p in decoded.items()} == {
        m.name: (4, ROWS, 7, *m.shape) for m in MODALITIES
    }
    assert list(model.decode(z, only=["b"])) == ["b"]
    assert sum(block.size for block in model.layout) == LATENT
    codes = model.encode(batch, generator())
    assert isinstance(codes, Mixture)
    assert codes.mean.shape == (ROWS, LATENT)
    assert Mixture.single(model.prior()).rsample((5,), generator()).shape == (5, LATENT)


@every_model
def test_masking_a_modality_is_dropping_it(name: str) -> None:
    """Whatever the missing entries hold; the last modality, so that both models draw the same noise."""
    options = {"mvae": {"subsets": 0}, "mopoe": {"draws": 2}, "mmvae": {"draws": 1}}.get(name, {})
    whole, part = build(name, **options), build(name, MODALITIES[:2], **options)
    part.load_state_dict({key: value for key, value in whole.state_dict().items() if ".c." not in key})
    observed = torch.ones(ROWS, 3, dtype=torch.bool)
    observed[:, 2] = False
    masked, dropped = data(observed), data(modalities=MODALITIES[:2])
    masked.data["c"].fill_(1e6)
    for ours, theirs in zip(
        parameters(whole.encode(masked, generator())),
        parameters(part.encode(dropped, generator())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)
    many = (
        400  # the noise of the two differs where a model draws for missing experts too: compare expectations
    )
    losses = []
    for model, batch in ((whole, masked), (part, dropped)):
        repeated = Batch(
            {n: x.repeat_interleave(many, 0) for n, x in batch.data.items()},
            batch.observed.repeat_interleave(many, 0),
        )
        losses.append(model.loss(repeated, generator()).per_sample.detach().reshape(ROWS, many))
    error = (losses[0].var(-1) / many + losses[1].var(-1) / many).sqrt()
    assert ((losses[0].mean(-1) - losses[1].mean(-1)).abs() <= 5 * error + 1e-9).all()


@every_model
def test_the_order_of_modalities_means_nothing(name: str) -> None:
    model, turned = build(name), build(name, MODALITIES[::-1])
    turned.load_state_dict(model.state_dict())
    batch, backwards = data(holes()), data(holes().flip(1), MODALITIES[::-1])
    for ours, theirs in zip(
        parameters(model.encode(batch, generator())),
        parameters(turned.encode(backwards, generator())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@every_model
def test_rows_are_independent_of_one_another(name: str) -> None:
    """Neither the split of a batch nor the masks of other rows change a row's posterior."""
    model, batch = build(name), data(holes())
    together = parameters(model.encode(batch, generator()))
    for rows in torch.arange(ROWS).split(5):
        alone = model.encode(
            Batch({n: x[rows] for n, x in batch.data.items()}, batch.observed[rows]), generator()
        )
        for ours, theirs in zip(parameters(alone), together, strict=True):
            torch.testing.assert_close(ours, theirs[rows])
    other = holes()
    other[1:] = True
    changed = parameters(model.encode(data(other), generator()))
    for ours, theirs in zip(changed, together, strict=True):
        torch.testing.assert_close(ours[0], theirs[0])


@every_model
def test_every_parameter_is_trained_in_its_phase_and_none_out_of_it(name: str) -> None:
    model, batch = build(name), data(holes())
    for phase in model.phases():
        model.zero_grad()
        phase.objective(batch, generator(), 1.0).per_sample.mean().backward()
        trained = {id(parameter) for parameter in phase.parameters}
        for key, parameter in model.named_parameters():
            moved = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert moved == (id(parameter) in trained), f"{phase.name}: {key}"


@every_model
def test_missing_values_reach_no_gradient(name: str) -> None:
    model, observed = build(name), torch.ones(ROWS, 3, dtype=torch.bool)
    observed[:, 2] = False
    model.loss(data(observed), generator()).per_sample.mean().backward()
    silent = [p.grad for key, p in model.named_parameters() if ".c." in key]
    assert all(grad is None or not grad.any() for grad in silent)


@every_model
def test_a_subset_s_posterior_is_that_of_rows_which_have_no_more(name: str) -> None:
    model = build(name)
    subsets = all_subsets(3)
    every = model.posterior(data(), subsets)
    for index, subset in enumerate(subsets):
        alone = model.posterior(data(subset.expand(ROWS, 3)))
        for ours, theirs in zip(parameters(every[:, index]), parameters(alone), strict=True):
            torch.testing.assert_close(ours, theirs)
    only_first = torch.zeros(ROWS, 3, dtype=torch.bool)
    only_first[:, 0] = True
    with pytest.raises(ValueError, match="nothing of a subset"):
        model.posterior(data(only_first), subsets)


@every_model
def test_state_rebuilds_the_model(name: str) -> None:
    model, batch = (
        MODELS[name](MODALITIES, latent=LATENT, width=4, seed=1).eval(),
        data(holes()).to("cpu", torch.float32),
    )
    tensors, description = model.state()
    again = MODELS[name].from_state(tensors, description)
    assert again.state()[1] == description
    assert torch.equal(again.encode(batch, generator()).mean, model.encode(batch, generator()).mean)
    assert torch.equal(again.loss(batch, generator()).per_sample, model.loss(batch, generator()).per_sample)


@every_model
def test_the_seed_decides_and_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.get_rng_state()
    states = [MODELS[name](MODALITIES, latent=LATENT, width=4, seed=seed).state()[0] for seed in (1, 1, 2)]
    model, batch = build(name), data(holes())
    assert torch.equal(model.loss(batch, generator()).per_sample, model.loss(batch, generator()).per_sample)
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
    with pytest.raises(ValueError, match=message):
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
    q = model.encode(some, generator())
    assert q.weights.shape == (2, 7)
    z = q.rsample((4000,), generator())
    error = 5 * (q.variance / len(z)).sqrt()
    assert ((z.mean(0) - q.mean).abs() < error).all()


def test_the_codes_of_mmvae_are_the_mixture_of_its_experts() -> None:
    model, batch = build("mmvae", family="laplace"), data(holes())
    experts, q = model.unimodal(batch).shared, model.encode(batch, generator())
    z = q.rsample((), generator())
    densities = experts.log_prob(z.unsqueeze(1)).exp() * batch.observed
    torch.testing.assert_close(q.log_prob(z).exp(), densities.sum(1) / batch.observed.sum(1))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (2, 5, 9), (1, 4, 4), (3, 33, 18)])
def test_convolutional_networks_mirror_any_image(shape: tuple[int, ...]) -> None:
    model = MODELS["mvtcae"]([Modality("x", "image", shape, "laplace")], latent=4, width=2)
    batch = Batch({"x": torch.rand(3, *shape)}, torch.ones(3, 1, dtype=torch.bool))
    assert model.decode(model.posterior(batch).mean)["x"].mean.shape == (3, *shape)


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


def test_models_refuse_impossible_modalities() -> None:
    vector = Modality("a", "vector", (3,), "normal")
    for modalities, message in (
        ([], "found none, expected one or more"),
        ([vector, vector], "found a, a, expected one or more with different names"),
        (
            [Modality("a", "vector", (3,), "cauchy")],
            "likelihood of modality a: found 'cauchy', expected one of normal",
        ),
        ([Modality("a", "image", (3, 2, 9), "normal")], "expected at least 4 × 4"),
    ):
        with pytest.raises(ValueError, match=message):
            MODELS["mvae"](modalities)


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
