"""Stage `train`: train the autoencoder. A run that was killed and started again ends with the same bytes."""

import csv
import io
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines import ranks
from postprior.pipelines.artefacts.autoencoder import KIND, as_user_errors, build
from postprior.pipelines.artefacts.checkpoint import Checkpoint, History
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.locks import sole_trainer
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder, write_text
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import files_of, save_artefact
from postprior.pipelines.texts import tell
from postprior.pipelines.tracking.outputs import curves
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae import training
from postprior.stage1_vae.hiding import has_cells
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE


def train(params: Params, root: Path) -> None:
    """Train the model in params.yaml; write artefacts/autoencoder and results/training.csv.

    Several ranks share each batch; the first one writes.
    """
    job = ranks.meet()
    project = Project(root)
    folder = project.artefacts.autoencoder
    check_folder(folder, partial(files_of, kind=KIND))  # check before training, not after hours
    data, validation = project.dataset("train"), project.dataset("validation")
    settings = training.Settings(**params.train.model_dump(), seed=params.seed)
    model, digest = build(params, data), data.hash  # hash now: the folder may be replaced during training
    tell_what_is_left_out(model, data)
    checkpoint = Checkpoint.of(project.checkpoints, params, data, validation)
    with sole_trainer(root) if job.is_first else nullcontext(lambda: None) as confirm:
        history, resume = checkpoint.load(job)
        epochs = as_user_errors(training.train(model, Confirmed(data, confirm), settings, validation, resume, job))
        if not job.is_first:
            deque(epochs, maxlen=0)
            return
        total = sum(training.epochs_of(phase, settings) for phase in model.phases())
        with track("train", params, root) as run, progress(f"train {params.vae.model}", total, len(history)) as step:
            run.dataset(project.artefacts.data / "train", digest)
            for epoch in epochs:
                history.append({"epoch": epoch.snapshot.epoch + 1, "phase": epoch.phase, **epoch.metrics})
                checkpoint.save(history, epoch.snapshot)
                run.metrics(curves(epoch.metrics), step=len(history))
                step(f"loss {epoch.metrics['train_loss']:.1f}")
            tensors, description = model.state()
            facts = {"model": params.vae.model, "data": digest, "train": params.train.model_dump()}
            if not params.train.hide_cells and (columns := never_missing(data)):
                facts["never_missing"] = columns
            confirm()
            save_artefact(folder, KIND, {**description, **facts}, tensors)
            write_text(project.results.training, table(history))
        checkpoint.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Confirmed:
    """Training rows that confirm before each batch that this process may continue to train."""

    data: Dataset
    confirm: Callable[[], None]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def observed(self) -> Any:
        """Which modalities each row has, bool of shape (N, M)."""
        return self.data.observed

    def batch(self, rows: Any) -> Batch:
        """Return the batch of the given row numbers."""
        self.confirm()
        return self.data.batch(rows)


def tell_what_is_left_out(model: MultimodalVAE, data: Dataset) -> None:
    """Print a line if some phases cannot be trained on some of the rows."""
    phases = [phase.name for phase in model.phases() if phase.complete]
    left_out = int((~data.observed.all(1)).sum())
    if phases and left_out:
        tell(
            f"train: {left_out} of {len(data)} rows lack a modality, which a joint encoder cannot read; phase "
            f"{', '.join(phases)} is trained on the complete rows only, and all rows are encoded",
            err=True,
        )


def never_missing(data: Dataset) -> dict[str, list[int]]:
    """Return the values of partly observed tables and vectors that are never missing where their modality is there."""
    columns = {}
    for m, has in zip(data.modalities, data.observed.T, strict=True):
        if m.name in data.cells and has_cells(m):
            columns[m.name] = np.flatnonzero(data.cells[m.name][has].all(0)).tolist()
    return {name: numbers for name, numbers in columns.items() if numbers}


def table(history: History) -> str:
    """Return the history as CSV; metrics that a phase does not have are empty."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
