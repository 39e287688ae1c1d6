"""The process that logs to MLflow while a stage works: it logs what the stage would, and waits for the next one."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.project import small, write_params

from postprior.pipelines.tracking.groups import STAGES
from postprior.pipelines.tracking.worker import _plain

TERMS = ("reconstruction", "kl", "kl_to_unimodal")  # of the loss of mvtcae
COLD = (sys.executable, "-c", "from postprior.pipelines.commands import main; main()")
"""The command line in a process of its own, which a signal reaches."""


def command(root: Path, line: Sequence[str | Path], *arguments: str) -> subprocess.Popen[str]:
    """A command in a project with a database of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    call = [*line, *arguments]
    return subprocess.Popen(call, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)


def runs(root: Path) -> dict[str, Any]:
    """The runs of the project's database by name."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(STAGES)
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])} if experiment else {}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, migrated: Path, warm: Path) -> Path:
    """A project whose data were prepared by the command."""
    root = tmp_path_factory.mktemp("worker") / "project"
    write_params(root, small())
    shutil.copy(migrated, root)
    with command(root, [warm / "postprior"], "prepare") as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    return root


def test_a_command_is_one_run_with_its_datasets(prepared: Path) -> None:
    run = runs(prepared)["prepare"]
    assert run.info.status == "FINISHED"
    assert run.data.params["data.digits.train"] == "300"  # not the package's own setting
    assert {entry.dataset.name for entry in run.inputs.dataset_inputs} == {"train", "validation", "test"}


def test_epochs_are_a_curve_and_files_are_logged(prepared: Path, warm: Path) -> None:
    with command(prepared, [warm / "postprior"], "train") as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    run = runs(prepared)["train"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics.keys() == {"train_loss", *(f"validation_{term}" for term in ("loss", *TERMS))}
    assert any((prepared / "mlartifacts").rglob("training.csv"))


def test_a_stage_that_was_killed_has_failed(prepared: Path) -> None:
    """SIGKILL leaves the stage no time to say so: the worker closes the run."""
    write_params(prepared, small(augment__steps=100_000))
    before = set(runs(prepared))
    process = command(prepared, COLD, "augment", "40")
    deadline = time.monotonic() + 120
    while "augment" not in set(runs(prepared)) - before and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while runs(prepared)["augment"].info.status == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert runs(prepared)["augment"].info.status == "FAILED"
    assert process.stderr is not None
    process.stderr.close()


IMPORT = """
import sys
from pathlib import Path
from postprior.pipelines.tracking.client import connect, import_mlflow
from postprior.pipelines.tracking.groups import STAGES, experiment_of

uri = f"sqlite:///{sys.argv[1]}"
import_mlflow(Path())
assert "mlflow.store.tracking.sqlalchemy_store" in sys.modules
experiment_of(connect(uri), STAGES, uri, Path.cwd())
assert "pandas" not in sys.modules
import pandas
"""


def test_a_worker_imports_what_it_needs_and_no_more(tmp_path: Path) -> None:
    """What a database needs is imported before the stage connects; pandas is hidden for that time only."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    subprocess.run([sys.executable, "-c", IMPORT, tmp_path / "mlflow.db"], cwd=tmp_path, env=environment, check=True)


def test_every_value_can_be_sent(tmp_path: Path) -> None:
    """NumPy numbers arrive as numbers; an object that JSON does not know arrives as text."""
    values = {"score": np.float32(0.5), "folder": tmp_path, "missing": math.nan}
    sent = json.loads(json.dumps(values, default=_plain))
    assert sent["score"] == 0.5
    assert sent["folder"] == str(tmp_path)
    assert math.isnan(sent["missing"])


def test_a_command_that_is_refused_leaves_no_run(prepared: Path, warm: Path) -> None:
    before = set(runs(prepared))
    with command(prepared, [warm / "postprior"], "encode", "--params", "nowhere.yaml") as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("\n") == 1
    with command(prepared, [warm / "postprior"], "fit", "none") as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert set(runs(prepared)) == before


RUN = """
import socket, sys
from pathlib import Path
from postprior.pipelines.tracking.groups import ExperimentGroup
from postprior.pipelines.tracking.worker import RemoteRun

name, tag = sys.argv[1:]
run = RemoteRun()
print(run._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12).hex())
run.start(Path(), name, {}, {}, ExperimentGroup("group", "key", {}, {}))
run.tag(tag, "value")
if name != "killed":
    run.finish("FINISHED")
"""


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="Linux tells who answers at a socket")
def test_stages_of_one_dvc_share_a_worker(tmp_path: Path, migrated: Path) -> None:
    """A stage finds the worker of the last one; a stage that dies is FAILED; a warning reaches the stage it is of."""
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}

    def stage(name: str, tag: str = "tag", **settings: str) -> tuple[int, str]:
        command = [sys.executable, "-c", RUN, name, tag]
        variables = environment | {"DVC_STAGE": name} | settings
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=True)
        return struct.unpack("3i", bytes.fromhex(done.stdout))[0], done.stderr

    shutil.copy(migrated, tmp_path)  # workers of another database are not shared
    first, *answers = stage("first"), stage("killed"), stage("third", "x" * 1000), stage("fourth")
    assert len({worker for worker, _ in answers} - {first[0]}) == 1
    assert [stderr.count("could not log this run") for _, stderr in answers] == [0, 1, 0]
    status = {name: run.info.status for name, run in runs(tmp_path).items() if name != "group"}
    assert status.pop("killed") == "FAILED"
    assert status.pop("third") == "RUNNING"  # a run whose logging failed is left alone
    assert set(status.values()) == {"FINISHED"}
    assert stage("other", DVC_EXP_NAME="experiment")[0] != answers[0][0]
