"""The pixels of one image file: what the file holds, decoded upright and exactly, and encoded again."""

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from postprior.pipelines.errors import as_user_error

Content = Path | bytes
Pixels = np.ndarray[Any, np.dtype[Any]]
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""The formats of Pillow that are tried; others, some of which start programs, are not."""
LOSSLESS = ("PNG", "TIFF", "BMP")
"""Formats whose pixels come back exactly when they are written again."""
LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")


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
TO_RGB = {
    "P": "palette",
    "PA": "palette",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "LAB",
    "HSV": "HSV",
}
"""Colours that become RGB."""
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
UPRIGHT = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""Orientations of EXIF: a number of quarter turns to the left, and whether the result is then mirrored."""
ORIENTATION, SUBFILE, SAMPLE_FORMAT = 0x0112, 0x00FE, 0x0153
LARGEST = 2**31 - 1
BROKEN = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(struct.error, zlib.error, ImageCms.PyCMSError),
)
"""Exceptions that Pillow raises for broken files; a SyntaxError means a broken PNG."""


@dataclass(frozen=True)
class Header:
    """What a file holds, known before its pixels are decoded.

    Attributes:
        mode: the mode, a key of `MODES`, that keeps all of its values.
        size: height and width of the upright image.
        frames: the number of frames or pages.
        colours: the kind of colours that become RGB; empty if none do.
        turned: whether EXIF says that the image must be turned or mirrored.
        profile: whether the file has a colour profile other than sRGB.
        exact: whether the same pixels can be written again, so that no information is lost.
    """

    mode: str
    size: tuple[int, int]
    frames: int
    colours: str
    turned: bool
    profile: bool
    exact: bool

    @classmethod
    def read(cls, content: Content) -> "Header":
        """Read the header; a ValueError says why an image cannot be read."""
        with _opened(content) as image:
            mode = _mode(image)
            orientation = Image.Image.getexif(image).get(ORIENTATION, 1)  # that of a PNG would decode the pixels
            width, height = image.size
            if orientation in (5, 6, 7, 8) and image.format != "TIFF":  # Pillow turns TIFFs itself
                width, height = height, width
            turned, frames = orientation in UPRIGHT, _frames(image)
            profile = re.sub(rb"\0", b"", image.info.get("icc_profile") or b"")
            native = (image.mode in (mode, "I;16B") or mode.endswith(";16")) and _raw_modes(image) != ["RGBa"]
            exact = image.format in LOSSLESS and native and not turned and frames == 1
            colours = TO_RGB.get(image.mode, "")
            return cls(mode, (height, width), frames, colours, turned, bool(profile) and b"sRGB" not in profile, exact)


@dataclass(frozen=True)
class Reading:
    """How all images of a modality are read.

    Args:
        mode: the mode of all images, a key of `MODES`.
        size: height and width to which other images are resized; None keeps their sizes.
        background: `white` or `black`, over which transparent pixels are put if the mode has no alpha; None means
            white.
    """

    mode: str
    size: tuple[int, int] | None = None
    background: str | None = None

    def pixels(self, content: Content) -> Pixels:
        """Return the pixels (H, W) or (H, W, C) of the upright image; a ValueError if they cannot be read."""
        with _opened(content) as image:
            mode = _mode(image)
            pixels = _decoded(image, mode, content)
            turns, mirrored = UPRIGHT.get(Image.Image.getexif(image).get(ORIENTATION, 1), (0, False))
        pixels = np.rot90(pixels, turns)
        pixels = converted(np.fliplr(pixels) if mirrored else pixels, mode, self.mode, self.background)
        return pixels if self.size in (None, pixels.shape[:2]) else resized(pixels, self.size)


@contextmanager
def _opened(content: Content) -> Iterator[ImageFile]:
    """Open an image without decoding it; a broken or huge one raises a ValueError with the reason."""
    file: Path | IO[bytes] = BytesIO(content) if isinstance(content, bytes) else content
    Image.init()  # registers the formats
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow about metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                if image.format == "TIFF":
                    _correct(image)
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        most = f"{(Image.MAX_IMAGE_PIXELS or 0) // 1_000_000} million pixels"
        raise ValueError(f"it could be a decompression bomb: it has more than {most}") from None
    except UnidentifiedImageError:
        raise ValueError(_unknown(content)) from None
    except BROKEN as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _correct(image: ImageFile) -> None:
    """Correct how Pillow reads some TIFFs: libtiff returns values in the order of bytes of this machine."""
    if any("X" in name for name in _raw_modes(image)):
        raise ValueError("it has a channel that is neither a colour nor alpha")
    if any(tile.codec_name == "libtiff" for tile in image.tile):
        _replace_raw_modes(image, lambda name: re.sub(r"(?<=;16|;32)B(?=[SF]$)", "N", name))


def _unknown(content: Content) -> str:
    """Say what a file is that Pillow does not recognise."""
    start = content[:4] if isinstance(content, bytes) else content.open("rb").read(4)
    if start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "this TIFF is not of 8 or 16 bits per channel, or of one channel of 32 bits"
    return "it is not an image of a known format" if start else "the file is empty"


def _mode(image: ImageFile) -> str:
    """Return the mode that keeps all values of an image; a ValueError if there is none."""
    mode = {**dict.fromkeys(TO_RGB, "RGB"), "I;16B": "I;16", "La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    if image.format == "TIFF" and image.mode == "L" and 2 in np.ravel(_tag(image, SAMPLE_FORMAT, 1)):
        return "I"  # whole numbers from −128 to 127
    if image.mode == "PA" or (mode in ("1", "L", "RGB") and "transparency" in image.info):
        mode = "RGBA" if mode == "RGB" else "LA"
    raw = _raw_modes(image)
    if mode != "I;16" and any(";16" in name and not name.startswith("I;") for name in raw):
        mode = {"LA;16B": "LA;16"}.get(raw[0], f"{image.mode};16")
        if image.mode not in ("RGB", "RGBA") or raw[0].startswith("RGBa"):
            raise ValueError(f"{image.mode} colours of 16 bits per channel")
    if mode not in MODES or _bits_of_jpeg2000(image) > (16 if mode == "I;16" else 8):
        raise ValueError(f"pixels of mode {image.mode} with too many bits" if mode in MODES else f"mode {mode}")
    return mode


def _raw_modes(image: ImageFile) -> list[str]:
    """Return how the pixels are stored, by tile."""
    return [str(tile.args[0] if isinstance(tile.args, tuple) else tile.args) for tile in image.tile if tile.args]


def _bits_of_jpeg2000(image: ImageFile) -> int:
    """Return the bits per channel of a JPEG 2000, which Pillow reduces to 8 in colour images; 0 for other formats."""
    if image.format != "JPEG2000" or image.fp is None:
        return 0
    image.fp.seek(0)
    start = image.fp.read(1 << 16)
    place = start.find(b"\xff\x4f\xff\x51")  # start of the codestream, then the marker SIZ
    return 0 if place < 0 else (start[place + 42] & 127) + 1


def _frames(image: ImageFile) -> int:
    """Return the number of frames, without the previews of a photograph (MPO, reduced pages of a TIFF)."""
    count = getattr(image, "n_frames", 1)
    if image.format == "MPO":
        return 1
    if image.format == "TIFF" and count > 1:
        reduced = 0
        for page in range(1, count):
            image.seek(page)
            reduced += _tag(image, SUBFILE, 0) & 1
        image.seek(0)
        return count - reduced
    return int(count)


def _tag(image: ImageFile, tag: int, default: int) -> Any:
    """Return the value of a tag of a TIFF."""
    assert isinstance(image, TiffImageFile)
    return image.tag_v2.get(tag, default)


def _decoded(image: ImageFile, mode: str, content: Content) -> Pixels:
    """Return the pixels of an open image as stored, in the mode `mode` that keeps all values."""
    axes, dtype, _ = MODES[mode]
    if mode == "LA;16":  # Pillow keeps the high bytes only: read as RGBA, the four bytes of a pixel are all kept
        _replace_raw_modes(image, lambda name: "RGBA")
        return np.asarray(image).view(">u2").astype(dtype)
    if mode.endswith(";16") and axes == "HWC":
        with _opened(content) as other:  # the other order of bytes gives the low ones
            _replace_raw_modes(other, lambda name: name[:-1] + {"L": "B", "N": "B", "B": "L"}[name[-1]])
            low = np.asarray(other)
        return np.asarray(image).astype(dtype) << 8 | low
    unsigned = mode == "I" and any(name.startswith("I;32") and "S" not in name for name in _raw_modes(image))
    image.load()
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        pixels = np.asarray(ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB"))
    elif mode == "I" and image.mode == "L":
        pixels = np.asarray(image).view(np.int8)
    else:
        same = image.mode in (mode, "I;16B") and "transparency" not in image.info
        pixels = np.asarray(image if same else image.convert(mode))
    if unsigned and pixels.min() < 0:
        raise ValueError(f"whole numbers above {LARGEST}, which this format of images is not read with")
    return pixels.astype(dtype, copy=False)


def _replace_raw_modes(image: ImageFile, rename: Callable[[str], str]) -> None:
    """Change how Pillow will interpret the stored bytes of an image that is not decoded yet."""

    def replaced(args: Any) -> Any:
        return (rename(args[0]), *args[1:]) if isinstance(args, tuple) else rename(args)

    image.tile = [tile._replace(args=replaced(tile.args)) for tile in image.tile]


def bits(mode: str) -> str:
    """Return the type of the values of a mode, in which 1 counts as 8 bits: images of other types are not converted."""
    return "uint8" if mode == "1" else MODES[mode].dtype


def has_alpha(mode: str) -> bool:
    """Whether the last channel of a mode is alpha."""
    return mode.partition(";")[0].endswith("A")


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
    values = np.stack([np.asarray(image) for image in images]).astype(np.float64)
    if with_alpha:
        values[:-1] /= np.maximum(values[-1:], 1e-6)
    if pixels.dtype.kind in "iu":
        ends = np.iinfo(pixels.dtype)
        values = np.clip(np.rint(values), ends.min, ends.max)
    values = values >= 0.5 if pixels.dtype == bool else values.astype(pixels.dtype)
    return np.moveaxis(values, 0, -1).reshape(*size, *pixels.shape[2:])


def mode_of(dtype: str, shape: Sequence[int]) -> str:
    """Return the mode of pixels of a type and shape (H, W[, C])."""
    channels = shape[2] if len(shape) > 2 else 1
    return next(name for name, mode in MODES.items() if (mode.dtype, mode.channels) == (dtype, channels))


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


def rgb_pixels(path: Path) -> Pixels:
    """Return the pixels (H, W, 3) of one file as RGB of 8 bits; a UserError names a file that cannot be read."""
    with as_user_error(ValueError, f"{path}: this image cannot be read", "replace the file"):
        return Reading("RGB").pixels(path)
