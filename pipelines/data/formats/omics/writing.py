"""Write AnnData and MuData files: the matrices at their places, and the columns of obs and var of the imported file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values, chunks
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.omics.frames import from_description, put, with_categories, write_frame
from postprior.pipelines.data.formats.samples import Samples


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """Write the file of these modalities."""
    h5py = optional("h5py", "omics", path.parent)
    with h5py.File(path, "w") as file:
        if path.name.endswith(".h5ad"):
            rows = np.flatnonzero(samples.observed({conversion.name for conversion in conversions}))
            _write_cells(file, samples, rows, f"{path.name}/obs/", with_roles=True)
            _write_annotated(file, samples, conversions, rows)
        else:
            _write_all(file, samples, conversions, path.name)


def _write_all(file: Any, samples: Samples, conversions: Sequence[ArrayConversion], name: str) -> None:
    """Write the modalities of a MuData file, and which cells and features each of them has."""
    owned: dict[str, list[ArrayConversion]] = {}
    for conversion in conversions:
        owned.setdefault(conversion.facts["modality"], []).append(conversion)
    file.attrs.update({"encoding-type": "MuData", "encoding-version": "0.1.0", "axis": 0})
    modalities = file.create_group("mod")
    modalities.attrs["mod-order"] = list(owned)
    features = {owner: _features(own) for owner, own in owned.items()}
    owners = np.repeat(np.arange(len(owned)), [len(labels) for labels in features.values()])
    _write_cells(file, samples, np.arange(len(samples)), f"{name}/obs/", with_roles=True)
    write_frame(file, "var", [label for labels in features.values() for label in labels], pa.table({}))
    for m, (owner, own) in enumerate(owned.items()):
        observed, group = samples.observed({conversion.name for conversion in own}), modalities.create_group(owner)
        _write_cells(group, samples, np.flatnonzero(observed), f"{name}/mod/{owner}/obs/", with_roles=False)
        _write_annotated(group, samples, own, np.flatnonzero(observed))
        for axis, mask in (("obs", observed), ("var", owners == m)):
            put(file.require_group(f"{axis}m"), owner, mask)
            put(file.require_group(f"{axis}map"), owner, np.where(mask, np.cumsum(mask), 0).astype(np.uint32))
    for part in ("obsm", "obsmap", "varm", "varmap"):
        file[part].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


def _features(conversions: Sequence[ArrayConversion]) -> list[str]:
    """Return the names of the features of an AnnData: those of X or of the layer in its place."""
    return next((list(c.facts["features"]) for c in conversions if not _place(c).startswith("obsm/")), [])


def _place(conversion: ArrayConversion) -> str:
    """Return where a matrix lies in its AnnData: `X`, `layers/…` or `obsm/…`; `raw` is written as X."""
    slot = str(conversion.facts.get("slot", "X"))
    return "X" if slot == "raw" else slot


def _write_annotated(group: Any, samples: Samples, conversions: Sequence[ArrayConversion], rows: Values) -> None:
    """Write the matrices and features of an AnnData with the cells at `rows`."""
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    main = [conversion.facts for conversion in conversions if not _place(conversion).startswith("obsm/")]
    write_frame(group, "var", _features(conversions), from_description(main[0].get("var", ()) if main else ()))
    for conversion in conversions:
        folder, _, name = _place(conversion).rpartition("/")
        home = group.require_group(folder) if folder else group
        if folder:
            home.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        array, sparse = samples.array(conversion), conversion.facts["sparse"]
        if folder == "obsm" and conversion.facts["features"]:
            columns = dict(zip(conversion.facts["features"], map(pa.array, array[rows].T.copy()), strict=True))
            write_frame(home, name, samples.ids.take(pa.array(rows)), pa.table(columns))
        elif sparse:
            _write_sparse(home, name, array, rows, "csr_matrix" if sparse is True else sparse)
        else:
            put(home, name, array[rows])


def _write_sparse(group: Any, name: str, array: Values, rows: Values, layout: str) -> None:
    """Write the rows of a matrix in compressed rows or columns, as it was stored."""
    from scipy.sparse import csr_array, vstack

    blocks = [csr_array((0, array.shape[1]), dtype=array.dtype), *map(csr_array, chunks(array, rows))]
    matrix, stored = vstack(blocks, format=layout[:3]), group.create_group(name)
    stored.attrs.update({"encoding-type": layout, "encoding-version": "0.1.0", "shape": matrix.shape})
    for part in ("data", "indices", "indptr"):
        stored.create_dataset(part, data=getattr(matrix, part))


def _write_cells(group: Any, samples: Samples, rows: Values, prefix: str, with_roles: bool) -> None:
    """Write the cells with the columns of their file, whose names begin with `prefix` in `kept`, and with roles.

    Roles without any value are left out.
    """
    kept, taken = samples.dataset.source_values.get("ids", pa.table({})), pa.array(rows)
    fields, columns, cells = [], [], samples.ids
    for field in kept.schema:
        if field.name == prefix:
            cells = kept[prefix].combine_chunks()
        elif field.name.startswith(prefix):
            fields.append(field.with_name(field.name.removeprefix(prefix)))
            columns.append(kept[field.name].take(taken))
    known = {field.name for field in fields}
    roles = {name: column.take(taken) for name, column in samples.roles().items() if name not in known}
    if with_roles:
        others = with_categories({name: column for name, column in roles.items() if column.null_count < len(column)})
        fields, columns = [*fields, *others.schema], [*columns, *others.columns]
    write_frame(group, "obs", cells.take(taken), pa.Table.from_arrays(columns, schema=pa.schema(fields)))
