"""Commands of the command line in forked processes: torch is imported once, so that most commands take a second."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Event
from pathlib import Path

from support.project import REPOSITORY

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["postprior.pipelines.commands.app"]
    + [f"postprior.pipelines.stages.{path.stem}" for path in REPOSITORY.glob("pipelines/stages/[a-z]*.py")]
)
LIMIT = 280
"""Seconds after which a command that has not ended has failed its test."""


class Command:
    """A command in a project, which runs from now on, in a session of its own.

    Args:
        root: The project. What the command prints goes to a file beside it.
        words: The command and its arguments.
        environment: More variables. Tracking is off unless they have an address.
        fault: Called in the new process before the command.
    """

    def __init__(
        self, root: Path, words: str, environment: Mapping[str, str] | None = None, fault: Callable[[], object] = str
    ) -> None:
        self.words = words
        self._log = root.with_name(f"{root.name}.{time.monotonic_ns()}.log")
        variables = {"MLFLOW_TRACKING_URI": "off", **(environment or {})}
        watching = SERVER.Event()
        self._process: ForkServerProcess = SERVER.Process(
            target=_main, args=(root, words, self._log, variables, fault, watching)
        )
        self._process.start()
        assert watching.wait(LIMIT), f"{words} has not started"
        self._started = time.monotonic()

    def send(self, signum: int) -> None:
        """Send a signal, unless the command has ended."""
        assert self._process.pid is not None
        if self._process.exitcode is None:
            os.kill(self._process.pid, signum)

    def wait(self) -> int:
        """Wait until the command has ended, and return its exit code, which is negative for a signal."""
        self._process.join(LIMIT)
        self.seconds = time.monotonic() - self._started
        if self._process.exitcode is None:
            self._process.kill()
        assert self._process.exitcode is not None, f"{self.words} has not ended in {LIMIT} s: {self.said}"
        return self._process.exitcode

    @property
    def said(self) -> str:
        """What the command has printed, on both streams."""
        return self._log.read_text()


def run(root: Path, words: str) -> float:
    """Run a command to its end, which must be a good one, and return its seconds."""
    command = Command(root, words)
    assert command.wait() == 0, (words, command.said)
    return command.seconds


def content(root: Path) -> dict[str, str]:
    """The hash of every file that stages leave in a project, by path."""
    paths = [path for part in ("artefacts", "results") for path in (root / part).rglob("*")]
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
        if path.is_file() and ".partial" not in str(path) and path.name != ".gitignore"
    }


class Project:
    """A project with results, and some commands that made them."""

    def __init__(self, root: Path, stages: Sequence[str]) -> None:
        self.root, self.stages, self.whole = root, stages, content(root)

    def check(self, case: object = None) -> None:
        """All results are there with the same bytes, and nothing else."""
        assert content(self.root) == self.whole, case
        assert not partials(self.root), case


def partials(root: Path) -> list[Path]:
    """The files and folders that publications have not finished."""
    return list(root.rglob(".*.partial"))


def _main(
    root: Path, words: str, log: Path, variables: dict[str, str], fault: Callable[[], object], watching: Event
) -> None:
    """Be the console script, in the new process."""
    from postprior.pipelines import commands, signals

    watch = signals.watch

    def watch_and_tell() -> None:
        watch()
        watching.set()

    os.setsid()
    with open(log, "wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
    os.chdir(root)
    os.environ.update(variables)
    sys.argv = ["postprior", *words.split()]
    signals.watch = watch_and_tell
    fault()
    commands.main()
