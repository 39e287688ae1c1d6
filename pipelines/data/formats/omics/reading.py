"""Read AnnData and MuData files as modalities: X or a layer, and matrices of obsm."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.arrays import REAL
from postprior.pipelines.data.conversion.normalised import NORMALISED, normalised_kind
from postprior.pipelines.data.formats.contents import (
    ArrayView,
    Named,
    Roles,
    SourceContents,
    array_view,
    simplify_column,
)
from postprior.pipelines.data.formats.identities import first_rows, visits
from postprior.pipelines.data.formats.interpretation import Notes
from postprior.pipelines.data.formats.omics.frames import Frame, describe, read_frame
from postprior.pipelines.data.formats.omics.stores import is_group, layout, made_unique, matrix, opened
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import listed

RAW = "raw"
LEFT_OUT = "left out: {}; --layer NAME reads one in place of X, --obsm NAME reads one of obsm as well"
UNREADABLE = "columns of unknown encoding, left out: {}"
DUPLICATE = "features with the name of an earlier one, made unique: {}"
COUNTS = "counts that are not read: layer {}; --layer NAME reads them in place of X"
DIVIDED = (
    "X has been transformed further than counts that were divided by the total of their row, which are not read: layer "
    "{}; --layer NAME reads them in place of X, as counts again"
)
TRIED = 1000
"""Number of stored values, or rows, of a matrix that show whether it has counts."""


@dataclass(frozen=True)
class Annotated:
    """A group of AnnData in the file `path`; `owner` is its name, `place` its name in messages."""

    path: Path
    group: Any
    owner: str
    place: str

    @property
    def layers(self) -> dict[str, Any]:
        """The matrices that can be read in place of X, by name; `raw` is one unless a layer has that name."""
        group = self.group
        raw = group[RAW]["X"] if RAW in group else group.get("raw.X")
        return ({} if raw is None else {RAW: raw}) | _parts(group, "layers")

    @property
    def obsm(self) -> dict[str, Any]:
        """The matrices of obsm, by name."""
        return {name: part for name, part in _parts(self.group, "obsm").items() if is_group(part) or part.ndim == 2}

    def features(self, slot: str) -> Frame:
        """Return the features of the matrix at a place in the file: `X`, `raw` or `layers/…`."""
        if slot != RAW:
            return read_frame(self.group, "var")
        return read_frame(self.group[RAW], "var") if RAW in self.group else read_frame(self.group, "raw.var")


def _parts(group: Any, name: str) -> dict[str, Any]:
    """Return the parts of a group, or the fields of an array of records, as anndata before 0.7 wrote them."""
    stored: Any = group.get(name, {})
    names = sorted(stored.keys()) if is_group(stored) else stored.dtype.names or ()
    return {str(part): stored[part] for part in names}


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read one source per AnnData; for a MuData file, the first source holds the columns of all cells."""
    with opened(path) as file:
        return read_group(path, file, roles)


def read_group(path: Path, file: Any, roles: Roles) -> list[SourceContents]:
    """Read the group of a file that is open, or in memory; `path` names it."""
    if "mod" in file:
        contents = _modalities(path, file, roles)
    else:
        whole = Annotated(path, file, path.stem, path.name)
        contents = [_annotated(whole, None, roles, f"{_exported(path, file)}/obs/")]
    if not any(source.views for source in contents):
        raise UserError(f"{path}: all modalities are left out, expected at least one; remove a --skip")
    return [_unrepeated(source, roles) for source in contents]


def _exported(path: Path, file: Any) -> str:
    """Return the name of the file to export: Zarr folders are exported as HDF5."""
    if path.suffix.lower() != ".zarr":
        return path.name
    return path.stem + (".h5mu" if "mod" in file else ".h5ad")


def _modalities(path: Path, file: Any, roles: Roles) -> list[SourceContents]:
    """Read the columns of all cells of a MuData file, and its modalities."""
    if int(file.attrs.get("axis", 0)) != 0:
        expected = "expected modalities that share cells (axis 0); save them as one AnnData per file"
        raise UserError(f"{path}: modalities that share features (axis {file.attrs['axis']}) found, {expected}")
    order = [str(name) for name in file["mod"].attrs.get("mod-order", sorted(file["mod"].keys()))]
    if nested := [name for name in order if "mod" in file["mod"][name]]:
        raise UserError(
            f"{path}: {nested[0]}: MuData inside of MuData found, expected AnnData; save it as its own file"
        )
    skipped = tuple(name for name in map(composed, order) if name in roles.skip)
    frame, name = read_frame(file, "obs"), _exported(path, file)
    cells, cells_of = np.array(frame.index, object), {}
    for owner, part in _parts(file, "obsm").items():
        mask = part[()] if not is_group(part) and owner in order else np.ones(0)
        if mask.dtype == bool:
            if mask.size != len(cells):
                expected = f"expected one value for each of {len(cells)} cells; write the file again"
                raise UserError(f"{path}: obsm/{owner}: shape {mask.shape} found, {expected}")
            cells_of[owner] = cells[mask.ravel()]
    first = _cells(Annotated(path, file, path.stem, path.name), frame, roles, f"{name}/obs/", Notes())
    contents = []
    for owner in order:
        if composed(owner) not in skipped:
            whole = Annotated(path, file["mod"][owner], owner, f"{path.name}/{owner}")
            contents.append(_annotated(whole, cells_of.get(owner), roles, f"{name}/mod/{owner}/obs/", several=True))
    return [replace(first, skipped=(*first.skipped, *skipped)), *contents]


def _annotated(
    whole: Annotated, observed: Values | None, roles: Roles, prefix: str, several: bool = False
) -> SourceContents:
    """Read the matrices of one AnnData with its cells; cells whose names are not in `observed` are missing.

    With `several` AnnData in a file, the names of modalities of obsm begin with the name of their AnnData.
    """
    frame, notes = read_frame(whole.group, "obs"), Notes()
    missing = np.zeros(len(frame.index), bool) if observed is None else ~np.isin(frame.index, observed.astype(str))
    facts = {"source": "omics", "file": prefix.partition("/")[0], "modality": whole.owner}
    views, skipped = [], []
    slot = _slot(whole, roles, notes)
    offered = {f"layer {name}" for name in whole.layers} | {f"obsm {name}" for name in whole.obsm}
    left = [f"layer {name}" for name in whole.layers if slot not in (name, f"layers/{name}")]
    left += [f"obsm {name}" for name in whole.obsm if name not in roles.obsm]
    if slot not in (None, "X") and "X" in whole.group:
        left = ["X", *left]
    notes.add(LEFT_OUT, left)
    if slot is not None and composed(whole.owner) not in roles.skip:
        views.append(_main(whole, slot, missing, roles, facts, notes))
    elif slot is not None:
        skipped.append(composed(whole.owner))
    for key, part in whole.obsm.items():
        name = composed(f"{whole.owner}_{key}" if several else key)
        if key in roles.obsm and name not in roles.skip:
            views.append(_embedding(whole, key, part, name, missing, roles, facts))
        elif name in roles.skip:
            skipped.append(name)
    source = _cells(whole, frame, roles, prefix, notes)
    skipped += source.skipped
    return replace(source, views=tuple(views), skipped=tuple(skipped), matrices=tuple(sorted(offered)))


def _slot(whole: Annotated, roles: Roles, notes: Notes) -> str | None:
    """Return where the main matrix lies: `X`, `raw` or `layers/…`; None if only matrices of obsm are read."""
    layers = whole.layers
    wanted = roles.layer.get(composed(whole.owner), roles.layer.get(""))
    if wanted is None or wanted not in layers:
        stored = whole.group.get("X")
        if stored is not None and stored.attrs.get("encoding-type") != "null":
            return "X"
        if any(name in roles.obsm for name in whole.obsm):
            return None
        if len(layers) != 1:
            offered = [f"--layer {name}" for name in layers] + [f"--obsm {name}" for name in whole.obsm]
            expected = f"expected a matrix; add one of {listed(offered)}" if offered else "expected a matrix; add X"
            raise UserError(f"{whole.place}: no X found, {expected}")
        wanted = next(iter(layers))
        notes.add("no X found, read in its place: layer {}", [wanted])
    return RAW if wanted == RAW and RAW not in _parts(whole.group, "layers") else f"layers/{wanted}"


def _main(whole: Annotated, slot: str, missing: Values, roles: Roles, facts: dict[str, Any], notes: Notes) -> ArrayView:
    """Read X or the matrix that is read in its place, with its features."""
    stored = whole.layers[slot.removeprefix("layers/")] if slot != "X" else whole.group["X"]
    frame = whole.features(slot)
    array = _checked(whole, slot, stored, len(missing), len(frame.index))
    features = made_unique(frame.index)
    notes.add(DUPLICATE, [new for new, old in zip(features, frame.index, strict=True) if new != old])
    own = {"features": features, "sparse": layout(stored) or False, "slot": slot, "var": describe(frame.columns)}
    view = array_view(whole.path, composed(whole.owner), array, missing, roles, facts | own)
    if view.kind in (*REAL, *NORMALISED):
        counts = _whole(whole, slot)
        notes.add(COUNTS, counts)
        if not counts and view.kind in REAL:
            notes.add(DIVIDED, _divided(whole, slot))
    return view


def _whole(whole: Annotated, slot: str) -> list[str]:
    """Return the layers, without the one at `slot`, whose first values are whole numbers of at least 0."""
    found = []
    for name, stored in whole.layers.items():
        values = stored["data"] if layout(stored) else stored
        if slot not in (name, f"layers/{name}") and not is_group(values):
            first = np.asarray(values[:TRIED])
            if first.size and first.dtype.kind in "fiu" and (first >= 0).all() and (first == np.rint(first)).all():
                found.append(name)
    return found


def _divided(whole: Annotated, slot: str) -> list[str]:
    """Return the layers, without the one at `slot`, whose first rows are normalised counts, or their logarithms."""
    found = []
    for name, stored in whole.layers.items():
        if slot not in (name, f"layers/{name}") and (layout(stored) or not is_group(stored)):
            values = matrix(stored)
            if values.ndim == 2 and values.dtype.kind == "f" and normalised_kind(values, np.arange(len(values))):
                found.append(name)
    return found


def _embedding(
    whole: Annotated, key: str, part: Any, name: str, missing: Values, roles: Roles, facts: dict[str, Any]
) -> ArrayView:
    """Read a matrix of obsm, or a data frame of numbers, which names its columns."""
    own: dict[str, Any] = {"slot": f"obsm/{key}", "features": [], "sparse": layout(part) or False}
    if is_group(part) and not layout(part):
        frame = read_frame(whole.group["obsm"], key)
        columns = [column.to_numpy() for column in frame.columns.columns]
        if frame.unreadable or not columns or any(column.dtype.kind not in "fiub" for column in columns):
            _refuse_type(whole, own["slot"], "a data frame with other columns than numbers")
        array, own["features"] = np.stack(columns, 1), frame.columns.column_names
    else:
        array = part
    return array_view(whole.path, name, _checked(whole, own["slot"], array, len(missing)), missing, roles, facts | own)


def _checked(whole: Annotated, slot: str, stored: Any, cells: int, features: int | None = None) -> Any:
    """Return a matrix (n, X) of numbers for all cells and features; anything else is refused."""
    if is_group(stored) and not layout(stored):
        _refuse_type(whole, slot, f"encoding {stored.attrs.get('encoding-type')}")
    array = matrix(stored)
    if array.dtype.kind not in "fiub" or array.ndim != 2 or array.shape != (cells, features or array.shape[-1]):
        found = f"{slot} of type {array.dtype} and shape {array.shape} found"
        expected = f"expected numbers for {cells} cells" + (f" and {features} features" if features else "")
        raise UserError(f"{whole.path}: {whole.owner}: {found}, {expected}; write the file again")
    return array


def _refuse_type(whole: Annotated, slot: str, found: str) -> None:
    raise UserError(f"{whole.path}: {whole.owner}: {slot}: {found} found, expected a matrix of numbers; leave it out")


def _cells(whole: Annotated, frame: Frame, roles: Roles, prefix: str, notes: Notes) -> SourceContents:
    """Return the cells with their columns: those to which the user gives roles, and all of them for export.

    If a column has the ids, the names of the cells are kept under the empty name.
    """
    names = frame.columns.column_names
    if wrong := {roles.label, roles.group, roles.split, *roles.targets} & {*frame.unreadable}:
        expected = "expected numbers, texts or categories; convert the column"
        raise UserError(f"{whole.place}: column {min(map(str, wrong))}: unknown encoding found, {expected}")
    notes.add(UNREADABLE, [f"obs {name}" for name in frame.unreadable if name not in roles.skip])

    def column(name: str | None) -> Named | None:
        if name is None or name not in names:
            return None
        return name, simplify_column(whole.path, name, frame.columns[name])

    targets = {name: named[1] for name in roles.targets if (named := column(name))}
    known: dict[str, Any] = {role: column(getattr(roles, role)) for role in ("label", "group", "split")}
    kept = [name for name in names if name not in roles.skip]
    fields = [frame.columns.schema.field(name).with_name(prefix + name) for name in kept]
    cells, columns = pa.chunked_array([frame.index], pa.string()), [frame.columns[name] for name in kept]
    if (ids := column(roles.id)) is not None:
        fields, columns = [*fields, pa.field(prefix, pa.string())], [*columns, cells]
    return SourceContents(
        whole.place,
        len(frame.index),
        ids=ids or (None, cells),
        targets=targets,
        names=tuple(names),
        skipped=tuple(name for name in names if name in roles.skip),
        notes=notes.lines(whole.place),
        kept=pa.Table.from_arrays(columns, schema=pa.schema(fields)) if fields else None,
        **known,
    )


def _unrepeated(source: SourceContents, roles: Roles) -> SourceContents:
    """Treat cells of the same name as `roles.repeated` says."""
    assert source.ids is not None
    ids = source.ids[1]
    if roles.repeated == "visits":
        return replace(source, ids=(None, visits(ids)), group=source.group or ("cell", ids))
    if roles.repeated == "first" and len(rows := first_rows(ids)) < len(ids):
        note = f"{source.place}: cells with the name of an earlier one, left out: {len(ids) - len(rows)}"
        return replace(source.taken(rows), notes=(*source.notes, note))
    return source
