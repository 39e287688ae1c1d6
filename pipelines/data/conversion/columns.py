"""Convert one column of a table into numbers for a model, and back into its type and unit."""

import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.categories import Categories, common_values
from postprior.pipelines.data.conversion.forms import PLAIN, Form
from postprior.pipelines.data.conversion.outliers import BOUND, ROOM, usual_range
from postprior.pipelines.data.conversion.precision import MOST, fewest_decimals, rounded
from postprior.pipelines.data.conversion.quantiles import NormalScores
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.modalities import Column

LIKELIHOODS = {
    "numeric": "normal",
    "log": "normal",
    "quantile": "normal",
    "count": "negative_binomial",
    "boolean": "bernoulli",
    "categorical": "categorical",
}
"""Kinds of columns and the likelihood of each kind."""
SCALED = ("numeric", "log", "quantile")
"""Kinds whose x are standardised, or normal scores."""
UNMODELLED = "unmodelled"
"""The kind of a column that no model sees; it is written back on export."""


@dataclass(frozen=True)
class ColumnConversion:
    """Conversion of a column of values v into numbers x.

    A numeric column gives x = (v − offset) / scale, a log column x = (log(1 + v) − offset) / scale, a quantile column
    the normal score of v among the training rows (`NormalScores`), and a categorical one the index of v in `values`.
    Columns of the kinds `count`, `boolean` and `target` are not changed. A column of the kind `unmodelled` has no x:
    its cells are null or have the only one of its `values`.

    Args:
        name: the header of the column.
        kind: a key of `LIKELIHOODS`, or `target`.
        type: the name of the Arrow type.
        offset: the mean of the training rows, of numeric and log columns.
        scale: their standard deviation.
        values: the K categories.
        fill: the x of a missing cell.
        bound: the greatest |x| of numeric, log and quantile columns; far outliers beyond it are clipped.
        others: whether the last one of the `values` stands for all values that are not listed.
        form: how the file writes the cells.
        valid_range: the least and greatest value v that is synthesised, of numeric, log, quantile and count columns;
            None if synthetic values are not limited.
        decimals: the decimals of synthetic values of numeric, log and quantile columns; None if they are not rounded.
        quantiles: the map to normal scores, of quantile columns.
    """

    name: str
    kind: str
    type: str
    offset: float = 0.0
    scale: float = 1.0
    values: tuple[str | int | float | bool, ...] = ()
    fill: float = 0.0
    bound: float = BOUND
    others: bool = False
    form: Form = PLAIN
    valid_range: tuple[float, float] | None = None
    decimals: int | None = None
    quantiles: NormalScores | None = None

    @property
    def column(self) -> Column:
        """The column as the model sees it."""
        intervals = () if self.quantiles is None else self.quantiles.intervals(half_unit(self.decimals))
        return Column(self.name, LIKELIHOODS[self.kind], len(self.values) or None, intervals)

    @classmethod
    def fit(
        cls,
        name: str,
        kind: str,
        column: pa.ChunkedArray,
        categories: Categories | None = None,
        form: Form = PLAIN,
    ) -> Self:
        """Learn the conversion from the training rows, with nulls; by default all values are categories."""
        observed, type_name = column.drop_null(), str(column.type)
        if kind == "categorical":
            known = categories or Categories(tuple(sorted(observed.unique().to_pylist())), False)
            learned = cls(name, kind, type_name, values=known.values, others=known.others, form=form)
            places = learned.encode(observed)[0].astype(np.int64)
            return replace(learned, fill=float(np.bincount(places).argmax()) if len(places) else 0.0)
        if not len(observed):
            return cls(name, kind, type_name, form=form)
        numbers = to_numpy(observed)
        if kind in ("count", "boolean"):
            ends = ends_of(numbers) if kind == "count" else None
            fill = float(np.rint(np.median(numbers)))
            return cls(name, kind, type_name, fill=fill, form=form, valid_range=ends)
        return cls._scaled(name, kind, column.type, numbers, form)

    @classmethod
    def _scaled(cls, name: str, kind: str, type: pa.DataType, numbers: Values, form: Form) -> Self:
        """Learn the conversion of a numeric, log or quantile column from its values (n,), n ≥ 1."""
        x = np.log1p(numbers) if kind == "log" else numbers
        low, high, far = usual_range(x)
        usual = (x >= low) & (x <= high)
        values, x = numbers[usual], x[usual]
        with np.errstate(over="ignore"):
            scale = float(x.std()) or 1.0  # different integers beyond 2^53 may be equal as floats
        if not np.isfinite(scale):
            found = f"values from {x.min():g} to {x.max():g} found"
            expected = "expected values below 1e150, whose squares are finite"
            remedy = f"rescale the column or leave it out (--skip {shell_quoted(name)})"
            raise UserError(f"column {name}: {found}, {expected}; {remedy}")
        decimals = decimals_of(values, type)
        learned = cls(name, kind, str(type), form=form, valid_range=ends_of(values), decimals=decimals)
        if kind == "quantile":
            quantiles = NormalScores.fit(values, half_unit(decimals), scale)
            bound = ROOM * max(map(abs, quantiles.scores)) if far else BOUND
            return replace(learned, bound=bound, quantiles=quantiles)
        offset = float(x.mean())
        bound = ROOM * max(offset - low, high - offset) / scale if far else BOUND
        return replace(learned, offset=offset, scale=scale, bound=bound)

    @classmethod
    def of_target(cls, name: str, column: pa.ChunkedArray, form: Form = PLAIN, keep_rare: bool = False) -> Self:
        """Return the conversion of a target: numbers are not changed, texts become indices of categories."""
        if pa.types.is_string(column.type):
            return cls.fit(name, "categorical", column, common_values(column, keep_rare), form)
        return cls(name, "target", str(column.type), form=form)

    def encode(self, column: pa.ChunkedArray) -> tuple[Values, Values]:
        """Return numbers (n,) and which cells are observed; a category that is not listed counts as missing."""
        if self.kind == "categorical":
            places = pc.index_in(column, value_set=pa.array(self.values, column.type))
            last = pa.scalar(len(self.values) - 1, pa.int32())
            column = pc.if_else(pc.and_(column.is_valid(), places.is_null()), last, places) if self.others else places
        seen = column.is_valid().to_numpy()
        numbers = to_numpy(column)
        if self.kind in SCALED:
            numbers = np.clip(self.standardised(numbers), -self.bound, self.bound)
        return np.where(seen, numbers, self.fill), seen

    def standardised(self, numbers: Values) -> Values:
        """Return the numbers x of values v of a column that is not categorical."""
        if self.quantiles is not None:
            return self.quantiles.mean(numbers, half_unit(self.decimals))
        with np.errstate(over="ignore"):
            return ((np.log1p(numbers) if self.kind == "log" else numbers) - self.offset) / self.scale

    def valid(self, numbers: Values) -> Values:
        """Return decoded numbers (n,) as the data have them: with their decimals, and within `valid_range`."""
        if self.valid_range is None and self.decimals is None:
            return numbers
        raw = self.raw(numbers)
        return self.standardised(raw if self.valid_range is None else np.clip(raw, *self.valid_range))

    def synthesised(self, values: Values) -> Values:
        """Return what a synthetic row has in place of values v (n,), NaN where missing; of categories, indices."""
        return self.raw(self.valid(self.standardised(values)).astype(np.float32))

    def raw(self, numbers: Values) -> Values:
        """Return the values v, float64; of a categorical column, the indices of the categories."""
        numbers = np.asarray(numbers, np.float64)
        raw = self.offset + self.scale * numbers if self.quantiles is None else self.quantiles.inverse(numbers)
        if self.kind == "numeric":
            unit = np.spacing(np.maximum(np.abs(numbers), 1).astype(np.float32)).astype(np.float64)
            raw = _rounded(raw, self.scale * unit)
        if self.kind == "log":
            raw = np.maximum(np.expm1(raw), 0)
        if self.kind in ("count", "boolean"):
            raw = np.rint(np.clip(raw, 0, 1) if self.kind == "boolean" else raw)
        return raw if self.decimals is None else rounded(raw, self.decimals)

    def decode(self, numbers: Values, seen: Values) -> pa.Array:
        """Return the column (n,) in its original type, null where a cell was not `seen`."""
        arrow = pa.type_for_alias(self.type)
        if self.kind == UNMODELLED:
            value = pa.scalar(self.values[0] if self.values else None, arrow)
            return pa.repeat(value, len(seen)).take(pa.array(np.arange(len(seen)), mask=~seen))
        if self.kind == "categorical":
            places = np.clip(np.rint(numbers), 0, len(self.values) - 1).astype(np.int64)
            return pa.array(self.values, arrow).take(pa.array(places, mask=~seen))
        raw = self.raw(numbers)
        if pa.types.is_temporal(arrow):
            whole = pa.int64() if arrow.bit_width == 64 else pa.int32()
            return pa.array(as_dtype(raw, np.dtype(whole.to_pandas_dtype())), mask=~seen).cast(arrow)
        return pa.array(as_dtype(raw, np.dtype(arrow.to_pandas_dtype())), arrow, mask=~seen)

    def describe(self) -> dict[str, Any]:
        """JSON-able description: the keyword arguments of the constructor."""
        own = {"values": list(self.values), "form": self.form.describe()}
        fields = {**asdict(self), **own, "quantiles": self.quantiles and self.quantiles.describe()}
        optional = dict.fromkeys(("valid_range", "decimals", "quantiles"))
        usual: dict[str, Any] = {"bound": BOUND, "others": False, "form": {}, **optional}
        return {key: value for key, value in fields.items() if key not in usual or value != usual[key]}

    @classmethod
    def from_description(cls, entry: dict[str, Any]) -> Self:
        """Return the conversion that `describe` described."""
        fields = dict(entry.get("form", {}))
        form = Form(**{**fields, "missing": tuple(fields.get("missing", ()))})
        ends = None if entry.get("valid_range") is None else tuple(entry["valid_range"])
        quantiles = NormalScores.from_description(entry["quantiles"]) if entry.get("quantiles") else None
        own = {"values": tuple(entry["values"]), "form": form, "valid_range": ends, "quantiles": quantiles}
        return cls(**{**entry, **own})


def named_type(name: str) -> pa.DataType:
    """Return the Arrow type of this name; ValueError if there is none."""
    if match := re.fullmatch(r"decimal(128|256)\((\d+), (-?\d+)\)", name):
        return {"128": pa.decimal128, "256": pa.decimal256}[match[1]](int(match[2]), int(match[3]))
    if match := re.fullmatch(r"timestamp\[(\w+), tz=(.+)\]", name):
        return pa.timestamp(match[1], match[2])
    if match := re.fullmatch(r"dictionary<values=(\w+), indices=(\w+), ordered=([01])>", name):
        return pa.dictionary(pa.type_for_alias(match[2]), pa.type_for_alias(match[1]), match[3] == "1")
    return pa.type_for_alias(name)


def simplify_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to integers, floats, booleans, plain strings or dates if possible, and NaN to null."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz:
        return column.cast(pa.timestamp(kind.unit))
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
    """Return a column of numbers or dates as an array (n,) float64, NaN where null; dates count days or their unit."""
    if pa.types.is_temporal(column.type):
        column = column.cast(pa.int64() if column.type.bit_width == 64 else pa.int32())
    return column.cast(pa.float64(), safe=False).to_numpy()


def decimals_of(values: Values, kind: pa.DataType) -> int | None:
    """Return the decimals with which a column of this type writes values (n,); None if they are more than `MOST`."""
    fewest = int(fewest_decimals(values.astype(np.float32) if pa.types.is_float32(kind) else values))
    return None if fewest > MOST else fewest


def half_unit(decimals: int | None) -> float:
    """Return the greatest distance over which numbers are rounded to a value with these decimals; 0 without rounding.

    >>> half_unit(1)
    0.05
    """
    return 0.0 if decimals is None else 0.5 * 10.0**-decimals


def ends_of(values: Values) -> tuple[float, float]:
    """Return the least and the greatest of values (n,), n ≥ 1."""
    return float(values.min()), float(values.max())


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
