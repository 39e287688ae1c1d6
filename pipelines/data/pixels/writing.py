"""Write pixels as image files."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from postprior.pipelines.data.pixels.modes import Pixels

LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
HELD_BY = {
    **dict.fromkeys((".png", ".apng"), ("1", "L", "LA", "RGB", "RGBA", "I;16", "LA;16", "RGB;16", "RGBA;16")),
    **dict.fromkeys((".tif", ".tiff"), ("1", "L", "LA", "RGB", "RGBA", "I;16", "I", "F")),
    **dict.fromkeys((".jpg", ".jpeg", ".jfif"), ("L", "RGB")),
    ".bmp": ("1", "L", "RGB"),
    ".webp": ("RGB", "RGBA"),
    **dict.fromkeys((".jp2", ".j2k"), ("L", "LA", "RGB", "RGBA", "I;16")),
}
"""Modes that can be written, by suffix."""
OPTIONS: dict[str, dict[str, Any]] = {
    **{suffix: {"quality": 95} for suffix in (".jpg", ".jpeg", ".jfif")},
    ".webp": {"lossless": True, "exact": True},
}
"""Options for Pillow, by suffix."""


def suffix_for(mode: str, suffixes: set[str]) -> str:
    """Return the suffix of new files: the only one of the existing files if it holds the mode, else a lossless one."""
    if len(suffixes) == 1 and mode in HELD_BY.get(min(suffixes).lower(), ()):
        return min(suffixes)
    return ".png" if mode in HELD_BY[".png"] else ".tif"


def encoded(pixels: Pixels, suffix: str) -> bytes:
    """Return the content of an image file with these pixels (H, W[, C])."""
    if pixels.dtype == np.uint16 and pixels.ndim == 3:
        return _png_of_16_bits(pixels)
    content, format = BytesIO(), Image.registered_extensions()[suffix.lower()]
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, format, **OPTIONS.get(suffix.lower(), {}))
    return content.getvalue()


def _png_of_16_bits(pixels: Pixels) -> bytes:
    """Return a PNG with colours or alpha of 16 bits per channel, which Pillow does not write."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + 2 * width * channels), np.uint8)  # a row begins with its filter: none
    rows[:, 1:] = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
