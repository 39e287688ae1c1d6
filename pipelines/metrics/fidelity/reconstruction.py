"""How well an autoencoder reconstructs rows, and how likely they are to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.readings import Readings
from postprior.pipelines.metrics.fidelity.images import likeness
from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import Floats, Written, estimate, unscored, weighted_mean
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE

DRAWS = 64  # importance draws a row
IMPORTANCE_ROWS = 16  # rows whose draws are decoded at once
BOUNDS = bounds_of("fidelity")


def evidence(model: MultimodalVAE, data: Dataset, weights: Floats, generator: torch.Generator) -> Written | None:
    """Mean log p(x) of rows in nats, by importance sampling; None for a model that has no tractable one.

    A lower bound in expectation, within hundredths of a nat only where the posterior is close to the exact one.
    """
    if not model.tractable:
        return None
    if few := unscored(len(data)):
        return few.written
    values = [
        model.log_evidence(data.batch(slice(start, start + IMPORTANCE_ROWS)), generator, DRAWS)
        for start in range(0, len(data), IMPORTANCE_ROWS)
    ]
    return estimate(weighted_mean(torch.cat(values).double().numpy(), weights), (-np.inf, np.inf))


def reconstruction_scores(
    data: Dataset, reconstruction: Dataset, readings: Readings, weights: Floats
) -> dict[str, Any]:
    """Mean squared error of reconstructions, likeness of images and volumes, with labels judged accuracy.

    Means over the modalities that have a score, and each of them. Readings are of the reconstruction, weights
    (1 + B, N) of its rows.
    """
    if few := unscored(len(data)):
        return {"reconstruction_error": few.written, "modalities": {}}
    rows = {m.name: row_errors(m, data.data[m.name], reconstruction.data[m.name]) for m in data.modalities}
    if readings.predictions is not None and readings.labels is not None:
        for of, predicted in zip(rows.values(), readings.predictions.T, strict=True):
            of["accuracy"] = predicted == readings.labels
    means = {name: {kind: weighted_mean(values, weights) for kind, values in of.items()} for name, of in rows.items()}
    by_kind = {kind: [of[kind] for of in means.values() if kind in of] for of in rows.values() for kind in of}
    return {kind: estimate(np.mean(lines, 0), BOUNDS[kind]) for kind, lines in by_kind.items()} | {
        "modalities": {
            name: {kind: estimate(line, BOUNDS[kind]) for kind, line in of.items()} for name, of in means.items()
        }
    }


def row_errors(modality: Modality, values: np.ndarray, others: np.ndarray) -> dict[str, NDArray[Any]]:
    """What sets values (N, *shape) of a modality apart from others, by name and row (N,)."""
    errors: dict[str, NDArray[Any]] = {
        "reconstruction_error": ((values - others) ** 2).reshape(len(values), -1).mean(1)
    }
    if modality.kind not in ("image", "volume"):
        return errors
    low, high = modality.range or (float(values.min()), float(values.max()))
    return errors | likeness(others, values, (high - low) or 1.0)
