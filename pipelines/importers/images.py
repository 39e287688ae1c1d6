"""Folders of images, one a modality: SOURCE/<modality>/<id>.png, the same names in every one."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.errors import UserError
from pipelines.importers.found import ArrayView, Found, Roles
from pipelines.importers.kinds import pixel_kind, safe_name

SUFFIXES = (".png", ".jpg", ".jpeg")
AXES = {"L": "HW", "I;16": "HW", "RGB": "HWC", "RGBA": "HWC"}
"""Modes of Pillow that are taken as they are, and the axes of their pixels."""
OTHERS = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LA": "RGBA", "PA": "RGBA", "I": "I;16"}


def is_images(path: Path) -> bool:
    """Whether a path is a folder that holds images, at any depth."""
    return path.is_dir() and any(child.suffix.lower() in SUFFIXES for child in path.rglob("*"))


def read_images(path: Path, roles: Roles) -> list[Found]:
    """One modality a folder, rows matched by file name; folders in folders are part of the name."""
    alone = any(child.suffix.lower() in SUFFIXES for child in path.iterdir())
    folders = [path.resolve()] if alone else sorted(child for child in path.iterdir() if is_images(child))
    return [_folder(folder, path.resolve(), roles) for folder in folders]


def _folder(folder: Path, root: Path, roles: Roles) -> Found:
    files = sorted(child for child in folder.rglob("*") if child.suffix.lower() in SUFFIXES)
    ids = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    first, mode = open_image(files[0], root)
    pixels = np.empty((len(files), *first.shape), first.dtype)
    for row, file in enumerate(files):
        image, found = open_image(file, root)
        same_size(str(file), image, found, first, mode, files[0].name)
        pixels[row] = image
    name = safe_name(folder.name)
    kind = pixel_kind(folder.name, name, pixels, AXES[mode], roles.kinds)
    suffix = ".png" if files[0].suffix.lower() == ".png" else ".jpg"
    facts = {"source": "images", "folder": folder.name, "mode": mode, "suffix": suffix}
    view = ArrayView(name, pixels, AXES[mode], kind, facts)
    return Found(folder.name, len(files), (view,), ids=(None, pa.chunked_array([ids])))


def same_size(
    place: str, image: np.ndarray, mode: str, first: np.ndarray, first_mode: str, other: str
) -> None:
    """Refuse an image of another size or mode than the first of its modality."""
    if (image.shape, mode) != (first.shape, first_mode):
        raise UserError(
            f"{place}: {image.shape[1]} × {image.shape[0]} pixels of mode {mode} found, expected "
            f"{first.shape[1]} × {first.shape[0]} of mode {first_mode} as in {other}; give all images one size"
        )


def open_image(file: Path, root: Path) -> tuple[np.ndarray, str]:
    """The pixels of an image and its mode; one outside the folder `root` is refused."""
    if not file.resolve().is_relative_to(root):
        raise UserError(f"{file}: leads out of {root}, expected files inside; copy it there")
    return pixels_of(file, str(file))


def pixels_of(content: Path | BytesIO, place: str) -> tuple[np.ndarray, str]:
    """The pixels of an image (H, W) or (H, W, C) and its mode, a key of `AXES`."""
    try:
        with Image.open(content) as image:
            image.load()
            mode = OTHERS.get(image.mode, image.mode)
            converted = image if mode == image.mode else image.convert(mode)
            pixels = np.asarray(converted)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: of a PNG
        raise UserError(f"{place}: this image cannot be read ({error}); replace it or leave it out") from None
    if mode not in AXES:
        raise UserError(f"{place}: an image of mode {mode} found, expected one of {', '.join(AXES)}")
    return pixels, mode
