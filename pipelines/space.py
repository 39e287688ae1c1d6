"""Refuse results that fit neither on the disk nor into the memory of this machine, before anything is computed."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from postprior.pipelines.errors import UserError


def check_space(found: str, memory: int, disk: int = 0, place: Path = Path()) -> None:
    """Raise a UserError if a result needs more memory than there is, or more of the disk at `place` than is free.

    `found` begins the message: the request and its size. `memory` and `disk` are numbers of bytes; both are estimates
    from below, so that nothing is refused that might fit.
    """
    place = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    free, all_memory = shutil.disk_usage(place).free, _memory()
    if disk > free or (all_memory is not None and memory > all_memory):
        needed = f"{_bytes(memory)} of memory and {_bytes(disk)} on the disk"
        available = f"{_bytes(all_memory or 0)} and {_bytes(free)}"
        raise UserError(f"{found} need at least {needed}, expected at most {available}; request fewer")


def _memory() -> int | None:
    """Return the bytes of memory of this machine; None where the system does not say."""
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _bytes(number: int) -> str:
    power, unit = next(((p, u) for p, u in ((9, "GB"), (6, "MB")) if number >= 10**p), (3, "kB"))
    return f"{-(-number // 10**power)} {unit}"
