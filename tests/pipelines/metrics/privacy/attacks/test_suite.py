"""All attacks on whole data sets: copies are found, fresh samples are not, and what generalises is no leak."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale
from postprior.pipelines.metrics.privacy.attacks.attack import Outcome, Outcomes, leaking_attacks
from postprior.pipelines.metrics.privacy.attacks.attribute_inference import FEWEST, TOLERANCE
from postprior.pipelines.metrics.privacy.attacks.attributes import LABEL, Attributes
from postprior.pipelines.metrics.privacy.attacks.suite import NAMES, attack_people
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.modalities import Column, Modality

NUMBERS = tuple(Column(f"x{i}", "normal") for i in range(3))
VISIT = (
    Column("group", "categorical", 3),
    Column("count", "normal"),
    Column("yes", "bernoulli"),
    Column("y", "normal"),
)
MODALITIES = (
    Modality("demo", "table", (3,), "columns", columns=NUMBERS, partial=True),
    Modality("visit", "table", (4,), "columns", columns=VISIT, partial=True),
)


def people(rows: int, seed: int, holes: float = 0.0) -> Dataset:
    """Rows of one distribution in two tables: numbers, classes and whole numbers, with holes."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=rows)
    numbers = factor[:, None] + rng.normal(size=(rows, 3))
    visit = [rng.integers(0, 3, rows), np.rint(2 * factor), factor > 0, factor + 0.3 * rng.normal(size=rows)]
    data: dict[str, NDArray[Any]] = {"demo": numbers.astype(np.float32), "visit": np.stack(visit, 1).astype(np.float32)}
    cells = {name: rng.random(values.shape) >= holes for name, values in data.items()} if holes else {}
    return Dataset(MODALITIES, data, cells=cells)


def made(outcomes: Outcomes, attack: str) -> Outcome:
    outcome = outcomes[attack]
    assert isinstance(outcome, Outcome), outcome
    return outcome


@pytest.mark.parametrize("holes", [0.0, 0.1])
def test_copies_of_the_training_rows_have_a_risk_near_one(holes: float) -> None:
    train = people(300, 0, holes)
    outcomes = attack_people(train, people(200, 1, holes), train, (), 300, 0)
    for attack in NAMES:
        outcome = made(outcomes, attack)
        risk, low, high = outcome.risk()
        assert low <= risk <= high
        if not holes:  # a copy of a row without holes is at distance 0, and its unique values isolate the row itself
            assert outcome.main.share >= 0.99
            assert risk > 0.9
            assert high == pytest.approx(1, abs=0.01)
    assert leaking_attacks(outcomes, 0.05) == [*NAMES]


def test_fresh_rows_of_the_same_distribution_have_no_risk_as_often_as_the_level_says() -> None:
    seeds = 40
    missed = dict.fromkeys(NAMES, 0)
    for seed in range(seeds):
        train, held_out, fresh = (people(rows, 10 * seed + i, 0.05) for i, rows in enumerate((150, 100, 150)))
        outcomes = attack_people(train, held_out, fresh, (), 100, seed)
        for attack in NAMES:
            _, low, high = made(outcomes, attack).risk()
            missed[attack] += not low <= 0 <= high
    assert max(missed.values()) <= binom(seeds, 0.05).ppf(0.999), missed


def test_a_label_that_follows_from_the_attributes_is_inferred_of_everyone_and_no_leak() -> None:
    def labelled(rows: int, seed: int) -> Dataset:
        data = people(rows, seed)
        values = {**data.data, "demo": data.data["demo"].copy()}
        return replace(data, data=values, labels=(values["demo"][:, 0] > 0).astype(np.int64), label_names=("a", "b"))

    train, held_out, fresh = labelled(600, 0), labelled(600, 1), labelled(600, 2)
    outcome = made(attack_people(train, held_out, fresh, (), 600, 0), "attribute_inference")
    main, control = outcome.secrets["the label"]
    assert min(main.share, control.share) > 0.8
    risk, low, high = outcome.risks_of_secrets()["the label"]
    assert low < 0 < high
    assert abs(main.share - control.share) < 0.06
    assert abs(risk) < 0.5


def test_a_number_counts_as_inferred_within_a_share_of_its_spread() -> None:
    """The attribute x1 tells the row; x0 is off by a little more, or a little less, than the tolerance."""
    rng = np.random.default_rng(0)
    table = Modality("t", "table", (2,), "columns", columns=NUMBERS[:2])

    def rows(data: NDArray[np.floating[Any]]) -> Dataset:
        return Dataset((table,), {"t": data.astype(np.float32)})

    train = rng.uniform(size=(400, 2))
    spread = float(np.diff(np.quantile(train[:, 0].astype(np.float32), (0.01, 0.99)))[0])
    for factor, right in ((0.98, 1.0), (1.02, 0.0)):
        moved = train + np.array([factor * TOLERANCE * spread, 0])
        outcomes = attack_people(rows(train), rows(rng.uniform(size=(400, 2))), rows(moved), (), 400, 0)
        assert made(outcomes, "attribute_inference").secrets["x0"][0].share == right


def test_attributes_have_their_units_and_constant_ones_are_left_out() -> None:
    data = people(200, 0, 0.1)
    values = {**data.data, "demo": data.data["demo"].copy()}
    values["demo"][:, 1] = 7
    values["demo"][0, 2] = 1e6  # an outlier does not stretch the spread
    data = replace(data, data=values, labels=np.arange(200) % 2 - 1, label_names=("a", "b"))
    found = Attributes.fit(data, np.random.default_rng(0))
    assert found.names == ("x0 (demo)", "x2 (demo)", "group (visit)", "count (visit)", "yes (visit)", "y (visit)")
    read = found.read(data)
    np.testing.assert_array_equal(np.isnan(read[:, 0]), ~data.cells["demo"][:, 0])
    assert found.spread[1] < 10
    assert found.classes.tolist() == [False, False, True, False, True, False]
    both = Attributes.fit(replace(data, labels=np.arange(200) % 3 - 1), np.random.default_rng(0))
    assert both.places[-1] == LABEL
    assert np.isnan(both.read(replace(data, labels=np.arange(200) % 3 - 1))[0, -1])


def test_the_same_seed_gives_the_same_outcomes_and_the_global_generator_is_untouched() -> None:
    train, held_out, fresh = people(80, 0), people(80, 1), people(80, 2)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (attack_people(train, held_out, fresh, (), 60, 3) for _ in range(2))
    assert first == second
    assert first != attack_people(train, held_out, fresh, (), 60, 4)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_one_row_of_each_source_is_attacked() -> None:
    train, held_out = people(120, 0), people(120, 1)
    grouped = replace(train, groups=np.arange(120) // 3)
    outcomes = attack_people(grouped, held_out, train, (), 100, 0)
    assert made(outcomes, "linkability").attacks == 40


IMAGES = tuple(Modality(f"m{i}", "image", (1, 4, 4), "normal") for i in range(2))


def images(rows: int, seed: int, modalities: tuple[Modality, ...] = IMAGES) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset(modalities, {m.name: rng.normal(size=(rows, *m.shape)).astype(np.float32) for m in modalities})


def test_modalities_of_images_are_linked_and_their_pixels_are_no_attributes() -> None:
    train, held_out = images(100, 0), images(100, 1)
    train = replace(train, mask=np.ones((100, 2), bool) & (np.arange(100) >= 30)[:, None] | [True, False])
    scales = tuple(Scale.fit(train, modality) for modality in IMAGES)
    outcomes = attack_people(train, held_out, images(100, 2), scales, 100, 0)
    assert made(outcomes, "linkability").attacks == 70  # rows with both modalities
    copies = attack_people(train, held_out, train, scales, 100, 0)
    assert made(copies, "linkability").main.share == 1
    assert leaking_attacks(copies, 0.05) == ["linkability"]
    for attack in set(NAMES) - {"linkability"}:
        missing = outcomes[attack]
        assert isinstance(missing, Missing)
        assert "no tables or vectors" in missing.why


def test_what_cannot_be_attacked_has_a_reason() -> None:
    def reasons(outcomes: Outcomes) -> set[str]:
        assert all(isinstance(outcome, Missing) for outcome in outcomes.values())
        return {outcome.why for outcome in outcomes.values() if isinstance(outcome, Missing)}

    train, held_out = people(40, 0), people(40, 1)
    assert reasons(attack_people(train, held_out, train, (), 0, 0)) == {"privacy.attacks is 0"}
    few = attack_people(train, people(FEWEST - 1, 1), train, (), 40, 0)
    assert all("at least 20 training and held-out rows" in why for why in reasons(few))
    one = images(40, 0, IMAGES[:1])
    scales = (Scale.fit(one, IMAGES[0]),)
    assert len(reasons(attack_people(one, images(40, 1, IMAGES[:1]), one, scales, 40, 0))) == 2
    single = Modality("t", "table", (1,), "columns", columns=NUMBERS[:1])
    column = Dataset((single,), {"t": train.data["demo"][:, :1]})
    outcomes = attack_people(column, column, column, (), 40, 0)
    assert isinstance(outcomes["singling_out_univariate"], Outcome)
    assert sum(isinstance(outcome, Missing) for outcome in outcomes.values()) == 3
