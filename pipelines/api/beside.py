"""Run a command of the package in a second process while this one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from postprior.pipelines.errors import UserError

ERROR = "error: "
"""Stands before the message of a command that ends with an error."""


def cores() -> int:
    """Return the number of cores that this process may use: OMP_NUM_THREADS, or else those of the machine.

    By default torch has a thread for each physical core only.
    """
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal():
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def beside(root: Path, *command: str) -> Iterator[None]:
    """Run a command in a project in a second process during the block, and wait for its end after the block.

    Both processes share the threads of torch. The second one finds the modules that this one finds. Nothing is tracked.

    Args:
        root: the folder of the project.
        command: the command and its arguments, such as "evaluate-imputation", "gmm".

    Raises:
        UserError: the command failed; the message is its own.
    """
    threads = torch.get_num_threads()
    modules = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    environment = {"MLFLOW_TRACKING_URI": "off", "OMP_NUM_THREADS": str(max(1, threads // 2)), "PYTHONPATH": modules}
    process = subprocess.Popen(
        [sys.executable, "-m", "postprior", *command],
        cwd=root,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    torch.set_num_threads(max(1, threads - threads // 2))
    try:
        yield
        _, told = process.communicate()
    finally:
        process.kill()  # nothing if it has ended
        process.wait()
        torch.set_num_threads(threads)
    if process.returncode:
        lines = told.strip().splitlines() or [f"the process ended with {process.returncode}"]
        raise UserError(lines[-1].rpartition(ERROR)[2])
