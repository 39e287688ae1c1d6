"""Stage `train-evaluators`: train the evaluators, which all scores use, on real data.

They are a feature extractor and, if there are labels, label classifiers, reported with their accuracy on held-out data.
"""

from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.artefacts.evaluators import KIND
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.evaluator_outputs import accuracy
from postprior.pipelines.metrics.features.evaluators import Evaluators, fit_extractor
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import train_label_classifiers
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.pipelines.tracking.runs import Run, track
from postprior.stage1_vae.randomness import generator_for


def train_evaluators(params: Params, root: Path) -> None:
    """Fit the feature extractor and, if there are labels, train the label classifiers."""
    project, settings = Project(root), params.evaluators
    train, test = project.train_and_test()
    with track("train-evaluators", params, root) as run:
        run.dataset(project.artefacts.data / "train", train.hash)
        default = "pca" if train.labels is None else "classifier"
        name = default if settings.extractor == "auto" else settings.extractor
        if name == default == "classifier":
            classifiers = train_classifiers(train, params, run)
            evaluators = Evaluators(name, classifiers, classifiers)
        else:  # the extractor first, so that an error in it is told before the training
            weights = None if settings.weights is None else root / settings.weights
            extractor = fit_extractor(name, train, settings.features, params.seed, weights)
            evaluators = Evaluators(
                name, extractor, None if train.labels is None else train_classifiers(train, params, run)
            )
        tensors, manifest = evaluators.state()
        save_artefact(project.artefacts.evaluators, KIND, {**manifest, "data": train.hash}, tensors)
        written = report(evaluators, test, np.random.default_rng(params.seed))
        write_json(project.results.scores("metrics", "evaluators"), written)


def train_classifiers(train: Dataset, params: Params, run: Run) -> LabelClassifiers:
    """Train label classifiers on a dataset, and log every epoch to the run."""
    settings, generator = params.evaluators, generator_for("cpu", params.seed, 1)
    classifiers = LabelClassifiers(train.modalities, train.label_names or (), settings.features, params.seed)
    schedule = (settings.epochs, settings.batch_size, settings.learning_rate)
    with progress("train-evaluators", settings.epochs) as step:
        for epoch in train_label_classifiers(classifiers, train, *schedule, generator):
            run.metrics({"train_loss": epoch.loss, "train_accuracy": epoch.accuracy}, step=epoch.number)
            step(f"accuracy {epoch.accuracy:.3f}")
    return classifiers


def report(evaluators: Evaluators, test: Dataset, rng: np.random.Generator) -> dict[str, Any]:
    """Return the content of evaluators.json: the extractor, its numbers of features and the classifiers' accuracy."""
    with progress("test the evaluators", 1) as step:
        outputs = evaluators.outputs(test)
        step("")
    names = [m.name for m in test.modalities]
    widths = {name: features.shape[1] for name, features in zip(names, outputs.features, strict=True)}
    about = {"extractor": evaluators.name, "features": widths, "samples": len(test)}
    return about if outputs.predictions is None else about | accuracy(outputs, names, rng)
