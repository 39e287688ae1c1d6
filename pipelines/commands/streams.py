"""The standard streams of the process: closed ones, terminals that are not UTF-8, and output that cannot be written."""

import io
import os
import sys

STREAMS = {"stdin": os.O_RDONLY, "stdout": os.O_RDONLY, "stderr": os.O_WRONLY}
"""The streams in the order of their descriptors, and how the null device takes the place of a closed one. Writing to
stdout still fails then, as it does if it is closed: its lines are results. Lines on stderr are left out."""


def prepare() -> None:
    """Open closed streams, so that no file of ours gets their descriptors; let stdout show escapes, as stderr does."""
    for descriptor, (name, flags) in enumerate(STREAMS.items()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free descriptor is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def drop_unwritten() -> None:
    """Drop what could not be written to stdout: its loss is reported, and Python would try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
