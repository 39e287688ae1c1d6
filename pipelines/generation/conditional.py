"""Conditional generation through a density: p(z | x_S) where the density stands in for the autoencoder's prior."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from postprior.pipelines.artefacts.codes import observed_blocks
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import coordinates, split_blocks

DRAWS = 16  # posterior draws of a row among which the density chooses


@dataclass(frozen=True)
class Candidates:
    """K draws of q(z | x_S) for each of B rows, of which one is chosen.

    Sampling importance resampling (Rubin 1988, Using the SIR algorithm to simulate posterior distributions). The
    posterior q(z | x_S) holds the model's prior p; under a fitted density f it becomes

        f(z | x_S) ∝ q(z | x_S) f(z) / p(z),

    whose draws are approximately those among the K that are chosen in proportion to f(z) / p(z), the more exactly the
    larger K. Private codes of observed modalities belong to z; those of the others are drawn from f given z.
    """

    model: MultimodalVAE
    codes: Tensor  # (B, K, D), the whole vectors; private codes of missing modalities follow the prior
    states: Tensor | None  # (B, K, F), what the decoders read, where it is more than the codes say
    known: Tensor  # (B, blocks) bool, the blocks that a row's posterior speaks of
    uniform: Tensor  # (…, B) from 0 to 1; they choose, under any weights, a candidate of each row so many times

    @classmethod
    def draw(
        cls,
        model: MultimodalVAE,
        batch: Batch,
        generator: torch.Generator,
        draws: int = DRAWS,
        times: Sequence[int] = (),
    ) -> Self:
        """Candidates of rows with any pattern of observed modalities, to be chosen from `times`, once by default."""
        codes, states = model.candidates(batch, draws, generator)
        size = (*times, len(codes))
        uniform = torch.rand(size, generator=generator, dtype=codes.dtype, device=codes.device)
        return cls(model, codes, states, observed_blocks(model, batch.observed), uniform)

    def log_weights(self, density: Density, labels: Tensor | None = None) -> Tensor:
        """log f / p of the codes that a row's posterior speaks of, (B, K); 0 where the density has no such score.

        With labels (B,), f is the density given each row's. A density that neither integrates private codes out nor
        draws them given others scores the whole vector: its private codes of missing modalities were drawn from the
        prior, and are chosen with the rest.
        """
        found = torch.zeros_like(self.codes[..., 0])
        for rows, known in self._patterns():
            z = self.codes[rows].flatten(0, 1)  # (n·K, D)
            asked = None if labels is None else labels[rows].repeat_interleave(found.shape[1])
            if density.exact_log_prob and (bool(known.all()) or not (density.marginal or density.conditional)):
                ratio = density.log_prob(z, asked) - self.model.prior().log_prob(z)
            elif density.marginal:
                kept = coordinates(self.model.layout, known)
                given = split_blocks(self.model.layout, z, known)
                prior = self.model.prior().marginal(kept)
                ratio = density.log_marginal(given, asked) - prior.log_prob(z[:, kept])
            else:
                continue
            found[rows] = ratio.unflatten(0, (-1, found.shape[1])).to(found)
        return found

    def choose(self, log_weights: Tensor) -> Tensor:
        """The candidate of each row in whose share of the weights (B, K) its uniform numbers fall, (…, B)."""
        cumulative = log_weights.double().softmax(-1).cumsum(-1)
        level = (self.uniform * cumulative[:, -1]).reshape(-1, len(cumulative)).T.contiguous()  # (B, ·)
        index = torch.searchsorted(cumulative, level, right=True).clamp_max(log_weights.shape[-1] - 1)
        return index.T.reshape(self.uniform.shape)

    def chosen(self, index: Tensor) -> Tensor:
        """The codes of the candidates chosen (…, B): (…, B, D)."""
        return self.codes[torch.arange(len(self.codes), device=index.device), index]

    def completed(
        self, codes: Tensor, density: Density, generator: torch.Generator, labels: Tensor | None = None
    ) -> Tensor:
        """The same codes (…, B, D), private ones of missing modalities drawn from the density given the others."""
        full = codes.clone()
        for rows, known in self._patterns():
            if not bool(known.all()):
                part = codes[..., rows, :]
                asked = None if labels is None else labels[rows].expand(part.shape[:-1]).flatten()
                given = split_blocks(self.model.layout, part.flatten(0, -2), known)
                drawn = density.condition(given, generator, asked)
                full[..., rows, :] = drawn.loc[:, 0].to(full).view_as(part)
        return full

    def latents(self, index: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
        """What the decoders read of the candidates chosen (…, B), whose codes are (…, B, D): (…, B, F)."""
        if self.states is None:
            return self.model.descend(codes, generator)
        return self.states[torch.arange(len(self.states), device=index.device), index]

    def _patterns(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (B,) bool that know the same blocks, and these, (blocks,) bool."""
        for known in self.known.unique(dim=0):
            yield (self.known == known).all(-1), known


def conditional_draw(
    model: MultimodalVAE,
    density: Density,
    batch: Batch,
    generator: torch.Generator,
    draws: int = DRAWS,
    times: Sequence[int] = (),
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draws of what the decoders read given the modalities that each of B rows has, through the density.

    `draws` are candidates of a row, and `times` is the shape of those chosen, one by default. With labels (B,), the
    density is that given each row's.

    Returns:
        Latents (*times, B, F) for `model.decode_one`, and the effective share (B,) of the candidates; see `Candidates`.
    """
    candidates = Candidates.draw(model, batch, generator, draws, times)
    log_weights = candidates.log_weights(density, labels)
    index = candidates.choose(log_weights)
    codes = candidates.chosen(index)
    if density.conditional:
        codes = candidates.completed(codes, density, generator, labels)
    return candidates.latents(index, codes, generator), effective_share(log_weights)


def effective_share(log_weights: Tensor) -> Tensor:
    """Effective sample size 1 / Σ_k w_k² over K, of normalised weights (…, K), between 1/K and 1 (Kong 1992): (…)."""
    weights = log_weights.double().softmax(-1)
    return 1 / weights.square().sum(-1) / weights.shape[-1]
