"""Hugging Face datasets: a folder written by `save_to_disk`, or hf:owner/name on the hub.

Columns of images and of arrays with one shape become modalities; numbers, texts and classes become columns of a table.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import TableConversion
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
from postprior.pipelines.data.formats.images import AXES, stacked
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.tables import table_contents
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError, as_user_error
from postprior.pipelines.texts import shell_quoted

ABOUT = "a Hugging Face dataset"
FACTS: tuple[str, ...] = ("file",)
OPTIONS: tuple[str, ...] = ("nan_is_missing", "keep_rare", "repeated")
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
    views = [
        _images(datasets, path, data, name, roles, facts)
        if isinstance(feature, datasets.Image)
        else _array(path, data, name, roles, facts)
        for name, feature in wanted.items()
        if name not in scalars
    ]
    columns, originals = _table(datasets, path, data, scalars)
    contents = table_contents(columns, path.name, roles, facts, originals)
    skipped = tuple(name for name in data.features if name in roles.skip)
    contents = replace(contents, rows=len(data), views=(*views, *contents.views), headers=(), names=contents.headers)
    return [replace(contents, skipped=skipped, split=contents.split or split)]


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


def _images(datasets: Any, path: Path, data: Any, name: str, roles: Roles, facts: dict[str, Any]) -> ArrayView:
    """Return the images of a column, which must be embedded in it; references to files are refused."""
    stored = data.select_columns([name]).cast_column(name, datasets.Image(decode=False)).with_format("arrow")[:][name]
    missing = stored.is_null().to_numpy()
    if missing.all():
        remedy = f"leave the column out (--skip {shell_quoted(name)})"
        raise UserError(f"{path}: {name}: no image found, expected at least one; {remedy}")

    def image(row: int) -> tuple[int, BytesIO, str, str]:
        content, home = stored[row].as_py()["bytes"], f"{path}: {name} of "
        if content is None:
            expected = "expected the image itself; save the dataset with embedded images"
            raise UserError(f"{home}row {row}: only the name of a file found, {expected}")
        return row, BytesIO(content), home, f"row {row}"

    pixels, mode = stacked(map(image, np.flatnonzero(~missing).tolist()), len(data))
    kind = pixel_kind(path.name, composed(name), pixels, AXES[mode], roles.kinds)
    return ArrayView(composed(name), pixels, AXES[mode], kind, {**facts, "feature": name, "image": True}, missing)


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
        columns[name] = (_png_files if name in images else _lists)(samples.array(conversion), observed)
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


def _png_files(pixels: Values, observed: Values) -> pa.Array:
    """Encode images (n, …) as PNG; null where an image is not observed."""

    def png(image: Values) -> dict[str, Any]:
        content = BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        return {"bytes": content.getvalue(), "path": None}

    return pa.array([png(image) if seen else None for image, seen in zip(pixels, observed, strict=True)], STORED)


def _lists(array: Values, observed: Values) -> pa.Array:
    """Return values (n, …) as nested lists, or as numbers if they have no axes; null where not observed."""
    nested = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, int(size))
    return nested.take(pa.array(np.arange(len(array)), mask=~observed))
