"""What the missing values of a row depend on: its code, its label and values that rows always have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.arrays import Rows
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.missingness.structural import ColumnKey, StructuralRule
from postprior.pipelines.generation.missingness.units import Flags, Units
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.stage1_vae.modalities import COUNTS, Column, Modality
from postprior.stage2_latent.layouts import Layout, coordinates

MOST = 256  # numbers that represent values; if there were more, missingness depends on codes and labels only
WEAK = 0.1  # precision of the priors of the slopes of labels and of levels that decide


@dataclass(frozen=True, eq=False)
class Predictors:
    """The predictors of missingness.

    Attributes:
        modalities: the modalities of the rows.
        shared: (D,) bool, the coordinates of codes that all modalities share; if there are none, those of the
            modalities that no training row lacks.
        labels: K, the number of labels; 0 if missingness does not depend on labels.
        columns: columns of tables, by modality and index, that no training row lacks.
        deciding: structural rules with free levels.
    """

    modalities: tuple[Modality, ...]
    shared: Tensor
    labels: int
    columns: tuple[tuple[str, int], ...]
    deciding: tuple[StructuralRule, ...]

    @classmethod
    def of(
        cls,
        units: Units,
        absent: Flags,
        layout: Layout,
        data: Dataset,
        labelled: bool,
        rules: tuple[StructuralRule, ...],
    ) -> Self:
        """Choose the predictors of training rows (N, U) that lack the units `absent`."""
        lacked = np.asarray(absent[:, : len(units.modalities)].any(axis=0))
        always = [m for m, lacking in zip(units.modalities, lacked.tolist(), strict=True) if not lacking]
        owners = [block.owner for block in layout]
        chosen = [None] if None in owners else [m.name for m in always]
        shared = coordinates(layout, torch.tensor([owner in chosen for owner in owners]))
        columns = [(m, j) for m in always for j in range(len(m.columns)) if units.unit_of(m.name, j) < 0]
        if sum(_width(m.columns[j]) for m, j in columns) > MOST:
            columns = []
        labels = 0 if data.labels is None or not labelled else len(data.label_names or ()) or int(data.labels.max()) + 1
        deciding = tuple(rule for rule in rules if rule.free)
        return cls(units.modalities, shared, labels, tuple((m.name, j) for m, j in columns), deciding)

    def __call__(
        self, z: Tensor, labels: Ints | None, data: Mapping[str, Rows], levels: Mapping[ColumnKey, Ints]
    ) -> Tensor:
        """Return the predictors (n, F) of rows, NaN where a label or a level is −1, which stands for unknown.

        Shapes: codes z (n, D), labels (n,), values data[m] (n, *shape), and the levels (n,) of columns that decide.
        """
        parts = [z[:, self.shared].double(), *(_values(column, data[name][:, j]) for name, j, column in self._columns)]
        known = [(labels, range(self.labels))] if self.labels and labels is not None else []
        for level, names in [*known, *((levels[rule.column], rule.levels) for rule in self.deciding)]:
            parts.append(_one_hot(level, np.array(names)))
        return torch.cat(parts, 1)

    def __len__(self) -> int:
        return sum(self._sizes)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """The numbers of predictors from codes, from values, and from labels and levels."""
        others = self.labels + sum(len(rule.levels) for rule in self.deciding)
        return int(self.shared.sum()), sum(_width(column) for _, _, column in self._columns), others

    @property
    def precision(self) -> Tensor:
        """(F,), the precisions of the priors of slopes: logits vary by about 1 with codes, and by 1 with values."""
        S, V, others = self._sizes
        return torch.tensor([float(S)] * S + [float(V)] * V + [WEAK] * others, dtype=torch.float64)

    @property
    def place_of_labels(self) -> slice:
        """The rows of coefficients (1 + F, ·) that belong to labels; the intercept without labels."""
        last = len(self) - sum(len(rule.levels) for rule in self.deciding)
        return slice(1 + last - self.labels, 1 + last) if self.labels else slice(0, 1)

    def by_label(self, values: Tensor, labels: Ints | None) -> Tensor:
        """Return the mean of values (n, C) over the rows of each label, (K, C), NaN for a label without rows.

        Without labels, it is the mean over all rows, (1, C).
        """
        if not self.labels or labels is None:
            return values.mean(0, keepdim=True)
        members = _one_hot(labels, np.arange(self.labels)).nan_to_num()
        return members.T @ values / members.sum(0)[:, None]

    @property
    def _columns(self) -> list[tuple[str, int, Column]]:
        columns = {m.name: m.columns for m in self.modalities}
        return [(name, j, columns[name][j]) for name, j in self.columns]

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description, without the coordinates and the rules."""
        return {"labels": self.labels, "columns": [list(column) for column in self.columns]}

    @classmethod
    def from_description(
        cls,
        entry: Mapping[str, Any],
        modalities: tuple[Modality, ...],
        shared: Tensor,
        rules: tuple[StructuralRule, ...],
    ) -> Self:
        """Return the predictors that `describe` described."""
        columns = tuple((str(name), int(j)) for name, j in entry["columns"])
        return cls(modalities, shared, int(entry["labels"]), columns, tuple(rule for rule in rules if rule.free))


def _width(column: Column) -> int:
    """Return the number of predictors of a column."""
    return column.classes or 1


def _values(column: Column, values: np.ndarray) -> Tensor:
    """Return the values (n,) of a column as predictors (n, width); counts are logarithms."""
    if column.classes is not None:
        return _one_hot(np.rint(values).astype(np.int64), np.arange(column.classes))
    numbers = torch.from_numpy(np.array(values, np.float64))[:, None]
    return numbers.clamp_min(0).log1p() if column.likelihood in COUNTS else numbers


def _one_hot(level: Ints, names: Ints) -> Tensor:
    """Return which of the names (K,) each level (n,) is, (n, K); NaN for level −1."""
    found = torch.from_numpy(level[:, None] == names).double()
    return found.masked_fill(torch.from_numpy(level < 0)[:, None], torch.nan)
