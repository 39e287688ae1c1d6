"""Original values of source files, stored next to the numbers that models see.

`<name>.source.npy` holds an array (N, …) in the type and axes of its file, or three arrays the compressed rows of a
sparse one (`<name>.source.data.npy`, …, see `data.rows`), and `<name>.source.parquet` columns of N rows; the name is
that of a modality, `labels` or `targets`. They exist only if the numbers do not decode to exactly the original values.
`ids.source.parquet` has further columns of the rows, which come back on export.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.rows import PARTS, load_rows, save_rows, taken
from postprior.pipelines.data.shards import LARGEST
from postprior.pipelines.errors import UserError, as_user_error

SOURCE = ".source"
ARRAY, TABLE = f"{SOURCE}.npy", f"{SOURCE}.parquet"
SPARSE = f"{SOURCE}{PARTS[-1]}.npy"
SourceValues = Mapping[str, Any]
"""Arrays of NumPy, sparse rows and tables of Arrow by name."""
REMEDY = "import the data again, or remove the file"


class StoredValues(Mapping[str, Any]):
    """The source values of a folder with a given number of rows: arrays are memory-mapped, tables are read on access.

    All files are opened at the start, so that later reads see the same version of the folder. Sparse rows of a modality
    have `columns[modality]` columns; `shards` are those of `data.manifest`.
    """

    def __init__(self, folder: Path, rows: int, columns: Mapping[str, int], shards: Mapping[str, int]) -> None:
        paths = sorted(path for suffix in (ARRAY, SPARSE) for path in folder.glob(f"*{suffix}"))
        names = {path.name.removesuffix(ARRAY).removesuffix(SPARSE) for path in paths}
        names |= {name.removesuffix(SOURCE) for name in shards if name.endswith(SOURCE)}
        self._loaded: dict[str, Any] = {
            name: load_rows(folder, f"{name}{SOURCE}", columns.get(name, 0), shards=shards) for name in sorted(names)
        }
        self._tables: dict[str, tuple[Path, Any]] = {}
        for path in sorted(folder.glob(f"*{TABLE}")):
            import pyarrow.parquet as parquet

            with _readable(path):
                self._tables[path.name.removesuffix(TABLE)] = path, parquet.ParquetFile(path, memory_map=True)
        lengths = {f"{name}{ARRAY}": len(array) if array.ndim else 0 for name, array in self._loaded.items()}
        lengths |= {path.name: file.metadata.num_rows for path, file in self._tables.values()}
        for name, length in lengths.items():
            if length != rows:
                raise UserError(f"{folder / name}: {length} rows found, expected {rows}; {REMEDY}")

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            path, file = self._tables[name]
            with _readable(path):
                self._loaded[name] = file.read()
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._loaded, **self._tables})

    def __len__(self) -> int:
        return len({**self._loaded, **self._tables})


def save_source_values(folder: Path, values: SourceValues, rows: int, largest: int = LARGEST) -> dict[str, int]:
    """Write source values with the given number of rows into a folder that is not published yet.

    Returns:
        The number of shards by array, where an array has more than `largest` bytes.
    """
    shards: dict[str, int] = {}
    for name, content in values.items():
        if len(content) != rows:
            raise ValueError(f"source values of {name}: found {len(content)} rows, expected {rows}")
        if hasattr(content, "dtype"):
            shards |= save_rows(folder, f"{name}{SOURCE}", content, largest)
        else:
            import pyarrow.parquet as parquet

            texts = [field.name for field in content.schema if str(field.type) in ("binary", "string")]
            parquet.write_table(content, folder / f"{name}{TABLE}", use_dictionary=texts, write_statistics=False)
    return shards


def selected(values: SourceValues, rows: np.ndarray) -> dict[str, Any]:
    """Return the source values of the rows at these indices."""
    return {
        name: taken(content, rows) if hasattr(content, "dtype") else content.take(rows)
        for name, content in values.items()
    }


def _readable(path: Path) -> AbstractContextManager[None]:
    """Turn an error of reading a damaged Parquet file into a UserError."""
    return as_user_error((OSError, ValueError), f"{path}: not a complete Parquet file", REMEDY)
