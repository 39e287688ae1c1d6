"""MLflow that is dead, frozen or locked under the command line: one warning, and the same results."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from support.forked import Command, Project


@contextmanager
def dead(_: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def frozen(_: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    with closing(sqlite3.connect(folder / "locked.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield f"sqlite:///{folder / 'locked.db'}"


Fault = Callable[[Path], AbstractContextManager[str]]
REASONS: dict[Fault, str] = {dead: "Connection refused", frozen: "timed out", locked: "database is locked"}


@pytest.mark.slow
@pytest.mark.parametrize("project", ["quick"], indirect=True)
@pytest.mark.parametrize("fault", REASONS)
def test_mlflow_that_fails_costs_one_warning(project: Project, tmp_path: Path, fault: Fault) -> None:
    with fault(tmp_path) as address:
        for words in project.stages:
            command = Command(project.root, words, {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"})
            assert command.wait() == 0, command.said
            assert command.said.count("postprior: warning: MLflow could not log this run") == 1, command.said
            assert REASONS[fault] in command.said
            assert "Traceback" not in command.said
            project.check(words)
