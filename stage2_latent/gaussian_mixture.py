"""Mixture of full-covariance Gaussians, one mixture a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stage2_latent.density import Density, Encoder, Record
from stage2_latent.draws import Draws
from stage2_latent.gaussians import Gaussians, online_em, seed_moments
from stage2_latent.options import number, whole


class GaussianMixture(Density):
    """p(z | y) = Σ_t w_yt N(z; μ_yt, Σ_yt), fitted by online EM on fresh posterior draws, batched over labels.

    The number of components of every label is the candidate with the highest held-out log-likelihood, and of each
    candidate the best pass of the second half, when statistics are averaged, is kept.

    Args:
        components: components a label, or a list of candidates.
        passes: passes of EM for each candidate.
        batch: rows of each label in a pass, at most.
        shrinkage: rows' worth of pull of each covariance towards the mean covariance of its label.

    Example:
        >>> from stage2_latent.codes import Block, Codes
        >>> g = torch.Generator().manual_seed(0)
        >>> codes = Codes.empirical((Block("z", (2,)),), torch.randn(100, 2, generator=g))
        >>> GaussianMixture(components=1).fit(codes, generator=g).sample(3, generator=g).loc.shape
        torch.Size([3, 1, 2])
    """

    name = "gmm"
    conditional = True

    EVERY = 5
    """Passes between two looks at the validation codes."""

    def __init__(
        self,
        *,
        components: int | Sequence[int] = (1, 2, 4, 8, 16),
        passes: int = 60,
        batch: int = 1024,
        shrinkage: float = 128.0,
    ) -> None:
        super().__init__()
        candidates = components if isinstance(components, list | tuple) else [components]
        if not candidates:
            raise ValueError("option components: found an empty list, expected one number at least")
        self.candidates = [whole("components", count) for count in candidates]
        self.passes = whole("passes", passes, low=self.EVERY)
        self.batch = whole("batch", batch, low=2)
        self.shrinkage = number("shrinkage", shrinkage)

    def _fit(
        self,
        train: Draws,
        validation: Draws,
        generator: torch.Generator,
        encoder: Encoder | None,
        record: Record,
    ) -> None:
        train = train.shuffled(generator)
        size = min(self.batch, int(train.counts.max()))
        strength = self.shrinkage / train.counts.to(train.codes.loc)
        held_out = validation.repeated(4, generator)
        best, chosen, self.scores = -torch.inf, None, {}
        for components in self.candidates:
            seed = int(torch.randint(2**31, (1,), generator=generator))
            start = seed_moments(train.balanced(0, size, generator), components, seed)
            scores = []
            em = online_em(start, lambda turn: train.balanced(turn, size, generator), self.passes, strength)
            for turn, (self.mixture, likelihood) in enumerate(em, start=1):
                if turn % self.EVERY or turn <= self.passes // 2:
                    continue
                scores.append(self.mean_log_prob(*held_out))
                expected = float(likelihood @ self.classes.probabilities)
                record(train=expected, validation=scores[-1], components=components)
                if scores[-1] > best:
                    best, chosen = scores[-1], self.mixture
            self.scores[str(components)] = max(scores) + float(self.whitening.log_det)
        assert chosen is not None
        self.mixture = chosen

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        return self.mixture.select(index).log_prob(x.unsqueeze(0)).squeeze(0)

    def _sample(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        return self.mixture.sample(classes, generator)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        log_weights = self.mixture.log_weights + self.classes.probabilities.log().unsqueeze(-1)
        mixture = replace(self.mixture, log_weights=log_weights).unwhitened(self.whitening)
        return mixture.complete(z, known, classes, generator)

    def _floats_per_row(self) -> int:
        return self.mixture.means[0].numel()

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "log_weights": self.mixture.log_weights,
            "means": self.mixture.means,
            "factors": self.mixture.factors,
        }

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.mixture = Gaussians(tensors["log_weights"], tensors["means"], tensors["factors"])
        self.scores = dict(learned["held_out_log_likelihood"])

    def _learned(self) -> dict[str, Any]:
        return {
            "components": self.mixture.means.shape[1],
            "held_out_log_likelihood": self.scores,
        }
