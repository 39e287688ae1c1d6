"""Classical augmentation: small changes that keep a label, made anew each time that a row is learned from.

| values | what is changed |
|---|---|
| images, volumes | moved, turned, zoomed a little, edges repeated; brighter or darker, other contrast; noise |
| those of whole numbers (classes, counts) | moved, turned and zoomed, each to the nearest cell |
| vectors, continuous columns of tables | noise |
| sequences, counts and classes of vectors and tables | nothing |

There are no reflections: a mirrored digit, letter or organ is another one.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.extractor import moments, observed_values
from postprior.stage1_vae.modalities import Modality, support

SHIFT = 0.1  # of the height, width or depth, at most
ANGLE = math.radians(12)  # at most; in space about the same, about any axis
ZOOM = 0.12  # of the size, at most
CONTRAST = 0.2  # of the contrast, at most
BRIGHTNESS = 0.3  # standard deviations of the modality, at most
NOISE = 0.1  # standard deviation of the noise on images, in those of the modality
JITTER = 0.2  # the same on vectors and columns


class Classical:
    """Classical augmentation in units of the standard deviations that a dataset has.

    Args:
        dataset: the training rows.
    """

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
