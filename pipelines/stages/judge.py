"""Stage `judge`: what reads tuples for every score, learned from real data.

Classifiers where there are labels, reported with their accuracy on held-out data, and an extractor of features.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.artefacts.evaluators import KIND
from postprior.pipelines.data.dataset import Dataset, check_labels
from postprior.pipelines.metrics.statistics.intervals import (
    SHARE,
    Missing,
    Score,
    estimate,
    half_samples,
    mean_of,
    weighted_mean,
)
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.pipelines.tracking.runs import Run, track

if TYPE_CHECKING:
    from postprior.pipelines.metrics.features.judges import Judges
    from postprior.pipelines.metrics.features.reader import Reader
    from postprior.pipelines.metrics.features.readings import Readings

RESAMPLES = 200  # behind the intervals of the judges' own accuracy


def judge(params: Params, root: Path) -> None:
    """Train one classifier a modality where there are labels, and fit the extractor of features.

    Writes artefacts/judges and results/metrics/judges.json.
    """
    from postprior.pipelines.metrics.features.reader import Reader, fit_extractor

    settings, folder = params.judge, root / "artefacts/data/train"
    train, test = (Dataset.load(root / "artefacts/data" / split) for split in ("train", "test"))
    check_labels(train, test)
    with track("judge", params, root) as run:
        run.dataset(folder, train.hash)
        judges = None if train.labels is None else trained(train, params, run)
        name = settings.extractor
        if name == "auto":
            name = "pca" if judges is None else "classifier"
        if judges is not None and name == "classifier":
            reader = Reader(name, judges, judges)
        else:
            weights = None if settings.weights is None else root / settings.weights
            space = fit_extractor(name, train, settings.features, params.seed, weights)
            reader = Reader(name, space, judges)
        tensors, manifest = reader.state()
        save_artefact(root / "artefacts/judges", KIND, {**manifest, "data": train.hash}, tensors)
        write_json(
            root / "results/metrics/judges.json", report(reader, test, np.random.default_rng(params.seed))
        )


def trained(train: Dataset, params: Params, run: Run) -> Judges:
    """Judges of the labels of a dataset; the run is told of every epoch."""
    from postprior.pipelines.metrics.features.judges import Judges, train_judges
    from postprior.stage1_vae.randomness import generator_for

    settings = params.judge
    judges = Judges(train.modalities, train.label_names or (), settings.features, params.seed)
    epochs = train_judges(
        judges,
        train,
        settings.epochs,
        settings.batch_size,
        settings.learning_rate,
        generator_for("cpu", params.seed, 1),
    )
    with progress("judge", settings.epochs) as step:
        for epoch in epochs:
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


def accuracy(readings: Readings, modalities: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """The share of labels read rightly, by modality over the rows that have it, and its mean; intervals by source."""
    assert readings.labels is not None
    assert readings.predictions is not None
    weights = half_samples(readings.sources, RESAMPLES, rng, readings.labels)
    observed, right = readings.predictions >= 0, readings.predictions == readings.labels[:, None]
    shares: list[Score] = [
        weighted_mean(hits[seen], weights[:, seen]) if seen.any() else Missing(f"no test row has {name}")
        for name, hits, seen in zip(modalities, right.T, observed.T, strict=True)
    ]
    return {
        "accuracy": estimate(mean_of(shares), SHARE),
        "modalities": {
            name: {"accuracy": estimate(share, SHARE)} for name, share in zip(modalities, shares, strict=True)
        },
    }
