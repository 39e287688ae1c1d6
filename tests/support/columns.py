"""Import one small CSV and export it again."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data

ROWS = 60
IDS = [f"p{row:02}" for row in range(ROWS)]
X = np.random.default_rng(0).permutation(ROWS) + 100.5


def lines(header: str, *columns: Sequence[Any], mark: str = ",") -> list[str]:
    """The lines of a table with ids; blanks in the header stand for delimiters."""
    return [mark.join(header.split()), *(mark.join(map(str, row)) for row in zip(IDS, *columns, strict=True))]


def returned(tmp_path: Path, name: str, text: str, roles: Roles = Roles(), encoding: str = "utf-8") -> tuple[str, str]:  # noqa: B008
    """Import a table; return the summary, and the header and sorted rows that export writes for all splits."""
    content = text.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    shutil.rmtree(tmp_path / "back", ignore_errors=True)
    told = "\n".join(import_data([tmp_path / name], tmp_path / "data", roles))
    rows: list[str] = []
    for split in ("train", "validation", "test"):
        export(tmp_path / "data" / split, tmp_path / "back" / split)
        content = (tmp_path / "back" / split / name).read_bytes()
        content = gzip.decompress(content) if name.endswith("gz") else content
        header, *part = content.decode(encoding).splitlines()
        rows += part
    return told, "\n".join([header, *sorted(rows)])


def columns_of(tmp_path: Path, split: str = "train") -> dict[str, dict[str, Any]]:
    """The descriptions of the columns that the last import modelled, by name."""
    conversion = Dataset.load(tmp_path / "data" / split).conversion
    assert conversion is not None
    entries = [entry for modality in conversion["modalities"].values() for entry in modality["columns"]]
    return {entry["name"]: entry for entry in entries}


def cells_of(tmp_path: Path, name: str) -> dict[str, float | None]:
    """The number that models see in a column for each id, None where it is missing."""
    found: dict[str, float | None] = {}
    for split in ("train", "validation", "test"):
        data = Dataset.load(tmp_path / "data" / split)
        (modality,) = data.modalities
        place = [column.name for column in modality.columns].index(name)
        assert data.ids is not None
        seen = ~data.missing(modality.name)[:, place]
        values = np.where(seen, data.data[modality.name][:, place], np.nan)
        pairs = zip(data.ids.tolist(), values.tolist(), seen, strict=True)
        found |= {key: value if there else None for key, value, there in pairs}
    return found
