"""A lock for training in a project: the newest process takes it over, and it ends with its process."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_text
from postprior.pipelines.texts import tell

POLL = 0.1
"""Seconds between two attempts to take a lock that another process holds."""


@contextmanager
def sole_trainer(root: Path) -> Iterator[Callable[[], None]]:
    """Hold the right to train in a project inside the block; yield a function that confirms it.

    A new process writes a claim file, which replaces the claim of the process that trains, and waits for the lock. The
    process that trains holds the lock, and stops when the claim is no longer its own. So an orphan whose parent was
    killed stops as well. The two files are never removed: a claim has no effect without its process, and if the lock
    file were replaced, two processes could hold a lock each.

    Raises:
        UserError: a newer process has claimed the right, either here or when the yielded function is called.
    """
    claim, claim_text = root / ".postprior/trainer", f"{os.getpid()} {secrets.token_hex(8)}"
    write_text(claim, claim_text)

    def confirm() -> None:
        with suppress(OSError):
            newest = claim.read_text(errors="replace")
            if newest != claim_text:
                raise UserError(
                    f"train: process {newest.partition(' ')[0]} has started to train in {root}; this process stops, "
                    "and its checkpoint is kept for the new process to resume from"
                )

    with open(root / ".postprior/trainer.lock", "a+") as file:
        _wait(file, confirm)
        confirm()
        yield confirm


def _wait(file: IO[str], confirm: Callable[[], None]) -> None:
    """Wait for the lock on a file, then write this process's number into it."""
    holder = ""
    try:
        import fcntl

        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not holder:
                file.seek(0)
                if holder := file.read():
                    tell(f"train: waiting for process {holder} to stop training in this project", err=True)
            time.sleep(POLL)
            confirm()
    except (ImportError, OSError) as error:
        tell(
            f"train: {file.name} cannot be locked ({error}); run only one training at a time in this project", err=True
        )
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
