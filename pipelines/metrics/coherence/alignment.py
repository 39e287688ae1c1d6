"""Coherence without labels: how well the modalities of a set belong together, compared with real data.

A pairing classifier, the `Critic`, is trained on real rows to separate rows x from shuffled rows x′ (every modality
from another row),

    s(x) = Σ_{m < n} ⟨f_m(x_m), f_n(x_n)⟩ + c,    min  E log(1 + e^{−s(x)}) + E log(1 + e^{s(x′)}),

a classifier two-sample test (Lopez-Paz & Oquab 2017, https://arxiv.org/abs/1610.06545). Like other contrastive critics,
s estimates the log-ratio of the joint distribution to the product of its marginals. The AUC of a set's rows against its
own shuffles is 1/2 if its modalities are independent or all its rows are equal, and that of real data if its modalities
belong together as those of real rows do. It does not depend on the marginals, which are the same on both sides.

Canonical correlation (Hotelling 1936, https://doi.org/10.1093/biomet/28.3-4.321) finds directions a_k, b_k in the
features of two modalities whose projections correlate most, by the singular value decomposition

    Σ_xx^{−½} Σ_xy Σ_yy^{−½} = U diag(ρ) Vᵀ,    a_k = Σ_xx^{−½} u_k,    b_k = Σ_yy^{−½} v_k.

Covariances are shrunk towards multiples of the identity (Ledoit & Wolf 2004,
https://doi.org/10.1016/S0047-259X(03)00096-4). The directions are fitted to the reference set; correlations along them
are measured in other data.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from postprior.pipelines.metrics.features.descent import Descent
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    PAIRED,
    Floats,
    Ints,
    Scores,
    combined,
    correlation,
    estimate,
    too_few,
    unscored,
    weighted_auc,
)
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.randomness import seeded

NAMES = ("pairing_auc", "canonical_correlation", "incoherence", "canonical_preservation")
DIRECTIONS = 5  # maximum number per pair of modalities, the strongest first
UNFITTED = Missing("the reference set has too few rows with two modalities")
NO_PAIR = Missing("no two modalities are observed together in two rows of the reference set")
UNCORRELATED = Missing("the correlation between modalities of real rows is not distinguishable from 0")
HIDDEN, SHARED = 64, 16  # width of a tower, dimension of the shared space
STEPS, BATCH = 300, 256
LEARNING_RATE, WEIGHT_DECAY = 5e-3, 3.0
NOISE = 0.5  # standard deviation of the noise on standardised features, against memorising a few thousand rows
SHUFFLES = 8  # shuffled rows per row of a set


class Critic(nn.Module):
    """Towers f_m from standardised features to a shared space, in which matching modalities have similar directions.

    `widths` are F_m, the number of features of each of the M modalities, M ≥ 2.
    """

    def __init__(self, widths: tuple[int, ...], seed: int = 0) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"pairings need at least two modalities, found {len(widths)}")
        self.widths = tuple(widths)
        with seeded(seed):
            self.towers = nn.ModuleList(
                nn.Sequential(nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, SHARED)) for width in widths
            )
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("deviation", torch.ones(sum(widths)))

    def forward(self, x: Tensor, observed: Tensor) -> Tensor:
        """Map standardised features (N, Σ F_m) to the shared space, (N, M, SHARED); 0 unless observed (N, M)."""
        parts = x.split(self.widths, -1)
        shared = torch.stack([tower(part) for tower, part in zip(self.towers, parts, strict=True)], 1)
        return shared.masked_fill(~observed[:, :, None], 0)

    def score(self, shared: Tensor) -> Tensor:
        """Return s (N,) of shared vectors f (N, M, SHARED); the sum over pairs is (‖Σ f‖² − Σ ‖f‖²) / 2."""
        together = shared.sum(1).square().sum(-1)
        return (together - shared.square().sum((1, 2))) / 2 + self.offset  # unobserved modalities add nothing

    def standardise(self, features: tuple[Floats, ...]) -> Tensor:
        """Concatenate features M × (N, F_m) to (N, Σ F_m), standardised by the moments of the training features."""
        return (_side_by_side(features) - self.get_buffer("mean")) / self.get_buffer("deviation")

    @torch.no_grad()
    def embed(self, outputs: EvaluatorOutputs) -> Tensor:
        """Map the features of N rows to the shared space, (N, M, SHARED)."""
        return self(self.standardise(outputs.features), torch.from_numpy(outputs.observed))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return named tensors and a plain description, the arguments of `from_state`."""
        return self.state_dict(), {"widths": list(self.widths)}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """Rebuild the critic from what `state` returned."""
        critic = cls(tuple(description["widths"]))
        critic.load_state_dict(tensors)
        return critic.eval()


def fit_critic(outputs: EvaluatorOutputs, seed: int) -> Critic:
    """Train a critic on real rows with at least two modalities; every step shuffles its batch anew."""
    features, observed = outputs.features, torch.from_numpy(outputs.observed)
    critic = Critic(tuple(array.shape[1] for array in features), seed)
    raw = _side_by_side(features)
    seen = observed.repeat_interleave(torch.tensor(critic.widths), 1)
    count = seen.sum(0)
    mean = raw.sum(0) / count.clamp_min(1)  # features of unobserved modalities are 0
    variance = (raw - mean).square().masked_fill(~seen, 0).sum(0) / (count - 1).clamp_min(1)
    critic.get_buffer("mean").copy_(mean)
    critic.get_buffer("deviation").copy_(variance.sqrt().clamp_min(1e-6))
    x, rng = critic.standardise(features), np.random.default_rng(seed)
    noise = torch.Generator().manual_seed(seed)
    descent = Descent(critic, LEARNING_RATE, STEPS, WEIGHT_DECAY)
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.choice(len(x), min(BATCH, len(x)), replace=False))
        batch = x[rows]
        shared = critic(batch + NOISE * torch.randn(batch.shape, generator=noise), observed[rows])
        mismatched = shuffled(shared, shuffle(outputs.observed[rows.numpy()], rng))
        loss = F.softplus(-critic.score(shared)).mean() + F.softplus(critic.score(mismatched)).mean()
        descent.step(loss)
    return critic.eval()


def pairing_auc(critic: Critic, outputs: EvaluatorOutputs, weights: Floats, rng: np.random.Generator) -> Floats:
    """Return the AUC (1 + B,) of rows with at least two modalities against their own shuffles; weights (1 + B, N).

    A shuffled row combines M rows and has weight 1 + Σ_m (w_m − 1) over its observed modalities, the first-order part
    of Π_m w_m: the product would keep only 2^−M of the shuffles in a half-sample. The AUC is NaN for a half-sample with
    few sources of such unequal sizes that the total weight is not positive.
    """
    shared, observed = critic.embed(outputs), outputs.observed
    modality = np.arange(observed.shape[1])
    orders = [shuffle(observed, rng) for _ in range(SHUFFLES)]
    with torch.no_grad():
        true = critic.score(shared).double().numpy()
        false = np.concatenate([critic.score(shuffled(shared, order)).double().numpy() for order in orders])
    false_weights = [1 + ((weights[:, order] - 1) * observed[order, modality]).sum(-1) for order in orders]
    return weighted_auc(true, false, weights, np.concatenate(false_weights, axis=1))


def shuffle(observed: NDArray[np.bool_], rng: np.random.Generator) -> Ints:
    """Return the source row (N, M) of each modality of each shuffled row; every column is a permutation.

    A shuffled row has the observed modalities (N, M) of a real one: each modality moves among the rows that have it.
    The columns are cyclic shifts of one random order of these rows, so that no two modalities of a shuffled row come
    from the same row if all rows have all modalities. With fewer rows than modalities, some do.
    """
    rows, modalities = observed.shape
    if rows < 2:
        raise ValueError(f"shuffles need at least two rows, found {rows}")
    order = rng.permutation(rows)
    steps = np.resize(rng.choice(rows, min(rows, modalities), replace=False), modalities).tolist()
    sources = np.repeat(order[:, None], modalities, axis=1)
    for m, step in enumerate(steps):
        present = observed[order, m]
        sources[present, m] = np.roll(order[present], -step)
    return sources


def shuffled(shared: Tensor, order: Ints) -> Tensor:
    """Return shuffled rows (N, M, …); modality m comes from rows order[:, m]."""
    return shared[torch.from_numpy(order), torch.arange(shared.shape[1])]


@dataclass(frozen=True)
class Directions:
    """Canonical directions of every pair of modalities, ordered by decreasing correlation."""

    pairs: tuple[tuple[int, int], ...]  # the P pairs (m, n) of modalities, m < n, that at least two rows have
    left: tuple[Floats, ...]  # P × (F_m, K), directions of the first modality of each pair
    right: tuple[Floats, ...]  # P × (F_n, K), directions of the second

    @classmethod
    def fit(cls, outputs: EvaluatorOutputs) -> Self:
        """Fit the directions to real rows of M ≥ 2 modalities."""
        features = outputs.features
        if len(features) < 2:
            raise ValueError(f"canonical correlations need at least two modalities, found {len(features)}")
        whitened = [_whiten(array, present) for array, present in zip(features, outputs.observed.T, strict=True)]
        pairs = tuple(pair for pair in combinations(range(len(features)), 2) if len(outputs.having(*pair)) >= FEWEST)
        left, right = [], []
        for m, n in pairs:
            (x, x_root), (y, y_root) = whitened[m], whitened[n]
            u, _, v = np.linalg.svd(x.T @ y / len(outputs.having(m, n)), full_matrices=False)
            left.append(x_root @ u[:, :DIRECTIONS])
            right.append(y_root @ v[:DIRECTIONS].T)
        return cls(pairs, tuple(left), tuple(right))

    def correlations(self, outputs: EvaluatorOutputs, weights: Floats) -> list[Floats]:
        """Return correlations P × (1 + B, K) of N rows along the directions; weights (1 + B, N).

        A direction along which the set does not vary has correlation 0. Correlations of a pair are NaN in a half-sample
        that keeps no row with both modalities.
        """
        found = []
        for (m, n), a, b in zip(self.pairs, self.left, self.right, strict=True):
            rows = outputs.having(m, n)
            x, y = (_centred(outputs.features[k][rows]) @ axes for k, axes in ((m, a), (n, b)))
            kept = weights[:, rows].sum(1, keepdims=True) > 0
            found.append(np.where(kept, correlation(x, y, weights[:, rows]), np.nan))
        return found

    def mean(self, outputs: EvaluatorOutputs, weights: Floats) -> Floats:
        """Return the mean correlation (1 + B,) over directions and pairs; NaN where all pairs are."""
        means = np.stack([pair.mean(1) for pair in self.correlations(outputs, weights)])
        known = np.isfinite(means)
        count = known.sum(0)
        return np.divide(np.where(known, means, 0).sum(0), count, where=count > 0, out=np.full(count.shape, np.nan))


@dataclass(frozen=True)
class Alignment:
    """The critic and the canonical directions, fitted to real rows, with which every set is scored."""

    critic: Critic | None  # None if there is too little to learn from, see `unpaired`
    directions: Directions | None  # likewise
    seed: int  # of the shuffles

    @classmethod
    def fit(cls, outputs: EvaluatorOutputs, seed: int) -> Self:
        """Fit the critic and the directions to the reference set."""
        if unpaired(outputs):
            return cls(None, None, seed)
        paired = outputs.select(outputs.paired)
        return cls(fit_critic(paired, seed), Directions.fit(paired), seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """Return the critic's named tensors and description; empty without a critic."""
        return ({}, None) if self.critic is None else self.critic.state()

    def score(self, outputs: EvaluatorOutputs, weights: Floats, real: Scores | None = None) -> Scores:
        """Return the four scores of `NAMES` for outputs with weights (1 + B, N).

        `incoherence` is the AUC of real data minus that of the set. `canonical_preservation` is the correlation of the
        set over that of real data; it is missing if the interval of the latter contains 0. Decoded means are smoother
        than real data and may be more coherent: `incoherence` is then negative, and `canonical_preservation` above 1.
        `real` contains the scores of real data; None if the outputs are those of real data.
        """
        if missing := unpaired(outputs):
            return dict.fromkeys(NAMES, missing)
        if self.critic is None or self.directions is None:
            return dict.fromkeys(NAMES, UNFITTED)
        rows, paired_weights = outputs.select(outputs.paired), weights[:, outputs.paired]
        auc = pairing_auc(self.critic, rows, paired_weights, np.random.default_rng(self.seed))
        correlation = self.directions.mean(rows, paired_weights) if self.directions.pairs else NO_PAIR
        scores: Scores = {"pairing_auc": auc, "canonical_correlation": correlation}
        baseline = scores if real is None else real
        real_correlation = baseline["canonical_correlation"]
        interval, preserved = estimate(real_correlation), combined(np.divide, correlation, real_correlation)
        if interval.get("low") is None or interval["low"] <= 0:
            preserved = Missing(interval["why"]) if "why" in interval else UNCORRELATED
        incoherence = combined(np.subtract, baseline["pairing_auc"], auc)
        return {**scores, "incoherence": incoherence, "canonical_preservation": preserved}


def unpaired(outputs: EvaluatorOutputs) -> Missing | None:
    """Return the reason if there are too few modalities or rows to measure coherence."""
    missing = too_few(len(outputs.features), 2, "modalities") or unscored(len(outputs))
    return missing or too_few(len(outputs.paired), FEWEST, PAIRED)


def shrunk_covariance(x: Floats) -> Floats:
    """Return the covariance (1 − s) S + s μ I (F, F) of centred rows (N, F), where μ = tr S / F (Ledoit & Wolf 2004).

    The shrinkage s is the squared error of S, estimated as Σ_n ‖x_n x_nᵀ − S‖² / N², over ‖S − μ I‖²; at most 1.
    """
    rows, features = max(1, len(x)), x.shape[1]
    covariance = x.T @ x / rows
    identity = np.eye(features) * covariance.trace() / features
    distance = np.square(covariance - identity).sum()
    error = (np.square(np.square(x).sum(1)).sum() / rows - np.square(covariance).sum()) / rows
    shrinkage = min(error, distance) / distance if distance > 0 else 0
    return (1 - shrinkage) * covariance + shrinkage * identity


def _whiten(features: Floats, observed: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return features (N, F) whitened by their shrunk covariance, and the whitening matrix (F, F).

    Rows in which the modality is not observed (N,) are 0.
    """
    x = np.zeros(features.shape)
    x[observed] = _centred(features[observed])
    values, vectors = np.linalg.eigh(shrunk_covariance(x[observed]))
    scale = np.divide(1, np.sqrt(values.clip(0)), where=values > 1e-12 * values.max(), out=np.zeros_like(values))
    root = vectors * scale @ vectors.T
    return x @ root, root


def _centred(features: Floats) -> Floats:
    x = np.asarray(features, np.float64)
    return x - x.mean(0) if len(x) else x


def _side_by_side(features: tuple[Floats, ...]) -> Tensor:
    return torch.cat([torch.from_numpy(np.array(array, np.float32)) for array in features], 1)
