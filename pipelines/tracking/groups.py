"""The experiments of MLflow, and the group of runs that belong to one `dvc repro`.

The experiment `SAMPLERS` has one run per row of the leaderboard, with the headline metrics of the registry: samplers
and settings are compared there. The experiment `STAGES` has one run per executed stage below a parent run per group.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.settings.defaults import chosen_settings, differing
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.client import DATABASES, log_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

SAMPLERS = "postprior-samplers"
STAGES = "postprior-stages"
GROUP = "group"  # tag of all runs of a group
PARENT = "mlflow.parentRunId"  # MLflow's own tag; its interface shows such runs below their parent
NOTE = "mlflow.note.content"  # MLflow's own tag; its interface shows it as the description


@dataclass(frozen=True)
class ExperimentGroup:
    """The runs of one `dvc repro`: its stages, and the rows of its leaderboard.

    All stages of an experiment belong to it, no matter which of them run.

    Attributes:
        name: The DVC experiment, or else the git branch or commit, or else the folder of the project.
        key: The identifier of the group, the same for the same name and settings in every process.
        settings: The settings that differ from the package's own, by dotted key.
        tags: The origin of the runs.
    """

    name: str
    key: str
    settings: dict[str, Any]
    tags: dict[str, str]

    @classmethod
    def of(cls, params: Params, root: Path) -> ExperimentGroup:
        """Return the group of the runs with these settings."""
        experiment, (commit, branch) = os.environ.get("DVC_EXP_NAME", ""), _revision(root)
        name = experiment or branch or commit[:12] or root.resolve().name
        identity = json.dumps([name, chosen_settings(params, [*params.density])], sort_keys=True)
        key = hashlib.sha256(identity.encode()).hexdigest()[:16]
        tags = {"DVC_EXP_NAME": experiment, "mlflow.source.git.commit": commit, "model": params.vae.model}
        return cls(name, key, differing(params, params.densities), {key: value for key, value in tags.items() if value})

    def parent(self, client: MlflowClient, experiment: str) -> str:
        """Return the id of the parent run of the stages: the first with the key of the group, or a new one."""
        return self._run(client, experiment, self.name, self.settings, stage="all")

    def row(self, client: MlflowClient, experiment: str, name: str, settings: Mapping[str, Any]) -> str:
        """Return the id of the run of a row of the leaderboard: the first of the group, or a new one."""
        params = {"row": name, "experiment": self.name, "model": self.tags["model"], **settings}
        return self._run(client, experiment, f"{self.name}: {name}", params, row=name)

    def _run(self, client: MlflowClient, experiment: str, name: str, params: Mapping[str, Any], **identity: str) -> str:
        """Return the id of the group's first run with tags that identify it, or of a new one with settings."""
        tags = {GROUP: self.key, **identity}
        found = client.search_runs(
            [experiment],
            filter_string=" AND ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items()),
            order_by=["attributes.start_time ASC"],
            max_results=1,
        )
        if found:
            return str(found[0].info.run_id)
        run = str(client.create_run(experiment, tags={**self.tags, **tags}, run_name=name).info.run_id)
        log_params(client, run, params)
        return run


def experiment_of(client: MlflowClient, name: str, uri: str, project: Path) -> str:
    """Return the id of an experiment and create it if needed; another process may create it at the same time."""
    from mlflow.exceptions import MlflowException

    if not (experiment := client.get_experiment_by_name(name)):
        served = not uri.startswith(DATABASES)  # a server has its own place for artifacts
        tags = {NOTE: note()} if name == SAMPLERS else {}
        try:
            place = None if served else (project / "mlartifacts").as_uri()
            return str(client.create_experiment(name, artifact_location=place, tags=tags))
        except MlflowException:
            if not (experiment := client.get_experiment_by_name(name)):
                raise
    if experiment.lifecycle_stage == "deleted":  # its name stays taken
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def note() -> str:
    """Return the description of the experiment of samplers: its metrics with their directions, as Markdown."""
    lines = [f"| `{metric.key}` | {metric.better} | {metric.about} |" for metric in HEADLINES]
    head = "One run per row of the leaderboard. All other scores, with intervals, are in the artifacts of a run."
    return "\n".join([head, "", "| metric | better | meaning |", "|---|---|---|", *lines])


def _revision(root: Path) -> tuple[str, str]:
    """Return git's commit and branch, empty strings if there is none."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD", "--abbrev-ref", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        commit, branch = answer.stdout.split()
        return commit, "" if branch == "HEAD" else branch
    return "", ""
