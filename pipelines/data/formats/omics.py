"""AnnData and MuData files (.h5ad, .h5mu): matrices of cells × features in their published HDF5 layout.

Rows are matched by cell names. In a MuData file, obsm/<modality> is true for cells that have the modality.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.formats.contents import (
    Named,
    Roles,
    SourceContents,
    array_view,
    simplify_column,
)
from postprior.pipelines.data.formats.files import ends_in, optional
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError, as_user_error

ABOUT = "an .h5ad or .h5mu file"
FACTS: tuple[str, ...] = ("file", "modality", "features", "sparse")
OPTIONS: tuple[str, ...] = ("nan_is_missing", "keep_rare")
SUFFIXES = (".h5ad", ".h5mu")


def recognises(path: Path) -> bool:
    """Whether a path has the suffix of an AnnData or MuData file."""
    return ends_in(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read one source per modality; for a MuData file, the first source holds the columns of all cells."""
    h5py = optional("h5py", "omics", path)
    broken = OSError, KeyError, ValueError, IndexError
    problem = f"this is not a valid {path.suffix} file of anndata 0.8 or later"
    with as_user_error(broken, f"{path}: {problem}", "write the file again"), h5py.File(path) as file:
        _check_inside(h5py, path, file)
        if path.suffix.lower() == ".h5ad":
            return [_modality(path, file, path.stem, None, roles)]
        return _modalities(path, file, roles)


def _check_inside(h5py: Any, path: Path, file: Any) -> None:
    """Refuse a file with parts that are stored in other files."""

    def leads_out(name: str, link: Any) -> str | None:
        return f"{name} leads to another file, {link.filename}" if isinstance(link, h5py.ExternalLink) else None

    def stored_outside(name: str, part: Any) -> str | None:
        outside = isinstance(part, h5py.Dataset) and (part.is_virtual or part.external)
        return f"{name} is stored in another file" if outside else None

    if found := file.visititems_links(leads_out) or file.visititems(stored_outside):
        raise UserError(f"{path}: {found}, expected all data in one file; write the file again")


def _modalities(path: Path, file: Any, roles: Roles) -> list[SourceContents]:
    """Read the columns of all cells of a MuData file, and its modalities."""
    order = file["mod"].attrs.get("mod-order", sorted(file["mod"]))
    skipped = tuple(name for name in map(composed, order) if name in roles.skip)
    cells = _index(file["obs"])
    cells_of = {}
    for name in order:
        mask = file["obsm"][name][()] if name in file.get("obsm", ()) else np.ones(0)
        if mask.dtype == bool:
            if mask.size != len(cells):
                expected = f"expected one value for each of {len(cells)} cells; write the file again"
                raise UserError(f"{path}: obsm/{name}: shape {mask.shape} found, {expected}")
            cells_of[name] = cells[mask.ravel()]
    chosen = [name for name in order if composed(name) not in skipped]
    modalities = [_modality(path, file["mod"][name], name, cells_of.get(name), roles) for name in chosen]
    return [replace(_cell_columns(path, file["obs"], path.name, roles), skipped=skipped), *modalities]


def _modality(path: Path, group: Any, name: str, observed: Values | None, roles: Roles) -> SourceContents:
    """Read one matrix with its cells and features; cells whose names are not in `observed` are missing."""
    cells, array = _index(group["obs"]), _matrix(group["X"])
    missing = np.zeros(len(cells), bool) if observed is None else ~np.isin(cells, observed)
    features = _index(group["var"])
    if array.dtype.kind not in "fiu" or array.shape != (len(cells), len(features)):
        expected = f"expected numbers for {len(cells)} cells and {len(features)} features; write the file again"
        raise UserError(f"{path}: {name}: X of type {array.dtype} and shape {array.shape} found, {expected}")
    labels, sparse = features.tolist(), hasattr(group["X"], "keys")
    facts = {"source": "omics", "file": path.name, "modality": name, "features": labels, "sparse": sparse}
    view = array_view(path, composed(name), array, missing, roles, facts)
    return replace(_cell_columns(path, group["obs"], f"{path.name}/{name}", roles), views=(view,))


def _cell_columns(path: Path, group: Any, place: str, roles: Roles) -> SourceContents:
    """Read the columns of the cells to which the user gives roles."""
    names = [str(name) for name in group.attrs["column-order"]]

    def column(name: str | None) -> Named | None:
        return (name, simplify_column(path, name, _column(path, group[name]))) if name in names else None

    cells = _index(group)
    targets = {name: named[1] for name in roles.targets if (named := column(name))}
    known: dict[str, Any] = {role: column(getattr(roles, role)) for role in ("label", "group", "split")}
    ids = None, pa.chunked_array([cells.tolist()], pa.string())
    return SourceContents(place, len(cells), ids=ids, targets=targets, names=tuple(names), **known)


def _index(group: Any) -> Values:
    """Return the row names of a data frame."""
    stored = group[group.attrs["_index"]]
    values = stored["values"] if hasattr(stored, "keys") else stored  # nullable or plain strings
    return np.asarray(values.asstr()[()] if values.dtype.kind == "O" else values[()].astype(str))


def _matrix(stored: Any) -> Values:
    """Return a matrix (n, X) as a dense array; sparse ones are stored in compressed rows or columns."""
    if not hasattr(stored, "keys"):
        return np.asarray(stored[()])
    from scipy.sparse import csc_array, csr_array

    sparse_array = {"csr_matrix": csr_array, "csc_matrix": csc_array}[stored.attrs["encoding-type"]]
    parts = tuple(stored[name][()] for name in ("data", "indices", "indptr"))
    matrix = sparse_array(parts, shape=tuple(stored.attrs["shape"]))
    matrix.check_format(full_check=True)  # an index outside the matrix would make `toarray` write outside the array
    return np.asarray(matrix.toarray())


def _column(path: Path, stored: Any) -> pa.ChunkedArray:
    """Return a column of a data frame: numbers, texts, categories, or values with a mask of missing ones."""
    encoding = stored.attrs.get("encoding-type", "array")
    if encoding == "categorical":
        codes = np.asarray(stored["codes"][()])
        categories = _column(path, stored["categories"])
        return categories.take(pa.array(codes, mask=codes < 0))
    if hasattr(stored, "keys"):
        values = _column(path, stored["values"]).combine_chunks()
        return pa.chunked_array([pa.array(values.to_pylist(), values.type, mask=stored["mask"][()])])
    values = stored.asstr()[()].tolist() if stored.dtype.kind == "O" else stored[()]
    return pa.chunked_array([pa.array(values)])


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """Write the file of these modalities."""
    h5py = optional("h5py", "omics", path.parent)
    with h5py.File(path, "w") as file:
        if path.name.endswith(".h5ad"):
            rows = np.flatnonzero(samples.observed({conversions[0].name}))
            _write_modality(file, samples, conversions[0], _roles(samples, rows))
        else:
            _write_all(file, samples, conversions)


def _write_all(file: Any, samples: Samples, conversions: Sequence[ArrayConversion]) -> None:
    """Write the modalities of a MuData file, and which cells and features each of them has."""
    names = [conversion.facts["modality"] for conversion in conversions]
    file.attrs.update({"encoding-type": "MuData", "encoding-version": "0.1.0", "axis": 0})
    modalities = file.create_group("mod")
    modalities.attrs["mod-order"] = names
    features = [conversion.facts["features"] for conversion in conversions]
    owners = np.repeat(np.arange(len(names)), [len(labels) for labels in features])
    _write_frame(file, "obs", samples.ids, _roles(samples, np.arange(len(samples))))
    _write_frame(file, "var", [name for labels in features for name in labels], {})
    for m, conversion in enumerate(conversions):
        _write_modality(modalities.create_group(names[m]), samples, conversion, {})
        for axis, mask in (("obs", samples.observed({conversion.name})), ("var", owners == m)):
            _write(file, f"{axis}m/{names[m]}", mask)
            _write(file, f"{axis}map/{names[m]}", np.where(mask, np.cumsum(mask), 0).astype(np.uint32))
    for name in ("obsm", "obsmap", "varm", "varmap"):
        file[name].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


def _write_modality(group: Any, samples: Samples, conversion: ArrayConversion, columns: dict[str, pa.Array]) -> None:
    """Write the cells that have a modality, with their columns, as AnnData."""
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    rows = np.flatnonzero(samples.observed({conversion.name}))
    _write_frame(group, "obs", samples.ids.take(pa.array(rows)), columns)
    _write_frame(group, "var", conversion.facts["features"], {})
    array = samples.array(conversion)[rows]
    if not conversion.facts["sparse"]:
        _write(group, "X", array)
        return
    from scipy.sparse import csr_array

    matrix, stored = csr_array(array), group.create_group("X")
    stored.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": matrix.shape})
    for name in ("data", "indices", "indptr"):
        stored.create_dataset(name, data=getattr(matrix, name))


def _roles(samples: Samples, rows: Values) -> dict[str, pa.Array]:
    """Return labels, subjects and targets of the given cells; columns without any value are left out."""
    columns = {name: column.take(pa.array(rows)) for name, column in samples.roles().items()}
    return {name: column for name, column in columns.items() if column.null_count < len(column)}


def _write_frame(group: Any, name: str, index: Iterable[Any], columns: dict[str, pa.Array]) -> None:
    """Write a data frame: texts as categories, as anndata itself writes them, and numbers as arrays; null as NaN."""
    from h5py import string_dtype

    frame, texts = group.create_group(name), string_dtype()
    frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    frame.attrs.create("column-order", list(columns), dtype=texts)
    _write(frame, "_index", np.array([str(label) for label in index], object), "string-array", texts)
    for header, column in columns.items():
        if not pa.types.is_string(column.type):
            _write_numbers(frame, header, column)
            continue
        coded, stored = column.dictionary_encode(), frame.create_group(header)
        stored.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        _write(stored, "categories", np.array(coded.dictionary.to_pylist(), object), "string-array", texts)
        _write(stored, "codes", coded.indices.fill_null(-1).to_numpy())


def _write_numbers(frame: Any, header: str, column: pa.Array) -> None:
    """Write numbers or booleans; those that cannot be NaN as values and a mask, where some are null."""
    if pa.types.is_floating(column.type) or not column.null_count:
        _write(frame, header, column.to_numpy(zero_copy_only=False))
        return
    stored = frame.create_group(header)
    kind = "nullable-boolean" if pa.types.is_boolean(column.type) else "nullable-integer"
    stored.attrs.update({"encoding-type": kind, "encoding-version": "0.1.0"})
    _write(stored, "values", column.fill_null(False).to_numpy(zero_copy_only=False))
    _write(stored, "mask", column.is_null().to_numpy(zero_copy_only=False))


def _write(group: Any, name: str, values: Values, encoding: str = "array", dtype: Any = None) -> None:
    stored = group.create_dataset(name, data=values, dtype=dtype)
    stored.attrs.update({"encoding-type": encoding, "encoding-version": "0.2.0"})
