"""Encoders and decoders, registered by name, and the user's own.

Every one is called as `Network(shape, features, width)`. An encoder takes (B, *shape), what `reader` makes of the
values (classes one-hot, counts as logarithms), to (B, features). A decoder takes (B, features) to (B, *shape), the raw
numbers that the likelihood reads, unconstrained.

A network is named in one of two ways: by a name of `NETWORKS`, or by the import paths of an encoder and a decoder, both
subclasses of torch.nn.Module: `package.module:Encoder,package.module:Decoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from postprior.stage1_vae.imports import import_class
from postprior.stage1_vae.likelihoods import raw_shape
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.convolutional import (
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ResidualDecoder,
    ResidualEncoder,
)
from postprior.stage1_vae.networks.dense import DenseDecoder, DenseEncoder
from postprior.stage1_vae.networks.inputs import input_layer

NetworkClasses = tuple[type[nn.Module], type[nn.Module]]

NETWORKS: dict[str, NetworkClasses] = {
    "dense": (DenseEncoder, DenseDecoder),
    "convolutional": (ConvolutionalEncoder, ConvolutionalDecoder),
    "residual": (ResidualEncoder, ResidualDecoder),
}
"""Name → (encoder, decoder)."""

NETWORKS_BY_KIND: dict[str, tuple[str, ...]] = {
    "image": ("convolutional", "residual", "dense"),
    "volume": ("convolutional", "residual", "dense"),
    "vector": ("dense",),
    "sequence": ("convolutional", "residual", "dense"),
    "table": ("dense",),
}
"""Kind of modality → the networks that fit it, its default first."""
BLOCK_ROWS = 1024
"""Rows that a network is run on at once where memory is slow beside the caches."""
SHORT_AXIS = {"image": 4, "volume": 4, "sequence": 8}
"""Length of an axis below which there is little to convolve, and the default is `dense`."""


def encoder(modality: Modality, features: int, width: int, network: str | None = None) -> nn.Module:
    """Network (B, *modality.shape) → (B, features); `network` as this module says, or None for the kind's default."""
    prepared = input_layer(modality)
    body = network_classes(modality, network)[0](prepared.shape, features, width)
    return body if prepared.trivial and prepared.shape == modality.shape else nn.Sequential(prepared, body)


def decoder(modality: Modality, features: int, width: int, network: str | None = None) -> nn.Module:
    """Network (B, features) → (B, *raw_shape(modality)), unconstrained; `network` as for the encoder."""
    return network_classes(modality, network)[1](raw_shape(modality), features, width)


def build_networks(
    build: Callable[[Modality, int, int, str | None], nn.Module],
    modalities: Iterable[Modality],
    features: int | Mapping[str, int],
    width: int,
    named: Mapping[str, str],
) -> nn.ModuleDict:
    """A network of every modality by name, built by `encoder` or `decoder`; the features are one number or by name."""
    networks = {}
    for m in modalities:
        size = features if isinstance(features, int) else features[m.name]
        networks[m.name] = build(m, size, width, named.get(m.name))
    return nn.ModuleDict(networks)


def network_classes(modality: Modality, network: str | None) -> NetworkClasses:
    """The encoder and the decoder that a modality's network names.

    Raises:
        ValueError: there is none of that name, or it does not fit the kind of modality.
    """
    fitting = NETWORKS_BY_KIND[modality.kind]
    if network is None:
        short = min(modality.shape[1:] or modality.shape) < SHORT_AXIS.get(modality.kind, 0)
        return NETWORKS["dense" if short else fitting[0]]
    if ":" in network:
        paths = network.split(",")
        if len(paths) != 2:
            raise ValueError(
                f"network of modality {modality.name}: found {network!r}, "
                "expected two import paths, package.module:Encoder,package.module:Decoder"
            )
        try:
            own, other = (import_class(path.strip(), nn.Module, "torch.nn.Module") for path in paths)
        except ValueError as error:
            raise ValueError(f"network of modality {modality.name}: {error}") from None
        return own, other
    if network not in fitting:
        raise ValueError(
            f"network of modality {modality.name}: found {network!r}, expected one of {', '.join(fitting)} "
            f"for kind {modality.kind}, or import paths package.module:Encoder,package.module:Decoder"
        )
    return NETWORKS[network]


def in_blocks(network: nn.Module, rows: Tensor) -> Tensor:
    """A network's output for (N, ·) rows; on a processor at most `BLOCK_ROWS` of them at a time.

    Activations of more fall out of the caches: a step of MMVAE with ten draws, 6,400 rows a decoder of 3 × 28 × 28
    images, took 12.8 s and in blocks 10.7 s. An accelerator takes them all.
    """
    if rows.device.type != "cpu" or len(rows) <= BLOCK_ROWS:
        return network(rows)
    return torch.cat([network(block) for block in rows.split(BLOCK_ROWS)])


def scatter(values: Tensor, where: Tensor) -> Tensor:
    """Zeros of shape (*where.shape, …) that hold `values` (n, …) at the n places marked in `where`."""
    full = values.new_zeros(*where.shape, *values.shape[1:])
    return full.masked_scatter(where.reshape(*where.shape, *[1] * (values.dim() - 1)).expand_as(full), values)
