"""Data sets of Hugging Face, as `load_from_disk` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from postprior.pipelines.data.conversion import Conversion, TableConversion
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.data.importers.extras import optional

STORED = pa.struct({"bytes": pa.binary(), "path": pa.string()})
"""How the format stores an image."""
Values = np.ndarray[Any, np.dtype[Any]]


def write_datasets(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """One data set for each that the modalities came from, null where a sample lacks one."""
    datasets = optional("datasets", "datasets", folder)
    datasets.disable_progress_bars()
    for file in dict.fromkeys(conversion.facts["file"] for conversion in conversions):
        columns, images, features = samples.roles(), [], {}
        for conversion in conversions:
            if conversion.facts["file"] != file:
                continue
            features = conversion.facts.get("features", {})
            if isinstance(conversion, TableConversion):
                table = samples.table(conversion)
                columns |= dict(zip(table.column_names, table.columns, strict=True))
                continue
            name, there = conversion.facts["feature"], samples.observed({conversion.name})
            if conversion.facts["image"]:
                images.append(name)
                columns[name] = _pictures(samples.array(conversion), there)
            else:
                columns[name] = _lists(samples.array(conversion), there)
        data = datasets.Dataset(pa.table(columns))
        for name in images:
            data = data.cast_column(name, datasets.Image())
        _as_they_were(datasets, data, features).save_to_disk(str(folder / file))


def _as_they_were(datasets: Any, data: Any, described: dict[str, Any]) -> Any:
    """Columns in their order and with their features, but for those whose values do not fit there."""
    features = datasets.Features.from_dict(described)
    order = [name for name in features if name in data.column_names]
    data = data.select_columns([*order, *(name for name in data.column_names if name not in features)])
    for name in order:
        with suppress(ValueError, TypeError, pa.ArrowException):
            data = data.cast_column(name, features[name])
    return data


def _pictures(pixels: Values, there: Values) -> pa.Array:
    """Images (n, …) as PNG."""

    def png(image: Values) -> dict[str, Any]:
        content = BytesIO()
        Image.fromarray(image).save(content, format="PNG")
        return {"bytes": content.getvalue(), "path": None}

    return pa.array([png(image) if seen else None for image, seen in zip(pixels, there, strict=True)], STORED)


def _lists(array: Values, there: Values) -> pa.Array:
    """Values (n, …) as lists of lists, single numbers as such; null where nothing is there."""
    nested = pa.array(array.reshape(-1))
    for size in reversed(array.shape[1:]):
        nested = pa.FixedSizeListArray.from_arrays(nested, int(size))
    return nested.take(pa.array(np.arange(len(array)), mask=~there))
