"""Signals that end a command: it unwinds as from an exception, and exits with 128 + the signal's number.

Only the console script calls `watch`; where nobody did, signals do what Python lets them do.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
"""The signals that end a command, each with the word that tells of it."""
ENDING = [signum for signum in signal.Signals if signum.name in WORDS]


class Ended(KeyboardInterrupt):
    """What the first signal raises in the main thread: whatever heeds an interruption heeds it."""


class _State:
    """The signal that came, whether it is still to be raised, and how many blocks hold it back."""

    came: signal.Signals | None = None
    due = False
    holding = 0


def watch() -> None:
    """From now on the first signal of `WORDS` raises `Ended`, and later ones do nothing: clean-up is left in peace.

    A signal that is ignored already (by `nohup`, or in the background of a shell) stays so.
    """
    sys.unraisablehook = _raise_later
    for signum in ENDING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _come)


def exit_if_ended() -> None:
    """One line and the exit code of the signal that came, whatever became of its exception on the way."""
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)
    if _State.came is not None:
        with suppress(OSError):  # the terminal may be gone
            print(f"postprior: {WORDS[_State.came.name]}", file=sys.stderr, flush=True)
        raise SystemExit(128 + _State.came) from None


@contextmanager
def defer_signals() -> Iterator[None]:
    """A signal that comes inside the block is raised at its end: for short steps that belong together."""
    _State.holding += 1
    try:
        yield
    finally:
        _State.holding -= 1
        _raise_if_due()


def _come(signum: int, _: FrameType | None) -> None:
    if _State.came is None:
        _State.came, _State.due = signal.Signals(signum), True
    _raise_if_due()


def _raise_if_due() -> None:
    if _State.due and not _State.holding:
        _State.due = False
        raise Ended


def _raise_later(lost: sys.UnraisableHookArgs) -> None:
    """Raise `Ended` once more where Python drops it: in a finaliser, or in a callback of the import system."""
    if _State.came is None or not isinstance(lost.exc_value, Ended):
        sys.__unraisablehook__(lost)
        return
    from threading import Timer, get_ident

    _State.due = True
    Timer(0.01, signal.pthread_kill, [get_ident(), _State.came]).start()
