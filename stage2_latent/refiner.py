"""The refiner: a density of images and volumes given what their decoder says about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from postprior.stage1_vae.randomness import normal, seeded, uniform
from postprior.stage2_latent.options import integer, number
from postprior.stage2_latent.unet import UNet

FREQUENCIES = 8
"""Number of frequencies of the sines and cosines of t that the networks get as inputs."""
FEATURES = 128
"""Length of the vector that modulates the networks: the time, the code, the label and the modality."""
UNLABELLED = 0.2
"""Share of the training rows whose label is hidden, so that rows without a label can be refined as well."""
IMAGES = 128
"""Images per call of a network, so that activations fit into the caches of a CPU."""
TINY = 1e-6
"""Smallest scale, of what never varies."""


@dataclass(frozen=True)
class Examples:
    """Rows of one modality: values x and means μ of the decoder, (B, *shape), and what they are given.

    Args:
        values, means: (B, *shape).
        latents: (B, F), what the decoders read.
        labels: (B,) int64, −1 for a row without a label.
        observed: (B, *shape) bool, or None if all values are observed.
    """

    values: Tensor
    means: Tensor
    latents: Tensor
    labels: Tensor
    observed: Tensor | None = None


class Refiner(nn.Module):
    """p(x_m | μ_m, h, y, m): x_m = μ_m + σ_m r, with r drawn by conditional flow matching.

    A decoder returns the mean μ_m of the values x_m of modality m given its inputs h. What the code does not hold is
    missing in this mean: it is blurred. The refiner is the density of the standardised residual r = (x_m − μ_m) / σ_m.
    It is fitted after the autoencoder, as the densities of the codes are. A velocity transports noise ε at t = 0 to
    residuals at t = 1 along x_t = (1 − t) ε + t r (Lipman et al. 2023, arXiv 2210.02747), and is fitted by

        min_v E |v(x_t, t, μ_m, h, y, m) − (r − ε)|².

    Given the mean alone, an ambiguous digit could become another one in each modality; h, and the label y where it is
    known, are the same for all modalities, and tie them. Modalities of one shape share a network (`UNet`). Missing
    values are not in the loss, and have the residual 0 in its input.

    Args:
        shapes: shape (C, *space) of each modality by name, with 2 or 3 axes of space.
        latents: number F of coordinates of h.
        labels: number K of labels; 0 without labels.
        width: channels of the networks at the finest resolution.
        ode_steps: steps of the midpoint rule from noise to residuals, with two evaluations of the velocity each.
        temperature: factor in (0, 1] on the noise ε of draws.
        seed: seed of the initial parameters; the state of the global generator does not change.

    Raises:
        ValueError: an option is invalid.
    """

    scales: Tensor
    levels: Tensor
    contrasts: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        latents: int,
        labels: int,
        *,
        width: int = 32,
        ode_steps: int = 6,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.latents, self.labels = latents, labels
        self.width, self.ode_steps = integer("width", width), integer("ode_steps", ode_steps)
        self.temperature = number("temperature", temperature)
        if not 0 < self.temperature <= 1:
            raise ValueError(f"temperature: found {temperature}, expected a number above 0 and at most 1")
        self.names = list(self.shapes)
        groups = list(dict.fromkeys(self.shapes.values()))
        self.group = {name: groups.index(shape) for name, shape in self.shapes.items()}
        with seeded(seed):
            self.networks = nn.ModuleList(
                UNet(shape[1:], 2 * shape[0], shape[0], FEATURES, self.width) for shape in groups
            )
            self.time = nn.Linear(2 * FREQUENCIES, FEATURES)
            self.code = nn.Linear(latents, FEATURES)
            self.label, self.modality = nn.Embedding(labels + 1, FEATURES), nn.Embedding(len(shapes), FEATURES)
            self.mix = nn.Sequential(nn.SiLU(), nn.Linear(FEATURES, FEATURES), nn.SiLU())
        for name, fill in (("scales", 1.0), ("levels", 0.0), ("contrasts", 1.0)):
            self.register_buffer(name, torch.full((len(shapes),), fill))
        self.register_buffer("centre", torch.zeros(latents))
        self.register_buffer("spread", torch.ones(latents))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parameters by name, and the JSON-serialisable description that `from_state` needs."""
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        sizes = {"shapes": shapes, "latents": self.latents, "labels": self.labels}
        return tensors, sizes | {name: getattr(self, name) for name in ("width", "ode_steps", "temperature")}

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> Self:
        """Return the refiner with a state from `state`."""
        refiner = cls(**description)
        refiner.load_state_dict(dict(tensors))
        return refiner.eval().requires_grad_(False)

    @torch.no_grad()
    def standardise(self, examples: Mapping[str, Examples]) -> None:
        """Set the scales σ_m, and the mean and spread of μ_m and of h, to those of these rows, by modality."""
        for index, name in enumerate(self.names):
            if (rows := examples.get(name)) is not None and rows.values.numel():
                square = (rows.values - rows.means).square()
                mean = square.mean() if rows.observed is None else square[rows.observed].mean()
                self.scales[index] = mean.sqrt().clamp_min(TINY)
                self.levels[index] = rows.means.mean()
                self.contrasts[index] = rows.means.std(correction=0).clamp_min(TINY)
        if examples:
            h = torch.cat([rows.latents for rows in examples.values()])
            self.centre.copy_(h.mean(0))
            self.spread.copy_(h.std(0, correction=0).clamp_min(TINY))

    def loss(self, examples: Mapping[str, Examples], generator: torch.Generator) -> dict[str, Tensor]:
        """Return the mean square of v − (r − ε) over the observed values of each row (B,), by modality.

        Times are stratified over the rows of a modality, and some labels are hidden (`UNLABELLED`).
        """
        losses: dict[str, Tensor] = {}
        for number_of_group, network in enumerate(self.networks):
            names = [name for name in examples if self.group[name] == number_of_group]
            if not names:
                continue
            targets, inputs, vectors, masks = [], [], [], []
            for name in names:
                rows = examples[name]
                mask = torch.ones_like(rows.values, dtype=torch.bool) if rows.observed is None else rows.observed
                residual = ((rows.values - rows.means) / self.scales[self.names.index(name)]).where(mask, 0.0)
                noise = normal(residual.shape, residual, generator)
                count = len(residual)
                t = (uniform((1,), residual, generator) + torch.arange(count, device=residual.device) / count) % 1
                hidden = uniform((count,), residual, generator) < UNLABELLED
                weight = t.view(-1, *[1] * (residual.dim() - 1))
                inputs.append(torch.cat([(1 - weight) * noise + weight * residual, self._seen(name, rows.means)], 1))
                targets.append(residual - noise)
                vectors.append(self._vector(name, t, rows.latents, rows.labels.masked_fill(hidden, -1)))
                masks.append(mask)
            v = network(torch.cat(inputs), torch.cat(vectors))
            error = (v - torch.cat(targets)).square()
            sizes = [len(mask) for mask in masks]
            for name, square, mask in zip(names, error.split(sizes), masks, strict=True):
                square, mask = square.flatten(1), mask.flatten(1)
                losses[name] = square.where(mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)
        return losses

    @torch.no_grad()
    def sample(
        self, name: str, means: Tensor, latents: Tensor, labels: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Draw values (…, *shape) of a modality given the means (…, *shape) of its decoder.

        Args:
            name: the modality.
            means: means of the decoder.
            latents: (…, F), what the decoders read.
            labels: (…) int64, −1 for a row without a label; None if no row has one.
            generator: source of the noise, which is drawn for all rows at once.
        """
        batch = latents.shape[:-1]
        flat, h = means.reshape(-1, *self.shapes[name]), latents.reshape(-1, self.latents)
        known = h.new_full((len(h),), -1, dtype=torch.int64) if labels is None else labels.reshape(-1)
        noise = self.temperature * normal(flat.shape, flat, generator)
        parts = [part.split(IMAGES) for part in (noise, flat, h, known)]
        drawn = [self._integrated(name, *part) for part in zip(*parts, strict=True)]
        return torch.cat(drawn).view(*batch, *self.shapes[name]) if drawn else means.clone()

    def _integrated(self, name: str, x: Tensor, means: Tensor, latents: Tensor, labels: Tensor) -> Tensor:
        """Carry noise x (n, *shape) to values by the midpoint rule."""
        network, seen, step = self.networks[self.group[name]], self._seen(name, means), 1 / self.ode_steps

        def velocity(at: Tensor, time: float) -> Tensor:
            vector = self._vector(name, at.new_full((len(at),), time), latents, labels)
            v: Tensor = network(torch.cat([at, seen], 1), vector)
            return v

        for number_of_step in range(self.ode_steps):
            start = number_of_step * step
            half = x + step / 2 * velocity(x, start)
            x = x + step * velocity(half, start + step / 2)
        return means + self.scales[self.names.index(name)] * x.contiguous()

    def _seen(self, name: str, means: Tensor) -> Tensor:
        """Return means (n, *shape) as the networks read them, standardised."""
        index = self.names.index(name)
        return (means - self.levels[index]) / self.contrasts[index]

    def _vector(self, name: str, t: Tensor, latents: Tensor, labels: Tensor) -> Tensor:
        """Return the vector (n, FEATURES) for times (n,), codes (n, F) and labels (n,), −1 where there is none."""
        angle = math.pi * t.unsqueeze(-1) * torch.arange(1, FREQUENCIES + 1, device=t.device)
        index = torch.tensor(self.names.index(name), device=t.device)
        vector: Tensor = self.mix(
            self.time(torch.cat([angle.cos(), angle.sin()], -1))
            + self.code((latents - self.centre) / self.spread)
            + self.label(labels.where((labels >= 0) & (labels < self.labels), self.labels))
            + self.modality(index)
        )
        return vector
