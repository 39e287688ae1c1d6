"""Which values are categories: counts decide, and texts that are left over share one category."""

from __future__ import annotations

import pyarrow as pa
import pytest

from postprior.pipelines.data.conversion.categories import (
    Categories,
    common_values,
    constant_value,
    grouped,
    is_free_text,
)


def column(**counts: int) -> pa.ChunkedArray:
    return pa.chunked_array([[value for value, count in counts.items() for _ in range(count)] + [None]])


def test_values_of_five_rows_are_categories() -> None:
    assert common_values(column(b=5, a=6)) == Categories(("a", "b"), False)
    assert common_values(column(b=5, a=6, c=4, d=1)) == Categories(("a", "b", "other"), True)
    assert common_values(column(b=5, other=6, c=4)) == Categories(("b", "other"), True)
    assert common_values(column(b=5, a=6, c=1), keep_rare=True) == Categories(("a", "b", "c"), False)
    numbers = pa.chunked_array([[1] * 5 + [2] * 5 + [3]])
    assert common_values(numbers) == Categories((1, 2), False)


def test_the_commonest_values_are_kept() -> None:
    assert common_values(column(a=7, b=9, c=8), most=3) == Categories(("a", "b", "c"), False)
    assert common_values(column(a=7, b=9, c=8), most=2) == Categories(("b", "other"), True)


def test_rare_texts_become_one_category() -> None:
    texts = column(a=5, b=2)
    assert grouped(texts, common_values(texts)).to_pylist() == ["a"] * 5 + ["other"] * 2 + [None]
    assert grouped(texts, common_values(texts, keep_rare=True)).equals(texts)


@pytest.mark.parametrize(("a", "b", "value"), [(9, 0, ("a",)), (9, 4, ("a",)), (9, 5, None), (0, 0, ())])
def test_a_column_is_constant_if_fewer_than_five_rows_differ(a: int, b: int, value: object) -> None:
    assert constant_value(column(a=a, b=b), keep_rare=False) == value
    assert constant_value(column(a=a, b=b), keep_rare=True) == (None if a and b else value)


def test_texts_are_free_if_most_of_them_are_rare() -> None:
    many = {f"t{i}": 1 for i in range(6)}
    assert is_free_text(column(a=5, **many), keep_rare=False)
    assert not is_free_text(column(a=6, **many), keep_rare=False)
