"""What a density is fitted with: rows to learn from, rows held out, randomness, and an encoder where it needs one."""

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
    """A frozen autoencoder's encoder, as densities that learn pseudo-inputs see it."""

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """The data of some rows of the codes, one tensor (n, *shape) a modality."""

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Their posteriors over the code vector, batch shape (n,), differentiable in the inputs."""


class PartialEncoder:
    """An encoder as it is seen by a density of some rows of the table, and of some coordinates of its codes.

    Args:
        encoder: the one of the whole table.
        rows: (n,) rows of that table.
        columns: coordinates of the code vector.
    """

    def __init__(self, encoder: Encoder, rows: Tensor, columns: slice = slice(None)) -> None:
        self.encoder, self.rows, self.columns = encoder, rows, columns

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """The data of some of the rows."""
        return self.encoder.inputs(self.rows[rows])

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Their posteriors over the coordinates."""
        return self.encoder(inputs).marginal(self.columns)


@dataclass(frozen=True, eq=False)
class Task:
    """One fit of a density.

    Args:
        train: rows to learn from.
        validation: rows held out, to choose by.
        generator: source of all noise.
        encoder: that of the training rows; there for densities that need one.
        record: `record(train=…, validation=…)` notes mean log p(x | class) of a pass.
    """

    train: Draws
    validation: Draws
    generator: torch.Generator
    encoder: Encoder | None
    record: Record
