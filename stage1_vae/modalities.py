"""Descriptions of modalities, and batches of rows in which modalities may be missing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

KINDS = {"image": 3, "vector": 1, "volume": 4, "sequence": 1, "table": 1}
"""Kind of modality → number of dimensions of one value. The dimensions are (channels, height, width) for an image,
(channels, depth, height, width) for a volume, (tokens,) for a sequence and (columns,) for a table."""
COUNTS = ("negative_binomial", "zero_inflated_negative_binomial")
"""Likelihoods for counts."""
HURDLES = ("hurdle_lognormal", "hurdle_softplus")
"""Likelihoods for values of at least 0 of which many are 0."""
SCALED = ("normal", "laplace", *HURDLES)
"""Likelihoods that use a scale; the decoder outputs all parameters of the other likelihoods."""
LOGARITHMIC = (*COUNTS, *HURDLES)
"""Likelihoods of values of at least 0, which encoders read as log(1 + x)."""
COLUMNS = ("normal", "laplace", "bernoulli", "categorical", *COUNTS)
"""Likelihoods available for the columns of a table."""


def support(likelihood: str, classes: int | None) -> tuple[float, float, bool]:
    """Return the smallest and the largest value under a likelihood, and whether its values are whole numbers."""
    if likelihood == "categorical":
        return 0, (classes or 1) - 1, True
    if likelihood == "bernoulli":
        return 0, 1, False
    return 0 if likelihood in LOGARITHMIC else -math.inf, math.inf, likelihood in COUNTS


def check_classes(owner: str, likelihood: str, classes: int | None) -> None:
    """Raise an error if `classes` is not a valid number of classes, or not None for a likelihood without classes."""
    if likelihood != "categorical":
        if classes is not None:
            raise ValueError(f"classes of {owner}: found {classes}, expected none for likelihood {likelihood}")
    elif not isinstance(classes, int) or classes < 2:
        raise ValueError(
            f"classes of {owner}: found {classes}, expected a whole number of at least 2 for likelihood categorical"
        )


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: any text.
        likelihood: one of `COLUMNS`; the decoder outputs the scale of each normal or laplace column.
        classes: number K of classes of a categorical column, whose values are 0 … K − 1; None for other columns.
        intervals: lowest and highest numbers of intervals of a normal column; a value within one stands for the whole
            interval, because all its numbers are the same value of the data.

    Raises:
        ValueError: a field is invalid.
    """

    name: str
    likelihood: str
    classes: int | None = None
    intervals: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "intervals", tuple((float(low), float(high)) for low, high in self.intervals))
        if self.likelihood not in COLUMNS:
            raise ValueError(
                f"likelihood of column {self.name}: found {self.likelihood!r}, expected one of {', '.join(COLUMNS)}"
            )
        check_classes(f"column {self.name}", self.likelihood, self.classes)
        if self.intervals and self.likelihood != "normal":
            raise ValueError(f"intervals of column {self.name}: found likelihood {self.likelihood}, expected normal")
        for low, high in self.intervals:
            if not low < high:
                raise ValueError(f"intervals of column {self.name}: found {[low, high]}, expected low < high")

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description: the keyword arguments of the constructor."""
        classes = {} if self.classes is None else {"classes": self.classes}
        intervals = {"intervals": [list(ends) for ends in self.intervals]} if self.intervals else {}
        return {"name": self.name, "likelihood": self.likelihood, **classes, **intervals}


@dataclass(frozen=True)
class Modality:
    """One modality of a dataset.

    Args:
        name: letters, digits, `_` and `-`; the key of the modality in files, results and network parameters.
        kind: one of `KINDS`; it determines the default networks.
        shape: shape of one value.
        likelihood: a key of `postprior.stage1_vae.likelihoods.LIKELIHOODS`; `columns` for tables and only for tables.
        range: closed interval that holds every value, or None if values are unbounded.
        classes: number K of classes of a categorical modality, whose values are 0 … K − 1; None for other modalities.
        columns: the columns of a table, in the order of its values; empty for other kinds.
        partial: whether single cells of an observed value may be missing; encoders then read which cells are observed.
        title: the name for readers, any text; by default the name itself.

    Raises:
        ValueError: a field is invalid.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    likelihood: str
    range: tuple[float, float] | None = None
    classes: int | None = None
    columns: tuple[Column, ...] = ()
    partial: bool = False
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)
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
            expected = "columns for a table" if self.kind == "table" else "another one, because it is not a table"
            raise ValueError(f"likelihood of modality {self.name}: found {self.likelihood!r}, expected {expected}")
        count = self.shape[0] if self.kind == "table" else 0
        if len(self.columns) != count:
            raise ValueError(
                f"columns of modality {self.name}: found {len(self.columns)}, "
                f"expected {count} for kind {self.kind} of shape {list(self.shape)}"
            )
        names = [column.name for column in self.columns]
        if len(set(names)) < len(names):
            duplicate = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"columns of modality {self.name}: found {duplicate!r} twice, expected different names")

    @property
    def tabular(self) -> bool:
        """Whether each value is a variable of its own, as in tables and vectors, unlike pixels, voxels and tokens."""
        return self.kind in ("table", "vector")

    def to_support(self, values: Tensor) -> Tensor:
        """Map values (…, *shape) to valid data: clip them to the range, and round counts and classes."""
        if self.range is not None:
            values = values.clamp(*self.range)
        if not self.columns:
            return values.round() if support(self.likelihood, self.classes)[2] else values
        whole = values.new_tensor([support(c.likelihood, c.classes)[2] for c in self.columns]).bool()
        return values.round().where(whole, values)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description, the inverse of `from_description`."""
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
            **({} if self.title == self.name else {"title": self.title}),
        }

    @classmethod
    def from_description(cls, name: str, description: dict[str, Any]) -> Modality:
        """Return the modality `name` with this description, which `describe` returned."""
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
            title=str(description.get("title", "")),
        )


@dataclass(frozen=True)
class Batch:
    """B rows of M modalities.

    Args:
        data: name → (B, *shape), finite everywhere; missing entries hold any fill value.
        observed: (B, M) bool, columns in the order of `data`.
        cells: name → (B, *shape) bool, the observed cells of a modality with missing cells; a modality that is not
            listed has no missing cells.
        hidden: name → (B, *shape) bool, cells that the encoders do not read although they may be observed; likelihoods
            count them. See `postprior.stage1_vae.hiding`.
        complete: whether every row is known to have every modality. It is known on the host, so that a step on an
            accelerator does not wait for the device to tell. On a CPU it follows from `observed`.

    Raises:
        ValueError: a mask has the wrong shape, or a row has no observed modality. Values of masks are checked on a CPU
            only, where batches are made.
    """

    data: dict[str, Tensor]
    observed: Tensor
    cells: Mapping[str, Tensor] = field(default_factory=dict)
    hidden: Mapping[str, Tensor] = field(default_factory=dict)
    complete: bool = False

    def __post_init__(self) -> None:
        rows = {name: len(values) for name, values in self.data.items()}
        expected = (next(iter(rows.values())), len(rows))
        if len(set(rows.values())) > 1:
            raise ValueError(f"batch: found different numbers of rows {rows}, expected the same for every modality")
        if tuple(self.observed.shape) != expected:
            raise ValueError(f"mask of a batch: found shape {tuple(self.observed.shape)}, expected {expected}")
        if self.observed.device.type == "cpu":
            object.__setattr__(self, "complete", bool(self.observed.all()))
            if not (self.complete or bool(self.observed.any(1).all())):
                raise ValueError(
                    "mask of a batch: found a row with no modality, expected at least one observed modality"
                )
        for name, mask in (*self.cells.items(), *self.hidden.items()):
            if name not in self.data or mask.shape != self.data[name].shape:
                shape = tuple(mask.shape)
                raise ValueError(f"cells of {name}: found shape {shape}, expected the shape of the modality's values")

    def __len__(self) -> int:
        return len(self.observed)

    @cached_property
    def hides(self) -> Tensor | None:
        """Which rows (B,) have a hidden cell; None if no cell is hidden."""
        return reduce(or_, [mask.any(-1) for mask in self.hidden.values()]) if self.hidden else None

    def encoder_input(self, modality: Modality) -> Tensor:
        """Return the values (B, *shape) of a modality for its encoder.

        Missing and hidden cells are NaN in a partial modality, else 0: what is stored there is never read.
        """
        values, name = self.data[modality.name], modality.name
        fill = math.nan if modality.partial else 0.0
        if name in self.cells:
            values = values.masked_fill(~self.cells[name], fill)
        if name in self.hidden:
            values = values.masked_fill(self.hidden[name], fill)
        return values

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch on another device, with the values in another floating-point type."""
        if dtype is None and str(self.observed.device) == str(device):
            return self
        data = {name: values.to(device, dtype, non_blocking=True) for name, values in self.data.items()}
        cells, hidden = (
            {name: mask.to(device, non_blocking=True) for name, mask in masks.items()}
            for masks in (self.cells, self.hidden)
        )
        return Batch(data, self.observed.to(device, non_blocking=True), cells, hidden, self.complete)
