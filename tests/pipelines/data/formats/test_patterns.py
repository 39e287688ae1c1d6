"""Cells as people write them mean the numbers and dates that a careful reader sees."""

from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pytest

from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.formats.interpretation import Notes, interpret
from postprior.pipelines.data.formats.patterns import has_decimal_commas

FILLER = 60  # rows of usual cells, among which one other is at most one in 20


def read(*cells: str, mark: str = ".", roles: Roles = Roles()) -> tuple[list[Any], str]:  # noqa: B008
    """Interpret the cells of a column; return their values and what is told."""
    notes = Notes()
    values = interpret("v", pa.chunked_array([pa.array(cells)]), mark, roles, notes).values
    return values.to_pylist(), "\n".join(notes.lines("a.csv"))


@pytest.mark.parametrize(
    ("cells", "values", "mark"),
    [
        (("1\u2019000.50", "2\u2019500.25"), (1000.5, 2500.25), "."),
        (("1\u2009000", "1\u202f500", "900"), (1000, 1500, 900), "."),
        (("\uff11\uff12", "\uff13\uff10"), (12, 30), "."),
        (("\u22121.5", "\u20132.5", "3"), (-1.5, -2.5, 3), "."),
        (("\u00a01.5\u00a0", "2.5"), (1.5, 2.5), "."),
        (("(1.5)", "2.5", "(30)"), (-1.5, 2.5, -30), "."),
        (("1.5-", "2.5"), (-1.5, 2.5), "."),
        (("-$1.50", "$-2.50", "$1,200.25", "($3.00)"), (-1.5, -2.5, 1200.25, -3), "."),
        (("CHF 1'000.-", "CHF 25.50"), (1000, 25.5), "."),
        (("1.200,50 \u20ac", "-3,25 \u20ac"), (1200.5, -3.25), ","),
        (("5 mg", "7.5 mg"), (5, 7.5), "."),
        (("1.5 kg/m\u00b2", "2.5 kg/m\u00b2"), (1.5, 2.5), "."),
        (("1,234.5", "12.5", "900"), (1234.5, 12.5, 900), "."),
        (("100.5", "7.25"), (100.5, 7.25), ","),  # a column with points in a file with decimal commas
        (("-9", "1", "2", "3"), (None, 1, 2, 3), "."),
    ],
)
def test_numbers(cells: tuple[str, ...], values: tuple[float | None, ...], mark: str) -> None:
    assert read(*cells, mark=mark)[0] == list(values)


@pytest.mark.parametrize("cells", [("0x1f", "0x20"), ("(1)", "(2)"), ("10\u00b2", "10\u00b3"), ("007 a", "008 b")])
def test_texts_that_are_no_numbers(cells: tuple[str, ...]) -> None:
    assert read(*cells)[0] == list(cells)


@pytest.mark.parametrize(
    ("cells", "values", "told"),
    [
        (
            ("2020-01-05T10:00:00+02:00", "2020-01-05 10:00:00.5Z"),
            (datetime(2020, 1, 5, 8), datetime(2020, 1, 5, 10, 0, 0, 500_000)),
            "",
        ),
        (("1/15/2020 1:05 PM", "2/3/2020 12:00 AM"), (datetime(2020, 1, 15, 13, 5), datetime(2020, 2, 3)), ""),
        (("20200131", "19991201"), (date(2020, 1, 31), date(1999, 12, 1)), "whole numbers read as dates"),
        (("31.12.68", "1.2.69"), (date(2068, 12, 31), date(1969, 2, 1)), "years of two digits read as 1969 to 2068: v"),
        (("3/4/2020", "5/6/2021"), (date(2020, 4, 3), date(2021, 6, 5)), "dates read as day, month, year: v;"),
    ],
)
def test_dates(cells: tuple[str, ...], values: tuple[date, ...], told: str) -> None:
    found, notes = read(*cells)
    assert found == list(values)
    assert told in notes


@pytest.mark.parametrize(
    ("cell", "usual"),
    [
        ("31.02.2020", "5.1.2020"),
        ("0000-00-00", "2020-01-05"),
        ("soon", "5/13/2020"),
        ("n.d.", "12.5 %"),
        ("mg", "1.5"),
    ],
)
def test_one_other_text_is_missing_and_told(cell: str, usual: str) -> None:
    """Dates that do not exist are no other days."""
    values, told = read(*[usual] * FILLER, cell)
    assert None not in values[:FILLER]
    assert values[FILLER] is None
    assert f"v '{cell}' (row {FILLER + 1})" in told


def test_all_dates_decide_the_order() -> None:
    """One day above 12 among 60 ambiguous dates is no mistyped date."""
    values, _ = read(*["3/4/2020"] * FILLER, "1/15/2020")
    assert values == [date(2020, 3, 4)] * FILLER + [date(2020, 1, 15)]


def test_a_number_that_is_a_date_as_well_may_be_kept() -> None:
    assert read("20200131", "20200201", roles=Roles(kinds={"v": "numeric"}))[0] == [20200131, 20200201]


def test_rows_for_a_trained_model_are_read_in_its_pattern() -> None:
    trained = Roles(kinds={"v": "numeric"}, patterns={"v": "%Y%m%d"})
    values, told = read("20200131", "20201301", roles=trained)
    assert values == [date(2020, 1, 31), None]
    assert "not written as in the training data, read as missing: v" in told
    assert read("20200131", "20200201", roles=Roles(label="v"))[0] == [20200131, 20200201]


def test_blanks_do_not_make_categories_but_capitals_do() -> None:
    values, told = read("case", "case ", "\u00a0case", "Case")
    assert values == ["case", "case", "case", "Case"]
    assert "differ in surrounding blanks alone, read as the same: v" in told
    assert "differ in capital letters alone, read as different values: v (Case, case)" in told


@pytest.mark.parametrize(
    ("cells", "delimiter", "commas"),
    [
        (("1,5", "2"), ";", True),
        (("0,035", "12,500"), ",", True),  # no group of thousands begins with 0
        (("1,035", "12,500"), ",", False),
        (("1,5 \u20ac", "2,5 \u20ac"), ";", True),
        (("1,200 \u20ac", "2.50 \u20ac"), ";", False),
        (("37,5 %", "4 %"), ",", True),
        (("a,b", "c"), ";", False),
    ],
)
def test_decimal_commas(cells: tuple[str, ...], delimiter: str, commas: bool) -> None:
    assert has_decimal_commas(pa.chunked_array([pa.array(cells)]), delimiter) == commas
