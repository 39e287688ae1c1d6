"""Flow matching: a learned velocity field that transports noise to codes, with masks over blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from postprior.stage1_vae.randomness import seed_from, seeded, uniform
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.descent import Descent, Group, descend, evaluations
from postprior.stage2_latent.draws import Draws, fit_filling
from postprior.stage2_latent.gaussians import LOG_2PI, Gaussians, inverse_factors, standard_normal
from postprior.stage2_latent.layouts import coordinates, known_blocks
from postprior.stage2_latent.moments import Whitening
from postprior.stage2_latent.options import candidates_of, choice, integer, number
from postprior.stage2_latent.states import add_prefix, frozen, strip_prefix
from postprior.stage2_latent.task import Task
from postprior.stage2_latent.velocity import NETWORKS, Field, Velocity, integrate

HALF_PI = math.pi / 2
ROWS = 1024
"""Maximum number of rows that are integrated at once, so that the data of a step fits in the cache."""
EVALUATION_DRAWS = 1024
"""Number of draws for an evaluation of the log-likelihood."""
CONVERGENCE_DRAWS = 512
"""Number of draws of each kind for the check that the score has converged."""
MAX_ODE_STEPS = 64
"""Maximum number of Runge–Kutta steps; a density that needs more has no exact score."""


class FlowMatching(Density):
    """p(z | y) = p(x₀) |det ∂x₀/∂z|, where a learned velocity transports noise x₀ at t = 0 to codes at t = 1.

    Codes are centred on the mean of their label and whitened per block, x₁ = L⁻¹(z − m_y), with L the root of the
    covariance within labels. The path between noise x₀ and codes x₁ is x_t = cos(πt/2) x₀ + sin(πt/2) x₁ (Lipman et al.
    2023, arXiv 2210.02747; the path is that of Albergo & Vanden-Eijnden 2023, arXiv 2209.15571). The network is fitted
    by least squares to the velocity of that path, on fresh posterior draws (AdamW, cosine decay):

        min_v E |v(x_t, t, y, known) − dx_t/dt|²,   log p(x₁) = log N(x₀; 0, I) − ∫₀¹ ∇ · v dt  (Chen et al. 2018,
                                                                                            arXiv 1806.07366).

    If x₁ is standard normal, this velocity is zero. The untrained network, v = 0, is therefore one Gaussian per label,
    and the network learns the difference to it. In half of the rows of a step, randomly chosen blocks are known: they
    keep their clean values, are marked as known in the network's input, and are excluded from the loss. One network
    thus gives the joint density and the conditional density given any blocks. For conditional draws without labels,
    the label is drawn from p(y | known blocks) under one Gaussian per label, in closed form.

    The divergence is exact (see `Velocity`). The weights with the best held-out log-likelihood are kept, over all
    candidates of `network` and `weight_decay`.

    The equation is solved with steps of one size, so that a row's result does not depend on the other rows. `fit`
    doubles their number until the score has converged, see `_choose_ode_steps`. If it does not converge within
    `MAX_ODE_STEPS` steps, as for codes on a line or a surface, the density has no exact score.

    Args:
        network: `plain` or `blocks`, or a list of candidates. In `plain`, every hidden unit reads all codes. In
            `blocks`, it reads one block, and blocks exchange a few messages: better for many blocks and few rows.
        hidden: width of the two hidden layers of the network.
        steps: number of optimisation steps.
        batch: number of draws per step, two for each code.
        learning_rate: initial learning rate of AdamW; it decays to 0 along a cosine.
        weight_decay: weight decay of AdamW, or a list of candidates. A few thousand rows are quickly memorised, so
            values up to 1 work better than the usual 0.01; with much larger values the network stays at 0.
        ode_steps: smallest number of Runge–Kutta steps from noise to codes, each with four evaluations of the
            velocity; `fit` doubles it as needed.
        tolerance: largest error of the score, as the mean over held-out codes in nats and as the L¹ distance between
            densities.
        clusters: maximum number of clusters, which take the place of labels if there are none: a field that starts from
            one Gaussian joins the clusters of codes.

    Attributes:
        ode_steps: number of Runge–Kutta steps of the fitted density.
        structure: the structure of the network that was chosen.
        scores: best held-out log-likelihood of each candidate, in nats.
    """

    name = "flow_matching"
    conditional = True
    proposals = 16  # each score integrates an equation
    whitens = False

    EVALUATIONS = 5
    """Number of evaluations on the held-out codes during training."""

    def __init__(
        self,
        *,
        network: str | Sequence[str] = ("plain", "blocks"),
        hidden: int = 192,
        steps: int = 1200,
        batch: int = 512,
        learning_rate: float = 5e-3,
        weight_decay: float | Sequence[float] = 1.0,
        ode_steps: int = 3,
        tolerance: float = 2e-3,
        clusters: int = 16,
    ) -> None:
        super().__init__()
        self.structures = [choice("network", name, NETWORKS) for name in candidates_of("network", network)]
        self.hidden = integer("hidden", hidden)
        self.steps, self.batch = integer("steps", steps), integer("batch", batch)
        self.learning_rate = number("learning_rate", learning_rate)
        self.weight_decays = [number("weight_decay", each) for each in candidates_of("weight_decay", weight_decay)]
        self.ode_steps = integer("ode_steps", ode_steps)
        self.tolerance = number("tolerance", tolerance)
        self.clusters = integer("clusters", clusters)

    @property
    def _interval(self) -> int:
        """Number of steps between two evaluations."""
        return max(1, self.steps // self.EVALUATIONS)

    @property
    def checks(self) -> int:
        return len(self.structures) * len(self.weight_decays) * evaluations(self.steps, self._interval)

    def _fit(self, task: Task) -> None:
        train, generator = task.train, task.generator
        table = train.table()
        self.ode_steps, self.exact_log_prob = self.options["ode_steps"], True
        self.gaussians = fit_filling(table, torch.ones_like(table.complete), self.classes)
        self.shape = self._shape()
        seed = seed_from(generator)
        train_draws, held_out = (self._evaluation_draws(draws, generator) for draws in (train, task.validation))

        def run(structure: str, weight_decay: float) -> tuple[float, Velocity]:
            """Train a network; return its best held-out score, and the network with the weights of that score."""
            self.network = self._build(structure, seed, width=max(8, self.hidden // 6)).to(table.loc)
            group = Group(self.network.parameters(), self.learning_rate, weight_decay, limit=1.0)
            descent, scores = Descent(group, steps=self.steps, betas=(0.9, 0.99)), []

            def evaluate(step: int) -> float:
                expected, score = (self.mean_log_prob(*draws) for draws in (train_draws, held_out))
                task.record(train=expected, validation=score, weight_decay=weight_decay)
                scores.append(score)
                return score

            def take_step(step: int) -> None:
                if step < self.steps:  # no step follows the last evaluation
                    descent.step(self._loss(train, generator))

            weights = descend(take_step, evaluate, self.network.state_dict, steps=self.steps, every=self._interval)
            return max(score for score in scores if score == score), frozen(self.network, weights)

        candidates = {pair: run(*pair) for pair in product(self._structures, self.weight_decays)}
        self.scores = {f"{structure} {decay:g}": score for (structure, decay), (score, _) in candidates.items()}
        (self.structure, _), (_, self.network) = max(candidates.items(), key=lambda item: item[1][0])
        z, classes = (each[:CONVERGENCE_DRAWS] for each in held_out)
        self._choose_ode_steps(z, classes, generator)

    @property
    def _structures(self) -> Sequence[str]:
        """Structures of the network to try; with one block they are the same."""
        return self.structures if len(self.layout) > 1 else self.structures[:1]

    @torch.no_grad()
    def _choose_ode_steps(self, z: Tensor, classes: Tensor, generator: torch.Generator) -> None:
        """Double the number of steps until the score has converged, or declare that it is not exact.

        Let p be the density with the current number of steps, p′ with twice as many, and g one Gaussian per label. The
        score has converged if two errors are within the tolerance: the mean of |log p − log p′| over held-out codes z
        (n, D), and ∫ |p − p′|, which is at most the sum of the means of |p − p′| / max(p′, g) over draws from p′ and
        from g.
        """
        rows = len(z)
        noise = standard_normal(rows, z, generator)
        wide = self.shape.inverse(noise) + self.gaussians.means[classes, 0]
        classes = classes.repeat(3)
        while 2 * (steps := self.ode_steps) <= MAX_ODE_STEPS:
            self.ode_steps = 2 * steps
            drawn = self._sample(classes[:rows], generator, 1.0)
            points = torch.cat([z, drawn, wide])
            fine = self._log_prob_of_classes(points, classes)
            self.ode_steps = steps
            coarse = self._log_prob_of_classes(points, classes)
            residual = self._standard(points, classes)
            top = torch.maximum(fine, _log_standard_normal(residual) + self.shape.log_det)
            change = ((coarse - top).exp() - (fine - top).exp()).abs()[rows:].sum() / rows
            if max(float((coarse - fine)[:rows].abs().mean()), float(change)) <= self.tolerance:
                return
            self.ode_steps = 2 * steps
        self.exact_log_prob = False

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        x1 = self._standard(x, torch.tensor([index], device=x.device))
        fields = [field.with_divergence for field in reversed(self._fields(index, self._no_blocks()))]
        state = integrate(fields, nn.functional.pad(x1, (0, 1)), -1 / self.ode_steps)
        x0, change = state[:, :-1], state[:, -1]  # the change is −∫₀¹ ∇ · v dt, integrated backwards
        return change + _log_standard_normal(x0) + self.shape.log_det

    def estimate_log_prob(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return log p(y) p(z | y) / q(y | z) for one label y ~ q(y | z) per code, shape (N,).

        q(y | z) is the posterior of the label under one Gaussian per label, in closed form. The expectation over y is
        p(z), and one ODE is solved instead of one per label.
        """
        z = self._check_codes(z)
        prior = self.classes.probabilities.log()
        joint = self._label_gaussians().joint(z.expand(len(prior), -1, -1)).squeeze(-1).T  # (N, K)
        labels = joint.softmax(-1)
        classes = torch.multinomial(labels, 1, generator=generator)
        weight = prior[classes] - labels.gather(1, classes).log()
        return self._log_prob_of_classes(z, classes.squeeze(1)) + weight.squeeze(1)

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        noise = standard_normal(len(classes), self.gaussians.means, generator)
        return self._carry_to_codes(temperature * noise, classes, self._no_blocks())

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        if classes is None:
            _, classes = self._label_gaussians().complete(z, known, None, generator)
        noise = standard_normal(len(z), z, generator)
        start = torch.where(known, self._standard(z, classes), noise)
        return self._carry_to_codes(start, classes, known_blocks(self.layout, known)), classes

    def _loss(self, train: Draws, generator: torch.Generator) -> Tensor:
        """Return the mean square of v − dx_t/dt over the moving coordinates of a fresh batch.

        Each code is combined with two opposite noises at the same time (antithetic variates). Their errors largely
        cancel in the gradient, and the network is modulated once for both.
        """
        device, pairs = train.rows.device, max(1, self.batch // 2)
        rows = torch.randint(len(train), (pairs,), generator=generator, device=device)
        classes = train.classes[rows]
        x1 = self._standard(train.draw(generator, rows), classes).unsqueeze(1)  # (B/2, 1, D)
        noise = standard_normal(pairs, x1, generator)
        x0 = torch.stack([noise, -noise], dim=1)  # (B/2, 2, D)
        known = self._masks(pairs, generator)
        moving = ~coordinates(self.layout, known).unsqueeze(1)
        t = (uniform((1,), x1, generator) + torch.arange(pairs, device=device) / pairs) % 1  # stratified
        cos, sin = (each[:, None, None] for each in ((HALF_PI * t).cos(), (HALF_PI * t).sin()))
        x = torch.where(moving, cos * x0 + sin * x1, x1)
        v = self.network(x, self.network.modulation(t, classes, known).unsqueeze(1), moving)
        error = (v - HALF_PI * (cos * x1 - sin * x0)) * moving
        return error.square().sum() / (2 * moving.sum())

    def _masks(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draw masks of known blocks (rows, blocks): none in half of the rows, some but not all in the others."""
        device = self.gaussians.means.device
        place = torch.rand(rows, len(self.layout), generator=generator, device=device)
        known = place < torch.rand(rows, 1, generator=generator, device=device)
        known.scatter_(1, place.argmin(1, keepdim=True), True).scatter_(1, place.argmax(1, keepdim=True), False)
        known[::2] = False
        return known

    @torch.no_grad()
    def _carry_to_codes(self, start: Tensor, classes: Tensor, known: Tensor) -> Tensor:
        """Transport points from t = 0 to codes (n, D), not whitened, while `known` blocks stay fixed."""
        z = torch.empty_like(start)
        for index in classes.unique().tolist():
            fields = [field.velocity for field in self._fields(index, known)]
            for rows in (classes == index).nonzero().squeeze(-1).split(ROWS):
                x1 = integrate(fields, start[rows], 1 / self.ode_steps)
                z[rows] = self.shape.inverse(x1) + self.gaussians.means[index, 0]
        return z

    def _fields(self, index: int, known: Tensor) -> list[Field]:
        """Return the velocity given a class and known blocks at the times of the Runge–Kutta steps, from 0 to 1."""
        times = torch.linspace(0, 1, 2 * self.ode_steps + 1).to(self.gaussians.means)
        return self.network.fields(times, index, known, ~coordinates(self.layout, known))

    def _label_gaussians(self) -> Gaussians:
        """Return one Gaussian per label, with the probabilities of the labels as weights."""
        return replace(self.gaussians, log_weights=self.classes.probabilities.log().unsqueeze(-1))

    def _standard(self, z: Tensor, classes: Tensor) -> Tensor:
        """Return x₁ = L⁻¹(z − m_y), where L is block-diagonal."""
        return self.shape.forward(z - self.gaussians.means[classes, 0])

    def _shape(self) -> Whitening:
        """Return L from the mean covariance within labels, with the covariances between blocks set to 0."""
        roots = inverse_factors(self.gaussians.factors[:, 0].double())
        covariance = torch.einsum("k,kij,klj->il", self.classes.probabilities.double(), roots, roots)
        owner = coordinates(self.layout, torch.arange(len(self.layout), device=roots.device))
        root = torch.linalg.cholesky(covariance * (owner == owner.unsqueeze(-1)))
        mean = self.gaussians.means[0, 0]
        return Whitening(torch.zeros_like(mean), root.to(mean))

    def _evaluation_draws(self, draws: Draws, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return `EVALUATION_DRAWS` draws of random rows, repeated if there are fewer rows, and their classes."""
        order = torch.randperm(len(draws), generator=generator, device=draws.rows.device)
        index = order.repeat(-(-EVALUATION_DRAWS // len(draws)))[:EVALUATION_DRAWS]
        return draws.draw(generator, index), draws.classes[index]

    def _no_blocks(self) -> Tensor:
        """Return a mask in which no block is known."""
        return torch.zeros(len(self.layout), dtype=torch.bool, device=self.gaussians.means.device)

    def _build(self, structure: str, seed: int, **sizes: int) -> Velocity:
        """Create an untrained network from its own seed, since torch draws weights from its global generator."""
        blocks = [block.size for block in self.layout]
        with seeded(seed):
            return NETWORKS[structure](blocks, len(self.classes), self.hidden, **sizes)

    def _floats_per_row(self) -> int:
        return 12 * self.hidden * 4 * self.ode_steps  # stored for the gradient

    def _rows_per_chunk(self) -> int:
        return min(ROWS, super()._rows_per_chunk()) if torch.is_grad_enabled() else ROWS

    def _tensors(self) -> dict[str, Tensor]:
        return add_prefix("network.", self.network.state_dict()) | add_prefix("gaussians.", self.gaussians.tensors())

    def _learned(self) -> dict[str, Any]:
        return {
            "ode_steps": self.ode_steps,
            "exact_log_prob": self.exact_log_prob,
            "network": self.structure,
            "held_out_log_likelihood": self.scores,
        }

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        return add_prefix("gaussians.", Gaussians.shapes)

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.ode_steps = learned.get("ode_steps", self.ode_steps)
        self.exact_log_prob = learned.get("exact_log_prob", True)
        self.gaussians = Gaussians.of(strip_prefix("gaussians.", tensors))
        self.shape = self._shape()
        weights = strip_prefix("network.", tensors)
        width, inputs = weights["modulate.0.weight"].shape  # larger in earlier versions
        frequencies = (inputs - len(self.classes) - len(self.layout)) // 2
        self.structure, self.scores = learned.get("network", "plain"), dict(learned.get("held_out_log_likelihood", {}))
        network = self._build(self.structure, 0, width=width, frequencies=frequencies)
        self.network = frozen(network.to(self.gaussians.means), weights)


def _log_standard_normal(x: Tensor) -> Tensor:
    """Return log N(x; 0, I) of points (n, D), shape (n,)."""
    return -0.5 * (x.square() + LOG_2PI).sum(-1)
