"""VampPrior after the fact: a mixture of the encoder's posteriors at learned pseudo-inputs."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES
from postprior.stage2_latent.descent import descend
from postprior.stage2_latent.diagonal import DiagonalMixture
from postprior.stage2_latent.options import integer, number
from postprior.stage2_latent.task import Encoder, Task

FLOATS = 2**22
"""Numbers that a temporary of one optimisation step may hold."""


class Vamp(DiagonalMixture):
    """p(z | y) = Σ_k w_yk q(z | u_yk) (Tomczak & Welling 2018, arXiv 1705.07120), the autoencoder already trained.

    The pseudo-inputs u start from training rows of their label and follow, with the weights, the gradient of the
    log-likelihood of fresh posterior draws through the frozen encoder. A posterior that is itself a mixture of C
    components gives C components. Only weights, locations and scales of the components are kept, at the step with
    the highest held-out log-likelihood: no encoder, no data.

    Posteriors of a trained encoder are far narrower than the gaps between a few hundred of them, so that each draw
    would pull at its nearest component alone. The first steps see the components wider, by a temperature that starts
    at the mean gap and falls linearly to 1 (deterministic annealing, Ueda & Nakano 1998).

    Args:
        pseudo_inputs: their number over all labels, dealt evenly.
        steps: optimisation steps, each of which encodes every pseudo-input once.
        learning_rate: of Adam for the pseudo-inputs.
        weight_learning_rate: the same for the logits of the weights.
        annealing: share of the steps at a temperature above 1.
        batch: draws of each label in a step, at most.
    """

    name = "vamp"
    needs_encoder = True

    EVALUATION_INTERVAL = 5
    """Steps between two looks at the validation codes."""

    def __init__(
        self,
        *,
        pseudo_inputs: int = 500,
        steps: int = 80,
        learning_rate: float = 0.1,
        weight_learning_rate: float = 0.05,
        annealing: float = 0.6,
        batch: int = 512,
    ) -> None:
        super().__init__()
        self.pseudo_inputs = integer("pseudo_inputs", pseudo_inputs)
        self.steps = integer("steps", steps, low=self.EVALUATION_INTERVAL)
        self.learning_rate = number("learning_rate", learning_rate)
        self.weight_learning_rate = number("weight_learning_rate", weight_learning_rate)
        self.annealing = number("annealing", annealing, high=1.0)
        self.batch = integer("batch", batch)

    def _fit(self, task: Task) -> None:
        encoder, generator = task.encoder, task.generator
        assert encoder is not None
        train = task.train.shuffled(generator)
        count = max(1, self.pseudo_inputs // len(self.classes))
        started = encoder.inputs(train.rows[train.places(0, count)].flatten())
        inputs = {name: value.detach().clone().requires_grad_() for name, value in started.items()}
        logits = torch.zeros(len(self.classes), count, dtype=train.codes.loc.dtype, requires_grad=True)
        groups = [
            {"params": list(inputs.values()), "lr": self.learning_rate},
            {"params": [logits], "lr": self.weight_learning_rate},
        ]
        optimiser = torch.optim.Adam(groups)
        held_out = task.validation.repeated(4, generator)

        @lru_cache(maxsize=1)
        def batch(step: int) -> Tensor:
            """Points of the step, (K, B, D), the pseudo-inputs being encoded as they are then."""
            self._encode(encoder, inputs, logits)
            size = max(1, min(self.batch, FLOATS // self.loc.numel()))
            return train.balanced(step, size, generator)

        def look(step: int) -> float:
            likelihood = self._likelihood(batch(step)).detach()
            score = self.mean_log_prob(*held_out)
            task.record(train=float(likelihood @ self.classes.probabilities), validation=score)
            return score

        def take(step: int) -> None:
            temperature = max(1.0, start * (1 - step / (self.annealing * self.steps + 1)))
            likelihood = self._likelihood(batch(step), temperature).sum()
            optimiser.zero_grad()
            (-likelihood).backward()
            optimiser.step()

        def keep() -> dict[str, Tensor]:
            return {name: value.detach() for name, value in self._tensors().items()}

        start = self._gap(batch(0))
        self._restore(descend(take, look, keep, steps=self.steps - 1, every=self.EVALUATION_INTERVAL), self._learned())

    def _encode(self, encoder: Encoder, inputs: dict[str, Tensor], logits: Tensor) -> None:
        """Takes the posteriors of the pseudo-inputs, K·count of them with C components each, as (K, count·C)."""
        posterior = encoder(inputs)
        parts = posterior.components
        shape = (len(self.classes), -1)
        self.family = parts.name
        within = posterior.weights.clamp_min(torch.finfo(logits.dtype).tiny).log()  # (K·count, C)
        weights = logits.log_softmax(-1).reshape(-1, 1) + within
        self.log_weights = weights.reshape(shape)
        self.loc = parts.loc.to(logits).reshape(*shape, parts.loc.shape[-1])
        self.scale = parts.scale.to(logits).expand_as(parts.loc).reshape(self.loc.shape)

    def _likelihood(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean of log p(x | k) over points (K, B, D), scales being `temperature` times as wide: (K,)."""
        family = FAMILIES[self.family](self.loc.unsqueeze(1), temperature * self.scale.unsqueeze(1))
        joint = self.log_weights.unsqueeze(1) + family.log_prob(x.unsqueeze(2))  # (K, B, T)
        return joint.logsumexp(-1).mean(-1)

    @torch.no_grad()
    def _gap(self, x: Tensor) -> float:
        """Distance of points (K, B, D) to the nearest component, in its scales: root mean square of a coordinate."""
        residual = (x.unsqueeze(2) - self.loc.unsqueeze(1)) / self.scale.unsqueeze(1)  # (K, B, T, D)
        return float(residual.square().mean(-1).amin(-1).mean().sqrt())
