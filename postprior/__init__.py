"""postprior: synthetic multimodal data from a density fitted to the latent codes of a trained autoencoder.

Public names are imported on first use, so that the command line does not wait for torch:

    from postprior import Dataset, Generator
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postprior.pipelines.api.adapt import adapt as adapt
    from postprior.pipelines.api.generator import Generator as Generator
    from postprior.pipelines.api.synthesise import synthesise as synthesise
    from postprior.pipelines.artefacts.density import load_density as load_density
    from postprior.pipelines.data.dataset import Dataset as Dataset
    from postprior.pipelines.data.formats.contents import Roles as Roles
    from postprior.pipelines.data.importing.run import import_data as import_data
    from postprior.pipelines.data.sources import SOURCES as SOURCES
    from postprior.pipelines.detection.detector import Detector as Detector
    from postprior.pipelines.generation.transformer import MultimodalEncoder as MultimodalEncoder
    from postprior.pipelines.metrics.features.extractor import Extractor as Extractor
    from postprior.stage1_vae.adapted import Adaptable as Adaptable
    from postprior.stage1_vae.adapters.scvi_tools import InBatch as InBatch
    from postprior.stage1_vae.distributions import Block as Block
    from postprior.stage1_vae.models import MODELS as MODELS
    from postprior.stage2_latent import DENSITIES as DENSITIES

    __version__: str

HOMES = {
    "DENSITIES": "stage2_latent",
    "MODELS": "stage1_vae.models",
    "SOURCES": "pipelines.data.sources",
    "Dataset": "pipelines.data.dataset",
    "Detector": "pipelines.detection.detector",
    "Extractor": "pipelines.metrics.features.extractor",
    "Generator": "pipelines.api.generator",
    "MultimodalEncoder": "pipelines.generation.transformer",
    "Roles": "pipelines.data.formats.contents",
    "Adaptable": "stage1_vae.adapted",
    "Block": "stage1_vae.distributions",
    "InBatch": "stage1_vae.adapters.scvi_tools",
    "adapt": "pipelines.api.adapt",
    "import_data": "pipelines.data.importing.run",
    "load_density": "pipelines.artefacts.density",
    "synthesise": "pipelines.api.synthesise",
}
"""Module in which each public name is defined."""

__all__ = [*HOMES]


def __getattr__(name: str) -> Any:
    """Return a public name or `__version__`."""
    if name == "__version__":
        from importlib.metadata import version

        return version("postprior")
    if name in HOMES:
        return getattr(import_module(f"postprior.{HOMES[name]}"), name)
    raise AttributeError(f"module 'postprior' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *HOMES, "__version__"])
