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
        needed = f"{_gigabytes(memory)} of memory" + (f" and {_gigabytes(disk)} on the disk" if disk else "")
        available = f"{_gigabytes(all_memory or 0)} and {_gigabytes(free)}" if disk else _gigabytes(all_memory or 0)
        raise UserError(f"{found} need at least {needed}, expected at most {available}; request fewer")


def _memory() -> int | None:
    """Return the bytes of memory of this machine; None where the system does not say."""
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _gigabytes(number: int) -> str:
    return f"{-(-number // 10**9)} GB"
