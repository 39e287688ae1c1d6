"""The columns of all tables of a dataset, in the units of the files that they were imported from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import in_units
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.stage1_vae.modalities import Modality


@dataclass(frozen=True)
class Sides:
    """One column in N real and in N′ synthetic rows, as float64; a missing cell is NaN."""

    table: Modality
    name: str
    classes: bool  # whether its values are classes, not numbers
    real: Floats  # (N,)
    fake: Floats  # (N′,)


def tables_of(dataset: Dataset) -> Iterator[tuple[Modality, Floats]]:
    """Yield every table with its rows (N, J) in the units of its file; a missing cell is NaN, a class its index."""
    for modality in dataset.modalities:
        if modality.kind == "table":
            yield (
                modality,
                in_units(modality, dataset.data[modality.name], dataset.missing(modality.name), dataset.conversion),
            )


def columns_of(real: Dataset, fake: Dataset) -> list[Sides]:
    """Return the columns of all tables; classes are categorical columns, and columns whose real values are 0 and 1.

    Synthetic values of the latter are rounded, as export writes them.
    """
    found = []
    for (table, rows), (_, made) in zip(tables_of(real), tables_of(fake), strict=True):
        for column, x, y in zip(table.columns, rows.T, made.T, strict=True):
            binary = column.likelihood == "bernoulli" and bool(np.isin(x[~np.isnan(x)], (0, 1)).all())
            classes = binary or column.likelihood == "categorical"
            found.append(Sides(table, column.name, classes, x, np.rint(y) if classes else y))
    return found


@dataclass(frozen=True)
class Limits:
    """Which values the C columns of all tables have in the training rows."""

    low: Floats  # (C,), the least value
    high: Floats  # (C,), the greatest value
    nullable: NDArray[np.bool_]  # (C,), whether some cells are missing
    categories: NDArray[np.int64]  # (P, 2), the number of a categorical column and a category that occurs in it

    @classmethod
    def of(cls, train: Dataset) -> Self | None:
        """Return the limits of training rows; None if there are no tables."""
        tables = list(tables_of(train))
        if not tables:
            return None
        rows = np.concatenate([values for _, values in tables], axis=1)
        columns = [column for table, _ in tables for column in table.columns]
        occurring = [
            (c, int(k))
            for c, column in enumerate(columns)
            if column.likelihood == "categorical"
            for k in np.unique(rows[~np.isnan(rows[:, c]), c])
        ]
        missing = np.isnan(rows)
        low, high = np.where(missing, np.inf, rows).min(0), np.where(missing, -np.inf, rows).max(0)
        return cls(low, high, missing.any(0), np.array(occurring, np.int64).reshape(-1, 2))

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, as they are stored: the arguments of the constructor."""
        return {"low": self.low, "high": self.high, "nullable": self.nullable, "categories": self.categories}
