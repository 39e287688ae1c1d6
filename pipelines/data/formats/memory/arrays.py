"""Arrays of NumPy, and what NumPy converts: vectors, images and volumes (N, …) as modalities."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.formats.contents import Roles, SourceContents, array_view
from postprior.pipelines.errors import UserError

SUFFIX = ".npz"
"""The suffix of the file that an array is exported to."""


def as_array(name: str, value: Any) -> Values:
    """Return a value as an array of numbers (N, …); a UserError if it is none."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or array.ndim == 0 or not len(array):
        found = f"{type(value).__name__} of type {array.dtype} and shape {array.shape} found"
        expected = "expected a data frame, AnnData, MuData, or an array of numbers (N, …); convert it"
        raise UserError(f"{name}: {found}, {expected}")
    return array


def read(name: str, array: Values, ids: pa.ChunkedArray, roles: Roles) -> SourceContents:
    """Return the contents of an array; `ids` (N,) identify its rows."""
    path = Path(name + SUFFIX)
    facts: dict[str, Any] = {"source": "npz", "file": path.name, "names": {}, "apart": []}
    skipped = (name,) if name in roles.skip else ()
    views = () if skipped else (array_view(path, name, array, np.zeros(len(array), bool), roles, facts),)
    return SourceContents(path.name, len(array), views, (None, ids), names=(name,) * (array.ndim == 1), skipped=skipped)
