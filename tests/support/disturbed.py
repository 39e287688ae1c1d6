"""Publish again and again, each time disturbed one step later, in forks of a small process.

It does not import torch, because a fork of a process takes as long as its memory is large.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from postprior.pipelines import publishing, signals
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_text
from postprior.pipelines.storage import load_artefact, save_artefact

CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}
"""Audit events of Python that are calls of the system; `os.fsync` has none."""
DONE, TERMINATED, FAILED, UNDISTURBED = 0, 143, 5, 7
OLD, NEW = "old", "new"


def save(path: Path, value: str) -> None:
    save_artefact(path, "thing", {"value": value}, arrays={"d": np.ones(3)})


def saved(path: Path) -> str | None:
    return load_artefact(path, "thing").manifest["value"] if path.exists() else None


def written(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


KINDS = {"folder": (save, saved), "file": (write_text, written)}


class Signal:
    """Send a signal to this process before it runs the given line of the module that publishes."""

    def __init__(self, signum: int, number: int) -> None:
        self.signum, self.left = signum, number

    def start(self) -> None:
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename != publishing.__file__:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signum)
        return self._trace


class Failure:
    """Let the given call of the system fail in this process."""

    def __init__(self, error: int, number: int) -> None:
        self.error, self.left = error, number

    def start(self) -> None:
        sys.addaudithook(lambda event, _: self._count() if event in CALLS else None)
        os.fsync = lambda _: self._count()

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.error, os.strerror(self.error))


def fork(disturbance: Signal | Failure, action: Callable[[], object]) -> int:
    """Disturb an action in a fork of this process, and return how it ended."""
    process = os.fork()
    if process == 0:
        code = 1
        try:
            signals.watch()
            disturbance.start()
            action()
            code = UNDISTURBED if disturbance.left > 0 else DONE
        except signals.Ended:
            code = TERMINATED
        except (OSError, UserError):
            code = FAILED
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(root: str, kind: str, before: str, disturbance: str, argument: str) -> None:
    """Print as JSON how each publication ended, what was there afterwards, and whether it left an unfinished part."""
    publish, read = KINDS[kind]
    os.fsync = lambda _: None  # no power failure is tried, and flushing takes most of the time
    path, endings = Path(root, "thing"), []
    for number in itertools.count(1):
        publish(path, OLD)
        assert not list(path.parent.glob(".*.partial")), number  # the next publication removes it
        if not before:
            shutil.rmtree(path) if kind == "folder" else path.unlink()
        code = fork(
            {"signal": Signal, "failure": Failure}[disturbance](int(argument), number), lambda: publish(path, NEW)
        )
        if code == UNDISTURBED:
            break
        endings.append((code, read(path), bool(list(path.parent.glob(".*.partial")))))
    print(json.dumps(endings))


if __name__ == "__main__":
    main(*sys.argv[1:])
