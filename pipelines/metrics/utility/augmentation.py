"""Augmentation: classical changes of rows, and accuracy by number of real rows with what each way of adding rows gains.

Classical augmentation makes small changes that keep a label, anew each time that a row is learned from:

| values | what is changed |
|---|---|
| images, volumes | moved, turned, zoomed a little, edges repeated; brighter or darker, other contrast; noise |
| those of whole numbers (classes, counts) | moved, turned and zoomed, each to the nearest cell |
| vectors, continuous columns of tables | noise |
| sequences, counts and classes of vectors and tables | nothing |

There are no reflections: a mirrored digit, letter or organ is another one.
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

RESAMPLES = 400
SHIFT = 0.1  # of the height, width or depth, at most
ANGLE = math.radians(12)  # at most; in space about the same, about any axis
ZOOM = 0.12  # of the size, at most
CONTRAST = 0.2  # of the contrast, at most
BRIGHTNESS = 0.3  # standard deviations of the modality, at most
NOISE = 0.1  # standard deviation of the noise on images, in those of the modality
JITTER = 0.2  # the same on vectors and columns
BASELINES = {"over_real": "real", "over_classical": "classical"}


@dataclass(frozen=True)
class Cell:
    """Where the classifiers of every arm, trained on `size` rows that `seed` chose, read the test rows rightly."""

    size: int
    seed: int
    arms: Sequence[str]
    modalities: Sequence[str]
    hits: NDArray[np.bool_]  # (arms, 1 + M, N), the joint classifier first
    groups: Ints | None = None  # (N,), None where each test row is its own source
    labels: Ints | None = None  # (N,), None where they do not matter
    mask: NDArray[np.bool_] | None = None  # (N, M), None where every modality is observed

    @property
    def sources(self) -> Ints:
        """The source of each test row (N,)."""
        return np.arange(self.hits.shape[2]) if self.groups is None else self.groups

    @property
    def seen(self) -> NDArray[np.bool_]:
        """The rows that each classifier reads (1 + M, N): the joint one all of them."""
        seen = np.ones(self.hits.shape[1:], bool)
        if self.mask is not None:
            seen[1:] = self.mask.T
        return seen

    @property
    def accuracy(self) -> dict[str, Any]:
        """Accuracies by arm: joint, mean over modalities, each modality; missing of one that no test row has."""

        def tell(score: Score) -> Any:
            return score.written if isinstance(score, Missing) else float(score[0])

        rows = self.seen.sum(1)
        shares = np.where(rows > 0, self.hits.sum(2) / np.maximum(rows, 1), np.nan)  # (arms, 1 + M)
        by_arm = zip(self.arms, shares, strict=True)
        return {arm: by_classifier(own[None], self.modalities, tell) for arm, own in by_arm}


def curve(cells: Iterable[Cell]) -> dict[str, dict[str, dict[str, Any]]]:
    """By number of real rows and by arm: `accuracy`, and its gains `over_real` and `over_classical`, with intervals.

    Accuracies are means over seeds. Seeds and sources of the test rows are resampled together, by half-samples of
    each (`postprior.pipelines.metrics.utility.classifiers.Replicates`); gains are paired, by seed and by test row.
    """
    cells = list(cells)
    sizes = sorted({cell.size for cell in cells})
    return {str(size): _of_size([cell for cell in cells if cell.size == size]) for size in sizes}


def _of_size(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Accuracy and gains by arm, of the cells of one size."""
    first = cells[0]
    for cell in cells[1:]:
        if cell.hits.shape != first.hits.shape or list(cell.arms) != list(first.arms):
            raise UserError(
                f"augmentation: found seeds {first.seed} and {cell.seed} of size {first.size} with other arms or test "
                "rows, expected the same; run postprior augment again for both"
            )
    weights = Replicates.draw(len(cells), first.sources, RESAMPLES, np.random.default_rng(0), first.labels)
    hits = np.stack([cell.hits for cell in cells], 1)  # (arms, S, 1 + M, N)
    read = zip(first.arms, hits, strict=True)
    shares = {arm: weights.accuracy(own, first.seen) for arm, own in read}  # (1 + B, 1 + M)
    found: dict[str, dict[str, Any]] = {}
    for arm, values in shares.items():
        found[arm] = {"accuracy": classifier_estimates(values, first.modalities, SHARE)}
        for gain, baseline in BASELINES.items():
            if arm != baseline and baseline in shares:
                found[arm][gain] = classifier_estimates(values - shares[baseline], first.modalities)
    return found


class Classical:
    """Classical augmentation in units of the standard deviations that the training rows have."""

    def __init__(self, dataset: Dataset) -> None:
        self.deviations = {m.name: deviation(dataset, m) for m in dataset.modalities}

    def __call__(self, modality: Modality, values: Tensor, generator: torch.Generator) -> Tensor:
        """Changed values (B, *shape) of a modality, each row by itself, within the modality's range."""
        deviation = self.deviations[modality.name]
        if modality.kind in ("image", "volume"):
            whole = support(modality.likelihood, modality.classes)[2]
            values = warped(values, "nearest" if whole else "bilinear", generator)
            return values if whole else modality.admit(shaded(values, deviation, generator))
        noise = torch.randn(values.shape, generator=generator) * JITTER * deviation
        return modality.admit(values + noise * continuous(modality))


def warped(values: Tensor, mode: str, generator: torch.Generator) -> Tensor:
    """Images (B, C, *space) under random similarities of the plane, or of space: x ↦ e^z R x + t."""
    rows, d = len(values), values.dim() - 2
    turn = ANGLE * _uniform((rows, d, d), generator).triu(1)  # exp of an antisymmetric matrix is a rotation
    zoom = torch.exp(ZOOM * _uniform((rows, 1, 1), generator))
    move = 2 * SHIFT * _uniform((rows, d, 1), generator)  # a side is 2 long in torch's coordinates
    maps = torch.cat([zoom * torch.matrix_exp(turn - turn.mT), move], 2)  # (B, d, d + 1)
    grid = F.affine_grid(maps, list(values.shape), align_corners=False)
    return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)


def shaded(values: Tensor, deviation: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, *space) with other brightness and contrast, and noise: m + c (x − m) + b s + ε s."""
    one = (len(values), *[1] * (values.dim() - 1))
    mean = values.flatten(1).mean(1).view(one)
    contrast = 1 + CONTRAST * _uniform(one, generator)
    light = BRIGHTNESS * _uniform(one, generator) + NOISE * torch.randn(values.shape, generator=generator)
    return mean + contrast * (values - mean) + light * deviation


def continuous(modality: Modality) -> Tensor:
    """1 where a value of the modality may be any number, 0 where it counts or names a class: () or (columns,)."""
    kinds = [column.likelihood for column in modality.columns] or [modality.likelihood]
    free = [float(kind in ("normal", "laplace")) for kind in kinds]
    return torch.tensor(free if modality.columns else free[0])


def deviation(dataset: Dataset, modality: Modality) -> Tensor:
    """Standard deviations of a modality's observed values: one of an image, else one a column."""
    blocks = (block.numpy() for block in observed_values(dataset, modality, dtype=np.float64))
    if modality.kind in ("image", "volume"):
        blocks = (block.reshape(-1, 1) for block in blocks)
    _, variance = moments(blocks)
    return torch.as_tensor(np.sqrt(np.maximum(variance, 0)), dtype=torch.float32)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers from −1 to 1."""
    return 2 * torch.rand(shape, generator=generator) - 1
