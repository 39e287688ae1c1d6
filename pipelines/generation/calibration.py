"""Calibrate imputed draws: their 90 % intervals cover 90 % of the values hidden in held-out rows.

Draws from an overconfident posterior differ too little. Numbers and counts of a row are therefore moved away from or
towards their mean by a factor s,

    x′_r = x̄ + s (x_r − x̄),

which changes neither the mean nor the dependence structure of the draws (member-by-member calibration: Van
Schaeybroeck & Vannitsem 2015, https://doi.org/10.1002/qj.2397). The factor is a conformal quantile (Lei et al. 2018,
https://arxiv.org/abs/1604.04173): the smallest one for which the intervals cover the nominal share of hidden values.
A draw of exactly 0 stays 0, so that zeros of counts do not become small counts.

Before that, the scale of normal and laplace likelihoods of images, volumes and vectors is multiplied by the factor with
the largest likelihood of held-out rows given draws from their own posteriors: a fixed scale weighs the reconstruction
in training, and is not the size of its errors (Rybkin et al. 2021, https://arxiv.org/abs/2006.13202).

Logits of classes and binary values are divided by a temperature (Guo et al. 2017, https://arxiv.org/abs/1706.04599),
the one of `TEMPERATURES` with the largest likelihood of the hidden values under the mean of the draws' probabilities.

Both are fitted on rows that were not used in training, in which the values are hidden that the rows to impute lack.
Columns of tables and entries of vectors have their own factors, weighted with those of all of them:

    s_j = (n_j s̃_j + k s̃) / (n_j + k)    with n_j hidden values and k = `POOLED`.

For data of tables alone, the same rows make more choices by the CRPS (of classes, the energy score): the power of
the likelihood of observed cells (`posterior`), and for each column whether its cells are drawn anew, given the other
cells of their row, by a forest that learned from training rows (`pseudo_gibbs`). Such draws are values of training
rows, and their spread is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.completion import ROWS, swept
from postprior.pipelines.generation.held_out import Hidden, Losses, discrete
from postprior.pipelines.generation.posterior import TRUST, has_exact_posterior
from postprior.pipelines.metrics.imputation.scores import LEVEL, interval
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.distributions import Diagonal
from postprior.stage1_vae.likelihoods import Likelihood, tempered
from postprior.stage1_vae.modalities import Modality, support
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.density import Density

if TYPE_CHECKING:
    from postprior.pipelines.generation.pseudo_gibbs import CellForests

MOST = 300  # largest number of held-out rows
REPEATED = 600  # rows in which single cells are hidden: held-out rows are repeated, each time with other cells
FEWEST = 20  # smallest number of hidden values of a modality; with fewer, its draws are not changed
POOLED = 5  # weight of all values of a modality in the factor of each, as a number of hidden values
TEMPERATURES = 2.0 ** (np.arange(-4, 9) / 4)


@dataclass(frozen=True)
class Calibration:
    """How draws are changed.

    Attributes:
        factors, temperatures: by modality, (J,) or (); modalities without are not changed.
        noise: by modality, (), the factor of the scale of its likelihood.
        power: the power of the likelihood of observed cells.
        forests: what draws cells of columns anew; None if no column is.
    """

    factors: Mapping[str, Tensor] = field(default_factory=dict)
    temperatures: Mapping[str, Tensor] = field(default_factory=dict)
    power: float = TRUST
    forests: CellForests | None = None
    noise: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        model: Autoencoder,
        density: Density,
        held_out: Dataset,
        like: Dataset,
        seed: int = 0,
        labels: Ints | None = None,
        forests: CellForests | None = None,
    ) -> Self:
        """Fit the calibration for imputing the rows of `like`, on held-out rows of the same modalities.

        In each held-out row, the values are hidden that a random row of `like` lacks. `labels` (N,) are those of the
        held-out rows, as in `imputations`; `forests` are those that may draw cells anew.
        """
        rows = np.arange(min(len(held_out), MOST))
        rows = np.resize(rows, REPEATED) if like.cells else rows
        rows_labels = None if labels is None else labels[rows]
        noise = noise_factors(model, held_out.select(np.unique(rows)), seed)
        hiding = Hidden(model, density, held_out.select(rows), like, seed, rows_labels, cls(noise=noise))
        power = hiding.best_power() if has_exact_posterior(model, density) else TRUST
        collected = {m.name: Collected(m) for m in held_out.modalities}
        first, anew = (Losses(held_out.modalities) for _ in range(2))
        for places, drawn, likelihoods, generator in hiding.blocks(power, hiding.draws):
            for m, p in likelihoods:
                own, x = drawn[m.name]
                collected[m.name].add(p, x, *hiding.truth(m, own))
            if forests is not None and drawn:
                changed = cls(forests=forests)
                again = swept(hiding.rows, places, hiding.missing, drawn, rows_labels, changed, generator)
                for losses, each in ((first, drawn), (anew, again)):
                    losses.add(each, hiding)
        factors = {name: factor for name, each in collected.items() if (factor := each.factor()) is not None}
        temperatures = {name: t for name, each in collected.items() if (t := each.temperature()) is not None}
        if forests is None:
            return cls(factors, temperatures, power, noise=noise)
        forests = forests.only(anew.better_than(first))
        for table, j in forests.forests:
            if table in factors:
                factors[table][j] = 1
        return cls(factors, temperatures, power, forests, noise)

    def tempered(self, modality: Modality, p: Likelihood) -> Likelihood:
        """Return the likelihood of a modality with calibrated noise, or probabilities of classes."""
        noise, temperature = (each.get(modality.name) for each in (self.noise, self.temperatures))
        if noise is not None and isinstance(p, Diagonal):
            p = p.widened(noise)
        return p if temperature is None else tempered(p, temperature)

    def spread(self, modality: Modality, x: Tensor) -> Tensor:
        """Return draws (R, n, *shape) of a modality with calibrated spread."""
        factor = self.factors.get(modality.name)
        if factor is None or len(x) < 2:
            return x
        centre = x.mean(0)
        changed = (centre + factor * (x - centre)).maximum(x.new_tensor(smallest(modality)))
        return torch.where(torch.from_numpy(discrete(modality)) | (x == 0), x, changed)

    @property
    def drawn_anew(self) -> dict[str, list[str]]:
        """The names of the columns whose cells are drawn anew, by table."""
        names: dict[str, list[str]] = {}
        for table, column in [] if self.forests is None else self.forests.names:
            names.setdefault(table, []).append(column)
        return names

    def swept(
        self,
        values: Mapping[str, np.ndarray],
        free: Mapping[str, NDArray[np.bool_]],
        labels: Ints | None,
        context: Floats,
        rng: np.random.Generator,
    ) -> Mapping[str, np.ndarray]:
        """Return rows of tables in which `forests` draw the cells free[m] anew; see `CellForests.swept`."""
        return values if self.forests is None else self.forests.swept(values, free, labels, context, rng)

    def context(self, vectors: Mapping[str, np.ndarray], rows: int) -> Floats:
        """Return what `swept` reads of vectors, values[m] (B, X), of B = `rows` complete rows: (B, C)."""
        return np.zeros((rows, 0)) if self.forests is None else self.forests.components(vectors, rows)


@torch.no_grad()
def noise_factors(model: Autoencoder, rows: Dataset, seed: int) -> dict[str, Tensor]:
    """Return the likeliest factors () of the scales of normal and laplace modalities that are not tables.

    A residual is that of an observed value of a row, given one posterior draw of its code, in units of the scale. A
    modality without an observed value is left out.
    """
    generator = generator_for("cpu", seed)
    residuals: dict[str, list[Tensor]] = {}
    families: dict[str, type[Diagonal]] = {}
    for start in range(0, len(rows), ROWS):
        batch = rows.batch(slice(start, start + ROWS))
        codes, states = model.candidates(batch, 1, generator)
        latents = (model.descend(codes, generator) if states is None else states)[:, 0]
        for index, m in enumerate(model.modalities):
            seen = batch.observed[:, index]
            p, x, cells = model.decode_one(m, latents[seen]), batch.data[m.name][seen], batch.cells.get(m.name)
            if isinstance(p, Diagonal):
                r = (x - p.loc) / p.scale
                residuals.setdefault(m.name, []).append(r.flatten() if cells is None else r[cells[seen]])
                families[m.name] = type(p)
    collected = {name: torch.cat(each) for name, each in residuals.items()}
    return {name: families[name].likeliest_scale(r) for name, r in collected.items() if len(r)}


class Collected:
    """What held-out rows tell about the draws of one modality: factors that hidden values need, and losses of classes.

    Attributes:
        reaches: per block, the factors (n, *shape) that hidden values need; NaN elsewhere.
        losses: sums of −log p of hidden classes per temperature and value, (T, *shape).
        counts: numbers of hidden values, (*shape).
    """

    def __init__(self, modality: Modality) -> None:
        self.modality, self.discrete = modality, discrete(modality)
        self.reaches: list[Floats] = []
        self.losses = np.zeros((len(TEMPERATURES), *modality.shape))
        self.counts = np.zeros(modality.shape)

    def add(self, p: Likelihood, x: Floats, truth: Floats, hidden: NDArray[np.bool_]) -> None:
        """Add a likelihood, batch shape (R, n), draws (R, n, *shape), true values, and which of them are hidden."""
        self.counts += hidden.sum(0)
        if not self.discrete.all():
            self.reaches.append(np.where(hidden & ~self.discrete, reach(x, truth), np.nan))
        if self.discrete.any():
            values = torch.from_numpy(truth)
            for number, temperature in enumerate(TEMPERATURES):
                each = tempered(p, torch.full(self.discrete.shape, temperature)).elementwise_log_prob(values)
                log_prob = each.logsumexp(0).numpy() - math.log(len(x))
                self.losses[number] -= np.where(hidden & self.discrete, log_prob, 0).sum(0)

    def factor(self) -> Tensor | None:
        """Return the factors of numbers and counts, (J,) or (); None if too few were hidden."""
        values = np.concatenate(self.reaches) if self.reaches else np.empty((0, *self.modality.shape))
        hidden = ~np.isnan(values)
        if hidden.sum() < FEWEST:
            return None
        factor = np.asarray(quantile(values[hidden]))
        if self.modality.tabular:
            own = np.array([quantile(column[each]) for column, each in zip(values.T, hidden.T, strict=True)])
            factor = weighted(own, factor, hidden.sum(0))
        return torch.as_tensor(factor, dtype=torch.float32)

    def temperature(self) -> Tensor | None:
        """Return the temperatures of classes and binary values, (J,) or (); None if too few were hidden."""
        counts = self.counts * self.discrete
        if counts.sum() < FEWEST:
            return None
        losses = self.losses.reshape(len(TEMPERATURES), -1)
        pooled = losses.sum(1)
        if self.modality.tabular:
            pooled = losses + POOLED * (pooled / counts.sum())[:, None]
        return torch.as_tensor(TEMPERATURES[pooled.argmin(0)], dtype=torch.float32)


def smallest(modality: Modality) -> list[float] | float:
    """Return the smallest values that the likelihoods of a modality allow: [J] for a table's columns, else a number."""
    lows = [support(part.likelihood, part.classes)[0] for part in modality.columns or (modality,)]
    return lows if modality.columns else lows[0]


def reach(draws: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Return the smallest factor with which the interval of draws (R, …) reaches the true values (…): (…)."""
    low, high = interval(draws)
    centre = draws.mean(0, dtype=np.float64)
    half = np.where(truth >= centre, high - centre, centre - low)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.abs(truth - centre) / np.maximum(half, 0)
    return np.where(truth == centre, 0.0, factor)


def quantile(factors: Floats) -> float:
    """Return the ⌈(n + 1) · 0.9⌉-th smallest of n factors, or 1 if it is not finite or there is none."""
    if not len(factors):
        return 1.0
    rank = min(len(factors), math.ceil((len(factors) + 1) * LEVEL))
    factor = float(np.sort(factors)[rank - 1])
    return factor if math.isfinite(factor) else 1.0


def weighted(own: Floats, pooled: Floats, counts: Floats) -> Floats:
    """Return the mean of own values (J,), fitted to `counts` (J,), and of a pooled value that counts `POOLED` times."""
    return (counts * own + POOLED * pooled) / (counts + POOLED)
