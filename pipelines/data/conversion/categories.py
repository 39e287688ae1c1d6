"""Which values of a column are categories: rare values identify persons, and no synthetic row may have them."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.conversion.forms import NUMBER
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted

RARE = 5
"""Values that fewer rows have are rare."""
OTHER = "other"
"""The category of all texts that are rare, or beyond the `MOST` commonest."""
MOST = 100
"""Greatest number of categories of a column."""


class Categories(NamedTuple):
    """The categories of a column, and whether the last of them stands for all other values."""

    values: tuple[Any, ...]
    others: bool


def value_counts(column: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Return the different values of a column that are not null, and how many rows have each."""
    counts = pc.value_counts(column.drop_null())
    return counts.field("values"), counts.field("counts").to_numpy()


def common_values(column: pa.ChunkedArray, keep_rare: bool = False, most: int = MOST) -> Categories:
    """Return the categories of a column: values that are not rare, at most the `most` commonest, in sorted order.

    Texts that are left over become the category `OTHER`; of other types they count as missing cells. With `keep_rare`,
    no value is rare.
    """
    values, counts = value_counts(column)
    texts = pa.types.is_string(column.type)
    common = np.flatnonzero(counts >= (1 if keep_rare else RARE))
    if len(common) > most:
        common = common[np.argsort(-counts[common], kind="stable")[: most - texts]]
    known = sorted(values.take(pa.array(common)).to_pylist())
    if not texts or len(common) == len(values):
        return Categories(tuple(known), False)
    return Categories((*(value for value in known if value != OTHER), OTHER), True)


def is_free_text(column: pa.ChunkedArray, keep_rare: bool) -> bool:
    """Whether most rows of a column of texts have a value that would not be a category: names or free text."""
    values, counts = value_counts(column)
    if keep_rare:
        return len(values) > min(MOST, max(2, counts.sum() // 2))
    known = common_values(column)
    common = pc.is_in(values, value_set=pa.array(known.values, column.type)).to_numpy(zero_copy_only=False)
    return bool(2 * counts[common].sum() < counts.sum())


def constant_value(column: pa.ChunkedArray, keep_rare: bool) -> tuple[Any, ...] | None:
    """Return the only value of a column, or none if all cells are missing; None if the column varies.

    Without `keep_rare`, a column that has another value in fewer than `RARE` rows does not vary either.
    """
    values, counts = value_counts(column)
    if not len(values):
        return ()
    if counts.sum() - counts.max() >= (1 if keep_rare else RARE):
        return None
    return (values[int(counts.argmax())].as_py(),)


def check_numbers(place: str, name: str, observed: pa.ChunkedArray) -> None:
    """Refuse a column of texts most of which are numbers."""
    values = observed.drop_null().unique()
    texts = values.filter(pc.invert(pc.match_substring_regex(values, NUMBER)))
    if len(values) > 2 * len(texts) > 0:
        found = f"the text {texts[0].as_py()!r} found among numbers, expected only numbers and empty cells"
        mark, kind = shell_quoted(f"{name}={texts[0]}"), shell_quoted(f"{name}=categorical")
        remedy = (
            f"add --na {mark} if it means missing, or --kind {kind} if they are codes, or correct it, or leave the "
            f"column out (--skip {shell_quoted(name)})"
        )
        raise UserError(f"{place}: column {name}: {found}; {remedy}")


def grouped(column: pa.ChunkedArray, categories: Categories) -> pa.ChunkedArray:
    """Replace texts that are not categories by `OTHER`, if it stands for them."""
    if not categories.others:
        return column
    known = pc.is_in(column, value_set=pa.array(categories.values, column.type))
    return pc.if_else(pc.or_(known, column.is_null()), column, pa.scalar(OTHER, column.type))
