"""Rows that are stored in little space and read as dense arrays: scaled integers, and compressed sparse rows."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from postprior.pipelines.data.arrays import Rows, Values, chunks
from postprior.pipelines.data.shards import LARGEST, Shards, is_stored, load_shards, save_shards
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import PIECE, save_array

PARTS = (".data", ".indices", ".indptr")
"""Suffixes of the names of the three arrays of sparse rows."""
LARGEST_INTEGER = 2
"""Bytes of the largest type of scaled integers: there is a table of all their values."""


@dataclass(frozen=True)
class Scale:
    """The numbers x = (v − offset) / scale that integers v stand for, at most `bound` in absolute value."""

    offset: float = 0.0
    scale: float = 1.0
    bound: float = float("inf")

    def __post_init__(self) -> None:
        if not (np.isfinite(self.offset) and np.isfinite(self.scale) and self.scale > 0 and self.bound > 0):
            raise ValueError(f"scale of integers: found {asdict(self)}, expected finite numbers and a scale above 0")

    def numbers(self, integers: Values) -> Values:
        """Return the numbers as float32, computed in double precision."""
        x = (integers.astype(np.float64) - self.offset) / self.scale
        return np.clip(x, -self.bound, self.bound).astype(np.float32)

    def integers(self, numbers: Values, dtype: Any) -> Values:
        """Return the integers of a type whose numbers are nearest.

        >>> Scale(scale=255).integers(np.array([-0.1, 0.5, 1.1], np.float32), "uint8").tolist()
        [0, 128, 255]
        """
        ends = np.iinfo(dtype)
        v = np.rint(numbers.astype(np.float64) * self.scale + self.offset)
        return np.clip(v, ends.min, ends.max).astype(dtype)

    def describe(self) -> dict[str, float]:
        """Return a JSON-serialisable description, the inverse of `from_description`."""
        return {key: value for key, value in asdict(self).items() if np.isfinite(value)}

    @classmethod
    def from_description(cls, entry: Mapping[str, float]) -> Self:
        """Return the scale that `describe` described."""
        return cls(**{key: float(value) for key, value in entry.items()})

    @property
    def zero(self) -> int | None:
        """The integer that stands for 0; None if there is none."""
        return int(self.offset) if float(self.offset).is_integer() else None


class ScaledIntegers:
    """Integers (N, …) of one or two bytes, read as float32 numbers of a scale.

    >>> rows = ScaledIntegers(np.array([[0, 51], [255, 102]], np.uint8), Scale(scale=255))
    >>> rows[1:].tolist() == [[1.0, np.float32(0.4)]]
    True
    """

    def __init__(self, integers: Values | Shards, scale: Scale) -> None:
        if not can_scale(integers.dtype):
            raise ValueError(f"integers: found type {integers.dtype}, expected integers of one or two bytes")
        self.integers, self.scale = integers, scale
        self.shape, self.ndim, self.dtype = integers.shape, integers.ndim, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.integers)

    def __getitem__(self, rows: Any) -> Values:
        if self._divides:
            integers = np.asarray(self.integers[rows])
            x = np.subtract(integers, np.float32(self.scale.offset), dtype=np.float32)
            return np.divide(x, np.float32(self.scale.scale), out=x if x.ndim else None)
        return np.asarray(self.table[self.places(rows)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Values:
        return np.asarray(self[:], dtype)

    def places(self, rows: Any) -> Values:
        """Return the places of the integers at `rows` in `table`, in an unsigned type of their size."""
        return np.asarray(self.integers[rows]).view(self._unsigned)

    def taken(self, rows: Values) -> Self:
        """Return the rows at these indices, copied into memory."""
        return type(self)(self.integers[rows], self.scale)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number."""
        low, high = self.scale.numbers(np.array([self.integers.min(), self.integers.max()]))
        return float(low), float(high)

    @property
    def whole(self) -> bool:
        """Whether all numbers are known to be whole."""
        return self.scale.scale == 1 and self.scale.zero is not None

    @property
    def _unsigned(self) -> np.dtype[Any]:
        return np.dtype(f"u{self.integers.dtype.itemsize}")

    @cached_property
    def _every(self) -> Values:
        """Every integer of the type, in the order of its bits."""
        return np.arange(1 << 8 * self.integers.dtype.itemsize).astype(self._unsigned).view(self.integers.dtype)

    @cached_property
    def table(self) -> Values:
        """The number, float32, of every integer of the type, in the order of its bits."""
        return self.scale.numbers(self._every)

    @cached_property
    def _divides(self) -> bool:
        """Whether single precision, which is faster than the table, gives the numbers of the table bit for bit."""
        x = (self._every.astype(np.float32) - np.float32(self.scale.offset)) / np.float32(self.scale.scale)
        return x.tobytes() == self.table.tobytes()


class SparseRows:
    """A matrix (N, X) in compressed rows (CSR), dense only where rows are read.

    Args:
        data: the values that are stored, one row after the other.
        indices: the column of each of them.
        indptr: (N + 1,), where each row begins and ends in `data`.
        columns: the number X of columns.
        dtype: the type of dense rows; by default that of `data`.

    >>> rows = SparseRows(np.array([5, 7], np.uint8), np.array([2, 0]), np.array([0, 1, 1, 2]), columns=3)
    >>> rows[[2, 0]].tolist(), rows[1:].tolist()
    ([[7, 0, 0], [0, 0, 5]], [[0, 0, 0], [7, 0, 0]])
    """

    ndim = 2

    def __init__(
        self, data: Values | Shards, indices: Values | Shards, indptr: Values, columns: int, dtype: Any = None
    ) -> None:
        self.data, self.indices, self.indptr = data, indices, indptr
        self.shape: tuple[int, int] = (len(indptr) - 1, columns)
        self.dtype: np.dtype[Any] = np.dtype(dtype or data.dtype)

    @classmethod
    def of(cls, matrix: Any) -> Self:
        """Return the rows of a `scipy.sparse.csr_array`, which is not changed."""
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        indptr = matrix.indptr.astype(np.int64, copy=False)
        return cls(matrix.data, matrix.indices.astype(np.int32, copy=False), indptr, matrix.shape[1])

    @classmethod
    def compressed(cls, dense: Iterable[Values], columns: int) -> Self:
        """Return the values of dense blocks (n, X) that are not 0, in the smallest type that holds them exactly."""
        data, indices, lengths = [], [], [np.zeros(1, np.int64)]
        for block in dense:
            rows, places = np.nonzero(block)
            data.append(narrowed(block[rows, places]))
            indices.append(places.astype(np.int32))
            lengths.append(np.bincount(rows, minlength=len(block)))
        floats = any(part.dtype.kind == "f" for part in data)
        kind = np.dtype(np.float32) if floats else np.result_type(*(part.dtype for part in data))
        indptr = np.cumsum(np.concatenate(lengths))
        return cls(np.concatenate(data, dtype=kind), np.concatenate(indices), indptr, columns, np.float32)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Any) -> Values:
        """Return rows, or a block of columns of rows, as a dense array."""
        if isinstance(places, tuple):
            rows, columns = places
            return np.asarray(self._by_column[:, columns].toarray()[rows], self.dtype)
        if isinstance(places, int | np.integer):
            return np.asarray(self[np.array([places])][0])
        entries, lengths = self._entries(places)
        dense = np.zeros((len(lengths), self.shape[1]), self.dtype)
        dense[np.repeat(np.arange(len(lengths)), lengths), self.indices[entries]] = self.data[entries]
        return dense

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Values:
        return np.asarray(self[:], dtype)

    def reshape(self, *shape: int) -> Self:
        """Return the matrix itself, whose rows are flat."""
        return self

    def taken(self, places: Values) -> Self:
        """Return the rows at these places, copied into memory; 0 where a place is −1."""
        present = places >= 0
        entries, some = self._entries(places[present])
        lengths = np.zeros(len(places), np.int64)
        lengths[present] = some
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        return type(self)(self.data[entries], self.indices[entries], indptr, self.shape[1], self.dtype)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest number, 0 included."""
        return float(self.data.min(initial=0)), float(self.data.max(initial=0))

    @property
    def finite(self) -> bool:
        """Whether all numbers are finite."""
        return self.data.dtype.kind in "iub" or all(np.isfinite(chunk).all() for chunk in chunks(self.data))

    @property
    def whole(self) -> bool:
        """Whether all numbers are known to be whole."""
        return self.data.dtype.kind in "iub"

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return int(self.data.nbytes + self.indices.nbytes + self.indptr.nbytes)

    def _entries(self, places: Any) -> tuple[slice | Values, Values]:
        """Return where the values of rows stand in `data`, and how many each row has."""
        if isinstance(places, slice):
            start, stop, step = places.indices(len(self))
            if step == 1:
                ends = self.indptr[start : max(start, stop) + 1]
                return slice(int(ends[0]), int(ends[-1])), np.diff(ends)
            places = np.arange(start, stop, step)
        rows = np.asarray(places)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        starts = self.indptr[:-1][rows]
        lengths = self.indptr[1:][rows] - starts
        shift = np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        return shift + np.arange(len(shift)), lengths

    @cached_property
    def _by_column(self) -> Any:
        """The same matrix in compressed columns."""
        from scipy.sparse import csr_array

        parts = np.asarray(self.data), np.asarray(self.indices), self.indptr
        return csr_array(parts, shape=self.shape).tocsc()


Stored = ScaledIntegers | SparseRows
"""Rows that take less space than a dense array of float32."""


def can_scale(dtype: np.dtype[Any]) -> bool:
    """Whether integers of this type can be scaled when they are read."""
    return dtype.kind in "iu" and dtype.itemsize <= LARGEST_INTEGER


def narrowed(values: Values) -> Values:
    """Return values (n,) in the smallest integer type that holds them exactly, or as float32 if none does.

    >>> [str(narrowed(np.array(values)).dtype) for values in ([1.0, 255.0], [1, -2], [70000], [0.5], [])]
    ['uint8', 'int8', 'uint32', 'float32', 'uint8']
    """
    low, high = values.min(initial=0), values.max(initial=0)
    if not (np.abs([low, high]) < 2**31).all() or not (values == np.rint(values)).all():
        return values.astype(np.float32, copy=False)
    kinds = map(np.dtype, ("u1", "i1", "u2", "i2", "u4", "i4"))
    return values.astype(next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max))


def taken(rows: Rows, places: Values) -> Rows:
    """Return the rows at these indices, copied into memory in the form in which they are stored."""
    return rows.taken(places) if isinstance(rows, Stored) else rows[places]


def save_rows(folder: Path, name: str, rows: Any, largest: int = LARGEST) -> dict[str, int]:
    """Write rows into a folder: one array, or for sparse rows three of them, one for each of `PARTS`.

    An array of more than `largest` bytes becomes shards; where rows end in `indptr` stays one file.

    Returns:
        The number of shards by array that has them.
    """
    if not isinstance(rows, SparseRows):
        array = rows.integers if isinstance(rows, ScaledIntegers) else rows
        return save_shards(folder, name, array, largest)
    *values, ends = (f"{name}{part}" for part in PARTS)
    save_array(folder / f"{ends}.npy", rows.indptr)
    arrays = zip(values, (rows.data, rows.indices), strict=True)
    return {key: count for part, array in arrays for key, count in save_shards(folder, part, array, largest).items()}


def load_rows(
    folder: Path, name: str, columns: int, dtype: Any = None, shards: Mapping[str, int] | None = None
) -> Values | Shards | SparseRows:
    """Load what `save_rows` wrote and returned as `shards`, memory-mapped.

    Sparse rows have this number of columns, and are read in the type `dtype`. A UserError is raised
    if a file is missing or broken, or if the three arrays are not compressed rows.
    """
    shards = shards or {}
    if is_stored(folder, name, shards) or not (folder / f"{name}{PARTS[-1]}.npy").exists():
        return load_shards(folder, name, shards)
    data, indices, indptr = (load_shards(folder, f"{name}{part}", shards) for part in PARTS)
    rows = SparseRows(data, indices, indptr, columns, dtype)
    if (problem := _problem(rows)) is not None:
        raise UserError(f"{folder / name}{problem}; import the data again.")
    return rows


def _problem(rows: SparseRows) -> str | None:
    """Say which of the arrays of sparse rows is wrong; None if all are right."""
    data, indices, indptr = rows.data, rows.indices, rows.indptr
    for part, array, kinds in zip(PARTS, (data, indices, indptr), ("fiub", "iu", "iu"), strict=True):
        if array.ndim != 1 or array.dtype.kind not in kinds:
            return f"{part}.npy: type {array.dtype} of shape {array.shape} found, expected one row of numbers"
    if len(indptr) < 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any() or not indptr[-1] == len(data) == len(indices):
        return f"{PARTS[2]}.npy: found other ends of rows than those of {len(data)} values, expected compressed rows"
    if len(indices) and not (indices.min() >= 0 and indices.max() < rows.shape[1]):
        return f"{PARTS[1]}.npy: a column beyond {rows.shape[1] - 1} found, expected 0 to {rows.shape[1] - 1}"
    for start in range(0, len(indices), PIECE):
        falls = np.flatnonzero(np.diff(indices[start : start + PIECE + 1]) <= 0) + start + 1
        if not (indptr[np.searchsorted(indptr, falls)] == falls).all():
            return f"{PARTS[1]}.npy: columns out of order found, expected rising columns in each row"
    return None
