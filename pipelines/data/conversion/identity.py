"""Conversions of data that were not imported: the numbers of the models are the values of the files."""

from functools import partial

from postprior.pipelines.data.conversion.arrays import ArrayConversion
from postprior.pipelines.data.conversion.columns import ColumnConversion
from postprior.pipelines.data.conversion.tables import TableConversion
from postprior.stage1_vae.modalities import COUNTS, Column, Modality

AXES = {"image": "CHW", "volume": "CDHW", "vector": "X", "sequence": "X"}


def identity_conversion(modality: Modality) -> ArrayConversion | TableConversion:
    """Return a conversion that changes nothing: a table is written to a CSV, an array to an .npz archive."""
    if modality.columns:
        columns = tuple(_identity_column(column) for column in modality.columns)
        return TableConversion(
            modality.name, columns, {"source": "tables", "file": f"{modality.name}.csv"}, title=modality.title
        )
    kind = "count" if modality.likelihood in COUNTS else "numeric"
    kind = "tokens" if modality.kind == "sequence" else kind
    dtype, facts = "float32" if kind == "numeric" else "int64", {"source": "npz", "file": "data.npz"}
    conversion = partial(
        ArrayConversion, range=modality.range, classes=modality.classes, facts=facts, title=modality.title
    )
    return conversion(modality.name, kind, AXES[modality.kind], dtype, modality.shape)


def _identity_column(column: Column) -> ColumnConversion:
    if column.classes is not None:
        return ColumnConversion(column.name, "categorical", "int64", values=tuple(range(column.classes)))
    kind = {"bernoulli": "boolean", **dict.fromkeys(COUNTS, "count")}.get(column.likelihood, "numeric")
    return ColumnConversion(column.name, kind, "double" if kind == "numeric" else "int64")
