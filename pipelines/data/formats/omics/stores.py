"""Open AnnData and MuData files, and read their texts, matrices and features; nothing is unpickled."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.formats.files import check_inside, ends_in, optional
from postprior.pipelines.data.rows import SparseRows
from postprior.pipelines.errors import UserError, as_user_error

ABOUT = "an .h5ad, .h5mu or .zarr file"
SUFFIXES = (".h5ad", ".h5mu", ".zarr")
SPARSE = {"csr": "csr_matrix", "csc": "csc_matrix"}
"""Names of sparse layouts in files of anndata before 0.7, and today."""


def recognises(path: Path) -> bool:
    """Whether a path has the suffix of an AnnData or MuData file."""
    return ends_in(path, SUFFIXES)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a file or a folder of Zarr as a group; errors of reading it become a UserError."""
    broken = OSError, KeyError, ValueError, IndexError, TypeError
    what = "AnnData or MuData" if ends_in(path, (".zarr",)) else f"{path.suffix} file of anndata"
    with as_user_error(broken, f"{path}: this is not a valid {what}", "write the file again"):
        if ends_in(path, (".zarr",)):
            yield _zarr(path)
            return
        h5py = optional("h5py", "omics", path)
        with h5py.File(path) as file:
            _check_inside(h5py, path, file)
            yield file


def _zarr(path: Path) -> Any:
    """Open a Zarr folder, after a check that it has no links that lead out and no pickled objects."""
    for file in path.rglob("*"):
        check_inside(file, path)
        if file.name in (".zarray", ".zmetadata", "zarr.json") and '"pickle"' in json.dumps(
            json.loads(file.read_text())
        ):
            expected = "expected arrays of numbers and texts; write the file again"
            raise UserError(f"{file}: pickled objects found, {expected}")
    return optional("zarr", "zarr", path).open_group(path, mode="r")


def _check_inside(h5py: Any, path: Path, file: Any) -> None:
    """Refuse a file with parts that are stored in other files."""

    def leads_out(name: str, link: Any) -> str | None:
        return f"{name} leads to another file, {link.filename}" if isinstance(link, h5py.ExternalLink) else None

    def stored_outside(name: str, part: Any) -> str | None:
        outside = isinstance(part, h5py.Dataset) and (part.is_virtual or part.external)
        return f"{name} is stored in another file" if outside else None

    if found := file.visititems_links(leads_out) or file.visititems(stored_outside):
        raise UserError(f"{path}: {found}, expected all data in one file; write the file again")


def is_group(stored: Any) -> bool:
    """Whether a part of a file is a group of parts."""
    return hasattr(stored, "keys")


def texts(stored: Any) -> list[str]:
    """Return the texts of an array, or of a group of texts and a mask."""
    if is_group(stored):
        return texts(stored["values"])
    values = stored.asstr()[()] if hasattr(stored, "asstr") and stored.dtype.kind == "O" else stored[()]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in np.asarray(values).tolist()]


def matrix(stored: Any) -> Any:
    """Return a matrix (n, X): a dense array, or compressed rows that are dense only where they are read."""
    if not is_group(stored):
        return np.asarray(stored[()])
    from scipy.sparse import csc_array, csr_array

    sparse_array = {"csr_matrix": csr_array, "csc_matrix": csc_array}[str(layout(stored))]
    parts = tuple(stored[name][()] for name in ("data", "indices", "indptr"))
    shape = tuple(int(n) for n in stored.attrs["shape" if "shape" in stored.attrs else "h5sparse_shape"])
    found = sparse_array(parts, shape=shape)
    found.check_format(full_check=True)  # an index outside the matrix would make `toarray` write outside the array
    rows = SparseRows.of(found.tocsr())
    return rows if rows.finite else rows[:]


def layout(stored: Any) -> str | None:
    """Return the encoding of a sparse matrix; None of a dense one."""
    if not is_group(stored):
        return None
    old = stored.attrs.get("h5sparse_format")
    old = old.decode() if isinstance(old, bytes) else old
    encoding = stored.attrs.get("encoding-type", SPARSE.get(str(old)))
    return str(encoding) if encoding in SPARSE.values() else None


def made_unique(names: Sequence[str]) -> list[str]:
    """Append -1, -2, … to names that were found before, as `AnnData.var_names_make_unique` does.

    >>> made_unique(["a", "b", "a", "a", "a-1"])
    ['a', 'b', 'a-2', 'a-3', 'a-1']
    """
    taken, seen, counts, unique = set(names), set[str](), Counter[str](), []
    for name in names:
        new = name
        while name in seen and new in taken:
            counts[name] += 1
            new = f"{name}-{counts[name]}"
        seen.add(name)
        taken.add(new)
        unique.append(new)
    return unique
