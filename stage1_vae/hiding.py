"""Hides values of training rows from the encoders, which thereby learn to read rows that lack them.

The encoders do not read a hidden cell, and the likelihood counts it: with x̃ for the rest of a row x, the objective has
q(z | x̃) in place of q(z | x) and still bounds log p(x), because an evidence bound allows any q. It rewards posteriors
that predict what was hidden (as denoising autoencoders do: Im et al. 2017, arXiv 1511.06406). Decoders would learn from
such rows to spread their values, and samples would lose dependence; to all but the encoders, a row with hidden cells
therefore counts only `WEIGHT`. A hidden modality is left out of the objective altogether, as if the row lacked it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import uniform

WEIGHT = 1 / 16
"""Weight of a row with hidden cells in the gradient of all parameters but those of the encoders."""


def weights(batch: Batch) -> Tensor | None:
    """Return the weights (B,) of the rows of a batch in the loss of a step; None if no cell is hidden."""
    return None if batch.hides is None else torch.where(batch.hides, WEIGHT, 1.0)


def unweighted(output: Tensor, batch: Batch) -> Tensor:
    """Return the output (B, ·) of an encoder; its gradient is divided by the weights of the rows.

    A row of the output affects the loss of this row alone, so that all rows count the same to the encoder.
    """
    if output.requires_grad and (weight := weights(batch)) is not None:
        output.register_hook(lambda gradient: gradient / weight.unsqueeze(-1).to(gradient))
    return output


def has_cells(modality: Modality) -> bool:
    """Return whether single cells of a modality can be hidden: it is a table or a vector of at least two values."""
    return modality.tabular and modality.shape[0] > 1


def hide(batch: Batch, modalities: Iterable[Modality], cells: float, whole: float, generator: torch.Generator) -> Batch:
    """Return a batch in which cells and modalities are hidden at random.

    Args:
        batch: B rows.
        modalities: modalities of which cells may be hidden.
        cells: share of the observed cells of each of these modalities to hide, from 0 to 1.
        whole: share of the observed modalities to hide, from 0 to 1.
        generator: source of all random numbers; it is not used if nothing is to be hidden.
    """
    if whole:
        observed = batch.observed & ~drawn(batch.observed, whole, generator)
        batch = replace(batch, observed=observed, complete=False)
    hidden = {}
    for m in modalities if cells else ():
        values, known = batch.data[m.name], batch.cells.get(m.name)
        hidden[m.name] = drawn(torch.ones_like(values, dtype=torch.bool) if known is None else known, cells, generator)
    return replace(batch, hidden=hidden) if hidden else batch


def drawn(observed: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Draw which entries (B, J) to hide. Each row keeps at least one of its observed entries.

    With probability 2 · `share`, at most 1, a row loses a share of its entries that is uniform in [0, 1], or in
    [2 · `share` − 1, 1] if `share` is above one half. Rows thus meet every degree of missingness, and `share` is the
    mean.
    """
    row, level = uniform((2, len(observed), 1), observed, generator, 1)
    keys = uniform(observed.shape, observed, generator)
    lowest = max(0.0, 2 * share - 1)
    hidden = (row < 2 * share) & (keys < lowest + (1 - lowest) * level)
    kept = keys.masked_fill(~observed, -1).argmax(-1, keepdim=True)
    return hidden.scatter(-1, kept, False)
