"""A process that writes to MLflow while the stage works: the import of MLflow takes as long as that of torch.

The stage sends one line of JSON per call: the name of a method of `Run`, its arguments and its keyword arguments. When
the stage dies, its lines end, and the run is closed as FAILED. A worker of a stage that DVC runs then waits a few
seconds for the next stage of the same `dvc repro`, so that MLflow is imported once and not once per stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines import signals
from postprior.pipelines.tracking import client as mlflow_client
from postprior.pipelines.tracking.groups import ExperimentGroup
from postprior.pipelines.tracking.runs import Run

WAIT = 10.0
"""Seconds for which a worker waits for the next stage."""
ANSWER = b"\n"
"""What a worker sends when it takes a stage, and when all that the stage sent is logged."""


class RemoteRun(Run):
    """A run that a worker logs. Failures are warnings of the worker; the methods here only send."""

    def __init__(self) -> None:
        super().__init__()
        meeting = _meeting_point()
        connection = _waiting_worker(meeting) if meeting else None
        self._connection, self._worker = (connection, None) if connection else _new_worker(meeting)

    def start(
        self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str], group: ExperimentGroup
    ) -> None:
        """Open the run; see `Run.start`."""
        self._send("start", str(root), name, params, tags, astuple(group))

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Log numbers; see `Run.metrics`."""
        self._send("metrics", values, step=step)

    def row(
        self,
        name: str,
        scores: Mapping[str, float],
        settings: Mapping[str, Any],
        files: Sequence[Path | str],
        samples: Path | str | None,
    ) -> None:
        """Log a row of the leaderboard; see `Run.row`."""
        self._send("row", name, scores, settings, list(map(str, files)), samples and str(samples))

    def dataset(self, folder: Path, digest: str | None) -> None:
        """Tie the run to a dataset folder; see `Run.dataset`."""
        self._send("dataset", str(folder), digest)

    def file(self, path: Path) -> None:
        """Log a file or folder; see `Run.file`."""
        self._send("file", str(path))

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        self._send("tag", key, value)

    def finish(self, status: str) -> None:
        """Close the run, and wait until all is logged."""
        with signals.defer_signals():
            self._send("finish", status)
            with suppress(OSError), self._connection:
                self._connection.recv(len(ANSWER))
            if self._worker is not None:
                self._worker.wait()

    def _send(self, method: str, *arguments: Any, **options: Any) -> None:
        with suppress(OSError):  # the worker has died, which it told of
            self._connection.sendall((json.dumps([method, arguments, options], default=_plain) + "\n").encode())


def _meeting_point() -> Path | None:
    """Return the socket at which stages of one `dvc repro` find the worker of the last one; None outside of DVC.

    Its name depends on all that a worker takes from its first stage: the group of processes, the working directory, the
    environment, the database.
    """
    environment = {name: value for name, value in os.environ.items() if name != "DVC_STAGE"}
    if len(environment) == len(os.environ):
        return None
    try:
        folder = Path(tempfile.gettempdir()) / f"postprior-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        database = Path("mlflow.db")
        identity = [
            os.getpgrp(),
            os.getcwd(),
            database.exists() and database.stat().st_ino,
            sorted(environment.items()),
        ]
        state = folder.lstat()
        private = state.st_uid == os.getuid() and state.st_mode & 0o7777 == 0o700
    except OSError:
        return None
    return folder / hashlib.sha256(repr(identity).encode()).hexdigest()[:16] if private else None


def _new_worker(meeting: Path | None) -> tuple[socket.socket, subprocess.Popen[bytes] | None]:
    """Start a worker; return the connection to it, and the process if it ends with this stage."""
    ours, theirs = socket.socketpair()
    with theirs:
        worker = subprocess.Popen(
            [sys.executable, "-m", __name__, str(theirs.fileno()), *([str(meeting)] if meeting else [])],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        )
    return ours, None if meeting else worker


def _waiting_worker(meeting: Path) -> socket.socket | None:
    """Return a connection to the worker that waits at a socket, if there is one; its warnings go to our stderr."""
    connection = socket.socket(socket.AF_UNIX)
    with suppress(OSError):
        connection.settimeout(1)
        connection.connect(str(meeting))
        socket.send_fds(connection, [ANSWER], [sys.stderr.fileno()])
        if connection.recv(len(ANSWER)) == ANSWER:
            connection.settimeout(None)
            return connection
    connection.close()
    return None


def _plain(value: Any) -> Any:
    """Return a mapping or NumPy number as JSON has it, and any other object as text: no value may stop a stage."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if isinstance(value, np.generic) else str(value)


def main(descriptor: int, meeting: Path | None = None) -> None:
    """Log the runs of a stage, and of those that come to the meeting point in time.

    Signals are the stage's to heed: its lines then end.
    """
    for signum in signals.ENDING:
        signal.signal(signum, signal.SIG_IGN)
    with suppress(Exception):  # `start` says why MLflow cannot be imported
        mlflow_client.import_mlflow(Path())  # while the stage imports torch
    connection: socket.socket | None = socket.socket(fileno=descriptor)
    while connection is not None:
        with connection:
            _serve(connection)
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stderr.fileno())  # who reads the stderr of the stage waits for its end
        connection = _next_stage(meeting) if meeting else None


def _serve(connection: socket.socket) -> None:
    """Log what the lines of a stage say."""
    run, paths = Run(), {"start", "dataset", "file"}
    with connection.makefile() as lines:
        for line in lines:
            if not line.endswith("\n"):  # the stage died
                break
            method, (*arguments,), options = json.loads(line)
            if method in paths:
                arguments[0] = Path(arguments[0])
            if method == "start":
                arguments[-1] = ExperimentGroup(*arguments[-1])
            getattr(run, method)(*arguments, **options)
            if method == "finish":
                with suppress(OSError):
                    connection.sendall(ANSWER)
    run.finish("FAILED")  # does nothing after `finish`


def _next_stage(meeting: Path) -> socket.socket | None:
    """Return the connection of the next stage, None if none comes in time; nobody else can come while it is served."""
    with suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as listener:
        meeting.unlink(missing_ok=True)
        listener.bind(str(meeting))
        try:
            listener.listen()
            listener.settimeout(WAIT)
            connection, _ = listener.accept()
        finally:
            meeting.unlink(missing_ok=True)
        connection.settimeout(None)
        _, (stderr, *_), _, _ = socket.recv_fds(connection, len(ANSWER), 1)
        os.dup2(stderr, sys.stderr.fileno())
        os.close(stderr)
        connection.sendall(ANSWER)
        return connection
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]), *map(Path, sys.argv[2:]))
