"""Dense networks for values of any shape."""

from __future__ import annotations

import math

from torch import Tensor, nn

DEPTH = 8
"""Units per hidden layer and per unit of `width`, so that the same width suits dense and convolutional networks."""


class DenseEncoder(nn.Sequential):
    """Values (B, *shape) → (B, features), through two hidden layers."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        hidden = DEPTH * width
        super().__init__(
            nn.Linear(math.prod(shape), hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *shape) to (B, features)."""
        return super().forward(x.flatten(1))


class DenseDecoder(DenseEncoder):
    """Features (B, features) → values (B, *shape), through two hidden layers."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__((features,), math.prod(shape), width)
        self.shape = shape

    def forward(self, h: Tensor) -> Tensor:
        """Map (B, features) to (B, *shape)."""
        return super().forward(h).unflatten(1, self.shape)
