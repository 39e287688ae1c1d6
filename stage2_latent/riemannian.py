"""Uniform distribution on the Riemannian manifold defined by the posterior covariances of the encoder."""

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
"""Maximum number of floats in a temporary tensor of the sampler."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A metric G(z) = Σ_i diag(a_i) ω_i(z), ω_i(z) = exp(−Σ_d κ_id (z_d − c_id)²), and its uniform distribution.

    The uniform distribution has density √det G(z) / ∫ √det G, with √det G = Π_d (Σ_i a_id ω_i)^½ as G is diagonal.

    Where one term i dominates, √det G = Π_d a_id^½ ω_i^(D/2) is a Gaussian around c_i with variances 1 / (D κ_id) and
    mass Π_d (a_id / κ_id)^½. The mixture q of these Gaussians is the proposal of an independence Metropolis–Hastings
    sampler (Tierney 1994). Its importance weights √det G / q are bounded, so that chains converge at a geometric rate;
    chains that start from draws of q are already close to the target.

    Args:
        centres: c, (C, D).
        values: a, (C, D).
        rates: κ, (C, D).
    """

    centres: Tensor
    values: Tensor
    rates: Tensor

    def log_volume(self, z: Tensor) -> Tensor:
        """Return log √det G(z) of points (n, D), shape (n,)."""
        return self._volume(self._exponents(z))

    def weights(self, z: Tensor) -> Tensor:
        """Return log √det G(z) / q(z) up to a constant, shape (n,)."""
        exponents = self._exponents(z)
        log_peaks = 0.5 * self.values.log().sum(-1)  # Π_d a_id^½, (C,)
        proposals, highest = _exp(log_peaks + 0.5 * z.shape[-1] * exponents)
        return self._volume(exponents) - proposals.sum(-1).log() - highest.squeeze(-1)

    def propose(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw from q; return centres and the offsets from them, (n, D) each."""
        masses = (0.5 * (self.values / self.rates).log().sum(-1)).softmax(-1)
        place = torch.zeros(n, dtype=torch.int64, device=masses.device)
        term = draw_component(masses.unsqueeze(0), place, generator)
        shape, like = (n, self.centres.shape[-1]), self.centres
        noise = normal(shape, like, generator)
        return self.centres[term], noise * (shape[-1] * self.rates).rsqrt()[term]

    def sample(self, n: int, steps: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Run n independent chains from draws of q; return centres and offsets of their last states, (n, D) each."""
        centre, offset = self.propose(n, generator)
        weights = self.weights(centre + offset)
        for _ in range(steps):
            new_centre, new_offset = self.propose(n, generator)
            new_weights = self.weights(new_centre + new_offset)
            accepted = uniform((n,), new_weights, generator).log() < new_weights - weights
            weights = torch.where(accepted, new_weights, weights)
            moved = accepted.unsqueeze(-1)
            centre, offset = torch.where(moved, new_centre, centre), torch.where(moved, new_offset, offset)
        return centre, offset

    def _exponents(self, z: Tensor) -> Tensor:
        """Return log ω_i(z), shape (n, C)."""
        origin = self.centres.mean(0)  # small values lose fewer digits in the expanded squares
        z, centres = z - origin, self.centres - origin
        squares = torch.cat([self.rates, -2 * self.rates * centres], dim=-1)  # (C, 2 D)
        constant = (self.rates * centres.square()).sum(-1)
        return -torch.addmm(constant, torch.cat([z.square(), z], dim=-1), squares.T)

    def _volume(self, exponents: Tensor) -> Tensor:
        kernels, highest = _exp(exponents)
        return 0.5 * ((kernels @ self.values).log() + highest).sum(-1)


def _exp(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Return exp(logs − highest), (n, C), and the highest entry of each row, (n, 1)."""
    highest = logs.amax(-1, keepdim=True)
    # Smaller exponents give denormal numbers, which take ten times as long.
    return (logs - highest).clamp_min(-80).exp(), highest


class Riemannian(Density):
    """p(z | y) ∝ √det G_y(z), uniform on the manifold of G_y(z) = Σ_i Σ_i⁻¹ ω_i(z) + λ exp(−τ‖z‖²) I.

    The metric is that of Chadebec & Allassonnière (2022, arXiv 2209.07370), with posterior means c_i and diagonal
    covariances Σ_i of the training rows of the label and ω_i(z) = exp(−(z − c_i)ᵀ Σ_i⁻¹ (z − c_i) / ρ²). It suits small
    training sets. Draws around a centroid far from all others have covariance Σ_i ρ²/D, and all such centroids are
    equally likely. Each component of a mixture posterior counts as a row. Codes that are points get the kernels of
    `kde`.

    The radius is ρ = r · max_i min_j ‖c_i − c_j‖, with distances under Σ_i⁻¹. As D grows, √det G = (Σ_i …)^(D/2)
    concentrates where balls overlap, and with a large r all mass is there. Candidates of r for which the sampler does
    not mix are therefore excluded; among the others, the one whose draws are closest to held-out codes in energy
    distance is selected.

    λ and τ make G invertible and its volume finite. The volume of the last term relative to that of a centroid is
    (λ / τρ²)^(D/2). With the paper's τ ≈ 0, hardly any draws would be near data if its chains ran long enough.

    The temperature T multiplies the offset of a draw from the centroid that it was proposed around. The alternative,
    the density to the power 1/T², would leave little but the centroids with the narrowest posteriors.

    This density has no normalised score. It stores the codes it is made of and declares this.

    Args:
        radius: r, or a list of candidates.
        centroids: maximum number of rows in the metric, over all labels, divided evenly among the labels and drawn at
            random.
        regularisation: λ.
        decay: τ.
    """

    name = "riemannian"
    exact_log_prob = False
    stores_training_codes = True
    incomplete = False
    whitens = False

    UNMIXED = 0.01
    """Maximum share of draws whose chains have not yet left their start."""
    MAX_STEPS = 32
    """Maximum number of steps of a chain; a radius that needs more steps is too large."""
    TRIAL_DRAWS = 1000
    """Number of draws per label for the selection of a radius."""

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
            noise = torch.Generator(generator.device).manual_seed(seed)  # the same for all candidates
            self.steps = max(self._mixing_steps(index, noise) for index in range(len(self.classes)))
            if self.steps > self.MAX_STEPS:
                continue
            score = self._distance(*held_out, noise)
            self.scores[f"{radius:g}"] = score
            if score < best:
                best, chosen = score, (self.radii, self.steps)
        if chosen is None:
            raise ValueError(
                f"option radius: found {self.options['radius']!r}, expected a smaller one: the balls around the "
                "training codes overlap so much that nearly all volume is where most of them overlap"
            )
        self.radii, self.steps = chosen

    def _choose_centroids(self, train: Draws, generator: torch.Generator) -> None:
        """Draw components by weight, without replacement, as centroids; classes with fewer centroids are padded."""
        weights, loc, scale = kernels(train)  # (K, T), (K, T, D)
        deviation = train.codes.posterior().components.deviation
        count = max(1, min(self.centroids // len(weights), int((weights > 0).sum(-1).max())))
        keys, places = (uniform(weights.shape, weights, generator).log() / weights).topk(
            count, dim=-1
        )  # Efraimidis & Spirakis (2006)
        places = places.unsqueeze(-1)
        self.centres = loc.take_along_dim(places, 1)
        self.precisions = (deviation * scale).take_along_dim(places, 1).pow(-2)
        self.counts = keys.isfinite().sum(-1)  # the padding is last

    def _largest_gap(self, index: int) -> Tensor:
        """Return max_i min_j of the distances between the centroids of a class.

        For a single centroid it is √D, the typical distance from the mean within its posterior.
        """
        count = int(self.counts[index])
        centres, precisions = self.centres[index, :count], self.precisions[index, :count]
        if count == 1:
            return centres.new_tensor(float(centres.shape[-1])).sqrt()
        squares = -Metric(centres, precisions, precisions)._exponents(centres).T  # (i, j)
        return squares.fill_diagonal_(torch.inf).amin(-1).amax().clamp_min(MIN_SQUARED_GAP).sqrt()

    def _mixing_steps(self, index: int, generator: torch.Generator) -> int:
        """Return the number of steps after which at most a share `UNMIXED` of the chains has never moved.

        The result is `MAX_STEPS` + 1 if more steps are needed. A chain leaves a state of weight w with probability
        a(w) = E_q min(1, w'/w) at each step, so that the share of chains that never moved is E_p (1 − a(w))^steps.
        Both expectations are taken over weighted proposals.
        """
        metric = self._metric(index)
        centre, offset = metric.propose(self.TRIAL_DRAWS, generator)
        weights = metric.weights(centre + offset).double()
        leaving = (weights - weights.unsqueeze(-1)).clamp_max(0).exp().mean(-1)
        steps = torch.arange(1, self.MAX_STEPS + 1, device=weights.device)
        unmixed = weights.softmax(0) @ (1 - leaving).clamp_min(0).unsqueeze(-1) ** steps
        return 1 + int((unmixed > self.UNMIXED).sum())

    def _distance(self, x: Tensor, classes: Tensor, generator: torch.Generator) -> float:
        """Return the energy distance of draws to held-out codes of their class (Székely & Rizzo 2013).

        It is the mean over held-out rows, without the term that contains only held-out codes, which is the same for all
        candidates.
        """
        total = 0.0
        for index in classes.unique().tolist():
            held_out = x[classes == index]
            draw_classes = torch.full((self.TRIAL_DRAWS,), index, device=x.device)
            drawn = self._sample(draw_classes, generator, 1.0)
            within = torch.cdist(drawn, drawn).sum() / (self.TRIAL_DRAWS * (self.TRIAL_DRAWS - 1))
            total += len(held_out) * float(2 * torch.cdist(drawn, held_out).mean() - within)
        return total / len(x)

    def _metric(self, index: int) -> Metric:
        """Return the metric of a class."""
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
        """Return log p(x | class index) up to a constant, shape (n,)."""
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

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        return {"centres": "K C D", "precisions": "K C D", "counts": "K int64", "radii": "K"}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.centres, self.precisions = tensors["centres"], tensors["precisions"]
        self.counts, self.radii = tensors["counts"], tensors["radii"]
        self.steps, self.scores = learned["steps"], dict(learned["held_out_distance"])

    def _learned(self) -> dict[str, Any]:
        return {"steps": self.steps, "held_out_distance": self.scores}


MIN_SQUARED_GAP = 1e-12
"""Smallest squared gap, for rows that are all equal."""
