"""Patch discriminators (Isola et al. 2017, https://arxiv.org/abs/1611.07004) with least squares."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.func import functional_call

from postprior.stage1_vae.distributions import at_least_single

DEPTH, SMALLEST = 3, 8
"""Maximum number of convolutions of stride 2, and the smallest height and width of a map that one of them halves."""


class PatchDiscriminator(nn.Module):
    """Images (N, C, H, W) → one score for each of P overlapping patches, (N, P): 1 for real ones, 0 for others.

    The convolutions have stride 2 and doubling channels. Features are normalised per image, so that a score does not
    depend on the other images of a batch. An image whose height or width is below 8 has a linear discriminator.

    Args:
        shape: shape of an image.
        width: number of channels of the first convolution.
    """

    def __init__(self, shape: tuple[int, ...], width: int) -> None:
        super().__init__()
        depth, size = 0, min(shape[1:])
        while depth < DEPTH and size >= SMALLEST:
            depth, size = depth + 1, size // 2
        channels = [shape[0], *(width * 2**level for level in range(depth))]
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(pairwise(channels)):
            layers.append(nn.Conv2d(before, after, 4, 2, 1))
            layers += [nn.InstanceNorm2d(after)] if level else []
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, C, H, W) to scores (N, P)."""
        return at_least_single(self.layers(images).flatten(1))

    def terms(self, fakes: Tensor, reals: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least-squares terms of the generator and of the discriminator, both (N,).

        With the mean over patches and over the S generated images x̂ of a row (Mao et al. 2017,
        https://arxiv.org/abs/1611.04076, eq. 9):

            generator: H W (D(x̂) − 1)²,    discriminator: (D(x) − 1)² + D(x̂)²

        The first has no gradient in the parameters of D, and the second none in x̂.

        Args:
            fakes: generated images (N, S, C, H, W).
            reals: real images (N, C, H, W).
        """
        images = fakes.flatten(0, 1)
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        fooled = distance(functional_call(self, frozen, (images,)), 1.0)
        found = distance(self(images.detach()), 0.0)
        generator, fake = (values.unflatten(0, fakes.shape[:2]).mean(1) for values in (fooled, found))
        return math.prod(fakes.shape[-2:]) * generator, distance(self(reals), 1.0) + fake


def distance(scores: Tensor, target: float) -> Tensor:
    """Return the mean squared distance of the scores (N, P) of each image from a target: (N,)."""
    return (scores - target).square().mean(-1)
