"""MLflow as a view of the results: one run an executed stage. A failure costs a warning, never a result.

The runs go to mlflow.db in the project's root, or wherever MLFLOW_TRACKING_URI points; `off` there logs nothing,
and spares each stage the import of MLflow. Runs of one experiment lie beneath a parent run: see `groups`.
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

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.settings.params import REFERENCE_ROWS, Params, leaves
from postprior.pipelines.signals import held_back
from postprior.pipelines.storage import folder_hash, read_json
from postprior.pipelines.texts import tell
from postprior.pipelines.tracking import client as mlflow_client
from postprior.pipelines.tracking.groups import PARENT, TAG, Group

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCORES = "metrics/"  # what the files of rows of the leaderboard begin with


@dataclass(frozen=True)
class Results:
    """What a stage leaves in the project, by patterns in which {density} stands for the density's name.

    Args:
        artefacts: folders in artefacts/ that it makes or rests on; their hashes become tags.
        metrics: files results/<name>.json with the prefix of their metrics in MLflow.
        files: files and folders that are logged as they are.
        pictures: a dataset folder whose first samples are shown.
    """

    artefacts: tuple[str, ...] = ()
    metrics: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    pictures: str = ""


RESULTS = {
    "judge": Results(("judges",), {"metrics/judges": ""}),
    "train": Results(("autoencoder",), files=("results/training.csv",)),
    "encode": Results(("autoencoder",)),
    "inspect": Results(("autoencoder",), {"metrics/latent": "latent."}),
    "reference": Results(
        ("autoencoder", "judges"),
        # `normal` is a sampler: its metrics have the names of a density's, so that all samplers can be compared
        {
            "metrics/normal": "",
            "metrics/reconstruction": "reconstruction.",
            "metrics/real": "real.",
            "metrics/autoencoder": "autoencoder.",
        },
    ),
    "fit": Results(("autoencoder", "densities/{density}")),
    "generate": Results(("autoencoder", "densities/{density}")),
    "evaluate": Results(
        ("autoencoder", "densities/{density}", "judges"),
        {"metrics/{density}": ""},
        pictures="artefacts/synthetic/{density}",
    ),
    "utility-real": Results(metrics={"utility/real": "real.utility."}),
    "utility": Results(("autoencoder", "densities/{density}"), {"utility/{density}": "utility."}),
    "privacy": Results(("autoencoder", "densities/{density}"), {"privacy/{density}": "privacy."}),
    "recover-baselines": Results(metrics={"recovery/baselines": "recovery."}),
    "recover": Results(("autoencoder", "densities/{density}"), {"recovery/{density}": "recovery."}),
    "augment": Results(files=("results/augmentation",)),
    "register": Results(("autoencoder", "densities/{density}")),
    "compare": Results(
        files=("results/comparison.csv", "results/report.html", "results/plots", "results/datasheets")
    ),
}


def warn(reason: str) -> None:
    """What becomes of a failure to log."""
    warning = f"MLflow could not log this run ({reason}); the results are written all the same"
    tell(f"postprior: warning: {warning}", err=True)


class Run:
    """One run of a stage in MLflow; after the first failure its methods do nothing.

    Args:
        failed: called with the reason of that failure.
    """

    def __init__(self, failed: Callable[[str], None] = warn) -> None:
        self._client: MlflowClient | None = None
        self._failed = failed
        self._whole: Callable[[], AbstractContextManager[None]] = nullcontext
        self.id = self._parent = ""

    def start(
        self, root: Path, name: str, params: Mapping[str, Any], tags: Mapping[str, str], group: Group
    ) -> None:
        """Open the run beneath that of its group; the other methods then write to it."""
        uri = mlflow_client.address(root)
        if uri is None:
            return
        if uri.startswith(mlflow_client.DATABASES):
            # a transaction that is cut locks out the call that closes the run
            self._whole = held_back

        def start() -> None:
            with held_back():  # a run that was made is known, and will be closed
                client, experiment = mlflow_client.connect(uri, root)
                self._parent = group.parent(client, experiment)
                nested = {**tags, PARENT: self._parent, TAG: group.key}
                self.id = client.create_run(experiment, tags=nested, run_name=name).info.run_id
                self._client = client
            mlflow_client.log_params(client, self.id, params)

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
            from tempfile import TemporaryDirectory

            from PIL import Image

            from postprior.pipelines.data.dataset import Dataset
            from postprior.pipelines.data.pictures import sheet_of

            if sheet := sheet_of(Dataset.load(folder)):
                with TemporaryDirectory() as temporary:
                    path = Path(temporary) / name
                    Image.open(io.BytesIO(sheet.image)).save(path)
                    client.log_artifact(self.id, str(path))

        self.call(log)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""

        def log(client: MlflowClient) -> None:
            for key, value in values.items():
                client.set_tag(self.id, key, value)

        self.call(log)

    def finish(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""

        def close(client: MlflowClient) -> None:
            for run in (self.id, self._parent):
                client.set_terminated(run, status)

        with held_back():
            self.call(close)
            self._client = None

    def call(self, action: Callable[[MlflowClient], None]) -> None:
        """Hand the client to an action, unless a failure came before."""
        if (client := self._client) is not None:
            self._try(lambda: action(client))

    def _try(self, action: Callable[[], None]) -> None:
        try:
            with mlflow_client.undisturbed(), self._whole():
                action()
        except Exception as error:  # whatever MLflow, its database or its server raise: the stage goes on
            self._client = None
            self._failed(mlflow_client.reason(error))


@contextmanager
def track(
    stage: str,
    params: Params,
    root: Path,
    density: str | None = None,
    failed: Callable[[str], None] = warn,
) -> Iterator[Run]:
    """A run in MLflow around a stage; when the stage ends well, the results in its files are logged.

    Args:
        stage: the stage's command.
        params: the settings; those of the chosen source, model and density are logged.
        root: the project's root.
        density: the density that the stage works on, for the stages of a density.
        failed: called with the reason when MLflow fails.
    """
    run, group = Run(failed), Group.of(params, root)
    sampler = "normal" if stage == "reference" else density  # the row of this stage that is a sampler
    status = "FAILED"
    try:
        run.start(
            root,
            f"{stage} {density or ''}".strip(),
            dict(leaves(params.chosen([density] if density else []))),
            {**group.tags, "stage": stage, **({"density": sampler} if sampler else {})},
            group,
        )
        yield run
        _log_results(run, stage, root, density or "")
        if stage == "compare":  # the last one: also of rows whose stages had no need to run
            _log_headlines(run, root, (*REFERENCE_ROWS, *params.densities))
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
        path = root / "results" / f"{pattern.format(density=density)}.json"
        if path.exists():
            run.metrics(read_json(path), prefix=prefix)
    names = [pattern.format(density=density) for pattern in results.metrics]
    _log_headlines(run, root, [name.removeprefix(SCORES) for name in names if name.startswith(SCORES)])
    for name in results.files:
        if (root / name).exists():
            run.file(root / name)
    folder = root / results.pictures.format(density=density)
    if results.pictures and folder.exists():
        run.picture(folder, "samples.png")


def _log_headlines(run: Run, root: Path, rows: Iterable[str]) -> None:
    """Log the headlines of those names that are rows of the leaderboard with results."""
    for row in rows:
        path = root / "results/metrics" / f"{row}.json"
        if path.exists():
            run.headlines(row, read_json(path))


def _log_metrics(client: MlflowClient, run: str, values: Mapping[str, Any], step: int, prefix: str) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    entries = [Metric(prefix + name, value, now, step) for name, value in numbers(values).items()]
    for first in range(0, len(entries), 1000):  # the most that a batch takes
        client.log_batch(run, metrics=entries[first : first + 1000])
