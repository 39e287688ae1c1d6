"""Fill the holes of data in memory with imputed values; all other values stay as they are, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion, TableConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import samples_of
from postprior.pipelines.data.formats.contents import SourceContents
from postprior.pipelines.data.formats.memory import annotated, frames, is_frame
from postprior.pipelines.data.formats.memory.arrays import as_array
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.tables import table_of

if TYPE_CHECKING:
    import pandas as pd


def filled(data: Mapping[str, Any], contents: Sequence[SourceContents], imputed: Dataset) -> dict[str, Any]:
    """Return copies of objects with the imputed values in their holes.

    A data frame also gets the rows that it lacks and that another object has, after its own. An array, AnnData and
    MuData keep their rows.

    Args:
        data: the objects by name, as `memory.named` returns them.
        contents: what `memory.read` returned for them.
        imputed: their rows, imputed, with ids.
    """
    samples, places = samples_of(imputed), _places(contents, imputed)
    result: dict[str, Any] = {}
    for name, value in data.items():
        if is_frame(value):
            result[name] = _frame(name, value, samples, places[name + frames.SUFFIX])
        elif (suffix := annotated.suffix_of(value)) is not None:
            file, result[name] = name + suffix, value.copy()
            parts = {file: (name, result[name])} if suffix == ".h5ad" else {}
            parts |= {f"{file}/{key}": (key, part) for key, part in getattr(result[name], "mod", {}).items()}
            for place, (owner, part) in parts.items():
                _annotated(part, samples, file, owner, places[place])
        else:
            result[name] = _array(name, as_array(name, value), samples, places[f"{name}.npz"])
    return result


def _places(contents: Sequence[SourceContents], imputed: Dataset) -> dict[str, Values]:
    """Return the place of each row of each source among the imputed rows, −1 if it is not there, by place."""
    known = pa.array(imputed.ids).cast(pa.string())
    return {
        source.place: pc.index_in(source.ids[1].cast(pa.string()), value_set=known).fill_null(-1).to_numpy()
        for source in contents
        if source.ids is not None
    }


def _frame(name: str, frame: pd.DataFrame, samples: Samples, places: Values) -> pd.DataFrame:
    """Return a copy of a data frame with its holes filled, and with the rows that it lacks."""
    pd = frames.pandas(name)
    types = frames.types_of(name, frame)
    file = name + frames.SUFFIX
    within = [c for c in samples.conversions if isinstance(c, TableConversion) and c.facts["file"] == file]
    entries = {entry["header"]: (number, entry["dtype"]) for number, entry in enumerate(types["columns"])}
    result, has = frame.copy(), places >= 0
    for conversion in within:
        table, generated = samples.table(conversion), samples.generated_values(conversion.name)
        for j, column in enumerate(conversion.columns):
            holes = np.flatnonzero(has & generated[places, j])
            if len(holes) and column.name in entries:
                number, dtype = entries[column.name]
                values = frames.restored(table[column.name].take(pa.array(places[holes])), dtype)
                result.isetitem(number, _replaced(frame.iloc[:, number], holes, values))
    absent = np.setdiff1d(np.arange(len(samples)), places[has])
    if not len(absent) or not within:
        return result
    rows = table_of(samples_of(samples.dataset.select(absent)), within, file)
    added = frames.frame_of(rows, types)
    return pd.concat([result, added])[list(frame.columns)]


def _replaced(column: pd.Series, rows: Values, values: pd.Series) -> pd.Series:
    """Return a copy of a column with other values in some rows; a new category is added to its categories."""
    column = column.copy()
    if hasattr(values, "cat"):
        new = values.cat.categories.difference(column.cat.categories)
        column = column.cat.add_categories(new) if len(new) else column
    column.iloc[rows] = values.array
    return column


def _array(name: str, array: Values, samples: Samples, places: Values) -> Values:
    """Return a copy of an array (n, …) with imputed values in place of NaN."""
    for conversion in samples.conversions:
        if isinstance(conversion, ArrayConversion) and conversion.facts.get("file") == f"{name}.npz":
            return _without_nan(array, samples.array(conversion), places)
    return array.copy()


def _annotated(part: Any, samples: Samples, file: str, owner: str, places: Values) -> None:
    """Fill the dense matrices of AnnData that are modalities; a sparse matrix has no holes."""
    for conversion in samples.conversions:
        facts = conversion.facts
        if (facts.get("file"), facts.get("modality")) == (file, owner) and isinstance(conversion, ArrayConversion):
            values, (home, _, key) = samples.array(conversion), str(facts.get("slot", "X")).rpartition("/")
            if home:
                stored = getattr(part, home)
                if isinstance(stored[key], np.ndarray):
                    stored[key] = _without_nan(stored[key], values, places)
            elif isinstance(part.X, np.ndarray):
                part.X = _without_nan(part.X, values, places)


def _without_nan(array: Values, imputed: Values, places: Values) -> Values:
    """Return a copy of an array (n, …) with the values of the imputed rows (N, …) at `places` in place of NaN."""
    result = array.copy()
    if array.dtype.kind == "f":
        holes = np.isnan(array) & (places >= 0).reshape(-1, *[1] * (array.ndim - 1))
        result[holes] = imputed[places][holes]
    return result
