"""`postprior import --like`: rows for a model that was trained before, in the scales and categories that it learned."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion, ColumnConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.columns import named_type
from postprior.pipelines.data.dataset import PLACES, Dataset
from postprior.pipelines.data.formats import read_source, samples_of
from postprior.pipelines.data.formats.contents import ArrayView, Found, Named, Roles, TableView, View
from postprior.pipelines.data.formats.nifti import check_orientation
from postprior.pipelines.data.importing.joining import Joined, join
from postprior.pipelines.data.importing.run import converted
from postprior.pipelines.data.importing.summary import outliers, overview, patterns, shortened
from postprior.pipelines.data.manifest import files_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.names import listed
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.texts import shell_quoted


def import_rows(sources: Sequence[Path], folder: Path, roles: Roles, like: Path) -> list[str]:
    """Make one dataset folder of rows that need no label and may lack modalities; returns lines on what was understood.

    The sources are such as the training data came from, with the same columns and names of modalities; `like` is what
    the import of these made, or one of its splits. Roles that the user does not name are those of the training data,
    where the sources have them. A category, label, feature, shape or type that these have not is refused.
    """
    inputs = [*sources, like]
    check_folder(folder, partial(files_of, origin="rows"), inputs)
    trained = Dataset.load(like / "train" if (like / "train" / MANIFEST).exists() else like)
    if trained.conversion is None:
        raise UserError(f"{like}: found no conversion in it, expected data that postprior import made")
    known = {conversion.name: conversion for conversion in samples_of(trained).conversions}
    wanted = _roles(trained.conversion, known, roles)
    found = [one for source in sources for one in read_source(source, wanted)]
    joined = join(found, _that_are_there(wanted, roles, found))
    chosen = _as_trained(joined, known)
    learned = [known[view.name] for view in chosen.views]
    targets = [ColumnConversion.from_description(entry) for entry in trained.conversion.get("targets", ())]
    targets = targets if all(target.name in joined.targets for target in targets) else []
    table = pa.table(dict(joined.targets))
    chosen = replace(chosen, targets={t.name: _column_as_trained("target", table, t) for t in targets})
    names = None if joined.label is None else trained.label_names
    labels = _labels(joined.label, trained)
    dataset = converted(chosen, np.arange(len(joined)), learned, targets, labels, names)
    provenance = {"source": "import", "sources": [source.name for source in sources], "like": trained.hash}
    conversion = _placed(trained.conversion, joined.views)
    replace(dataset, conversion=conversion, provenance=provenance).save(folder, inputs)
    lines = _understood(joined, chosen, dataset.observed, known)
    return [*lines, f"rows: {len(dataset)}", f"Go on with: postprior impute NAME {shell_quoted(folder)} OUT"]


def _understood(joined: Joined, chosen: Joined, observed: Values, known: dict[str, Conversion]) -> list[str]:
    """Lines for the user: what the rows have, what they lack, and what of the sources the training data have not."""
    learned = [known[view.name] for view in chosen.views]
    lines = [*overview(learned, observed), "", *patterns(observed, [view.name for view in chosen.views])]
    columns = {column for view in joined.views for column in view.columns}
    absent = [name for name in known if name not in {view.name for view in chosen.views}]
    tables = [conversion for conversion in learned if isinstance(conversion, TableConversion)]
    absent += [column.name for table in tables for column in table.columns if column.name not in columns]
    if absent:
        lines.append(f"missing in every row: {shortened(absent)}")
    taken = columns | joined.targets.keys() | {of[0] for of in (joined.ids, joined.label, joined.group) if of}
    if others := [name for headers in joined.headers.values() for name in headers if name not in taken]:
        lines.append(f"not in the training data, left out: {shortened(others)}")
    for view, conversion in zip(chosen.views, learned, strict=True):
        lines += outliers(view, conversion)
    return [*lines, *([f"left out: {joined.dropped} rows that no modality has"] if joined.dropped else [])]


def _roles(description: dict[str, Any], known: dict[str, Conversion], roles: Roles) -> Roles:
    """The user's roles, and those of the training data where the user gives none."""
    names = {role: (description.get(role) or {}).get("name") for role in ("ids", "labels", "groups")}
    tables = [conversion for conversion in known.values() if isinstance(conversion, TableConversion)]
    kinds = {c.name: c.kind for c in known.values() if isinstance(c, ArrayConversion)}
    kinds |= {column.name: column.kind for table in tables for column in table.columns}
    return replace(
        roles,
        id=roles.id or names["ids"],
        label=roles.label or names["labels"],
        group=roles.group or names["groups"],
        targets=tuple(entry["name"] for entry in description.get("targets", ())),
        modalities={table.name: tuple(column.name for column in table.columns) for table in tables},
        kinds=kinds,
        only=frozenset(column.name for table in tables for column in table.columns),
    )


def _that_are_there(wanted: Roles, given: Roles, found: Sequence[Found]) -> Roles:
    """Roles without the names that only the training data have; what the user names is looked for."""
    roles = [role for source in found for role in (source.label, source.group, source.ids) if role]
    names = {name for source in found for name in (*source.headers, *source.names)} | {name for name, _ in roles}
    views = [view for source in found for view in source.views]
    kinds = {name for view in views for name in (view.name, *view.columns)}

    def kept(name: str | None, asked: str | None) -> str | None:
        return name if name in names or asked else None

    return replace(
        wanted,
        id=kept(wanted.id, given.id),
        label=kept(wanted.label, given.label),
        group=kept(wanted.group, given.group),
        targets=tuple(name for name in wanted.targets if name in names),
        modalities={name: of for name, of in wanted.modalities.items() if name in {view.name for view in views}},
        kinds={name: kind for name, kind in wanted.kinds.items() if name in kinds},
    )


def _as_trained(joined: Joined, known: dict[str, Conversion]) -> Joined:
    """The modalities of the samples in the order, kinds, shapes and types of the training data."""
    place = {view.name: m for m, view in enumerate(joined.views)}
    if others := place.keys() - known.keys():
        expected = f"expected some of {listed(known)}; name files and keys as they were, or leave it out (--skip)"
        raise UserError(f"modality {min(others)}: not in the training data, {expected}")
    order = [place[name] for name in known if name in place]
    views = tuple(_view_as_trained(view, known[view.name]) for view in (joined.views[m] for m in order))
    return replace(joined, views=views, places=joined.places[:, order], rows=joined.rows[:, order])


def _placed(description: dict[str, Any], views: Sequence[View]) -> dict[str, Any]:
    """The training data's conversion with the affines of these volumes.

    A contrast that they lack lies where another does that had its shape in the training data.
    """
    entries = description["modalities"]
    here = {view.name: view.facts for view in views if view.facts["source"] == "nifti"}
    placed = dict(entries)
    for name, entry in entries.items():
        if alike := [n for n in (name, *here) if n in here and entries[n].get("volume") == entry.get("volume")]:
            placed[name] = entry | {key: here[alike[0]][key] for key in PLACES if key in here[alike[0]]}
    return description | {"modalities": placed}


def _view_as_trained(view: View, conversion: Conversion) -> View:
    """A view of the kind, shape and types of the training data, which others than these are refused."""
    if isinstance(view, TableView) and isinstance(conversion, TableConversion):
        columns = {c.name: _column_as_trained(view.facts["file"], view.content, c) for c in conversion.columns}
        return replace(view, content=pa.table(columns))
    if not isinstance(view, ArrayView) or not isinstance(conversion, ArrayConversion):
        kinds = ("a table", "an array") if isinstance(view, TableView) else ("an array", "a table")
        raise UserError(f"{view.name}: {kinds[0]} found, expected {kinds[1]} as in the training data; convert it")
    bytes_of = [np.dtype(of) == np.uint8 for of in (view.content.dtype, conversion.dtype)]
    if view.axes != conversion.axes or view.content.shape[1:] != conversion.shape or bytes_of[0] != bytes_of[1]:
        found = f"{view.content.dtype} of shape {view.content.shape[1:]}"
        expected = f"{conversion.dtype} of shape {conversion.shape} as in the training data"
        raise UserError(f"{view.name}: {found} found, expected {expected}; convert it")
    if conversion.facts["source"] == view.facts["source"] == "nifti":
        check_orientation(view.name, view.facts["affine"], conversion.facts["affine"])
    if view.facts.get("features") != conversion.facts.get("features") and view.facts["source"] == "omics":
        found = "other features found than in the training data, expected the same in one order"
        raise UserError(f"{view.name}: {found}; select them")
    return view


def _column_as_trained(place: str, table: pa.Table, column: ColumnConversion) -> pa.ChunkedArray:
    """A column in the type of the training data, null where the table lacks it; new categories are refused."""
    kind = named_type(column.type)
    if column.name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), kind)])
    found = table[column.name]
    if column.kind != "categorical":
        return found
    try:
        found = found.cast(kind)
    except pa.ArrowInvalid:
        expected = f"expected {kind} as in the training data; convert it"
        raise UserError(f"{place}: column {column.name}: {found.type} found, {expected}") from None
    _check_known(f"{place}: column {column.name}", found, column.values)
    return found


def _check_known(place: str, found: pa.ChunkedArray, values: Sequence[Any]) -> None:
    """Refuse a category or label that training never saw."""
    new = found.filter(pc.invert(pc.is_in(found.fill_null(values[0]), pa.array(values, found.type))))
    if len(new):
        expected = f"expected one of {shortened([str(value) for value in values], 20)}; correct it or leave it out"
        raise UserError(f"{place}: {str(new[0].as_py())!r} found, which no training row has, {expected}")


def _labels(named: Named | None, trained: Dataset) -> Values | None:
    """Labels (N,) as places in the training data's names."""
    if named is None or trained.label_names is None:
        return None
    name, column = named
    values = [str(value) for value in column.unique().to_pylist()]
    _check_known(f"label {name}", pa.chunked_array([values]), trained.label_names)
    places = np.array([trained.label_names.index(value) for value in values])
    return places[pc.index_in(column, value_set=column.unique()).to_numpy()]
