"""Stage 1: multimodal variational autoencoders. Tensors in, distributions out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from postprior.stage1_vae.models import MODELS

__all__ = ["MODELS"]

if __name__ != "postprior.stage1_vae":
    raise ImportError(f"{__name__} has one name: import postprior.stage1_vae")


def __getattr__(name: str) -> Any:
    """`MODELS`, imported on first use: descriptions of data must not cost the import of torch."""
    if name == "MODELS":
        from postprior.stage1_vae.models import MODELS

        return MODELS
    raise AttributeError(f"module 'postprior.stage1_vae' has no attribute {name!r}")
