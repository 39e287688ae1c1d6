"""Normalising flow with a mixture of Gaussians per label as its base distribution."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from postprior.stage1_vae.randomness import normal, seed_from, seeded
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.descent import Descent, Group, descend, evaluations
from postprior.stage2_latent.draws import Draws
from postprior.stage2_latent.gaussians import Gaussians, Moments, Statistics
from postprior.stage2_latent.moments import identity_weight
from postprior.stage2_latent.online_em import clusters, online_em
from postprior.stage2_latent.options import choice, integer, number
from postprior.stage2_latent.states import add_prefix, frozen, strip_prefix
from postprior.stage2_latent.task import Task
from postprior.stage2_latent.transport import COUPLINGS, Sizes, Transport


class Base(nn.Module):
    """Learnable `Gaussians`; the diagonals of the factors are exponentials of the parameters."""

    def __init__(self, mixture: Gaussians) -> None:
        super().__init__()
        diagonal = mixture.factors.diagonal(dim1=-2, dim2=-1).log()
        self.logits = nn.Parameter(mixture.log_weights.clone())
        self.means = nn.Parameter(mixture.means.clone())
        self.raw = nn.Parameter(mixture.factors.tril(-1) + diagonal.diag_embed())

    def forward(self) -> Gaussians:
        """Return the mixtures with the current parameters."""
        factors = self.raw.tril(-1) + self.raw.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return Gaussians(self.logits.log_softmax(-1), self.means, factors)


class Conditional(nn.Module):
    """The learnable p(x | class): a transport and a base distribution."""

    def __init__(self, transport: Transport, base: Base) -> None:
        super().__init__()
        self.transport, self.base = transport, base

    def forward(self, x: Tensor) -> Tensor:
        """Return log p(x | k), shape (K, B), of B points per class, (K, B, D)."""
        classes = torch.arange(len(x), device=x.device).repeat_interleave(x.shape[1])
        u, log_det = self.transport.to_base(x.flatten(0, 1), classes)
        return self.base().log_prob(u.unflatten(0, x.shape[:2])) + log_det.unflatten(0, x.shape[:2])

    @torch.no_grad()
    def follow(self, other: Conditional, share: float) -> None:
        """Move every parameter by a share of its distance to the parameter of the other module."""
        torch._foreach_lerp_(list(self.parameters()), list(other.parameters()), share)


class Flow(Density):
    """p(z | y) = p_base(f_y(z) | y) |det ∂f_y/∂z|: invertible layers conditioned on the label, over Gaussian mixtures.

    The base is first fitted by EM to the codes, while the layers are the identity. Then both are trained by gradient
    ascent on the log-likelihood of fresh posterior draws (AdamW, cosine decay). Noise on these draws keeps the layers
    smooth between the rows (Rothfuss et al. 2019, arXiv 1907.08982). The running average of the weights with the best
    held-out log-likelihood is kept. Samples pass through the layers in double precision, so that rounding
    does not corrupt the inverse of a spline.

    Args:
        coupling: `spline` (rational-quadratic), `affine`, or `masked` (autoregressive, with much slower sampling).
        blocks: number of pairs of a linear layer and a coupling.
        hidden: width of the networks in the couplings.
        bins: number of bins of a spline.
        bound: splines leave whitened codes beyond ±bound unchanged.
        components: total number of Gaussians in the base, divided evenly among the labels, at least one per label; 0
            gives a standard normal base.
        shrinkage: shrinkage of the base's covariances, as in `gmm`.
        steps: number of optimisation steps.
        batch: number of draws per step, over all labels.
        noise: standard deviation of the noise added to the whitened training draws.
        learning_rate: initial learning rate of AdamW; it decays to 0 along a cosine.
        base_learning_rate: the same for the parameters of the base.
        weight_decay: weight decay of AdamW, applied to the layers.
        average: decay of the running average of the weights; 0 uses the current weights.
        patience: number of evaluations on the validation codes, every 20 steps, without improvement before training
            stops.
    """

    name = "flow"

    base: Gaussians
    transport: Transport

    EVALUATION_INTERVAL = 20
    """Number of steps between two evaluations on the held-out codes."""

    def __init__(
        self,
        *,
        coupling: str = "spline",
        blocks: int = 4,
        hidden: int = 64,
        bins: int = 4,
        bound: float = 4.0,
        components: int = 16,
        shrinkage: float = 128.0,
        steps: int = 600,
        batch: int = 512,
        noise: float = 0.15,
        learning_rate: float = 9e-3,
        base_learning_rate: float = 1e-3,
        weight_decay: float = 1.0,
        average: float = 0.97,
        patience: int = 10,
    ) -> None:
        super().__init__()
        self.coupling = choice("coupling", coupling, COUPLINGS)
        self.sizes = Sizes(
            integer("blocks", blocks),
            integer("hidden", hidden),
            integer("bins", bins, low=2),
            number("bound", bound, low=1.0),
        )
        self.components = integer("components", components, low=0)
        self.shrinkage = number("shrinkage", shrinkage)
        self.steps, self.batch = integer("steps", steps), integer("batch", batch)
        self.noise = number("noise", noise)
        self.learning_rate = number("learning_rate", learning_rate)
        self.base_learning_rate = number("base_learning_rate", base_learning_rate)
        self.weight_decay = number("weight_decay", weight_decay)
        self.average = number("average", average, high=1.0)
        self.patience = integer("patience", patience)

    @property
    def checks(self) -> int:
        return evaluations(self.steps, self.EVALUATION_INTERVAL)

    def _fit(self, task: Task) -> None:
        generator = task.generator
        seed = seed_from(generator)
        self.transport = self._build(seed).to(task.train.codes.loc)
        train = task.train.shuffled(generator)
        learner = Conditional(self.transport, Base(self._fit_base(train, seed, generator)))
        learner.base.requires_grad_(self.components > 0)
        average = copy.deepcopy(learner)
        held_out = task.validation.repeated(4, generator)
        descent = Descent(
            Group(learner.transport.parameters(), self.learning_rate, self.weight_decay, limit=5.0),
            Group(learner.base.parameters(), self.base_learning_rate),
            steps=self.steps,
        )
        size = max(2, self.batch // len(self.classes))

        @lru_cache(maxsize=1)
        def batch(step: int) -> Tensor:
            return train.balanced(step, size, generator)  # (K, B, D)

        def evaluate(step: int) -> float:
            x = batch(step)
            self._set(average)
            score = self.mean_log_prob(*held_out)
            with torch.no_grad():
                task.record(train=float(average(x).mean(-1) @ self.classes.probabilities), validation=score)
            return score

        def take_step(step: int) -> None:
            x = batch(step)
            noise = self.noise * normal(x.shape, x, generator)
            descent.step(-(learner(x + noise).mean(-1) @ self.classes.probabilities))
            average.follow(learner, max(1 - self.average, 10 / (step + 10)))

        interval = self.EVALUATION_INTERVAL
        best = descend(take_step, evaluate, lambda: average, steps=self.steps, every=interval, patience=self.patience)
        self._set(best)

    def _set(self, learned: Conditional) -> None:
        self.transport, self.base = learned.transport.requires_grad_(False), learned.base().detach()

    def _build(self, seed: int) -> Transport:
        """Create untrained layers from their own seed, since normflows draws weights from torch's global generator."""
        features = len(self.whitening.loc)
        if features < 2:
            raise ValueError(
                "density flow: codes have 1 dimension, expected at least 2, which couplings need: fit gmm instead"
            )
        with seeded(seed):
            return Transport(features, len(self.classes), self.coupling, self.sizes)

    def _fit_base(self, train: Draws, seed: int, generator: torch.Generator) -> Gaussians:
        """Return a standard normal, or a mixture fitted by EM to draws mapped through the untrained layers."""
        if not self.components:
            K, D = len(self.classes), len(self.whitening.loc)
            means, factors = torch.zeros(K, 1, D), torch.eye(D).expand(K, 1, D, D)
            parameters = (torch.zeros(K, 1), means, factors)
            return Gaussians(*(parameter.to(self.whitening.loc) for parameter in parameters))
        size = min(1024, int(train.counts.max()))

        order = self.transport.permutation()

        def draw(turn: int) -> Tensor:
            return train.balanced(turn, size, generator)[..., order]

        strength = self.shrinkage / train.counts.to(train.codes.loc)
        components = max(1, self.components // len(self.classes))
        x = draw(0)

        def maximise(statistics: Statistics[Gaussians]) -> Gaussians:
            return statistics.maximise(strength, identity_weight(len(train), x.shape[-1]))

        *_, (statistics, _) = online_em(Moments.of(x, clusters(x, components, seed)), draw, 40, maximise)
        return maximise(statistics)

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        u, log_det = self.transport.to_base(x, torch.full((len(x),), index, device=x.device))
        return self.base.select(index).log_prob(u.unsqueeze(0)).squeeze(0) + log_det

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        u = self.base.sample(classes, generator, temperature)
        transport = copy.deepcopy(self.transport).double()
        with torch.no_grad():
            chunks = [
                transport.to_codes(chunk.double(), chunk_classes)[0]
                for chunk, chunk_classes in zip(u.split(4096), classes.split(4096), strict=True)
            ]
        return torch.cat(chunks).to(u.dtype)

    def _floats_per_row(self) -> int:
        spline = len(self.whitening.loc) * 4 * self.sizes.bins
        return max(spline, self.base.means[0].numel(), 4 * self.sizes.hidden)

    def _tensors(self) -> dict[str, Tensor]:
        return add_prefix("layers.", self.transport.state_dict()) | add_prefix("base.", self.base.tensors())

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        return add_prefix("base.", Gaussians.shapes)

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.base = Gaussians.of(strip_prefix("base.", tensors))
        self.transport = frozen(self._build(0).to(self.base.means), strip_prefix("layers.", tensors))
