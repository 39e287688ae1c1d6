"""Stage `judge`: what reads tuples for every score, learned from real data.

Classifiers where there are labels, reported with their accuracy on held-out data, and an extractor of features.
"""

from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.artefacts.evaluators import KIND
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.judges import Judges, train_judges
from postprior.pipelines.metrics.features.reader import Reader, fit_extractor
from postprior.pipelines.metrics.features.readings import accuracy
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.pipelines.tracking.runs import Run, track
from postprior.stage1_vae.randomness import generator_for


def judge(params: Params, root: Path) -> None:
    """Train judges, if there are labels, and fit the extractor; artefacts/judges and results/metrics/judges.json."""
    project, settings = Project(root), params.judge
    train, test = project.train_and_test()
    with track("judge", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        judges = None if train.labels is None else trained(train, params, run)
        usual = "pca" if judges is None else "classifier"
        name = usual if settings.extractor == "auto" else settings.extractor
        if judges is not None and name == "classifier":
            reader = Reader(name, judges, judges)
        else:
            weights = None if settings.weights is None else root / settings.weights
            reader = Reader(name, fit_extractor(name, train, settings.features, params.seed, weights), judges)
        tensors, manifest = reader.state()
        save_artefact(project.artefacts.judges, KIND, {**manifest, "data": train.hash}, tensors)
        written = report(reader, test, np.random.default_rng(params.seed))
        write_json(project.results.scores("metrics", "judges"), written)


def trained(train: Dataset, params: Params, run: Run) -> Judges:
    """Judges of the labels of a dataset; the run is told of every epoch."""
    settings, generator = params.judge, generator_for("cpu", params.seed, 1)
    judges = Judges(train.modalities, train.label_names or (), settings.features, params.seed)
    how = (settings.epochs, settings.batch_size, settings.learning_rate)
    with progress("judge", settings.epochs) as step:
        for epoch in train_judges(judges, train, *how, generator):
            run.metrics({"train_loss": epoch.loss, "train_accuracy": epoch.accuracy}, step=epoch.number)
            step(f"accuracy {epoch.accuracy:.3f}")
    return judges


def report(reader: Reader, test: Dataset, rng: np.random.Generator) -> dict[str, Any]:
    """The content of judges.json: the extractor and its numbers of features, and how well labels are read."""
    readings = reader.read(test)
    names = [m.name for m in test.modalities]
    widths = {name: features.shape[1] for name, features in zip(names, readings.features, strict=True)}
    about = {"extractor": reader.name, "features": widths, "samples": len(test)}
    return about if readings.predictions is None else about | accuracy(readings, names, rng)
