"""Densities made of densities: how their states are kept in one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.states import add_prefix, strip_prefix

SEPARATOR = "/"


def gather(parts: Mapping[str, Density]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of some densities under `<name>/`, and their descriptions by name."""
    states = {name: density.state() for name, density in parts.items()}
    tensors: dict[str, Tensor] = {}
    for name, (own, _) in states.items():
        tensors |= add_prefix(name + SEPARATOR, own)
    return tensors, {name: meta for name, (_, meta) in states.items()}


def rebuild(tensors: Mapping[str, Tensor], metas: Mapping[str, Any]) -> dict[str, Density]:
    """The densities that `gather` described."""
    return {
        name: DENSITIES[meta["density"]].from_state(strip_prefix(name + SEPARATOR, tensors), meta)
        for name, meta in metas.items()
    }
