"""postprior: multimodal synthetic data from a latent prior that is fitted after the autoencoder.

The public names, imported on first use:

    from postprior import Dataset, Generator
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postprior.pipelines.artefacts.density import load_density
    from postprior.pipelines.data.dataset import Dataset
    from postprior.pipelines.detection.detector import Detector
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.generation.transformer import MultimodalEncoder
    from postprior.stage1_vae.models import MODELS
    from postprior.stage2_latent import DENSITIES

__all__ = ["DENSITIES", "MODELS", "Dataset", "Detector", "Generator", "MultimodalEncoder", "load_density"]

HOMES = {
    "DENSITIES": "stage2_latent",
    "MODELS": "stage1_vae.models",
    "Dataset": "pipelines.data.dataset",
    "Detector": "pipelines.detection.detector",
    "Generator": "pipelines.generation.generator",
    "MultimodalEncoder": "pipelines.generation.transformer",
    "load_density": "pipelines.artefacts.density",
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    """A public name, or the version: imported on first use, so that the command line need not wait for torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("postprior")
    if name in HOMES:
        return getattr(import_module(f"postprior.{HOMES[name]}"), name)
    raise AttributeError(f"module 'postprior' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
