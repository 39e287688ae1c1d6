"""Connect to MLflow, without its telemetry, long waits and log messages."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.publishing import write_text

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASES = ("sqlite:", "postgresql:", "mysql:", "mssql:")
LONGEST_KEY = 250  # characters of the name of a metric or setting, the limit of MLflow

# Environment during calls to MLflow, unless the user has set it: no telemetry, no progress bars, no long retries.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
FIRST_ANSWER = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
"""The same for the first calls: a server that accepts connections and does not answer costs seconds, not minutes."""
FAILED = ".postprior/failed-server"
"""File of a project that names a server that has failed, and the pipeline in which it did."""


def address(root: Path) -> str | None:
    """Return where runs are logged: MLFLOW_TRACKING_URI or mlflow.db in the project; None if tracking is off."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project_of(root) / 'mlflow.db'}"
    return None if uri == "off" else uri


def shown(uri: str) -> str:
    """Return an address without the password that it may have.

    >>> shown("postgresql://ada:secret@db:5432/runs")
    'postgresql://…@db:5432/runs'
    """
    return re.sub(r"//[^/@]*@", "//…@", uri)


def log_no_more(uri: str, root: Path) -> str:
    """Note that a server has failed, so that the following stages of this pipeline do not try it; return what is noted.

    Databases are tried again: they fail quickly, and mostly because another process writes to them.
    """
    if uri.startswith(DATABASES):
        return ""
    write_text(project_of(root) / FAILED, _pipeline(uri))
    return "; the next stages of this pipeline do not try again"


def has_failed(uri: str, root: Path) -> bool:
    """Whether a server failed in an earlier stage of this pipeline, in the last hour."""
    path = project_of(root) / FAILED
    with suppress(OSError, ValueError):
        return time.time() - path.stat().st_mtime < 3600 and path.read_text(encoding="utf-8") == _pipeline(uri)
    return False


def _pipeline(uri: str) -> str:
    """Return a text that is the same in all stages that one `dvc repro` runs, which form a group of processes."""
    return f"{os.getpgrp()} {uri}"


def connect(uri: str) -> MlflowClient:
    """Return a client."""
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):  # raise at once if it cannot be written; MLflow would retry for long
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            database.execute("BEGIN IMMEDIATE")
    return MlflowClient(tracking_uri=uri)


def log_params(client: MlflowClient, run: str, params: Mapping[str, Any]) -> None:
    """Log settings, each cut to the length that MLflow allows."""
    from mlflow.entities import Param

    named = {safe_key(key): str(value)[:6000] for key, value in params.items()}
    logged = [Param(key, value) for key, value in named.items()]
    for first in range(0, len(logged), 100):  # the maximum size of a batch
        client.log_batch(run, params=logged[first : first + 100])


def safe_key(name: str) -> str:
    """Return a name of a metric or setting that MLflow allows.

    >>> safe_key("generate.balance.a//b(c)")
    'generate.balance.a__b_c_'
    """
    key = re.sub(r"^\.|[^\w. -]", "_", name)
    return (
        key if len(key) <= LONGEST_KEY else f"{key[: LONGEST_KEY - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    )


def reason(error: BaseException) -> str:
    """Return the first line of the original error of a chain, which libraries may have wrapped in other errors."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


@contextmanager
def undisturbed(**settings: str) -> Iterator[None]:
    """Set `ENVIRONMENT` and more variables and silence MLflow's log messages; restore everything at the end."""
    missing = {key: value for key, value in {**ENVIRONMENT, **settings}.items() if key not in os.environ}
    os.environ.update(missing)
    levels: dict[logging.Logger, int] = {}
    try:
        import mlflow  # noqa: F401 the import sets levels of loggers

        for logger in map(logging.getLogger, ("mlflow", "alembic")):
            levels[logger] = logger.level
            logger.setLevel(logging.CRITICAL)  # what fails is raised as well, and told in one line
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        for key in missing:
            os.environ.pop(key, None)


def import_mlflow(root: Path) -> None:
    """Import what `connect` and the calls of a client need.

    MLflow imports pandas if it is installed, for functions that are not called here. It is hidden for this import,
    which then takes a sixth less time.
    """
    hidden = {"pandas"} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python does not find the module
    try:
        with undisturbed():
            from mlflow import MlflowClient  # noqa: F401

            if (address(root) or "").startswith(DATABASES):
                import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 a client would import it with its first call
    finally:
        for name in hidden:
            del sys.modules[name]


def project_of(root: Path) -> Path:
    """Return the project of a folder; DVC runs queued experiments in temporary copies of the project."""
    root, original = root.resolve(), os.environ.get("DVC_ROOT")
    if original and Path(original).resolve() / ".dvc/tmp" in root.parents:
        return Path(original).resolve()
    return root
