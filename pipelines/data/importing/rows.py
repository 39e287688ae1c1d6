"""`postprior import --like`: import rows for a trained model, with the scales and categories of its training data."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion, ColumnConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.categories import Categories, grouped
from postprior.pipelines.data.conversion.columns import UNMODELLED, named_type
from postprior.pipelines.data.dataset import SPATIAL_KEYS, Dataset
from postprior.pipelines.data.formats import check_options, read_source, samples_of
from postprior.pipelines.data.formats.contents import ArrayView, Named, Roles, SourceContents, TableView, View
from postprior.pipelines.data.formats.nifti import check_grid
from postprior.pipelines.data.formats.stacking import is_picture, reading_of
from postprior.pipelines.data.importing.joining import Joined, join
from postprior.pipelines.data.importing.run import converted
from postprior.pipelines.data.importing.summary import Summary, completeness, left_out, outliers, overview, patterns
from postprior.pipelines.data.manifest import files_of
from postprior.pipelines.data.names import keys_of
from postprior.pipelines.data.shards import LARGEST
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.names import listed
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.texts import Listing, enumerated, shell_quoted


def import_rows(sources: Sequence[Path], folder: Path, roles: Roles, like: Path, largest: int = LARGEST) -> Summary:
    """Write one dataset folder of rows, which need no label and may lack modalities; return the summary.

    Arrays of more than `largest` bytes are written as shards.
    The sources have the same columns and names of modalities as the sources of the training data; `like` is the folder
    that the import of the training data wrote, or one of its splits. Roles that the user does not name are those of
    the training data, if the sources have them. A UserError is raised for a category, label, feature, shape or type
    that the training data do not have.
    """
    inputs = [*sources, like]
    check_folder(folder, partial(files_of, origin="rows"), inputs)
    check_options(sources, roles)
    trained = Dataset.load(like / "train" if (like / "train" / MANIFEST).exists() else like)
    if trained.conversion is None:
        expected = "expected a folder that postprior import wrote; correct --like"
        raise UserError(f"{like}: no conversion found in its manifest, {expected}")
    names = [source.name for source in sources]
    rows = rows_like(
        trained, lambda wanted: [part for source in sources for part in read_source(source, wanted)], names, roles
    )
    told = _summary(rows.joined, rows.chosen, rows.dataset.observed, rows.conversions, folder)
    rows.dataset.save(folder, inputs, told.text, largest)
    return told


class Rows(NamedTuple):
    """Rows as datasets have them, and as they were joined; `chosen` is the part that the training data have."""

    dataset: Dataset
    joined: Joined
    chosen: Joined
    conversions: dict[str, Conversion]


def rows_like(
    trained: Dataset,
    read: Callable[[Roles], Sequence[SourceContents]],
    names_of_sources: Sequence[str],
    roles: Roles,
) -> Rows:
    """Convert the rows of sources, which `read` returns, with the scales and categories of training data."""
    assert trained.conversion is not None
    conversions = {c.modality.title: c for c in samples_of(trained).conversions}
    wanted = _roles(trained.conversion, conversions, roles)
    contents = [_titled(part, conversions) for part in read(wanted)]
    joined = join(contents, _available_roles(wanted, roles, contents))
    chosen = _as_trained(joined, conversions)
    learned = [conversions[view.name] for view in chosen.views]
    targets = [ColumnConversion.from_description(entry) for entry in trained.conversion.get("targets", ())]
    targets = targets if all(target.name in joined.targets for target in targets) else []
    table = pa.table(dict(joined.targets))
    chosen = replace(chosen, targets={t.name: _column_as_trained("target", table, t) for t in targets})
    labels = _labels(joined.label, trained)
    names = None if labels is None else trained.label_names
    dataset = converted(chosen, np.arange(len(joined)), learned, targets, labels, names)
    provenance = {"source": "import", "sources": list(names_of_sources), "like": trained.hash}
    conversion = _with_affines(trained.conversion, {conversions[view.name].name: view.facts for view in joined.views})
    return Rows(replace(dataset, conversion=conversion, provenance=provenance), joined, chosen, conversions)


def _titled(contents: SourceContents, conversions: Mapping[str, Conversion]) -> SourceContents:
    """Return the contents with the names of views that the training data know only by key, as earlier imports wrote."""
    keys = keys_of(view.name for view in contents.views)
    known = {name: key for name, key in keys.items() if name not in conversions and key in conversions}
    return replace(
        contents, views=tuple(replace(view, name=known.get(view.name, view.name)) for view in contents.views)
    )


def _summary(
    joined: Joined, chosen: Joined, observed: Values, conversions: dict[str, Conversion], folder: Path
) -> Summary:
    """Return the summary: what the rows have, what they lack, and what is unknown from the training data."""
    learned = [conversions[view.name] for view in chosen.views]
    notes: list[str] = []
    columns = {column for view in joined.views for column in view.columns}
    absent = [name for name in conversions if name not in {view.name for view in chosen.views}]
    tables = [conversion for conversion in learned if isinstance(conversion, TableConversion)]
    absent += [column.name for table in tables for column in table.columns if column.name not in columns]
    if absent:
        notes.append(Listing.of("missing in every row: {}", absent))
    used = columns | joined.targets.keys() | {role[0] for role in (joined.ids, joined.label, joined.group) if role}
    if unknown := [name for headers in joined.headers.values() for name in headers if name not in used]:
        notes.append(Listing.of("not in the training data, left out: {}", unknown))
    for view, conversion in zip(chosen.views, learned, strict=True):
        notes += outliers(view, conversion)
    notes += [*joined.notes, completeness(observed)]
    counts = [
        f"rows: {len(joined)}{left_out(joined)}",
        f"Go on with: postprior impute NAME {shell_quoted(folder)} OUT",
    ]
    return Summary(overview(learned, observed), patterns(observed, [v.name for v in chosen.views])[1:], notes, counts)


def _roles(description: dict[str, Any], conversions: dict[str, Conversion], roles: Roles) -> Roles:
    """Return the user's roles, completed by those of the training data."""
    names = {role: (description.get(role) or {}).get("name") for role in ("ids", "labels", "groups")}
    tables = {title: c for title, c in conversions.items() if isinstance(c, TableConversion)}
    kinds = {title: c.kind for title, c in conversions.items() if isinstance(c, ArrayConversion)}
    columns = [column for table in tables.values() for column in (*table.columns, *table.unmodelled)]
    kinds |= {column.name: column.kind for column in columns}
    pictures = {title: c for title, c in conversions.items() if isinstance(c, ArrayConversion) and is_picture(c)}
    slots = {title: c.facts.get("slot", "X") for title, c in conversions.items()}
    na = {column.name: column.form.missing for column in columns if column.form.missing}
    return replace(
        roles,
        id=roles.id or names["ids"],
        label=roles.label or names["labels"],
        group=roles.group or names["groups"],
        targets=tuple(entry["name"] for entry in description.get("targets", ())),
        modalities={title: tuple(c.name for c in (*t.columns, *t.unmodelled)) for title, t in tables.items()},
        kinds=kinds,
        images={title: reading_of(conversion) for title, conversion in pictures.items()},
        folders=roles.folders or next((c.facts.get("folders", "modalities") for c in pictures.values()), None),
        layer={name: slot.removeprefix("layers/") for name, slot in slots.items() if slot == "raw" or "layers/" in slot}
        | dict(roles.layer),
        obsm=(*roles.obsm, *(slot.removeprefix("obsm/") for slot in slots.values() if slot.startswith("obsm/"))),
        series=next((c.facts["series"] for c in conversions.values() if "series" in c.facts), roles.series),
        na={**roles.na, **{name: (*marks, *roles.na.get(name, ())) for name, marks in na.items()}},
        keep_na=(*roles.keep_na, *(column.name for column in columns if not column.form.marks)),
        patterns={column.name: column.form.pattern for column in columns if column.form.pattern},
        only=frozenset(column.name for column in columns),
    )


def _available_roles(wanted: Roles, given: Roles, contents: Sequence[SourceContents]) -> Roles:
    """Remove the names that the sources do not have, except those that the user named, so that `join` reports them."""
    roles = [role for source in contents for role in (source.label, source.group, source.ids) if role]
    names = {name for source in contents for name in (*source.headers, *source.names)} | {name for name, _ in roles}
    views = [view for source in contents for view in source.views]
    kinds = {name for view in views for name in (view.name, *view.columns)}
    matrices = {name for source in contents for name in source.matrices}

    def available(name: str | None, named_by_user: str | None) -> str | None:
        return name if name in names or named_by_user else None

    return replace(
        wanted,
        id=available(wanted.id, given.id),
        label=available(wanted.label, given.label),
        group=available(wanted.group, given.group),
        targets=tuple(name for name in wanted.targets if name in names),
        modalities={n: columns for n, columns in wanted.modalities.items() if n in {view.name for view in views}},
        kinds={name: kind for name, kind in wanted.kinds.items() if name in kinds},
        layer={n: layer for n, layer in wanted.layer.items() if n in given.layer or f"layer {layer}" in matrices},
        obsm=tuple(name for name in wanted.obsm if name in given.obsm or f"obsm {name}" in matrices),
        na={name: marks for name, marks in wanted.na.items() if name in names},
        keep_na=tuple(name for name in wanted.keep_na if name in names),
    )


def _as_trained(joined: Joined, conversions: dict[str, Conversion]) -> Joined:
    """Return the samples with modalities in the order, kinds, shapes and types of the training data."""
    place = {view.name: m for m, view in enumerate(joined.views)}
    if unknown := place.keys() - conversions.keys():
        expected = f"expected some of {listed(conversions)}"
        remedy = "name files and keys as in the training data, or leave it out (--skip)"
        raise UserError(f"modality {min(unknown)}: not in the training data, {expected}; {remedy}")
    order = [place[name] for name in conversions if name in place]
    views = tuple(_view_as_trained(view, conversions[view.name]) for view in (joined.views[m] for m in order))
    return replace(joined, views=views, places=joined.places[:, order], rows=joined.rows[:, order])


def _with_affines(description: dict[str, Any], views: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the training data's conversion with the affines of these volumes; `views` are facts by key of a modality.

    A contrast that is missing here gets the affines of another contrast that has its shape in the training data.
    """
    entries = description["modalities"]
    facts = {key: own for key, own in views.items() if own["source"] == "nifti"}
    updated = dict(entries)
    for name, entry in entries.items():
        if same := [n for n in (name, *facts) if n in facts and entries[n].get("volume") == entry.get("volume")]:
            keys = [key for key in SPATIAL_KEYS if key in facts[same[0]] and (same[0] == name or "header" not in key)]
            updated[name] = entry | {key: facts[same[0]][key] for key in keys}
    return description | {"modalities": updated}


def _view_as_trained(view: View, conversion: Conversion) -> View:
    """Return a view with the types of the training data; another kind, shape, orientation or features are refused."""
    if isinstance(view, TableView) and isinstance(conversion, TableConversion):
        known = (*conversion.columns, *conversion.unmodelled)
        columns = {c.name: _column_as_trained(view.facts["file"], view.content, c) for c in known}
        return replace(view, content=pa.table(columns))
    if not isinstance(view, ArrayView) or not isinstance(conversion, ArrayConversion):
        kinds = ("a table", "an array") if isinstance(view, TableView) else ("an array", "a table")
        raise UserError(f"{view.name}: {kinds[0]} found, expected {kinds[1]} as in the training data; convert the file")
    is_bytes = [np.dtype(dtype) == np.uint8 for dtype in (view.content.dtype, conversion.dtype)]
    if view.axes != conversion.axes or view.content.shape[1:] != conversion.shape or is_bytes[0] != is_bytes[1]:
        found = f"{view.content.dtype} of shape {view.content.shape[1:]}"
        expected = f"{conversion.dtype} of shape {conversion.shape} as in the training data"
        raise UserError(f"{view.name}: {found} found, expected {expected}; convert the array")
    if conversion.facts["source"] == view.facts["source"] == "nifti":
        check_grid(view.name, view.facts["affine"], conversion.facts["affine"])
    if view.facts.get("features") != conversion.facts.get("features") and view.facts["source"] == "omics":
        expected = "expected those of the training data in the same order; select and sort the features"
        raise UserError(f"{view.name}: different features found, {expected}")
    return view


def _column_as_trained(place: str, table: pa.Table, column: ColumnConversion) -> pa.ChunkedArray:
    """Return a column in the type of the training data, null if the table lacks it; new categories are refused."""
    kind = named_type(column.type)
    values = table[column.name] if column.name in table.column_names else pa.nulls(len(table))
    if values.null_count == len(values):
        return pa.chunked_array([pa.nulls(len(table), kind)])
    dates = pa.types.is_temporal(kind), pa.types.is_temporal(values.type)
    if column.kind == UNMODELLED or (column.kind != "categorical" and not any(dates)):
        return values
    try:
        if dates[0] != dates[1]:
            raise pa.ArrowInvalid("dates and other values")
        values = values.cast(kind)
    except pa.ArrowInvalid:
        expected = f"expected type {kind} as in the training data; convert the column"
        raise UserError(f"{place}: column {column.name}: type {values.type} found, {expected}") from None
    if column.kind == "categorical" and not column.others:
        _check_known(f"{place}: column {column.name}", values, column.values)
    return values


def _check_known(place: str, column: pa.ChunkedArray, categories: Sequence[Any]) -> None:
    """Refuse a category or label that the training data do not have."""
    new = column.filter(pc.invert(pc.is_in(column.fill_null(categories[0]), pa.array(categories, column.type))))
    if len(new):
        expected = f"expected one of {enumerated(categories, 20)}"
        remedy = "correct the value or leave the row out"
        raise UserError(f"{place}: {str(new[0].as_py())!r} found, which no training row has, {expected}; {remedy}")


def _labels(named: Named | None, trained: Dataset) -> Values | None:
    """Return labels (N,) as indices of the training data's label names, −1 for rows without one; None if all are.

    A label that the training data do not have is refused, unless rare labels were taken away from the training data.
    """
    if named is None or trained.label_names is None or named[1].null_count == len(named[1]):
        return None
    (name, column), treatment = named, (trained.conversion or {}).get("labels") or {}
    with suppress(KeyError, pa.ArrowException):
        column = column.cast(named_type(treatment["type"]))
    if treatment.get("others"):
        column = grouped(column, Categories(trained.label_names, True))
    values = column.unique()
    texts = pa.chunked_array([[None if value is None else str(value) for value in values.to_pylist()]], pa.string())
    if not treatment.get("unlabelled"):
        _check_known(f"label {name}", texts, trained.label_names)
    places = pc.index_in(texts, value_set=pa.array(trained.label_names)).fill_null(-1)
    return places.take(pc.index_in(column, value_set=values)).to_numpy().astype(np.int64)
