"""What a modality is, and a batch of samples that may lack some of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KINDS = {"image": 3, "vector": 1}
"""Kinds of modality and the number of dimensions of one value: images are (channels, height, width)."""


@dataclass(frozen=True)
class Modality:
    """One modality of a dataset.

    Args:
        name: letters, digits, `_` and `-`; it names files and network parameters.
        kind: one of `KINDS`; it chooses the networks.
        shape: shape of one value.
        likelihood: a name of `stage1_vae.likelihoods.LIKELIHOODS`.
        range: closed interval that holds every value, or None where values are unbounded.

    Raises:
        ValueError: a field is impossible.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    likelihood: str
    range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"modality name: found {self.name!r}, expected letters, digits, _ and - only")
        if self.kind not in KINDS:
            raise ValueError(
                f"kind of modality {self.name}: found {self.kind!r}, expected one of {', '.join(KINDS)}"
            )
        if len(self.shape) != KINDS[self.kind] or any(size < 1 for size in self.shape):
            expected = f"{KINDS[self.kind]} positive sizes for kind {self.kind}"
            raise ValueError(f"shape of modality {self.name}: found {list(self.shape)}, expected {expected}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range of modality {self.name}: found {list(self.range)}, expected low < high")

    def describe(self) -> dict[str, Any]:
        """JSON-able description, the inverse of `from_description`."""
        bounds = None if self.range is None else list(self.range)
        return {"kind": self.kind, "shape": list(self.shape), "likelihood": self.likelihood, "range": bounds}

    @classmethod
    def from_description(cls, name: str, description: dict[str, Any]) -> Modality:
        """Modality `name` as `describe` gave it."""
        bounds = description.get("range")
        return cls(
            name=name,
            kind=description["kind"],
            shape=tuple(description["shape"]),
            likelihood=description["likelihood"],
            range=None if bounds is None else (bounds[0], bounds[1]),
        )


@dataclass(frozen=True)
class Batch:
    """B samples of M modalities.

    Args:
        data: name → (B, *shape), finite everywhere; missing entries hold any fill value.
        observed: (B, M) bool, columns in the order of `data`.

    Raises:
        ValueError: the mask has another shape, or a row has no modality at all.
    """

    data: dict[str, Tensor]
    observed: Tensor

    def __post_init__(self) -> None:
        rows = {name: len(values) for name, values in self.data.items()}
        expected = (next(iter(rows.values())), len(rows))
        if len(set(rows.values())) > 1:
            raise ValueError(
                f"batch: found different numbers of rows {rows}, expected the same for every modality"
            )
        if tuple(self.observed.shape) != expected:
            raise ValueError(
                f"mask of a batch: found shape {tuple(self.observed.shape)}, expected {expected}"
            )
        if not bool(self.observed.any(1).all()):
            raise ValueError("mask of a batch: found a row with no modality, expected at least one observed")

    def __len__(self) -> int:
        return len(self.observed)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on another device, its values in another floating type."""
        data = {name: values.to(device, dtype, non_blocking=True) for name, values in self.data.items()}
        return Batch(data, self.observed.to(device, non_blocking=True))
