"""Hugging Face datasets: a folder written by `save_to_disk`, or hf:owner/name on the hub.

Columns of images and of arrays with one shape become modalities; numbers, texts and classes become columns of a table.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion, TableConversion
from postprior.pipelines.data.dataset import OTHER_SPLITS, SPLITS
from postprior.pipelines.data.formats.contents import (
    ArrayView,
    Roles,
    SourceContents,
    array_view,
    pixel_kind,
    simplify_table,
)
from postprior.pipelines.data.formats.files import check_inside, optional
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.stacking import Picture, original_file, stacked
from postprior.pipelines.data.formats.tables import table_contents
from postprior.pipelines.data.names import composed
from postprior.pipelines.data.pixels.modes import mode_of
from postprior.pipelines.data.pixels.writing import encoded, suffix_for
from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.texts import shell_quoted

ABOUT = "a Hugging Face dataset"
FACTS: tuple[str, ...] = ("file",)
OPTIONS: tuple[str, ...] = ("nan_is_missing", "keep_rare", "repeated", "size", "mode", "alpha", "first_frame")
HUB = "hf:"
STORED = pa.struct({"bytes": pa.binary(), "path": pa.string()})  # how the format stores an image


def recognises(path: Path) -> bool:
    """Whether a path is a dataset that was saved to disk, or names one on the hub."""
    saved = any((path / name).exists() for name in ("state.json", "dataset_dict.json"))
    return saved or str(path).startswith(HUB)


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read all rows as one source; splits are kept if they are train, validation and test."""
    datasets = optional("datasets", "datasets", path)
    loaded = _load(datasets, path)
    if not str(path).startswith(HUB):
        for part in loaded.values() if isinstance(loaded, dict) else [loaded]:
            for stored in part.cache_files:
                check_inside(Path(stored["filename"]), path)
    data, split = _rows(datasets, path, loaded)
    if not len(data):
        raise UserError(f"{path}: no rows found, expected one row per sample; check the dataset")
    facts = {"source": "datasets", "file": path.name, "features": data.features.to_dict()}
    wanted = {name: feature for name, feature in data.features.items() if name not in roles.skip}
    scalars = [name for name, feature in wanted.items() if isinstance(feature, datasets.Value | datasets.ClassLabel)]
    views: list[ArrayView] = []
    notes: list[str] = []
    for name, feature in wanted.items():
        if isinstance(feature, datasets.Image):
            view, told = _images(datasets, path, data, name, roles, facts)
            notes += told
            views.append(view)
        elif name not in scalars:
            views.append(_array(path, data, name, roles, facts))
    columns, originals = _table(datasets, path, data, scalars)
    contents = table_contents(columns, path.name, roles, facts, originals)
    skipped = tuple(name for name in data.features if name in roles.skip)
    contents = replace(contents, rows=len(data), views=(*views, *contents.views), headers=(), names=contents.headers)
    notes += contents.notes
    return [replace(contents, skipped=skipped, split=contents.split or split, notes=tuple(notes))]


def _load(datasets: Any, path: Path) -> Any:
    # errors of the network, the hub and the disk have no common base class
    with as_user_error(Exception, f"{path}: this dataset cannot be read", "save the dataset again or correct the name"):
        try:
            if str(path).startswith(HUB):
                return datasets.load_dataset(str(path).removeprefix(HUB))
            return datasets.load_from_disk(str(path))
        except IndexError:  # raised for a dataset without any table
            return datasets.Dataset.from_dict({})


def _rows(datasets: Any, path: Path, loaded: Any) -> tuple[Any, Any]:
    """Return all rows of a dataset, and the column of its splits if they are train, validation and test."""
    if not isinstance(loaded, dict):
        return loaded, None
    with as_user_error(ValueError, f"{path}: splits with different columns found", "give all splits the same columns"):
        data = datasets.concatenate_datasets(list(loaded.values()))
    names = [OTHER_SPLITS.get(name, name) for name in loaded]
    if set(names) != set(SPLITS):
        return data, None
    split = np.repeat(np.array(names), [len(part) for part in loaded.values()])
    return data, ("split", pa.chunked_array([split]))


def _table(datasets: Any, path: Path, data: Any, names: list[str]) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """Return the columns of numbers and texts, with classes by name, and `originals` as in `SourceContents`."""
    if not names:
        return pa.table({}), {}
    columns, originals = simplify_table(path, data.select_columns(names).with_format("arrow")[:])
    for place, name in enumerate(names):
        if isinstance(feature := data.features[name], datasets.ClassLabel):
            column = columns[name]
            places = pc.if_else(pc.less(column, 0), None, column).combine_chunks()  # −1 marks an unknown class
            columns = columns.set_column(place, name, pa.chunked_array([pa.array(feature.names).take(places)]))
    return columns, originals


def _images(
    datasets: Any, path: Path, data: Any, name: str, roles: Roles, facts: dict[str, Any]
) -> tuple[ArrayView, tuple[str, ...]]:
    """Return the images of a column, which must be embedded in it, and notes; references to files are refused."""
    stored = data.select_columns([name]).cast_column(name, datasets.Image(decode=False)).with_format("arrow")[:][name]
    missing = stored.is_null().to_numpy()
    if missing.all():
        remedy = f"leave the column out (--skip {shell_quoted(name)})"
        raise UserError(f"{path}: {name}: no image found, expected at least one; {remedy}")

    def picture(row: int) -> Picture:
        place = f"{path}: {name} of row {row}"
        if (content := stored[row].as_py()["bytes"]) is None:
            expected = "expected the image itself; save the dataset with embedded images"
            raise UserError(f"{place}: only the name of a file found, {expected}")
        return Picture(row, content, place)

    rows, modality = np.flatnonzero(~missing).tolist(), composed(name)
    stack = stacked(name, modality, lambda: map(picture, rows), len(data), roles)
    kind = pixel_kind(path.name, modality, stack.pixels, stack.axes, roles.kinds)
    facts = {**facts, "feature": name, "image": True, **stack.facts}
    view = ArrayView(modality, stack.pixels, stack.axes, kind, facts, missing)
    if not stack.kept[rows].all():
        contents = tuple((struct.as_py() or {}).get("bytes") or b"" for struct in stored)
        view = replace(view, files=contents, exact=stack.kept)
    return view, stack.notes


def _array(path: Path, data: Any, name: str, roles: Roles, facts: dict[str, Any]) -> ArrayView:
    """Return a column of lists or arrays that have one shape."""
    missing = data.select_columns([name]).with_format("arrow")[:][name].is_null().to_numpy()
    rows = np.flatnonzero(~missing)
    inner = data.features[name]
    while hasattr(inner, "feature"):
        inner = inner.feature
    double = (
        {"dtype": np.float64} if getattr(inner, "dtype", None) == "float64" else {}
    )  # otherwise values are cut to 32 bits
    array = np.asarray(data.select(rows).select_columns([name]).with_format("numpy", **double)[:][name])
    if array.dtype.kind not in "fiub":
        expected = f"images, numbers, texts, or arrays of one shape; leave the column out (--skip {shell_quoted(name)})"
        raise UserError(f"{path}: {name}: {data.features[name]} found, expected {expected}")
    all_rows = np.zeros((len(data), *array.shape[1:]), array.dtype)
    all_rows[rows] = array
    return array_view(path, composed(name), all_rows, missing, roles, {**facts, "feature": name, "image": False})


def write(samples: Samples, conversions: Sequence[Any], path: Path) -> None:
    """Write the dataset of these modalities, with null where a sample lacks one."""
    datasets = optional("datasets", "datasets", path.parent)
    datasets.disable_progress_bars()
    columns, images = samples.roles(), []
    for conversion in conversions:
        if isinstance(conversion, TableConversion):
            table = samples.table(conversion)
            columns |= dict(zip(table.column_names, table.columns, strict=True))
            continue
        name, observed = conversion.facts["feature"], samples.observed({conversion.name})
        images += [name] if conversion.facts["image"] else []
        columns[name] = _files(samples, conversion) if name in images else _lists(samples.array(conversion), observed)
    data = datasets.Dataset(pa.table(columns))
    for name in images:
        data = data.cast_column(name, datasets.Image())
    _with_features(datasets, data, conversions[-1].facts.get("features", {})).save_to_disk(str(path))


def _with_features(datasets: Any, data: Any, described: dict[str, Any]) -> Any:
    """Restore the original order and features of the columns, except for columns whose values do not fit them."""
    features = datasets.Features.from_dict(described)
    order = [name for name in features if name in data.column_names]
    data = data.select_columns([*order, *(name for name in data.column_names if name not in features)])
    for name in order:
        with suppress(ValueError, TypeError, pa.ArrowException):
            data = data.cast_column(name, features[name])
    return data


def _files(samples: Samples, conversion: ArrayConversion) -> pa.Array:
    """Encode images as PNG, or as TIFF if PNG does not hold them; null where an image is not observed."""
    pixels, observed = samples.array(conversion), samples.observed({conversion.name})
    suffix = suffix_for(mode_of(conversion.dtype, conversion.shape), set())

    def content(row: int) -> bytes:
        original = original_file(samples.dataset, conversion, row)
        return encoded(pixels[row], suffix) if original is None else original

    return pa.array(
        [{"bytes": content(row), "path": None} if seen else None for row, seen in enumerate(observed)], STORED
    )


def _lists(array: Values, observed: Values) -> pa.Array:
    """Return values (n, …) as nested lists, or as numbers if they have no axes; null where not observed."""
    nested = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, int(size))
    return nested.take(pa.array(np.arange(len(array)), mask=~observed))
