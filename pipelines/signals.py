"""Signals that end a command: the command unwinds as after an exception, and exits with code 128 + the signal's number.

Only the console script calls `watch`. Without this call, signals keep Python's default behaviour.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from postprior.pipelines.ranks import is_first_to_tell

DESCRIPTIONS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}
"""The signals that end a command, each with the word that is printed for it."""
ENDING = [signum for signum in signal.Signals if signum.name in DESCRIPTIONS]


class Ended(KeyboardInterrupt):
    """Raised in the main thread by the first signal. Code that handles KeyboardInterrupt handles it as well."""


class _State:
    """The signal that was received, whether it is still to be raised, and how many open blocks defer it."""

    received: signal.Signals | None = None
    due = False
    deferring = 0


def watch() -> None:
    """Let the first of the signals in `DESCRIPTIONS` raise `Ended`; ignore later ones, so that clean-up can finish.

    A signal that is already ignored (by `nohup`, or in the background of a shell) stays ignored.
    """
    sys.unraisablehook = _raise_later
    for signum in ENDING:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, _receive)


def exit_if_ended() -> None:
    """Print one line and exit with the code of the received signal, even if its exception was swallowed."""
    for signum in ENDING:
        signal.signal(signum, signal.SIG_IGN)
    if _State.received is not None:
        if is_first_to_tell():
            with suppress(OSError):  # the terminal may be gone
                print(f"postprior: {DESCRIPTIONS[_State.received.name]}", file=sys.stderr, flush=True)
        raise SystemExit(128 + _State.received) from None


@contextmanager
def defer_signals() -> Iterator[None]:
    """Raise a signal that arrives inside the block at its end: for short steps that must not be separated."""
    _State.deferring += 1
    try:
        yield
    finally:
        _State.deferring -= 1
        _raise_if_due()


def _receive(signum: int, _: FrameType | None) -> None:
    if _State.received is None:
        _State.received, _State.due = signal.Signals(signum), True
    _raise_if_due()


def _raise_if_due() -> None:
    if _State.due and not _State.deferring:
        _State.due = False
        raise Ended


def _raise_later(lost: sys.UnraisableHookArgs) -> None:
    """Raise `Ended` again where Python dropped it: in a finaliser, or in a callback of the import system."""
    if _State.received is None or not isinstance(lost.exc_value, Ended):
        sys.__unraisablehook__(lost)
        return
    from threading import Timer, get_ident

    _State.due = True
    Timer(0.01, signal.pthread_kill, [get_ident(), _State.received]).start()
