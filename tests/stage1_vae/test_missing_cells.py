"""Missing cells in an observed modality: the contract of every model, likelihood and input layer."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support.equations import seeded
from torch import Tensor

from postprior.stage1_vae.likelihoods import LIKELIHOODS, likelihood, observed_log_prob, raw_shape
from postprior.stage1_vae.modalities import Batch, Column, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.networks.inputs import input_layer

COLUMNS = (
    Column("height", "normal"),
    Column("city", "categorical", 3),
    Column("visits", "negative_binomial"),
    Column("smoker", "bernoulli"),
    Column("weight", "laplace"),
    Column("reads", "zero_inflated_negative_binomial"),
)
TABLE = Modality("table", "table", (6,), "columns", columns=COLUMNS, partial=True)
KINDS = (
    TABLE,
    Modality("normal", "vector", (5,), "normal", partial=True),
    Modality("laplace", "image", (2, 4, 4), "laplace", partial=True),
    Modality("bernoulli", "volume", (1, 4, 4, 4), "bernoulli", partial=True),
    Modality("tokens", "sequence", (6,), "categorical", classes=3, partial=True),
    Modality("counts", "vector", (5,), "negative_binomial", partial=True),
    Modality("reads", "vector", (5,), "zero_inflated_negative_binomial", partial=True),
    Modality("amounts", "vector", (5,), "hurdle_lognormal", partial=True),
    Modality("logarithms", "vector", (5,), "hurdle_softplus", partial=True),
)
MODALITIES = (TABLE, Modality("image", "image", (1, 8, 8), "normal", partial=True), KINDS[1])
ROWS = 12
every_model = pytest.mark.parametrize("name", MODELS)
every_kind = pytest.mark.parametrize("modality", KINDS, ids=lambda m: m.name)


def drawn(modality: Modality, rows: int = ROWS, seed: int = 0) -> Tensor:
    """Values drawn from the likelihood of random raw output."""
    output = torch.randn(rows, *raw_shape(modality), generator=seeded(seed), dtype=torch.float64)
    return likelihood(modality, output, 0.3).rsample((), seeded(seed + 1))


def seen(modality: Modality, rows: int = ROWS) -> Tensor:
    return torch.rand(rows, *modality.shape, generator=seeded(3)) < 0.6


def build(name: str, partial: bool = True) -> MultimodalVAE:
    modalities = [replace(m, partial=partial) for m in MODALITIES]
    return MODELS[name](modalities, latent=4, width=4, seed=1).double()


def batch(fill: int = 0, holes: bool = True) -> Batch:
    """Rows that lack cells and, with `holes`, modalities; missing cells hold values drawn with the seed `fill`."""
    cells = {m.name: seen(m) for m in MODALITIES}
    data = {m.name: drawn(m).where(cells[m.name], drawn(m, seed=10 + fill)) for m in MODALITIES}
    observed = torch.ones(ROWS, len(MODALITIES), dtype=torch.bool)
    if holes:
        observed[torch.arange(ROWS), torch.arange(ROWS) % 3] = False
    return Batch(data, observed, cells)


def losses(model: MultimodalVAE, rows: Batch) -> list[Tensor]:
    return [phase.objective(rows, seeded(), 1.0).per_sample for phase in model.phases()]


@every_model
@pytest.mark.parametrize("partial", [True, False])
def test_what_a_missing_cell_holds_means_nothing(name: str, partial: bool) -> None:
    """Also to a model that was trained on complete rows and does not read which cells are there."""
    model = build(name, partial)
    one, other = (batch(fill, model.incomplete) for fill in (0, 1))
    for ours, theirs in zip(losses(model, one), losses(model, other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    ours, theirs = (model.encode(rows, seeded()).mean for rows in (one, other))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@every_model
def test_cells_that_are_all_there_are_no_cells(name: str) -> None:
    model, rows = build(name), batch(holes=False)
    full = Batch(rows.data, rows.observed, {n: torch.ones_like(x).bool() for n, x in rows.cells.items()})
    none = Batch(rows.data, rows.observed)
    for ours, theirs in zip(losses(model, full), losses(model, none), strict=True):
        torch.testing.assert_close(ours, theirs)
    for changed, theirs in zip(losses(model, rows), losses(model, none), strict=True):
        assert not torch.isclose(changed, theirs).all()


@every_model
def test_gradients_are_finite_and_the_state_rebuilds_the_model(name: str) -> None:
    model = build(name)
    for phase in model.phases():
        phase.objective(batch(holes=model.incomplete), seeded(), 1.0).per_sample.mean().backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)
    again = type(model).from_state(*model.state())
    assert all(m.partial for m in again.modalities)


@every_kind
def test_the_density_is_that_of_the_cells_that_are_there(modality: Modality) -> None:
    """The density of a cell is found by exchanging that cell alone."""
    output = torch.randn(ROWS, *raw_shape(modality), generator=seeded(7), dtype=torch.float64)
    p, x, other, there = (
        likelihood(modality, output, 0.3),
        drawn(modality),
        drawn(modality, seed=5),
        seen(modality),
    )
    torch.testing.assert_close(p.elementwise_log_prob(x).flatten(1).sum(1), p.log_prob(x))
    assert p.elementwise_log_prob(x).shape == x.shape
    torch.testing.assert_close(
        observed_log_prob(p, x, there) - observed_log_prob(p, other, there),
        p.log_prob(x) - p.log_prob(other.where(there, x)),
    )
    torch.testing.assert_close(observed_log_prob(p, x, torch.zeros_like(there)), x.new_zeros(ROWS))
    torch.testing.assert_close(observed_log_prob(p, x, None), observed_log_prob(p, x, torch.ones_like(there)))


def test_every_likelihood_is_tried() -> None:
    assert {m.likelihood for m in KINDS} == set(LIKELIHOODS)


@every_kind
def test_encoders_read_zero_and_that_a_cell_is_missing(modality: Modality) -> None:
    x, there = drawn(modality), seen(modality)
    prepared, whole = input_layer(modality), input_layer(replace(modality, partial=False))
    rows = Batch({modality.name: x}, torch.ones(ROWS, 1).bool(), {modality.name: there})
    read, plain = prepared(rows.encoder_input(modality)), whole(x)
    assert read.shape == (ROWS, *prepared.shape)
    values, known = read.split([plain.shape[1], read.shape[1] - plain.shape[1]], 1)
    torch.testing.assert_close(known.reshape(ROWS, -1), there.reshape(ROWS, -1).to(x))
    full = prepared(x)
    torch.testing.assert_close(full[:, : plain.shape[1]], plain)
    assert bool(((values == plain) | (values == 0)).all())
    nothing = Batch({modality.name: x}, rows.observed, {modality.name: torch.zeros_like(there)})
    assert not bool(prepared(nothing.encoder_input(modality)).any())
    assert torch.equal(rows.encoder_input(replace(modality, partial=False)), x.masked_fill(~there, 0))


@pytest.mark.parametrize(
    "cells",
    [lambda x: {"table": x["table"][:3] > 0}, lambda x: {"other": x["table"] > 0}],
    ids=["shape", "name"],
)
def test_cells_that_do_not_fit_are_refused(cells: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    rows = batch()
    with pytest.raises(ValueError, match="cells of"):
        Batch(rows.data, rows.observed, cells(rows.data))


@every_kind
def test_a_reader_takes_no_rows_at_all(modality: Modality) -> None:
    read = input_layer(modality)
    assert read(torch.zeros(0, *modality.shape)).shape == (0, *read.shape)


@pytest.mark.usefixtures("short_chains")
@every_model
def test_rows_that_all_lack_one_partial_modality_are_encoded(name: str) -> None:
    rows = batch(holes=False)
    rows.observed[:, 1] = False
    assert bool(build(name).encode(rows, seeded()).mean.isfinite().all())
