"""Uniform law of the Riemannian manifold that the encoder's covariances make of the latent space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from postprior.stage1_vae.randomness import normal, seed_from, uniform
from postprior.stage2_latent.categorical import draw_component
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.draws import Draws
from postprior.stage2_latent.kde import kernels
from postprior.stage2_latent.options import candidates_of, integer, number
from postprior.stage2_latent.task import Task

FLOATS = 2**20
"""Numbers that a temporary of the sampler may hold."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric G(z) = Σ_i diag(a_i) ω_i(z), ω_i(z) = exp(−Σ_d κ_id (z_d − c_id)²), and draws of its uniform law.

    The law's density is √det G(z) / ∫ √det G, and √det G = Π_d (Σ_i a_id ω_i)^½ as G is diagonal.

    Where one term i outweighs the others, √det G = Π_d a_id^½ ω_i^(D/2) is Gaussian around c_i with variances
    1 / (D κ_id) and mass Π_d (a_id / κ_id)^½. The mixture q of these Gaussians is the proposal of an independence
    Metropolis–Hastings sampler (Tierney 1994), whose weights √det G / q are bounded: chains forget where they
    started at a geometric rate, and those that start at draws of q are nearly there.

    Args:
        centres: c, (C, D).
        values: a, (C, D).
        rates: κ, (C, D).
    """

    centres: Tensor
    values: Tensor
    rates: Tensor

    def log_volume(self, z: Tensor) -> Tensor:
        """log √det G(z) of points (n, D): (n,)."""
        return self._volume(self._exponents(z))

    def weights(self, z: Tensor) -> Tensor:
        """log √det G(z) / q(z), up to a constant: (n,)."""
        exponents = self._exponents(z)
        log_peaks = 0.5 * self.values.log().sum(-1)  # Π_d a_id^½, (C,)
        shares, highest = _exp(log_peaks + 0.5 * z.shape[-1] * exponents)
        return self._volume(exponents) - shares.sum(-1).log() - highest.squeeze(-1)

    def propose(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draws of q: centres and offsets from them, (n, D) each."""
        masses = (0.5 * (self.values / self.rates).log().sum(-1)).softmax(-1)
        place = torch.zeros(n, dtype=torch.int64, device=masses.device)
        term = draw_component(masses.unsqueeze(0), place, generator)
        shape, like = (n, self.centres.shape[-1]), self.centres
        noise = normal(shape, like, generator)
        return self.centres[term], noise * (shape[-1] * self.rates).rsqrt()[term]

    def sample(self, n: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The last states of n independent chains of some steps, started at draws of q: centres and offsets, (n, D)."""
        centre, offset = self.propose(n, generator)
        weights = self.weights(centre + offset)
        for _ in range(steps):
            other, further = self.propose(n, generator)
            fresh = self.weights(other + further)
            accepted = uniform((n,), fresh, generator).log() < fresh - weights
            weights = torch.where(accepted, fresh, weights)
            moved = accepted.unsqueeze(-1)
            centre, offset = torch.where(moved, other, centre), torch.where(moved, further, offset)
        return centre, offset

    def _exponents(self, z: Tensor) -> Tensor:
        """log ω_i(z), (n, C)."""
        origin = self.centres.mean(0)  # squares are expanded: kept small, they lose fewer digits
        z, centres = z - origin, self.centres - origin
        squares = torch.cat([self.rates, -2 * self.rates * centres], dim=-1)  # (C, 2 D)
        constant = (self.rates * centres.square()).sum(-1)
        return -torch.addmm(constant, torch.cat([z.square(), z], dim=-1), squares.T)

    def _volume(self, exponents: Tensor) -> Tensor:
        kernels, highest = _exp(exponents)
        return 0.5 * ((kernels @ self.values).log() + highest).sum(-1)


def _exp(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Exponentials of (n, C) numbers over the highest of each row, and the logarithms of those, (n, 1)."""
    highest = logs.amax(-1, keepdim=True)
    # Lower exponentials are denormal numbers, which take ten times as long.
    return (logs - highest).clamp_min(-80).exp(), highest


class Riemannian(Density):
    """p(z | y) ∝ √det G_y(z), uniform on the manifold of G_y(z) = Σ_i Σ_i⁻¹ ω_i(z) + λ exp(−τ‖z‖²) I.

    The metric of Chadebec & Allassonnière (2022, arXiv 2209.07370): posterior means c_i and diagonal covariances Σ_i of
    training rows of the label, ω_i(z) = exp(−(z − c_i)ᵀ Σ_i⁻¹ (z − c_i) / ρ²). For few training rows. A centroid
    far from others is drawn around with covariance Σ_i ρ²/D, each as often as any other. A component of a mixture
    posterior counts as a row; codes that are points get the kernels of `kde`.

    The radius is ρ = r · max_i min_j ‖c_i − c_j‖, distances taken under Σ_i⁻¹. As D grows, √det G = (Σ_i …)^(D/2)
    gathers where balls overlap, and a large r leaves nothing else: candidates of r are taken as long as the sampler
    mixes, and among these the draws nearest to held-out codes in energy distance choose.

    λ and τ make G invertible and its volume finite. The volume of the last term over that of a centroid is
    (λ / τρ²)^(D/2): the paper's τ ≈ 0 would leave hardly any draw near data, had its chains the time to get away.

    At a temperature T the offset of a draw from the centroid that it was proposed around is T times as long. The power
    1/T² of the density would leave little but the centroids of narrowest posterior.

    It has no normalised score, stores the codes it is made of, and says so.

    Args:
        radius: r, or a list of candidates.
        centroids: rows over all labels that the metric is made of, at most; dealt evenly and drawn at random.
        regularisation: λ.
        decay: τ.
    """

    name = "riemannian"
    exact_log_prob = False
    stores_training_codes = True
    incomplete = False
    whitens = False

    UNMIXED = 0.01
    """Share of draws, at most, that the sampler's chains have not yet brought to the law."""
    MAX_STEPS = 32
    """Longest chains; a radius that needs longer ones is too large."""
    TRIAL_DRAWS = 1000
    """Draws of each label by which a radius is judged."""

    def __init__(
        self,
        *,
        radius: float | Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.25),
        centroids: int = 5000,
        regularisation: float = 1e-12,
        decay: float = 1e-3,
    ) -> None:
        super().__init__()
        self.candidates = [number("radius", value, low=1e-6) for value in candidates_of("radius", radius)]
        self.centroids = integer("centroids", centroids)
        self.regularisation = number("regularisation", regularisation)
        self.decay = number("decay", decay, low=1e-12)

    def _fit(self, task: Task) -> None:
        generator = task.generator
        self._choose_centroids(task.train, generator)
        gaps = torch.stack([self._largest_gap(index) for index in range(len(self.classes))])
        held_out = task.validation.repeated(4, generator)
        seed = seed_from(generator)
        best, chosen, self.scores = torch.inf, None, {}
        for radius in self.candidates:
            self.radii = radius * gaps
            noise = torch.Generator(generator.device).manual_seed(seed)  # the same for every candidate
            self.steps = max(self._mixing_steps(index, noise) for index in range(len(self.classes)))
            if self.steps > self.MAX_STEPS:
                continue
            score = self._distance(*held_out, noise)
            self.scores[f"{radius:g}"] = score
            if score < best:
                best, chosen = score, (self.radii, self.steps)
        if chosen is None:
            raise ValueError(
                f"option radius: found {self.options['radius']!r}, expected a smaller one: the balls of the "
                "training codes overlap so much that nearly all volume is where most of them do"
            )
        self.radii, self.steps = chosen

    def _choose_centroids(self, train: Draws, generator: torch.Generator) -> None:
        """Takes components at random, by their weights and without replacement; classes with fewer are padded."""
        weights, loc, scale = kernels(train)  # (K, T), (K, T, D)
        deviation = train.codes.posterior().components.deviation
        count = max(1, min(self.centroids // len(weights), int((weights > 0).sum(-1).max())))
        keys, places = (uniform(weights.shape, weights, generator).log() / weights).topk(
            count, dim=-1
        )  # Efraimidis & Spirakis (2006)
        places = places.unsqueeze(-1)
        self.centres = loc.take_along_dim(places, 1)
        self.precisions = (deviation * scale).take_along_dim(places, 1).pow(-2)
        self.counts = keys.isfinite().sum(-1)  # the others are last

    def _largest_gap(self, index: int) -> Tensor:
        """max_i min_j of the distances between the centroids of a class; √D for a single one, as its posterior is."""
        count = int(self.counts[index])
        centres, precisions = self.centres[index, :count], self.precisions[index, :count]
        if count == 1:
            return centres.new_tensor(float(centres.shape[-1])).sqrt()
        squares = -Metric(centres, precisions, precisions)._exponents(centres).T  # (i, j)
        return squares.fill_diagonal_(torch.inf).amin(-1).amax().clamp_min(MIN_SQUARED_GAP).sqrt()

    def _mixing_steps(self, index: int, generator: torch.Generator) -> int:
        """Steps after which chains of a class have forgotten their start but for `UNMIXED`, or one more than `MAX_STEPS`.

        A state of weight w is left at each step with probability a(w) = E_q min(1, w'/w), so that the share of draws
        that never were is E_p (1 − a(w))^steps; both expectations over weighted proposals.
        """
        metric = self._metric(index)
        centre, offset = metric.propose(self.TRIAL_DRAWS, generator)
        weights = metric.weights(centre + offset).double()
        leaving = (weights - weights.unsqueeze(-1)).clamp_max(0).exp().mean(-1)
        steps = torch.arange(1, self.MAX_STEPS + 1, device=weights.device)
        left = weights.softmax(0) @ (1 - leaving).clamp_min(0).unsqueeze(-1) ** steps
        return 1 + int((left > self.UNMIXED).sum())

    def _distance(self, x: Tensor, classes: Tensor, generator: torch.Generator) -> float:
        """Energy distance of draws to held-out codes of their class (Székely & Rizzo 2013), mean over held-out rows.

        Less the term of the held-out codes alone, which is the same for all draws.
        """
        total = 0.0
        for index in classes.unique().tolist():
            own = x[classes == index]
            asked = torch.full((self.TRIAL_DRAWS,), index, device=x.device)
            drawn = self._sample(asked, generator, 1.0)
            within = torch.cdist(drawn, drawn).sum() / (self.TRIAL_DRAWS * (self.TRIAL_DRAWS - 1))
            total += len(own) * float(2 * torch.cdist(drawn, own).mean() - within)
        return total / len(x)

    def _metric(self, index: int) -> Metric:
        """The metric of a class."""
        count = int(self.counts[index])
        centres, values = self.centres[index, :count], self.precisions[index, :count]
        rates = values / self.radii[index] ** 2
        if self.regularisation:
            last = torch.ones_like(centres[:1])
            centres = torch.cat([centres, 0 * last])
            values, rates = (
                torch.cat([values, self.regularisation * last]),
                torch.cat([rates, self.decay * last]),
            )
        return Metric(centres, values, rates)

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        """log p(x | class index) up to a constant, (n,)."""
        return self._metric(index).log_volume(x)

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        z = self.centres.new_empty(len(classes), self.centres.shape[-1])
        for index in classes.unique().tolist():
            metric = self._metric(index)
            for rows in (classes == index).nonzero().squeeze(-1).split(max(1, FLOATS // len(metric.centres))):
                centre, offset = metric.sample(len(rows), self.steps, generator)
                z[rows] = centre + temperature * offset
        return z

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in ("centres", "precisions", "counts", "radii")}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.centres, self.precisions = tensors["centres"], tensors["precisions"]
        self.counts, self.radii = tensors["counts"], tensors["radii"]
        self.steps, self.scores = learned["steps"], dict(learned["held_out_distance"])

    def _learned(self) -> dict[str, Any]:
        return {"steps": self.steps, "held_out_distance": self.scores}


MIN_SQUARED_GAP = 1e-12
"""Square of the smallest radius: rows that are all alike leave a point."""
