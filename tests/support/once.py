"""Folders that one process of a test run makes and that all processes of the run share."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def shared_base(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the whole run: workers of pytest-xdist each have a folder in it."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(base: Path, name: str, make: Callable[[Path], object]) -> Path:
    """Return the folder `base`/`name`, which the first process to ask for it makes while the others wait.

    The lock ends with its process. If `make` fails, the next process tries again.
    """
    folder, half = base / name, base / f"{name}.half"
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(half, ignore_errors=True)
            make(half)
            half.rename(folder)
    return folder


def state(project: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of a project, by its path; without the artifacts that MLflow keeps beside them."""
    paths = {path.relative_to(project): path.stat() for path in project.rglob("*") if path.is_file()}
    return {str(path): (of.st_size, of.st_mtime_ns) for path, of in paths.items() if path.parts[0] != "mlartifacts"}
