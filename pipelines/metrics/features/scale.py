"""Values of modalities on scales that let them be compared: the spaces of distances between rows.

A value f of a modality, as encoders read it, is scaled by moments of the training rows:

    x̃_f = (x_f − μ_f) / √(U Σ_{g ∈ u(f)} Var x_g)

The U units are the columns of a table and the entries of a vector, each with all of its classes; pixels, voxels and
tokens are of one kind and make one unit. The variances of a modality then sum to 1, so that modalities count alike
in the joint distance d² = Σ_m d_m², and so do the columns of a table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.pipelines.metrics.statistics.neighbours import CODES, JOINT, Points, blocks
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import Table, input_layer

CONSTANT = 1e-12  # variance under which a unit says nothing


@dataclass(frozen=True)
class Scale:
    """The standardisation of a modality: μ (F,), factors (F,), and which value each feature is read from (F,)."""

    modality: Modality
    mean: Tensor
    factor: Tensor
    source: Tensor

    @classmethod
    def fit(cls, data: Dataset, modality: Modality) -> Self:
        """The moments of the rows that have the modality, of their observed cells."""
        read = input_layer(modality)
        if isinstance(read, Table):
            source = torch.cat([read.plain, read.counts, read.column])
        else:
            source = torch.arange(int(np.prod(modality.shape))).repeat(modality.classes or 1)
        identity = cls(modality, torch.zeros(len(source)), torch.ones(len(source)), source)
        place = [m.name for m in data.modalities].index(modality.name)
        rows = np.flatnonzero(data.observed[:, place])

        def mean_of(function: Callable[[Tensor], Tensor]) -> Tensor:
            total, count = torch.zeros(len(source)).double(), torch.zeros(len(source)).double()
            for block in blocks(len(rows), len(source)):
                values, seen = identity.read(data, rows[block])
                total += (function(values.double()) * seen).sum(0)
                count += seen.sum(0)
            return total / count.clamp_min(1)

        mean = mean_of(lambda x: x)
        variance = mean_of(lambda x: (x - mean).square())
        alone = modality.kind in ("table", "vector")
        unit = source if alone else torch.zeros_like(source)
        total = torch.zeros(int(unit.max()) + 1).double().index_add(0, unit, variance)
        varies = total > CONSTANT
        factor = torch.where(varies, (total.clamp_min(CONSTANT) * varies.sum()).rsqrt(), 0)[unit]
        return cls(modality, mean.float(), factor.float(), source)

    def __call__(self, data: Dataset, rows: Ints) -> Tensor:
        """Scaled values (n, F) of some rows; a cell that was not observed stands at the mean."""
        values, seen = self.read(data, rows)
        return torch.where(seen, (values - self.mean) * self.factor, 0)

    def read(self, data: Dataset, rows: Ints) -> tuple[Tensor, Tensor]:
        """Values (n, F) as encoders read them, and which were observed (n, F)."""
        name = self.modality.name
        read = input_layer(self.modality)(torch.from_numpy(np.array(data.data[name][rows], np.float32)))
        values = read.flatten(1)
        if name not in data.cells:
            return values, torch.ones(1, len(self.source), dtype=torch.bool).expand_as(values)
        cells = torch.from_numpy(np.array(data.cells[name][rows])).flatten(1)
        return values, cells[:, self.source]


def points_of(data: Dataset, scales: tuple[Scale, ...]) -> Points:
    """The rows of a dataset, in the space of each modality."""
    # a modality may have the name of another space
    names = tuple(f"{m.name} (modality)" if m.name in (JOINT, CODES) else m.name for m in data.modalities)
    parts = tuple(partial(scale, data) for scale in scales)
    return Points(names, parts, np.array(data.observed), sum(len(scale.source) for scale in scales))
