"""Modes of pixels: which values they have, and how one is converted into another."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, np.dtype[Any]]


class Mode(NamedTuple):
    """A mode in which pixels are kept: its axes and type, and its name in messages."""

    axes: str
    dtype: str
    words: str

    @property
    def channels(self) -> int:
        """The number of channels."""
        return {"grey": 1, "RGB": 3, "RGBA": 4}.get(self.words.split()[-1], 2 if self.axes == "HWC" else 1)


MODES = {
    "1": Mode("HW", "bool", "black and white"),
    "L": Mode("HW", "uint8", "grey"),
    "LA": Mode("HWC", "uint8", "grey with alpha"),
    "RGB": Mode("HWC", "uint8", "RGB"),
    "RGBA": Mode("HWC", "uint8", "RGBA"),
    "I;16": Mode("HW", "uint16", "16-bit grey"),
    "LA;16": Mode("HWC", "uint16", "16-bit grey with alpha"),
    "RGB;16": Mode("HWC", "uint16", "16-bit RGB"),
    "RGBA;16": Mode("HWC", "uint16", "16-bit RGBA"),
    "I": Mode("HW", "int32", "32-bit whole numbers"),
    "F": Mode("HW", "float32", "32-bit floating-point numbers"),
}
"""Modes by their names in Pillow; `;16` means 16 bits per channel."""


def bits(mode: str) -> str:
    """Return the type of the values of a mode, in which 1 counts as 8 bits: images of other types are not converted."""
    return "uint8" if mode == "1" else MODES[mode].dtype


def has_alpha(mode: str) -> bool:
    """Whether the last channel of a mode is alpha."""
    return mode.partition(";")[0].endswith("A")


def mode_of(dtype: str, shape: Sequence[int]) -> str:
    """Return the mode of pixels of a type and shape (H, W[, C])."""
    channels = shape[2] if len(shape) > 2 else 1
    return next(name for name, mode in MODES.items() if (mode.dtype, mode.channels) == (dtype, channels))


def converted(pixels: Pixels, mode: str, wanted: str, background: str | None = None) -> Pixels:
    """Convert pixels (H, W[, C]) to a mode with the same bits: add or remove colours and alpha.

    Grey values are the luma of ITU-R 601. Without alpha, pixels are put over the background, `white` or `black`.
    """
    if mode == wanted:
        return pixels
    if bits(mode) != bits(wanted) or wanted == "1":
        raise ValueError(f"pixels of mode {mode}, expected {wanted}")
    most = np.iinfo(bits(wanted)).max
    values: Pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.uint64) * (most if mode == "1" else 1)
    with_alpha = (has_alpha(mode), has_alpha(wanted))
    values, alpha = (
        (values[..., :-1], values[..., -1:]) if with_alpha[0] else (values, np.full_like(values, most)[..., :1])
    )
    if with_alpha == (True, False):
        values = (values * alpha + (0 if background == "black" else most) * (most - alpha) + most // 2) // most
    if wanted.startswith("RGB"):
        values = np.broadcast_to(values, (*values.shape[:2], 3))
    elif values.shape[-1] == 3:
        values = (values @ np.array([19595, 38470, 7471], np.uint64) + 0x8000 >> 16)[..., None]
    values = np.concatenate([values, alpha], -1) if with_alpha[1] else values
    return (values if MODES[wanted].axes == "HWC" else values[..., 0]).astype(bits(wanted))


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize pixels (H, W[, C]) to (height, width) by linear interpolation with antialiasing, in their own type.

    Colours are weighted by alpha, the last of two or four channels.
    """
    channels = np.moveaxis(pixels.reshape(*pixels.shape[:2], -1), -1, 0).astype(np.float32)
    with_alpha = len(channels) in (2, 4)
    if with_alpha:
        channels[:-1] *= channels[-1:]
    images = (Image.fromarray(channel).resize(size[::-1], Image.Resampling.BILINEAR) for channel in channels)
    values: Pixels = np.stack([np.asarray(image) for image in images]).astype(np.float64)
    if with_alpha:
        values[:-1] /= np.maximum(values[-1:], 1e-6)
    if pixels.dtype.kind in "iu":
        ends = np.iinfo(pixels.dtype)
        values = np.clip(np.rint(values), ends.min, ends.max)
    values = values >= 0.5 if pixels.dtype == bool else values.astype(pixels.dtype)
    return np.moveaxis(values, 0, -1).reshape(*size, *pixels.shape[2:])
