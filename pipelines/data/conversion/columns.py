"""Convert one column of a table into numbers for a model, and back into its type and unit."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.outliers import BOUND, ROOM, usual_range
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.modalities import Column

LIKELIHOODS = {
    "numeric": "normal",
    "log": "normal",
    "count": "negative_binomial",
    "boolean": "bernoulli",
    "categorical": "categorical",
}
"""Kinds of columns and the likelihood of each kind."""
SCALED = ("numeric", "log")
"""Kinds that are standardised."""
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""A regular expression for a text that is a number."""
MOST = 100
"""Greatest number of categories of a column, which is also limited to half its rows: more are names or free text."""


@dataclass(frozen=True)
class ColumnConversion:
    """Conversion of a column of values v into numbers x.

    A numeric column gives x = (v − offset) / scale, a log column x = (log(1 + v) − offset) / scale, and a categorical
    one the index of v in `values`. Columns of the kinds `count`, `boolean` and `target` are not changed.

    Args:
        name: the header of the column.
        kind: a key of `LIKELIHOODS`, or `target`.
        type: the name of the Arrow type.
        offset: the mean of the training rows, of numeric and log columns.
        scale: their standard deviation.
        values: the K categories.
        fill: the x of a missing cell.
        bound: the greatest |x| of numeric and log columns; far outliers beyond it are clipped.
    """

    name: str
    kind: str
    type: str
    offset: float = 0.0
    scale: float = 1.0
    values: tuple[str | int | float | bool, ...] = ()
    fill: float = 0.0
    bound: float = BOUND

    @property
    def column(self) -> Column:
        """The column as the model sees it."""
        return Column(self.name, LIKELIHOODS[self.kind], len(self.values) or None)

    @classmethod
    def fit(cls, name: str, kind: str, column: pa.ChunkedArray) -> Self:
        """Learn the conversion from the training rows; nulls are missing cells, and the column has to vary."""
        observed, type_name = column.drop_null(), str(column.type)
        if kind == "categorical":
            check_categories(f"column {name}", name, observed)
            values = tuple(sorted(observed.unique().to_pylist()))
            counts = pc.value_counts(observed).to_pylist()
            mode = max(counts, key=lambda entry: (entry["counts"], -values.index(entry["values"])))["values"]
            return cls(name, kind, type_name, values=values, fill=float(values.index(mode)))
        numbers = to_numpy(observed)
        if kind in ("count", "boolean"):
            return cls(name, kind, type_name, fill=float(np.rint(np.median(numbers))))
        numbers = np.log1p(numbers) if kind == "log" else numbers
        low, high, far = usual_range(numbers)
        numbers = numbers[(numbers >= low) & (numbers <= high)]
        with np.errstate(over="ignore"):
            scale = float(numbers.std()) or 1.0  # different integers beyond 2^53 may be equal as floats
        if not np.isfinite(scale):
            found = f"values from {numbers.min():g} to {numbers.max():g} found"
            expected = "expected values below 1e150, whose squares are finite"
            remedy = f"rescale the column or leave it out (--skip {shell_quoted(name)})"
            raise UserError(f"column {name}: {found}, {expected}; {remedy}")
        offset = float(numbers.mean())
        bound = ROOM * max(offset - low, high - offset) / scale if far else BOUND
        return cls(name, kind, type_name, offset, scale, bound=bound)

    @classmethod
    def of_target(cls, name: str, column: pa.ChunkedArray) -> Self:
        """Return the conversion of a target: numbers are not changed, texts become indices of categories."""
        if pa.types.is_string(column.type):
            return cls.fit(name, "categorical", column)
        return cls(name, "target", str(column.type))

    def encode(self, column: pa.ChunkedArray) -> tuple[Values, Values]:
        """Return numbers (n,) and which cells are observed; a category unknown from training counts as missing."""
        if self.kind == "categorical":
            column = pc.index_in(column, value_set=pa.array(self.values, column.type))
        seen = column.is_valid().to_numpy()
        numbers = to_numpy(column.fill_null(False if pa.types.is_boolean(column.type) else 0))
        if self.kind in SCALED:
            numbers = np.clip(self.standardised(numbers), -self.bound, self.bound)
        return np.where(seen, numbers, self.fill), seen

    def standardised(self, numbers: Values) -> Values:
        """Standardise the values of a numeric or log column."""
        with np.errstate(over="ignore"):
            return ((np.log1p(numbers) if self.kind == "log" else numbers) - self.offset) / self.scale

    def decode(self, numbers: Values, seen: Values) -> pa.Array:
        """Return the column (n,) in its original type, null where a cell was not `seen`."""
        arrow = pa.type_for_alias(self.type)
        if self.kind == "categorical":
            places = np.clip(np.rint(numbers), 0, len(self.values) - 1).astype(np.int64)
            return pa.array(self.values, arrow).take(pa.array(places, mask=~seen))
        raw = self.offset + self.scale * np.asarray(numbers, np.float64)
        if self.kind == "numeric":
            unit = np.spacing(np.maximum(np.abs(numbers), 1).astype(np.float32)).astype(np.float64)
            raw = _rounded(raw, self.scale * unit)
        if self.kind == "log":
            raw = np.maximum(np.expm1(raw), 0)
        if self.kind in ("count", "boolean"):
            raw = np.rint(np.clip(raw, 0, 1) if self.kind == "boolean" else raw)
        return pa.array(as_dtype(raw, np.dtype(arrow.to_pandas_dtype())), arrow, mask=~seen)

    def describe(self) -> dict[str, Any]:
        """JSON-able description: the keyword arguments of the constructor."""
        fields = {**asdict(self), "values": list(self.values)}
        return {key: value for key, value in fields.items() if (key, value) != ("bound", BOUND)}

    @classmethod
    def from_description(cls, entry: dict[str, Any]) -> Self:
        """Return the conversion that `describe` described."""
        return cls(**{**entry, "values": tuple(entry["values"])})


def named_type(name: str) -> pa.DataType:
    """Return the Arrow type of this name; ValueError if there is none."""
    if match := re.fullmatch(r"decimal(128|256)\((\d+), (-?\d+)\)", name):
        return {"128": pa.decimal128, "256": pa.decimal256}[match[1]](int(match[2]), int(match[3]))
    if match := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=([01])>", name):
        return pa.dictionary(pa.type_for_alias(match[2]), pa.type_for_alias(match[1]), match[3] == "1")
    return pa.type_for_alias(name)


def simplify_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to integers, floats, booleans or plain strings if possible, and NaN to null."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind) and kind.scale == 0:
        with suppress(pa.ArrowInvalid):  # the values need more than 64 bits
            return column.cast(pa.int64())
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64())
    if pa.types.is_floating(kind) and pc.any(nan := pc.is_nan(column)).as_py():
        return pc.if_else(nan, pa.scalar(None, kind), column)
    return column


def to_numpy(column: pa.ChunkedArray) -> Values:
    """Return a numeric column without nulls as an array (n,) float64."""
    return column.cast(pa.float64(), safe=False).to_numpy()


def check_categories(place: str, name: str, observed: pa.ChunkedArray) -> None:
    """Refuse a categorical column with too many different values, which are names, free text or mistyped numbers."""
    values = observed.unique().cast(pa.string())
    if len(values) <= (most := min(MOST, max(2, len(observed) // 2))):
        return
    texts = values.filter(pc.invert(pc.match_substring_regex(values, NUMBER)))
    if len(values) > 2 * len(texts) > 0:
        found = f"the text {texts[0].as_py()!r} found among numbers, expected only numbers and empty cells"
        raise UserError(f"{place}: {found}; correct it or leave the column out (--skip {shell_quoted(name)})")
    raise UserError(
        f"{place}: {len(values)} different values such as {values[0].as_py()!r} found, expected at most {most} "
        f"categories; leave the column out (--skip {shell_quoted(name)}) or give it a role (--id, --group, --target)"
    )


def _rounded(values: Values, unit: Values) -> Values:
    """Round numbers to the decimals that a float32 with this `unit` in the last place resolves: 54, not 53.999998."""
    places = np.clip(np.floor(-np.log10(unit)), -300, 300)
    power = 10.0 ** np.abs(places)
    with np.errstate(over="ignore"):  # in the branch that is not chosen
        return np.where(places >= 0, np.rint(values * power) / power, np.rint(values / power) * power)


def as_dtype(values: Values, dtype: np.dtype[Any]) -> Values:
    """Convert numbers to a type: integers are rounded and clipped to its range, booleans are true from 0.5 upwards."""
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = float(limits.min), np.nextafter(float(limits.max), 0)
        return np.clip(np.rint(values), least, most if limits.bits > 53 else limits.max).astype(dtype)
    return values.astype(dtype)


def close(numbers: Values, expected: Values) -> Values:
    """Whether numbers are equal except for the last bits, which may differ between processors."""
    return np.asarray(np.abs(numbers - expected) <= 1e-6 * np.maximum(1, np.abs(expected)))


def varies(column: pa.ChunkedArray) -> bool:
    """Whether a column has at least two different values that are not null."""
    observed = column.drop_null()
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        return pc.count_distinct(observed).as_py() > 1
    limits = pc.min_max(observed).as_py()
    return bool(limits["min"] != limits["max"])
