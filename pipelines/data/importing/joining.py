"""Sources as one set of samples: rows matched by id, or by their order where no source has ids."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.formats.contents import Named, Roles, SourceContents, TableView, View, check_type
from postprior.pipelines.data.manifest import OPTIONAL
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import hint, listed

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class Joined:
    """N samples of M modalities, the `views`, before they are split.

    `places` (N, M) are the row of each sample in each view, −1 where the view lacks it; `rows` are the same with rows
    of tables that have the sample, and no value of it. Roles are names and values (N,), the name of `ids` None where
    the source has none; `originals` are the label and targets as their file has them, by name, where that is another
    way. `headers`, `types` and `dialects` are those of the tables by file. `dropped` samples are in no modality.
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

    def __len__(self) -> int:
        return len(self.places)

    @property
    def observed(self) -> Values:
        """(N, M) bool."""
        return self.places >= 0

    def mark(self, view: View) -> str:
        """What stands before decimals in the file of a view."""
        return self.dialects.get(view.facts.get("file", ""), {}).get("decimal", ".")


def join(found: Sequence[SourceContents], roles: Roles) -> Joined:
    """All sources together: a sample absent from a source lacks its modalities, one absent from all is dropped."""
    _check_roles(found, roles)
    views = [(view, number) for number, source in enumerate(found) for view in source.views]
    _check_names(found, [view.name for view, _ in views])
    ids, rows = _match(found)
    places = np.stack([np.where((rows[n] >= 0) & view.present[rows[n]], rows[n], -1) for view, n in views], 1)
    tables = np.array([isinstance(view, TableView) for view, _ in views])
    kept = np.flatnonzero((places >= 0).any(1))
    if not len(kept):
        expected = "expected some that have one; correct the masks or fill the values"
        raise UserError(f"{found[0].place}: {len(places)} rows without any modality found, {expected}")
    chosen = pa.array(kept)

    def column(role: str, name: str | None = None) -> Named | None:
        having: list[tuple[SourceContents, Named, pa.Array]] = []
        for source, row in zip(found, rows, strict=True):
            named = getattr(source, role) if name is None else (name, source.targets.get(name))
            if named is not None and named[1] is not None:
                check_type(source.place, named[0], named[1])
                having.append((source, named, pa.array(row[kept], mask=row[kept] < 0)))
        if not having:
            return None
        header = having[0][1][0] or ""
        values = together([values.take(rows) for _, (_, values), rows in having])
        _check_complete(having[0][0].place, header, values, ids[1].take(chosen))
        known = [(source.originals.get(header), rows) for source, _, rows in having]
        if others := [original.take(rows) for original, rows in known if original is not None]:
            originals[header] = together(others)
        return header, values

    originals: dict[str, pa.ChunkedArray] = {}
    targets = dict.fromkeys(name for source in found for name in source.targets)
    return Joined(
        tuple(view for view, _ in views),
        places[kept],
        np.where(tables, np.stack([rows[n] for _, n in views], 1), places)[kept],
        (ids[0], ids[1].take(chosen)),
        column("label"),
        column("group"),
        column("split"),
        {name: named[1] for name in targets if (named := column("targets", name))},
        {source.place: source.headers for source in found if source.headers},
        {source.place: types for source in found if (types := _types(source, ids[1].type))},
        {source.place: source.dialect for source in found if source.dialect},
        originals,
        len(places) - len(kept),
    )


def _types(source: SourceContents, kind: pa.DataType) -> dict[str, str]:
    """Types of a source's columns that were made plainer, and of its ids where those of all samples are of `kind`."""
    types = dict(source.types)
    if source.ids is not None and source.ids[0] in source.headers and source.ids[1].type != kind:
        types.setdefault(str(source.ids[0]), str(source.ids[1].type))
    return types


def together(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    """The first value of each row, of the columns of the first one's type."""
    return pc.coalesce(*(column for column in columns if column.type == columns[0].type))


def _check_names(found: Sequence[SourceContents], names: Sequence[str]) -> None:
    """Refuse names that modalities cannot have, the same name twice, and no modality at all.

    Names become those of files, and on many disks `RNA.npy` and `rna.npy` are one file.
    """
    if not names:
        raise UserError(f"{found[0].place}: found no modality, expected columns, arrays or images beside the roles")
    for place, name in ((source.place, view.name) for source in found for view in source.views):
        if name.lower() in OPTIONAL or not NAME.fullmatch(name):
            expected = f"expected up to 100 letters, digits, _ and - and none of {listed(OPTIONAL)}"
            raise UserError(f"{place}: {name!r} is no name for a modality, {expected}; rename the file, folder or key")
    counts = Counter(name.lower() for name in names)
    if same := [name for name in names if counts[name.lower()] > 1]:
        place = "in two sources" if same[0] in same[1:] else f"beside {same[1]}"
        raise UserError(f"modality {same[0]}: found {place}, expected different names; rename a file, folder or key")


def _check_roles(found: Sequence[SourceContents], roles: Roles) -> None:
    """Every name that the user gave is in one source, names of modalities and of columns of tables alike."""
    headers = [name for source in found for name in (*source.headers, *source.names)]
    asked = [("label", roles.label), ("group", roles.group), ("split", roles.split), ("id", roles.id)]
    for role, name in [*asked, *(("target", name) for name in roles.targets)]:
        count = headers.count(name) if name else 0
        if name and not count:
            raise UserError(f"--{role} {name}: no such column{hint(name, headers)}; found: {listed(headers)}")
        if sum(name in source.headers for source in found) > 1 and role != "id":
            raise UserError(f"--{role} {name}: found in {count} tables, expected it in one; rename or drop the others")
    skipped = {name for source in found for name in source.skipped}
    views = [view.name for source in found for view in source.views]
    known = [*headers, *views]
    for name in roles.skip:
        if name not in skipped:
            remedy = f"{hint(name, known)}; found: {listed(known)}"
            raise UserError(f"--skip {name}: nothing of that name can be left out{remedy}")
    for name in roles.modalities:
        if name not in views:
            raise UserError(f"--modality {name}: none of its columns found; found: {listed(headers)}")
    for name in roles.kinds:
        if name not in known:
            raise UserError(f"--kind {name}: no such column or modality{hint(name, known)}")


def _match(found: Sequence[SourceContents]) -> tuple[Named, list[Values]]:
    """The ids of all N samples in the order of their first appearance, and the row of each in every source, or −1."""
    with_ids = [source for source in found if source.ids is not None]
    if not with_ids:
        first = found[0]
        for source in found:
            if source.rows != first.rows:
                expected = f"{first.place} has {first.rows}, expected as many; match rows by a column with --id"
                raise UserError(f"{source.place}: {source.rows} rows found, {expected}")
        return (None, pa.chunked_array([np.arange(first.rows)])), [np.arange(first.rows)] * len(found)
    if len(with_ids) < len(found):
        without = next(source.place for source in found if source.ids is None)
        other = with_ids[0].place
        raise UserError(f"{without}: found no ids, {other} has them, expected them everywhere; name with --id")
    named = [_checked_ids(source) for source in with_ids]
    same = len({str(ids.type) for _, ids in named}) == 1
    columns = [ids if same else ids.cast(pa.string()) for _, ids in named]
    together = pa.chunked_array([chunk for column in columns for chunk in column.chunks])
    texts = together.cast(pa.string())
    every = texts.unique()
    found_at = [pc.index_in(every, value_set=ids.cast(pa.string())).fill_null(-1) for _, ids in named]
    rows = [places.to_numpy().astype(np.int64) for places in found_at]
    for source, (_, ids), row in zip(with_ids, named, rows, strict=True):
        if not ((row >= 0) & (rows[0] >= 0)).any():
            found_there = f"no id is one of {with_ids[0].place} (such as '{ids[0]}' and '{named[0][1][0]}')"
            expected = "expected the same ids; correct them or name another column with --id"
            raise UserError(f"{source.place}: {found_there}, {expected}")
    name = next((name for name, _ in named if name), None)
    return (name, together.take(pc.index_in(every, value_set=texts))), rows


def _checked_ids(source: SourceContents) -> Named:
    """The name and ids of a source, each there once."""
    assert source.ids is not None
    name, ids = source.ids
    check_type(source.place, name or "name", ids)
    if ids.null_count:
        raise UserError(f"{source.place}: {name}: {ids.null_count} rows without an id, expected one a row; fill them")
    values, counts = np.unique(ids.cast(pa.string()).to_pylist(), return_counts=True)
    if counts.max() > 1:
        found = f"{name or 'name'} '{values[counts > 1][0]}' found {counts.max()} times, expected every id once"
        raise UserError(f"{source.place}: {found}; merge such rows or name another column with --id")
    return name, ids


def _check_complete(place: str, name: str, values: pa.ChunkedArray, ids: pa.ChunkedArray) -> None:
    """Refuse a column that has no value for one of the samples."""
    if values.null_count:
        first = ids[pc.index(values.is_null(), True).as_py()].as_py()
        found = f"{values.null_count} of {len(values)} samples have none, the first of them {first!r}"
        raise UserError(f"{place}: {name}: {found}, expected a value each; fill them or leave the column out")
