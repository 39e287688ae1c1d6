"""Storage of the states of several densities inside the state of one density that is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.states import add_prefix, strip_prefix

SEPARATOR = "/"


def gather(densities: Mapping[str, Density]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of all densities, with the prefix `<name>/`, and their descriptions by name."""
    states = {name: density.state() for name, density in densities.items()}
    tensors: dict[str, Tensor] = {}
    for name, (part, _) in states.items():
        tensors |= add_prefix(name + SEPARATOR, part)
    return tensors, {name: meta for name, (_, meta) in states.items()}


def rebuild(tensors: Mapping[str, Tensor], metas: Mapping[str, Any]) -> dict[str, Density]:
    """Return the densities by name from the results of `gather`."""
    return {
        name: DENSITIES[meta["density"]].from_state(strip_prefix(name + SEPARATOR, tensors), meta)
        for name, meta in metas.items()
    }
