"""Dense networks for vectors."""

from __future__ import annotations

from torch import nn

DEPTH = 8
"""Units of a hidden layer per unit of `width`, so that one width suits dense and convolutional networks."""


class DenseEncoder(nn.Sequential):
    """Vectors (B, D) → (B, features), through two hidden layers."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        hidden = DEPTH * width
        super().__init__(
            nn.Linear(shape[0], hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, features),
        )


class DenseDecoder(DenseEncoder):
    """Features (B, features) → vectors (B, D), through two hidden layers."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__((features,), shape[0], width)
