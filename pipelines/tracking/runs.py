"""Log each executed stage as a run in MLflow. A failure of MLflow gives a warning and never stops a stage.

Runs are logged to mlflow.db in the root of the project, or to MLFLOW_TRACKING_URI. If this is `off`, nothing is logged
and MLflow is not imported. `groups` says how runs belong together.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines import ranks
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.defaults import differing
from postprior.pipelines.settings.params import Params
from postprior.pipelines.signals import defer_signals
from postprior.pipelines.storage import folder_hash
from postprior.pipelines.texts import tell
from postprior.pipelines.tracking import client as mlflow_client
from postprior.pipelines.tracking.client import log_params, safe_key
from postprior.pipelines.tracking.groups import GROUP, PARENT, SAMPLERS, STAGES, ExperimentGroup, experiment_of
from postprior.pipelines.tracking.outputs import (
    FOLDERS,
    RESULTS,
    StageOutputs,
    files_of,
    headline_scores,
    numbers,
    output_path,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

started: Run | None = None
"""The run that the next call of `track` opens, if a worker was started for it."""


def warn(reason: str) -> None:
    """Print a warning that a run could not be logged."""
    warning = f"MLflow could not log this run ({reason}); the results are written anyway"
    tell(f"postprior: warning: {warning}", err=True)


class Run:
    """One run of a stage in MLflow.

    The first failure is reported to `on_failure` with its reason; afterwards all methods do nothing.
    """

    def __init__(self, on_failure: Callable[[str], None] = warn) -> None:
        self._client: MlflowClient | None = None
        self._on_failure = on_failure
        self._log_no_more: Callable[[], str] = str
        self._protect: Callable[[], AbstractContextManager[None]] = nullcontext
        self._experiment: Callable[[MlflowClient, str], str]
        self._group: ExperimentGroup
        self.id = self._parent = ""

    def start(
        self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str], group: ExperimentGroup
    ) -> None:
        """Open the run below the parent run of its group; the other methods then write to it."""
        uri = mlflow_client.address(root)
        if uri is None:
            return
        self._log_no_more = partial(mlflow_client.log_no_more, uri, root)
        if uri.startswith(mlflow_client.DATABASES):
            self._protect = defer_signals  # an interrupted transaction would block the call that closes the run
        project = mlflow_client.project_of(root)
        self._experiment = partial(experiment_of, uri=uri, project=project)
        self._group = group

        def start() -> None:
            with defer_signals():  # no interrupt between creating a run and storing its id, so that it is always closed
                client = mlflow_client.connect(uri)
                experiment = self._experiment(client, STAGES)
                self._parent = group.parent(client, experiment)
                nested = {**tags, PARENT: self._parent, GROUP: group.key}
                self.id = client.create_run(experiment, tags=nested, run_name=name).info.run_id
                self._client = client
            log_params(client, self.id, params)

        self._try(start, **mlflow_client.FIRST_ANSWER)

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Log the finite numbers of a mapping."""
        self.call(lambda client: _log_metrics(client, self.id, numbers(values), step))

    def row(
        self,
        name: str,
        scores: Mapping[str, float],
        settings: Mapping[str, Any],
        files: Sequence[Path | str],
        samples: Path | str | None,
    ) -> None:
        """Log a row of the leaderboard to the run that it has in its group, instead of to the run of the stage.

        Args:
            name: The name of the row.
            scores: Its headline metrics.
            settings: The settings that differ from the package's own.
            files: Files with all its scores.
            samples: The folder of its dataset, of which a picture is logged, if there is one.
        """

        def log(client: MlflowClient) -> None:
            run = self._group.row(client, self._experiment(client, SAMPLERS), name, settings)
            known = client.get_run(run).data.metrics
            _log_metrics(client, run, {key: value for key, value in scores.items() if known.get(key) != value})
            for path in map(Path, files):
                client.log_artifact(run, str(path), path.parent.name)
            if samples is not None:
                _log_picture(client, run, Path(samples))
            client.set_terminated(run)

        self.call(log)

    def dataset(self, folder: Path, digest: str | None) -> None:
        """Log a dataset folder as the input of the run, with the hash of its content."""

        def log(client: MlflowClient) -> None:
            from mlflow import entities

            source = json.dumps({"uri": str(folder)})
            entry = entities.Dataset(folder.name, (digest or "")[:36], "local", source)  # 36: MLflow's limit
            client.log_inputs(self.id, [entities.DatasetInput(entry, [])])

        self.call(log)

    def file(self, path: Path) -> None:
        """Log a file, or all files of a folder."""
        log = "log_artifacts" if path.is_dir() else "log_artifact"
        self.call(lambda client: getattr(client, log)(self.id, str(path)))

    def tag(self, key: str, value: str) -> None:
        """Set a tag."""
        self.call(lambda client: client.set_tag(self.id, key, value))

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""

        def close(client: MlflowClient) -> None:
            for run in (self.id, self._parent):
                client.set_terminated(run, status)

        with defer_signals():
            self.call(close)
            self._client = None

    def call(self, action: Callable[[MlflowClient], object]) -> None:
        """Call an action with the client, unless an earlier call failed."""
        if (client := self._client) is not None:
            self._try(lambda: action(client))

    def _try(self, action: Callable[[], object], **environment: str) -> None:
        try:
            with mlflow_client.undisturbed(**environment), self._protect():
                action()
        except Exception as error:  # no error of MLflow, its database or its server may stop the stage
            self._client = None
            noted = self._log_no_more() if self._on_failure is warn else ""
            self._on_failure(mlflow_client.reason(error) + noted)


@contextmanager
def track(
    stage: str, params: Params, root: Path, density: str | None = None, on_failure: Callable[[str], None] = warn
) -> Iterator[Run]:
    """Log a stage as a run in MLflow, with its settings and, if the stage succeeds, the files of its results.

    Of several ranks only the first one logs.

    Args:
        stage: The name of the stage.
        params: All settings; those that differ from the package's own are logged.
        root: The root folder of the project.
        density: The density that the stage works on, if any.
        on_failure: Called with the reason if MLflow fails.
    """
    global started
    if ranks.number() > 0:  # the first rank logs the run of the job
        yield Run(on_failure)
        return
    run, started = started if started is not None and on_failure is warn else Run(on_failure), None
    group = ExperimentGroup.of(params, root)
    sampler = "normal" if stage == "score-baselines" else density  # the sampler that the stage scores
    tags = {**group.tags, "stage": stage} | ({"density": sampler} if sampler else {})
    settings, status = differing(params, [density] if density else []), "FAILED"
    try:
        run.start(root, f"{stage} {density or ''}".strip(), settings, tags, group)
        yield run
        _log_results(run, params, stage, root, density or "")
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.finish(status)


def _log_results(run: Run, params: Params, stage: str, root: Path, density: str) -> None:
    """Log what a stage has written; the last stage tells of all rows, also those whose stages did not run this time."""
    results = RESULTS.get(stage, StageOutputs())
    for pattern in results.artefacts:
        with suppress(UserError, OSError):
            run.tag(
                f"hash.{pattern.relative_to(FOLDERS.home).parts[0]}", folder_hash(output_path(root, pattern, density))
            )
    for pattern in results.files:
        if (path := output_path(root, pattern, density)).exists():
            run.file(path)
    rows = [row.format(density=density) for row in results.rows]
    for row in [*rows, *params.densities] if stage == "compare" else rows:
        if scores := headline_scores(root, row):
            settings = differing(params, [row] if row in params.density else [])
            folder = root / FOLDERS.synthetic / row
            run.row(row, scores, settings, files_of(root, row), folder if folder.exists() else None)


def _log_metrics(client: MlflowClient, run: str, values: Mapping[str, float], step: int = 0) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run, metrics=[Metric(safe_key(name), value, now, step) for name, value in values.items()])


def _log_picture(client: MlflowClient, run: str, folder: Path) -> None:
    """Log an image of the first samples of a dataset folder, if they can be shown."""
    from PIL import Image

    from postprior.pipelines.data.dataset import Dataset
    from postprior.pipelines.data.pictures import sheet_of

    if sheet := sheet_of(Dataset.load(folder)):
        client.log_image(run, Image.open(io.BytesIO(sheet.image)), "samples.png")
