"""Folders of images, one a modality, a file a sample: SOURCE/<modality>/<id>.png, the same names in every one."""

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
from postprior.pipelines.data.formats.contents import ArrayView, Found, Roles, pixel_kind, safe_name
from postprior.pipelines.data.formats.files import files_in, holds, inside
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError, as_user_error

ABOUT = "a folder of folders of .png or .jpg images"
FACTS: tuple[str, ...] = ("folder", "mode", "suffix")
SUFFIXES = (".png", ".jpg", ".jpeg")
LOSSY: dict[str, dict[str, Any]] = {".jpg": {"quality": 95}, ".jpeg": {"quality": 95}}
"""Files whose pixels another one that is written of them does not have, by the ends of names, with Pillow's options."""
AXES = {"L": "HW", "I;16": "HW", "RGB": "HWC", "RGBA": "HWC"}
"""Modes of Pillow that are taken as they are, and the axes of their pixels."""
OTHERS = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LA": "RGBA", "PA": "RGBA", "I": "I;16"}
UNREADABLE = OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning
"""What Pillow raises of an image: a SyntaxError tells of a broken PNG."""


def recognises(path: Path) -> bool:
    """Whether a path is a folder that holds images, at any depth."""
    return holds(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[Found]:
    """One modality a folder, rows matched by file name; folders in folders are part of the name."""
    alone = holds(path, SUFFIXES, deep=False)
    inner = (child for child in path.iterdir() if recognises(child) and not child.name.startswith("."))
    folders = [path.resolve()] if alone else sorted(inner)
    skipped = [folder for folder in folders if safe_name(folder.name) in roles.skip]
    if len(skipped) == len(folders):
        raise UserError(f"{path}: all folders are left out, expected one at least; take a --skip away")
    found = [_folder(folder, path, roles) for folder in folders if folder not in skipped]
    return [replace(found[0], skipped=tuple(safe_name(folder.name) for folder in skipped)), *found[1:]]


def _folder(folder: Path, root: Path, roles: Roles) -> Found:
    files = files_in(folder, SUFFIXES, root=root)
    ids = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    images = [(row, file, f"{file.parent}/", file.name) for row, file in enumerate(files)]
    pixels, mode = stacked(images, len(files))
    name = safe_name(folder.name)
    kind = pixel_kind(folder.name, name, pixels, AXES[mode], roles.kinds)
    suffixes = {file.suffix for file in files}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".png"  # which loses nothing, whatever the others are
    facts = {"source": "images", "folder": folder.name, "mode": mode, "suffix": suffix}
    contents = pa.array([file.read_bytes() for file in files], pa.binary()) if suffix.lower() in LOSSY else None
    view = ArrayView(name, pixels, AXES[mode], kind, facts, files=contents)
    return Found(folder.name, len(files), (view,), ids=(None, pa.chunked_array([ids])))


def stacked(images: Iterable[tuple[int, Path | BytesIO, str, str]], rows: int) -> tuple[Values, str]:
    """The pixels (rows, …) of images of one size and mode, and the mode; each has its row, content, place and name."""
    pixels, mode, first = np.empty((0, 0, 0)), "", ""
    for row, content, home, name in images:
        place = home + name
        image, found = pixels_of(content, place)
        if not first:
            pixels, mode, first = np.zeros((rows, *image.shape), image.dtype), found, name
        if (image.shape, found) != (pixels.shape[1:], mode):
            raise UserError(
                f"{place}: {image.shape[1]} × {image.shape[0]} pixels of mode {found} found, expected "
                f"{pixels.shape[2]} × {pixels.shape[1]} of mode {mode} as in {first}; give all images one size"
            )
        pixels[row] = image
    return pixels, mode


def pixels_of(content: Path | BytesIO, place: str) -> tuple[np.ndarray, str]:
    """The pixels of an image (H, W) or (H, W, C) and its mode, a key of `AXES`."""
    with (
        as_user_error(UNREADABLE, f"{place}: this image cannot be read", "replace it or leave it out"),
        warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
        Image.open(content) as image,
    ):
        low, high = limits(np.asarray(image)[None]) if image.mode == "I" else (0, 0)
        if low < 0 or high > np.iinfo(np.uint16).max:
            raise UserError(f"{place}: values from {low:.0f} to {high:.0f} found, expected 0 to 65535; convert it")
        deep = any(";16" in str(tile.args) for tile in image.tile)  # Pillow halves the bits of colours
        image.load()
        mode = OTHERS.get(image.mode, image.mode)
        pixels = np.asarray(image if mode == image.mode else image.convert(mode))
    if mode not in AXES:
        raise UserError(f"{place}: an image of mode {mode} found, expected one of {', '.join(AXES)}; convert it")
    if deep and mode != "I;16":
        raise UserError(f"{place}: colours of 16 bits found, expected 8 bits, or one channel of 16; convert it")
    return pixels, mode


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """The images that are there, named after the samples' ids."""
    for conversion in conversions:
        home, suffix = path / conversion.facts["folder"], conversion.facts["suffix"]
        pixels, there = samples.array(conversion), samples.observed({conversion.name})
        for row in np.flatnonzero(there):
            file = inside(home, f"{samples.ids[row].as_py()}{suffix}")
            file.parent.mkdir(parents=True, exist_ok=True)
            if (content := _as_it_was(samples.dataset, conversion, int(row))) is not None:
                file.write_bytes(content)
            else:
                Image.fromarray(pixels[row]).save(file, **LOSSY.get(suffix.lower(), {}))


def _as_it_was(dataset: Dataset, conversion: ArrayConversion, row: int) -> bytes | None:
    """The file that a sample's image came from, if it has the same pixels still and could not be written again."""
    source = dataset.source_values.get(conversion.name)
    content = None if source is None or isinstance(source, np.ndarray) else source["file"][row].as_py()
    if content is None:
        return None
    pixels, _ = pixels_of(BytesIO(content), f"{conversion.name}: row {row}")
    x, _ = conversion.encode(pixels[None], np.zeros(1, int))
    return content if close(x[0], dataset.data[conversion.name][row]).all() else None
