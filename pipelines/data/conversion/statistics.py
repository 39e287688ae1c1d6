"""Statistics of the training rows of an array, by coordinate or of all values together; NaN means missing."""

from collections.abc import Iterator

import numpy as np

from postprior.pipelines.data.arrays import CHUNK, Values, chunks
from postprior.pipelines.data.conversion.outliers import GAP, UsualRange, usual_range
from postprior.pipelines.data.conversion.precision import MOST, fewest_decimals

SAMPLE = 1 << 18  # number of values from which the usual range of images is estimated
Number = float | tuple[float, ...]


def as_number(values: Values) -> Number:
    """Return one number, or one per coordinate."""
    return tuple(values.tolist()) if values.shape else float(values)


def ends_of(array: Values, rows: Values) -> tuple[Number, Number]:
    """Return the least and the greatest value of each coordinate; 0 if all of its values are NaN."""
    pairs = [(np.fmin.reduce(chunk), np.fmax.reduce(chunk)) for chunk in chunks(array, rows)]
    low, high = (
        np.nan_to_num(ends.astype(np.float64))
        for ends in (np.fmin.reduce([low for low, _ in pairs]), np.fmax.reduce([high for _, high in pairs]))
    )
    return as_number(low), as_number(high)


def decimals_of(array: Values, rows: Values) -> int | tuple[int | None, ...] | None:
    """Return the decimals of each coordinate of a vector, None where they are too many; None if they all are."""
    fewest = np.max([fewest_decimals(chunk) for chunk in chunks(array, rows)], 0)
    if (fewest > MOST).all():
        return None
    return tuple(None if n > MOST else n for n in fewest.tolist()) if fewest.shape else int(fewest)


def limits(array: Values, rows: Values | None = None) -> tuple[float, float]:
    """Return the least and greatest value that is not NaN; (0, 0) if there are none."""
    pairs = [(np.nanmin(c), np.nanmax(c)) for c in chunks(array, rows) if not np.isnan(c).all()]
    low, high = zip(*pairs, strict=True) if pairs else ((0,), (0,))
    return float(min(low)), float(max(high))


def usual_range_per_coordinate(array: Values, rows: Values) -> UsualRange:
    """Return the usual range of each coordinate of a vector; NaN if all of its values are NaN."""
    flat = array.reshape(len(array), -1)
    ranges = np.full((3, flat.shape[1]), np.nan)
    for start in range(0, flat.shape[1], step := max(1, CHUNK // len(rows))):
        block = np.ascontiguousarray(flat[rows, start : start + step].T, np.float64)
        for j, coordinate in enumerate(block, start):
            if len(observed := coordinate[~np.isnan(coordinate)]):
                ranges[:, j] = usual_range(observed)
    low, high, far = ranges.reshape(3, *array.shape[1:])
    return UsualRange(low, high, far == 1)


def usual_range_overall(array: Values, rows: Values, ends: UsualRange) -> UsualRange:
    """Return the usual range of all values together, given their least and greatest value (`ends`).

    The range is estimated from about `SAMPLE` evenly spaced values; all values near it then extend it.
    """
    size = len(rows) * int(np.prod(array.shape[1:]))
    flat = array.reshape(len(array), -1)
    places = np.arange(0, size, max(1, size // SAMPLE))
    sample = flat[rows[places // flat.shape[1]], places % flat.shape[1]].astype(np.float64)
    estimate = usual_range(np.append(sample[~np.isnan(sample)], [ends.low, ends.high]))
    if not estimate.far:
        return ends
    spread = GAP * (estimate.high - estimate.low)
    low, high = estimate.high, estimate.low
    for chunk in chunks(array, rows):
        near = chunk[(chunk >= estimate.low - spread) & (chunk <= estimate.high + spread)]
        if near.size:
            low, high = min(low, float(near.min())), max(high, float(near.max()))
    return UsualRange(low, high, far=True)


def moments(array: Values, rows: Values, usual: UsualRange) -> tuple[Number, Number]:
    """Return mean and standard deviation of each coordinate, without far outliers.

    The deviation is 1 if a coordinate is constant, and NaN if it has no value.
    """
    shape = array.shape[1:]

    def usual_values() -> Iterator[Values]:
        for chunk in chunks(array, rows):
            outside = (chunk < usual.low) | (chunk > usual.high)
            yield np.where(outside, np.nan, chunk) if outside.any() else chunk

    count, mean = np.zeros(shape), np.zeros(shape)
    for chunk in usual_values():
        count += (~np.isnan(chunk)).sum(0)
        mean += np.nansum(chunk, 0, dtype=np.float64)
    mean /= np.maximum(count, 1)
    square = np.zeros(shape)
    with np.errstate(over="ignore"):  # an overflow gives an infinite scale, which `_check_scale` refuses
        for chunk in usual_values():
            square += np.nansum((chunk - mean) ** 2, 0)
    deviation = np.sqrt(square / np.maximum(count, 1))
    deviation = np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1), deviation, 1.0)
    deviation = np.where(count > 0, deviation, np.nan)
    return as_number(mean), as_number(deviation)
