"""A process that writes to MLflow while the stage works: the import of MLflow takes as long as that of torch.

The stage sends one line of JSON per call: the name of a method of `Run`, its arguments and its keyword arguments. When
the stage dies, its lines end, and the run is closed as FAILED.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines import signals
from postprior.pipelines.tracking import client as mlflow_client
from postprior.pipelines.tracking.client import ExperimentGroup
from postprior.pipelines.tracking.runs import Run


class RemoteRun(Run):
    """A run that a worker logs. Failures are warnings of the worker; the methods here only send."""

    def __init__(self) -> None:
        super().__init__()
        command = [sys.executable, "-m", "postprior.pipelines.tracking.worker"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._worker = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=environment)

    def start(
        self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str], group: ExperimentGroup
    ) -> None:
        """Open the run; see `Run.start`."""
        self._send("start", str(root), name, params, tags, [group.name, group.settings, group.tags])

    def metrics(self, values: Mapping[str, Any], step: int = 0, prefix: str = "") -> None:
        """Log numbers; see `Run.metrics`."""
        self._send("metrics", values, step=step, prefix=prefix)

    def headlines(self, row: str, values: Mapping[str, Any]) -> None:
        """Log the scores by which experiments are compared; see `Run.headlines`."""
        self._send("headlines", row, values)

    def dataset(self, folder: Path, digest: str | None) -> None:
        """Tie the run to a dataset folder; see `Run.dataset`."""
        self._send("dataset", str(folder), digest)

    def file(self, path: Path) -> None:
        """Log a file or folder; see `Run.file`."""
        self._send("file", str(path))

    def picture(self, folder: Path, name: str) -> None:
        """Log a picture of the first samples; see `Run.picture`."""
        self._send("picture", str(folder), name)

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        self._send("tag", key, value)

    def finish(self, status: str) -> None:
        """Close the run, and wait until all is logged."""
        with signals.defer_signals():
            self._send("finish", status)
            with suppress(OSError):
                self._worker.communicate()

    def _send(self, method: str, *arguments: Any, **options: Any) -> None:
        assert self._worker.stdin is not None
        with suppress(OSError, ValueError):  # the worker has died, which it told of
            self._worker.stdin.write(json.dumps([method, arguments, options], default=_plain) + "\n")
            self._worker.stdin.flush()


def _plain(value: Any) -> Any:
    """Return a mapping or NumPy number as JSON has it, and any other object as text: no value may stop a stage."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if isinstance(value, np.generic) else str(value)


def main() -> None:
    """Log what the lines of the standard input say. Signals are the stage's to heed: its lines then end."""
    for signum in signals.ENDING:
        signal.signal(signum, signal.SIG_IGN)
    with suppress(Exception), mlflow_client.undisturbed():  # `start` says why MLflow cannot be imported
        from mlflow import MlflowClient  # noqa: F401 while the stage imports torch
    run, paths = Run(), {"start", "dataset", "file", "picture"}
    for line in sys.stdin:
        method, (*arguments,), options = json.loads(line)
        if method in paths:
            arguments[0] = Path(arguments[0])
        if method == "start":
            arguments[-1] = ExperimentGroup(*arguments[-1])
        getattr(run, method)(*arguments, **options)
    run.finish("FAILED")  # does nothing after `finish`


if __name__ == "__main__":
    main()
