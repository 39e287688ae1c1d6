"""Two-stage VAE: a second, small variational autoencoder over the codes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import LOG_SCALE, Normal
from postprior.stage1_vae.randomness import normal, seed_from, seeded
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.descent import Descent, Group, descend, evaluations
from postprior.stage2_latent.options import integer, number
from postprior.stage2_latent.states import add_prefix, frozen, strip_prefix
from postprior.stage2_latent.task import Task

INITIAL_SCALE = 0.5
"""Standard deviations of the decoder and the posterior before training."""
SLOPE = math.sqrt(1 - INITIAL_SCALE**2)


class SecondStage(nn.Module):
    """Encoder q(u | x, y) and decoder p(x | u, y), both diagonal normal; u has as many dimensions as the codes x.

    The networks add to the linear model x = a u + s ε with a² + s² = 1 and to its exact posterior u | x ~ N(a x, s²).
    Untrained networks add 0, so that the bound is log N(x; 0, I) without a gap.
    """

    def __init__(self, features: int, classes: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = _network(features + classes, hidden, layers, 2 * features)
        self.decoder = _network(features + classes, hidden, layers, features)
        self.log_scale = nn.Parameter(torch.full((features,), math.log(INITIAL_SCALE)))

    def posterior(self, x: Tensor, classes: Tensor) -> Normal:
        """Return q(u | x, y) for codes (…, D) of classes (…,)."""
        shift, log_scale = self.encoder(self._labelled(x, classes)).chunk(2, dim=-1)
        return Normal(SLOPE * x + shift, INITIAL_SCALE * log_scale.clamp(*LOG_SCALE).exp())

    def likelihood(self, u: Tensor, classes: Tensor) -> Normal:
        """Return p(x | u, y) for latents (…, D) of classes (…,), with one learned scale per dimension."""
        loc = SLOPE * u + self.decoder(self._labelled(u, classes))
        return Normal(loc, self.log_scale.exp().expand_as(loc))

    def log_weights(self, x: Tensor, classes: Tensor, noise: Tensor) -> Tensor:
        """Return log p(x | u, y) p(u) / q(u | x, y), shape (K, n), at the latents u from noise (K, 1 or n, D)."""
        q = self.posterior(x, classes)
        u = q.loc + q.scale * noise
        prior = Normal(torch.zeros_like(u), torch.ones_like(u))
        p = self.likelihood(u, classes.expand(u.shape[:-1]))
        return p.log_prob(x) + prior.log_prob(u) - q.log_prob(u)

    def _labelled(self, x: Tensor, classes: Tensor) -> Tensor:
        return torch.cat([x, nn.functional.one_hot(classes, self.classes).to(x)], dim=-1)


def _network(inputs: int, hidden: int, layers: int, outputs: int) -> nn.Sequential:
    inner = [layer for i in range(layers) for layer in (nn.Linear(hidden if i else inputs, hidden), nn.SiLU())]
    final = nn.Linear(hidden, outputs)
    nn.init.zeros_(final.weight)
    nn.init.zeros_(final.bias)
    return nn.Sequential(*inner, final)


class TwoStageVae(Density):
    """p(z | y) = ∫ p(u) p(z | u, y) du with u ~ N(0, I): the second stage of Dai & Wipf (2019, arXiv 1903.05789).

    Codes fill their space, unlike the data of the first stage. A VAE with as many latent dimensions and a learned
    decoder variance can therefore match their density. It is trained on the ELBO of fresh posterior draws (AdamW,
    cosine decay); the weights with the best held-out score are kept.

    The score is the importance-weighted bound log 1/K Σ_k p(z | u_k, y) p(u_k) / q(u_k | z, y) (Burda et al. 2016,
    arXiv 1509.00519). All rows use the same K draws of noise, in pairs ±ε, so that the score is a function of z. Its
    mean over such draws is below log p(z | y).

    Args:
        hidden: width of the networks.
        layers: number of hidden layers of each network.
        draws: number of pairs of draws in the score, K/2.
        steps: number of optimisation steps.
        batch: number of draws per step, over all labels.
        learning_rate: initial learning rate of AdamW; it decays to 0 along a cosine.
        weight_decay: weight decay of AdamW.
        patience: number of evaluations on the validation codes, every 50 steps, without improvement before training
            stops.
    """

    name = "two_stage_vae"
    exact_log_prob = False
    bound = True

    stage: SecondStage
    noise: Tensor

    EVALUATION_INTERVAL = 50
    """Number of steps between two evaluations on the held-out codes."""

    def __init__(
        self,
        *,
        hidden: int = 256,
        layers: int = 2,
        draws: int = 32,
        steps: int = 700,
        batch: int = 512,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        patience: int = 8,
    ) -> None:
        super().__init__()
        self.hidden, self.layers = integer("hidden", hidden), integer("layers", layers)
        self.draws = integer("draws", draws)
        self.steps, self.batch = integer("steps", steps), integer("batch", batch)
        self.learning_rate = number("learning_rate", learning_rate)
        self.weight_decay = number("weight_decay", weight_decay)
        self.patience = integer("patience", patience)

    @property
    def checks(self) -> int:
        return evaluations(self.steps, self.EVALUATION_INTERVAL)

    def _fit(self, task: Task) -> None:
        generator, like = task.generator, task.train.codes.loc
        seed = seed_from(generator)
        self.stage = self._build(seed).to(like)
        D, K = like.shape[-1], len(self.classes)
        noise_half = normal((self.draws, 1, D), like, generator)
        self.noise = torch.cat([noise_half, -noise_half])
        train, held_out = task.train.shuffled(generator), task.validation.repeated(1, generator)
        group = Group(self.stage.parameters(), self.learning_rate, self.weight_decay, limit=5.0)
        descent = Descent(group, steps=self.steps)
        size = max(2, self.batch // K)
        classes = torch.arange(K, device=like.device).repeat_interleave(size)
        bounds: list[float] = []  # since the last evaluation

        def evaluate(step: int) -> float:
            score = self.mean_log_prob(*held_out)
            task.record(train=sum(bounds) / self.EVALUATION_INTERVAL if step else score, validation=score)
            bounds.clear()
            return score

        def take_step(step: int) -> None:
            x = train.balanced(step, size, generator).flatten(0, 1)
            noise = normal((1, *x.shape), x, generator)
            bound = self.stage.log_weights(x, classes, noise).unflatten(1, (K, size)).mean((0, 2))
            likelihood = bound @ self.classes.probabilities
            descent.step(-likelihood)
            bounds.append(float(likelihood.detach()))

        get_state = self.stage.state_dict
        best = descend(
            take_step, evaluate, get_state, steps=self.steps, every=self.EVALUATION_INTERVAL, patience=self.patience
        )
        frozen(self.stage, best)

    def _build(self, seed: int) -> SecondStage:
        """Create untrained networks from their own seed, since torch draws weights from its global generator."""
        with seeded(seed):
            return SecondStage(len(self.whitening.loc), len(self.classes), self.hidden, self.layers)

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        classes = torch.full((len(x),), index, device=x.device)
        return self.stage.log_weights(x, classes, self.noise).logsumexp(0) - math.log(len(self.noise))

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        like = self.stage.log_scale
        shape = (2, len(classes), len(like))
        noise = temperature * normal(shape, like, generator)
        chunks = zip(noise[0].split(4096), noise[1].split(4096), classes.split(4096), strict=True)
        return torch.cat([(p := self.stage.likelihood(u, of_chunk)).loc + p.scale * eps for u, eps, of_chunk in chunks])

    def _floats_per_row(self) -> int:
        widest = max(self.hidden, 2 * len(self.whitening.loc) + len(self.classes))
        return len(self.noise) * widest

    def _tensors(self) -> dict[str, Tensor]:
        return add_prefix("stage.", self.stage.state_dict()) | {"noise": self.noise}

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        return {"noise": f"{2 * self.draws} 1 D"}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.noise = tensors["noise"]
        self.stage = frozen(self._build(0).to(self.noise), strip_prefix("stage.", tensors))
