"""Folders of images, one a modality, a file a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from postprior.pipelines.data.conversion import ArrayConversion, Conversion
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.errors import UserError

OPTIONS: dict[str, dict[str, Any]] = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}}
"""Of formats that have some, by the ends of names."""


def write_images(samples: Samples, conversions: Sequence[Conversion], folder: Path) -> None:
    """The images that are there, named after the samples' ids."""
    for conversion in conversions:
        assert isinstance(conversion, ArrayConversion)
        home, suffix = folder / conversion.facts["folder"], conversion.facts["suffix"]
        pixels, there = samples.array(conversion), samples.observed({conversion.name})
        for row in np.flatnonzero(there):
            path = inside(home, f"{samples.ids[row].as_py()}{suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if (content := samples.file(conversion, int(row))) is not None:
                path.write_bytes(content)
            else:
                Image.fromarray(pixels[row]).save(path, **OPTIONS.get(suffix.lower(), {}))


def inside(folder: Path, name: str) -> Path:
    """The path of a file under a folder; a name that leads out of it is refused."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"id {name!r}: leads out of {folder.name}, expected a file name; rename the sample")
    return path
