"""AnnData and MuData files by their published layout of HDF5, as `data.importers.omics` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.conversion import ArrayConversion, Conversion
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.data.importers.extras import optional

Values = np.ndarray[Any, np.dtype[Any]]


def write_omics(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """One file for each that the modalities came from."""
    h5py = optional("h5py", "omics", folder)
    arrays = [conversion for conversion in conversions if isinstance(conversion, ArrayConversion)]
    for name in dict.fromkeys(conversion.facts["file"] for conversion in arrays):
        chosen = [conversion for conversion in arrays if conversion.facts["file"] == name]
        with h5py.File(folder / name, "w") as file:
            if name.endswith(".h5ad"):
                rows = np.flatnonzero(samples.observed({chosen[0].name}))
                _write_modality(h5py, file, samples, chosen[0], _roles(samples, rows))
            else:
                _write_all(h5py, file, samples, chosen)


def _write_all(h5py: Any, file: Any, samples: Samples, conversions: Sequence[ArrayConversion]) -> None:
    """The modalities of a MuData file, and which cells and features each of them has."""
    names = [conversion.facts["modality"] for conversion in conversions]
    file.attrs.update({"encoding-type": "MuData", "encoding-version": "0.1.0", "axis": 0})
    modalities = file.create_group("mod")
    modalities.attrs["mod-order"] = names
    features = [conversion.facts["features"] for conversion in conversions]
    owners = np.repeat(np.arange(len(names)), [len(each) for each in features])
    _write_frame(h5py, file, "obs", _texts(samples.ids), _roles(samples, np.arange(len(samples))))
    _write_frame(h5py, file, "var", [name for each in features for name in each], {})
    for m, conversion in enumerate(conversions):
        _write_modality(h5py, modalities.create_group(names[m]), samples, conversion, {})
        for axis, mask in (("obs", samples.observed({conversion.name})), ("var", owners == m)):
            place = np.where(mask, np.cumsum(mask), 0).astype(np.uint32)
            _write_array(file, f"{axis}m/{names[m]}", mask)
            _write_array(file, f"{axis}map/{names[m]}", place)
    for name in ("obsm", "obsmap", "varm", "varmap"):
        file[name].attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})


def _write_modality(
    h5py: Any, group: Any, samples: Samples, conversion: ArrayConversion, columns: dict[str, pa.Array]
) -> None:
    """The cells that have a modality, with what is said of them, as AnnData."""
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    rows = np.flatnonzero(samples.observed({conversion.name}))
    _write_frame(h5py, group, "obs", _texts(samples.ids.take(pa.array(rows))), columns)
    _write_frame(h5py, group, "var", conversion.facts["features"], {})
    array = samples.array(conversion)[rows]
    if not conversion.facts["sparse"]:
        _write_array(group, "X", array)
        return
    from scipy.sparse import csr_array

    matrix, stored = csr_array(array), group.create_group("X")
    stored.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": matrix.shape})
    for name in ("data", "indices", "indptr"):
        stored.create_dataset(name, data=getattr(matrix, name))


def _roles(samples: Samples, rows: Values) -> dict[str, pa.Array]:
    """Labels, subjects and targets of some cells; those that no cell has are left out."""
    columns = {name: column.take(pa.array(rows)) for name, column in samples.roles().items()}
    return {name: column for name, column in columns.items() if not column.null_count}


def _write_frame(
    h5py: Any, group: Any, name: str, index: Sequence[str], columns: dict[str, pa.Array]
) -> None:
    """A data frame: texts as categories, as anndata itself writes them, numbers as arrays."""
    frame = group.create_group(name)
    frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
    frame.attrs.create("column-order", list(columns), dtype=h5py.string_dtype())
    _write_texts(h5py, frame, "_index", list(index))
    for header, column in columns.items():
        if pa.types.is_string(column.type):
            _write_categories(h5py, frame, header, column.dictionary_encode())
        else:
            _write_array(frame, header, column.to_numpy(zero_copy_only=False))


def _write_categories(h5py: Any, frame: Any, name: str, column: pa.DictionaryArray) -> None:
    group = frame.create_group(name)
    group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
    _write_texts(h5py, group, "categories", column.dictionary.to_pylist())
    _write_array(group, "codes", column.indices.to_numpy())


def _write_texts(h5py: Any, group: Any, name: str, texts: list[str]) -> None:
    stored = group.create_dataset(name, data=np.array(texts, object), dtype=h5py.string_dtype())
    stored.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def _write_array(group: Any, name: str, array: Values) -> None:
    stored = group.create_dataset(name, data=array)
    stored.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def _texts(ids: pa.Array) -> list[str]:
    return [str(value) for value in ids.to_pylist()]
