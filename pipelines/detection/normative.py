"""What a trained pair, autoencoder and density, says of rows: likelihoods, codes, and predictions from the others."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.artefacts.codes import observed_blocks
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.detection.rarity import Floats
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import coordinates, split_blocks

ROWS = 64  # rows of a block, each with a seed of its own
DRAWS = 16  # posterior draws of a row that everything is averaged over
LARGEST = 1e30
"""What likelihoods beyond the floating range are held at, so that rows far from all others can still be ranked."""
FARTHEST = 1e15  # the same for codes
FEATURED = ("table", "vector")  # kinds whose values are features with a name or a place


@dataclass(frozen=True)
class Surprisals:
    """What is known of N rows that have the same P modalities, in nats, larger where a row is stranger.

    A modality that lacks cells is scored by the mean of those that are there, times the number of all. `cells` are
    −log p of each value of the modalities `FEATURED` in the reconstruction and in the prediction, NaN in missing cells.
    """

    reconstruction: Floats  # (N, P), −log p(x_m | z), z ~ q(z | x): how badly a row's own code explains each modality
    inconsistency: Floats  # (N, P), the same, z ~ q(z | x without m): how badly the others predict it; (N, 0) without
    code: Floats  # (N, 1 + P), −log f(z) under the density, of the code of the whole row and of each modality alone
    codes: tuple[Floats, ...]  # the means of these codes, 1 + P arrays (N, D) of the blocks that modalities speak of
    cells: dict[str, Floats]  # by modality, (N, 2, J), or (N, 1, J) where there are no others

    @classmethod
    def of(cls, model: MultimodalVAE, density: Density, data: Dataset, pattern: Tensor, *seed: int) -> Self:
        """The evidence of N rows that have the modalities of a pattern (M,), as if they had no others.

        The density stands in for the model's prior; all draws follow from the counters of the seed.
        """
        blocks = []
        for number, start in enumerate(range(0, len(data), ROWS)):
            batch = data.batch(slice(start, start + ROWS))
            batch = Batch(batch.data, pattern.expand(len(batch), -1), batch.cells)
            blocks.append(_block(model, density, batch, pattern, generator_for("cpu", *seed, number)))
        return cls(
            np.concatenate([block.reconstruction for block in blocks]),
            np.concatenate([block.inconsistency for block in blocks]),
            np.concatenate([block.code for block in blocks]),
            tuple(np.concatenate(parts) for parts in zip(*(block.codes for block in blocks), strict=True)),
            {name: np.concatenate([block.cells[name] for block in blocks]) for name in blocks[0].cells},
        )


@torch.no_grad()
def _block(
    model: MultimodalVAE, density: Density, batch: Batch, pattern: Tensor, generator: torch.Generator
) -> Surprisals:
    own = torch.eye(len(pattern), dtype=torch.bool)[pattern]  # (P, M)
    there = [m for m, here in zip(model.modalities, pattern.tolist(), strict=True) if here]
    codes, states = model.candidates(batch, DRAWS, generator)  # (B, K, D)
    alone = model.posterior(batch, own).rsample((DRAWS,), generator)  # (K, B, P, D)
    z = torch.cat([codes.transpose(0, 1).unsqueeze(2), alone], 2)
    z = z.nan_to_num(FARTHEST, FARTHEST, -FARTHEST).clamp(-FARTHEST, FARTHEST)
    latents = model.descend(z[:, :, 0], generator) if states is None else states.transpose(0, 1)
    unlikely = [_unlikely(model, there, batch, latents.unsqueeze(2).expand(-1, -1, len(there), -1))]
    if len(there) > 1:
        others = (pattern & ~own).repeat(DRAWS, 1)  # every draw a subset: encoders run once
        drawn = model.infer(batch, others, generator).unflatten(1, (DRAWS, len(own)))  # (B, K, P, F)
        unlikely.append(_unlikely(model, there, batch, drawn.transpose(0, 1)))
    totals = [torch.stack([_total(part[m.name]) for m in there], 1) for part in unlikely]
    known = [observed_blocks(model, each.unsqueeze(0))[0] for each in (pattern, *own)]
    scores = [_code_log_prob(model, density, z[:, :, place], here) for place, here in enumerate(known)]
    means = [z[:, :, place].mean(0)[:, coordinates(model.layout, here)] for place, here in enumerate(known)]
    featured = [m.name for m in there if m.kind in FEATURED]
    return Surprisals(
        _array(totals[0]),
        _array(totals[1] if len(totals) > 1 else totals[0][:, :0]),
        _array(-torch.stack(scores, 1)),
        tuple(map(_array, means)),
        {name: _array(torch.stack([part[name] for part in unlikely], 1)) for name in featured},
    )


def _array(values: Tensor) -> Floats:
    return values.double().numpy()


def _unlikely(model: MultimodalVAE, modalities: list[Modality], batch: Batch, latents: Tensor) -> dict[str, Tensor]:
    """−log p of each value of P modalities, the mean over latents (K, B, P, F): name → (B, *shape), NaN if missing."""
    found = {}
    for place, m in enumerate(modalities):
        values = batch.data[m.name]
        mean = torch.zeros_like(values)
        for each in latents[:, :, place]:
            mean -= model.decode_one(m, each).elementwise_log_prob(values) / len(latents)
        mean = mean.nan_to_num(LARGEST, LARGEST, -LARGEST).clamp(-LARGEST, LARGEST)
        found[m.name] = mean.masked_fill(~batch.cells[m.name], torch.nan) if m.name in batch.cells else mean
    return found


def _total(cells: Tensor) -> Tensor:
    """The sum over values (B, *shape), of which those that are missing are taken for the mean of the others: (B,)."""
    return cells.flatten(1).double().nanmean(1) * cells[0].numel()


def _code_log_prob(model: MultimodalVAE, density: Density, z: Tensor, known: Tensor) -> Tensor:
    """log f of the known blocks of codes (K, B, D), the mean over draws: (B,).

    A density that cannot integrate the other blocks out scores the whole vector: there they follow the prior.
    """
    flat = z.flatten(0, 1)
    if bool(known.all()) or not density.marginal:
        found = density.log_prob(flat)
    else:
        found = density.log_marginal(split_blocks(model.layout, flat, known))
    mean = found.double().unflatten(0, z.shape[:2]).mean(0)
    return mean.nan_to_num(-LARGEST, LARGEST, -LARGEST).clamp(-LARGEST, LARGEST)
