"""Encoders and decoders, registered by the kind of modality that they serve."""

from __future__ import annotations

from torch import nn

from stage1_vae.modalities import Modality
from stage1_vae.networks.convolutional import ConvolutionalDecoder, ConvolutionalEncoder
from stage1_vae.networks.dense import DenseDecoder, DenseEncoder

NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "image": (ConvolutionalEncoder, ConvolutionalDecoder),
    "vector": (DenseEncoder, DenseDecoder),
}
"""Kind of modality → (encoder, decoder), built as `Network(shape, features, width)`."""


def encoder(modality: Modality, features: int, width: int, network: str | None = None) -> nn.Module:
    """Network (B, *shape) → (B, features)."""
    return NETWORKS[modality.kind][0](modality.shape, features, width)


def decoder(modality: Modality, features: int, width: int, network: str | None = None) -> nn.Module:
    """Network (B, features) → (B, *shape), unconstrained."""
    return NETWORKS[modality.kind][1](modality.shape, features, width)
