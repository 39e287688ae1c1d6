"""Draw from the posterior of a code given observed cells under a density f, whatever the encoder says.

    π(z) ∝ p(x_S | z)^τ f(z)

Encoders of tables are trained with a small weight of the KL terms and answer for rows that lack cells, so that their
posterior q(z | x_S) is narrower than π and partly beside it. It is a proposal:

1. Candidates are drawn from the mixture of q(z | x_S) and f(z). P of them are chosen with probabilities proportional to
   π over the density of this mixture (importance resampling with the balance heuristic: Veach & Guibas 1995,
   https://doi.org/10.1145/218380.218498).
2. Each of the P particles takes steps of a Metropolis chain, which keeps this posterior and spreads particles that are
   equal (resample-move: Gilks & Berzuini 2001, https://doi.org/10.1111/1467-9868.00280). Steps are in turn noise in
   units of the scales of q, and differences between two other particles of the row (differential evolution: ter Braak
   2006, https://doi.org/10.1007/s11222-006-8769-1).

Decoders fit their training rows closer than other rows, as if their likelihood came from more cells than it did. The
power τ below 1 corrects that (Grünwald & van Ommen 2017, https://doi.org/10.1214/17-BA1085). Calibration chooses it
among `POWERS` on held-out rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.likelihoods import observed_log_prob
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage2_latent.density import Density

POWERS = (0.25, 0.5, 1.0)
"""Powers τ of the likelihood of observed cells of tables."""
OF_VECTORS = (1 / 64, 1 / 16, 1 / 4, 1.0)
"""The same beside vectors, whose many cells tell less than as many independent ones."""
VALUES = 1024
"""Values of all vectors of a row, at most: every step decodes them for all particles."""
CELLS = 2**22
"""Cells whose likelihood is computed at once, of rows and particles."""
TRUST = 0.5
"""The power without held-out rows to choose it."""
ENCODED, DENSE = 32, 512
"""Candidates per row from the encoder's posterior, and from the density, which all rows share."""
PARTICLES = 8
"""Fewest particles of a row: a step needs two others."""
STEPS = 32
"""Steps of each particle."""
REACH = 2.38
"""Steps that mix fastest have this length, divided by √D, in standard deviations (Roberts, Gelman & Gilks 1997)."""
WIDEST = 3.0
"""Greatest factor of the scales of the encoder; its inverse is the smallest."""
JITTER = 0.02
"""Standard deviation of the noise that is added to differences, in units of the scales of the encoder."""


def has_exact_posterior(model: Autoencoder, density: Density) -> bool:
    """Return whether `posterior_draw` suits a model and a density.

    The modalities are tables, whose few cells leave several codes plausible, and vectors of bounded size beside them;
    the likelihood of an image would single out one candidate. The decoders read the code itself, not lower levels that
    are drawn given the code. The density has an exact score that can be computed for every step.
    """
    narrow = sum(m.shape[0] for m in model.modalities if not m.columns) <= VALUES
    suits = has_tables(model.modalities) and narrow and decodes_codes(model)
    return suits and density.exact_log_prob and density.proposals > STEPS


def has_tables(modalities: Sequence[Modality]) -> bool:
    """Return whether modalities are tables, alone or beside vectors."""
    return all(m.tabular for m in modalities) and any(m.columns for m in modalities)


def powers(modalities: Sequence[Modality]) -> tuple[float, ...]:
    """Return the powers of the likelihood among which held-out rows choose."""
    return POWERS if all(m.columns for m in modalities) else OF_VECTORS


def decodes_codes(model: Autoencoder) -> bool:
    """Return whether the decoders of a model read the code itself, not lower levels that are drawn given the code."""
    return model.tractable and type(model).descend is Autoencoder.descend


def posterior_draw(
    model: Autoencoder,
    density: Density,
    batch: Batch,
    generator: torch.Generator,
    draws: int,
    labels: Tensor | None = None,
    power: float = TRUST,
) -> Tensor:
    """Draw codes (draws, B, D) of B rows from their posterior of power τ, given labels (B,) where they are not −1."""
    target, q = Target(model, density, batch, labels, power), model.proposal(batch)
    encoded = q.rsample((ENCODED,), generator).transpose(0, 1)  # (B, K, D)
    dense = density.sample(DENSE, generator).loc[None, :, 0].to(encoded)  # (1, L, D), the same for all rows

    def both(function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a function of all candidates, (B, K + L, …)."""
        parts = function(encoded), function(dense)
        return torch.cat([part.expand(len(encoded), *part.shape[1:]) for part in parts], 1)

    marginal = both(lambda z: target.prior(z, None))
    z, scores = both(lambda z: z), both(target)
    proposal = (math.log(ENCODED) + q.log_prob(z.transpose(0, 1)).T).logaddexp(math.log(DENSE) + marginal)
    weights = (scores - proposal).double().softmax(-1)
    chosen = torch.multinomial(weights, max(draws, PARTICLES), replacement=True, generator=generator)
    rows = torch.arange(len(z)).unsqueeze(1)
    moved = _moved(target, z[rows, chosen], scores[rows, chosen], encoded.std(1, keepdim=True), generator)
    return moved[:, :draws].transpose(0, 1)


@dataclass(frozen=True)
class Target:
    """log π(z) up to a constant, of codes (B, P, D) of the B rows of a batch, or of codes (1, P, D) of all of them."""

    model: Autoencoder
    density: Density
    batch: Batch
    labels: Tensor | None
    power: float

    def __call__(self, z: Tensor) -> Tensor:
        """Return the score (B, P)."""
        return self.power * self.likelihood(z) + self.prior(z, self.labels)

    def likelihood(self, z: Tensor) -> Tensor:
        """Return log p(x_S | z) of the observed cells, (B, P)."""
        total = z.new_zeros(len(self.batch.observed), z.shape[1])
        for index, modality in enumerate(self.model.modalities):
            rows, cells = self.batch.observed[:, index].nonzero()[:, 0], self.batch.cells.get(modality.name)
            for seen in rows.split(max(1, CELLS // (z.shape[1] * modality.shape[0]))):
                p = self.model.decode_one(modality, z if len(z) == 1 else z[seen])
                mask = None if cells is None else cells[seen].unsqueeze(1)
                total[seen] += observed_log_prob(p, self.batch.data[modality.name][seen].unsqueeze(1), mask)
        return total

    def prior(self, z: Tensor, labels: Tensor | None) -> Tensor:
        """Return log f(z), given the label of each row that has one: (B, P), or (1, P) if that is the same for all."""
        if labels is None:
            return self.density.log_prob(z.flatten(0, 1)).view(z.shape[:2]).to(z)
        total = z.new_empty(len(labels), z.shape[1])
        for label in labels.unique():
            rows = labels == label
            codes = z if len(z) == 1 else z[rows]
            given = None if label < 0 else label.expand(codes[..., 0].numel())
            total[rows] = self.density.log_prob(codes.flatten(0, 1), given).view(codes.shape[:2]).to(z)
        return total


def _moved(target: Target, z: Tensor, scores: Tensor, scale: Tensor, generator: torch.Generator) -> Tensor:
    """Return particles (B, P, D) with scores (B, P) after `STEPS` steps; scale (B, 1, D) is that of the encoder."""
    (B, P, D), rows = z.shape, torch.arange(len(z)).unsqueeze(1)
    for step in range(STEPS):
        noise = torch.randn(z.shape, generator=generator).to(z)
        if step % 2:
            one, other = torch.randint(P, (2, B, P), generator=generator)
            move = REACH / math.sqrt(2 * D) * (z[rows, one] - z[rows, other]) + JITTER * scale * noise
        else:
            width = WIDEST ** (2 * torch.rand(B, P, 1, generator=generator).to(z) - 1)
            move = REACH / math.sqrt(D) * width * scale * noise
        proposed = z + move
        found = target(proposed)
        accepted = torch.rand(B, P, generator=generator).log() < found - scores
        z = torch.where(accepted.unsqueeze(-1), proposed, z)
        scores = torch.where(accepted, found, scores)
    return z
