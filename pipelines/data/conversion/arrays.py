"""A numeric array as values that a model learns, and back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import numpy as np

from postprior.pipelines.data.arrays import CHUNK, Values, blocks, chunks
from postprior.pipelines.data.conversion.columns import as_dtype, close
from postprior.pipelines.data.conversion.outliers import BOUND, GAP, ROOM, Usual, usual
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import shell_quoted
from postprior.stage1_vae.modalities import Modality

AXES = {
    **dict.fromkeys(("", "X"), "vector"),
    **dict.fromkeys(("HW", "HWC", "CHW"), "image"),
    **dict.fromkeys(("DHW", "CDHW"), "volume"),
}
"""Axes of one value as the source has them, and the kind of modality that they make."""
OWN = ("kind", "axes", "dtype", "offset", "scale", "classes", "shape", "range")
"""What manifests say of a conversion, beside its bound and facts."""
KINDS = ("numeric", "count", "boolean", "tokens")
SAMPLE = 1 << 18  # values of images that tell what is usual
Number = float | tuple[float, ...]


@dataclass(frozen=True)
class ArrayConversion:
    """Values v of one array, the modality `name`, as x = (v − offset) / scale with channels first.

    `kind` is one of `KINDS`; all but numeric values stay as they are. `axes` (a key of `AXES`), `dtype` and `shape` are
    those of one value in the source, `offset` and `scale` one number or one a coordinate. `range` is that of x, where
    the source's type or all of its values bound it, `classes` the number of tokens, `bound` the greatest |x| of numeric
    values: those beyond are far outliers, and become this. `facts` are its `source` and what that needs to write it.
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
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def modality(self) -> Modality:
        """What the model is told of it."""
        kind = "sequence" if self.kind == "tokens" else AXES[self.axes]
        likelihoods = {"count": "negative_binomial", "boolean": "bernoulli", "tokens": "categorical"}
        likelihood = likelihoods.get(self.kind, "normal" if kind == "vector" else "laplace")
        shape = channels_first(np.empty((1, *self.shape), bool), self.axes).shape[1:]
        return Modality(self.name, kind, shape, likelihood, self.range, self.classes)

    @classmethod
    def fit(
        cls, name: str, kind: str, axes: str, array: Values, rows: Values, there: Values, facts: dict[str, Any]
    ) -> Self:
        """Learn from the training rows of an array (n, …), where NaN is missing.

        Vectors are standardised coordinate by coordinate, images and volumes scaled to 0 … 1: bytes by 255, others
        by their least and greatest value, unless all rows that are `there` lie there already. Far outliers have no
        part in a scale. Values that are all one, or too large, are refused, and a coordinate that is never there.
        """
        known = partial(cls, name, kind, axes, str(array.dtype), array.shape[1:], facts=facts)
        low, high = limits(array, rows)
        if low == high:
            found = f"constant among the training rows, all values are {low:g}, expected two or more"
            raise UserError(f"{name}: {found}; leave it out (--skip {shell_quoted(name)})")
        if kind == "tokens":
            return known(classes=int(max(chunk.max() for chunk in chunks(array, rows))) + 1)
        if kind != "numeric":
            return known()
        if AXES[axes] == "vector":
            each = usual_of_each(array, rows)
            offset, scale = moments(array, rows, each)
            _check_scale(name, scale, low, high)
            most = np.nanmax(np.maximum(offset - each.low, each.high - offset) / np.array(scale))
            return known(offset=offset, scale=scale, bound=ROOM * float(most) if each.far.any() else BOUND)
        if array.dtype == np.uint8:
            return known(scale=255.0, range=(0.0, 1.0))
        least, most = limits(array, there)
        if least >= 0 and most <= 1:
            return known(range=(0.0, 1.0))
        low, high, far = usual_of_all(array, rows, Usual(low, high, far=False))
        _check_scale(name, high - low, low, high)
        return known(offset=low, scale=high - low, bound=float(ROOM) if far else BOUND)

    def encode(self, array: Values, places: Values) -> tuple[Values, Values]:
        """Values (n, *shape) float32 and which were there, from the rows of an array at `places` (n,), −1 for none."""
        found = places >= 0
        shape = self.modality.shape
        values, seen = np.zeros((len(places), *shape), np.float32), np.zeros((len(places), *shape), bool)
        for block in blocks(array, len(places)):
            raw = array[places[block][found[block]]].astype(np.float64)
            if self.classes is not None and raw.size and raw.max() >= self.classes:
                known = f"training rows have 0 to {self.classes - 1}, expected no others"
                remedy = "give more rows or put such a row into training"
                raise UserError(f"{self.name}: token {raw.max():g} found, {known}; {remedy}")
            x = channels_first(self.standardised(raw), self.axes)
            there = ~np.isnan(x)
            if self.kind == "numeric":
                x = np.clip(x, -self.bound, self.bound)
            values[block][found[block]], seen[block][found[block]] = np.where(there, x, 0), there
        return values, seen

    def standardised(self, raw: Values) -> Values:
        """Values without their unit."""
        with np.errstate(over="ignore"):
            return (raw - np.array(self.offset)) / np.array(self.scale)

    def lost(self, array: Values, places: Values, values: Values, seen: Values) -> Values | None:
        """The rows of an array at `places` as it has them, 0 for none, where `values` cannot give them back."""
        found = np.flatnonzero(places >= 0)
        for some in (found[block] for block in blocks(array, len(found))):
            if not _alike(self.decode(values[some], seen[some]), array[places[some]]):
                kept = np.zeros((len(places), *array.shape[1:]), array.dtype)
                kept[found] = array[places[found]]
                return kept
        return None

    def restored(self, values: Values, seen: Values, source: Values) -> Values:
        """What `decode` gives, with the values of the source (n, …) where these are what `values` stand for."""
        raw = self.decode(values, seen)
        if source.dtype != raw.dtype:
            raw = as_dtype(raw.astype(np.float64), source.dtype)
        for block in blocks(source):
            x, there = self.encode(source[block], np.arange(len(source[block])))
            same = (there == seen[block]) & (close(x, values[block]) | ~there)
            raw[block] = np.where(channels_back(same, self.axes), source[block], raw[block])
        return raw

    def decode(self, values: Values, seen: Values) -> Values:
        """Values of the source's type, (n, …) with its axes; what was not `seen` is NaN where the type has it."""
        x = np.where(seen, np.asarray(values, np.float64), np.nan if np.dtype(self.dtype).kind == "f" else 0.0)
        raw = channels_back(x, self.axes) * np.array(self.scale) + np.array(self.offset)
        return as_dtype(raw if self.kind == "numeric" else np.rint(raw), np.dtype(self.dtype))

    def describe(self) -> dict[str, Any]:
        """JSON-able description."""
        known = {key: list(value) if isinstance(value := getattr(self, key), tuple) else value for key in OWN}
        return {**self.facts, **known, **({} if self.bound == BOUND else {"bound": self.bound})}

    @classmethod
    def from_description(cls, name: str, entry: dict[str, Any]) -> Self:
        """The conversion that gave this description."""
        known: dict[str, Any] = {key: tuple(v) if isinstance(v := entry[key], list) else v for key in OWN}
        facts = {key: value for key, value in entry.items() if key not in (*OWN, "bound")}
        return cls(name, **known, bound=entry.get("bound", BOUND), facts=facts)


def channels_first(array: Values, axes: str) -> Values:
    """Values (n, …) with the given axes as (n, channels, …), a vector as (n, X)."""
    if axes == "HWC":
        return np.moveaxis(array, -1, 1)
    return array[:, None] if axes in ("", "HW", "DHW") else array


def channels_back(array: Values, axes: str) -> Values:
    """The inverse of `channels_first`."""
    if axes == "HWC":
        return np.moveaxis(array, 1, -1)
    return array[:, 0] if axes in ("", "HW", "DHW") else array


def limits(array: Values, rows: Values | None = None) -> tuple[float, float]:
    """Least and greatest of the values that are not NaN; 0 and 0 where there are none."""
    found = [(np.nanmin(c), np.nanmax(c)) for c in chunks(array, rows) if not np.isnan(c).all()]
    low, high = zip(*found, strict=True) if found else ((0,), (0,))
    return float(min(low)), float(max(high))


def _check_scale(name: str, scale: Number, low: float, high: float) -> None:
    """Refuse values whose scale is beyond all numbers, or not known for want of values."""
    if np.isnan(scale).any():
        found = f"coordinate {np.argmax(np.isnan(scale))} is missing in all training rows, expected two values or more"
        raise UserError(f"{name}: {found}; drop it from the array, or give more rows")
    if not np.isfinite(scale).all():
        expected = "expected such as can be squared, below 1e150; rescale them"
        raise UserError(f"{name}: values from {low:g} to {high:g} found, {expected}")


def usual_of_each(array: Values, rows: Values) -> Usual:
    """What is usual of each coordinate of a vector; NaN where all values are."""
    flat = array.reshape(len(array), -1)
    found = np.full((3, flat.shape[1]), np.nan)
    for start in range(0, flat.shape[1], step := max(1, CHUNK // len(rows))):
        block = np.ascontiguousarray(flat[rows, start : start + step].T, np.float64)
        for j, coordinate in enumerate(block, start):
            if len(known := coordinate[~np.isnan(coordinate)]):
                found[:, j] = usual(known)
    low, high, far = found.reshape(3, *array.shape[1:])
    return Usual(low, high, far == 1)


def usual_of_all(array: Values, rows: Values, ends: Usual) -> Usual:
    """What is usual of all values together, whose `ends` are known; some of them at equal steps tell where it lies."""
    size = len(rows) * int(np.prod(array.shape[1:]))
    flat = array.reshape(len(array), -1)
    places = np.arange(0, size, max(1, size // SAMPLE))
    some = flat[rows[places // flat.shape[1]], places % flat.shape[1]].astype(np.float64)
    found = usual(np.append(some[~np.isnan(some)], [ends.low, ends.high]))
    if not found.far:
        return ends
    spread = GAP * (found.high - found.low)
    low, high = found.high, found.low
    for chunk in chunks(array, rows):
        near = chunk[(chunk >= found.low - spread) & (chunk <= found.high + spread)]
        if near.size:
            low, high = min(low, float(near.min())), max(high, float(near.max()))
    return Usual(low, high, far=True)


def _alike(found: Values, expected: Values) -> bool:
    """Whether arrays have the same values, −0 and 0 told apart, and NaN in the same places; types may differ."""
    floats = expected.dtype.kind == "f"
    if not all(np.array_equal(of, expected, equal_nan=floats) for of in (found, found.astype(expected.dtype))):
        return False
    return not floats or bool(((np.signbit(found) == np.signbit(expected)) | np.isnan(expected)).all())


def moments(array: Values, rows: Values, each: Usual) -> tuple[Number, Number]:
    """Mean and standard deviation of the usual values of each coordinate, 1 where it is constant; NaN without any."""
    shape = array.shape[1:]

    def usual_ones() -> Iterator[Values]:
        for chunk in chunks(array, rows):
            outside = (chunk < each.low) | (chunk > each.high)
            yield np.where(outside, np.nan, chunk) if outside.any() else chunk

    count, mean = np.zeros(shape), np.zeros(shape)
    for chunk in usual_ones():
        count += (~np.isnan(chunk)).sum(0)
        mean += np.nansum(chunk, 0, dtype=np.float64)
    mean /= np.maximum(count, 1)
    square = np.zeros(shape)
    with np.errstate(over="ignore"):  # beyond the range of numbers it is infinite, and refused as such
        for chunk in usual_ones():
            square += np.nansum((chunk - mean) ** 2, 0)
    deviation = np.sqrt(square / np.maximum(count, 1))
    deviation = np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1), deviation, 1.0)
    deviation = np.where(count > 0, deviation, np.nan)
    return (tuple(mean.tolist()), tuple(deviation.tolist())) if shape else (float(mean), float(deviation))
