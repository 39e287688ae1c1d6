"""The connection to MLflow: where runs go and how they are grouped, without its telemetry, long waits and reports."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.settings.params import Params, leaves

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "postprior"
DATABASES = ("sqlite:", "postgresql:", "mysql:", "mssql:")
TAG = "group"
PARENT = "mlflow.parentRunId"  # MLflow's own tag: its page shows such runs beneath their parent
CHOICES = ("densities", "compare")  # settings that say which results are shown, not what they are

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
    return None if uri == "off" else uri


def connect(uri: str, root: Path) -> tuple[MlflowClient, str]:
    """A client, and the id of the experiment."""
    from mlflow import MlflowClient

    if uri.startswith("sqlite:///"):  # raise at once if it cannot be written, which MLflow would try for long
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            database.execute("BEGIN IMMEDIATE")
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
    levels: dict[logging.Logger, int] = {}
    try:
        import mlflow  # noqa: F401 sets its own levels when it is imported

        for logger in map(logging.getLogger, ("mlflow", "alembic")):
            levels[logger] = logger.level
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
        for key in missing:
            os.environ.pop(key, None)


@dataclass(frozen=True)
class ExperimentGroup:
    """What the stages of one `dvc repro` share, whichever of them run: a parent run that experiments are compared by.

    It is named by DVC's experiment, or else git's branch or commit; `settings` are all that results follow from, by
    dotted key, and `tags` say where the runs come from.
    """

    name: str
    settings: dict[str, Any]
    tags: dict[str, str]

    @classmethod
    def of(cls, params: Params, root: Path) -> ExperimentGroup:
        """The group of the runs that settings lead to."""
        experiment, (commit, branch) = os.environ.get("DVC_EXP_NAME", ""), _revision(root)
        tree = params.chosen(params.density)
        settings = dict(leaves({key: value for key, value in tree.items() if key not in CHOICES}))
        tags = {"DVC_EXP_NAME": experiment, "mlflow.source.git.commit": commit, "model": params.vae.model}
        name = experiment or branch or commit[:12] or root.resolve().name
        return cls(name, settings, {key: value for key, value in tags.items() if value})

    @property
    def key(self) -> str:
        """The identity of the group, the same in every process."""
        text = json.dumps([self.name, self.settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def parent(self, client: MlflowClient, experiment: str) -> str:
        """The id of the parent run: the first that has the key, or a new one."""
        found = client.search_runs(
            [experiment],
            filter_string=f"tags.`{TAG}` = '{self.key}' AND tags.`stage` = 'all'",
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if found:
            return str(found[0].info.run_id)
        tags = {**self.tags, TAG: self.key, "stage": "all"}
        run = str(client.create_run(experiment, tags=tags, run_name=self.name).info.run_id)
        log_params(client, run, self.settings)
        return run


def _project(root: Path) -> Path:
    """The project that a folder is, or is a copy of: DVC runs queued experiments in copies that it then removes."""
    root, original = root.resolve(), os.environ.get("DVC_ROOT")
    if original and Path(original).resolve() / ".dvc/tmp" in root.parents:
        return Path(original).resolve()
    return root


def _experiment(client: MlflowClient, artifacts: str | None) -> str:
    """The id of the experiment, made when it is not there; another process may be making it right now."""
    from mlflow.exceptions import MlflowException

    if not (found := client.get_experiment_by_name(EXPERIMENT)):
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=artifacts))
        except MlflowException:
            if not (found := client.get_experiment_by_name(EXPERIMENT)):
                raise
    return str(found.experiment_id)


def _revision(root: Path) -> tuple[str, str]:
    """Git's commit and branch, empty where there is none."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD", "--abbrev-ref", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        commit, branch = answer.stdout.split()
        return commit, "" if branch == "HEAD" else branch
    return "", ""
