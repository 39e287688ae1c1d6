"""Folders of images: one folder per modality, one file per sample, SOURCE/<modality>/<id>.png, with matching names."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.conversion.arrays import limits
from postprior.pipelines.data.conversion.columns import close
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import ArrayView, Roles, SourceContents, pixel_kind
from postprior.pipelines.data.formats.files import files_in, holds, inside
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError, as_user_error

ABOUT = "a folder of folders of .png or .jpg images"
FACTS: tuple[str, ...] = ("folder", "mode", "suffix")
OPTIONS: tuple[str, ...] = ()
SUFFIXES = (".png", ".jpg", ".jpeg")
LOSSY: dict[str, dict[str, Any]] = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}}
"""Suffixes of lossy formats, whose pixels change when a file is written again, and the options for Pillow."""
AXES = {"L": "HW", "I;16": "HW", "RGB": "HWC", "RGBA": "HWC"}
"""Modes of Pillow that are read without conversion, and the axes of their pixels."""
CONVERTED = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LA": "RGBA", "PA": "RGBA", "I": "I;16"}
"""Other modes of Pillow, and the mode that they are converted to."""
UNREADABLE = OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning
"""Exceptions that Pillow raises for an unreadable image; a SyntaxError means a broken PNG."""


def recognises(path: Path) -> bool:
    """Whether a path is a folder that contains images, at any depth."""
    return holds(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read one modality per folder; rows are matched by file name, which includes the names of subfolders."""
    alone = holds(path, SUFFIXES, deep=False)
    inner = (child for child in path.iterdir() if recognises(child) and not child.name.startswith("."))
    folders = [path.resolve()] if alone else sorted(inner)
    skipped = [folder for folder in folders if composed(folder.name) in roles.skip]
    if len(skipped) == len(folders):
        raise UserError(f"{path}: all folders are left out, expected at least one modality; remove a --skip")
    contents = [_folder(folder, path, roles) for folder in folders if folder not in skipped]
    return [replace(contents[0], skipped=tuple(composed(folder.name) for folder in skipped)), *contents[1:]]


def _folder(folder: Path, root: Path, roles: Roles) -> SourceContents:
    files = files_in(folder, SUFFIXES, root=root)
    ids = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    images = [(row, file, f"{file.parent}/", file.name) for row, file in enumerate(files)]
    pixels, mode = stacked(images, len(files))
    name = composed(folder.name)
    kind = pixel_kind(folder.name, name, pixels, AXES[mode], roles.kinds)
    suffixes = {file.suffix for file in files}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".png"  # lossless for files of mixed formats
    facts = {"source": "images", "folder": folder.name, "mode": mode, "suffix": suffix}
    contents = pa.array([file.read_bytes() for file in files], pa.binary()) if suffix.lower() in LOSSY else None
    view = ArrayView(name, pixels, AXES[mode], kind, facts, files=contents)
    return SourceContents(folder.name, len(files), (view,), ids=(None, pa.chunked_array([ids])))


def stacked(images: Iterable[tuple[int, Path | BytesIO, str, str]], rows: int) -> tuple[Values, str]:
    """Read images of one size and mode; return their pixels (rows, …) and the mode.

    Each image is a tuple (row, content, place, name); messages name it as `place` + `name`.
    """
    pixels, mode, first = np.empty((0, 0, 0)), "", ""
    for row, content, home, name in images:
        place = home + name
        image, image_mode = pixels_of(content, place)
        if not first:
            pixels, mode, first = np.zeros((rows, *image.shape), image.dtype), image_mode, name
        if (image.shape, image_mode) != (pixels.shape[1:], mode):
            raise UserError(
                f"{place}: {image.shape[1]} × {image.shape[0]} pixels of mode {image_mode} found, expected "
                f"{pixels.shape[2]} × {pixels.shape[1]} of mode {mode} as in {first}; convert all images to one size "
                "and mode"
            )
        pixels[row] = image
    return pixels, mode


def pixels_of(content: Path | BytesIO, place: str) -> tuple[np.ndarray, str]:
    """Return the pixels of an image (H, W) or (H, W, C), and its mode, a key of `AXES`."""
    with (
        as_user_error(UNREADABLE, f"{place}: this image cannot be read", "replace it or leave it out"),
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(content) as image,
    ):
        low, high = limits(np.asarray(image)[None]) if image.mode == "I" else (0, 0)
        if low < 0 or high > np.iinfo(np.uint16).max:
            expected = "expected values from 0 to 65535; convert the image"
            raise UserError(f"{place}: values from {low:.0f} to {high:.0f} found, {expected}")
        deep = any(";16" in str(tile.args) for tile in image.tile)  # Pillow reduces colours to 8 bits per channel
        image.load()
        mode = CONVERTED.get(image.mode, image.mode)
        pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    if mode not in AXES:
        expected = f"expected one of {', '.join(AXES)}; convert the image"
        raise UserError(f"{place}: an image of mode {mode} found, {expected}")
    if deep and mode != "I;16":
        expected = "expected 8 bits per channel, or a single channel of 16 bits; convert the image"
        raise UserError(f"{place}: colours of 16 bits per channel found, {expected}")
    return pixels, mode


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """Write the observed images, named after the ids of the samples."""
    for conversion in conversions:
        home, suffix = path / conversion.facts["folder"], conversion.facts["suffix"]
        pixels, observed = samples.array(conversion), samples.observed({conversion.name})
        for row in np.flatnonzero(observed):
            file = inside(home, f"{samples.ids[row].as_py()}{suffix}")
            file.parent.mkdir(parents=True, exist_ok=True)
            if (content := _original_file(samples.dataset, conversion, int(row))) is not None:
                file.write_bytes(content)
            else:
                Image.fromarray(pixels[row]).save(file, **LOSSY.get(suffix.lower(), {}))


def _original_file(dataset: Dataset, conversion: ArrayConversion, row: int) -> bytes | None:
    """Return the stored lossy file of a sample's image if its pixels are unchanged, otherwise None."""
    source = dataset.source_values.get(conversion.name)
    content = None if source is None or isinstance(source, np.ndarray) else source["file"][row].as_py()
    if content is None:
        return None
    pixels, _ = pixels_of(BytesIO(content), f"{conversion.name}: row {row}")
    x, _ = conversion.encode(pixels[None], np.zeros(1, int))
    return content if close(x[0], dataset.data[conversion.name][row]).all() else None
