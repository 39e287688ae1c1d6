"""One column of a table as numbers that a model learns, and back into its type and unit."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.outliers import BOUND, ROOM, usual
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
"""Kinds of column and the likelihood that each has."""
SCALED = ("numeric", "log")
"""Kinds that are standardised."""
NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
"""A text that is a number."""
MOST = 100
"""Categories that a column may have, and half as many as rows at most: more are names or free text."""


@dataclass(frozen=True)
class ColumnConversion:
    """A column of values v as numbers x: (v − offset) / scale, the same of log(1 + v), or the place of v in `values`.

    `kind` is `numeric`, `log`, `categorical`, or one that stays as it is: `count`, `boolean`, `target`; `type` the name
    of the Arrow type. `offset` and `scale` are mean and standard deviation of the training rows, of numeric and log
    columns, and `bound` their greatest |x|: values beyond are far outliers, and become this. `values` are the K
    categories, and `fill` is the x that stands where a cell is missing.
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
        """What the model is told of it."""
        return Column(self.name, LIKELIHOODS[self.kind], len(self.values) or None)

    @classmethod
    def fit(cls, name: str, kind: str, column: pa.ChunkedArray) -> Self:
        """Learn from the training rows; a column that `varies` is expected, its nulls are missing cells."""
        known, type_name = column.drop_null(), str(column.type)
        if kind == "categorical":
            check_categories(f"column {name}", name, known)
            values = tuple(sorted(known.unique().to_pylist()))
            counts = pc.value_counts(known).to_pylist()
            most = max(counts, key=lambda entry: (entry["counts"], -values.index(entry["values"])))["values"]
            return cls(name, kind, type_name, values=values, fill=float(values.index(most)))
        numbers = to_numpy(known)
        if kind in ("count", "boolean"):
            return cls(name, kind, type_name, fill=float(np.rint(np.median(numbers))))
        numbers = np.log1p(numbers) if kind == "log" else numbers
        low, high, far = usual(numbers)
        numbers = numbers[(numbers >= low) & (numbers <= high)]
        with np.errstate(over="ignore"):
            scale = float(numbers.std()) or 1.0  # whole numbers beyond 2^53 may differ and yet be one float
        if not np.isfinite(scale):
            found = f"values from {numbers.min():g} to {numbers.max():g} found, expected such as can be squared"
            remedy = f"rescale it or leave it out (--skip {shell_quoted(name)})"
            raise UserError(f"column {name}: {found}, below 1e150; {remedy}")
        offset = float(numbers.mean())
        bound = ROOM * max(offset - low, high - offset) / scale if far else BOUND
        return cls(name, kind, type_name, offset, scale, bound=bound)

    @classmethod
    def plain(cls, name: str, column: pa.ChunkedArray) -> Self:
        """A target: numbers stay as they are, texts become the places of their categories."""
        if pa.types.is_string(column.type):
            return cls.fit(name, "categorical", column)
        return cls(name, "target", str(column.type))

    def encode(self, column: pa.ChunkedArray) -> tuple[Values, Values]:
        """Numbers (n,) and whether each cell was there; a category that training lacks counts as missing."""
        if self.kind == "categorical":
            column = pc.index_in(column, value_set=pa.array(self.values, column.type))
        seen = column.is_valid().to_numpy()
        numbers = to_numpy(column.fill_null(False if pa.types.is_boolean(column.type) else 0))
        if self.kind in SCALED:
            numbers = np.clip(self.standardised(numbers), -self.bound, self.bound)
        return np.where(seen, numbers, self.fill), seen

    def standardised(self, numbers: Values) -> Values:
        """Numbers of a numeric or log column without their unit."""
        with np.errstate(over="ignore"):
            return ((np.log1p(numbers) if self.kind == "log" else numbers) - self.offset) / self.scale

    def decode(self, numbers: Values, seen: Values) -> pa.Array:
        """The column (n,) of its own type, null where a cell was not `seen`."""
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
        """JSON-able description, the keywords of the constructor."""
        known = {**asdict(self), "values": list(self.values)}
        return {key: value for key, value in known.items() if (key, value) != ("bound", BOUND)}

    @classmethod
    def from_description(cls, entry: dict[str, Any]) -> Self:
        """The conversion that gave this description."""
        return cls(**{**entry, "values": tuple(entry["values"])})


def named_type(name: str) -> pa.DataType:
    """The type that Arrow calls so; ValueError where there is none."""
    if found := re.fullmatch(r"decimal(128|256)\((\d+), (-?\d+)\)", name):
        return {"128": pa.decimal128, "256": pa.decimal256}[found[1]](int(found[2]), int(found[3]))
    if found := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=([01])>", name):
        return pa.dictionary(pa.type_for_alias(found[2]), pa.type_for_alias(found[1]), found[3] == "1")
    return pa.type_for_alias(name)


def plainer(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of integers, floats, booleans or plain strings where it can be one, with null for NaN."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_decimal(kind) and kind.scale == 0:
        with suppress(pa.ArrowInvalid):  # more than 64 bits
            return column.cast(pa.int64())
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind) or pa.types.is_null(kind):
        return column.cast(pa.float64())
    if pa.types.is_floating(kind) and pc.any(nan := pc.is_nan(column)).as_py():
        return pc.if_else(nan, pa.scalar(None, kind), column)
    return column


def to_numpy(column: pa.ChunkedArray) -> Values:
    """The numbers of a column without nulls, (n,) float64."""
    return column.cast(pa.float64(), safe=False).to_numpy()


def check_categories(place: str, name: str, known: pa.ChunkedArray) -> None:
    """Refuse a column of so many values that they are names or free text; one of numbers may have a text among them."""
    values = known.unique().cast(pa.string())
    if len(values) <= (most := min(MOST, max(2, len(known) // 2))):
        return
    others = values.filter(pc.invert(pc.match_substring_regex(values, NUMBER)))
    if len(values) > 2 * len(others) > 0:
        found = f"the text {others[0].as_py()!r} found among numbers, expected numbers and empty cells alone"
        raise UserError(f"{place}: {found}; correct it or leave the column out (--skip {shell_quoted(name)})")
    raise UserError(
        f"{place}: {len(values)} different values such as {values[0].as_py()!r} found, expected at most {most} "
        f"categories; leave it out (--skip {shell_quoted(name)}) or name its role (--id, --group, --target)"
    )


def _rounded(values: Values, unit: Values) -> Values:
    """Numbers with the decimals that a float32 of this `unit` in the last place has kept: 54, not 53.999998."""
    places = np.clip(np.floor(-np.log10(unit)), -300, 300)
    power = 10.0 ** np.abs(places)
    with np.errstate(over="ignore"):  # of what is not chosen
        return np.where(places >= 0, np.rint(values * power) / power, np.rint(values / power) * power)


def as_dtype(values: Values, dtype: np.dtype[Any]) -> Values:
    """Numbers in another type: whole ones rounded and clipped to what it holds, true from one half upwards."""
    if dtype.kind == "b":
        return values >= 0.5
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        least, most = float(limits.min), np.nextafter(float(limits.max), 0)
        return np.clip(np.rint(values), least, most if limits.bits > 53 else limits.max).astype(dtype)
    return values.astype(dtype)


def close(found: Values, expected: Values) -> Values:
    """Whether numbers are the same but for the last bits, which may differ between processors."""
    return np.asarray(np.abs(found - expected) <= 1e-6 * np.maximum(1, np.abs(expected)))


def varies(column: pa.ChunkedArray) -> bool:
    """Whether two values at least are found among what is not null."""
    known = column.drop_null()
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        return pc.count_distinct(known).as_py() > 1
    limits = pc.min_max(known).as_py()
    return bool(limits["min"] != limits["max"])
