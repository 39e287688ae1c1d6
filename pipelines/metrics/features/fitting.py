"""Fit the evaluators, which all scores use, to real data.

They are a feature extractor and, if there are labels, label classifiers, reported with their accuracy on held-out data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.evaluator_outputs import accuracy
from postprior.pipelines.metrics.features.evaluators import Evaluators, fit_extractor
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import train_label_classifiers
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.stage1_vae.randomness import generator_for

MOST = 20_000  # maximum number of test rows


def fit_evaluators(train: Dataset, params: Params, root: Path, log: Callable[..., None] | None = None) -> Evaluators:
    """Fit the feature extractor and, if there are labels, train the label classifiers.

    Args:
        root: The folder that a relative path to weights of an extractor starts from.
        log: Receives the metrics of each epoch.
    """
    settings = params.evaluators
    default = "pca" if train.labels is None else "classifier"
    name = default if settings.extractor == "auto" else settings.extractor
    if name == default == "classifier":
        classifiers = train_classifiers(train, params, log)
        return Evaluators(name, classifiers, classifiers)
    # The extractor first, so that an error in it is told before the training.
    weights = None if settings.weights is None else root / settings.weights
    extractor = fit_extractor(name, train, settings.features, params.seed, weights)
    return Evaluators(name, extractor, None if train.labels is None else train_classifiers(train, params, log))


def train_classifiers(train: Dataset, params: Params, log: Callable[..., None] | None) -> LabelClassifiers:
    """Train label classifiers on a dataset."""
    settings, generator = params.evaluators, generator_for("cpu", params.seed, 1)
    classifiers = LabelClassifiers(train.modalities, train.label_names or (), settings.features, params.seed)
    schedule = (settings.epochs, settings.batch_size, settings.learning_rate)
    with progress("train-evaluators", settings.epochs) as step:
        for epoch in train_label_classifiers(classifiers, train, *schedule, generator):
            if log is not None:
                log({"train_loss": epoch.loss, "train_accuracy": epoch.accuracy}, step=epoch.number)
            step(f"accuracy {epoch.accuracy:.3f}")
    return classifiers


def evaluator_scores(evaluators: Evaluators, test: Dataset, seed: int) -> dict[str, Any]:
    """Return the content of evaluators.json: the extractor, its numbers of features and the classifiers' accuracy.

    The accuracy is that on at most `MOST` test rows, a random subset.
    """
    if len(test) > MOST:
        test = test.select(np.sort(np.random.default_rng((seed, 1)).permutation(len(test))[:MOST]))
    with progress("test the evaluators", 1) as step:
        outputs = evaluators.outputs(test)
        step("")
    names = [m.name for m in test.modalities]
    widths = {name: features.shape[1] for name, features in zip(names, outputs.features, strict=True)}
    about = {"extractor": evaluators.name, "features": widths, "samples": len(test)}
    return about if outputs.predictions is None else about | accuracy(outputs, names, np.random.default_rng(seed))
