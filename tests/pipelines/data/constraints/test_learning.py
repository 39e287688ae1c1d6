"""Constraints that a table was made with are found; independent columns have none, and a chance is none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from postprior.pipelines.data.constraints.cells import Cells, Ref, names_of
from postprior.pipelines.data.constraints.kinds import Constraint, described, from_description
from postprior.pipelines.data.constraints.learning import Learned, learn
from postprior.pipelines.data.conversion import ColumnConversion

N = 400
RNG = np.random.default_rng(0)
LEVELS = ("a", "b", "c", "d", "e", "f")


def learned(values: Mapping[str, Any], decimals: int | None = None, held_out: int = N // 4) -> Learned:
    """Learn from columns: strings of letters are categories, booleans booleans; the last rows are held out."""
    columns: dict[Ref, ColumnConversion] = {}
    cells: dict[Ref, Any] = {}
    for name, x in values.items():
        x, ref = np.asarray(x), ("t", name)
        if x.dtype.kind == "U":
            columns[ref] = ColumnConversion(name, "categorical", "string", values=LEVELS)
            cells[ref] = np.array([LEVELS.index(text) if text else np.nan for text in x], np.float64)
        else:
            kind, places = ("boolean", None) if x.dtype.kind == "b" else ("numeric", decimals)
            columns[ref], cells[ref] = ColumnConversion(name, kind, "double", decimals=places), x.astype(np.float64)
    rows = len(x)
    return learn(columns, cells, np.arange(rows) < rows - held_out)


def texts(found: Learned) -> set[str]:
    return {constraint.text(names_of(constraint.refs)) for constraint in found.constraints}


def test_each_kind_is_found_and_nothing_else() -> None:
    low = RNG.normal(80, 10, N).round()
    high = low + RNG.gamma(3, 10, N).round() + 1
    middle = (low + (high - low) * RNG.random(N)).round()
    net, tip, fee = (RNG.gamma(3, 10, N).round(2) for _ in range(3))
    city = RNG.choice(list("abcdef"), N)
    sex = RNG.random(N) < 0.5
    age = RNG.integers(18, 90, N)
    table = {
        **{"low": low, "high": high, "middle": middle, "noise": RNG.normal(90, 12, N).round()},
        **{"net": net, "tip": tip, "fee": fee, "vat": (0.2 * net).round(2)},
        **{"city": city, "state": np.where(np.isin(city, ["a", "b"]), "a", np.where(city == "c", "b", "c"))},
        **{"female": sex, "pregnant": sex & (RNG.random(N) < 0.3)},
        **{"age": age, "group": np.array(list("cab"))[np.digitize(age, [30, 65])]},
    }
    table["half"], table["total"] = (net + tip).round(2), (net + table["vat"] + tip + fee).round(2)
    for name in ("low", "half", "net", "total"):
        table[name] = np.where(RNG.random(N) < 0.05, np.nan, table[name])
    assert texts(learned(table, 2)) == {
        *("low <= middle", "middle <= high", "vat = 0.2 * net", "net + tip = half", "net + tip + fee + vat = total"),
        *("city -> state", "age -> group", "female x pregnant"),
    }


@pytest.mark.parametrize("seed", range(3))
def test_independent_columns_have_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = 60  # few rows, and many columns: 10⁴ pairs
    numbers = {f"x{j}": rng.normal(j % 3, 1, rows).round(2) for j in range(60)}
    counts = {f"n{j}": rng.poisson(0.2 * j, rows) for j in range(20)}
    levels = {f"k{j}": rng.choice(list("abcdef")[: 2 + j % 5], rows) for j in range(20)}
    rare = {f"b{j}": rng.random(rows) < 0.1 for j in range(20)}
    assert texts(learned({**numbers, **counts, **levels, **rare}, 2, 0)) == set()


def test_an_order_of_ranges_and_a_rare_difference_are_no_surprise() -> None:
    apart = {"x": RNG.random(N), "y": RNG.random(N) + 1, "z": np.where(np.arange(N) == 3, 0.5, 0)}
    assert texts(learned(apart)) == set()


def test_whole_numbers_that_are_never_equal_are_strictly_ordered() -> None:
    start = RNG.integers(0, 30, N)
    later, equal = start + RNG.integers(1, 20, N), start + RNG.integers(0, 20, N)
    assert texts(learned({"start": start, "end": later}, 0)) == {"start < end"}
    assert texts(learned({"start": start, "end": equal}, 0)) == {"start <= end"}


def test_a_step_may_lie_anywhere_between_two_training_rows() -> None:
    x = RNG.random(N)
    found = learned({"x": x, "tall": x >= 0.5})
    assert texts(found) == {"x -> tall"}
    (function,) = found.constraints
    (step,) = vars(function)["breaks"]
    train = x[: -N // 4]
    assert train[train < 0.5].max() < step <= train[train >= 0.5].min()
    mixed = np.where(np.arange(N) == 7, x < 0.5, x >= 0.5)
    assert texts(learned({"x": x, "tall": mixed})) == set()


def test_steps_of_few_rows_and_rare_categories_determine_nothing() -> None:
    """A step that four rows have would tell what these persons have."""
    code = np.repeat([1, 2, 3, 4], [130, 134, 132, 4])[RNG.permutation(N)]
    name = np.array(list("abcd"))[code - 1]
    (function,) = learned({"code": code, "name": name}, 0, 0).constraints
    assert vars(function)["values"] == (0, 1, 2, None)
    assert [child for child, _ in vars(function)["inverse"]] == [0, 1, 2]


def test_what_held_out_rows_violate_is_told_and_not_kept() -> None:
    low = RNG.normal(0, 1, N)
    high = low + RNG.gamma(2, 1, N)
    sex = RNG.random(N) < 0.5
    pregnant = sex & (RNG.random(N) < 0.5)
    low[-1], pregnant[-1], sex[-1] = high[-1] + 1, True, False
    found = learned({"low": low, "high": high, "female": sex, "pregnant": pregnant})
    assert texts(found) == set()
    assert [(type(one).__name__, count) for one, count in found.contradicted.items()] == [("Order", 1)]


def test_descriptions_return() -> None:
    low = RNG.random(N)
    cells = {"low": low, "high": low + RNG.random(N), "code": RNG.integers(0, 5, N)}
    found = learned(cells | {"name": np.array(list("abcde"))[cells["code"]], "z": 1 - low.round(1)}, 1)
    assert {constraint.kind for constraint in found.constraints} == {"order", "function"}
    for constraint in found.constraints:
        assert from_description(described(constraint)) == constraint
    broken: Constraint = found.constraints[0]
    with pytest.raises(KeyError):
        from_description(described(broken) | {"kind": "later"})
    assert not broken.violated(Cells({}, {ref: np.full(3, np.nan) for ref in broken.refs}, {})).any()


def test_values_that_cannot_be_compared_are_left_out() -> None:
    """Numbers near the ends of float64, and a column that hardly varies, stop no import and hide no constraint."""
    low = RNG.normal(0, 1, N).round(2)
    odd = {"huge": RNG.normal(0, 1, N) * 1e300, "tiny": RNG.normal(0, 1, N) * 1e-300, "still": 1e9 + low * 1e-6}
    absent = {"none": np.full(N, np.nan), "one": np.where(np.arange(N) == 5, 1, np.nan)}
    assert texts(learned({"low": low, "high": low + RNG.gamma(2, 1, N).round(2), **odd, **absent})) == {"low <= high"}
