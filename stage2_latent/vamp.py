"""Post-hoc VampPrior: a mixture of the encoder's posteriors at learned pseudo-inputs."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES, Diagonal, Normal
from postprior.stage2_latent.descent import Descent, Group, descend, evaluations
from postprior.stage2_latent.diagonal import DiagonalMixture
from postprior.stage2_latent.options import integer, number
from postprior.stage2_latent.task import Encoder, Task

FLOATS = 2**22
"""Maximum number of floats in a temporary tensor of one optimisation step."""


class Vamp(DiagonalMixture):
    """p(z | y) = Σ_k w_yk q(z | u_yk) (Tomczak & Welling 2018, arXiv 1705.07120), with a trained, frozen autoencoder.

    The pseudo-inputs u start from training rows of their label. They and the weights are trained by gradient ascent on
    the log-likelihood of fresh posterior draws, through the frozen encoder. A posterior that is itself a mixture of C
    components contributes C components. Only the weights, locations and scales of the components are kept, from the
    step with the highest held-out log-likelihood; neither the encoder nor data is stored.

    Posteriors of a trained encoder are far narrower than the gaps between a few hundred of them, so that each draw
    would only affect its nearest component. In the first steps, the scales are therefore multiplied by a temperature
    that starts at the mean gap and decreases linearly to 1 (deterministic annealing, Ueda & Nakano 1998).

    Args:
        pseudo_inputs: total number of pseudo-inputs, divided evenly among the labels.
        steps: number of optimisation steps; each step encodes every pseudo-input once.
        learning_rate: learning rate of Adam for the pseudo-inputs.
        weight_learning_rate: learning rate of Adam for the logits of the weights.
        annealing: share of the steps with a temperature above 1.
        batch: maximum number of draws per label in a step.
    """

    name = "vamp"
    needs_encoder = True

    EVALUATION_INTERVAL = 5
    """Number of steps between two evaluations on the held-out codes."""

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

    @property
    def checks(self) -> int:
        return evaluations(self.steps - 1, self.EVALUATION_INTERVAL)

    def _fit(self, task: Task) -> None:
        encoder, generator = task.encoder, task.generator
        assert encoder is not None
        train = task.train.shuffled(generator)
        count = max(1, self.pseudo_inputs // len(self.classes))
        rows = encoder.inputs(train.rows[train.places(0, count)].flatten())
        inputs = {name: value.detach().clone().requires_grad_() for name, value in rows.items()}
        logits = torch.zeros(len(self.classes), count, dtype=train.codes.loc.dtype, requires_grad=True)
        descent = Descent(Group(inputs.values(), self.learning_rate), Group([logits], self.weight_learning_rate))
        held_out = task.validation.repeated(4, generator)

        @lru_cache(maxsize=1)
        def batch(step: int) -> Tensor:
            """Encode the current pseudo-inputs and return the points of the step, (K, B, D)."""
            self._encode(encoder, inputs, logits)
            size = max(1, min(self.batch, FLOATS // self.loc.numel()))
            return train.balanced(step, size, generator)

        def evaluate(step: int) -> float:
            likelihood = self._likelihood(batch(step)).detach()
            score = self.mean_log_prob(*held_out)
            task.record(train=float(likelihood @ self.classes.probabilities), validation=score)
            return score

        def take_step(step: int) -> None:
            temperature = max(1.0, first_temperature * (1 - step / (self.annealing * self.steps + 1)))
            descent.step(-self._likelihood(batch(step), temperature).sum())

        def get_state() -> dict[str, Tensor]:
            return {name: value.detach() for name, value in self._tensors().items()}

        first_temperature = self._gap(batch(0))
        self._restore(
            descend(take_step, evaluate, get_state, steps=self.steps - 1, every=self.EVALUATION_INTERVAL),
            self._learned(),
        )

    def _encode(self, encoder: Encoder, inputs: dict[str, Tensor], logits: Tensor) -> None:
        """Set the components to the posteriors of the K·count pseudo-inputs with C components each, as (K, count·C)."""
        posterior = encoder(inputs)
        components = posterior.components
        shape = (len(self.classes), -1)
        self.family = components.name
        within = posterior.weights.clamp_min(torch.finfo(logits.dtype).tiny).log()  # (K·count, C)
        weights = logits.log_softmax(-1).reshape(-1, 1) + within
        self.log_weights = weights.reshape(shape)
        self.loc = components.loc.to(logits).reshape(*shape, components.loc.shape[-1])
        self.scale = components.scale.to(logits).expand_as(components.loc).reshape(self.loc.shape)

    def _likelihood(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        """Return the mean of log p(x | k) over points (K, B, D), with scales times the temperature; shape (K,)."""
        components = FAMILIES[self.family](self.loc, temperature * self.scale)
        joint = self.log_weights.unsqueeze(1) + pairwise_log_prob(components, x)  # (K, B, T)
        return joint.logsumexp(-1).mean(-1)

    @torch.no_grad()
    def _gap(self, x: Tensor) -> float:
        """Return the root mean square, per coordinate, of the distances of points (K, B, D) to their nearest component.

        Distances are measured in the scales of the component.
        """
        residual = (x.unsqueeze(2) - self.loc.unsqueeze(1)) / self.scale.unsqueeze(1)  # (K, B, T, D)
        return float(residual.square().mean(-1).amin(-1).mean().sqrt())


def pairwise_log_prob(components: Diagonal, x: Tensor) -> Tensor:
    """Return log p(x | component) of every pair of points (K, B, D) and components (K, T, D), shape (K, B, T).

    That of normal components is quadratic in x: one matrix product, without a tensor (K, B, T, D). Coordinates are
    relative to the mean of the components, so that the squares do not cancel.
    """
    if not isinstance(components, Normal):
        wide = type(components)(components.loc.unsqueeze(1), components.scale.unsqueeze(1))
        return wide.log_prob(x.unsqueeze(2))
    centre = components.loc.mean(1, keepdim=True).detach()
    loc, precision = components.loc - centre, components.scale.square().reciprocal()
    constant = (0.5 * loc.square() * precision + components.scale.log() + Normal.constant).sum(-1)  # (K, T)
    x = x - centre
    features = torch.cat([x.square(), x], dim=-1)
    weights = torch.cat([-0.5 * precision, loc * precision], dim=-1)
    return torch.baddbmm(-constant.unsqueeze(1), features, weights.mT)
