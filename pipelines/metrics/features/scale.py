"""Scales that make values of modalities comparable, for distances between rows.

Feature f of a modality, as encoders read it, is standardised by moments of the training rows:

    x̃_f = (x_f − μ_f) / √(U Σ_{g ∈ u(f)} Var x_g)

u(f) is the unit of feature f, and U is the number of units of the modality. Units are the columns of a table and the
entries of a vector, each with all of its classes; all pixels, voxels or tokens form one unit. The variances of a
modality then sum to 1, so that all modalities have equal weight in the joint distance d² = Σ_m d_m², and so do all
columns of a table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.pipelines.metrics.statistics.neighbours import CODES, JOINT, Points, blocks
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import Table, input_layer

CONSTANT = 1e-12  # variance below which a unit counts as constant and gets factor 0


@dataclass(frozen=True)
class Scale:
    """The standardisation of a modality: means (F,), factors (F,), and the index (F,) of each feature's value."""

    modality: Modality
    mean: Tensor
    factor: Tensor
    source: Tensor

    @classmethod
    def fit(cls, data: Dataset, modality: Modality) -> Self:
        """Fit the moments to the observed cells of rows in which the modality is observed."""
        layer = input_layer(modality)
        if isinstance(layer, Table):
            source = torch.cat([layer.plain, layer.counts, layer.column])
        else:
            source = torch.arange(int(np.prod(modality.shape))).repeat(modality.classes or 1)
        identity = cls(modality, torch.zeros(len(source)), torch.ones(len(source)), source)
        place = [m.name for m in data.modalities].index(modality.name)
        rows = np.flatnonzero(data.observed[:, place])

        def mean_of(function: Callable[[Tensor], Tensor]) -> Tensor:
            total, count = torch.zeros(len(source)).double(), torch.zeros(len(source)).double()
            for block in blocks(len(rows), len(source)):
                values, observed = identity.read(data, rows[block])
                total += (function(values.double()) * observed).sum(0)
                count += observed.sum(0)
            return total / count.clamp_min(1)

        mean = mean_of(lambda x: x)
        variance = mean_of(lambda x: (x - mean).square())
        unit = source if modality.tabular else torch.zeros_like(source)
        total = torch.zeros(int(unit.max()) + 1).double().index_add(0, unit, variance)
        varies = total > CONSTANT
        factor = torch.where(varies, (total.clamp_min(CONSTANT) * varies.sum()).rsqrt(), 0)[unit]
        return cls(modality, mean.float(), factor.float(), source)

    def __call__(self, data: Dataset, rows: Ints) -> Tensor:
        """Return scaled values (n, F) of these rows; an unobserved cell is 0, the mean."""
        values, observed = self.read(data, rows)
        return torch.where(observed, (values - self.mean) * self.factor, 0)

    def read(self, data: Dataset, rows: Ints) -> tuple[Tensor, Tensor]:
        """Return values (n, F) as encoders read them, and which of them are observed (n, F)."""
        name = self.modality.name
        encoded = input_layer(self.modality)(
            torch.from_numpy(np.array(values_of(data, self.modality, rows), np.float32))
        )
        values = encoded.flatten(1)
        if name not in data.cells:
            return values, torch.ones(1, len(self.source), dtype=torch.bool).expand_as(values)
        cells = torch.from_numpy(np.array(data.cells[name][rows])).flatten(1)
        return values, cells[:, self.source]


def points_of(data: Dataset, scales: tuple[Scale, ...], pairs: Mapping[str, Sequence[int]] | None = None) -> Points:
    """Return the rows of a dataset as points in the space of each modality, and in those of pairs."""
    # a modality named like another space gets a suffix
    names = tuple(f"{m.name} (modality)" if m.name in (JOINT, CODES) else m.name for m in data.modalities)
    parts = tuple(partial(scale, data) for scale in scales)
    return Points(names, parts, np.array(data.observed), sum(len(scale.source) for scale in scales), pairs or {})
