"""Values as their files had them, beside the numbers that models see.

`<name>.source.npy` holds an array (N, …) in the type and axes of its file, `<name>.source.parquet` columns of N rows;
the name is a modality's, `labels` or `targets`. They are there where numbers alone cannot give the file's values back.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.storage import load_array, save_array

ARRAY, TABLE = ".source.npy", ".source.parquet"
SourceValues = Mapping[str, Any]
"""Arrays of NumPy and tables of Arrow by name."""
REMEDY = "import the data again, or remove the file"


class StoredValues(Mapping[str, Any]):
    """The source values of a folder of so many rows: arrays are memory-mapped, tables read when they are asked for.

    All files are opened at once, so that what is read later is of the same publication.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self._found = {path.name.removesuffix(ARRAY): load_array(path) for path in sorted(folder.glob(f"*{ARRAY}"))}
        self._tables: dict[str, tuple[Path, Any]] = {}
        for path in sorted(folder.glob(f"*{TABLE}")):
            import pyarrow.parquet as parquet

            with _whole(path):
                self._tables[path.name.removesuffix(TABLE)] = path, parquet.ParquetFile(path, memory_map=True)
        lengths = {f"{name}{ARRAY}": len(array) if array.ndim else 0 for name, array in self._found.items()}
        lengths |= {path.name: file.metadata.num_rows for path, file in self._tables.values()}
        for name, length in lengths.items():
            if length != rows:
                raise UserError(f"{folder / name}: {length} rows found, expected {rows}; {REMEDY}")

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            path, file = self._tables[name]
            with _whole(path):
                self._found[name] = file.read()
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._found, **self._tables})

    def __len__(self) -> int:
        return len({**self._found, **self._tables})


def save_source_values(folder: Path, values: SourceValues, rows: int) -> None:
    """Write the source values of so many rows into a folder that is yet to be published."""
    for name, found in values.items():
        if len(found) != rows:
            raise ValueError(f"source values of {name}: found {len(found)} rows, expected {rows}")
        if isinstance(found, np.ndarray):
            save_array(folder / f"{name}{ARRAY}", found)
        else:
            import pyarrow.parquet as parquet

            texts = [field.name for field in found.schema if str(field.type) in ("binary", "string")]
            parquet.write_table(found, folder / f"{name}{TABLE}", use_dictionary=texts, write_statistics=False)


def selected(values: SourceValues, rows: np.ndarray) -> dict[str, Any]:
    """The source values of some rows."""
    return {
        name: found[rows] if isinstance(found, np.ndarray) else found.take(np.arange(len(found))[rows])
        for name, found in values.items()
    }


def _whole(path: Path) -> AbstractContextManager[None]:
    """A UserError for a file that is damaged."""
    return as_user_error((OSError, ValueError), f"{path}: not a whole Parquet file", REMEDY)
