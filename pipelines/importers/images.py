"""Folders of images, one a modality: SOURCE/<modality>/<id>.png, the same names in every one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from pipelines.errors import UserError
from pipelines.importers.found import ArrayView, Found, Roles
from pipelines.importers.kinds import array_kind

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
    folders = [path] if alone else sorted(child for child in path.iterdir() if is_images(child))
    return [_folder(folder, path.resolve(), roles) for folder in folders]


def _folder(folder: Path, root: Path, roles: Roles) -> Found:
    files = sorted(child for child in folder.rglob("*") if child.suffix.lower() in SUFFIXES)
    ids = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    first, mode = open_image(files[0], root)
    pixels = np.empty((len(files), *first.shape), first.dtype)
    for row, file in enumerate(files):
        image, found = open_image(file, root)
        if (image.shape, found) != (first.shape, mode):
            raise UserError(
                f"{file}: {image.shape[1]} × {image.shape[0]} pixels of mode {found} found, expected "
                f"{first.shape[1]} × {first.shape[0]} of mode {mode} as in {files[0].name}; give all images one size"
            )
        pixels[row] = image
    name = re.sub(r"[^A-Za-z0-9_-]", "_", folder.name)
    kind = (
        array_kind(folder.name, name, pixels, AXES[mode], roles.kinds) if name in roles.kinds else "numeric"
    )
    suffix = ".png" if files[0].suffix.lower() == ".png" else ".jpg"
    facts = {"source": "images", "folder": folder.name, "mode": mode, "suffix": suffix}
    view = ArrayView(name, pixels, AXES[mode], kind, facts)
    return Found(folder.name, len(files), (view,), ids=(None, pa.chunked_array([ids])))


def open_image(file: Path, root: Path) -> tuple[np.ndarray, str]:
    """The pixels of an image and its mode; one outside the folder `root` is refused."""
    if not file.resolve().is_relative_to(root):
        raise UserError(f"{file}: leads out of {root}, expected files inside; copy it there")
    try:
        with Image.open(file) as image:
            image.load()
            mode = OTHERS.get(image.mode, image.mode)
            converted = image if mode == image.mode else image.convert(mode)
            pixels = np.asarray(converted)
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: this image cannot be read ({error}); replace it or leave it out") from None
    if mode not in AXES:
        raise UserError(f"{file}: an image of mode {mode} found, expected one of {', '.join(AXES)}")
    return pixels, mode
