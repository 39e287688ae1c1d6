"""Stage `judge`: the classifiers that score, trained on real data and reported with their accuracy on held-out data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config import Params
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.metrics.intervals import SHARE, estimate, half_samples, weighted_mean
from pipelines.progress import progress
from pipelines.storage import load_artefact, save_artefact, write_json
from pipelines.tracking import track

if TYPE_CHECKING:
    from pipelines.metrics.judges import Judges
    from pipelines.metrics.readings import Readings

KIND = "judges"
RESAMPLES = 200  # behind the intervals of the judges' own accuracy


def judge(params: Params, root: Path) -> None:
    """Train one classifier a modality; artefacts/judges and results/metrics/judges.json."""
    from pipelines.metrics.judges import Judges, train_judges
    from stage1_vae.training import generator_for

    train, test = (_labelled(root / "artefacts/data" / split) for split in ("train", "test"))
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
    with track("judge", params, root) as run, progress("judge", settings.epochs) as step:
        run.dataset(root / "artefacts/data/train", train.hash)
        for epoch in epochs:
            run.metrics({"train_loss": epoch.loss, "train_accuracy": epoch.accuracy}, step=epoch.number)
            step(f"accuracy {epoch.accuracy:.3f}")
        tensors, manifest = judges.state()
        save_artefact(root / "artefacts/judges", KIND, {**manifest, "data": train.hash}, tensors)
        scores = accuracy(
            judges.read(test), [m.name for m in test.modalities], np.random.default_rng(params.seed)
        )
        write_json(root / "results/metrics/judges.json", scores)


def load_judges(folder: Path) -> Judges:
    """The judges in a folder."""
    from pipelines.metrics.judges import Judges

    artefact = load_artefact(folder, KIND)
    return Judges.from_state(artefact.tensors, artefact.manifest)


def accuracy(readings: Readings, modalities: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """The share of labels read rightly, by modality over the rows that have it, and its mean; intervals by source."""
    assert readings.labels is not None
    assert readings.predictions is not None
    weights = half_samples(readings.sources, RESAMPLES, rng, readings.labels)
    observed, right = readings.predictions >= 0, readings.predictions == readings.labels[:, None]
    shares = [
        weighted_mean(hits[seen], weights[:, seen]) for hits, seen in zip(right.T, observed.T, strict=True)
    ]
    return {
        "accuracy": estimate(np.mean(shares, axis=0), SHARE),
        "modalities": {
            name: {"accuracy": estimate(share, SHARE)} for name, share in zip(modalities, shares, strict=True)
        },
        "samples": len(readings),
    }


def _labelled(folder: Path) -> Dataset:
    """The dataset in a folder, refused without labels."""
    dataset = Dataset.load(folder)
    if dataset.labels is None:
        raise UserError(
            f"{folder}: no labels found, the judges learn from them; add labels.npy and the labels' names."
        )
    return dataset
