"""Join sources into one set of samples; rows are matched by id, or by their order if no source has ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.forms import Form
from postprior.pipelines.data.formats.contents import Named, Roles, SourceContents, TableView, View, check_type
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import first_duplicate, hint, listed
from postprior.pipelines.texts import brief, shell_quoted, shortened

SUFFIX = r"(?i)\.(png|jpe?g|tiff?|bmp|webp|npy|nii|nii\.gz|csv|txt|dcm)$"
"""Suffixes of files that one source has in its ids and another has not."""
LONGEST = 1000
"""Maximal number of characters of an id, a subject, a label, a split or a target."""


@dataclass(frozen=True)
class Joined:
    """N samples of M modalities before they are split.

    Attributes:
        views: the modalities.
        places: (N, M), the row of each sample in each view, −1 where the modality is missing.
        rows: (N, M), the same, but also with table rows that exist without any value.
        ids: name and values (N,); the name is None if the sources have none.
        label: name and values (N,), null for samples without a label, or None.
        group: name and values (N,), or None.
        split: name and values (N,), or None.
        targets: values (N,) by name.
        headers: the headers of each table, by file.
        spellings: headers as the file writes them, by file and header, where these differ.
        types: original Arrow types of simplified columns, by file and header.
        dialects: unusual dialects of text files, by file.
        originals: label and targets with their original values, by name, if these have been simplified.
        dropped: the number of samples that have no modality and were left out.
        forms: how files write the cells of targets, by name, where this is unusual.
        id_headers: headers of ids, by file, where they are not the name in `ids`.
        notes: lines that tell the user how the sources were read.
        kept: columns (N rows) that come back on export whether they have a role or not; null where a source has no row.
        frames: the types of the columns and the index of data frames in memory, by file.
    """

    views: tuple[View, ...]
    places: Values
    rows: Values
    ids: Named
    label: Named | None
    group: Named | None
    split: Named | None
    targets: Mapping[str, pa.ChunkedArray]
    headers: Mapping[str, tuple[str, ...]]
    types: Mapping[str, Mapping[str, str]]
    dialects: Mapping[str, Mapping[str, str]]
    originals: Mapping[str, pa.ChunkedArray]
    dropped: int
    forms: Mapping[str, Form] = field(default_factory=dict)
    id_headers: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spellings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kept: pa.Table | None = None
    frames: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def observed(self) -> Values:
        """(N, M) bool: whether each sample has each modality."""
        return self.places >= 0

    def mark(self, view: View) -> str:
        """Return the decimal mark in the file of a view."""
        return self.dialects.get(view.facts.get("file", ""), {}).get("decimal", ".")


def join(sources: Sequence[SourceContents], roles: Roles) -> Joined:
    """Join all sources: a sample lacks the modalities of sources without it, and is dropped if it has none at all."""
    _check_roles(sources, roles)
    views = [(view, number) for number, source in enumerate(sources) for view in source.views]
    _check_names(sources, [view.name for view, _ in views])
    ids, rows, notes = _match(sources)
    places = np.stack([np.where((rows[n] >= 0) & view.present[rows[n]], rows[n], -1) for view, n in views], 1)
    tables = np.array([isinstance(view, TableView) for view, _ in views])
    kept = np.flatnonzero((places >= 0).any(1))
    if not len(kept):
        expected = "expected at least one modality in some rows; correct the masks or fill in values"
        raise UserError(f"{sources[0].place}: {len(places)} rows without any modality found, {expected}")
    chosen = pa.array(kept)

    def column(role: str, name: str | None = None) -> Named | None:
        """Return the name and values of a role, or of the target `name`; None if no source has it."""
        having: list[tuple[SourceContents, Named, pa.Array]] = []
        for source, row in zip(sources, rows, strict=True):
            named = getattr(source, role) if name is None else (name, source.targets.get(name))
            if named is not None and named[1] is not None:
                _check_role(source.place, named[0], named[1])
                having.append((source, named, pa.array(row[kept], mask=row[kept] < 0)))
        if not having:
            return None
        header, samples = having[0][1][0] or "", ids[1].take(chosen)
        columns = alike([values.take(rows) for _, (_, values), rows in having])
        for (one, first), (other, second) in combinations(zip(having, columns, strict=True), 2):
            _check_agreement((one[0].place, other[0].place), header, (first, second), samples)
        values = coalesced(columns)
        if role != "label":  # rows may have none
            _check_complete(having[0][0].place, header, values, samples)
        candidates = [(source.originals.get(header), rows) for source, _, rows in having]
        if present := [original.take(rows) for original, rows in candidates if original is not None]:
            originals[header] = coalesced(present)
        return header, values

    originals: dict[str, pa.ChunkedArray] = {}
    targets = dict.fromkeys(name for source in sources for name in source.targets)
    return Joined(
        tuple(view for view, _ in views),
        places[kept],
        np.where(tables, np.stack([rows[n] for _, n in views], 1), places)[kept],
        (ids[0], ids[1].take(chosen)),
        column("label"),
        column("group"),
        column("split"),
        {name: named[1] for name in targets if (named := column("targets", name))},
        {source.place: source.headers for source in sources if source.headers},
        {source.place: types for source in sources if (types := _types(source, ids[1].type))},
        {source.place: source.dialect for source in sources if source.dialect},
        originals,
        len(places) - len(kept),
        {name: source.forms[name] for source in sources for name in source.targets if name in source.forms},
        {s.place: s.ids[0] for s in sources if s.headers and s.ids and s.ids[0] not in (None, ids[0])},
        tuple(note for source in sources for note in source.notes) + notes,
        {source.place: source.spellings for source in sources if source.spellings},
        _kept(sources, [pa.array(row[kept], mask=row[kept] < 0) for row in rows]),
        {source.place: source.frame for source in sources if source.frame},
    )


def _kept(sources: Sequence[SourceContents], rows: Sequence[pa.Array]) -> pa.Table | None:
    """Return the columns of all sources that come back on export, at these rows of each source."""
    pairs = [
        (field, source.kept.column(place).take(row))
        for source, row in zip(sources, rows, strict=True)
        if source.kept is not None
        for place, field in enumerate(source.kept.schema)
    ]
    fields, columns = zip(*pairs, strict=True) if pairs else ((), ())
    return pa.Table.from_arrays(list(columns), schema=pa.schema(list(fields))) if pairs else None


def _types(source: SourceContents, kind: pa.DataType) -> dict[str, str]:
    """Return original types of simplified columns, and of the source's ids if their type is not the joint `kind`."""
    types = dict(source.types)
    if source.ids is not None and source.ids[0] in source.headers and source.ids[1].type != kind:
        types.setdefault(str(source.ids[0]), str(source.ids[1].type))
    return types


def alike(columns: Sequence[pa.ChunkedArray]) -> list[pa.ChunkedArray]:
    """Return columns in one type: numbers as floats, and others as texts, if their types differ."""
    if all(column.type == columns[0].type for column in columns):
        return list(columns)
    numbers = all(pa.types.is_integer(column.type) or pa.types.is_floating(column.type) for column in columns)
    return [column.cast(pa.float64() if numbers else pa.string(), safe=False) for column in columns]


def coalesced(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return the first value of each row among the columns that have the type of the first column."""
    return pc.coalesce(*(column for column in columns if column.type == columns[0].type))


def _check_names(sources: Sequence[SourceContents], names: Sequence[str]) -> None:
    """Refuse duplicate names of modalities, and sources without any modality."""
    if not names:
        expected = "expected columns, arrays or images besides those with roles"
        reasons = [brief(note) for source in sources for note in source.notes]
        reason = f" ({'; '.join(reasons[-2:])})" if reasons else ""
        raise UserError(
            f"{sources[0].place}: no modality found, {expected}{reason}; add some or remove a role or --skip"
        )
    if (same := first_duplicate(names)) is not None:
        raise UserError(
            f"modality {same}: found in two sources, expected different names; rename a file, folder or key"
        )


def _check_roles(sources: Sequence[SourceContents], roles: Roles) -> None:
    """Check that each name given by the user exists, and that a role other than id and label is in only one table."""
    headers = [name for source in sources for name in (*source.headers, *source.names)]
    given = [("label", roles.label), ("group", roles.group), ("split", roles.split), ("id", roles.id)]
    for role, name in [*given, *(("target", name) for name in roles.targets)]:
        count = headers.count(name) if name else 0
        if name and not count:
            expected = f"expected one of {listed(headers)}; correct the name"
            raise UserError(f"--{role} {name}: no such column found{hint(name, headers)}, {expected}")
        if sum(name in source.headers for source in sources) > 1 and role not in ("id", "label"):
            remedy = "rename or remove the other columns"
            raise UserError(f"--{role} {name}: found in {count} tables, expected it in only one; {remedy}")
    if roles.rare_labels and not any(source.label for source in sources):
        raise UserError(f"--rare-labels {roles.rare_labels}: no labels found, expected a column of them; add --label")
    skipped = {name for source in sources for name in source.skipped}
    views = [view.name for source in sources for view in source.views]
    names = [*headers, *views]
    for name in roles.skip:
        if name not in skipped:
            expected = f"expected one of {listed(names)}; correct the name"
            raise UserError(f"--skip {name}: no such column, array or folder found{hint(name, names)}, {expected}")
    for name in roles.modalities:
        if name not in views:
            expected = f"expected some of {listed(headers)}; correct the names"
            raise UserError(f"--modality {name}: none of its columns found, {expected}")
    for option, columns in (("na", [name for name in roles.na if name]), ("keep-na", roles.keep_na)):
        for name in columns:
            if name not in headers:
                expected = f"expected one of {listed(headers)}; correct the name"
                raise UserError(f"--{option} {name}: no such column found{hint(name, headers)}, {expected}")
    for name in roles.layer:
        if name and name not in views:
            expected = f"expected one of {listed(views)}; correct the name"
            raise UserError(f"--layer {name}: no such modality found{hint(name, views)}, {expected}")
    slots = {view.facts.get("slot", "") for source in sources for view in source.views}
    matrices = [name for source in sources for name in source.matrices]
    for option, name, used in (
        *(("layer", name, f"layers/{name}" in slots or name in slots) for name in roles.layer.values()),
        *(("obsm", name, f"obsm/{name}" in slots) for name in roles.obsm),
    ):
        if not used:
            offered = [entry.partition(" ")[2] for entry in matrices if entry.startswith(option)]
            expected = (
                f"expected one of {listed(offered)}; correct the name"
                if offered
                else "expected an AnnData file; leave it out"
            )
            raise UserError(f"--{option} {name}: no such matrix found{hint(name, offered)}, {expected}")
    for name in roles.kinds:
        if name not in names:
            expected = f"expected one of {listed(names)}; correct the name"
            raise UserError(f"--kind {name}: no such column or modality found{hint(name, names)}, {expected}")


def _match(sources: Sequence[SourceContents]) -> tuple[Named, list[Values], tuple[str, ...]]:
    """Return the ids of all N samples in order of first appearance, their row in each source or −1, and notes."""
    with_ids = [source for source in sources if source.ids is not None]
    if not with_ids:
        first = sources[0]
        for source in sources:
            if source.rows != first.rows:
                expected = f"expected {first.rows} as in {first.place}; match rows by a column with --id"
                raise UserError(f"{source.place}: {source.rows} rows found, {expected}")
        return (None, pa.chunked_array([np.arange(first.rows)])), [np.arange(first.rows)] * len(sources), ()
    if len(with_ids) < len(sources):
        without = next(source.place for source in sources if source.ids is None)
        expected = f"expected ids as in {with_ids[0].place}; name the column of ids with --id"
        raise UserError(f"{without}: no ids found, {expected}")
    named, notes = _alike([_checked_ids(source) for source in with_ids], [source.place for source in with_ids])
    same = len({str(ids.type) for _, ids in named}) == 1
    columns = [ids if same else ids.cast(pa.string()) for _, ids in named]
    all_ids = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    texts = all_ids.cast(pa.string())
    distinct = texts.unique()
    indices = [pc.index_in(distinct, value_set=ids.cast(pa.string())).fill_null(-1) for _, ids in named]
    rows = [places.to_numpy().astype(np.int64) for places in indices]
    for source, (_, ids), row in zip(with_ids, named, rows, strict=True):
        if not ((row >= 0) & (rows[0] >= 0)).any():
            found = f"no id is also in {with_ids[0].place} (found '{ids[0]}' here and '{named[0][1][0]}' there)"
            expected = "expected the same ids; correct them or name another column with --id"
            raise UserError(f"{source.place}: {found}, {expected}")
    name = next((name for name, _ in named if name), None)
    return (name, all_ids.take(pc.index_in(distinct, value_set=texts))), rows, notes


def _alike(named: list[Named], places: Sequence[str]) -> tuple[list[Named], tuple[str, ...]]:
    """Replace ids by those of the first source where they differ only in blanks, `.0`, a suffix or Unicode form."""
    notes: tuple[str, ...] = ()
    first, loose = named[0][1].cast(pa.string()), _loose(named[0][1])
    for number, (name, ids) in enumerate(named[1:], 1):
        texts, keys = ids.cast(pa.string()), _loose(ids)
        if any(pc.count_distinct(column).as_py() < len(column) for column in (loose, keys)):
            continue
        known, found = pc.is_in(texts, value_set=first), pc.index_in(keys, value_set=loose)
        if len(places_of := pc.indices_nonzero(pc.and_(pc.invert(known), found.is_valid()))):
            row = places_of[0].as_py()
            shown = f"'{texts[row]}' as '{first[found[row].as_py()]}'"
            notes += (f"{places[number]}: {len(places_of)} ids matched in another form: {shown}",)
            same = pc.if_else(known, texts, first.take(found))
            named[number] = name, pc.coalesce(same, texts)
    return named, notes


def _loose(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ids as composed texts without surrounding blanks, `.0` of whole numbers and suffixes of files."""
    texts = pc.utf8_trim_whitespace(pc.utf8_normalize(ids.cast(pa.string()), "NFC"))
    texts = pc.replace_substring_regex(texts, r"^(\d+)\.0+$", r"\1")
    return pc.replace_substring_regex(texts, SUFFIX, "")


def _checked_ids(source: SourceContents) -> Named:
    """Return the name and ids of a source, after a check that ids are complete and unique."""
    assert source.ids is not None
    name, ids = source.ids
    _check_role(source.place, name or "name", ids)
    if ids.null_count:
        expected = "expected one id per row; fill in the ids"
        raise UserError(f"{source.place}: {name}: {ids.null_count} rows without an id found, {expected}")
    values, counts = np.unique(ids.cast(pa.string()).to_pylist(), return_counts=True)
    if counts.max() > 1:
        found = f"{name or 'name'} '{values[counts > 1][0]}' found {counts.max()} times, expected each id once"
        remedy = "keep all rows with --repeated visits, or the first with --repeated first, or name another --id"
        raise UserError(f"{source.place}: {found}; {remedy}")
    return name, ids


def _check_role(place: str, name: str, column: pa.ChunkedArray) -> None:
    """Refuse a column of a type that no role has, or with long texts: in NumPy, each takes as much as the longest."""
    check_type(place, name, column)
    if pa.types.is_string(column.type) and (longest := pc.max(pc.utf8_length(column)).as_py() or 0) > LONGEST:
        text = column[pc.index(pc.utf8_length(column), longest).as_py()].as_py()
        expected = f"expected at most {LONGEST}; use shorter ids or names"
        raise UserError(f"{place}: {name}: a text of {longest} characters, {shortened(text, 40)}, found, {expected}")


def _check_agreement(
    places: tuple[str, str], name: str, columns: tuple[pa.ChunkedArray, pa.ChunkedArray], ids: pa.ChunkedArray
) -> None:
    """Refuse two columns (N,) of one role with different values in a sample that both have."""
    differs = pc.not_equal(*columns).fill_null(False)
    if len(first := pc.indices_nonzero(differs)[:3]):
        rows = zip(*(column.take(first).to_pylist() for column in (ids, *columns)), strict=True)
        texts = [f"{id!r} has {one!r} and {other!r}" for id, one, other in rows]
        found = f"{pc.sum(differs).as_py()} samples have different values in {places[0]} and {places[1]} found"
        raise UserError(f"{name}: {found}: {', '.join(texts)}; correct them, or leave the column out of one file")


def _check_complete(place: str, name: str, values: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
    """Refuse a column that has no value for one of the samples."""
    if values.null_count:
        first = ids[pc.index(values.is_null(), True).as_py()].as_py()
        found = f"{values.null_count} of {len(values)} samples have no value, the first of them is {first!r}"
        expected = "expected one value per sample; fill in the values, leave the column out"
        expected += f", or add --keep-na {shell_quoted(name)} if a text such as NA is a value"
        raise UserError(f"{place}: {name}: {found}, {expected}")
