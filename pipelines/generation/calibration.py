"""Calibrate the spread of imputed draws: their 90 % intervals cover 90 % of the values hidden in held-out rows.

Draws from an overconfident posterior differ too little. The draws of a row are therefore moved away from or towards
their mean by one factor s per modality,

    x′_r = x̄ + s (x_r − x̄),

which changes neither the mean nor the dependence structure of the draws (member-by-member calibration: Van
Schaeybroeck & Vannitsem 2015, https://doi.org/10.1002/qj.2397). The factor is a conformal quantile (Lei et al. 2018,
https://arxiv.org/abs/1604.04173). In rows that were not used in training, the values are hidden that the rows to impute
lack; s is the smallest factor for which the intervals cover the nominal share of the hidden values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.completion import ROWS, imputations
from postprior.pipelines.metrics.imputation.scores import LEVEL, continuous, interval
from postprior.pipelines.progress import substeps
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage2_latent.density import Density

DRAWS = 39  # draws per held-out row: their 90 % interval leaves out the two smallest and the two largest
MOST = 300  # largest number of held-out rows
FEWEST = 20  # smallest number of hidden values for a factor; draws of a modality with fewer are not changed


@dataclass(frozen=True)
class SpreadCalibration:
    """Spread factors s by modality; draws of a modality without a factor, counts and classes are not changed."""

    factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(cls, model: MultimodalVAE, density: Density, held_out: Dataset, like: Dataset, seed: int = 0) -> Self:
        """Fit the factors for imputing the rows of `like`, on held-out rows of the same modalities.

        In each held-out row, the values are hidden that a random row of `like` lacks.
        """
        rng = np.random.default_rng(seed)
        held_out = held_out.select(np.arange(min(len(held_out), MOST)))
        incomplete = hidden_as(held_out, like, rng)
        names = [m.name for m in held_out.modalities]
        hidden_values = {name: incomplete.missing(name) & ~held_out.missing(name) for name in names}
        factors: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
        blocks = imputations(model, density, incomplete, DRAWS, seed, "draws")
        for _, imputed in substeps(blocks, -(-len(incomplete) // ROWS)):
            for m in held_out.modalities:
                if m.name in imputed:
                    rows, x = imputed[m.name]
                    where = hidden_values[m.name][rows] & continuous(m)
                    factors[m.name].append(reach(x[:, where], held_out.data[m.name][rows][where]))
        joined = {name: np.concatenate(blocks) for name, blocks in factors.items() if blocks}
        return cls({name: quantile(values) for name, values in joined.items() if len(values) >= FEWEST})

    def __call__(self, modality: Modality, x: Tensor) -> Tensor:
        """Return draws (R, n, *shape) of a modality with calibrated spread."""
        factor = self.factors.get(modality.name)
        if factor is None or len(x) < 2:
            return x
        centre = x.mean(0)
        return torch.where(torch.from_numpy(continuous(modality)), centre + factor * (x - centre), x)


def hidden_as(held_out: Dataset, like: Dataset, rng: np.random.Generator) -> Dataset:
    """Hide in each held-out row what a random incomplete row of `like` lacks.

    A row that would have no modality left keeps its modalities.
    """
    incomplete = np.flatnonzero(~like.fully_observed.all(1))
    if not len(incomplete):
        return held_out
    donors = rng.choice(incomplete, len(held_out))
    mask = held_out.observed & like.observed[donors]
    empty = ~mask.any(1)
    mask[empty] = held_out.observed[empty]
    cells = dict(held_out.cells)
    for name, observed in like.cells.items():
        cells[name] = np.array(held_out.cells.get(name, True) & observed[donors])
    return replace(held_out, mask=mask, cells=cells, folder=None)


def reach(draws: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Return the smallest factor with which the interval of draws (R, n) reaches the true values (n,): (n,)."""
    low, high = interval(draws)
    centre = draws.mean(0, dtype=np.float64)
    half = np.where(truth >= centre, high - centre, centre - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.abs(truth - centre) / np.maximum(half, 0)
    return np.where(truth == centre, 0.0, factor)


def quantile(factors: NDArray[np.float64]) -> float:
    """Return the ⌈(n + 1) · 0.9⌉-th smallest of n factors, or 1 if it is not finite."""
    rank = min(len(factors), math.ceil((len(factors) + 1) * LEVEL))
    factor = float(np.sort(factors)[rank - 1])
    return factor if math.isfinite(factor) else 1.0
