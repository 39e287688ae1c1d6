"""Run a command of the package in a second process while this one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

import postprior
from postprior.pipelines.errors import UserError

ERROR = "error: "
"""Stands before the message of a command that ends with an error."""


@contextmanager
def beside(root: Path, command: tuple[str, ...], otherwise: Callable[[], None]) -> Iterator[None]:
    """Run a command in a project in a second process during the block, and wait for its end after the block.

    Both processes share the threads of torch. With a single thread, `otherwise` is called instead, after the block.

    Args:
        root: the folder of the project.
        command: the command and its arguments, such as ("evaluate-imputation", "gmm"). It is not tracked.
        otherwise: does in this process what the command does.

    Raises:
        UserError: the command failed; the message is its own.
    """
    threads = torch.get_num_threads()
    if threads < 2 or not sys.executable:
        yield
        otherwise()
        return
    package = str(Path(postprior.__file__).parent.parent)  # this process may have found it in a folder of its own
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    environment = {"MLFLOW_TRACKING_URI": "off", "OMP_NUM_THREADS": str(threads // 2), "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, "-m", "postprior", *command],
        cwd=root,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    torch.set_num_threads(threads - threads // 2)
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
