"""Stage 1: multimodal variational autoencoders. Tensors in, distributions out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stage1_vae.models import MODELS

__all__ = ["MODELS"]


def __getattr__(name: str) -> Any:
    """`MODELS`, imported on first use: descriptions of data must not cost the import of torch."""
    if name == "MODELS":
        from stage1_vae.models import MODELS

        return MODELS
    raise AttributeError(f"module 'stage1_vae' has no attribute {name!r}")
