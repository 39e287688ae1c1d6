"""What a modality is, and a batch of samples that may lack some of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KINDS = {"image": 3, "vector": 1, "volume": 4, "sequence": 1, "table": 1}
"""Kinds of modality and the number of dimensions of one value: images are (channels, height, width), volumes (channels,
depth, height, width), sequences (tokens,) and tables (columns,)."""
COUNTS = ("negative_binomial", "zero_inflated_negative_binomial")
"""Likelihoods of counts."""
COLUMNS = ("normal", "laplace", "bernoulli", "categorical", *COUNTS)
"""Likelihoods that a column of a table may have."""


def support(likelihood: str, classes: int | None) -> tuple[float, float, bool]:
    """Least and greatest value under a likelihood, and whether its values are whole numbers."""
    if likelihood == "categorical":
        return 0, (classes or 1) - 1, True
    if likelihood == "bernoulli":
        return 0, 1, False
    return (0, math.inf, True) if likelihood in COUNTS else (-math.inf, math.inf, False)


def check_classes(of: str, likelihood: str, classes: int | None) -> None:
    """Refuse a number of classes where there are none, and no number or a wrong one where there are."""
    if likelihood != "categorical":
        if classes is not None:
            raise ValueError(f"classes of {of}: found {classes}, expected none for likelihood {likelihood}")
    elif not isinstance(classes, int) or classes < 2:
        raise ValueError(
            f"classes of {of}: found {classes}, expected a whole number of at least 2 for likelihood categorical"
        )


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: any text.
        likelihood: one of `COLUMNS`; a normal or laplace column has a scale of its own, which the decoder gives.
        classes: number K of classes of a categorical column, whose values are 0 … K − 1; None for other columns.

    Raises:
        ValueError: a field is impossible.
    """

    name: str
    likelihood: str
    classes: int | None = None

    def __post_init__(self) -> None:
        if self.likelihood not in COLUMNS:
            raise ValueError(
                f"likelihood of column {self.name}: found {self.likelihood!r}, expected one of {', '.join(COLUMNS)}"
            )
        check_classes(f"column {self.name}", self.likelihood, self.classes)

    def describe(self) -> dict[str, Any]:
        """JSON-able description, the keywords of the constructor."""
        classes = {} if self.classes is None else {"classes": self.classes}
        return {"name": self.name, "likelihood": self.likelihood, **classes}


@dataclass(frozen=True)
class Modality:
    """One modality of a dataset.

    Args:
        name: letters, digits, `_` and `-`; it names files and network parameters.
        kind: one of `KINDS`; it chooses the networks.
        shape: shape of one value.
        likelihood: a name of `postprior.stage1_vae.likelihoods.LIKELIHOODS`; `columns` for tables, and for them alone.
        range: closed interval that holds every value, or None where values are unbounded.
        classes: number K of classes of a categorical modality, whose values are 0 … K − 1; None for others.
        columns: the columns of a table, in the order of its values; empty for others.
        partial: single cells of an observed value may be missing, and encoders are told which.

    Raises:
        ValueError: a field is impossible.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    likelihood: str
    range: tuple[float, float] | None = None
    classes: int | None = None
    columns: tuple[Column, ...] = ()
    partial: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ValueError(f"modality name: found {self.name!r}, expected letters, digits, _ and - only")
        if self.kind not in KINDS:
            raise ValueError(f"kind of modality {self.name}: found {self.kind!r}, expected one of {', '.join(KINDS)}")
        if len(self.shape) != KINDS[self.kind] or any(size < 1 for size in self.shape):
            dimensions = KINDS[self.kind]
            expected = f"{dimensions} positive size{'s' * (dimensions > 1)} for kind {self.kind}"
            raise ValueError(f"shape of modality {self.name}: found {list(self.shape)}, expected {expected}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise ValueError(f"range of modality {self.name}: found {list(self.range)}, expected low < high")
        check_classes(f"modality {self.name}", self.likelihood, self.classes)
        self._check_columns()

    def _check_columns(self) -> None:
        if (self.kind == "table") != (self.likelihood == "columns"):
            expected = "columns for a table" if self.kind == "table" else "another one, as it is no table"
            raise ValueError(f"likelihood of modality {self.name}: found {self.likelihood!r}, expected {expected}")
        count = self.shape[0] if self.kind == "table" else 0
        if len(self.columns) != count:
            raise ValueError(
                f"columns of modality {self.name}: found {len(self.columns)}, "
                f"expected {count} for kind {self.kind} of shape {list(self.shape)}"
            )
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"columns of modality {self.name}: found {twice!r} twice, expected different names")

    def to_support(self, values: Tensor) -> Tensor:
        """Values (…, *shape) as data may hold them: within the range, and whole numbers where these are counted."""
        if self.range is not None:
            values = values.clamp(*self.range)
        if not self.columns:
            return values.round() if support(self.likelihood, self.classes)[2] else values
        whole = values.new_tensor([support(c.likelihood, c.classes)[2] for c in self.columns]).bool()
        return values.round().where(whole, values)

    def describe(self) -> dict[str, Any]:
        """JSON-able description, the inverse of `from_description`."""
        bounds = None if self.range is None else list(self.range)
        classes = {} if self.classes is None else {"classes": self.classes}
        columns = {"columns": [column.describe() for column in self.columns]} if self.columns else {}
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "likelihood": self.likelihood,
            "range": bounds,
            **classes,
            **columns,
            **({"partial": True} if self.partial else {}),
        }

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
            classes=description.get("classes"),
            columns=tuple(Column(**column) for column in description.get("columns", ())),
            partial=description.get("partial", False),
        )


@dataclass(frozen=True)
class Batch:
    """B samples of M modalities.

    Args:
        data: name → (B, *shape), finite everywhere; missing entries hold any fill value.
        observed: (B, M) bool, columns in the order of `data`.
        cells: name → (B, *shape) bool, the cells that are there of a modality which lacks some; others have them all.

    Raises:
        ValueError: a mask has another shape, or a row has no modality at all.
    """

    data: dict[str, Tensor]
    observed: Tensor
    cells: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows = {name: len(values) for name, values in self.data.items()}
        expected = (next(iter(rows.values())), len(rows))
        if len(set(rows.values())) > 1:
            raise ValueError(f"batch: found different numbers of rows {rows}, expected the same for every modality")
        if tuple(self.observed.shape) != expected:
            raise ValueError(f"mask of a batch: found shape {tuple(self.observed.shape)}, expected {expected}")
        if not bool(self.observed.any(1).all()):
            raise ValueError("mask of a batch: found a row with no modality, expected at least one observed")
        for name, seen in self.cells.items():
            if name not in self.data or seen.shape != self.data[name].shape:
                found = tuple(seen.shape)
                raise ValueError(f"cells of {name}: found shape {found}, expected that of the modality's values")

    def __len__(self) -> int:
        return len(self.observed)

    def encoder_input(self, modality: Modality) -> Tensor:
        """The values (B, *shape) of a modality as its encoder is shown them: NaN in missing cells, if it reads such."""
        values = self.data[modality.name]
        if not modality.partial or modality.name not in self.cells:
            return values
        return values.masked_fill(~self.cells[modality.name], math.nan)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """The same batch on another device, its values in another floating type."""
        data = {name: values.to(device, dtype, non_blocking=True) for name, values in self.data.items()}
        cells = {name: seen.to(device, non_blocking=True) for name, seen in self.cells.items()}
        return Batch(data, self.observed.to(device, non_blocking=True), cells)
