"""Synthetic rows in the types of the data that they were learned from: data frames, arrays, AnnData, MuData."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion
from postprior.pipelines.data.conversion.categories import OTHER, RARE
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import omics, samples_of
from postprior.pipelines.data.formats.files import optional
from postprior.pipelines.data.formats.memory import annotated, frames
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.tables import table_of
from postprior.pipelines.data.formats.text_files import stem
from postprior.pipelines.data.pictures import sheet_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import tell

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

SHOWN = 5
"""Rows that are shown of each table."""
Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass(frozen=True, repr=False)
class SyntheticDataset(Dataset):
    """N drawn rows of M modalities, which convert to the units and types of the training data.

    Example:
        samples = generator.sample(1000, seed=0)
        samples.to_pandas()["labs"], samples.to_numpy()["scan"], samples.save(Path("synthetic"))
    """

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Return the rows of a dataset."""
        return cls(**{field.name: getattr(dataset, field.name) for field in fields(Dataset)})

    def to_pandas(self) -> Any:
        """Return a data frame for each data frame or table that was given, or the only one.

        Columns have the dtypes of the training data: categories with their order, times with their unit and zone, and
        missing values as the dtype writes them. Rows without any value of a frame are left out. An array (N, D) is a
        frame of D columns, any other a frame of one column with an array in each row. Values that fewer than five
        training rows have come back as `other`, which becomes one more category of the dtype if it occurs; a line on
        stderr names these columns. Categories of such values, of ids and of subjects are not in the dtype, because they
        may name persons. `Roles(keep_rare=True)` keeps such values, and with them the dtype.

        Raises:
            UserError: pandas is not installed, or the conversion is damaged.
        """
        samples, known = samples_of(self), (self.conversion or {}).get("frames", {})
        result: dict[str, pd.DataFrame] = {}
        for conversion in samples.conversions:
            if isinstance(conversion, ArrayConversion):
                result[_title(conversion)] = self._array_frame(samples, conversion)
            elif (name := stem(conversion.facts["file"])) not in result:
                result[name] = _table_frame(samples, conversion.facts["file"], known)
        for file in samples.tables:
            if stem(file) not in result:  # a table of labels and covariates alone
                result[stem(file)] = _table_frame(samples, file, known)
        _tell_of_rare_values(result, known)
        return next(iter(result.values())) if len(result) == 1 else result

    def _array_frame(self, samples: Samples, conversion: ArrayConversion) -> pd.DataFrame:
        """Return the rows of an array that have any value."""
        pd = frames.pandas("to_pandas")
        rows = np.flatnonzero(samples.observed({conversion.name}))
        values, index = samples.array(conversion)[rows], pd.Index(samples.ids.to_pandas()[rows], name=None)
        if values.ndim == 2:
            return pd.DataFrame(values, index, conversion.facts.get("features") or None)
        return pd.DataFrame({_title(conversion): list(values)}, index)

    def to_numpy(self) -> Arrays:
        """Return an array of N rows for each modality, and the labels under their name if there are any.

        Arrays have their axes, type and units. A table (N, J) is float64 if all of its columns are numbers, else an
        array of objects. A missing value is NaN; arrays of whole numbers or booleans with missing values are masked.
        """
        samples = samples_of(self)
        arrays: Arrays = {}
        for conversion in samples.conversions:
            if isinstance(conversion, TableConversion):
                arrays[_title(conversion)] = _as_array(samples.table(conversion))
            else:
                values, missing = samples.array(conversion), ~samples.observed({conversion.name})
                if values.dtype.kind != "f" and missing.any():
                    values = np.ma.masked_array(
                        values, np.broadcast_to(missing.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
                    )
                arrays[_title(conversion)] = values
        if (labels := samples.labels()) is not None:
            arrays.setdefault(str(samples.label_name), labels.to_numpy(zero_copy_only=False))
        return arrays

    def to_anndata(self) -> AnnData:
        """Return AnnData with the only vector modality as X; labels and tables are columns of `obs`.

        Raises:
            UserError: anndata is not installed, or there are several vectors, for which `to_mudata` is made.
        """
        samples = samples_of(self)
        vectors = _vectors(samples.conversions)
        if len(vectors) != 1:
            found = ", ".join(map(_title, vectors)) or "none"
            raise UserError(f"to_anndata: found the vectors {found}, expected one; use to_mudata() or to_pandas()")
        if _file(samples.conversions).endswith(".h5ad"):
            return _exported(samples, ".h5ad")
        anndata = optional("anndata", "anndata", "to_anndata")
        return _annotated(anndata, samples, vectors[0], self._columns())

    def to_mudata(self) -> MuData:
        """Return MuData with one AnnData for each vector and each table, whose columns are in `obs`.

        Raises:
            UserError: mudata is not installed, or there is neither a vector nor a table.
        """
        samples = samples_of(self)
        if _file(samples.conversions).endswith(".h5mu"):
            return _exported(samples, ".h5mu")
        anndata, mudata = (optional(name, "anndata", "to_mudata") for name in ("anndata", "mudata"))
        parts = {_title(c): _annotated(anndata, samples, c) for c in _vectors(samples.conversions)}
        columns = self._columns()
        parts |= {name: anndata.AnnData(obs=_named_rows(frame)) for name, frame in columns.items()}
        if not parts:
            raise UserError("to_mudata: found images, volumes or sequences only, expected vectors; use to_numpy()")
        return mudata.MuData(parts)

    def _columns(self) -> dict[str, pd.DataFrame]:
        """Return the tables as data frames by name."""
        samples, known = samples_of(self), (self.conversion or {}).get("frames", {})
        return {stem(file): _table_frame(samples, file, known) for file in samples.tables}

    def __repr__(self) -> str:
        parts = ", ".join(f"{m.title} ({m.kind} {' × '.join(map(str, m.shape))})" for m in self.modalities)
        return f"{len(self)} rows: {parts}"

    def _repr_html_(self) -> str:
        """Return the first rows of each table and pictures of the first samples."""
        first = type(self).of(self.select(np.arange(min(len(self), 16))))
        parts = [f"<p>{len(self)} rows</p>"]
        for name, frame in (
            first._columns().items() if first.conversion or any(m.columns for m in self.modalities) else ()
        ):
            parts.append(f"<h4>{_escaped(name)}</h4>{frame.head(SHOWN).to_html()}")
        if (sheet := sheet_of(first)) is not None:
            image = base64.b64encode(sheet.image).decode()
            parts.append(f'<img alt="first samples" src="data:image/webp;base64,{image}">')
        return "".join(parts)

    def show(self) -> None:
        """Show the first rows and pictures: in a notebook, or as text elsewhere."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            get_ipython = None
        if get_ipython is not None and get_ipython() is not None:
            display(self)
            return
        tell(repr(self))
        for name, frame in self._columns().items():
            tell(f"{name}:", *frame.head(SHOWN).to_string().splitlines())


def _tell_of_rare_values(tables: Mapping[str, pd.DataFrame], known: Mapping[str, Any]) -> None:
    """Name the columns of categories to which the class of rare values was added; `known` are the types by file."""
    found = [
        f"{stem(file)}.{entry['header']}"
        for file, types in known.items()
        for entry in types["columns"]
        if (table := tables.get(stem(file))) is not None and entry["name"] in table
        if OTHER not in entry["dtype"].get("categories", (OTHER,)) and OTHER in table.dtypes[entry["name"]].categories
    ]
    if found:
        reason = f"{OTHER} stands for values that fewer than {RARE} training rows have, and is a category of its own"
        tell(f"to_pandas: {', '.join(found)}: {reason}; Roles(keep_rare=True) keeps these values", err=True)


def _title(conversion: Conversion) -> str:
    return conversion.title or conversion.name


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)


def _table_frame(samples: Samples, file: str, known: dict[str, Any]) -> pd.DataFrame:
    """Return the table of a file as a data frame."""
    within = [c for c in samples.conversions if isinstance(c, TableConversion) and c.facts["file"] == file]
    names = (samples.dataset.conversion or {}).get("ids") or {}
    ids = samples.id_headers.get(file) or names.get("name") or "id"
    return frames.frame_of(table_of(samples, within, file), known.get(file), ids)


def _as_array(table: pa.Table) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the columns of a table as one array (N, J)."""
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    if all(any(is_type(column.type) for is_type in numbers) for column in table.columns):
        return np.stack([column.cast(pa.float64(), safe=False).to_numpy() for column in table.columns], 1)
    array = np.empty(table.shape, object)
    for j, column in enumerate(table.columns):
        array[:, j] = column.to_pylist()
    return array


def _vectors(conversions: tuple[Conversion, ...]) -> list[ArrayConversion]:
    return [c for c in conversions if isinstance(c, ArrayConversion) and c.modality.kind == "vector"]


def _file(conversions: tuple[Conversion, ...]) -> str:
    """Return the file of all modalities if it is one of AnnData or MuData, else an empty text."""
    files = {c.facts.get("file", "") if c.facts["source"] == "omics" else "" for c in conversions}
    return str(files.pop()) if len(files) == 1 else ""


def _exported(samples: Samples, suffix: str) -> Any:
    """Return what export writes, read into memory."""
    with annotated.exported(suffix) as (path, read):
        omics.write(samples, [c for c in samples.conversions if isinstance(c, ArrayConversion)], path)
        return read(path)


def _annotated(
    anndata: Any, samples: Samples, conversion: ArrayConversion, tables: dict[str, Any] | None = None
) -> Any:
    """Return AnnData of the rows that have a vector, with the columns of tables in `obs`."""
    pd = frames.pandas("to_anndata")
    rows = np.flatnonzero(samples.observed({conversion.name}))
    obs = pd.DataFrame(index=pd.Index(np.asarray(samples.ids.cast(pa.string()).to_pylist(), object)[rows]))
    for frame in (tables or {}).values():
        columns = _named_rows(frame)
        obs = obs.join(
            columns.rename(columns={name: f"{name}_2" for name in obs.columns.intersection(columns.columns)})
        )
    if (labels := samples.labels()) is not None and samples.label_name not in obs:
        obs[str(samples.label_name)] = pd.Categorical(labels.to_pandas()[rows])
    names = conversion.facts.get("features") or map(str, range(conversion.shape[0]))
    var = pd.DataFrame(index=pd.Index(list(names), dtype=object))
    return anndata.AnnData(samples.array(conversion)[rows], obs, var)


def _named_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a data frame with texts as index, as AnnData has it."""
    index = frame.index.astype(str).astype(object)
    return frame.set_axis(index, axis=0).rename_axis(None).rename(columns=str)
