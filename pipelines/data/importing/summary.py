"""Summarise an import as text: kinds, shapes, ranges, and which modalities are missing together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, chunks
from postprior.pipelines.data.conversion import ArrayConversion, ColumnConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.arrays import limits
from postprior.pipelines.data.conversion.columns import SCALED, to_numpy
from postprior.pipelines.data.formats.contents import ArrayView, TableView, View
from postprior.pipelines.data.importing.joining import Joined
from postprior.pipelines.texts import shell_quoted

PATTERNS = 8  # greatest number of missingness patterns that are listed
COLUMNS = 6  # greatest number of columns of a kind that are listed by name


def summary(
    joined: Joined,
    learned: Sequence[Conversion],
    labels: Values | None,
    names: tuple[str, ...] | None,
    splits: Mapping[str, int],
    folder: Path,
) -> list[str]:
    """Return the lines of the summary for the user."""
    observed = joined.observed
    lines = overview(learned, observed)
    for view, conversion in zip(joined.views, learned, strict=True):
        lines += ["", f"{view.name}:", *("  " + line for line in details(view, conversion))]
    lines += ["", *patterns(observed, [view.name for view in joined.views]), *joined.notes]
    if labels is not None and names is not None:
        counts = zip(names, np.bincount(labels[labels >= 0], minlength=len(names)), strict=True)
        lines.append(f"labels: {shortened([f'{name} ({count})' for name, count in counts])}")
        if unlabelled := int((labels < 0).sum()):
            use = "the autoencoder learns from them; a density infers their labels or leaves them out"
            lines.append(f"without a label: {unlabelled} of {len(labels)} rows; {use}")
    if joined.group is not None:
        lines.append(f"subjects ({joined.group[0]}): {len(joined.group[1].unique())}")
    if joined.targets:
        use = "kept and exported, but neither the autoencoder nor a density uses them"
        lines.append(f"targets: {shortened(list(joined.targets))}; {use}")
    if joined.dropped:
        lines.append(f"left out: {joined.dropped} rows without any modality")
    lines.append("rows: " + ", ".join(f"{split} {count}" for split, count in splits.items()))
    return [*lines, f"Go on with: postprior init PROJECT --from {shell_quoted(folder)}"]


def overview(learned: Sequence[Conversion], observed: Values) -> list[str]:
    """Return one line per modality: its kind, shape, likelihood and number of observed rows; observed (N, M)."""
    rows = [("modality", "kind", "shape", "likelihood", "rows")]
    for conversion, count in zip(learned, observed.sum(0), strict=True):
        m = conversion.modality
        rows.append((m.name, m.kind, " × ".join(map(str, m.shape)), m.likelihood, f"{count} of {len(observed)}"))
    return aligned(rows)


def details(view: View, conversion: Conversion) -> list[str]:
    """Describe the columns of a table by kind, or the values of an array, with their ranges."""
    if isinstance(view, TableView) and isinstance(conversion, TableConversion):
        lines = [f"{kind}: {shortened(columns)}" for kind, columns in _by_kind(view.content, conversion).items()]
    else:
        assert isinstance(view, ArrayView)
        assert isinstance(conversion, ArrayConversion)
        present = np.flatnonzero(view.present)
        low, high = limits(view.content, present)
        constant = _constant(view.content, present) if conversion.axes == "X" else 0
        note = f", {constant} of {view.content.shape[1]} coordinates constant" if constant else ""
        lines = [f"{conversion.kind} {conversion.dtype}: {low:g} to {high:g}, {_scaling(conversion)}{note}"]
    return lines + outliers(view, conversion)


def outliers(view: View, conversion: Conversion) -> list[str]:
    """Return a line about far outliers and what to do about them, or nothing if there are none."""
    if isinstance(view, TableView) and isinstance(conversion, TableConversion):
        far = {
            column.name: _far(to_numpy(view.content[column.name].drop_null()), column)
            for column in conversion.columns
            if column.kind in SCALED and column.name in view.content.column_names
        }
        parts = [f"{name} ({_counted(values)})" for name, values in far.items() if len(values)]
        remedy = "add --na VALUE"
    else:
        assert isinstance(view, ArrayView)
        assert isinstance(conversion, ArrayConversion)
        raws = chunks(view.content, np.flatnonzero(view.present)) if conversion.kind == "numeric" else ()
        values = np.concatenate([np.empty(0), *(_far(raw, conversion) for raw in raws)])
        parts = [_counted(values)] if len(values) else []
        remedy = "replace it by NaN, add --nan-is-missing"
    text = f"far outliers: {shortened(parts)}; they are clipped in the input of models. "
    return [f"{text}If such a value means missing, {remedy} and import again"] if parts else []


def _far(raw: Values, conversion: ArrayConversion | ColumnConversion) -> Values:
    """Return the values that are clipped as far outliers."""
    return raw[np.abs(conversion.standardised(raw)) > conversion.bound * (1 + 1e-6)]


def _counted(values: Values) -> str:
    """Return the most frequent value, and the number of all values, as text."""
    distinct, counts = np.unique(values, return_counts=True)
    return f"{distinct[counts.argmax()]:g}, {len(values)} value{'s' * (len(values) > 1)}"


def _constant(array: Values, rows: Values) -> int:
    """Return how many coordinates of an array (n, X) are constant in these rows."""
    low, high = np.full(array.shape[1], np.inf), np.full(array.shape[1], -np.inf)
    for chunk in chunks(array, rows):
        low, high = np.fmin(low, np.fmin.reduce(chunk)), np.fmax(high, np.fmax.reduce(chunk))
    return int((low == high).sum())


def _by_kind(table: pa.Table, conversion: TableConversion) -> dict[str, list[str]]:
    """Return by kind the columns with their ranges or categories, as text."""
    columns: dict[str, list[str]] = {}
    for column in conversion.columns:
        values, notes = table[column.name], []
        if column.kind == "categorical":
            notes.append(shortened([str(value) for value in column.values], 4))
        elif pa.types.is_temporal(values.type):
            notes.append(" to ".join(str(end) for end in pc.min_max(values).as_py().values()))
        elif column.kind != "boolean":
            ends = pc.min_max(values).as_py()
            notes.append(f"{ends['min']:g} to {ends['max']:g}")
        if values.null_count:
            notes.append(f"{values.null_count / len(values):.0%} missing")
        text = f"{column.name} ({', '.join(notes)})" if notes else column.name
        columns.setdefault(column.kind, []).append(text)
    return columns


def _scaling(conversion: ArrayConversion) -> str:
    """Describe the scaling of an array."""
    offset, scale = conversion.offset, conversion.scale
    if conversion.kind == "numeric" and conversion.modality.kind == "vector":
        return "each coordinate standardised"
    if (offset, scale) == (0, 1) or isinstance(offset, tuple) or isinstance(scale, tuple):
        return "not scaled"
    return f"{offset:g} to {offset + scale:g} scaled to 0 to 1"


def patterns(observed: Values, names: Sequence[str]) -> list[str]:
    """Return a table of missingness patterns with their numbers of rows, the most frequent patterns first."""
    if observed.all():
        return ["all rows have all modalities"]
    found, counts = np.unique(observed, axis=0, return_counts=True)
    shown = (-counts).argsort(kind="stable")[:PATTERNS]
    rows = [(*names, "rows"), *((*("x" if present else "." for present in found[i]), str(counts[i])) for i in shown)]
    rest = [f"and {len(counts) - len(shown)} other patterns"] if len(counts) > len(shown) else []
    return [*aligned(rows), *rest]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad rows of texts to aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shortened(names: Sequence[str], most: int = COLUMNS) -> str:
    """Join names with commas; of many names only the first are listed."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f", … and {rest} more" if rest > 0 else "")
