"""AnnData and MuData files (.h5ad, .h5mu): matrices of features by cell, by their published layout of HDF5.

Rows are matched by the names of the cells. obsm/<modality> of a MuData file is true where a cell has the modality.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.importers.extras import optional
from postprior.pipelines.data.importers.files import ends_in
from postprior.pipelines.data.importers.found import ArrayView, Found, Named, Roles
from postprior.pipelines.data.importers.kinds import array_kind, check_finite, safe_name
from postprior.pipelines.data.importers.tables import plain
from postprior.pipelines.errors import UserError

SUFFIXES = (".h5ad", ".h5mu")
Values = np.ndarray[Any, np.dtype[Any]]


def is_omics(path: Path) -> bool:
    """Whether a path is an AnnData or MuData file by its name."""
    return ends_in(path, SUFFIXES)


def read_omics(path: Path, roles: Roles) -> list[Found]:
    """What the file says of all cells, and one source a modality."""
    h5py = optional("h5py", "omics", path)
    try:
        with h5py.File(path) as file:
            _check_inside(h5py, path, file)
            if path.suffix.lower() == ".h5ad":
                return [_modality(path, file, path.stem, None, roles)]
            return _modalities(path, file, roles)
    except (OSError, KeyError, ValueError, IndexError) as error:
        told = " ".join(str(error).split())
        raise UserError(
            f"{path}: this is no {path.suffix} file as anndata 0.8 or later writes it ({told}); write it again"
        ) from None


def _check_inside(h5py: Any, path: Path, file: Any) -> None:
    """Refuse parts of the file that lie in other files."""

    def leads_out(name: str, link: Any) -> str | None:
        return (
            f"{name} leads to another file, {link.filename}" if isinstance(link, h5py.ExternalLink) else None
        )

    def stored_outside(name: str, part: Any) -> str | None:
        outside = isinstance(part, h5py.Dataset) and (part.is_virtual or part.external)
        return f"{name} is stored in another file" if outside else None

    if found := file.visititems_links(leads_out) or file.visititems(stored_outside):
        raise UserError(f"{path}: {found}; expected all data in one file, write it again")


def _modalities(path: Path, file: Any, roles: Roles) -> list[Found]:
    """What a MuData file says of all cells, and its modalities."""
    order = file["mod"].attrs.get("mod-order", sorted(file["mod"]))
    skipped = tuple(name for name in map(safe_name, order) if name in roles.skip)
    cells = _index(file["obs"])
    there = {}
    for name in order:
        mask = file["obsm"][name][()] if name in file.get("obsm", ()) else np.ones(0)
        if mask.dtype == bool:
            if mask.size != len(cells):
                raise UserError(
                    f"{path}: obsm/{name}: {mask.shape} found, expected one value for each of {len(cells)} cells; "
                    "write it again"
                )
            there[name] = cells[mask.ravel()]
    kept = [name for name in order if safe_name(name) not in skipped]
    found = [_modality(path, file["mod"][name], name, there.get(name), roles) for name in kept]
    return [replace(_about(path, file["obs"], path.name, roles), skipped=skipped), *found]


def _modality(path: Path, group: Any, name: str, there: Values | None, roles: Roles) -> Found:
    """One matrix with its cells and features; cells that are not `there` are missing."""
    cells, array = _index(group["obs"]), _matrix(group["X"])
    missing = None if there is None else ~np.isin(cells, there)
    features = _index(group["var"])
    if array.dtype.kind not in "fiu" or array.shape != (len(cells), len(features)):
        raise UserError(
            f"{path}: {name}: X of {array.dtype} {array.shape} found, expected numbers for {len(cells)} cells and "
            f"{len(features)} features; write it again"
        )
    absent = np.zeros(len(cells), bool) if missing is None else missing
    check_finite(f"{path}: {name}", array, absent, roles)
    safe = safe_name(name)
    facts = {
        "source": "omics",
        "file": path.name,
        "modality": name,
        "features": features.tolist(),
        "sparse": hasattr(group["X"], "keys"),
    }
    kind = array_kind(path.name, safe, array[~absent], "X", roles.kinds)
    about = _about(path, group["obs"], f"{path.name}/{name}", roles)
    view = ArrayView(safe, array, "X", kind, facts, missing)
    return Found(**{**vars(about), "views": (view,)})


def _about(path: Path, group: Any, place: str, roles: Roles) -> Found:
    """What a file says of its cells in the roles that the user names."""
    names = [str(name) for name in group.attrs["column-order"]]

    def column(name: str | None) -> Named | None:
        return (name, plain(path, name, _column(path, group[name]))) if name in names else None

    cells = _index(group)
    targets = {name: named[1] for name in roles.targets if (named := column(name))}
    return Found(
        place,
        len(cells),
        ids=(None, pa.chunked_array([cells.tolist()], pa.string())),
        label=column(roles.label),
        group=column(roles.group),
        split=column(roles.split),
        targets=targets,
        names=tuple(names),
    )


def _index(group: Any) -> Values:
    """The names of the rows of a data frame."""
    stored = group[group.attrs["_index"]]
    values = stored["values"] if hasattr(stored, "keys") else stored  # nullable strings, or plain ones
    return np.asarray(values.asstr()[()] if values.dtype.kind == "O" else values[()].astype(str))


def _matrix(stored: Any) -> Values:
    """A matrix (n, X), dense; sparse ones are rows or columns compressed."""
    if not hasattr(stored, "keys"):
        return np.asarray(stored[()])
    from scipy.sparse import csc_array, csr_array

    of = {"csr_matrix": csr_array, "csc_matrix": csc_array}[stored.attrs["encoding-type"]]
    parts = tuple(stored[name][()] for name in ("data", "indices", "indptr"))
    matrix = of(parts, shape=tuple(stored.attrs["shape"]))
    matrix.check_format(
        full_check=True
    )  # a place outside of the matrix would be written to, outside of the array
    return np.asarray(matrix.toarray())


def _column(path: Path, stored: Any) -> pa.ChunkedArray:
    """A column of a data frame: numbers, texts, categories, or values with a mask of what is missing."""
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
