"""Blocks of rows that ranks share: each computes some of them, and the first one gets all.

Blocks are fixed and have their own seeds, so that results do not depend on the number of ranks. What a rank has
computed is published as a file in a folder that all ranks see. A job that was killed and started again, on any number
of ranks, skips what is there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.ranks import check_same
from postprior.stage1_vae.ranks import Ranks

Arrays = Mapping[str, np.ndarray]
Block = tuple[int, Arrays]
"""The number of the first row of a block, and arrays of its rows by name."""
PART, FEW = 8, 256
"""Blocks in one file, and files in one folder."""


@dataclass(frozen=True)
class Sharing:
    """How a job shares blocks.

    Args:
        ranks: The processes of the job; a single one writes no files of blocks.
        folder: The folder of the files.
        inputs: What the blocks of the job depend on: hashes of its files, and its settings.
    """

    ranks: Ranks
    folder: Path
    inputs: tuple[str, ...] = ()

    @contextmanager
    def blocks(
        self, title: str, inputs: Any, count: int, compute: Callable[[range], Iterable[Block]]
    ) -> Iterator[Iterator[Block] | None]:
        """Yield all blocks on the first rank, and None on the others, which have done their part then.

        The files are removed at the end of the block, unless it raises an error.

        Args:
            title: The title of the progress.
            inputs: What else the blocks depend on, as a value of JSON.
            count: The number of blocks.
            compute: Returns the blocks with some of the numbers from 0 to count − 1.
        """
        if self.ranks.size == 1:
            yield iter(compute(range(count)))
            return
        everything = json.dumps([title, inputs, count, self.inputs], sort_keys=True)
        key = hashlib.sha256(everything.encode()).hexdigest()[:16]
        check_same(self.ranks, title, key)
        place = self.folder / key
        parts = {first: range(first, min(first + PART, count)) for first in range(0, count, PART)}
        paths = {first: place / f"{first // (PART * FEW)}" / f"{first}.safetensors" for first in parts}
        missing = json.dumps([first for first, path in paths.items() if not path.exists()])
        own = json.loads(self.ranks.from_first(missing.encode()))[self.ranks.rank :: self.ranks.size]
        with progress(f"{title}, on each of {self.ranks.size} ranks", len(own)) as step:
            for first in own:
                write_bytes(paths[first], save(_named(compute(parts[first]))))
                step("")
        self.ranks.wait()
        if not self.ranks.is_first:
            yield None
            return
        yield (block for path in paths.values() for block in _read(path))
        shutil.rmtree(place, ignore_errors=True)


ALONE = Sharing(Ranks(), Path())
"""What a job of one process has."""


def _named(blocks: Iterable[Block]) -> dict[str, np.ndarray]:
    """Return the arrays of blocks by the number of the first row and the name."""
    return {f"{start}/{name}": np.ascontiguousarray(array) for start, a in blocks for name, array in a.items()}


def _read(path: Path) -> Iterator[Block]:
    """Yield the blocks in a file, in the order of their rows."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"{path}: found no such file on the host of rank 0, expected what another rank wrote there; put the "
            "project in a folder that all hosts share"
        ) from None
    with as_user_error(SafetensorError, f"{path}: not a file of blocks", "remove it and start the job again"):
        arrays = load(content)
    starts: dict[int, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        start, _, key = name.partition("/")
        starts.setdefault(int(start), {})[key] = array
    yield from sorted(starts.items())
