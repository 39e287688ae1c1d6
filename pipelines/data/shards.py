"""Arrays (N, …) in several .npy files, the shards, which are read as one array without being joined.

Shard k of an array `name` is the file `<name>.<k, five digits>.npy`. All shards have the same number of rows, except
that the last one may have fewer.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Values, blocks
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import ArrayWriter, load_array, save_array

LARGEST = 2 * 10**9
"""Bytes of values in a file, from which on an array is written as shards."""


class Shards:
    """An array (N, …) whose rows lie in several arrays, one after the other.

    A slice of rows in one shard is a view of it; all other rows are copied when they are read.

    Args:
        parts: arrays (n, …) of one type, with the same n except that the last may be shorter.

    >>> rows = Shards([np.array([0, 10]), np.array([20, 30]), np.array([40])])
    >>> rows[3], rows[1:4].tolist(), rows[[4, 0, -2]].tolist()
    (np.int64(30), [10, 20, 30], [40, 0, 30])
    """

    def __init__(self, parts: Sequence[Values]) -> None:
        kinds = {(part.dtype, part.shape[1:]) for part in parts}
        lengths = [len(part) if part.ndim else 0 for part in parts]
        if len(kinds) != 1 or not lengths[0] or {*lengths[:-1]} - {lengths[0]} or not 0 < lengths[-1] <= lengths[0]:
            shapes = ", ".join(f"{part.dtype} {part.shape}" for part in parts[:4])
            expected = "expected one type and shape of rows, and as many rows in each but the last"
            raise ValueError(f"shards: found {shapes or 'none'}, {expected}")
        self.parts, self.step = tuple(parts), lengths[0]
        self.shape: tuple[int, ...] = (sum(lengths), *parts[0].shape[1:])
        self.dtype, self.ndim = parts[0].dtype, parts[0].ndim

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, places: Any) -> Any:
        """Return rows at an index, a slice, indices (n,) or a mask (N,), or parts of these rows."""
        rows, rest = (places[0], places[1:]) if isinstance(places, tuple) else (places, ())
        if isinstance(rows, int | np.integer):
            shard, place = divmod(range(len(self))[rows], self.step)
            return self.parts[shard][(place, *rest)]
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._between(start, max(start, stop), rest)
            rows = np.arange(start, stop, step)
        rows = np.asarray(rows)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64, copy=False)
        return self._at(np.where(rows < 0, rows + len(self), rows), rest)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Values:
        return np.asarray(self[:], dtype)

    def min(self, initial: Any = np._NoValue) -> Any:
        """The least value."""
        return np.min([part.min(initial=initial) for part in self.parts])

    def max(self, initial: Any = np._NoValue) -> Any:
        """The greatest value."""
        return np.max([part.max(initial=initial) for part in self.parts])

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return sum(part.nbytes for part in self.parts)

    def _between(self, start: int, stop: int, rest: tuple[Any, ...]) -> Values:
        """Return the rows from `start` to before `stop`."""
        first, last = start // self.step, max(start, stop - 1) // self.step
        pieces = [
            part[(slice(max(start - number * self.step, 0), max(stop - number * self.step, 0)), *rest)]
            for number, part in enumerate(self.parts[first : last + 1], first)
        ]
        if not pieces:
            return np.asarray(self.parts[0][(slice(0, 0), *rest)])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _at(self, rows: Values, rest: tuple[Any, ...]) -> Values:
        """Return the rows at indices (n,) of at least 0."""
        if not len(rows):
            return np.asarray(self.parts[0][(rows, *rest)])
        shards, places = np.divmod(rows, self.step)
        order = np.argsort(shards, kind="stable")
        numbers, starts = np.unique(shards[order], return_index=True)
        groups = np.split(order, starts[1:])
        pieces = [self.parts[number][(places[own], *rest)] for number, own in zip(numbers, groups, strict=True)]
        if len(pieces) == 1:
            return np.asarray(pieces[0])
        found = np.empty((len(rows), *pieces[0].shape[1:]), self.dtype)
        found[order] = np.concatenate(pieces)
        return found


class ShardsWriter:
    """Write the shards of an array of a known shape in pieces, with `step` rows in each file."""

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: Any, step: int) -> None:
        self.step = step
        self._writers = [
            ArrayWriter(folder / shard_name(name, number), (min(step, shape[0] - start), *shape[1:]), dtype)
            for number, start in enumerate(range(0, shape[0], step))
        ]

    def write(self, start: int, rows: Values) -> None:
        """Write `rows` (n, …) to rows start … start + n."""
        for number in range(start // self.step, -(-(start + len(rows)) // self.step)):
            origin = number * self.step
            here = rows[max(origin - start, 0) : origin + self.step - start]
            self._writers[number].write(max(start - origin, 0), here)


def shard_name(name: str, number: int) -> str:
    """Return the name of the file of a shard.

    >>> shard_name("m0", 7)
    'm0.00007.npy'
    """
    return f"{name}.{number:05}.npy"


def shard_files(shards: Mapping[str, int]) -> set[str]:
    """Return the names of the files of all shards, given their number by array."""
    return {shard_name(name, number) for name, count in shards.items() for number in range(count)}


def rows_per_shard(shape: tuple[int, ...], dtype: Any, largest: int) -> int:
    """Return how many rows of this shape a file of at most `largest` bytes has, at least 1."""
    return max(1, largest // max(1, np.dtype(dtype).itemsize * math.prod(shape)))


def save_shards(folder: Path, name: str, array: Any, largest: int = LARGEST) -> dict[str, int]:
    """Write an array as one file, or as shards if it has shards or more than `largest` bytes of values.

    Returns:
        The number of shards by the name of the array; empty for one file.
    """
    step = array.step if isinstance(array, Shards) else rows_per_shard(array.shape[1:], array.dtype, largest)
    if not isinstance(array, Shards) and len(array) <= step:
        save_array(folder / f"{name}.npy", array)
        return {}
    writer = ShardsWriter(folder, name, array.shape, array.dtype, step)
    for rows in blocks(array):
        writer.write(rows.start, array[rows])
    return {name: -(-len(array) // step)}


def load_shards(folder: Path, name: str, shards: Mapping[str, int]) -> Any:
    """Load an array memory-mapped: an .npy file, or as many shards as `shards` says.

    Raises:
        UserError: a file is missing or broken, or the shards do not belong together.
    """
    if name not in shards:
        return load_array(folder / f"{name}.npy")
    try:
        return Shards([load_array(folder / shard_name(name, number)) for number in range(shards[name])])
    except ValueError as error:
        raise UserError(f"{folder / name}.*.npy: {error}; make the folder again with all its files") from None


def is_stored(folder: Path, name: str, shards: Mapping[str, int]) -> bool:
    """Whether a folder has an array of this name, as one file or as shards."""
    return name in shards or (folder / f"{name}.npy").exists()
