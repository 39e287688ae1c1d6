"""Conditional generation: draw from p(z | x_S), with a density in place of the prior of the autoencoder."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from postprior.pipelines.artefacts.codes import observed_blocks
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.modalities import Batch
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import coordinates, split_blocks

DRAWS = 16  # posterior draws per row from which the density resamples


@dataclass(frozen=True)
class PosteriorCandidates:
    """K draws from q(z | x_S) for each of B rows, to be resampled under a density.

    Sampling importance resampling (Rubin 1988, Using the SIR algorithm to simulate posterior distributions). The
    posterior q(z | x_S) holds the model's prior p; under a fitted density f it becomes

        f(z | x_S) ∝ q(z | x_S) f(z) / p(z),

    whose draws are approximated by choosing among the K candidates with probability proportional to f(z) / p(z). The
    approximation improves with K. Private codes of observed modalities are part of z; private codes of missing
    modalities are drawn from f given z.
    """

    model: Autoencoder
    codes: Tensor  # (B, K, D), full code vectors; private codes of missing modalities follow the prior
    states: Tensor | None  # (B, K, F), inputs of the decoders, if the codes do not determine them
    known: Tensor  # (B, blocks) bool, blocks of the code that the observed modalities of a row inform
    uniform: Tensor  # (…, B) uniform numbers in [0, 1) that choose the candidates, whatever the weights

    @classmethod
    def draw(
        cls,
        model: Autoencoder,
        batch: Batch,
        generator: torch.Generator,
        draws: int = DRAWS,
        times: Sequence[int] = (),
    ) -> Self:
        """Draw candidates for rows with any pattern of observed modalities.

        `times` is the shape of the draws that will be chosen per row, one by default.
        """
        codes, states = model.candidates(batch, draws, generator)
        size = (*times, len(codes))
        uniform = torch.rand(size, generator=generator, dtype=codes.dtype, device=codes.device)
        return cls(model, codes, states, observed_blocks(model, batch.observed), uniform)

    def log_weights(self, density: Density, generator: torch.Generator, labels: Tensor | None = None) -> Tensor:
        """Return log f(z) / p(z) over the known blocks of the codes, (B, K); 0 if the density has no such score.

        With labels (B,), f is the density given the label of each row that has one, and over all labels for a row
        without, whose label is −1; that f(z) may be an unbiased estimate (`Density.estimate_log_prob`), which uses the
        generator. A density that can neither marginalise over private codes nor draw them given other blocks scores the
        full vector: the private codes of missing modalities were drawn from the prior and are resampled with the rest.
        """
        log_weights = torch.zeros_like(self.codes[..., 0])
        for rows, known, given in self._patterns(labels):
            z = self.codes[rows].flatten(0, 1)  # (n·K, D)
            row_labels = None if given is None else given.repeat_interleave(log_weights.shape[1])
            if density.exact_log_prob and (bool(known.all()) or not (density.marginal or density.conditional)):
                unlabelled = row_labels is None
                score = density.estimate_log_prob(z, generator) if unlabelled else density.log_prob(z, row_labels)
                ratio = score - self.model.prior().log_prob(z)
            elif density.marginal:
                places = coordinates(self.model.layout, known)
                blocks = split_blocks(self.model.layout, z, known)
                prior = self.model.prior().marginal(places)
                ratio = density.log_marginal(blocks, row_labels) - prior.log_prob(z[:, places])
            else:
                continue
            log_weights[rows] = ratio.unflatten(0, (-1, log_weights.shape[1])).to(log_weights)
        return log_weights

    def choose(self, log_weights: Tensor) -> Tensor:
        """Choose candidates in proportion to the weights (B, K) by inverting their cumulative sum: indices (…, B)."""
        cumulative = log_weights.double().softmax(-1).cumsum(-1)
        level = (self.uniform * cumulative[:, -1]).reshape(-1, len(cumulative)).T.contiguous()  # (B, ·)
        index = torch.searchsorted(cumulative, level, right=True).clamp_max(log_weights.shape[-1] - 1)
        return index.T.reshape(self.uniform.shape)

    def chosen(self, index: Tensor) -> Tensor:
        """Return the codes of the chosen candidates (…, B): (…, B, D)."""
        return self.codes[torch.arange(len(self.codes), device=index.device), index]

    def completed(
        self, codes: Tensor, density: Density, generator: torch.Generator, labels: Tensor | None = None
    ) -> Tensor:
        """Replace private codes of missing modalities in codes (…, B, D) by draws given the known blocks."""
        full = codes.clone()
        for rows, known, given in self._patterns(labels):
            if not bool(known.all()):
                z = codes[..., rows, :]
                row_labels = None if given is None else given.expand(z.shape[:-1]).flatten()
                blocks = split_blocks(self.model.layout, z.flatten(0, -2), known)
                drawn = density.condition(blocks, generator, row_labels)
                full[..., rows, :] = drawn.loc[:, 0].to(full).view_as(z)
        return full

    def latents(self, index: Tensor, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Return the decoder inputs (…, B, F) of the chosen candidates (…, B) with codes (…, B, D)."""
        if self.states is None:
            return self.model.descend(codes, generator)
        return self.states[torch.arange(len(self.states), device=index.device), index]

    def _patterns(self, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Group rows by their known blocks, and by whether they have a label.

        Yields:
            Rows (B,) bool, their known blocks (blocks,) bool, and their labels (n,), None if they have none.
        """
        for known in self.known.unique(dim=0):
            rows = (self.known == known).all(-1)
            if labels is None:
                yield rows, known, None
                continue
            for chosen, given in ((rows & (labels < 0), None), (rows & (labels >= 0), labels)):
                if bool(chosen.any()):
                    yield chosen, known, None if given is None else given[chosen]


def conditional_draw(
    model: Autoencoder,
    density: Density,
    batch: Batch,
    generator: torch.Generator,
    draws: int = DRAWS,
    times: Sequence[int] = (),
    labels: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw decoder inputs given the observed modalities of each of B rows, under the density.

    Args:
        draws: Number of candidates per row.
        times: Shape of the draws chosen per row, one by default.
        labels: Labels (B,) that the density is conditioned on, −1 for rows without a label, or None.

    Returns:
        Latents (*times, B, F) for `model.decode_one`, and the effective share (B,) of the candidates; see
        `PosteriorCandidates`.
    """
    candidates = PosteriorCandidates.draw(model, batch, generator, draws, times)
    log_weights = candidates.log_weights(density, generator, labels)
    index = candidates.choose(log_weights)
    codes = candidates.chosen(index)
    if density.conditional:
        codes = candidates.completed(codes, density, generator, labels)
    return candidates.latents(index, codes, generator), effective_share(log_weights)


def effective_share(log_weights: Tensor) -> Tensor:
    """Effective sample size 1 / Σ_k w_k² of normalised weights (…, K), divided by K; from 1/K to 1 (Kong 1992): (…)."""
    weights = log_weights.double().softmax(-1)
    return 1 / weights.square().sum(-1) / weights.shape[-1]
