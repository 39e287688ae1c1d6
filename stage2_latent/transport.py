"""Invertible layers between codes and a base distribution; the only module of this stage that uses normflows."""

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
    """Sizes of the layers; see the options of `Flow`."""

    blocks: int
    hidden: int
    bins: int
    bound: float


@dataclass(frozen=True, eq=False)
class Affine:
    """Affine maps y = (x − t) · exp(−s) of the coordinates of points (n, d), with |s| < 2."""

    log_scale: Tensor
    shift: Tensor

    @classmethod
    def of(cls, raw: Tensor, shift: Tensor) -> Self:
        """Return maps from unconstrained numbers (n, d); zeros give the identity."""
        return cls(2 * torch.tanh(raw / 2), shift)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return y of x, and log dy/dx."""
        return (x - self.shift) * (-self.log_scale).exp(), -self.log_scale

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return x of y, and log dx/dy."""
        return y * self.log_scale.exp() + self.shift, self.log_scale


class GatedNet(nf.nets.ResidualNet):
    """The residual network of normflows, whose blocks are gated by the class.

    A gate σ(c_y) depends on the class alone, so that one row per class is computed, and chosen by the one-hot context.
    """

    def forward(self, inputs: Tensor, context: Tensor) -> Tensor:
        """Return the outputs (n, ·) for inputs (n, ·) and one-hot classes (n, K)."""
        x = self.initial_layer(torch.cat([inputs, context], dim=1))
        for block in self.blocks:
            first, second = block.linear_layers
            gates = (block.context_layer.weight.T + block.context_layer.bias).sigmoid()  # (K, hidden)
            x = torch.addcmul(x, second(first(x.relu()).relu()), context @ gates)
        outputs: Tensor = self.final_layer(x)
        return outputs


class Linear(nf.flows.LULinearPermute):
    """Fixed permutation P and learned map x → L U P x + b; codes to base takes one product with the matrix."""

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes to base points."""
        weight, _ = self.permutation.inverse(self.linear.weight())  # L U P
        return nn.functional.linear(z, weight, self.linear.bias), self.linear.logabsdet().expand(len(z))


class Coupling(nf.flows.Flow):
    """Coupling layer: maps the coordinates z₂ by parameters from a network of z₁ and the label; z₁ is unchanged."""

    def __init__(self, features: int, context: int, sizes: Sizes, parameters: int) -> None:
        super().__init__()
        self.unchanged, self.sizes = features // 2, sizes
        outputs = (features - self.unchanged) * parameters
        self.net = zero_initialised(GatedNet(self.unchanged, outputs, sizes.hidden, context))

    def maps(self, raw: Tensor) -> Affine | Splines:
        """Return the maps from codes to base with the parameters in the network's output (n, ·)."""
        raise NotImplementedError

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map base points to codes."""
        return self._transform(z, self.maps(self.net(z[:, : self.unchanged], context)).inverse)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes to base points."""
        return self._transform(z, self.maps(self.net(z[:, : self.unchanged], context)).forward)

    def _transform(self, z: Tensor, function: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        mapped, log_slope = function(z[:, self.unchanged :])
        return torch.cat([z[:, : self.unchanged], mapped], dim=1), log_slope.sum(-1)


class AffineCoupling(Coupling):
    """Coupling with affine maps (Dinh et al. 2017, arXiv 1605.08803)."""

    def __init__(self, features: int, context: int, sizes: Sizes) -> None:
        super().__init__(features, context, sizes, 2)

    def maps(self, raw: Tensor) -> Affine:
        return Affine.of(*raw.chunk(2, dim=-1))


class SplineCoupling(Coupling):
    """Coupling with rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032)."""

    def __init__(self, features: int, context: int, sizes: Sizes) -> None:
        super().__init__(features, context, sizes, 3 * sizes.bins - 1)

    def maps(self, raw: Tensor) -> Splines:
        parameters = raw.unflatten(1, (3 * self.sizes.bins - 1, -1)).movedim(1, 0).contiguous()
        return Splines(parameters / math.sqrt(self.sizes.hidden), self.sizes.bins, self.sizes.bound)


class MaskedAutoregression(nf.flows.Flow):
    """Masked autoregressive layer uᵢ = zᵢ · exp(sᵢ) + tᵢ, with (sᵢ, tᵢ) a masked network of z₁ … zᵢ₋₁ and the label.

    The layer (Papamakarios et al. 2017, arXiv 1705.07057) is oriented so that codes to base, the direction used for
    fitting and scoring, takes a single evaluation of the network.

    Base to codes is solved by Jacobi iteration over all coordinates at once (Song et al. 2021, arXiv 2002.03629). After
    i evaluations at least the first i coordinates have converged; the iteration stops when no coordinate changes.
    """

    def __init__(self, features: int, context: int, sizes: Sizes) -> None:
        super().__init__()
        self.net = zero_initialised(nf.nets.MADE(features, sizes.hidden, context, output_multiplier=2))

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map base points to codes."""
        x, rounding = z, 8 * torch.finfo(z.dtype).eps
        for _ in range(z.shape[1]):
            previous = x
            x, log_slope = self._maps(previous, context).forward(z)
            if bool(((x - previous).abs() <= rounding * (1 + x.abs())).all()):
                break
        return x, log_slope.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Map codes to base points."""
        u, log_slope = self._maps(z, context).inverse(z)
        return u, log_slope.sum(-1)

    def _maps(self, z: Tensor, context: Tensor) -> Affine:
        return Affine.of(*self.net(z, context).unflatten(1, (-1, 2)).unbind(-1))


def zero_initialised(net: Net) -> Net:
    """Return the network with its last layer set to 0, so that couplings start as the identity."""
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

    The layers alternate a linear map (a fixed permutation and a learned LU factorisation) and a coupling. Untrained
    layers only permute coordinates, so that the base can be fitted to codes mapped through them.
    """

    def __init__(self, features: int, classes: int, coupling: str, sizes: Sizes) -> None:
        super().__init__()
        self.features, self.classes = features, classes
        make_coupling = COUPLINGS[coupling]
        pairs = [(Linear(features), make_coupling(features, classes, sizes)) for _ in range(sizes.blocks)]
        self.layers = nn.ModuleList([layer for pair in pairs for layer in pair])

    @torch.no_grad()
    def permutation(self) -> Tensor:
        """Return the order (D,) in which untrained layers put the coordinates of a code: u = x[order]."""
        order = torch.arange(self.features).unsqueeze(0)
        for layer in reversed(self.layers):
            if isinstance(layer, Linear):
                order, _ = layer.permutation(order)
        return order.squeeze(0)

    def to_base(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the base points u of codes x (n, D), and log |du/dx| (n,)."""
        return self._apply_layers(x, classes, [layer.inverse for layer in reversed(self.layers)])

    def to_codes(self, u: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes x of base points u (n, D), and log |dx/du| (n,)."""
        return self._apply_layers(u, classes, [layer.forward for layer in self.layers])

    def _apply_layers(self, x: Tensor, classes: Tensor, steps: list[Any]) -> tuple[Tensor, Tensor]:
        context = nn.functional.one_hot(classes, self.classes).to(x.dtype)
        total = x.new_zeros(len(x))
        for step in steps:
            x, log_det = step(x, context=context)
            total = total + log_det
        return x, total
