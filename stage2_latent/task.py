"""The inputs of a fit: training rows, held-out rows, a generator of random numbers and, if needed, an encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Mixture
from postprior.stage2_latent.draws import Draws

Record = Callable[..., None]


class Encoder(Protocol):
    """The encoder of a frozen autoencoder, for densities that learn pseudo-inputs."""

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the data of the given rows of the codes, one tensor (n, *shape) per modality."""

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Return the posteriors over the code vector, batch shape (n,), differentiable with respect to the inputs."""


class PartialEncoder:
    """An encoder restricted to a subset of the rows of a table of codes and of the coordinates of the code vector.

    Args:
        encoder: encoder of the full table.
        rows: (n,) rows of that table.
        columns: coordinates of the code vector.
    """

    def __init__(self, encoder: Encoder, rows: Tensor, columns: slice = slice(None)) -> None:
        self.encoder, self.rows, self.columns = encoder, rows, columns

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the data of the given rows, which are indices into `self.rows`."""
        return self.encoder.inputs(self.rows[rows])

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Return the posteriors over the chosen coordinates."""
        return self.encoder(inputs).marginal(self.columns)


@dataclass(frozen=True, eq=False)
class Task:
    """One fit of a density.

    Args:
        train: draws of the training rows.
        validation: draws of the held-out rows, used for model selection.
        generator: source of all random numbers.
        encoder: encoder of the training rows; never None for densities that need one.
        record: `record(train=…, validation=…)` appends the mean log p(x | class) of a pass to the history.
    """

    train: Draws
    validation: Draws
    generator: torch.Generator
    encoder: Encoder | None
    record: Record
