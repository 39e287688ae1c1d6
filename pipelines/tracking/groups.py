"""Runs of one experiment, gathered in MLflow under one parent run that experiments are compared by."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.settings.params import Params, leaves
from postprior.pipelines.tracking.client import log_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

TAG = "group"
PARENT = "mlflow.parentRunId"  # MLflow's own tag: its page shows such runs beneath their parent
CHOICES = ("densities", "compare")  # settings that say which results are shown, not what they are


@dataclass(frozen=True)
class Group:
    """What the stages of one `dvc repro` share, whichever of them run.

    Args:
        name: of DVC's experiment, or else git's branch or commit.
        settings: all that results follow from, by dotted key.
        tags: where the runs come from.
    """

    name: str
    settings: dict[str, Any]
    tags: dict[str, str]

    @classmethod
    def of(cls, params: Params, root: Path) -> Group:
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


def _revision(root: Path) -> tuple[str, str]:
    """Git's commit and branch, empty where there is none."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD", "--abbrev-ref", "HEAD"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        commit, branch = answer.stdout.split()
        return commit, "" if branch == "HEAD" else branch
    return "", ""
