"""Missing values of synthetic rows follow the law of the training rows, and rules that hold in all of them."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.generator import ROWS, Generator
from postprior.pipelines.generation.missingness.model import RARE, Missingness
from postprior.pipelines.generation.missingness.units import Units
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Block, Codes

COLUMNS = (Column("smokes", "categorical", 3), Column("years", "normal"), Column("weeks", "normal"))
RECORD, LAB = Modality("record", "table", (3,), "columns", columns=COLUMNS), Modality("lab", "vector", (6,), "normal")
NAMES = ("alive", "dead")


def patients(rows: int, seed: int, scattered: float = 0.0) -> tuple[Dataset, torch.Tensor]:
    """Rows and their codes (N, 4). Label and code decide how often `lab` is missing; some cells obey rules.

    `years` is missing exactly where `smokes` is 0, and `weeks` where it is 1; where it is 2, `weeks` lacks 30 %.
    `scattered` is the share of the cells of `lab` that are missing at random.
    """
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(size=(rows, 4)).astype(np.float32), (rng.random(rows) < 0.3).astype(np.int64)
    smokes = (z[:, 1] + rng.normal(size=rows) > 0).astype(int) + (rng.random(rows) < 0.3)
    mask = np.ones((rows, 2), bool)
    mask[:, 1] = rng.random(rows) > 1 / (1 + np.exp(2 - z[:, 0] - 1.5 * labels))
    record = np.ones((rows, 3), bool)
    record[:, 1] = smokes != 0
    record[:, 2] = (smokes == 0) | (smokes == 2) & (rng.random(rows) > 0.3)
    cells = {"record": record, "lab": (rng.random((rows, 6)) >= scattered) & mask[:, 1:]}
    values = {
        "record": np.stack([smokes, z[:, 2], z[:, 3]], 1).astype(np.float32),
        "lab": np.ones((rows, 6), np.float32),
    }
    return Dataset((RECORD, LAB), values, mask, cells, labels, label_names=NAMES), torch.from_numpy(z)


def codes_of(rows: Dataset, z: torch.Tensor) -> Codes:
    labels = None if rows.labels is None else torch.from_numpy(np.array(rows.labels))
    return Codes.empirical((Block("z", z.shape[1:]),), z, labels, rows.label_names)


def learned(rows: Dataset, z: torch.Tensor) -> Missingness | None:
    return Missingness.fit(rows, codes_of(rows, z), rows.labels is not None, torch.Generator().manual_seed(0))


def drawn(model: Missingness | None, rows: Dataset, z: torch.Tensor, seed: int = 1) -> Dataset:
    assert model is not None
    complete = replace(rows, mask=None, cells={})
    return model.applied(complete, z, torch.Generator().manual_seed(seed))


@cache
def example(scattered: float) -> tuple[Dataset, Missingness | None, Dataset, Dataset]:
    """Training rows, what was learned from them, other rows of the same law, and these with drawn missing values."""
    train, z = patients(4000, 0, scattered)
    others, z_others = patients(12_000, 1, scattered)
    model = learned(train, z)
    return train, model, others, drawn(model, others, z_others)


def agree(ours: np.ndarray, truth: np.ndarray, train: int, rows: int) -> None:
    """Shares are equal up to four standard errors of the training rows and of the drawn rows."""
    p = truth.mean()
    assert abs(ours.mean() - p) < 4 * np.sqrt(p * (1 - p) * (1 / train + 2 / rows)) + 1e-9


@pytest.mark.parametrize("scattered", [0.0, 0.1], ids=["few patterns", "patterns that do not repeat"])
def test_rates_by_label_and_code_are_those_of_the_data(scattered: float) -> None:
    _, _, others, made = example(scattered)
    z = patients(12_000, 1, scattered)[1].numpy()
    for part in (others.labels == 0, others.labels == 1, z[:, 0] > 0.5, z[:, 0] < -0.5):
        share = part.mean()
        agree(made.observed[part, 1], others.observed[part, 1], int(4000 * share), int(part.sum()))
    assert made.cells["lab"][~made.observed[:, 1]].sum() == 0
    have = made.observed[:, 1]
    for j in range(6):
        agree(made.cells["lab"][have, j], others.cells["lab"][others.observed[:, 1], j], 3000, int(have.sum()))


def test_values_that_a_level_decides_about_are_missing_exactly_there() -> None:
    train, model, others, made = example(0.1)
    smokes, cells = others.data["record"][:, 0], made.cells["record"]
    assert (cells[:, 1] == (smokes != 0)).all()
    assert cells[smokes == 0, 2].all()
    assert not cells[smokes == 1, 2].any()
    agree(cells[smokes == 2, 2], others.cells["record"][smokes == 2, 2], 600, int((smokes == 2).sum()))
    assert cells[:, 0].all()
    assert model is not None
    assert model.sentences(train) == [
        "years: missing where smokes is 0, never missing where smokes is 1, 2",
        "weeks: missing where smokes is 1, never missing where smokes is 0",
    ]


def test_absence_at_random_is_no_rule_and_a_label_can_decide() -> None:
    rows, z = patients(2000, 0)
    rng = np.random.default_rng(0)
    unrelated = replace(rows, cells={"record": rng.random((2000, 3)) < 0.9})
    model = learned(unrelated, z)
    assert model is not None
    assert model.rules == ()
    decided = replace(rows, cells={}, mask=np.stack([np.ones(2000, bool), rows.labels == 1], 1))
    model = learned(decided, z)
    made = drawn(model, decided, z)
    assert model is not None
    assert model.sentences(rows) == ["lab: missing where label is alive, never missing where label is dead"]
    assert np.array_equal(made.mask, decided.mask)
    assert made.mask is not None
    assert np.array_equal(model.allows(made, np.arange(2)), np.stack([~made.mask[:, 1], made.mask[:, 1]], 1))


def test_probabilities_of_patterns_average_to_their_shares() -> None:
    """Over the training rows, whatever the penalty of the slopes is."""
    rows, z = patients(900, 3)
    model = learned(rows, z)
    assert model is not None
    units, absent = Units.of(rows, np.arange(len(rows)))
    levels = {("record", 0): rows.data["record"][:, 0].astype(int)}
    x = model.predictors(z, rows.labels, rows.data, levels)
    mean = (model.classes[0] + x @ model.classes[1:]).softmax(1).mean(0)
    absent[:, 2:][(rows.data["record"][:, [0]] < 2).repeat(absent.shape[1] - 2, 1)] = False  # as the rules decide
    absent[:, units.cells["record"][1]] = False
    shares = [(absent == pattern).all(1).mean() for pattern in model.patterns.numpy()]
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_allclose(mean, shares, atol=1e-5)


def test_patterns_of_few_rows_are_not_stored_and_cells_depend_on_one_another() -> None:
    rng = np.random.default_rng(0)
    cells = rng.random((3000, 12)) < 0.85
    cells[:, 1] = cells[:, 0] | (rng.random(3000) < 0.1)  # missing almost only where the first is
    vector = Modality("panel", "vector", (12,), "normal")
    rows = Dataset(
        (RECORD, vector), {"record": np.ones((3000, 3)), "panel": np.ones((3000, 12))}, cells={"panel": cells}
    )
    z = torch.from_numpy(rng.normal(size=(3000, 3))).float()
    model = learned(rows, z)
    assert model is not None
    stored = model.units.observed(model.patterns.numpy())[1]["panel"]
    assert len(stored) > 10
    assert min((cells == pattern).all(1).sum() for pattern in stored) >= RARE
    made = drawn(model, rows, z).cells["panel"]
    np.testing.assert_allclose(made.mean(0), cells.mean(0), atol=4 * np.sqrt(2 * 0.13 / 3000))
    for first, second in ((0, 1), (2, 3)):
        both = [(~x[:, first] & ~x[:, second]).mean() for x in (made, cells)]
        assert abs(both[0] - both[1]) < 4 * np.sqrt(2 * max(both) / 3000)
    lone = replace(rows, cells={"panel": np.ones((3000, 12), bool)}, mask=np.ones((3000, 2), bool))
    lone.mask[: RARE - 1, 0] = False
    assert learned(lone, z) is None


def test_cells_that_are_missing_together_stay_together_and_every_row_has_a_modality() -> None:
    rng = np.random.default_rng(0)
    kinds = tuple(Modality(name, "image", (1, 8, 8), "normal") for name in "abc")
    mask = rng.random((2000, 3)) < 0.2
    mask[~mask.any(1), 2] = True
    frame = np.ones((2000, 1, 8, 8), bool)
    frame[rng.random(2000) < 0.5, :, :2] = False
    data = {m.name: np.zeros((2000, 1, 8, 8), np.float32) for m in kinds}
    rows = Dataset(kinds, data, mask=mask, cells={"a": frame & mask[:, :1, None, None]})
    z = torch.zeros(2000, 2)
    made = drawn(learned(rows, z), rows, z)
    assert made.observed.any(1).all()
    seen = made.cells["a"][made.observed[:, 0]].reshape(-1, 64)
    assert {tuple(np.unique(part, axis=0).ravel()) for part in (seen[:, 16:],)} == {(True,) * 48}
    assert (seen[:, :16].all(1) | ~seen[:, :16].any(1)).all()
    patterns = [np.unique(x, axis=0, return_counts=True) for x in (made.mask, mask)]
    assert np.array_equal(patterns[0][0], patterns[1][0])
    assert np.abs(patterns[0][1] - patterns[1][1]).max() < 4 * np.sqrt(2 * patterns[1][1].max())


def test_without_a_shared_code_the_code_of_a_modality_that_all_rows_have_decides() -> None:
    layout = (Block("w_record", (4,), "record"), Block("w_lab", (2,), "lab"))
    noise = torch.Generator().manual_seed(0)

    def own_codes(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z, torch.randn(len(z), 2, generator=noise)], 1)

    train, z = patients(4000, 0)
    labels = torch.from_numpy(np.array(train.labels))
    codes = Codes.empirical(layout, own_codes(z), labels, train.label_names)
    codes = replace(codes, observed=torch.from_numpy(train.observed))
    model = Missingness.fit(train, codes, True, noise)
    assert model is not None
    assert model.predictors.shared.tolist() == [True] * 4 + [False] * 2
    others, z_others = patients(12_000, 1)
    lacks = ~drawn(model, others, own_codes(z_others)).observed[:, 1]
    for part in (z_others[:, 0] < 0, z_others[:, 0] >= 0):
        agree(lacks[part.numpy()], ~others.observed[part.numpy(), 1], 2000, 6000)


@pytest.fixture(scope="module")
def generator() -> Generator:
    train, z = patients(600, 0)
    model = MODELS["mvtcae"](
        [replace(m, partial=m.name in train.cells) for m in train.modalities], latent=4, width=2, seed=0
    )
    density = DENSITIES["gmm"](components=[1], passes=5).fit(codes_of(train, z))
    return Generator(model, density, {}, missingness=learned(train, z))


def test_values_are_the_same_with_and_without_those_that_are_missing(generator: Generator) -> None:
    made, complete = (generator.sample(ROWS + 40, seed=2, complete=flag) for flag in (False, True))
    assert complete.mask is None
    assert not complete.cells
    assert not np.array_equal(made.observed, complete.observed)
    for name, values in made.data.items():
        missing = made.missing(name)
        assert np.array_equal(values[~missing], complete.data[name][~missing])
        assert not values[missing].any()  # the fill value, not what was decoded
    assert np.array_equal(made.labels, complete.labels)
    short = generator.sample(30, seed=2)
    assert all(np.array_equal(array, made.arrays[name][:30]) for name, array in short.arrays.items())
    assert made.provenance["complete"] is False


def test_what_is_learned_is_restored_and_damage_is_refused(generator: Generator, tmp_path: Path) -> None:
    assert generator.missingness is not None
    arrays, about = generator.missingness.state()
    z, rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), patients(50, 5)[0]
    again = Missingness.from_state(arrays, about, generator.model.modalities)
    assert drawn(again, rows, z).mask is not None
    for name, array in drawn(generator.missingness, rows, z).arrays.items():
        assert np.array_equal(array, drawn(again, rows, z).arrays[name])
    for name in arrays.keys() - {"missingness.patterns"}:  # the rest would be one rare pattern
        with pytest.raises((ValueError, LookupError)):
            Missingness.from_state({**arrays, name: arrays[name][:-1]}, about, generator.model.modalities)
    for changed in (
        {"labels": 10**12},
        {"rules": [{**about["rules"][0], "column": ["record", 9]}]},
        {"columns": [["x", 0]]},
    ):
        with pytest.raises((ValueError, LookupError)):
            Missingness.from_state(arrays, {**about, **changed}, generator.model.modalities)
