"""MLflow as a view of the results: one run an executed stage. A failure costs a warning, never a result.

The runs go to mlflow.db in the project's root, or to MLFLOW_TRACKING_URI; its value `off` logs nothing and spares
each stage the import of MLflow. Runs of one experiment lie beneath a parent run: see `client.ExperimentGroup`.
"""

from __future__ import annotations

import io
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
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

PROJECT = Project(Path())  # whose paths begin at the root of any project
FOLDERS, FILES = PROJECT.artefacts, PROJECT.results
OF_DENSITY = (FOLDERS.autoencoder, FOLDERS.densities / "{density}")


@dataclass(frozen=True)
class StageOutputs:
    """What a stage leaves in the project, in paths in which {density} stands for the density's name."""

    artefacts: tuple[Path, ...] = ()  # folders that it makes or rests on; their hashes become tags
    metrics: Mapping[Path, str] = field(default_factory=dict)  # files, with the prefix of their metrics in MLflow
    files: tuple[Path, ...] = ()  # logged as they are, folders too
    pictures: Path | None = None  # a dataset folder whose first samples are shown


def _of_density(part: str = "", prefix: str = "") -> StageOutputs:
    """What a stage leaves that works on one density."""
    return StageOutputs(OF_DENSITY, {FILES.scores(part, "{density}"): prefix} if part else {})


RESULTS = {
    "train-evaluators": StageOutputs((FOLDERS.evaluators,), {FILES.scores("metrics", "evaluators"): ""}),
    "train": StageOutputs((FOLDERS.autoencoder,), files=(FILES.training,)),
    "encode": StageOutputs((FOLDERS.autoencoder,)),
    "diagnose": StageOutputs((FOLDERS.autoencoder,), {FILES.scores("metrics", "latent"): "latent."}),
    "score-baselines": StageOutputs(
        (FOLDERS.autoencoder, FOLDERS.evaluators),
        # `normal` is a sampler: its metrics have the names of a density's, so that all samplers can be compared
        {
            FILES.scores("metrics", name): "" if name == "normal" else f"{name}."
            for name in (*BASELINE_ROWS, "autoencoder")
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
    """What becomes of a failure to log."""
    warning = f"MLflow could not log this run ({reason}); the results are written all the same"
    tell(f"postprior: warning: {warning}", err=True)


class Run:
    """One run of a stage in MLflow; after the first failure, whose reason `failed` is told, its methods do nothing."""

    def __init__(self, failed: Callable[[str], None] = warn) -> None:
        self._client: MlflowClient | None = None
        self._failed = failed
        self._whole: Callable[[], AbstractContextManager[None]] = nullcontext
        self.id = self._parent = ""

    def start(
        self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str], group: ExperimentGroup
    ) -> None:
        """Open the run beneath that of its group; the other methods then write to it."""
        uri = mlflow_client.address(root)
        if uri is None:
            return
        if uri.startswith(mlflow_client.DATABASES):
            self._whole = defer_signals  # a transaction that is cut locks out the call that closes the run

        def start() -> None:
            with defer_signals():  # a run that was made is known, and will be closed
                client, experiment = mlflow_client.connect(uri, root)
                self._parent = group.parent(client, experiment)
                nested = {**tags, PARENT: self._parent, TAG: group.key}
                self.id = client.create_run(experiment, tags=nested, run_name=name).info.run_id
                self._client = client
            log_params(client, self.id, params)

        self._try(start)

    def metrics(self, values: Mapping[str, Any], step: int = 0, prefix: str = "") -> None:
        """Log numbers; a nested mapping becomes name.key, and name.value is just name."""
        self.call(lambda client: _log_metrics(client, self.id, values, step, prefix))

    def headlines(self, row: str, values: Mapping[str, Any]) -> None:
        """Log the scores by which experiments are compared to the parent run, as <row>.<score>."""
        told = {name: values[name] for name in HEADLINES if name in values}
        self.call(lambda client: _log_metrics(client, self._parent, told, 0, f"{row}."))

    def dataset(self, folder: Path, digest: str | None) -> None:
        """Tie the run to a dataset folder by the hash of its content."""

        def log(client: MlflowClient) -> None:
            from mlflow import entities

            source = json.dumps({"uri": str(folder)})
            entry = entities.Dataset(folder.name, (digest or "")[:36], "local", source)  # 36: MLflow's limit
            client.log_inputs(self.id, [entities.DatasetInput(entry, [])])

        self.call(log)

    def file(self, path: Path) -> None:
        """Log a file, or every file of a folder."""
        log = "log_artifacts" if path.is_dir() else "log_artifact"
        self.call(lambda client: getattr(client, log)(self.id, str(path)))

    def picture(self, folder: Path, name: str) -> None:
        """Log a picture of the first samples in a dataset folder, under a file name."""

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
        """Hand the client to an action, unless a failure came before."""
        if (client := self._client) is not None:
            self._try(lambda: action(client))

    def _try(self, action: Callable[[], object]) -> None:
        try:
            with mlflow_client.undisturbed(), self._whole():
                action()
        except Exception as error:  # whatever MLflow, its database or its server raise: the stage goes on
            self._client = None
            self._failed(mlflow_client.reason(error))


@contextmanager
def track(
    stage: str, params: Params, root: Path, density: str | None = None, failed: Callable[[str], None] = warn
) -> Iterator[Run]:
    """A run in MLflow around a stage; when the stage ends well, the results in its files are logged.

    Settings of the chosen source, model and density are logged too; `density` is for the stages of a density, and
    `failed` is told the reason when MLflow fails.
    """
    global started
    run, started = started if started is not None and failed is warn else Run(failed), None
    group = ExperimentGroup.of(params, root)
    sampler = "normal" if stage == "score-baselines" else density  # the row of this stage that is a sampler
    tags = {**group.tags, "stage": stage} | ({"density": sampler} if sampler else {})
    settings, status = dict(leaves(params.chosen([density] if density else []))), "FAILED"
    try:
        run.start(root, f"{stage} {density or ''}".strip(), settings, tags, group)
        yield run
        _log_results(run, stage, root, density or "")
        if stage == "compare":  # the last one: also of rows whose stages had no need to run
            _log_headlines(run, root, (*BASELINE_ROWS, *params.densities))
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
    results = RESULTS.get(stage, StageOutputs())
    for place in results.artefacts:
        with suppress(UserError, OSError):
            run.tag(f"hash.{place.relative_to(FOLDERS.home).parts[0]}", folder_hash(written(root, place, density)))
    for pattern, prefix in results.metrics.items():
        if (path := written(root, pattern, density)).exists():
            run.metrics(read_json(path), prefix=prefix)
    of_rows = (pattern for pattern in results.metrics if pattern.parent == FILES.scores("metrics", "").parent)
    _log_headlines(run, root, [written(root, pattern, density).stem for pattern in of_rows])
    for pattern in results.files:
        if (path := root / pattern).exists():
            run.file(path)
    if results.pictures and (folder := written(root, results.pictures, density)).exists():
        run.picture(folder, "samples.png")


def written(root: Path, pattern: Path, density: str | None) -> Path:
    """The path that a pattern stands for in a project."""
    return root / str(pattern).format(density=density)


def _log_headlines(run: Run, root: Path, rows: Iterable[str]) -> None:
    """Log the headlines of those names that are rows of the leaderboard with results."""
    for row in rows:
        if (path := Project(root).results.scores("metrics", row)).exists():
            run.headlines(row, read_json(path))


def _log_metrics(client: MlflowClient, run: str, values: Mapping[str, Any], step: int, prefix: str) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entries = [Metric(prefix + name, value, now, step) for name, value in numbers(values).items()]
    for first in range(0, len(entries), 1000):  # the most that a batch takes
        client.log_batch(run, metrics=entries[first : first + 1000])
