"""Rows completed: what a row lacks is drawn given what it has, and what it has stays as it is to the bit."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.conditional import DRAWS, conditional_draw
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.density import Density

ROWS = 64  # rows of a block, each with a seed of its own
EACH = 4  # posterior draws of a row for each that is chosen among them; `DRAWS` at least, `Density.proposals` at most


@torch.no_grad()
def completions(
    model: MultimodalVAE,
    density: Density,
    data: Dataset,
    draws: int,
    seed: int,
    values: str,
    labels: np.ndarray | None = None,
    spread: Callable[[Modality, Tensor], Tensor] | None = None,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The rows of a dataset of the model's modalities, each completed R = `draws` times, block by block.

    The latents of a row are drawn from its posterior under the density (`conditional_draw`), and only the decoders of
    what it lacks are run.

    Args:
        values: `mean` of the decoders, or `draws` from their likelihoods.
        labels: (N,), that the density is conditioned on, or None.
        spread: changes how far the draws (R, n, *shape) of a modality lie apart, or None.

    Yields:
        The number of a block's first row, and its n rows by modality, (R, n, *shape).
    """
    lacking, whole = {m.name: data.missing(m.name) for m in model.modalities}, data.whole
    for number, start in enumerate(range(0, len(data), ROWS)):
        rows = np.arange(start, min(start + ROWS, len(data)))
        done = {name: np.repeat(np.array(array[rows])[None], draws, 0) for name, array in data.data.items()}
        wanted = np.flatnonzero(~whole[rows].all(1))
        if not len(wanted):
            yield start, done
            continue
        generator = generator_for("cpu", seed, number)
        asked = None if labels is None else torch.from_numpy(labels[rows[wanted]])
        batch, candidates = data.batch(rows[wanted]), max(DRAWS, min(density.proposals, EACH * draws))
        latents, _ = conditional_draw(model, density, batch, generator, candidates, (draws,), asked)
        for m, here in zip(model.modalities, ~whole[rows[wanted]].T, strict=True):
            if here.any():
                p = model.decode_one(m, latents[:, torch.from_numpy(here)])
                x = p.mean if values == "mean" else p.rsample((), generator)
                values_of = m.to_support(x if spread is None else spread(m, x)).numpy()  # (R, n, *shape)
                places, filled = wanted[here], done[m.name]
                filled[:, places] = np.where(lacking[m.name][rows[places]], values_of, filled[:, places])
        yield start, done


def as_filled(data: Dataset) -> dict[str, Any]:
    """Fields of a dataset whose holes have been filled: it lacks nothing, and says where it did."""
    inside = {name: np.array(data.missing(name)) for name in data.cells}
    return {"mask": None, "cells": {}, "filled": ~data.whole, "filled_cells": inside}


def tiled(data: Dataset, rows: int) -> Dataset:
    """So many rows of a dataset, over and over in their order, without names that would then be there twice."""
    return replace(data.select(np.arange(rows) % len(data)), ids=None)
