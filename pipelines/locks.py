"""One trainer a project: the newest to start takes over, and its lock dies with its process."""

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
"""Seconds between two looks at a lock that another process holds."""


@contextmanager
def sole_trainer(root: Path) -> Iterator[Callable[[], None]]:
    """The right to train in a project, inside the block; what it yields raises when a newer process has claimed it.

    Who starts writes a claim, which replaces that of whoever trains, and waits for the lock. Who trains holds the
    lock, and gives it up when the claim is no longer its own. So an orphan whose parent was killed stops. Nobody
    removes the two files: a claim means nothing without its process, and two processes would hold two locks. A
    UserError tells of a newer process that claimed the right, here or when the yielded function is called.
    """
    claim, mine = root / ".postprior/trainer", f"{os.getpid()} {secrets.token_hex(8)}"
    write_text(claim, mine)

    def confirm() -> None:
        with suppress(OSError):
            newest = claim.read_text(errors="replace")
            if newest != mine:
                raise UserError(
                    f"train: process {newest.partition(' ')[0]} has started to train in {root} since; this one stops, "
                    "and what it trained is kept for the other to resume"
                )

    with open(root / ".postprior/trainer.lock", "a+") as file:
        _wait(file, confirm)
        confirm()
        yield confirm


def _wait(file: IO[str], confirm: Callable[[], None]) -> None:
    """Lock a file, in which its holder then stands."""
    told = ""
    try:
        import fcntl

        while True:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if not told:
                file.seek(0)
                if told := file.read():
                    tell(f"train: waits for process {told} to stop training here", err=True)
            time.sleep(POLL)
            confirm()
    except (ImportError, OSError) as error:
        tell(f"train: no lock on {file.name} ({error}); start one train at a time here", err=True)
        return
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
