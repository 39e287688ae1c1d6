"""Stage 2 fits a density to latent codes; it replaces N(0, I) as the prior of a trained autoencoder.

`DENSITIES` maps names to classes. Its names can be listed without importing torch; a class is imported when it is
looked up. To add a density, add one file and one line here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from postprior.stage2_latent.density import Density

__all__ = ["DENSITIES"]

if __name__ != "postprior.stage2_latent":
    raise ImportError(f"{__name__} cannot be imported by this name: import postprior.stage2_latent")


class _Table(Mapping[str, "type[Density]"]):
    """Mapping from name to class; a class is imported on first use."""

    def __init__(self, locations: dict[str, str]) -> None:
        self._locations = locations

    def __getitem__(self, name: str) -> type[Density]:
        module, _, attribute = self._locations[name].partition(":")
        density: type[Density] = getattr(import_module(f"{__name__}.{module}"), attribute)
        return density

    def __contains__(self, name: object) -> bool:
        return name in self._locations

    def __iter__(self) -> Iterator[str]:
        return iter(self._locations)

    def __len__(self) -> int:
        return len(self._locations)


DENSITIES: Mapping[str, type[Density]] = _Table(
    {
        "normal": "normal:Normal",
        "gaussian": "gaussian:Gaussian",
        "gmm": "gaussian_mixture:GaussianMixture",
        "flow": "flow:Flow",
        "vamp": "vamp:Vamp",
        "kde": "kde:KernelDensity",
        "flow_matching": "flow_matching:FlowMatching",
        "two_stage_vae": "two_stage_vae:TwoStageVae",
        "riemannian": "riemannian:Riemannian",
        "independent": "independent:Independent",
        "auto": "auto:Auto",
    }
)
