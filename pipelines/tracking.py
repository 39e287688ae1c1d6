"""MLflow as a view of the results: one run an executed stage. A failure costs a warning, never a result.

The runs go to mlflow.db in the project's root, or wherever MLFLOW_TRACKING_URI points; `off` there logs nothing,
and spares each stage the import of MLflow.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import Params, leaves
from pipelines.errors import UserError
from pipelines.storage import folder_hash, read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "postprior"
OFF = "off"
DATABASES = ("sqlite:", "postgresql:", "mysql:", "mssql:")

# Environment while MLflow works, unless the user has set it: no telemetry, and no minutes of retrying.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


@dataclass(frozen=True)
class Results:
    """What a stage leaves in the project, by patterns in which {density} stands for the density's name.

    Args:
        artefacts: folders in artefacts/ that it makes or rests on; their hashes become tags.
        metrics: files results/metrics/<name>.json with the prefix of their metrics in MLflow.
        files: files and folders that are logged as they are.
        pictures: a dataset folder whose first samples are shown.
    """

    artefacts: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    pictures: str = ""


RESULTS = {
    "judge": Results(("judges",), {"judges": ""}),
    "train": Results(("autoencoder",), files=("results/training.csv",)),
    "encode": Results(("autoencoder",)),
    "inspect": Results(("autoencoder",), {"latent": "latent."}),
    "reference": Results(
        ("autoencoder", "judges"),
        # `normal` is a sampler: its metrics have the names of a density's, so that all samplers can be compared
        {"normal": "", "reconstruction": "reconstruction.", "real": "real.", "autoencoder": "autoencoder."},
    ),
    "fit": Results(("autoencoder", "densities/{density}")),
    "generate": Results(("autoencoder", "densities/{density}")),
    "evaluate": Results(
        ("autoencoder", "densities/{density}", "judges"),
        {"{density}": ""},
        pictures="artefacts/synthetic/{density}",
    ),
    "compare": Results(files=("results/comparison.csv", "results/report.html", "results/plots")),
}


class Run:
    """One run of a stage in MLflow; after the first failure its methods do nothing."""

    def __init__(self) -> None:
        self._client: MlflowClient | None = None
        self._id = ""

    def start(self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the run; the other methods then write to it."""
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root.resolve() / 'mlflow.db'}"
        if uri == OFF:
            return

        def start() -> None:
            from mlflow import MlflowClient
            from mlflow.entities import Param

            _check_writable(uri)
            client = MlflowClient(tracking_uri=uri)
            served = not uri.startswith(DATABASES)  # a server knows where its artifacts belong
            files = None if served else (root.resolve() / "mlartifacts").as_uri()
            run = client.create_run(_experiment(client, files), tags=dict(tags), run_name=name)
            self._client, self._id = client, run.info.run_id
            logged = [Param(key, str(value)[:6000]) for key, value in params.items()]
            for first in range(0, len(logged), 100):  # the most that a batch takes
                client.log_batch(self._id, params=logged[first : first + 100])

        self._try(start)

    def metrics(self, values: Mapping[str, Any], step: int = 0, prefix: str = "") -> None:
        """Log numbers; a nested mapping becomes name.key, and name.value is just name."""

        def log(client: MlflowClient) -> None:
            from mlflow.entities import Metric

            now = int(time.time() * 1000)
            entries = [Metric(prefix + name, value, now, step) for name, value in numbers(values).items()]
            for first in range(0, len(entries), 1000):  # the most that a batch takes
                client.log_batch(self._id, metrics=entries[first : first + 1000])

        self._with_client(log)

    def dataset(self, folder: Path, digest: str | None) -> None:
        """Tie the run to a dataset folder by the hash of its content."""

        def log(client: MlflowClient) -> None:
            from mlflow import entities

            source = json.dumps({"uri": str(folder)})
            entry = entities.Dataset(folder.name, (digest or "")[:36], "local", source)  # 36: MLflow's limit
            client.log_inputs(self._id, [entities.DatasetInput(entry, [])])

        self._with_client(log)

    def file(self, path: Path) -> None:
        """Log a file, or every file of a folder."""
        log = "log_artifacts" if path.is_dir() else "log_artifact"
        self._with_client(lambda client: getattr(client, log)(self._id, str(path)))

    def picture(self, folder: Path, name: str) -> None:
        """Log a picture of the first samples in a dataset folder, under a file name."""

        def log(client: MlflowClient) -> None:
            from tempfile import TemporaryDirectory

            from pipelines.dataset import Dataset
            from pipelines.report.gallery import sheet_of

            if sheet := sheet_of(Dataset.load(folder)):
                with TemporaryDirectory() as temporary:
                    path = Path(temporary) / name
                    path.write_bytes(sheet.png)
                    client.log_artifact(self._id, str(path))

        self._with_client(log)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""

        def log(client: MlflowClient) -> None:
            for key, value in values.items():
                client.set_tag(self._id, key, value)

        self._with_client(log)

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        self._with_client(lambda client: client.set_terminated(self._id, status))
        self._client = None

    def _with_client(self, action: Callable[[MlflowClient], None]) -> None:
        if (client := self._client) is not None:
            self._try(lambda: action(client))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            with _environment(), _quiet():
                action()
        except Exception as error:  # whatever MLflow, its database or its server raise: the stage goes on
            self._client = None
            warning = (
                f"MLflow could not log this run ({_reason(error)}); the results are written all the same"
            )
            print(f"postprior: warning: {warning}", file=sys.stderr)


@contextmanager
def track(stage: str, params: Params, root: Path, density: str | None = None) -> Iterator[Run]:
    """A run in MLflow around a stage; when the stage ends well, the results in its files are logged.

    Args:
        stage: the stage's command.
        params: the settings; those of the chosen source, model and density are logged.
        root: the project's root.
        density: the density that the stage works on, for the stages of a density.
    """
    run = Run()
    tags = {"stage": stage, "model": params.vae.model, "density": density or "", **_surroundings(root)}
    if stage == "reference":
        tags["density"] = "normal"  # the row of this stage that is a sampler
    run.start(
        root,
        f"{stage} {density or ''}".strip(),
        dict(leaves(params.chosen([density] if density else []))),
        {k: v for k, v in tags.items() if v},
    )
    status = "FAILED"
    try:
        yield run
        _log_results(run, stage, root, density or "")
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.finish(status)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a nested mapping by names that MLflow allows; `value` is left out of a name."""
    named = {re.sub(r"[^\w. /-]", "_", key.removesuffix(".value")): value for key, value in leaves(values)}
    return {
        key: float(value)
        for key, value in named.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _log_results(run: Run, stage: str, root: Path, density: str) -> None:
    """Log what a finished stage has written."""
    results = RESULTS.get(stage, Results())
    hashes = {}
    for pattern in results.artefacts:
        with suppress(UserError, OSError):
            name = f"hash.{pattern.split('/')[0]}"
            hashes[name] = folder_hash(root / "artefacts" / pattern.format(density=density))
    run.tags(hashes)
    for pattern, prefix in results.metrics.items():
        path = root / "results/metrics" / f"{pattern.format(density=density)}.json"
        if path.exists():
            run.metrics(read_json(path), prefix=prefix)
    for name in results.files:
        if (root / name).exists():
            run.file(root / name)
    folder = root / results.pictures.format(density=density)
    if results.pictures and folder.exists():
        run.picture(folder, "samples.png")


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


def _reason(error: BaseException) -> str:
    """The first line of the error at the bottom of the chain: what the libraries above it wrapped."""
    while deeper := error.__cause__ or error.__context__:
        error = deeper
    return next(iter(str(error).splitlines()), "")[:200] or type(error).__name__


def _surroundings(root: Path) -> dict[str, str]:
    """Tags that tell where a run comes from: DVC's experiment and git's commit."""
    tags = {"DVC_EXP_NAME": os.environ.get("DVC_EXP_NAME", "")}
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(root), "rev-parse", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags


@contextmanager
def _environment() -> Iterator[None]:
    missing = {key: value for key, value in ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for key in missing:
            os.environ.pop(key, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """No reports from MLflow and its migrations; their loggers are then as they were."""
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
