"""Invertible layers between codes and a base: the one file of this stage that knows normflows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import normflows as nf
import torch
from torch import Tensor, nn

from postprior.stage2_latent.splines import Splines

Net = TypeVar("Net", nf.nets.ResidualNet, nf.nets.MADE)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the layers; see `Flow`."""

    blocks: int
    hidden: int
    bins: int
    bound: float


@dataclass(frozen=True, eq=False)
class Affine:
    """Maps y = (x − t) · exp(−s) of the coordinates of points (n, d), within e^±2, from raw numbers s and t (n, d)."""

    log_scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, raw: Tensor, shift: Tensor) -> Self:
        """Maps of unconstrained numbers; zeros give the identity."""
        return cls(2 * torch.tanh(raw / 2), shift)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y of x, and log dy/dx."""
        return (x - self.shift) * (-self.log_scale).exp(), -self.log_scale

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """x of y, and log dx/dy."""
        return y * self.log_scale.exp() + self.shift, self.log_scale


class Coupling(nf.flows.Flow):
    """z₂ ← maps of its coordinates that a network of z₁ and the label chooses; z₁ stays as it is."""

    def __init__(self, features: int, context: int, sizes: Sizes, numbers: int) -> None:
        super().__init__()
        self.kept, self.sizes = features // 2, sizes
        outputs = (features - self.kept) * numbers
        self.net = zero_initialised(nf.nets.ResidualNet(self.kept, outputs, sizes.hidden, context))

    def maps(self, raw: Tensor) -> Affine | Splines:
        """The maps from codes to base that the network's output (n, ·) stands for."""
        raise NotImplementedError

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Base to codes."""
        return self._transform(z, self.maps(self.net(z[:, : self.kept], context)).inverse)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to base."""
        return self._transform(z, self.maps(self.net(z[:, : self.kept], context)).forward)

    def _transform(self, z: Tensor, of: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        moved, log_slope = of(z[:, self.kept :])
        return torch.cat([z[:, : self.kept], moved], dim=1), log_slope.sum(-1)


class AffineCoupling(Coupling):
    """Affine maps (Dinh et al. 2017, arXiv 1605.08803)."""

    def __init__(self, features: int, context: int, sizes: Sizes) -> None:
        super().__init__(features, context, sizes, 2)

    def maps(self, raw: Tensor) -> Affine:
        return Affine.of(*raw.chunk(2, dim=-1))


class SplineCoupling(Coupling):
    """Rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032)."""

    def __init__(self, features: int, context: int, sizes: Sizes) -> None:
        super().__init__(features, context, sizes, 3 * sizes.bins - 1)

    def maps(self, raw: Tensor) -> Splines:
        scaled = raw / math.sqrt(self.sizes.hidden)
        return Splines.of(scaled.unflatten(1, (3 * self.sizes.bins - 1, -1)), self.sizes.bins, self.sizes.bound)


class MaskedAutoregression(nf.flows.Flow):
    """uᵢ = zᵢ · exp(sᵢ) + tᵢ with (sᵢ, tᵢ) a masked network of z₁ … zᵢ₋₁ and the label (Papamakarios et al. 2017,
    arXiv 1705.07057), reversed: codes to base, which fits and scores, is the direction that takes one evaluation.

    Base to codes is solved by Jacobi iteration, all coordinates at once (Song et al. 2021, arXiv 2002.03629): i
    evaluations settle the first i coordinates at least, and it ends when none moves any more.
    """

    def __init__(self, features: int, context: int, sizes: Sizes) -> None:
        super().__init__()
        self.net = zero_initialised(nf.nets.MADE(features, sizes.hidden, context, output_multiplier=2))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Base to codes."""
        x, rounding = z, 8 * torch.finfo(z.dtype).eps
        for _ in range(z.shape[1]):
            last = x
            x, log_slope = self._maps(last, context).forward(z)
            if bool(((x - last).abs() <= rounding * (1 + x.abs())).all()):
                break
        return x, log_slope.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to base."""
        u, log_slope = self._maps(z, context).inverse(z)
        return u, log_slope.sum(-1)

    def _maps(self, z: Tensor, context: Tensor) -> Affine:
        return Affine.of(*self.net(z, context).unflatten(1, (-1, 2)).unbind(-1))


def zero_initialised(net: Net) -> Net:
    """The network with outputs of 0 at first, at which couplings are the identity."""
    nn.init.zeros_(net.final_layer.weight)
    nn.init.zeros_(net.final_layer.bias)
    return net


COUPLINGS: dict[str, Callable[[int, int, Sizes], nf.flows.Flow]] = {
    "spline": SplineCoupling,
    "affine": AffineCoupling,
    "masked": MaskedAutoregression,
}


class Transport(nn.Module):
    """The invertible map between codes and base, conditioned on the class.

    Layers alternate a linear map (a fixed permutation and a learned LU factorisation) and a coupling. At first they
    only permute, so that the base can be fitted to codes that went through them.
    """

    def __init__(self, features: int, classes: int, coupling: str, sizes: Sizes) -> None:
        super().__init__()
        self.classes = classes
        make = COUPLINGS[coupling]
        pairs = [(nf.flows.LULinearPermute(features), make(features, classes, sizes)) for _ in range(sizes.blocks)]
        self.layers = nn.ModuleList([layer for pair in pairs for layer in pair])

    def to_base(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Base points u of codes x (n, D), and log |du/dx| (n,)."""
        return self._apply_layers(x, classes, [layer.inverse for layer in reversed(self.layers)])

    def to_codes(self, u: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of base points u (n, D), and log |dx/du| (n,)."""
        return self._apply_layers(u, classes, [layer.forward for layer in self.layers])

    def _apply_layers(self, x: Tensor, classes: Tensor, steps: list[Any]) -> tuple[Tensor, Tensor]:
        context = nn.functional.one_hot(classes, self.classes).to(x.dtype)
        total = x.new_zeros(len(x))
        for step in steps:
            x, log_det = step(x, context=context)
            total = total + log_det
        return x, total
