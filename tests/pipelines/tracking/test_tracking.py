"""Logging of results to MLflow, whose failures give one warning."""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support.report_project import ROWS, make_project

from postprior.pipelines.api.track import track as log_again
from postprior.pipelines.commands.options import load_tracked
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.defaults import differing
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.client import ENVIRONMENT, FIRST_ANSWER, has_failed
from postprior.pipelines.tracking.groups import GROUP, NOTE, PARENT, SAMPLERS, STAGES
from postprior.pipelines.tracking.outputs import numbers
from postprior.pipelines.tracking.runs import Run, track


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Path:
    """A project with results, and a database with one run."""
    root = make_project(tmp_path_factory.mktemp("tracked"))
    shutil.copy(migrated, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with track("prepare", load_params(root / "params.yaml"), root):
            pass
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that project, tracked in its own database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "my project"
    shutil.copytree(made, root)
    return root


@pytest.fixture
def params(project: Path) -> Params:
    return load_params(project / "params.yaml")


def client(root: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


def search(root: Path, name: str, condition: str = "") -> list[Any]:
    """The runs of an experiment in a project's database that meet a condition, the latest first."""
    mlflow = client(root)
    if (experiment := mlflow.get_experiment_by_name(name)) is None:
        return []
    return list(mlflow.search_runs([experiment.experiment_id], condition, order_by=["attributes.start_time DESC"]))


def runs(root: Path) -> list[Any]:
    """The runs of stages."""
    return search(root, STAGES, "tags.stage != 'all'")


def parents(root: Path) -> list[Any]:
    """The parent runs of experiments."""
    return search(root, STAGES, "tags.stage = 'all'")


def rows(root: Path) -> dict[str, Any]:
    """The latest runs of the rows of the leaderboard by name."""
    return {run.data.tags["row"]: run for run in reversed(search(root, SAMPLERS))}


def files(root: Path, run: Any, folder: str = "") -> set[str]:
    """The paths of the artifacts of a run in one of its folders."""
    return {file.path for file in client(root).list_artifacts(run.info.run_id, folder)}


def commit(root: Path) -> None:
    """Make the project a git repository with one commit, on the branch work."""
    for command in (
        ["init", "-q", "-b", "work"],
        ["-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c", "--allow-empty"],
    ):
        subprocess.run(["git", "-C", str(root), *command], check=True)


def evaluated(params: Params, root: Path, density: str = "gmm") -> Any:
    """Log an evaluation and return its run."""
    with track("evaluate", params, root, density=density):
        pass
    return runs(root)[0]


def test_a_run_has_stage_settings_and_origin(project: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "stuffy-otter")
    monkeypatch.chdir("/")
    commit(project)
    with track("evaluate", params, project, density="gmm") as run:
        run.dataset(project / "artefacts/synthetic/gmm", "f" * 64)
    logged = runs(project)[0]
    tags = logged.data.tags
    assert logged.info.status == "FINISHED"
    assert logged.info.run_name == "evaluate gmm"
    assert (tags["stage"], tags["model"], tags["density"]) == ("evaluate", params.vae.model, "gmm")
    assert tags["DVC_EXP_NAME"] == "stuffy-otter"
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert {"hash.autoencoder", "hash.densities", "hash.evaluators"} <= set(tags)
    assert logged.data.params == {"profile": "full"}  # the package's own settings, but for one
    (dataset,) = logged.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("gmm", "f" * 36)


def test_a_setting_is_logged_if_it_differs_from_the_package_s_own(project: Path, params: Params) -> None:
    density = params.density | {"gmm": params.density["gmm"] | {"components": [3]}, "flow": {"blocks": 9}}
    density["mine"] = params.density["kde"] | {"kind": "kde", "bandwidth": [0.7]}
    changed = params.model_copy(update={"seed": 5, "density": density})
    assert differing(changed, ["gmm"]) == {"profile": "full", "seed": 5, "density.gmm.components": [3]}
    assert differing(changed, ["mine"]) == {
        "profile": "full",
        "seed": 5,
        "density.mine.kind": "kde",
        "density.mine.bandwidth": [0.7],
    }
    logged = evaluated(changed, project)
    assert logged.data.params == {"profile": "full", "seed": "5", "density.gmm.components": "[3]"}


def test_all_densities_have_the_headline_metrics_and_no_others(project: Path, params: Params) -> None:
    with track("compare", params, project):
        pass
    found = rows(project)
    densities = [found[name] for name in params.densities]
    names = {metric.key for metric in HEADLINES} - {"quality", "c2st_auc"}  # which tables and vectors have
    assert all(run.data.metrics.keys() == names for run in densities)
    assert {"normal", "reconstruction", "real"} <= found.keys()
    for name, run in found.items():
        assert run.data.metrics
        assert run.data.metrics.keys() <= names
        assert run.data.metrics["joint_coherence"] == ROWS[name][0]
        assert run.data.metrics["frechet_distance"] == ROWS[name][1]
        assert run.data.params["row"] == name
    assert found["gmm"].data.params.keys() == found["flow"].data.params.keys()


def test_all_other_scores_are_artifacts(project: Path, params: Params) -> None:
    for stage in ("evaluate", "utility", "privacy", "evaluate-imputation"):
        with track(stage, params, project, density="gmm"):
            pass
    assert not [run.data.metrics for run in runs(project) if run.data.metrics]
    gmm = rows(project)["gmm"]
    parts = ("metrics", "utility", "privacy", "imputation")
    assert files(project, gmm) == {*parts, "samples.png"}
    assert all(files(project, gmm, part) == {f"{part}/gmm.json"} for part in parts)
    assert (project / "mlartifacts").is_dir()


def test_a_score_is_one_point_however_often_it_is_logged(project: Path, params: Params) -> None:
    run = evaluated(params, project)
    for stage in ("evaluate", "compare"):
        with track(stage, params, project, density="gmm"):
            pass
    gmm = rows(project)["gmm"]
    assert gmm.info.status == "FINISHED"
    assert gmm.data.tags[GROUP] == run.data.tags[GROUP]
    assert len(client(project).get_metric_history(gmm.info.run_id, "joint_coherence")) == 1
    assert sum(run.data.tags["row"] == "gmm" for run in search(project, SAMPLERS)) == 1


def test_the_experiment_of_samplers_says_which_direction_is_better(project: Path, params: Params) -> None:
    evaluated(params, project)
    note = client(project).get_experiment_by_name(SAMPLERS).tags[NOTE]
    assert all(f"| `{metric.key}` | {metric.better} |" in note for metric in HEADLINES)


def test_metrics_of_epochs_are_a_curve(project: Path, params: Params) -> None:
    with track("train", params, project) as run:
        for epoch in range(1, 4):
            run.metrics({"train_loss": 1 / epoch, "kl": 0.5}, step=epoch)
    logged = runs(project)[0]
    curve = client(project).get_metric_history(logged.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1), (2, 1 / 2), (3, 1 / 3)]


def test_stages_have_the_parent_run_of_their_experiment(project: Path, params: Params) -> None:
    commit(project)
    first = evaluated(params, project)
    with track("score-baselines", params, project):
        pass
    second = runs(project)[0]
    parent = next(run for run in parents(project) if run.info.run_id == first.data.tags[PARENT])
    assert second.data.tags[PARENT] == parent.info.run_id
    assert parent.info.run_name == "work"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"profile": "full"}
    assert rows(project).keys() == {"gmm", "normal", "reconstruction", "real"}  # flow was not evaluated
    assert rows(project)["gmm"].info.run_name == "work: gmm"


def test_experiments_are_told_apart_by_name_and_settings(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(project)
    other = params.model_copy(update={"seed": params.seed + 1})
    fewer = params.model_copy(update={"densities": ("gmm",)})  # which are shown changes none of the results
    groups = [evaluated(settings, project).data.tags[PARENT] for settings in (params, other, params, fewer)]
    monkeypatch.setenv("DVC_EXP_NAME", "stuffy-otter")
    groups.append(evaluated(params, project).data.tags[PARENT])
    assert groups[0] == groups[2] == groups[3]
    assert len(set(groups)) == 3
    assert client(project).get_run(groups[-1]).info.run_name == "stuffy-otter"
    subprocess.run(["git", "-C", str(project), "checkout", "-q", "--detach"], check=True)
    monkeypatch.delenv("DVC_EXP_NAME")
    detached = client(project).get_run(evaluated(params, project).data.tags[PARENT])
    assert detached.data.tags["mlflow.source.git.commit"].startswith(detached.info.run_name)


def test_an_experiment_whose_run_was_deleted_gets_another(project: Path, params: Params) -> None:
    before = evaluated(params, project).data.tags[PARENT], rows(project)["gmm"].info.run_id
    for run in before:
        client(project).delete_run(run)
    after = evaluated(params, project).data.tags[PARENT], rows(project)["gmm"].info.run_id
    assert not set(after) & set(before)
    assert rows(project)["gmm"].data.metrics["joint_coherence"] == ROWS["gmm"][0]


def test_results_without_labels_are_compared_by_distance(project: Path, params: Params) -> None:
    path = project / "results/metrics/gmm.json"
    scores = {"frechet_distance": {"value": 3.0, "low": 2.0, "high": 4.0}, "label_agreement": None}
    path.write_text(json.dumps(scores))
    evaluated(params, project)
    assert rows(project)["gmm"].data.metrics["frechet_distance"] == 3.0
    assert "joint_coherence" not in rows(project)["gmm"].data.metrics


def test_runs_of_a_copy_that_dvc_made_go_to_the_project(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = project / ".dvc/tmp/exps/tmp1"
    shutil.copytree(project / "results", copy / "results")
    before = len(runs(project))
    monkeypatch.setenv("DVC_ROOT", str(project))
    with track("evaluate", params, copy, density="gmm"):
        pass
    assert len(runs(project)) == before + 1
    assert not (copy / "mlflow.db").exists()


@pytest.mark.parametrize(("error", "status"), [(ValueError(), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_stage_that_does_not_end_well(project: Path, params: Params, error: BaseException, status: str) -> None:
    def stage() -> None:
        with track("evaluate", params, project, density="gmm"):
            raise error

    with pytest.raises(type(error)):
        stage()
    logged = runs(project)[0]
    assert logged.info.status == status
    assert not rows(project)
    assert client(project).get_run(logged.data.tags[PARENT]).info.status == status


def test_a_run_that_is_interrupted_as_it_starts_is_closed(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("postprior.pipelines.tracking.runs.log_params", interrupt)
    with pytest.raises(KeyboardInterrupt), track("evaluate", params, project, density="gmm"):
        pass
    assert runs(project)[0].info.status == "KILLED"


def test_results_can_be_logged_again(project: Path, params: Params) -> None:
    before = len(runs(project))
    (project / "results/comparison.csv").write_text("row\nreal\n")
    log_again(params, project)
    logged = runs(project)[: len(runs(project)) - before]
    names = [run.info.run_name for run in logged][::-1]
    assert (names[0], names[-1]) == ("train-evaluators", "compare")
    assert {"train", "diagnose", "score-baselines", *(f"evaluate {name}" for name in params.densities)} <= set(names)
    assert len(names) == len(set(names))
    train = next(run for run in logged if run.info.run_name == "train")
    assert len(client(project).get_metric_history(train.info.run_id, "validation_loss")) == 40
    assert "phase" not in train.data.metrics
    assert len({run.data.tags[PARENT] for run in logged}) == 1


def test_nothing_to_log_again(tmp_path: Path, params: Params) -> None:
    with pytest.raises(UserError, match="found no results to log"):
        log_again(params, tmp_path)


def test_an_unreachable_server_costs_one_warning(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with track("evaluate", params, project, density="gmm") as run:
        run.metrics({"loss": 1.0})
        run.file(project / "params.yaml")
    assert capsys.readouterr().err == (
        "postprior: warning: MLflow could not log this run ([Errno 111] Connection refused; "
        "the next stages of this pipeline do not try again); the results are written anyway\n"
    )
    with pytest.raises(UserError, match="MLflow: could not log the results"):
        log_again(params, project)


def test_a_server_without_an_answer_is_tried_once_per_pipeline(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It accepts connections and never answers. The next command of the same process group does not start a worker."""
    monkeypatch.setitem(FIRST_ANSWER, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        start = time.monotonic()
        with track("evaluate", params, project, density="gmm"):
            pass
        assert time.monotonic() - start < 10
        assert "timed out; the next stages of this pipeline do not try again" in capsys.readouterr().err
    assert has_failed(uri, project)
    assert not has_failed("http://127.0.0.1:9", project)
    load_tracked(project / "params.yaml")
    assert os.environ["MLFLOW_TRACKING_URI"] == "off"
    monkeypatch.setattr(os, "getpgrp", lambda: 1)
    assert not has_failed(uri, project)  # another pipeline


def test_what_mlflow_logs_of_a_failure_is_not_shown(
    project: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    """It logs the whole stack of SQLAlchemy when a database is locked, and raises the error as well."""

    def fail(_: object) -> None:
        logging.getLogger("mlflow.store.db").error("a screen of SQLAlchemy")
        raise sqlite3.OperationalError("database is locked")

    with track("evaluate", params, project, density="gmm") as run:
        run.call(fail)
    assert capsys.readouterr().err == (
        "postprior: warning: MLflow could not log this run (database is locked); the results are written anyway\n"
    )


def test_a_deleted_experiment_is_restored(project: Path, params: Params) -> None:
    before = len(runs(project))
    mlflow = client(project)
    mlflow.delete_experiment(mlflow.get_experiment_by_name(STAGES).experiment_id)
    evaluated(params, project)
    assert len(runs(project)) == before + 1


def test_names_that_mlflow_refuses_are_logged_under_others(project: Path, params: Params) -> None:
    shares = {"a//b": 1.0, "../x": 2.0, "é(": 1.0}
    changed = params.model_copy(update={"generate": params.generate.model_copy(update={"balance": shares})})
    with track("prepare", changed, project) as run:
        run.metrics({"a//b": 1.0, "/x": 2.0, "..": 3.0})
    logged = runs(project)[0]
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics == {"a__b": 1.0, "_x": 2.0, "_.": 3.0}
    balance = {key: value for key, value in logged.data.params.items() if "balance" in key}
    assert balance == {
        "generate.balance.a__b": "1.0",
        "generate.balance..._x": "2.0",
        "generate.balance.é_": "1.0",
    }


def test_a_database_that_cannot_be_opened_costs_one_warning(
    project: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "mlflow.db").unlink()
    (project / "mlflow.db").mkdir()
    with track("evaluate", params, project, density="gmm") as run:
        run.metrics({"loss": 1.0})
    warning = capsys.readouterr().err
    assert warning.startswith("postprior: warning: MLflow could not log this run (")
    assert warning.count("\n") == 1


def test_a_failure_in_the_middle_costs_one_warning(
    project: Path, params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    with track("evaluate", params, project, density="gmm") as run:
        run.file(project / "no such file")
        run.metrics({"loss": 1.0})
    assert capsys.readouterr().err.count("\n") == 1


def test_environment_and_loggers_are_as_they_were(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    environment = dict(os.environ)
    with track("prepare", params, project):
        assert dict(os.environ) == environment
    assert dict(os.environ) == environment
    assert [logger.level for logger in loggers] == levels


def test_a_run_that_never_started_does_nothing() -> None:
    run = Run()
    run.metrics({"loss": 1.0})
    run.finish("FINISHED")


def test_tracking_can_be_off(project: Path, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(runs(project))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "off")
    with track("evaluate", params, project, density="gmm") as run:
        run.metrics({"loss": 1.0})
    assert len(runs(project)) == before


def test_finite_numbers_are_logged() -> None:
    values = {"loss": 0.5, "rows": 2, "name": "gmm", "bound": True, "endless": float("inf"), "list": [1], "none": None}
    assert numbers(values) == {"loss": 0.5, "rows": 2.0}
