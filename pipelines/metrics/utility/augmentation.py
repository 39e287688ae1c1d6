"""Augmentation: classical transformations of rows, and accuracy curves over the number of real training rows.

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.extractor import moments, observed_values
from postprior.pipelines.metrics.statistics.intervals import SHARE, Ints, Score
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.utility.classifiers import Replicates, by_classifier, classifier_estimates
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
class Cell:
    """Correct predictions on test rows for every arm of training on `size` real rows drawn with `seed`."""

    size: int
    seed: int
    arms: Sequence[str]
    modalities: Sequence[str]
    hits: NDArray[np.bool_]  # (arms, 1 + M, N), the joint classifier first
    groups: Ints | None = None  # (N,), None: each test row is its own source
    labels: Ints | None = None  # (N,), strata of half-samples; None: no strata
    mask: NDArray[np.bool_] | None = None  # (N, M), None: every modality is observed

    @property
    def sources(self) -> Ints:
        """The source of each test row (N,)."""
        return np.arange(self.hits.shape[2]) if self.groups is None else self.groups

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which rows each classifier predicts (1 + M, N); the joint classifier predicts all."""
        seen = np.ones(self.hits.shape[1:], bool)
        if self.mask is not None:
            seen[1:] = self.mask.T
        return seen

    @property
    def accuracy(self) -> dict[str, Any]:
        """Accuracies by arm: joint, mean over modalities, per modality; missing for a modality without test rows."""

        def value(score: Score) -> Any:
            return score.written if isinstance(score, Missing) else float(score[0])

        rows = self.seen.sum(1)
        shares = np.where(rows > 0, self.hits.sum(2) / np.maximum(rows, 1), np.nan)  # (arms, 1 + M)
        by_arm = zip(self.arms, shares, strict=True)
        return {arm: by_classifier(accuracies[None], self.modalities, value) for arm, accuracies in by_arm}


def curve(cells: Iterable[Cell]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return `accuracy` and its gains `over_real` and `over_classical`, with intervals, by size and arm.

    The size is the number of real rows. Accuracies are means over seeds. Seeds and sources of test rows are resampled
    together, with half-samples of each (`postprior.pipelines.metrics.utility.classifiers.Replicates`). Gains are paired
    by seed and test row.
    """
    cells = list(cells)
    sizes = sorted({cell.size for cell in cells})
    return {str(size): _of_size([cell for cell in cells if cell.size == size]) for size in sizes}


def _of_size(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return accuracy and gains by arm, for the cells of one size."""
    first = cells[0]
    for cell in cells[1:]:
        if cell.hits.shape != first.hits.shape or list(cell.arms) != list(first.arms):
            raise UserError(
                f"augmentation: seeds {first.seed} and {cell.seed} of size {first.size} have different arms or test "
                "rows, expected the same; run postprior augment again for both"
            )
    weights = Replicates.draw(len(cells), first.sources, RESAMPLES, np.random.default_rng(0), first.labels)
    hits = np.stack([cell.hits for cell in cells], 1)  # (arms, S, 1 + M, N)
    by_arm = zip(first.arms, hits, strict=True)
    shares = {arm: weights.accuracy(arm_hits, first.seen) for arm, arm_hits in by_arm}  # (1 + B, 1 + M)
    estimates: dict[str, dict[str, Any]] = {}
    for arm, values in shares.items():
        estimates[arm] = {"accuracy": classifier_estimates(values, first.modalities, SHARE)}
        for gain, baseline in BASELINES.items():
            if arm != baseline and baseline in shares:
                estimates[arm][gain] = classifier_estimates(values - shares[baseline], first.modalities)
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
