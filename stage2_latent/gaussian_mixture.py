"""Mixture of Gaussians per label, with the number of components and the covariances selected on held-out codes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from postprior.stage1_vae.randomness import seed_from
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.draws import Classes, fit_filling
from postprior.stage2_latent.factor_analysers import FactorAnalysers, FactorMoments
from postprior.stage2_latent.gaussians import Components, Gaussians, Moments, Statistics
from postprior.stage2_latent.moments import identity_weight
from postprior.stage2_latent.online_em import clusters, one_thread, online_em
from postprior.stage2_latent.options import candidates_of, choice, integer, number
from postprior.stage2_latent.task import Task
from postprior.stage2_latent.tied_gaussians import TiedGaussians, TiedMoments


@dataclass(frozen=True)
class Structure:
    """A covariance structure: the class of mixtures, and a function (points (K, B, D), clusters, rank) → statistics."""

    components: type[Components]
    start: Callable[[Tensor, Tensor, int], Statistics[Any]]


COVARIANCES = {
    "full": Structure(Gaussians, lambda x, assigned, rank: Moments.of(x, assigned)),
    "tied": Structure(TiedGaussians, lambda x, assigned, rank: TiedMoments.of(x, assigned)),
    "diagonal": Structure(FactorAnalysers, lambda x, assigned, rank: FactorMoments.of(x, assigned, 0)),
    "low_rank": Structure(FactorAnalysers, FactorMoments.of),
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mixture, the shrinkage of its covariances, its classes with p(class), and its score on held-out codes."""

    score: float
    shrinkage: float
    mixture: Components
    classes: Classes


SCORE = attrgetter("score")


class GaussianMixture(Density):
    """p(z | y) = Σ_t w_yt N(z; μ_yt, Σ_yt), fitted by online EM on fresh posterior draws, batched over labels.

    The number of components per label and the structure of Σ are those of the candidate with the highest held-out
    log-likelihood. For each candidate, the best pass of the second half is kept, in which statistics are averaged.
    Over whitened codes, Σ is `full`, `tied` (one per label), `diagonal`, or `low_rank`: F Fᵀ plus a diagonal, which
    gives mixtures of factor analysers (Ghahramani & Hinton 1996). Missing blocks are drawn from the mixture of the
    previous pass (Monte Carlo EM, Wei & Tanner 1990), and so are the labels of rows without a label; the first ones
    are drawn from one Gaussian per label. Then p(y) is the mean of p(y | z) over all rows. Every evaluation on held-out
    codes chooses the shrinkage of the passes after it. EM converges to an optimum that depends on its start; the mean
    of the densities from several starts is better than most of them (Ormoneit & Tresp, NIPS 1995).

    Args:
        components: number of components per label, or a list of candidates.
        covariance: `full`, `tied`, `diagonal` or `low_rank`, or a list of candidates.
        rank: number of columns of F, fewer than D.
        passes: number of passes of EM for each candidate.
        batch: maximum number of rows per label in a pass.
        shrinkage: weight, in rows, with which each covariance is shrunk towards the mean covariance of its label, and
            that mean towards the mean over labels; or a list of candidates.
        averaged: number of mixtures of the selected candidate, each from its own k-means start, whose mean is p.

    Example:
        >>> from postprior.stage2_latent.codes import Block, Codes
        >>> g = torch.Generator().manual_seed(0)
        >>> codes = Codes.empirical((Block("z", (2,)),), torch.randn(100, 2, generator=g))
        >>> GaussianMixture(components=1).fit(codes, generator=g).sample(3, generator=g).loc.shape
        torch.Size([3, 1, 2])
    """

    name = "gmm"
    conditional = True
    marginal = True
    semi_supervised = True

    EVALUATION_INTERVAL = 5
    """Number of passes between two evaluations on the held-out codes."""

    def __init__(
        self,
        *,
        components: int | Sequence[int] = (1, 2, 4, 8, 16),
        covariance: str | Sequence[str] = ("full", "tied", "low_rank"),
        rank: int = 8,
        passes: int = 30,
        batch: int = 4096,
        shrinkage: float | Sequence[float] = (2, 20, 192),
        averaged: int = 4,
    ) -> None:
        super().__init__()
        self.sizes = [integer("components", count) for count in candidates_of("components", components)]
        self.structures = [choice("covariance", name, COVARIANCES) for name in candidates_of("covariance", covariance)]
        self.rank = integer("rank", rank)
        self.passes = integer("passes", passes, low=self.EVALUATION_INTERVAL)
        self.batch = integer("batch", batch, low=2)
        self.shrinkages = [number("shrinkage", value) for value in candidates_of("shrinkage", shrinkage)]
        self.averaged = integer("averaged", averaged)

    @property
    def checks(self) -> int:
        interval = self.EVALUATION_INTERVAL
        runs = len(self.sizes) * len(self.structures) + (self.averaged - 1) * (max(self.sizes) > 1)
        return runs * (self.passes // interval - self.passes // 2 // interval)

    @one_thread()
    def _fit(self, task: Task) -> None:
        generator = task.generator
        train = task.train.shuffled(generator)
        first_filling, first_classes, first_guess = train.filling, self.classes, None
        if len(train.unlabelled):
            first_guess = fit_filling(train.table(), torch.ones_like(train.rows, dtype=torch.bool), self.classes)
        held_out = task.validation.repeated(4, generator)

        def infer(mixtures: Gaussians) -> None:
            """Draw the labels of rows without one under a mixture per class, and update p(class)."""
            log_weights = mixtures.log_weights + self.classes.probabilities.log().unsqueeze(-1)
            probabilities = train.infer(replace(mixtures, log_weights=log_weights), generator)
            self.classes = replace(self.classes, probabilities=probabilities)

        # Clusters of whitened points see directions of any scale, also those of noise alone. Without labels, where all
        # depends on the clusters, both kinds of starts are tried.
        units: list[Callable[[Tensor], Tensor]] = [lambda x: x]
        if not self.classes.labelled and train.filling is None:
            units.append(self.whitening.inverse)

        def start(components: int, turn: int = 0) -> tuple[Tensor, Tensor]:
            """Return points and their clusters, in one of the units in turn."""
            train.filling, self.classes = first_filling, first_classes
            if first_guess is not None:
                infer(first_guess)
            seed = seed_from(generator)
            x = train.balanced(0, min(self.batch, int(train.counts.max())), generator)
            return x, clusters(units[turn % len(units)](x), components, seed)

        def scored(mixture: Components, shrinkage: float) -> Candidate:
            self.mixture = mixture
            return Candidate(self.mean_log_prob(*held_out), shrinkage, self.mixture, self.classes)

        def run_em(covariance: str, components: int, x: Tensor, assigned: Tensor, recorded: bool = True) -> Candidate:
            """Run EM from the assigned clusters and return the mixture of its best pass; all passes may be recorded."""
            train.filling, current, passes = first_filling, min(self.shrinkages), []
            start = COVARIANCES[covariance].start(x, assigned, self.rank)
            freedom = max(0, len(train) - len(train.counts) * components)  # rows, less one for each mean
            identity = identity_weight(freedom, x.shape[-1])

            def maximise(statistics: Statistics[Any], shrinkage: float) -> Components:
                return statistics.maximise(shrinkage / train.counts.to(train.codes.loc), identity)

            def draw(turn: int) -> Tensor:
                return train.balanced(turn, x.shape[1], generator)

            em = online_em(start, draw, self.passes, lambda statistics: maximise(statistics, current))
            for turn, (statistics, likelihood) in enumerate(em, start=1):
                if turn % self.EVALUATION_INTERVAL == 0:
                    mixtures = {s: maximise(statistics, s) for s in self.shrinkages}
                    candidate = max((scored(mixture, s) for s, mixture in mixtures.items()), key=SCORE)
                    current = candidate.shrinkage
                    if turn > self.passes // 2:
                        passes.append(candidate)
                        expected = float(likelihood @ self.classes.probabilities)
                        if recorded:
                            task.record(expected, candidate.score, components=components, shrinkage=current)
                if first_filling is not None or first_guess is not None:
                    mixture = maximise(statistics, current).unwhitened(self.whitening)
                    train.filling = None if first_filling is None else mixture
                    if first_guess is not None:
                        infer(mixture)
            return max(passes, key=SCORE)

        self.scores: dict[str, float] = {}
        candidates = []
        for components in self.sizes:
            for turn in range(len(units) if components > 1 else 1):
                points = start(components, turn)
                for covariance in self.structures:
                    candidates.append((run_em(covariance, components, *points, recorded=not turn), covariance, turn))
                    key = f"{covariance} {components}"
                    score = candidates[-1][0].score + float(self.whitening.log_det)
                    self.scores[key] = max(self.scores.get(key, -math.inf), score)
        best, self.covariance, turn = max(candidates, key=lambda candidate: candidate[0].score)
        self.mixture, count = best.mixture, best.mixture.means.shape[1]
        if self.averaged > 1 and count > 1:
            others = [run_em(self.covariance, count, *start(count, turn + n)).mixture for n in range(1, self.averaged)]
            self.mixture = type(best.mixture).average([best.mixture, *others])
            score = self.mean_log_prob(*held_out)
            self.scores[f"{self.covariance} {self.averaged} x {count}"] = score + float(self.whitening.log_det)
            if score <= best.score:
                self.mixture = best.mixture
        self.classes = best.classes

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        return self.mixture.select(index).log_prob(x.unsqueeze(0)).squeeze(0)

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        return self.mixture.sample(classes, generator, temperature)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self._weighted().complete(z, known, classes, generator)

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        return self._weighted().log_marginal(z, known, classes)

    def _weighted(self) -> Gaussians:
        """Return the mixtures over codes that are not whitened, with p(class) in the weights."""
        log_weights = self.mixture.log_weights + self.classes.probabilities.log().unsqueeze(-1)
        return replace(self.mixture, log_weights=log_weights).unwhitened(self.whitening)

    def _floats_per_row(self) -> int:
        return self.mixture.means[0].numel()

    def _tensors(self) -> dict[str, Tensor]:
        return self.mixture.tensors()

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        return COVARIANCES[learned["covariance"]].components.shapes

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.covariance = learned["covariance"]
        self.mixture = COVARIANCES[self.covariance].components.of(tensors)
        self.scores = dict(learned["held_out_log_likelihood"])

    def _learned(self) -> dict[str, Any]:
        return {
            "components": self.mixture.means.shape[1],
            "covariance": self.covariance,
            "held_out_log_likelihood": self.scores,
        }
