"""Augmentation: classical transformations of rows, and accuracies by arm.

Classical augmentation applies small random changes that keep the label, drawn anew each time a row is used:

| values | change |
|---|---|
| images, volumes | shift, rotation and zoom with repeated edges; brightness, contrast, noise |
| images and volumes of classes or counts | shift, rotation and zoom to the nearest cell |
| vectors, continuous columns of tables | noise |
| sequences, counts and classes of vectors and tables | none |

There are no reflections, because a mirrored digit, letter or organ is a different one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.extractor import moments, observed_values
from postprior.pipelines.metrics.statistics.intervals import SHARE, Ints, Score
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.utility.classifiers import (
    Replicates,
    by_classifier,
    classifier_estimates,
    rows_by_classifier,
)
from postprior.stage1_vae.modalities import Modality, support

RESAMPLES = 400  # half-samples
SHIFT = 0.1  # maximum, relative to height, width or depth
ANGLE = math.radians(12)  # maximum; for volumes approximately, about any axis
ZOOM = 0.12  # maximum, relative to the size
CONTRAST = 0.2  # maximum, relative to the contrast
BRIGHTNESS = 0.3  # maximum, in standard deviations of the modality
NOISE = 0.1  # standard deviation of the noise on images, in standard deviations of the modality
JITTER = 0.2  # the same for vectors and columns
BASELINES = {"over_real": "real", "over_classical": "classical"}


@dataclass(frozen=True)
class ArmHits:
    """Correct predictions on test rows by classifiers that were trained on few real rows, for every seed and arm."""

    rows: int  # real training rows
    seeds: Sequence[int]  # each selects other training rows
    arms: Sequence[str]
    modalities: Sequence[str]
    hits: NDArray[np.bool_]  # (S, arms, 1 + M, N), the joint classifier first
    groups: Ints | None = None  # (N,), None: each test row is its own source
    labels: Ints | None = None  # (N,), strata of half-samples, −1: not tested; None: no strata
    mask: NDArray[np.bool_] | None = None  # (N, M), None: every modality is observed

    @property
    def sources(self) -> Ints:
        """The source of each test row (N,)."""
        return np.arange(self.hits.shape[-1]) if self.groups is None else self.groups

    @property
    def seen(self) -> NDArray[np.bool_]:
        """The rows on which each classifier is tested (1 + M, N)."""
        observed = np.ones(self.hits.shape[:1:-1], bool)[:, 1:] if self.mask is None else self.mask
        return rows_by_classifier(self.labels, observed)

    @property
    def accuracy(self) -> dict[str, Any]:
        """Mean accuracies over seeds by arm: joint, mean over modalities, per modality.

        The accuracy of a modality without test rows is missing.
        """

        def value(score: Score) -> Any:
            return score.written if isinstance(score, Missing) else float(score[0])

        rows = self.seen.sum(1)
        shares = np.where(rows > 0, self.hits.sum(3).mean(0) / np.maximum(rows, 1), np.nan)  # (arms, 1 + M)
        by_arm = zip(self.arms, shares, strict=True)
        return {arm: by_classifier(accuracies[None], self.modalities, value) for arm, accuracies in by_arm}

    @property
    def estimates(self) -> dict[str, dict[str, Any]]:
        """`accuracy` and its gains `over_real` and `over_classical` by arm, with intervals.

        Accuracies are means over seeds. Seeds and sources of test rows are resampled together, with half-samples of
        each (`postprior.pipelines.metrics.utility.classifiers.Replicates`). Gains are paired by seed and test row.
        """
        weights = Replicates.draw(len(self.seeds), self.sources, RESAMPLES, np.random.default_rng(0), self.labels)
        by_arm = zip(self.arms, self.hits.swapaxes(0, 1), strict=True)
        shares = {arm: weights.accuracy(hits, self.seen) for arm, hits in by_arm}  # (1 + B, 1 + M)
        estimates: dict[str, dict[str, Any]] = {}
        for arm, values in shares.items():
            estimates[arm] = {"accuracy": classifier_estimates(values, self.modalities, SHARE)}
            for gain, baseline in BASELINES.items():
                if arm != baseline and baseline in shares:
                    estimates[arm][gain] = classifier_estimates(values - shares[baseline], self.modalities)
        return estimates


class Classical:
    """Classical augmentation, scaled by standard deviations of the training rows."""

    def __init__(self, dataset: Dataset) -> None:
        self.deviations = {m.name: deviation(dataset, m) for m in dataset.modalities}

    def __call__(self, modality: Modality, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return transformed values (B, *shape) of a modality, each row separately, within the modality's range."""
        deviation = self.deviations[modality.name]
        if modality.kind in ("image", "volume"):
            integer = support(modality.likelihood, modality.classes)[2]
            values = warped(values, "nearest" if integer else "bilinear", generator)
            return values if integer else modality.to_support(shaded(values, deviation, generator))
        noise = torch.randn(values.shape, generator=generator) * JITTER * deviation
        return modality.to_support(values + noise * continuous(modality))


def warped(values: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Transform images or volumes (B, C, *space) by random similarities x ↦ e^z R x + t."""
    rows, d = len(values), values.dim() - 2
    turn = ANGLE * _uniform((rows, d, d), generator).triu(1)  # exp of an antisymmetric matrix is a rotation
    zoom = torch.exp(ZOOM * _uniform((rows, 1, 1), generator))
    move = 2 * SHIFT * _uniform((rows, d, 1), generator)  # in torch's coordinates, an axis has length 2
    maps = torch.cat([zoom * torch.matrix_exp(turn - turn.mT), move], 2)  # (B, d, d + 1)
    grid = F.affine_grid(maps, list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)


def shaded(values: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness and contrast of images (B, C, *space) and add noise: m + c (x − m) + b s + ε s."""
    one = (len(values), *[1] * (values.dim() - 1))
    mean = values.flatten(1).mean(1).view(one)
    contrast = 1 + CONTRAST * _uniform(one, generator)
    light = BRIGHTNESS * _uniform(one, generator) + NOISE * torch.randn(values.shape, generator=generator)
    return mean + contrast * (values - mean) + light * deviation


def continuous(modality: Modality) -> Tensor:
    """Return 1 for continuous values, 0 for counts and classes: (columns,) for a table, else ()."""
    kinds = [column.likelihood for column in modality.columns] or [modality.likelihood]
    flags = [float(kind in ("normal", "laplace")) for kind in kinds]
    return torch.tensor(flags if modality.columns else flags[0])


def deviation(dataset: Dataset, modality: Modality) -> Tensor:
    """Return standard deviations of observed values: one for images and volumes, otherwise one per column."""
    blocks = (block.numpy() for block in observed_values(dataset, modality, dtype=np.float64))
    if modality.kind in ("image", "volume"):
        blocks = (block.reshape(-1, 1) for block in blocks)
    _, variance = moments(blocks)
    return torch.as_tensor(np.sqrt(np.maximum(variance, 0)), dtype=torch.float32)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw uniform numbers from −1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1
