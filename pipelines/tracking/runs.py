"""Log each executed stage as a run in MLflow. A failure of MLflow gives a warning and never stops a stage.

Runs are logged to mlflow.db in the root of the project, or to MLFLOW_TRACKING_URI. If this is `off`, nothing is logged
and MLflow is not imported. Runs of one experiment have a common parent run: see `client.ExperimentGroup`.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.settings.params import BASELINE_ROWS, Params, leaves
from postprior.pipelines.signals import defer_signals
from postprior.pipelines.storage import folder_hash, read_json
from postprior.pipelines.texts import tell
from postprior.pipelines.tracking import client as mlflow_client
from postprior.pipelines.tracking.client import PARENT, TAG, ExperimentGroup, log_params

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROJECT = Project(Path())  # paths relative to the root of a project
FOLDERS, FILES = PROJECT.artefacts, PROJECT.results
OF_DENSITY = (FOLDERS.autoencoder, FOLDERS.densities / "{density}")


@dataclass(frozen=True)
class StageOutputs:
    """The files that a stage writes to the project; {density} in a path stands for the name of the density."""

    artefacts: tuple[Path, ...] = ()  # folders that it writes or uses; their hashes become tags
    metrics: Mapping[Path, str] = field(
        default_factory=dict
    )  # files of metrics, with the prefix of the metrics in MLflow
    files: tuple[Path, ...] = ()  # files or folders that are logged unchanged
    pictures: Path | None = None  # dataset folder whose first samples are logged as an image


def _of_density(folder: str = "", prefix: str = "") -> StageOutputs:
    """Return the outputs of a stage that works on one density."""
    return StageOutputs(OF_DENSITY, {FILES.scores(folder, "{density}"): prefix} if folder else {})


RESULTS = {
    "train-evaluators": StageOutputs((FOLDERS.evaluators,), {FILES.scores("metrics", "evaluators"): ""}),
    "train": StageOutputs((FOLDERS.autoencoder,), files=(FILES.training,)),
    "encode": StageOutputs((FOLDERS.autoencoder,)),
    "diagnose": StageOutputs((FOLDERS.autoencoder,), {FILES.scores("metrics", "latent"): "latent."}),
    "score-baselines": StageOutputs(
        (FOLDERS.autoencoder, FOLDERS.evaluators),
        # `normal` is a sampler: its metrics have the same names as those of densities, so that they can be compared
        {
            FILES.scores("metrics", name): "" if name == "normal" else f"{name}."
            for name in (*BASELINE_ROWS, "autoencoder", "samplers")
        },
    ),
    "fit": _of_density(),
    "generate": _of_density(),
    "evaluate": StageOutputs(
        (*OF_DENSITY, FOLDERS.evaluators),
        {FILES.scores("metrics", "{density}"): ""},
        pictures=FOLDERS.synthetic / "{density}",
    ),
    "utility-real": StageOutputs(metrics={FILES.scores("utility", "real"): "real.utility."}),
    "utility": _of_density("utility", "utility."),
    "privacy": _of_density("privacy", "privacy."),
    "evaluate-imputation-baselines": StageOutputs(metrics={FILES.scores("imputation", "baselines"): "imputation."}),
    "evaluate-imputation": _of_density("imputation", "imputation."),
    "augment": StageOutputs(files=(FILES.scores("augmentation", "").parent,)),
    "register": _of_density(),
    "compare": StageOutputs(files=(FILES.comparison, FILES.page, FILES.plots, FILES.datasheets)),
}


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

        def start() -> None:
            with defer_signals():  # no interrupt between creating a run and storing its id, so that it is always closed
                client, experiment = mlflow_client.connect(uri, root)
                self._parent = group.parent(client, experiment)
                nested = {**tags, PARENT: self._parent, TAG: group.key}
                self.id = client.create_run(experiment, tags=nested, run_name=name).info.run_id
                self._client = client
            log_params(client, self.id, params)

        self._try(start, **mlflow_client.FIRST_ANSWER)

    def metrics(self, values: Mapping[str, Any], step: int = 0, prefix: str = "") -> None:
        """Log numbers; nested keys are joined with dots, and a final `value` is left out."""
        self.call(lambda client: _log_metrics(client, self.id, values, step, prefix))

    def headlines(self, row: str, values: Mapping[str, Any]) -> None:
        """Log to the parent run the scores by which experiments are compared, as <row>.<score>."""
        scores = {name: values[name] for name in HEADLINES if name in values}
        self.call(lambda client: _log_metrics(client, self._parent, scores, 0, f"{row}."))

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

    def picture(self, folder: Path, name: str) -> None:
        """Log an image of the first samples of a dataset folder under a file name."""

        def log(client: MlflowClient) -> None:
            from PIL import Image

            from postprior.pipelines.data.dataset import Dataset
            from postprior.pipelines.data.pictures import sheet_of

            if sheet := sheet_of(Dataset.load(folder)):
                client.log_image(self.id, Image.open(io.BytesIO(sheet.image)), name)

        self.call(log)

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
    """Log a stage as a run in MLflow, with its settings and, if the stage succeeds, the results in its files.

    Args:
        stage: The name of the stage.
        params: All settings; those of the chosen source, model and density are logged.
        root: The root folder of the project.
        density: The density that the stage works on, if any.
        on_failure: Called with the reason if MLflow fails.
    """
    global started
    run, started = started if started is not None and on_failure is warn else Run(on_failure), None
    group = ExperimentGroup.of(params, root)
    sampler = "normal" if stage == "score-baselines" else density  # the sampler that the stage scores
    tags = {**group.tags, "stage": stage} | ({"density": sampler} if sampler else {})
    settings, status = dict(leaves(params.chosen([density] if density else []))), "FAILED"
    try:
        run.start(root, f"{stage} {density or ''}".strip(), settings, tags, group)
        yield run
        _log_results(run, stage, root, density or "")
        if stage == "compare":  # the last stage logs all rows, also those whose stages did not run this time
            _log_headlines(run, root, (*BASELINE_ROWS, *params.densities))
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.finish(status)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a nested mapping by names that MLflow allows; a final `value` is left out."""
    named = {mlflow_client.safe_key(key.removesuffix(".value")): value for key, value in leaves(values)}
    return {
        key: float(value)
        for key, value in named.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _log_results(run: Run, stage: str, root: Path, density: str) -> None:
    """Log what a stage has written."""
    results = RESULTS.get(stage, StageOutputs())
    for pattern in results.artefacts:
        with suppress(UserError, OSError):
            run.tag(
                f"hash.{pattern.relative_to(FOLDERS.home).parts[0]}", folder_hash(output_path(root, pattern, density))
            )
    for pattern, prefix in results.metrics.items():
        if (path := output_path(root, pattern, density)).exists():
            run.metrics(read_json(path), prefix=prefix)
    row_files = (pattern for pattern in results.metrics if pattern.parent == FILES.scores("metrics", "").parent)
    _log_headlines(run, root, [output_path(root, pattern, density).stem for pattern in row_files])
    for pattern in results.files:
        if (path := root / pattern).exists():
            run.file(path)
    if results.pictures and (folder := output_path(root, results.pictures, density)).exists():
        run.picture(folder, "samples.png")


def output_path(root: Path, pattern: Path, density: str | None) -> Path:
    """Return the path in a project for a pattern that may contain {density}."""
    return root / str(pattern).format(density=density)


def _log_headlines(run: Run, root: Path, rows: Iterable[str]) -> None:
    """Log the headline scores of those names that are rows of the leaderboard with results."""
    for row in rows:
        if (path := Project(root).results.scores("metrics", row)).exists():
            run.headlines(row, read_json(path))


def _log_metrics(client: MlflowClient, run: str, values: Mapping[str, Any], step: int, prefix: str) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entries = [
        Metric(mlflow_client.safe_key(prefix + name), value, now, step) for name, value in numbers(values).items()
    ]
    for first in range(0, len(entries), 1000):  # the maximum size of a batch
        client.log_batch(run, metrics=entries[first : first + 1000])
