"""Densities made of densities: how the inner ones see an encoder, and how their states are kept in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from postprior.stage1_vae.distributions import Mixture
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density, Encoder
from postprior.stage2_latent.parts import over, under

SEPARATOR = "/"


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


def gather(parts: Mapping[str, Density]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of some densities under `<name>/`, and their descriptions by name."""
    states = {name: density.state() for name, density in parts.items()}
    tensors: dict[str, Tensor] = {}
    for name, (own, _) in states.items():
        tensors |= over(name + SEPARATOR, own)
    return tensors, {name: meta for name, (_, meta) in states.items()}


def rebuild(tensors: Mapping[str, Tensor], metas: Mapping[str, Any]) -> dict[str, Density]:
    """The densities that `gather` described."""
    return {
        name: DENSITIES[meta["density"]].from_state(under(name + SEPARATOR, tensors), meta)
        for name, meta in metas.items()
    }
