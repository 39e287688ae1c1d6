"""How far imputed draws lie apart, calibrated: their 90 % intervals hold 90 % of what was hidden from held-out rows.

A posterior that is too sure of itself draws values that are too much alike. The draws of a row are moved from or
towards their mean by one factor a modality,

    x′_r = x̄ + s (x_r − x̄),

which leaves the mean, and what the draws say of dependence, as they are (member-by-member calibration: Van
Schaeybroeck & Vannitsem 2015, https://doi.org/10.1002/qj.2397). The factor is a conformal quantile (Lei et al. 2018,
https://arxiv.org/abs/1604.04173): rows that took no part in training lose what rows to be imputed lack, and s is the
least factor under which the intervals cover the share of the hidden values that they promise.
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
from postprior.pipelines.generation.completion import completions
from postprior.pipelines.metrics.imputation.scores import LEVEL, continuous, interval
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage2_latent.density import Density

DRAWS = 39  # draws of a held-out row: their interval of 90 % leaves out the two least and the two greatest
MOST = 300  # held-out rows, at most
FEWEST = 20  # hidden values that a factor needs; a modality with fewer keeps its draws as they are


@dataclass(frozen=True)
class SpreadCalibration:
    """Factors s by modality; draws of a modality that has none stay as they are, and so do counts and classes."""

    factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(cls, model: MultimodalVAE, density: Density, held_out: Dataset, like: Dataset, seed: int = 0) -> Self:
        """The factors for imputing the rows of `like`, from held-out rows of the same modalities.

        Each of these loses what a row of `like`, drawn at random, lacks.
        """
        rng = np.random.default_rng(seed)
        held_out = held_out.select(np.arange(min(len(held_out), MOST)))
        hidden = hidden_as(held_out, like, rng)
        names = [m.name for m in held_out.modalities]
        scored = {name: hidden.missing(name) & ~held_out.missing(name) for name in names}
        needed: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
        for start, block in completions(model, density, hidden, DRAWS, seed, "draws"):
            for m in held_out.modalities:
                rows = slice(start, start + block[m.name].shape[1])
                where = scored[m.name][rows] & continuous(m)
                needed[m.name].append(reach(block[m.name][:, where], held_out.data[m.name][rows][where]))
        values = {name: np.concatenate(parts) for name, parts in needed.items()}
        return cls({name: quantile(found) for name, found in values.items() if len(found) >= FEWEST})

    def __call__(self, modality: Modality, x: Tensor) -> Tensor:
        """Draws (R, n, *shape) of a modality, spread."""
        factor = self.factors.get(modality.name)
        if factor is None or len(x) < 2:
            return x
        centre = x.mean(0)
        return torch.where(torch.from_numpy(continuous(modality)), centre + factor * (x - centre), x)


def hidden_as(held_out: Dataset, like: Dataset, rng: np.random.Generator) -> Dataset:
    """Held-out rows that lack, beside what they lack, what an incomplete row of `like` lacks, drawn for each at random.

    A row that would have no modality left keeps what it has.
    """
    lacking = np.flatnonzero(~like.whole.all(1))
    if not len(lacking):
        return held_out
    donors = rng.choice(lacking, len(held_out))
    mask = held_out.observed & like.observed[donors]
    lost = ~mask.any(1)
    mask[lost] = held_out.observed[lost]
    cells = dict(held_out.cells)
    for name, seen in like.cells.items():
        cells[name] = np.array(held_out.cells.get(name, True) & seen[donors])
    return replace(held_out, mask=mask, cells=cells, folder=None)


def reach(draws: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """The least factor under which the interval of draws (R, n) reaches the truth (n,)."""
    low, high = interval(draws)
    centre = draws.mean(0, dtype=np.float64)
    half = np.where(truth >= centre, high - centre, centre - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.abs(truth - centre) / np.maximum(half, 0)
    return np.where(truth == centre, 0.0, factor)


def quantile(needed: NDArray[np.float64]) -> float:
    """The ⌈(n + 1) · 0.9⌉-th smallest of n needed factors."""
    place = min(len(needed), math.ceil((len(needed) + 1) * LEVEL))
    found = float(np.sort(needed)[place - 1])
    return found if math.isfinite(found) else 1.0
