"""What the autoencoder does by itself: generate modalities from others, reconstruct, and leave dimensions unused."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.coherence.agreement import conditional_coherence, subsets_by_size
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.judges import Judges
from postprior.pipelines.metrics.features.readings import Readings
from postprior.pipelines.metrics.fidelity.images import likeness
from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    SCORED,
    SHARE,
    Floats,
    Written,
    estimate,
    too_few,
    weighted_mean,
)
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE

SUBSETS = 60  # subsets of observed modalities, at the most
ROWS = 64  # rows encoded at once, each from every subset
DRAWS = 64  # importance draws a row
IMPORTANCE_ROWS = 16  # rows whose draws are decoded at once
BOUNDS = {key: metric.bounds for key, metric in of_family("coherence").items()}
DEAD = 0.01  # variance of its posterior means under which a latent dimension says nothing about a sample


@torch.no_grad()
def conditional_scores(
    model: MultimodalVAE, judges: Judges, data: Dataset, weights: Floats, rng: np.random.Generator
) -> dict[str, Any]:
    """Conditional coherence {"1": {"value", "low", "high"}, …} by number of observed modalities.

    From every subset of the modalities of a row one posterior draw is decoded into those that the subset lacks,
    whose labels the judges compare with the row's. Data are complete rows with labels; weights (1 + B, N) theirs.
    """
    assert data.labels is not None
    sizes = range(1, len(model.modalities))
    if not sizes:
        return {}
    if few := too_few(len(data), FEWEST, SCORED):
        return {str(size): few.written for size in sizes}
    subsets = subsets_by_size(len(model.modalities), SUBSETS, rng)
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    predictions = generated_labels(model, judges, data, subsets, generator)
    by_size = conditional_coherence(predictions, np.asarray(data.labels), subsets)
    return {str(size): estimate(weighted_mean(share, weights), SHARE) for size, share in by_size.items()}


def generated_labels(
    model: MultimodalVAE,
    judges: Judges,
    data: Dataset,
    subsets: NDArray[np.bool_],
    generator: torch.Generator,
) -> NDArray[np.int64]:
    """Labels (N, S, M) that judges read in the modalities generated from each subset (S, M); −1 where it observes."""
    predictions = np.full((len(data), *subsets.shape), -1, np.int64)
    for start in range(0, len(data), ROWS):
        rows = slice(start, start + ROWS)
        latents = model.infer(data.batch(rows), torch.from_numpy(subsets), generator)  # (B, S, F)
        wanted = np.tile(~subsets, (len(latents), 1))
        labels = judged(model, judges, latents.flatten(0, 1), wanted)
        predictions[rows] = labels.reshape(-1, *subsets.shape)
    return predictions


def judged(
    model: MultimodalVAE, judges: Judges, latents: Tensor, wanted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Labels (n, M) that judges read in the modalities wanted (n, M) of what decoders read (n, F); −1 in the others."""
    predictions = np.full(wanted.shape, -1, np.int64)
    for m, modality in enumerate(model.modalities):
        rows = np.flatnonzero(wanted[:, m])
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            shown = decoded(model, modality, latents[torch.from_numpy(some)])
            predictions[some, m] = judges.labels(modality.name, shown).numpy()
    return predictions


def decoded(model: MultimodalVAE, modality: Modality, latents: Tensor) -> Tensor:
    """Means (n, *shape) of one decoder for what it reads (n, F), as data of the modality may hold them."""
    return modality.admit(model.decode_one(modality, latents).mean)


def evidence(model: MultimodalVAE, data: Dataset, weights: Floats, seed: int) -> Written | None:
    """Mean log p(x) of rows in nats, by importance sampling; None for a model that has no tractable one.

    A lower bound in expectation, within hundredths of a nat only where the posterior is close to the exact one.
    """
    if not model.tractable:
        return None
    if few := too_few(len(data), FEWEST, SCORED):
        return few.written
    generator = torch.Generator().manual_seed(seed)
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
    if few := too_few(len(data), FEWEST, SCORED):
        return {"reconstruction_error": few.written, "modalities": {}}
    rows = {m.name: row_errors(m, data.data[m.name], reconstruction.data[m.name]) for m in data.modalities}
    if readings.predictions is not None and readings.labels is not None:
        for of, predicted in zip(rows.values(), readings.predictions.T, strict=True):
            of["accuracy"] = predicted == readings.labels
    means = {
        name: {kind: weighted_mean(values, weights) for kind, values in of.items()}
        for name, of in rows.items()
    }
    by_kind = {kind: [of[kind] for of in means.values() if kind in of] for of in rows.values() for kind in of}
    return {kind: estimate(np.mean(lines, 0), BOUNDS[kind]) for kind, lines in by_kind.items()} | {
        "modalities": {
            name: {kind: estimate(line, BOUNDS[kind]) for kind, line in of.items()}
            for name, of in means.items()
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


def dead_dimensions(means: Tensor) -> int:
    """Number of latent dimensions whose posterior means (N, D), N ≥ 2, vary by less than `DEAD`."""
    return int((means.var(0) < DEAD).sum())
