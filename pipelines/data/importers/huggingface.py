"""Datasets of Hugging Face: a folder of `save_to_disk`, or hf:owner/name of the hub.

Images and arrays of one shape are modalities; numbers, texts and classes are columns of a table.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.dataset import SPLITS
from postprior.pipelines.data.importers.extras import optional
from postprior.pipelines.data.importers.files import check_inside
from postprior.pipelines.data.importers.found import ArrayView, Found, Roles
from postprior.pipelines.data.importers.images import AXES, pixels_of, same_size
from postprior.pipelines.data.importers.kinds import (
    array_axes,
    array_kind,
    check_finite,
    pixel_kind,
    safe_name,
)
from postprior.pipelines.data.importers.splitting import OTHER_NAMES
from postprior.pipelines.data.importers.tables import found_in, made_plain
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import quoted

HUB = "hf:"


def is_datasets(path: Path) -> bool:
    """Whether a path is a data set that was saved to disk, or names one of the hub."""
    return str(path).startswith(HUB) or any(
        (path / name).exists() for name in ("state.json", "dataset_dict.json")
    )


def read_datasets(path: Path, roles: Roles) -> list[Found]:
    """All rows as one source; splits are kept where they are train, validation and test."""
    datasets = optional("datasets", "datasets", path)
    loaded = _load(datasets, path)
    if not str(path).startswith(HUB):
        for part in loaded.values() if isinstance(loaded, dict) else [loaded]:
            for stored in part.cache_files:
                check_inside(Path(stored["filename"]), path)
    data, split = _rows(datasets, path, loaded)
    if not len(data):
        raise UserError(f"{path}: found no rows, expected one a sample")
    facts = {"source": "datasets", "file": path.name, "features": data.features.to_dict()}
    views: list[ArrayView] = []
    scalars = []
    for name, feature in data.features.items():
        if name in roles.skip:
            continue
        if isinstance(feature, datasets.Image):
            views.append(_images(datasets, path, data, name, roles, facts))
        elif isinstance(feature, datasets.Value | datasets.ClassLabel):
            scalars.append(name)
        else:
            views.append(_array(path, data, name, roles, facts))
    columns, originals = _table(datasets, path, data, scalars)
    found = found_in(columns, path.name, roles, facts, originals)
    skipped = tuple(name for name in data.features if name in roles.skip)
    return [
        Found(
            **{
                **vars(found),
                "rows": len(data),
                "views": (*views, *found.views),
                "headers": (),
                "names": found.headers,
                "skipped": skipped,
                "split": found.split or split,
            }
        )
    ]


def _load(datasets: Any, path: Path) -> Any:
    try:
        if str(path).startswith(HUB):
            return datasets.load_dataset(str(path).removeprefix(HUB))
        return datasets.load_from_disk(str(path))
    except IndexError:  # of a list of tables without one
        raise UserError(f"{path}: found no rows, expected one a sample") from None
    except Exception as error:  # of the network, the hub and the disk: none of them has a common ancestor
        told = " ".join(str(error).split())
        raise UserError(f"{path}: this data set cannot be read ({told}); save or name it again") from None


def _rows(datasets: Any, path: Path, loaded: Any) -> tuple[Any, Any]:
    """All rows of a data set and the column of its splits, if they are ours."""
    if not isinstance(loaded, dict):
        return loaded, None
    try:
        data = datasets.concatenate_datasets(list(loaded.values()))
    except ValueError as error:
        told = " ".join(str(error).split())
        raise UserError(f"{path}: splits with different columns found ({told}); give all the same") from None
    names = [OTHER_NAMES.get(name, name) for name in loaded]
    if set(names) != set(SPLITS):
        return data, None
    return data, (
        "split",
        pa.chunked_array([np.repeat(np.array(names), [len(part) for part in loaded.values()])]),
    )


def _table(
    datasets: Any, path: Path, data: Any, names: list[str]
) -> tuple[pa.Table, dict[str, pa.ChunkedArray]]:
    """The columns of numbers and texts, classes by their names, and originals as for `Found`."""
    if not names:
        return pa.table({}), {}
    columns, originals = made_plain(path, data.select_columns(names).with_format("arrow")[:])
    for place, name in enumerate(names):
        if isinstance(feature := data.features[name], datasets.ClassLabel):
            column = columns[name]
            places = pc.if_else(pc.less(column, 0), None, column).combine_chunks()  # −1 where it is not known
            columns = columns.set_column(
                place, name, pa.chunked_array([pa.array(feature.names).take(places)])
            )
    return columns, originals


def _images(
    datasets: Any, path: Path, data: Any, name: str, roles: Roles, facts: dict[str, Any]
) -> ArrayView:
    """The images of a column, which are stored in it; files beside it are not followed."""
    stored = (
        data.select_columns([name])
        .cast_column(name, datasets.Image(decode=False))
        .with_format("arrow")[:][name]
    )
    missing = stored.is_null().to_numpy()
    if missing.all():
        raise UserError(
            f"{path}: {name}: no image found, expected some; leave it out (--skip {quoted(name)})"
        )
    first: tuple[np.ndarray, str, str] | None = None
    pixels = np.empty(0)
    for row in np.flatnonzero(~missing):
        content, place = stored[row].as_py()["bytes"], f"{path}: {name} of row {row}"
        if content is None:
            raise UserError(
                f"{place}: stored as the name of a file, expected the image itself; save it embedded"
            )
        image, mode = pixels_of(BytesIO(content), place)
        if first is None:
            first = image, mode, f"row {row}"
            pixels = np.zeros((len(data), *image.shape), image.dtype)
        same_size(place, image, mode, *first)
        pixels[row] = image
    assert first is not None
    axes, safe = AXES[first[1]], safe_name(name)
    kind = pixel_kind(path.name, safe, pixels, axes, roles.kinds)
    facts = {**facts, "feature": name, "image": True}
    return ArrayView(safe, pixels, axes, kind, facts, missing if missing.any() else None)


def _array(path: Path, data: Any, name: str, roles: Roles, facts: dict[str, Any]) -> ArrayView:
    """A column of lists or arrays of one shape."""
    missing = data.select_columns([name]).with_format("arrow")[:][name].is_null().to_numpy()
    rows = np.flatnonzero(~missing)
    inner = data.features[name]
    while hasattr(inner, "feature"):
        inner = inner.feature
    # a double is cut to 32 bits unless it is asked for
    double = {"dtype": np.float64} if getattr(inner, "dtype", None) == "float64" else {}
    values = data.select(rows).select_columns([name]).with_format("numpy", **double)[:][name]
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise UserError(
            f"{path}: {name}: {data.features[name]} found, expected images, numbers, texts, or arrays of one shape; "
            f"leave it out (--skip {quoted(name)})"
        )
    whole = np.zeros((len(data), *array.shape[1:]), array.dtype)
    whole[rows] = array
    check_finite(f"{path}: {name}", whole, missing, roles)
    safe = safe_name(name)
    axes = array_axes(path.name, name, array.shape[1:])
    kind = array_kind(path.name, safe, array, axes, roles.kinds)
    facts = {**facts, "feature": name, "image": False}
    return ArrayView(safe, whole, axes, kind, facts, missing if missing.any() else None)
