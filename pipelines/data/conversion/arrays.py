"""Convert a numeric array into values for a model, and back."""

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np

from postprior.pipelines.data.arrays import Rows, Values, blocks, chunks, zeros
from postprior.pipelines.data.conversion.axes import AXES, channels_back, channels_first
from postprior.pipelines.data.conversion.columns import as_dtype, close
from postprior.pipelines.data.conversion.normalised import (
    NORMALISED,
    Unit,
    drawn_units,
    in_units,
    learn_unit,
    to_counts,
    units_in,
)
from postprior.pipelines.data.conversion.outliers import BOUND, ROOM, UsualRange
from postprior.pipelines.data.conversion.precision import rounded
from postprior.pipelines.data.conversion.statistics import (
    Number,
    as_number,
    decimals_of,
    ends_of,
    limits,
    moments,
    usual_range_overall,
    usual_range_per_coordinate,
)
from postprior.pipelines.data.conversion.zero_heavy import AMOUNTS, common_total, like_rows, positive_mean
from postprior.pipelines.data.rows import Scale, ScaledIntegers, SparseRows, can_scale
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.modalities import Modality

OWN = ("kind", "axes", "dtype", "offset", "scale", "classes", "shape", "range")
"""Fields of a conversion that manifests contain, besides its facts."""
LATER = {"bound": BOUND, "valid_range": None, "total": None, "unit": None, "decimals": None}
"""Further fields, and their values where a manifest does not contain them."""
LIKELIHOODS = {
    "nonnegative": "hurdle_lognormal",
    "log1p": "hurdle_softplus",
    **dict.fromkeys(("count", *NORMALISED), "negative_binomial"),
    "boolean": "bernoulli",
    "tokens": "categorical",
}
"""Kinds of arrays, and their likelihoods."""
NUMERIC = ("normal", "laplace")
"""Likelihoods of numeric arrays."""
KINDS = ("numeric", *LIKELIHOODS)
"""Kinds of arrays; numeric values are normal in vectors, else laplace."""
UNSCALED: tuple[Number, Number] = (0.0, 1.0)
REAL = ("numeric", *AMOUNTS)
"""Kinds of values that need not be whole numbers."""


@dataclass(frozen=True)
class ArrayConversion:
    """Conversion of the values v of one array into x = (v − offset) / scale, with channels first.

    Args:
        name: the name of the modality.
        kind: one of `KINDS`; those in `REAL` are scaled, except `log1p`.
        axes: the axes of one value in the source, a key of `AXES`.
        dtype: the type of the values in the source.
        shape: the shape of one value in the source.
        offset: one number, or one per coordinate.
        scale: one number, or one per coordinate.
        range: the range of x, if the source's type or all of its values bound it.
        classes: the number of tokens.
        bound: the greatest |x| of real values; far outliers beyond it are clipped.
        valid_range: the least and the greatest value v that is synthesised, of vectors; None if values are not limited.
        total: the sum of the values of every row of a zero-heavy vector, to which synthetic rows are rescaled; None if
            rows have different sums. For log1p, it is the sum of the amounts exp(v) − 1.
        unit: how the unit of a row of normalised counts, whose x are counts, depends on their total; else None.
        decimals: the decimals of synthetic values, one per coordinate of a real vector, None where they are not
            rounded; None if no value is.
        facts: the `source` of the modality, and what its writer needs to know.
        title: the name of the modality for readers.
        likelihood: the likelihood of numeric values; None for the default of the kind of modality.
    """

    name: str
    kind: str
    axes: str
    dtype: str
    shape: tuple[int, ...]
    offset: Number = 0.0
    scale: Number = 1.0
    range: tuple[float, float] | None = None
    classes: int | None = None
    bound: float = BOUND
    valid_range: tuple[Number, Number] | None = None
    total: float | None = None
    unit: Unit | None = None
    decimals: int | tuple[int | None, ...] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    title: str = ""
    likelihood: str | None = None
    fill: ClassVar[float] = 0.0
    """The number of a missing value."""

    @property
    def modality(self) -> Modality:
        """The modality as the model sees it."""
        kind = "sequence" if self.kind == "tokens" else AXES[self.axes]
        numeric = self.likelihood or ("normal" if kind == "vector" else "laplace")
        likelihood = LIKELIHOODS.get(self.kind, numeric)
        shape = channels_first(np.empty((1, *self.shape), bool), self.axes).shape[1:]
        return Modality(self.name, kind, shape, likelihood, self.range, self.classes, title=self.title)

    def with_likelihood(self, likelihood: str) -> Self:
        """Return the conversion for a manifest with that likelihood, which does not change the values of real arrays.

        It is unchanged if they have no such likelihood.
        """
        if self.kind != "numeric" or likelihood not in NUMERIC or likelihood == self.modality.likelihood:
            return self
        return replace(self, likelihood=likelihood)

    @classmethod
    def fit(
        cls, name: str, kind: str, axes: str, array: Values, rows: Values, present: Values, facts: dict[str, Any]
    ) -> Self:
        """Learn the conversion from the training rows of an array (n, …), where NaN means missing.

        Numeric vectors are standardised per coordinate, nonnegative ones are divided by the geometric mean of the
        positive values of each coordinate, those of the kind log1p are not scaled, and normalised counts become counts.
        Images and volumes are scaled to the range 0 to 1: bytes are divided by 255, other values are scaled by their
        least and greatest value, unless all rows that are present (the indices `present`) lie in this range already.
        Far outliers do not contribute to a scale. A UserError is raised if all values are equal or too large, or if a
        coordinate is missing in all training rows.
        """
        conversion = partial(cls, name, kind, axes, str(array.dtype), array.shape[1:], facts=facts)
        low, high = limits(array, rows)
        if low == high:
            found = f"all values are {low:g} in the training rows, expected two or more different values"
            raise UserError(f"{name}: {found}; leave it out (--skip {shell_quoted(name)})")
        if kind == "tokens":
            return conversion(classes=int(max(chunk.max() for chunk in chunks(array, rows))) + 1)
        if kind in NORMALISED:
            most = np.max([np.nanmax(to_counts(kind, c.astype(np.float64)), 0) for c in chunks(array, rows)], 0)
            unit = learn_unit(array, rows, kind)
            return conversion(valid_range=(0.0, as_number(most)), unit=unit, decimals=decimals_of(array, rows))
        if kind == "count" and AXES[axes] == "vector":
            return conversion(valid_range=ends_of(array, rows))
        if kind not in REAL:
            return conversion()
        if AXES[axes] == "vector":
            return conversion(**_vector_scales(name, kind, array, rows))
        if array.dtype == np.uint8:
            return conversion(scale=255.0, range=(0.0, 1.0))
        least, most = limits(array, present)
        if least >= 0 and most <= 1:
            return conversion(range=(0.0, 1.0))
        low, high, far = usual_range_overall(array, rows, UsualRange(low, high, far=False))
        _check_scale(name, high - low, low, high)
        return conversion(offset=low, scale=high - low, bound=float(ROOM) if far else BOUND)

    def stored(self, array: Values | SparseRows, places: Values) -> tuple[Rows, Values]:
        """Encode the rows of an array at `places` (n,), where −1 means no row, in the form that takes least space.

        Integers of images and volumes stay as they are, and are scaled when they are read; a sparse matrix stays
        sparse, unless a 0 is another number for the model. Returns rows that are read as `encode` returns them, and a
        mask of the same shape, true where a value is observed.
        """
        seen = np.broadcast_to(
            (places >= 0).reshape(-1, *[1] * len(self.modality.shape)), (len(places), *self.modality.shape)
        )
        if isinstance(array, SparseRows):
            encoded = EncodedRows(self, array, places)
            return (encoded if np.any(self.offset) else encoded.compressed), seen
        scale = self._scale
        if scale is None or scale.zero is None or not can_scale(array.dtype) or not seen.size:
            return self.encode(array, places)
        integers = zeros(seen.shape, array.dtype)
        for block in blocks(integers):
            own = places[block]
            integers[block] = np.where(
                seen[block], channels_first(array[own], self.axes), np.array(scale.zero, array.dtype)
            )
        return ScaledIntegers(integers, scale), seen

    @property
    def _scale(self) -> Scale | None:
        """The scale of integers that are stored as they are; None where the values are stored as floats."""
        if isinstance(self.offset, tuple) or isinstance(self.scale, tuple) or AXES[self.axes] == "vector":
            return None
        return Scale(self.offset, self.scale, self.bound) if self.kind in REAL else Scale(self.offset, self.scale)

    @property
    def integer_scale(self) -> Scale | None:
        """The scale of decoded images and volumes whose source has small integers; None where they stay floats."""
        scale = self._scale if self.kind in REAL and can_scale(np.dtype(self.dtype)) else None
        return None if scale is None or scale.zero is None else scale

    def encode(self, array: Values, places: Values) -> tuple[Values, Values]:
        """Encode the rows of an array at `places` (n,), where −1 means no row.

        Returns values (n, *shape) float32 and a mask of the same shape, true where a value is observed.
        """
        present = places >= 0
        shape = self.modality.shape
        values, seen = zeros((len(places), *shape), np.float32), zeros((len(places), *shape), bool)
        for block in blocks(array, len(places)):
            raw = array[places[block][present[block]]].astype(np.float64)
            if self.classes is not None and raw.size and raw.max() >= self.classes:
                expected = f"expected 0 to {self.classes - 1} as in the training rows"
                remedy = "provide more rows, or put a row with this token into training"
                raise UserError(f"{self.modality.title}: token {raw.max():g} found, {expected}; {remedy}")
            x = channels_first(self.standardised(self._counted(raw)), self.axes)
            observed = ~np.isnan(x)
            if self.kind in REAL:
                x = np.clip(x, -self.bound, self.bound)
            values[block][present[block]], seen[block][present[block]] = np.where(observed, x, 0), observed
        return values, seen

    def _counted(self, raw: Values) -> Values:
        """Return the counts in normalised counts; other values are unchanged."""
        return to_counts(self.kind, raw) if self.kind in NORMALISED else raw

    def standardised(self, raw: Values) -> Values:
        """Return (raw − offset) / scale."""
        with np.errstate(over="ignore"):
            return (raw - np.array(self.offset)) / np.array(self.scale)

    def lost(self, array: Values | SparseRows, places: Values, values: Rows, seen: Values) -> Any:
        """Return the original rows at `places` if `values` do not decode to exactly these, else None.

        Rows without a place (−1) are 0.
        """
        present = np.flatnonzero(places >= 0)
        for rows in (present[block] for block in blocks(array, len(present))):
            if not _identical(self._decoded(values[rows], seen[rows]), array[places[rows]]):
                if isinstance(array, SparseRows):
                    return array.taken(places)
                originals = np.zeros((len(places), *array.shape[1:]), array.dtype)
                originals[present] = array[places[present]]
                return originals
        return None

    def restored(self, values: Rows, seen: Values, source: Rows) -> Values:
        """Decode values, and take the source's value (n, …) wherever it still encodes to the given one."""
        restored = zeros(source.shape, source.dtype)
        for block in blocks(source):
            x, original = values[block], source[block]
            raw = self._decoded(x, seen[block], original)
            if source.dtype != raw.dtype:
                raw = as_dtype(raw.astype(np.float64), source.dtype)
            encoded, observed = self.encode(original, np.arange(len(original)))
            same = (observed == seen[block]) & (close(encoded, x) | ~observed)
            restored[block] = np.where(channels_back(same, self.axes), original, raw)
        return restored

    def valid(self, values: Values) -> Values:
        """Return decoded values (n, *shape) as the data have them: with their decimals, and within their limits.

        Those of images and volumes of integers are the numbers of such integers.
        """
        if (scale := self.integer_scale) is not None:
            return scale.numbers(scale.integers(values, self.dtype))
        if self.valid_range is self.decimals is self.total is None:
            return values
        raw = self._unscaled(np.asarray(values, np.float64))
        low, high = map(np.array, self.valid_range or (-np.inf, np.inf))
        if self.kind in AMOUNTS:
            raw = like_rows(self.kind, raw, self.total, low, high)
        return channels_first(self.standardised(np.clip(self._rounded(raw), low, high)), self.axes)

    def _unscaled(self, x: Values) -> Values:
        """Return the values v (n, …) of numbers x (n, *shape) float64, as float64."""
        return channels_back(x, self.axes) * np.array(self.scale) + np.array(self.offset)

    def _rounded(self, raw: Values) -> Values:
        """Return values v (n, …) with the decimals of the data."""
        if self.decimals is None:
            return raw
        return rounded(raw, np.array(self.decimals, np.float64))  # None becomes NaN, which rounds nothing

    def decode(self, values: Rows, seen: Values) -> Values:
        """Return values (n, …) in the source's type and axes; values not `seen` are NaN if the type has NaN."""
        decoded = zeros((len(values), *self.shape), self.dtype)
        for block in blocks(values):
            decoded[block] = self._decoded(values[block], seen[block])
        return decoded

    def _decoded(self, values: Values, seen: Values, source: Values | None = None) -> Values:
        """Decode values; normalised counts of a row have the unit that they have in the source (n, …), if given."""
        missing = np.nan if np.dtype(self.dtype).kind == "f" else 0.0
        raw = self._rounded(self._unscaled(np.where(seen, np.asarray(values, np.float64), missing)))
        if self.unit is not None:
            raw = np.rint(raw)
            unit = drawn_units(raw, self.unit)
            if source is not None:
                unit = units_in(self.kind, source.astype(np.float64), unit)
            return as_dtype(self._rounded(in_units(self.kind, raw, unit)), np.dtype(self.dtype))
        return as_dtype(raw if self.kind in REAL else np.rint(raw), np.dtype(self.dtype))

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        own = {key: _listed(getattr(self, key)) for key in (*OWN, *LATER)}
        return {**self.facts, **{key: value for key, value in own.items() if key in OWN or value != LATER[key]}}

    @classmethod
    def from_description(cls, name: str, entry: dict[str, Any], title: str = "") -> Self:
        """Return the conversion that `describe` described."""
        own: dict[str, Any] = {key: _tupled(entry[key]) for key in (*OWN, *(LATER.keys() & entry.keys()))}
        facts = {key: value for key, value in entry.items() if key not in (*OWN, *LATER)}
        return cls(name, **own, facts=facts, title=title)


class EncodedRows:
    """The encoded rows (n, X) of a sparse matrix at `places` (n,), dense only where they are read."""

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, conversion: ArrayConversion, array: SparseRows, places: Values) -> None:
        self._conversion, self._array, self._places = conversion, array, places
        self.shape: tuple[int, int] = (len(places), array.shape[1])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, rows: Any) -> Values:
        places = self._places[rows]
        present = places >= 0
        own = np.where(present, np.cumsum(present) - 1, -1)
        return self._conversion.encode(self._array[places[present]], own)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Values:
        return np.asarray(self[:], dtype)

    @property
    def compressed(self) -> Rows:
        """The rows as compressed rows, if these take less space than dense ones."""
        rows = SparseRows.compressed(chunks(self), self.shape[1])
        return rows if rows.nbytes < self.dtype.itemsize * math.prod(self.shape) else self


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, tuple) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value


def _vector_scales(name: str, kind: str, array: Values, rows: Values) -> dict[str, Any]:
    """Return the scales and limits of the coordinates of a vector, learned from its training rows."""
    usual = usual_range_per_coordinate(array, rows)
    offset, scale = UNSCALED
    total = None
    if kind == "numeric":
        offset, scale = moments(array, rows, usual)
    elif kind == "nonnegative":
        scale = positive_mean(array, rows, usual)
    if kind in AMOUNTS:
        total = common_total(array, rows, AMOUNTS[kind][0])
    known = as_number(np.where(np.isnan(usual.low), np.nan, scale))
    _check_scale(name, known, np.nanmin(usual.low), np.nanmax(usual.high))
    most = np.nanmax(np.maximum(offset - usual.low, usual.high - offset) / np.array(scale))
    return {
        "offset": offset,
        "scale": scale,
        "bound": ROOM * float(most) if usual.far.any() else BOUND,
        "valid_range": (as_number(usual.low), as_number(usual.high)),
        "total": total,
        "decimals": decimals_of(array, rows),
    }


def _check_scale(name: str, scale: Number, low: float, high: float) -> None:
    """Refuse values whose scale is infinite, or unknown because all values are missing."""
    if np.isnan(scale).any():
        found = f"coordinate {np.argmax(np.isnan(scale))} is missing in all training rows, expected two values or more"
        raise UserError(f"{name}: {found}; remove it from the array or provide more rows")
    if not np.isfinite(scale).all():
        expected = "expected values below 1e150, whose squares are finite; rescale them"
        raise UserError(f"{name}: values from {low:g} to {high:g} found, {expected}")


def _identical(array: Values, expected: Values) -> bool:
    """Whether arrays have the same values, with −0 ≠ 0, and NaN in the same places; types may differ."""
    floats = expected.dtype.kind == "f"
    if not all(np.array_equal(a, expected, equal_nan=floats) for a in (array, array.astype(expected.dtype))):
        return False
    return not floats or bool(((np.signbit(array) == np.signbit(expected)) | np.isnan(expected)).all())
