"""Likelihoods of the raw output of decoders: densities against torch, moments, and gradients at extreme outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.equations import seeded
from torch import Tensor, distributions

from postprior.stage1_vae.discrete import NegativeBinomial, NegativeBinomialMixture
from postprior.stage1_vae.likelihoods import COLUMN_LIKELIHOODS, LIKELIHOODS, likelihood, raw_shape
from postprior.stage1_vae.modalities import COLUMNS, HURDLES, SCALED, Column, Modality

SCALE = 0.3
TABLE = (
    Column("height", "normal"),
    Column("city", "categorical", 3),
    Column("visits", "negative_binomial"),
    Column("smoker", "bernoulli"),
    Column("job", "categorical", 5),
    Column("noise", "laplace"),
    Column("weight", "normal"),
    Column("reads", "zero_inflated_negative_binomial"),
)
MODALITIES = {
    m.name: m
    for m in (
        Modality("normal", "vector", (5,), "normal"),
        Modality("laplace", "image", (2, 4, 3), "laplace"),
        Modality("bernoulli", "volume", (1, 2, 3, 2), "bernoulli"),
        Modality("classes", "vector", (5,), "categorical", classes=4),
        Modality("tokens", "sequence", (6,), "categorical", classes=3),
        Modality("segments", "image", (2, 4, 3), "categorical", classes=3),
        Modality("counts", "vector", (5,), "negative_binomial"),
        Modality("reads", "image", (2, 4, 3), "zero_inflated_negative_binomial"),
        Modality("amounts", "vector", (5,), "hurdle_lognormal"),
        Modality("logarithms", "image", (2, 4, 3), "hurdle_softplus"),
        Modality("table", "table", (8,), "columns", columns=TABLE),
    )
}
every_modality = pytest.mark.parametrize("modality", MODALITIES.values(), ids=MODALITIES)


def raw(modality: Modality, *batch: int, seed: int = 0) -> Tensor:
    return torch.randn(*batch, *raw_shape(modality), generator=seeded(seed), dtype=torch.float64)


def numbers(modality: Modality, output: Tensor) -> Tensor:
    """Raw numbers (P, …, *shape) of a modality whose values all have the same likelihood."""
    batch = output.dim() - len(raw_shape(modality))
    split = output.reshape(*output.shape[:batch], -1, *modality.shape)
    return split.movedim(batch, 0)


def expected(name: str, p: Tensor) -> distributions.Distribution:
    """The same distribution from torch, of raw numbers p (P, …)."""
    if name == "categorical":
        return distributions.Categorical(logits=p.movedim(0, -1))
    if name == "bernoulli":
        return distributions.Bernoulli(logits=p[0])
    mean, theta = p[0].exp(), p[min(1, len(p) - 1)].exp()
    counts = distributions.NegativeBinomial(theta, probs=mean / (mean + theta), validate_args=False)
    if name == "negative_binomial":
        return counts
    family = {"normal": distributions.Normal, "laplace": distributions.Laplace}[name]
    return family(p[0], p[1].exp() if len(p) > 1 else SCALE)


def log_prob(name: str, p: Tensor, value: Tensor) -> Tensor:
    """Log-density of each value under raw numbers p (P, …)."""
    if name == "zero_inflated_negative_binomial":
        inflation = p[2].sigmoid()
        drawn = expected("negative_binomial", p[:2]).log_prob(value).exp() * (1 - inflation)
        return (drawn + inflation * (value == 0)).log()
    if name in HURDLES:
        shape = [distributions.SoftplusTransform()] if name == "hurdle_softplus" else [distributions.ExpTransform()]
        family = distributions.TransformedDistribution(distributions.Normal(p[0], SCALE), shape)
        positive = family.log_prob(value.where(value > 0, 1))
        return torch.where(value > 0, (1 - p[1].sigmoid()).log() + positive, p[1].sigmoid().log())
    return expected(name, p).log_prob(value)


def column_numbers(output: Tensor) -> list[Tensor]:
    """Raw numbers (P_j, …) of each column of TABLE: groups in order of their first column, P before columns."""
    found: dict[int, Tensor] = {}
    start = 0
    for name in dict.fromkeys(column.likelihood for column in TABLE):
        members = [j for j, column in enumerate(TABLE) if column.likelihood == name]
        if name == "categorical":
            for j in members:
                size = TABLE[j].classes or 0
                found[j] = output[..., start : start + size].movedim(-1, 0)
                start += size
        else:
            size = COLUMN_LIKELIHOODS[name][0] * len(members)
            part = output[..., start : start + size].unflatten(-1, (-1, len(members)))
            start += size
            for place, j in enumerate(members):
                found[j] = part[..., place].movedim(-1, 0)
    assert start == output.shape[-1]
    return [found[j] for j in range(len(TABLE))]


def reference(modality: Modality, output: Tensor, value: Tensor) -> Tensor:
    """log p(value) summed over the event, from torch's own distributions."""
    if modality.columns:
        columns = zip(TABLE, column_numbers(output), strict=True)
        return sum(log_prob(c.likelihood, p, value[..., j]) for j, (c, p) in enumerate(columns))  # type: ignore[return-value]
    each = log_prob(modality.likelihood, numbers(modality, output), value)
    return each.flatten(-len(modality.shape)).sum(-1)


def test_every_likelihood_is_tried() -> None:
    assert {m.likelihood for m in MODALITIES.values()} == set(LIKELIHOODS)
    assert {c.likelihood for c in TABLE} == set(COLUMNS) == {*COLUMN_LIKELIHOODS, "categorical"}


@every_modality
def test_densities_are_those_of_torch(modality: Modality) -> None:
    output = raw(modality, 4, 3)
    value = likelihood(modality, raw(modality, 4, 3, seed=1), SCALE).rsample((), seeded(2))
    p = likelihood(modality, output, SCALE)
    torch.testing.assert_close(p.log_prob(value), reference(modality, output, value), rtol=1e-9, atol=1e-9)
    assert p.mean.shape == value.shape == (4, 3, *modality.shape)


@every_modality
def test_values_and_parameters_broadcast(modality: Modality) -> None:
    """Parameters of several draws broadcast against the one value of a row."""
    output, value = (
        raw(modality, 4, 3),
        likelihood(modality, raw(modality, 4), SCALE).rsample((), seeded()),
    )
    together = likelihood(modality, output, SCALE).log_prob(value.unsqueeze(1))
    alone = [likelihood(modality, output[:, s], SCALE).log_prob(value) for s in range(3)]
    torch.testing.assert_close(together, torch.stack(alone, 1))
    one = likelihood(modality, output[0, 0], SCALE).log_prob(value)
    torch.testing.assert_close(one[2], likelihood(modality, output[0, 0], SCALE).log_prob(value[2]))


@pytest.mark.parametrize(
    ("name", "values"),
    [("bernoulli", 2), ("classes", 4), ("counts", 4000), ("reads", 4000)],
)
def test_discrete_likelihoods_sum_to_one(name: str, values: int) -> None:
    modality = Modality("x", "vector", (1,), MODALITIES[name].likelihood, classes=MODALITIES[name].classes)
    p = likelihood(modality, raw(modality, 6), SCALE)
    support = torch.arange(values, dtype=torch.float64).view(-1, 1, 1)
    torch.testing.assert_close(p.log_prob(support).exp().sum(0), torch.ones(6, dtype=torch.float64))


@every_modality
def test_draws_have_the_moments_of_the_density(modality: Modality) -> None:
    """Means against `mean`; classes against their probabilities; second moments of counts against μ + μ²/θ."""
    output = raw(modality)
    p = likelihood(modality, output, SCALE)
    x = p.rsample((20000,), seeded())
    assert x.shape == (20000, *modality.shape)
    assert x.dtype == torch.float64
    if modality.classes is not None:
        shares = (x == torch.arange(modality.classes).view(-1, *[1] * x.dim())).double().mean(1)
        probabilities = numbers(modality, output).softmax(0)
        assert (shares - probabilities).abs().max() < 5 * 0.5 / 20000**0.5
        assert torch.equal(p.mean, probabilities.argmax(0).double())
        return
    plain = [j for j, c in enumerate(TABLE) if c.classes is None] if modality.columns else slice(None)
    mean, drawn = p.mean[..., plain], x[..., plain]
    assert ((drawn.mean(0) - mean).abs() <= 5 * drawn.std(0) / len(x) ** 0.5).all()
    if modality.likelihood == "negative_binomial":
        mean, theta = numbers(modality, output).exp()
        torch.testing.assert_close(x.var(0), mean + mean**2 / theta, rtol=0.15, atol=0)


def test_a_table_draws_the_classes_of_each_column() -> None:
    output = raw(MODALITIES["table"])
    p = likelihood(MODALITIES["table"], output, SCALE)
    x = p.rsample((20000,), seeded())
    for j, (column, logits) in enumerate(zip(TABLE, column_numbers(output), strict=True)):
        if column.classes is not None:
            shares = torch.stack([(x[:, j] == k).double().mean() for k in range(column.classes)])
            assert (shares - logits.softmax(0)).abs().max() < 5 * 0.5 / 20000**0.5
            assert p.mean[j] == logits.argmax()


@every_modality
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_stay_finite_at_extreme_outputs(modality: Modality, dtype: torch.dtype) -> None:
    signs = torch.randint(3, raw_shape(modality), generator=seeded()) - 1
    value = likelihood(modality, raw(modality), SCALE).rsample((), seeded()).to(dtype)
    for extreme in (1e4 * signs, -1e4 * signs, torch.full_like(signs, 10000), torch.full_like(signs, -10000)):
        output = extreme.to(dtype).requires_grad_()
        p = likelihood(modality, output, SCALE)
        loss = p.log_prob(value)
        loss.backward()
        assert loss.isfinite()
        assert output.grad is not None
        assert output.grad.isfinite().all()
        assert p.mean.isfinite().all()
        assert p.rsample((), seeded()).isfinite().all()


@every_modality
def test_draws_follow_their_generator_and_no_other(modality: Modality) -> None:
    p, before = likelihood(modality, raw(modality, 3), SCALE), torch.get_rng_state()
    one, same, other = (p.rsample((2,), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@every_modality
def test_a_raw_output_is_read_in_any_layout_of_memory(modality: Modality) -> None:
    output = raw(modality, 3, 2)
    turned = output.movedim(-1, 0).contiguous().movedim(0, -1)
    value = likelihood(modality, output, SCALE).rsample((), seeded())
    ours, theirs = (likelihood(modality, o, SCALE).log_prob(value) for o in (output, turned))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["normal", "laplace"])
def test_a_learned_scale_gets_its_gradient(name: str) -> None:
    modality = Modality("x", "vector", (5,), name)
    output, scale = raw(modality, 7), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    value = raw(modality, 7, seed=1)
    likelihood(modality, output, scale).log_prob(value).sum().backward()
    residual = (value - output).abs() / 0.4
    slope = (residual**2 if name == "normal" else residual) - 1  # d log p / d log scale
    torch.testing.assert_close(scale.grad, slope.sum() / 0.4)
    given, learned = (likelihood(modality, output, s).log_prob(value) for s in (0.4, scale))
    torch.testing.assert_close(given, learned.detach())


@pytest.mark.parametrize("name", SCALED)
def test_a_scale_of_each_coordinate_is_the_scale_of_that_coordinate(name: str) -> None:
    modality, scale = Modality("x", "vector", (3,), name), torch.tensor([0.2, 0.5, 1.5], dtype=torch.float64)
    output = raw(modality, 4, 1)  # one draw of the code for each of 4 rows
    value = likelihood(modality, raw(modality, 4, seed=1), 0.5).rsample((), seeded()).unsqueeze(1)
    p = likelihood(modality, output, scale)
    alone = [likelihood(modality, output, s).elementwise_log_prob(value)[..., j] for j, s in enumerate(scale)]
    torch.testing.assert_close(p.elementwise_log_prob(value), torch.stack(alone, -1))
    torch.testing.assert_close(p.log_prob(value), torch.stack(alone, -1).sum(-1))
    means = [likelihood(modality, output, s).mean[..., j] for j, s in enumerate(scale)]
    torch.testing.assert_close(p.mean, torch.stack(means, -1))


@pytest.mark.parametrize(
    ("name", "normal"), [("hurdle_lognormal", Tensor.log), ("hurdle_softplus", lambda x: x.expm1().log())]
)
def test_zero_heavy_values_are_zero_or_positive_and_integrate_to_one(
    name: str, normal: Callable[[Tensor], Tensor]
) -> None:
    """Draws: shares of zeros, and mean and deviation of the normal variable of the others, against their parameters."""
    modality = Modality("x", "vector", (5,), name)
    output = raw(modality)
    loc, absence = numbers(modality, output)
    p = likelihood(modality, output, SCALE)
    grid = torch.linspace(-12, 12, 20001, dtype=torch.float64).unsqueeze(1).exp()  # (20001, 1)
    positive = torch.trapezoid(p.elementwise_log_prob(grid).exp(), grid.expand(-1, 5), dim=0)
    nothing = p.elementwise_log_prob(torch.zeros(5, dtype=torch.float64)).exp()
    torch.testing.assert_close(positive + nothing, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-6)
    expectation = torch.trapezoid(grid * p.elementwise_log_prob(grid).exp(), grid.expand(-1, 5), dim=0)
    torch.testing.assert_close(p.mean, expectation, rtol=1e-5, atol=0)
    assert (p.elementwise_log_prob(-torch.ones(5, dtype=torch.float64)) == -torch.inf).all()
    x = p.rsample((20000,), seeded())
    assert (((x == 0).double().mean(0) - absence.sigmoid()).abs() < 5 * 0.5 / 20000**0.5).all()
    for j in range(5):
        n = normal(x[x[:, j] > 0, j])
        assert abs(n.mean() - loc[j]) < 5 * SCALE / len(n) ** 0.5
        assert abs(n.std() - SCALE) < 5 * SCALE / (2 * len(n)) ** 0.5


def test_only_the_scale_of_scaled_likelihoods_matters() -> None:
    for modality in MODALITIES.values():
        output = raw(modality, 2)
        value = likelihood(modality, output, 1.0).rsample((), seeded())
        one, other = (likelihood(modality, output, scale).log_prob(value) for scale in (0.1, 2.0))
        assert torch.equal(one, other) == (modality.likelihood not in SCALED)


def test_what_is_no_class_is_impossible() -> None:
    modality = Modality("x", "vector", (2,), "categorical", classes=3)
    p = likelihood(modality, raw(modality), SCALE)
    values = torch.tensor([[0.0, 3.0], [-1.0, 2.0], [0.5, 1.0], [2.0, 2.0]], dtype=torch.float64)
    assert (p.log_prob(values) == -torch.inf).tolist() == [True, True, True, False]
    table = MODALITIES["table"]
    row = likelihood(table, raw(table), SCALE).rsample((), seeded())
    row[1] = 3  # the city is one of three, the job beside it one of five
    assert likelihood(table, raw(table), SCALE).log_prob(row) == -torch.inf


def test_raw_shapes() -> None:
    shapes = {name: raw_shape(modality) for name, modality in MODALITIES.items()}
    assert shapes == {
        "normal": (5,),
        "laplace": (2, 4, 3),
        "bernoulli": (1, 2, 3, 2),
        "classes": (20,),
        "tokens": (3, 6),
        "segments": (6, 4, 3),
        "counts": (10,),
        "reads": (6, 4, 3),
        "amounts": (10,),
        "logarithms": (4, 4, 3),
        "table": (2 * 2 + 3 + 5 + 2 + 1 + 2 + 3,),
    }


def test_admitted_values_are_in_the_support() -> None:
    counts = Modality("x", "vector", (2,), "negative_binomial", (0, 9))
    assert counts.to_support(torch.tensor([2.6, 11.2])).tolist() == [3, 9]
    mean = likelihood(MODALITIES["table"], raw(MODALITIES["table"], 5), SCALE).mean
    admitted = MODALITIES["table"].to_support(mean)
    whole = [c.likelihood in ("categorical", "negative_binomial", "zero_inflated_negative_binomial") for c in TABLE]
    assert torch.equal(admitted[:, whole], mean[:, whole].round())
    assert torch.equal(admitted[:, [not w for w in whole]], mean[:, [not w for w in whole]])


@pytest.mark.parametrize("modality", [MODALITIES["table"], MODALITIES["tokens"], MODALITIES["normal"]])
def test_descriptions_come_back(modality: Modality) -> None:
    described = modality.describe()
    assert Modality.from_description(modality.name, described) == modality
    assert ("columns" in described, "classes" in described) == (
        bool(modality.columns),
        modality.classes is not None,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("vector", (3,), "categorical"),
            "classes of modality a: found None, expected a whole number of at least 2",
        ),
        (("vector", (3,), "categorical", None, 1), "classes of modality a: found 1, expected a whole number"),
        (
            ("vector", (3,), "normal", None, 3),
            "classes of modality a: found 3, expected none for likelihood normal",
        ),
        (("table", (1,), "normal", None, None, TABLE[:1]), "found 'normal', expected columns for a table"),
        (("vector", (1,), "columns", None, None, TABLE[:1]), "found 'columns', expected another one"),
        (
            ("table", (2,), "columns", None, None, TABLE[:1]),
            "columns of modality a: found 1, expected 2 for kind table",
        ),
        (("vector", (2,), "normal", None, None, TABLE[:2]), "columns of modality a: found 2, expected 0"),
        (
            ("table", (2,), "columns", None, None, (TABLE[0], TABLE[0])),
            "found 'height' twice, expected different",
        ),
        (
            ("volume", (1, 4, 4), "normal"),
            r"shape of modality a: found \[1, 4, 4\], expected 4 positive sizes",
        ),
        (("sequence", (4, 4), "normal"), "expected 1 positive size for kind sequence"),
    ],
)
def test_impossible_modalities_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Modality("a", *arguments)


def test_impossible_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="likelihood of column age: found 'cauchy', expected one of normal"):
        Column("age", "cauchy")
    with pytest.raises(ValueError, match="classes of column age: found None, expected a whole number"):
        Column("age", "categorical")


def test_a_mixture_of_two_counts_has_the_density_and_the_moments_of_its_parts() -> None:
    """π NB₁ + (1 − π) NB₂ against torch, and draws against its mean and variance."""
    numbers_of = torch.tensor([[[0.2, 1.0], [0.5, 0.1]], [[2.5, 1.5], [0.5, 0.1]]], dtype=torch.float64)
    logits = torch.tensor([0.4, -1.0], dtype=torch.float64)
    p = NegativeBinomialMixture(*(NegativeBinomial(mean, theta, 1) for mean, theta in numbers_of), logits)
    parts = [expected("negative_binomial", part) for part in numbers_of]
    share = logits.sigmoid()
    value = torch.arange(400.0, dtype=torch.float64)[:, None].expand(-1, 2)
    density = share * parts[0].log_prob(value).exp() + (1 - share) * parts[1].log_prob(value).exp()
    torch.testing.assert_close(p.elementwise_log_prob(value).exp(), density)
    torch.testing.assert_close(density.sum(0), torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(p.mean, (density * value).sum(0), atol=1e-4, rtol=0)
    draws, variance = p.rsample((20000,), seeded(1)), (density * value.square()).sum(0) - p.mean.square()
    assert ((draws.mean(0) - p.mean).abs() < 5 * (variance / 20000).sqrt()).all()
    torch.testing.assert_close(draws.var(0), variance, atol=0, rtol=0.1)
