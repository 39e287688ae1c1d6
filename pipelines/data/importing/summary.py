"""Summarise an import as text: kinds, shapes, ranges, and which modalities are missing together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, chunks
from postprior.pipelines.data.conversion import (
    ArrayConversion,
    ColumnConversion,
    Conversion,
    TableConversion,
    arrays,
    normalised,
    zero_heavy,
)
from postprior.pipelines.data.conversion.columns import SCALED, to_numpy
from postprior.pipelines.data.conversion.statistics import limits
from postprior.pipelines.data.formats.contents import ArrayView, TableView, View
from postprior.pipelines.data.importing.joining import Joined
from postprior.pipelines.data.manifest import SUMMARY
from postprior.pipelines.texts import LONG, Listing, brief, enumerated, escape_controls, shell_quoted, shortened, width

PATTERNS = 8  # greatest number of missingness patterns that are listed
LINES = 12  # greatest number of lines on a terminal
MODALITIES = 3  # greatest number of modalities that a terminal lists if they are more
TOLD = dict.fromkeys(zero_heavy.AMOUNTS, zero_heavy.told) | dict.fromkeys(normalised.NORMALISED, normalised.told)
"""Functions that tell how vectors of these kinds are read."""


class Summary(list[str]):
    """The whole summary of an import, line by line; `brief` is what a terminal shows."""

    def __init__(
        self, overview: Sequence[str], details: Sequence[str], notes: Sequence[str], counts: Sequence[str]
    ) -> None:
        super().__init__([*overview, *(["", *details] if details else []), "", *notes, *counts])
        self.overview, self.details, self.notes, self.counts = overview, details, notes, counts

    @property
    def text(self) -> str:
        """The content of the file import.txt: all lines but the last, which suggests a command."""
        return "".join(f"{escape_controls(line)}\n" for line in self[:-1])

    def brief(self, folder: Path) -> list[str]:
        """Return at most `LINES` lines: all if they are few and short, else those that tell decisions and numbers."""
        if len(self) <= LINES and all(brief(line) == line for line in self[:-1]):
            return list(self)
        *counts, last = self.counts
        head = first(self.overview, MODALITIES + 1, "modalities")
        room = LINES - len(head) - len(counts) - 2
        told = [*self.details, *self.notes]
        shown = told if len(told) <= room else first(self.notes, room, "notes")
        return [*map(brief, (*head, *shown, *counts)), f"the whole summary is in {folder / SUMMARY}", last]


def first(lines: Sequence[str], most: int, what: str) -> list[str]:
    """Return at most so many lines; if there are more, the last line says how many are left out."""
    rest = len(lines) - most + 1
    return list(lines) if rest <= 1 else [*lines[: most - 1], f"… and {rest} more {what}"]


def summary(
    joined: Joined,
    learned: Sequence[Conversion],
    labels: Values | None,
    names: tuple[str, ...] | None,
    splits: Mapping[str, int],
    folder: Path,
) -> Summary:
    """Return the summary for the user."""
    observed, details, notes = joined.observed, [], list(joined.notes)
    for view, conversion in zip(joined.views, learned, strict=True):
        details += [f"{view.name}:", *described(view, conversion)]
        notes += outliers(view, conversion)
        if isinstance(view, ArrayView) and (told := TOLD.get(view.kind)):
            notes.append(told(view.name, view.kind, view.content, np.flatnonzero(view.present)))
    notes += [*chosen_kinds(joined.views, learned), *named(learned), completeness(observed)]
    details += patterns(observed, [view.name for view in joined.views])
    counts: list[str] = []
    if labels is not None and names is not None:
        numbers = zip(names, np.bincount(labels[labels >= 0], minlength=len(names)), strict=True)
        counts.append(Listing.of("labels: {}", [f"{name} ({count})" for name, count in numbers]))
        if unlabelled := int((labels < 0).sum()):
            use = "the autoencoder learns from them; a density infers their labels or leaves them out"
            counts.append(f"without a label: {unlabelled} of {len(labels)} rows; {use}")
    if joined.group is not None:
        subjects = len(joined.group[1].unique())
        alone = "; each synthetic row is a subject of its own, drawn independently" if subjects < len(joined) else ""
        counts.append(f"subjects ({joined.group[0]}): {subjects}{alone}")
    if joined.targets:
        use = "kept and exported, but neither the autoencoder nor a density uses them"
        counts.append(Listing.of(f"targets: {{}}; {use}", list(joined.targets)))
    counts.append("rows: " + ", ".join(f"{split} {count}" for split, count in splits.items()) + left_out(joined))
    counts.append(f"Go on with: postprior init PROJECT --from {shell_quoted(folder)}")
    return Summary(overview(learned, observed), details, notes, counts)


def left_out(joined: Joined) -> str:
    """Return how many rows were left out because they have no modality, or an empty text if there are none."""
    rows = f"{joined.dropped} row{'s' * (joined.dropped > 1)}"
    return f"; left out: {rows} without any modality" if joined.dropped else ""


def chosen_kinds(views: Sequence[View], learned: Sequence[Conversion]) -> list[str]:
    """Return a line per kind that suits columns better than the kind that their values show."""
    chosen: dict[str, list[str]] = {}
    for view, conversion in zip(views, learned, strict=True):
        if isinstance(view, TableView) and isinstance(conversion, TableConversion):
            for column in conversion.columns:
                if column.kind != view.kinds[column.name]:
                    chosen.setdefault(column.kind, []).append(column.name)
    remedy = "--kind COLUMN=numeric or count chooses another"
    return [
        Listing.of(f"of the kind {kind}, which held-out rows fit best: {{}}; {remedy}", names)
        for kind, names in chosen.items()
    ]


def named(learned: Sequence[Conversion]) -> list[str]:
    """Return a line with the keys of modalities, where a key is not the name."""
    keys = [f"{c.modality.title} is {c.name}" for c in learned if c.modality.title != c.name]
    return [Listing.of("names in files and settings: {}", keys)] if keys else []


def overview(learned: Sequence[Conversion], observed: Values) -> list[str]:
    """Return one line per modality: its kind, shape, likelihood and number of observed rows; observed (N, M)."""
    rows = [("modality", "kind", "shape", "likelihood", "rows")]
    for conversion, count in zip(learned, observed.sum(0), strict=True):
        m = conversion.modality
        rows.append((m.title, m.kind, " × ".join(map(str, m.shape)), m.likelihood, f"{count} of {len(observed)}"))
    return aligned(rows)


def described(view: View, conversion: Conversion) -> list[str]:
    """Describe the columns of a table by kind, or the values of an array, with their ranges."""
    if isinstance(view, TableView) and isinstance(conversion, TableConversion):
        columns = _by_kind(view.content, conversion)
        return [Listing.of("{}", texts).after(f"  {kind}: ") for kind, texts in columns.items()]
    assert isinstance(view, ArrayView)
    assert isinstance(conversion, ArrayConversion)
    present = np.flatnonzero(view.present)
    low, high = limits(view.content, present)
    constant = _constant(view.content, present) if conversion.axes == "X" else 0
    note = f", {constant} of {view.content.shape[1]} coordinates constant" if constant else ""
    return [f"  {conversion.kind} {conversion.dtype}: {low:g} to {high:g}, {_scaling(conversion)}{note}"]


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
        raws = chunks(view.content, np.flatnonzero(view.present)) if conversion.kind in arrays.REAL else ()
        values = np.concatenate([np.empty(0), *(_far(raw, conversion) for raw in raws)])
        parts = [_counted(values)] if len(values) else []
        remedy = "replace it by NaN, add --nan-is-missing"
    text = "far outliers: {}; they are clipped in the input of models. If such a value means missing, "
    return [Listing.of(f"{text}{remedy} and import again", parts).after(f"{view.name}: ")] if parts else []


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
            notes.append(enumerated(column.values, 4))
        elif pa.types.is_temporal(values.type):
            ends = pa.array(pc.min_max(values).as_py().values(), values.type)
            notes.append(" to ".join(column.form.written(ends).to_pylist()))
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
    if conversion.kind in normalised.NORMALISED:
        return "each row divided by its own unit"
    if conversion.kind == "nonnegative":
        return "each coordinate divided by the geometric mean of its positive values"
    if (offset, scale) == (0, 1) or isinstance(offset, tuple) or isinstance(scale, tuple):
        return "not scaled"
    return f"{offset:g} to {offset + scale:g} scaled to 0 to 1"


def completeness(observed: Values) -> str:
    """Return how many rows have all modalities; observed (N, M)."""
    complete = int(observed.all(1).sum())
    return f"{'all' if complete == len(observed) else f'{complete} of {len(observed)}'} rows have all modalities"


def patterns(observed: Values, names: Sequence[str]) -> list[str]:
    """Return a table of missingness patterns with their numbers of rows, the most frequent patterns first."""
    if observed.all():
        return []
    found, counts = np.unique(observed, axis=0, return_counts=True)
    shown = (-counts).argsort(kind="stable")[:PATTERNS]
    rows = [(*names, "rows"), *((*("x" if present else "." for present in found[i]), str(counts[i])) for i in shown)]
    rest = [f"and {len(counts) - len(shown)} other patterns"] if len(counts) > len(shown) else []
    return ["", *aligned(rows), *rest]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad rows of texts to aligned columns; control characters are escaped, and long texts are shortened."""
    shown = [[shortened(escape_controls(text), LONG) for text in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*shown, strict=True)]
    padded = ([text + " " * (most - width(text)) for text, most in zip(row, widths, strict=True)] for row in shown)
    return ["  ".join(texts).rstrip() for texts in padded]
