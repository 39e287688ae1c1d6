"""How well the modalities of a set go together, without labels: pairings and correlations, beside real data's.

A critic learns from real tuples x and shuffled ones x′ (every modality from another row) to tell them apart,

    s(x) = Σ_{m < n} ⟨f_m(x_m), f_n(x_n)⟩ + c,    min  E log(1 + e^{−s(x)}) + E log(1 + e^{s(x′)}),

a two-sample test by a classifier (Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545) whose s estimates the
log-ratio of the joint distribution to the product of its marginals, as contrastive critics do. The AUC of a set's own
tuples against its own shuffles is then 1/2 where its modalities are independent, or all its tuples alike, and
that of real data where they belong together as real ones do. Marginals do not move it: both sides have the same.

Canonical correlation (Hotelling 1936, https://doi.org/10.1093/biomet/28.3-4.321) finds directions a_k, b_k of the
features of two modalities whose projections correlate most, by the singular value decomposition

    Σ_xx^{−½} Σ_xy Σ_yy^{−½} = U diag(ρ) Vᵀ,    a_k = Σ_xx^{−½} u_k,    b_k = Σ_yy^{−½} v_k.

Covariances are shrunk towards spheres (Ledoit & Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4). The
directions are those of reference data; correlations along them are measured in other data, which they never saw.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.features.label_classifiers import Descent
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    SCORED,
    Floats,
    Ints,
    Scores,
    combined,
    correlation,
    estimate,
    too_few,
    weighted_auc,
)
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.randomness import seeded

NAMES = ("pairing_auc", "canonical_correlation", "incoherence", "canonical_preservation")
DIRECTIONS = 5  # of every pair of modalities, at most: the strongest ones
UNCORRELATED = Missing("the modalities of real rows correlate no more than by chance")
HIDDEN, SHARED = 64, 16  # widths of a tower and of the space in which the towers meet
STEPS, BATCH = 300, 256
LEARNING_RATE, WEIGHT_DECAY = 5e-3, 3.0
NOISE = 0.5  # standard deviation of what is added to standardised features: a few thousand rows are soon memorised
SHUFFLES = 8  # shuffled tuples that every tuple is compared with, for each row of a set


class Critic(nn.Module):
    """Towers f_m from standardised features to one space, where modalities that belong together point alike.

    `widths` are F_m, the number of features of each of the M modalities, M ≥ 2.
    """

    def __init__(self, widths: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"pairings are of at least two modalities, found {len(widths)}")
        self.widths = tuple(widths)
        with seeded(seed):
            self.towers = nn.ModuleList(
                nn.Sequential(nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, SHARED)) for width in widths
            )
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("deviation", torch.ones(sum(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """Where the towers put standardised features (N, Σ F_m): (N, M, SHARED)."""
        parts = x.split(self.widths, -1)
        return torch.stack([tower(part) for tower, part in zip(self.towers, parts, strict=True)], 1)

    def score(self, shared: Tensor) -> Tensor:
        """s (N,) of places (N, M, SHARED): the products of all pairs are (‖Σ f‖² − Σ ‖f‖²) / 2."""
        together = shared.sum(1).square().sum(-1)
        return (together - shared.square().sum((1, 2))) / 2 + self.offset

    def standardise(self, features: tuple[Floats, ...]) -> Tensor:
        """Features M × (N, F_m) side by side, (N, Σ F_m), by the moments of those that were learned from."""
        return (_side_by_side(features) - self.get_buffer("mean")) / self.get_buffer("deviation")

    @torch.no_grad()
    def places(self, features: tuple[Floats, ...]) -> Tensor:
        """Where the towers put features M × (N, F_m): (N, M, SHARED)."""
        return self(self.standardise(features))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and a plain description, the arguments of `from_state`."""
        return self.state_dict(), {"widths": list(self.widths)}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """The critic that gave this state."""
        critic = cls(tuple(description["widths"]))
        critic.load_state_dict(tensors)
        return critic.eval()


def fit_critic(features: tuple[Floats, ...], seed: int) -> Critic:
    """A critic of the pairings in features M × (N, F_m) of real tuples; every step shuffles its own batch anew."""
    critic = Critic(tuple(array.shape[1] for array in features), seed)
    raw = _side_by_side(features)
    critic.get_buffer("mean").copy_(raw.mean(0))
    critic.get_buffer("deviation").copy_(raw.std(0).clamp_min(1e-6))
    x, rng = critic.standardise(features), np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    descent = Descent(critic, LEARNING_RATE, STEPS, WEIGHT_DECAY)
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.choice(len(x), min(BATCH, len(x)), replace=False))
        seen = x[rows]
        shared = critic(seen + NOISE * torch.randn(seen.shape, generator=noise))
        others = shuffled(shared, shuffle(len(shared), len(features), rng))
        loss = F.softplus(-critic.score(shared)).mean() + F.softplus(critic.score(others)).mean()
        descent.step(loss)
    return critic.eval()


def pairing_auc(critic: Critic, features: tuple[Floats, ...], weights: Floats, rng: np.random.Generator) -> Floats:
    """AUC (1 + B,) of the tuples of a set against their own shuffles; weights (1 + B, N).

    A shuffled tuple is made of M rows and weighs 1 + Σ_m (w_m − 1), the first-order part of Π_m w_m: the product
    would leave 2^−M of the shuffles in a half-sample. NaN for a half-sample whose few sources are so unequal that this
    is no weight.
    """
    shared = critic.places(features)
    orders = [shuffle(len(shared), len(features), rng) for _ in range(SHUFFLES)]
    with torch.no_grad():
        true = critic.score(shared).double().numpy()
        false = np.concatenate([critic.score(shuffled(shared, order)).double().numpy() for order in orders])
    of_false = np.concatenate([1 + (weights[:, order] - 1).sum(-1) for order in orders], axis=1)
    return weighted_auc(true, false, weights, of_false)


def shuffle(rows: int, modalities: int, rng: np.random.Generator) -> Ints:
    """The row (N, M) from which each modality of each shuffled tuple is taken: every column is a permutation.

    No two modalities of a tuple are of one row: the columns are a random order of the rows, moved along itself.
    """
    if rows < modalities:
        raise ValueError(f"shuffles of {modalities} modalities need {modalities} rows at least, found {rows}")
    order = rng.permutation(rows)
    steps = rng.choice(rows, modalities, replace=False)
    return order[(np.arange(rows)[:, None] + steps) % rows]


def shuffled(shared: Tensor, order: Ints) -> Tensor:
    """Tuples (N, M, …) whose modality m is that of row order[:, m]."""
    return shared[torch.from_numpy(order), torch.arange(shared.shape[1])]


@dataclass(frozen=True)
class Directions:
    """Canonical directions of every pair of modalities, the strongest correlation first."""

    pairs: tuple[tuple[int, int], ...]  # the P pairs (m, n) of modalities, m < n
    left: tuple[Floats, ...]  # P × (F_m, K), those of the first modality of a pair
    right: tuple[Floats, ...]  # P × (F_n, K), those of the second

    @classmethod
    def fit(cls, features: tuple[Floats, ...]) -> Self:
        """The directions of features M × (N, F_m) of real tuples, M ≥ 2."""
        if len(features) < 2:
            raise ValueError(f"canonical correlations are of at least two modalities, found {len(features)}")
        whitened = [_whiten(array) for array in features]
        pairs = tuple(combinations(range(len(features)), 2))
        left, right = [], []
        for m, n in pairs:
            (x, back), (y, forth) = whitened[m], whitened[n]
            u, _, v = np.linalg.svd(x.T @ y / len(x), full_matrices=False)
            left.append(back @ u[:, :DIRECTIONS])
            right.append(forth @ v[:DIRECTIONS].T)
        return cls(pairs, tuple(left), tuple(right))

    def correlations(self, features: tuple[Floats, ...], weights: Floats) -> list[Floats]:
        """Correlations P × (1 + B, K) of features M × (N, F_m) along the directions; weights (1 + B, N).

        A direction along which a set does not vary has correlation 0.
        """
        return [
            correlation(_centred(features[m]) @ a, _centred(features[n]) @ b, weights)
            for (m, n), a, b in zip(self.pairs, self.left, self.right, strict=True)
        ]

    def mean(self, features: tuple[Floats, ...], weights: Floats) -> Floats:
        """Their mean over the directions of a pair and over pairs, (1 + B,)."""
        return np.mean([pair.mean(1) for pair in self.correlations(features, weights)], axis=0)


@dataclass(frozen=True)
class Alignment:
    """What was learned of real tuples, and what every set is measured by."""

    critic: Critic | None  # tells their pairings from shuffled ones; None where nothing can be learned, see `unpaired`
    directions: Directions | None  # along which their modalities correlate
    seed: int  # of the shuffles

    @classmethod
    def fit(cls, outputs: EvaluatorOutputs, seed: int) -> Self:
        """The alignment of the reference half."""
        if unpaired(outputs):
            return cls(None, None, seed)
        return cls(fit_critic(outputs.features, seed), Directions.fit(outputs.features), seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """The critic's named tensors and description; nothing without one."""
        return ({}, None) if self.critic is None else self.critic.state()

    def score(self, outputs: EvaluatorOutputs, weights: Floats, real: Scores | None = None) -> Scores:
        """`pairing_auc` and `canonical_correlation` of outputs under weights (1 + B, N), and both beside real data's.

        `incoherence` is the AUC of real data less that of the set; `canonical_preservation` the correlation over that
        of real data, where these correlate beyond noise. Decoded means are smoother than real data: they may be the
        more coherent, the first then below 0 and the second above 1. `real` are the scores of real data; None where
        these are.
        """
        if why := unpaired(outputs):
            return dict.fromkeys(NAMES, why)
        assert self.critic is not None
        assert self.directions is not None
        auc = pairing_auc(self.critic, outputs.features, weights, np.random.default_rng(self.seed))
        correlation = self.directions.mean(outputs.features, weights)
        own: Scores = {"pairing_auc": auc, "canonical_correlation": correlation}
        of_real = own if real is None else real
        theirs = of_real["canonical_correlation"]
        told, preserved = estimate(theirs), combined(np.divide, correlation, theirs)
        if told.get("low") is None or told["low"] <= 0:
            preserved = Missing(told["why"]) if "why" in told else UNCORRELATED
        incoherence = combined(np.subtract, of_real["pairing_auc"], auc)
        return {**own, "incoherence": incoherence, "canonical_preservation": preserved}


def unpaired(outputs: EvaluatorOutputs) -> Missing | None:
    """Why nothing can be said of how modalities go together, if nothing can."""
    modalities = len(outputs.features)
    return too_few(modalities, 2, "modalities") or too_few(len(outputs), max(FEWEST, modalities), SCORED)


def _whiten(features: Floats) -> tuple[Floats, Floats]:
    """Features (N, F) whitened by their shrunk covariance, and the matrix (F, F) that does so."""
    from sklearn.covariance import ledoit_wolf

    x = _centred(features)
    covariance, _ = ledoit_wolf(x, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    scale = np.divide(1, np.sqrt(values.clip(0)), where=values > 1e-12 * values.max(), out=np.zeros_like(values))
    back = vectors * scale @ vectors.T
    return x @ back, back


def _centred(features: Floats) -> Floats:
    x = np.asarray(features, np.float64)
    return x - x.mean(0)


def _side_by_side(features: tuple[Floats, ...]) -> Tensor:
    return torch.cat([torch.from_numpy(np.array(array, np.float32)) for array in features], 1)
