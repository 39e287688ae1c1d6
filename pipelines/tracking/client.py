"""The connection to MLflow: where runs go, without its telemetry, its long waits and its reports."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "postprior"
OFF = "off"
DATABASES = ("sqlite:", "postgresql:", "mysql:", "mssql:")

# Environment while MLflow works, unless the user has set it: no telemetry, no bars, and no minutes of retrying.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def address(root: Path) -> str | None:
    """Where runs go: MLFLOW_TRACKING_URI, or mlflow.db in the project; None when tracking is off."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_project(root) / 'mlflow.db'}"
    return None if uri == OFF else uri


def connect(uri: str, root: Path) -> tuple[MlflowClient, str]:
    """A client, and the id of the experiment."""
    from mlflow import MlflowClient

    _check_writable(uri)
    client = MlflowClient(tracking_uri=uri)
    served = not uri.startswith(DATABASES)  # a server knows where its artifacts belong
    return client, _experiment(client, None if served else (_project(root) / "mlartifacts").as_uri())


def log_params(client: MlflowClient, run: str, params: Mapping[str, Any]) -> None:
    """Log settings, each cut to what MLflow takes."""
    from mlflow.entities import Param

    logged = [Param(key, str(value)[:6000]) for key, value in params.items()]
    for first in range(0, len(logged), 100):  # the most that a batch takes
        client.log_batch(run, params=logged[first : first + 100])


def reason(error: BaseException) -> str:
    """The first line of the error at the bottom of the chain: what the libraries above it wrapped."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


@contextmanager
def undisturbed(**settings: str) -> Iterator[None]:
    """MLflow in our environment, with settings beside it, and without its reports; all is then as it was."""
    missing = {key: value for key, value in {**ENVIRONMENT, **settings}.items() if key not in os.environ}
    os.environ.update(missing)
    try:
        with _quiet():
            yield
    finally:
        for key in missing:
            os.environ.pop(key, None)


@contextmanager
def _quiet() -> Iterator[None]:
    import mlflow  # noqa: F401 sets its own levels when it is imported

    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _project(root: Path) -> Path:
    """The project that a folder is, or is a copy of: DVC runs queued experiments in copies that it then removes."""
    root, original = root.resolve(), os.environ.get("DVC_ROOT")
    if original and Path(original).resolve() / ".dvc/tmp" in root.parents:
        return Path(original).resolve()
    return root


def _check_writable(uri: str) -> None:
    """Raise at once if an SQLite database cannot be written, which MLflow would try for a minute and a half."""
    if uri.startswith("sqlite:///"):
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            database.execute("BEGIN IMMEDIATE")


def _experiment(client: MlflowClient, artifacts: str | None) -> str:
    """The id of the experiment, made when it is not there; another process may be making it right now."""
    from mlflow.exceptions import MlflowException

    if found := client.get_experiment_by_name(EXPERIMENT):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
    except MlflowException:
        if found := client.get_experiment_by_name(EXPERIMENT):
            return str(found.experiment_id)
        raise
