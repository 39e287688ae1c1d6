"""Read image files: what a file holds, and its pixels, upright and with exact values."""

import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from postprior.pipelines.data.pixels.modes import MODES, Pixels, converted, resized
from postprior.pipelines.errors import as_user_error

Content = Path | bytes
SUFFIXES = (".png", ".apng", ".jpg", ".jpeg", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".j2k")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""The formats of Pillow that are tried; others, some of which start programs, are not."""
LOSSLESS = ("PNG", "TIFF", "BMP")
"""Formats whose pixels come back exactly when they are written again."""
TO_RGB = {
    "P": "palette",
    "PA": "palette",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "LAB",
    "HSV": "HSV",
}
"""Colours that become RGB, or grey if a palette has only grey ones."""
UPRIGHT = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}
"""Orientations of EXIF: a number of quarter turns to the left, and whether the result is then mirrored."""
ORIENTATION, SUBFILE, BITS, SAMPLES, PLANES, SAMPLE_FORMAT = 274, 254, 258, 277, 284, 339
"""Tags of TIFF and EXIF."""
DEEP = re.compile(r"(LA|RGB|RGBA|RGBX|RGBa|CMYK);16[BLN]")
"""How Pillow names colours of 16 bits per channel, of which it keeps the 8 high bits."""
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
        colours: the kind of colours that become RGB or grey; empty if none do.
        turned: whether EXIF says that the image must be turned or mirrored.
        profile: whether the file has a colour profile other than sRGB.
        kept: whether the pixels are the values of the file: neither colours converted, nor the image turned.
        lossless: whether the format gives the same pixels when they are written again.
    """

    mode: str
    size: tuple[int, int]
    frames: int
    colours: str
    turned: bool
    profile: bool
    kept: bool
    lossless: bool

    @classmethod
    def read(cls, content: Content) -> "Header":
        """Read the header; a ValueError says why an image cannot be read."""
        with _opened(content) as image:
            mode, raw = _mode(image), _raw_modes(image) or [""]
            orientation = Image.Image.getexif(image).get(ORIENTATION, 1)  # that of a PNG would decode the pixels
            width, height = image.size
            if orientation in (5, 6, 7, 8) and image.format != "TIFF":  # Pillow turns TIFFs itself
                width, height = height, width
            turned, frames = orientation in UPRIGHT, _frames(image)
            profile = re.sub(rb"\0", b"", image.info.get("icc_profile") or b"")
            native = (image.mode in (mode, "I;16B") or DEEP.fullmatch(raw[0])) and raw[0] != "RGBa"
            return cls(
                mode=mode,
                size=(height, width),
                frames=frames,
                colours=TO_RGB.get(image.mode, ""),
                turned=turned,
                profile=bool(profile) and b"sRGB" not in profile,
                kept=bool(native) and not turned and frames == 1,
                lossless=image.format in LOSSLESS,
            )


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
    if _tag(image, SAMPLES, bands := len(image.getbands())) != bands:
        raise ValueError("it has a channel that is neither a colour nor alpha")
    if _tag(image, PLANES, 1) == 2 and 16 in np.ravel(_tag(image, BITS, 1)):
        raise ValueError("its 16-bit channels are stored one after the other, expected pixel by pixel")
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
    if image.mode == "P" and _is_grey(image):
        mode = "L"
    if image.mode == "PA" or (mode in ("1", "L", "RGB") and "transparency" in image.info):
        mode = "RGBA" if mode == "RGB" else "LA"
    raw = _raw_modes(image)
    if any(DEEP.fullmatch(name) for name in raw):
        mode = {"LA;16B": "LA;16"}.get(raw[0], f"{image.mode};16")
        if image.mode not in ("RGB", "RGBA") or raw[0].startswith("RGBa"):
            raise ValueError(f"{image.mode} colours of 16 bits per channel")
    if mode not in MODES or _bits_of_jpeg2000(image) > (16 if mode == "I;16" else 8):
        raise ValueError(f"pixels of mode {image.mode} with too many bits" if mode in MODES else f"mode {mode}")
    return mode


def _is_grey(image: ImageFile) -> bool:
    """Whether all colours of a palette are grey."""
    colours = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    return bool((colours == colours[:, :1]).all())


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


def rgb_pixels(path: Path) -> Pixels:
    """Return the pixels (H, W, 3) of one file as RGB of 8 bits; a UserError names a file that cannot be read."""
    with as_user_error(ValueError, f"{path}: this image cannot be read", "replace the file"):
        return Reading("RGB").pixels(path)
