"""Top-down networks of hierarchical models, with levels of dense latents or feature maps.

The latents of a level have P positions with C channels each. They are stored as one flat vector of size P·C, channels
last. A map of H × W has P = H·W positions, and a dense level has one. The code z_L at the top is always dense.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from postprior.stage1_vae.distributions import Normal
from postprior.stage1_vae.likelihoods import raw_shape
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks import build_networks, decoder, encoder
from postprior.stage1_vae.networks.convolutional import pyramid
from postprior.stage1_vae.networks.dense import DEPTH
from postprior.stage1_vae.networks.inputs import input_layer
from postprior.stage1_vae.networks.transposed import TransposedConvolution

INITIAL_PRIOR_LOG_SCALE, INITIAL_FACTOR_LOG_SCALE = -3.0, 2.0
"""Log-scales below the top level before training: narrow priors and wide factors, so that at first only the code
carries information.

Without them, the lower levels carry the information that the code should carry: on the digits, the divergence of the
code fell to 0.0 nats in the first epochs and stayed there. With them it was 30 nats after 1,250 steps of 32 rows, and
94 % of the posterior codes were decoded into the correct digit.
"""
FINEST = ("half", "full")
"""Grids of z_1, relative to the height and width of the images."""
INITIAL_LOG_SCALES = {"half": (INITIAL_PRIOR_LOG_SCALE, INITIAL_FACTOR_LOG_SCALE), "full": (-2.0, -2.0)}
"""Initial log-scales of priors and factors below the top level. Maps of full size carry detail from the first step."""


class Step(nn.Module):
    """One step down: p(z_l | z_>l), the factors of the modalities in the posterior of z_l, and the new state.

    The state summarises all latents above for the lower levels and the decoders. At the top it is z_L. At every lower
    level it is the sum of features of the state above and a linear map of z_l, so that information from a higher level
    does not have to pass through the latents of this level. A factor is computed from the context, a linear map of the
    features, and the lateral features of the modality, by the same network for all modalities.

    Args:
        trunk: network (N, size of the state above) → (N, P, hidden).
        positions: number P of positions of z_l.
        hidden: number of channels of features, context and lateral features at each position.
        channels: number C of channels of z_l.
        log_scales: log-scales of prior and factors before training.
    """

    def __init__(
        self,
        trunk: nn.Module,
        positions: int,
        hidden: int,
        channels: int,
        log_scales: tuple[float, float] = INITIAL_LOG_SCALES["half"],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.to_prior = nn.Linear(hidden, 2 * channels)
        self.context = nn.Linear(hidden, hidden)
        self.to_factor = nn.Linear(hidden, 2 * channels)
        self.to_state = nn.Linear(channels, hidden)
        for head, start in zip((self.to_prior, self.to_factor), log_scales, strict=True):
            nn.init.constant_(head.bias[channels:], start)
        self.positions, self.hidden, self.size = positions, hidden, positions * channels

    def forward(self, above: Tensor) -> tuple[Normal, Tensor]:
        """Return p(z_l | z_>l), batch shape (N,), event (P·C,), and features (N, P, hidden), given the state above."""
        features = self.trunk(above)
        return flat(self.to_prior(features)), features

    def factor(self, context: Tensor, lateral: Tensor) -> Normal:
        """Return the factors, one for each pair of context and lateral features, both (N, P, hidden)."""
        return flat(self.to_factor(relu(context + lateral)))

    def state(self, features: Tensor, z: Tensor) -> Tensor:
        """Return the state (N, P·hidden) below this level, given z_l (N, P·C)."""
        return (features + self.to_state(z.unflatten(-1, (self.positions, -1)))).flatten(1)


def flat(raw: Tensor) -> Normal:
    """Return the normal distribution with event (P·C,) given by a network's output (…, P, 2·C)."""
    q = Normal.from_raw(raw)
    return Normal(q.loc.flatten(-2), q.scale.flatten(-2))


class Hierarchy(NamedTuple):
    """The networks of L levels.

    `encoders` map (B, *shape) to (B, 2·D + all lateral features, from the top down). `steps` are the L − 1 steps from
    the top down. `decoders` map (B, size of the last state) to (B, *shape).
    """

    encoders: nn.ModuleDict
    steps: list[Step]
    decoders: nn.ModuleDict


def build_hierarchy(
    modalities: Sequence[Modality],
    latent: int,
    width: int,
    levels: int,
    channels: int,
    finest: str,
    networks: Mapping[str, str],
) -> Hierarchy:
    """Build the networks of `levels` ≥ 2 levels.

    The levels are feature maps if every modality is an image and `networks` is empty. Otherwise they are dense levels
    of D latents.

    Raises:
        ValueError: dense levels have no grid of full size.
    """
    if all(m.kind == "image" for m in modalities) and not networks:
        return feature_map_hierarchy(modalities, latent, width, levels, channels, finest)
    if finest != FINEST[0]:
        raise ValueError(
            f"finest: found {finest}, expected {FINEST[0]}, because only images with their default networks have maps"
        )
    hidden, step_count = DEPTH * width, levels - 1
    return Hierarchy(
        build_networks(encoder, modalities, 2 * latent + step_count * hidden, width, networks),
        [Step(dense_trunk(hidden if level else latent, hidden), 1, hidden, latent) for level in range(step_count)],
        build_networks(decoder, modalities, hidden, width, networks),
    )


def dense_trunk(above: int, hidden: int) -> nn.Module:
    """Build a network (N, above) → (N, 1, hidden)."""
    return nn.Sequential(
        nn.Linear(above, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Unflatten(1, (1, hidden)),
    )


def feature_map_hierarchy(
    modalities: Sequence[Modality], latent: int, width: int, levels: int, channels: int, finest: str
) -> Hierarchy:
    """Build networks whose levels below the top are maps of `channels` channels, on grids shared by all images.

    The largest grid has the largest height and the largest width of the images; it is halved repeatedly. With `finest`
    half, z_{L−1} is on the coarsest grid and every further level on the next finer grid, down to the grid of half the
    size, which all remaining levels use. With `finest` full, z_1 is on the largest grid and every level above it on the
    next coarser grid, up to the coarsest, which all remaining levels use. Images of other sizes are resized at the
    input and at the output.
    """
    grids = pyramid((1, max(m.shape[1] for m in modalities), max(m.shape[2] for m in modalities)))
    last, count = len(grids) - 1, levels - 1
    full = finest == "full"
    used = [min(last, count - 1 - step) if full else max(1, last - step) for step in range(count)]  # grid of each step
    steps: list[Step] = []
    above: int | tuple[int, ...] = latent
    for index in used:
        hidden, grid = width * 2 ** max(0, index - 1), grids[index]
        trunk = ConvolutionalTrunk(above, grid, hidden)
        steps.append(Step(trunk, math.prod(grid), hidden, channels, INITIAL_LOG_SCALES[finest]))
        above = (hidden, *grid)
    return Hierarchy(
        nn.ModuleDict({m.name: pyramid_encoder(m, grids, used, latent, width) for m in modalities}),
        steps,
        nn.ModuleDict({m.name: map_decoder(m, grids[: used[-1] + 1], width) for m in modalities}),
    )


def map_decoder(modality: Modality, grids: Sequence[tuple[int, ...]], width: int) -> nn.Module:
    """Build the decoder of a state on the last of the grids, the first of which is that of the images."""
    shape = raw_shape(modality)
    return PyramidDecoder(shape, grids, width) if len(grids) > 1 else PixelDecoder(shape, grids[0], width)


def pyramid_encoder(
    modality: Modality, grids: Sequence[tuple[int, ...]], used: Sequence[int], latent: int, width: int
) -> nn.Module:
    """Build a `PyramidEncoder` after the input layer of its modality."""
    prepared = input_layer(modality)
    body = PyramidEncoder(prepared.shape, grids, used, latent, width)
    return body if prepared.trivial else nn.Sequential(prepared, body)


def as_map(values: Tensor, shape: tuple[int, ...]) -> Tensor:
    """View (N, H·W·C), channels last, as (N, C, H, W) in the memory format `channels_last`, without a copy."""
    channels, height, width = shape
    return values.unflatten(1, (height, width, channels)).permute(0, 3, 1, 2)


def as_positions(values: Tensor) -> Tensor:
    """Reshape (N, C, H, W) to (N, H·W, C)."""
    return values.permute(0, 2, 3, 1).flatten(1, 2)


class ConvolutionalTrunk(nn.Module):
    """State above → (N, H·W, hidden). The state is a dense code, a map on the same grid, or a map of half the size.

    Args:
        above: size of a dense state, or (channels, height, width) of a map.
        grid: height and width of z_l.
        hidden: channels of the output.
    """

    def __init__(self, above: int | tuple[int, ...], grid: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        first: nn.Module
        if isinstance(above, int):
            self.above = (hidden, *grid)
            first = nn.Identity()
            self.head: nn.Module = nn.Linear(above, hidden * grid[0] * grid[1])
        else:
            self.above, self.head = above, nn.Identity()
            channels, *coarse = above
            odd = (grid[0] % 2, grid[1] % 2)
            first = (
                nn.Conv2d(channels, hidden, 3, 1, 1)
                if tuple(coarse) == grid
                else nn.ConvTranspose2d(channels, hidden, 4, 2, 1, output_padding=odd)
            )
        layers = nn.Sequential(first, nn.ReLU(), nn.Conv2d(hidden, hidden, 3, 1, 1), nn.ReLU())
        self.convolutions = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, above: Tensor) -> Tensor:
        """Map (N, size of the state above) to (N, H·W, hidden)."""
        return as_positions(self.convolutions(as_map(self.head(above), self.above)))


class PyramidEncoder(nn.Module):
    """Images (B, C, H, W) → (B, 2·D + laterals): the raw posterior of the code, then the lateral features of each step.

    The steps are in order from the top down. The encoder has convolutions of stride 2 with doubling channels; a linear
    map at each position computes the lateral features of a step.

    Args:
        shape: shape of an image.
        grids: heights and widths, from the image to the coarsest grid.
        used: index of the grid of each step, from the top down.
        latent: dimension D of the code.
        width: number of channels of the first convolution.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        grids: Sequence[tuple[int, ...]],
        used: Sequence[int],
        latent: int,
        width: int,
    ) -> None:
        super().__init__()
        self.size, self.used = grids[0], tuple(used)
        channels = [shape[0], *(width * 2**level for level in range(len(grids) - 1))]
        self.stem: nn.Module = nn.Identity()
        if 0 in used:
            self.stem, channels[0] = Stem(shape[0], width), 2 * width
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, outputs, 4, 2, 1), nn.ReLU()) for inputs, outputs in pairwise(channels)
        ).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.head = nn.Linear(channels[-1] * grids[-1][0] * grids[-1][1], 2 * latent)
        self.laterals = nn.ModuleList(nn.Linear(channels[index], width * 2 ** max(0, index - 1)) for index in used)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 2·D + laterals)."""
        maps = [self.stem(resized(x, self.size).contiguous(memory_format=torch.channels_last))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        laterals = [lateral(as_positions(maps[index])) for lateral, index in zip(self.laterals, self.used, strict=True)]
        outputs = (self.head(as_positions(maps[-1]).flatten(1)), *laterals)
        return torch.cat([output.flatten(1) for output in outputs], 1)


class PyramidDecoder(nn.Module):
    """Last state (B, H·W·hidden) → images: a convolution on its grid, then transposed ones up to the image size."""

    def __init__(self, shape: tuple[int, ...], grids: Sequence[tuple[int, ...]], width: int) -> None:
        super().__init__()
        channels = [*(width * 2**level for level in reversed(range(len(grids) - 1))), shape[0]]
        self.size, self.map = tuple(shape[1:]), (channels[0], *grids[-1])
        layers: list[nn.Module] = [nn.Conv2d(channels[0], channels[0], 3, 1, 1)]
        for (before, after), grid in zip(pairwise(channels), reversed(grids[:-1]), strict=True):
            odd = (grid[0] % 2, grid[1] % 2)
            layers += [nn.ReLU(), TransposedConvolution(before, after, 4, 2, 1, output_padding=odd)]
        self.convolutions = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, state: Tensor) -> Tensor:
        """Map (B, H·W·hidden) to (B, C, H, W)."""
        return resized(self.convolutions(as_map(state, self.map)), self.size)


class Stem(nn.Module):
    """Images (B, C, H, W) → (B, 2·width, H, W): features of each pixel alone, and features of its neighbourhood.

    A random convolution of 3 × 3 blurs; the features of single pixels keep the detail of the image from the start.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.pixel, self.neighbourhood = nn.Conv2d(channels, width, 1), nn.Conv2d(channels, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 2·width, H, W)."""
        return relu(torch.cat([self.pixel(x), self.neighbourhood(x)], 1))


class PixelDecoder(nn.Module):
    """Last state (B, H·W·hidden) on the grid of the images → images (B, C, H, W), pixel by pixel."""

    def __init__(self, shape: tuple[int, ...], grid: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.size, self.map = tuple(shape[1:]), (width, *grid)
        layers = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.ReLU(), nn.Conv2d(2 * width, shape[0], 1))
        self.convolutions = layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, state: Tensor) -> Tensor:
        """Map (B, H·W·hidden) to (B, C, H, W)."""
        return resized(self.convolutions(as_map(state, self.map)), self.size)


def resized(images: Tensor, size: tuple[int, ...]) -> Tensor:
    """Resize images to the given height and width, if they differ."""
    return images if images.shape[2:] == size else interpolate(images, size, mode="bilinear")
