"""Cells drawn anew: they follow the rest of their row, where held-out rows show that this is better."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.equations import seeded

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.held_out import Hidden, Losses
from postprior.pipelines.generation.pseudo_gibbs import CELLS, WIDEST, CellForests
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes

COLUMNS = (Column("rate", "normal"), Column("plan", "categorical", 3))
TABLES = (
    Modality("one", "table", (2,), "columns", columns=COLUMNS, partial=True),
    Modality("other", "table", (1,), "columns", columns=(Column("twice", "normal"),), partial=True),
)
NOISE = 0.2
NOTHING = np.zeros((400, 0))  # there is no vector


def rows(n: int, seed: int) -> Dataset:
    """Rows in which plan is the third of rate, and twice is 2 · rate + noise; a label is the sign of the noise."""
    rng = np.random.default_rng(seed)
    rate, noise = rng.normal(size=n), rng.normal(size=n)
    plan = np.digitize(rate, [-0.43, 0.43])
    data = {"one": np.stack([rate, plan], 1), "other": (2 * rate + NOISE * noise)[:, None]}
    return Dataset(
        TABLES, {name: x.astype(np.float32) for name, x in data.items()}, labels=(noise > 0).astype(np.int64)
    )


@pytest.fixture(scope="module")
def untrained() -> Generator:
    """A generator whose decoders know nothing of the rows."""
    model = MODELS["mvae"](TABLES, latent=2).eval()
    codes = Codes.empirical(model.layout, torch.randn(60, 2, generator=seeded()))
    return Generator(model, DENSITIES["gaussian"]().fit(codes, generator=seeded()), {})


def without(data: Dataset, share: float) -> tuple[Dataset, NDArray[np.bool_]]:
    """Hide `other` and, in half of the rows, plan as well."""
    rng = np.random.default_rng(0)
    cells = np.ones((len(data), 2), bool)
    cells[:, 1] = rng.random(len(data)) > share
    return replace(data, mask=np.tile([True, False], (len(data), 1)), cells={"one": cells}), ~cells[:, 1]


def test_cells_are_drawn_from_their_distribution_given_the_rest_of_the_row(untrained: Generator) -> None:
    train, test = rows(1000, 0), rows(400, 1)
    forests = CellForests.fit(untrained.model, train, np.asarray(train.labels), 0)
    assert set(forests.forests) == {("one", 0), ("one", 1), ("other", 0)}
    assert forests.names == [("one", "rate"), ("one", "plan"), ("other", "twice")]
    start = {"one": test.data["one"].copy(), "other": np.full((400, 1), 9, np.float32)}
    start["one"][:, 1] = 2 - start["one"][:, 1]
    free = {"one": np.tile([False, True], (400, 1)), "other": np.ones((400, 1), bool)}
    drawn, again = (
        forests.swept(start, free, np.asarray(test.labels), NOTHING, np.random.default_rng(5)) for _ in range(2)
    )
    assert all(np.array_equal(drawn[name], again[name]) for name in drawn)
    assert np.array_equal(drawn["one"][:, 0], test.data["one"][:, 0])
    assert np.mean(drawn["one"][:, 1] == test.data["one"][:, 1]) > 0.85
    assert np.isin(drawn["other"], train.data["other"]).all()
    residual = drawn["other"][:, 0] - 2 * test.data["one"][:, 0]
    middle = np.abs(test.data["one"][:, 0]) < 1
    assert NOISE < residual[middle].std() < 3 * NOISE  # leaves are not narrow; all rows have 2.0
    sign = np.where(test.labels, 1, -1)
    assert 0.3 * NOISE < (residual * sign)[middle].mean() < NOISE  # E|noise| = 0.8 NOISE, by the label
    unlabelled = forests.swept(start, free, np.full(400, -1), NOTHING, np.random.default_rng(5))
    assert np.isfinite(unlabelled["other"]).all()
    kept = forests.only([("one", 1)]).swept(start, free, np.asarray(test.labels), NOTHING, np.random.default_rng(5))
    assert (kept["other"] == 9).all()


def test_training_rows_may_lack_cells_and_tables(untrained: Generator) -> None:
    """What they lack is no target; columns that too few rows have keep the draws of the decoders."""
    train, hidden = without(rows(300, 0), 0.5)
    train = replace(train, mask=np.arange(600).reshape(300, 2) % 2 < 1)
    train.data["one"][hidden, 1] = 7
    forests = CellForests.fit(untrained.model, train, None, 0)
    assert set(forests.forests) == {("one", 0), ("one", 1)}
    values = forests.forests["one", 1].values
    assert len(values) == (~hidden).sum()
    assert values.max() <= 2


def test_held_out_rows_choose_what_is_drawn_anew(untrained: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoders know nothing, so all hidden columns are; observed values and the same seed keep their bytes."""
    monkeypatch.setattr("postprior.pipelines.generation.posterior.STEPS", 2)
    monkeypatch.setattr("postprior.pipelines.generation.calibration.REPEATED", 100)
    train, held_out, test = rows(600, 0), rows(100, 1), rows(100, 2)
    lacking, hidden = without(test, 0.5)
    calibration = untrained.calibration(held_out, lacking, 0, untrained.cell_forests(train, lacking, 0))
    assert calibration.drawn_anew == {"one": ["plan"], "other": ["twice"]}
    assert calibration.factors["other"].tolist() == [1]
    plain = untrained.impute(lacking, 5, 0, "draws", held_out)
    drawn, again = (untrained.impute(lacking, 5, 0, "draws", held_out, train) for _ in range(2))
    errors = [np.mean([np.abs(x.data["other"] - test.data["other"]).mean() for x in each]) for each in (plain, drawn)]
    assert errors[1] < 0.3 * errors[0]
    for one, other in zip(drawn, again, strict=True):
        assert all(np.array_equal(one.data[name], other.data[name]) for name in one.data)
        assert np.array_equal(one.data["one"][:, 0], test.data["one"][:, 0])
        assert np.array_equal(one.data["one"][~hidden], test.data["one"][~hidden])
        assert np.mean(one.data["one"][hidden, 1] == test.data["one"][hidden, 1]) > 0.7
    assert untrained.calibration(held_out, lacking, 0).forests is None


def test_losses_are_sums_of_crps(untrained: Generator) -> None:
    """One hidden number y with draws 0 and 2: the CRPS is (|y| + |2 − y|) / 2 − 1; other cells add nothing."""
    held_out = rows(50, 0)
    lacking = replace(held_out, mask=np.tile([True, False], (50, 1)))
    hiding = Hidden(untrained.model, untrained.density, held_out, lacking, 0, None)
    losses, y = Losses(TABLES), held_out.data["other"].astype(np.float64)
    draws = np.stack([np.zeros_like(y), np.full_like(y, 2)])
    losses.add({"other": (np.arange(50), draws)}, hiding)
    assert losses.sums["other"][0] == pytest.approx(((np.abs(y) + np.abs(2 - y)) / 2 - 1).sum())
    assert losses.sums["one"].tolist() == [0, 0]


def test_wide_tables_keep_the_draws_of_the_decoders(untrained: Generator) -> None:
    assert CELLS // WIDEST >= 500  # training rows of the widest tables
    wide = Modality(
        "w", "table", (WIDEST + 1,), "columns", columns=tuple(Column(f"x{j}", "normal") for j in range(WIDEST + 1))
    )
    model = MODELS["mvae"]([wide, TABLES[1]], latent=2)
    data = {"w": np.zeros((60, WIDEST + 1), np.float32), "other": np.zeros((60, 1), np.float32)}
    assert not CellForests.fit(model, Dataset((wide, TABLES[1]), data), None, 0).forests


WIDTH = 6
BESIDE = (Modality("vector", "vector", (WIDTH,), "normal"), TABLES[0])


def beside_vectors(n: int, seed: int) -> Dataset:
    """Rows in which rate is the mean of a vector with one factor, plus noise, and plan is the third of rate."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=n)
    vector = factor[:, None] + NOISE * rng.normal(size=(n, WIDTH))
    rate = vector.mean(1) + NOISE * rng.normal(size=n)
    data = {"vector": vector, "one": np.stack([rate, np.digitize(rate, [-0.43, 0.43])], 1)}
    return Dataset(BESIDE, {name: x.astype(np.float32) for name, x in data.items()})


def test_cells_are_drawn_given_the_vectors_beside_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that is linear in a vector is matched by a regression; missing vectors leave the cells their spread."""
    monkeypatch.setattr("postprior.pipelines.generation.calibration.REPEATED", 100)
    model = MODELS["mvae"](BESIDE, latent=2).eval()
    codes = Codes.empirical(model.layout, torch.randn(60, 2, generator=seeded()))
    generator = Generator(model, DENSITIES["gaussian"]().fit(codes, generator=seeded()), {})
    train, held_out, test = beside_vectors(500, 0), beside_vectors(100, 1), beside_vectors(150, 2)
    lacking = replace(test, mask=np.tile([True, False], (150, 1)))
    conditionals = generator.cell_forests(train, lacking, 0)
    assert conditionals is not None
    kinds = {cell: type(each).__name__ for cell, each in conditionals.forests.items()}
    assert kinds == {("one", 0): "Matching", ("one", 1): "Forest"}
    assert generator.calibration(held_out, lacking, 0, conditionals).drawn_anew == {"one": ["rate", "plan"]}
    drawn = generator.impute(lacking, 5, 0, "draws", held_out, train)
    assert all(np.array_equal(each.data["vector"], test.data["vector"]) for each in drawn)
    rates = np.stack([each.data["one"][:, 0] for each in drawn])
    residual = rates - test.data["vector"].mean(1)
    assert 0.8 * NOISE < residual[:, np.abs(test.data["one"][:, 0]) < 1].std() < 1.3 * NOISE
    assert (
        np.mean([each.data["one"][:, 1] == np.digitize(each.data["one"][:, 0], [-0.43, 0.43]) for each in drawn]) > 0.9
    )
