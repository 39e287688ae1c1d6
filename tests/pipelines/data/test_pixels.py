"""Pixels of image files in every mode: read exactly, upright, and written again without loss."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.pixels import RNG, values

from postprior.pipelines.data.pixels.modes import MODES, converted, resized
from postprior.pipelines.data.pixels.reading import Header, Reading
from postprior.pipelines.data.pixels.writing import HELD_BY, LOSSLESS_SUFFIXES, encoded


def file(image: Image.Image, format: str, **options: object) -> bytes:
    content = BytesIO()
    image.save(content, format, **options)  # type: ignore[arg-type]
    return content.getvalue()


def tiff(pixels: np.ndarray, order: str, deflated: bool, kind: int, planes: int = 1) -> bytes:
    """Assemble a TIFF by hand: Pillow writes no big-endian numbers, no signed bytes and no colours of 16 bits."""
    height, width, channels = (*pixels.shape, 1)[:3]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if deflated else data
    size, after = pixels.dtype.itemsize * 8, 8 + len(data)
    entries = [
        *((256, 4, width), (257, 4, height), (258, 3, size), (259, 3, 8 if deflated else 1)),
        *((262, 3, 2 if channels == 3 else 1), (273, 4, 8), (277, 3, channels), (278, 4, height), (279, 4, len(data))),
        *((284, 3, planes), (339, 3, kind)),
    ]
    extra = after + 2 + 12 * len(entries) + 4
    directory, tail = struct.pack(order + "H", len(entries)), b""
    for tag, type, value in entries:
        if tag in (258, 339) and channels == 3:
            directory += struct.pack(order + "HHII", tag, type, 3, extra + len(tail))
            tail += struct.pack(order + "3H", value, value, value)
        else:
            directory += struct.pack(order + ("HHIHH" if type == 3 else "HHII"), tag, type, 1, value, *[0][: type == 3])
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", after)
    return start + data + directory + bytes(4) + tail


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_images_are_turned_upright(orientation: int, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    content = file(Image.fromarray(values("RGB")), format, exif=exif, **options)
    with Image.open(BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    header = Header.read(content)
    assert header.size == expected.shape[:2] == ((5, 6) if orientation >= 5 else (6, 5))
    assert header.turned == (orientation > 1)
    np.testing.assert_array_equal(Reading("RGB").pixels(content), expected)


def test_a_camera_that_was_held_sideways() -> None:
    """EXIF: with orientation 6, the first row of the file is the right side of the picture."""
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    upright = Reading("L").pixels(file(Image.fromarray(stored), "PNG", exif=exif))
    np.testing.assert_array_equal(upright, [[4, 1], [5, 2], [6, 3]])


@pytest.mark.parametrize(
    ("dtype", "kind"), [("u1", 1), ("i1", 2), ("u2", 1), ("i2", 2), ("i4", 2), ("f4", 3), ("rgb", 1)]
)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("deflated", [False, True])
def test_numbers_in_tiffs_are_read_exactly(dtype: str, kind: int, order: str, deflated: bool) -> None:
    if dtype == "f4":
        stored = values("F")
    else:
        whole = np.dtype("u2" if dtype == "rgb" else dtype)
        ends = np.iinfo(whole)
        stored = RNG.integers(ends.min, ends.max, (6, 5, 3) if dtype == "rgb" else (6, 5), whole, endpoint=True)
    content = tiff(stored, order, deflated, kind)
    pixels = Reading(Header.read(content).mode).pixels(content)
    np.testing.assert_array_equal(pixels, stored)
    assert np.can_cast(stored.dtype, pixels.dtype)


@pytest.mark.parametrize("mode", MODES)
def test_written_pixels_are_read_again(mode: str) -> None:
    pixels = values(mode)
    suffixes = [suffix for suffix in (*LOSSLESS_SUFFIXES, ".webp", ".jp2") if mode in HELD_BY[suffix]]
    assert suffixes
    for suffix in suffixes:
        content = encoded(pixels, suffix)
        assert (Header.read(content).mode, Header.read(content).size) == (mode, (6, 5))
        np.testing.assert_array_equal(Reading(mode).pixels(content), pixels)
        assert (Header.read(content).kept, Header.read(content).lossless) == (True, suffix in LOSSLESS_SUFFIXES)


def test_whole_numbers_that_do_not_fit_are_refused() -> None:
    content = tiff(np.full((6, 5), 2**31, np.uint32), "<", False, 1)
    with pytest.raises(ValueError, match="whole numbers above 2147483647"):
        Reading("I").pixels(content)
    small = tiff(np.full((6, 5), 7, np.uint32), "<", False, 1)
    np.testing.assert_array_equal(Reading("I").pixels(small), np.full((6, 5), 7))
    with pytest.raises(ValueError, match=r"not of 8 or 16 bits per channel, or of one channel of 32 bits"):
        Header.read(tiff(np.zeros((6, 5)), "<", False, 3))
    with pytest.raises(ValueError, match=r"16-bit channels are stored one after the other"):
        Header.read(tiff(np.zeros((6, 5, 3), np.uint16), "<", True, 1, planes=2))


def test_colours_become_rgb() -> None:
    rgb = values("RGB") // 64 * 64
    picture = Image.fromarray(rgb)
    palette = picture.quantize(256)
    np.testing.assert_array_equal(Reading("RGB").pixels(file(palette, "PNG")), np.asarray(palette.convert("RGB")))
    ramp = Image.fromarray(rgb[..., 0], "P")
    ramp.putpalette(np.repeat(np.arange(256), 3).tolist())
    assert (Header.read(file(ramp, "PNG")).mode, Header.read(file(ramp, "GIF")).mode) == ("L", "L")
    np.testing.assert_array_equal(Reading("L").pixels(file(ramp, "PNG")), rgb[..., 0])
    cmyk = picture.convert("CMYK")
    assert Header.read(file(cmyk, "TIFF")).colours == "CMYK"
    np.testing.assert_array_equal(Reading("RGB").pixels(file(cmyk, "TIFF")), rgb)  # without black, 255 − C is red
    white = Image.new("LAB", (5, 6), (255, 128, 128))  # L* = 100, a* = b* = 0, which Pillow keeps as 128
    assert (Reading("RGB").pixels(file(white, "TIFF")) >= 253).all()


def test_transparency_of_palettes_and_colour_keys_is_alpha() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    content = file(palette, "PNG", transparency=0)
    assert Header.read(content).mode == "RGBA"
    np.testing.assert_array_equal(Reading("RGBA").pixels(content), [[[10, 20, 30, 0], [40, 50, 60, 255]]])
    np.testing.assert_array_equal(Reading("RGB").pixels(content), [[[255] * 3, [40, 50, 60]]])
    np.testing.assert_array_equal(Reading("RGB", None, "black").pixels(content), [[[0] * 3, [40, 50, 60]]])
    key = file(Image.fromarray(np.array([[7, 9]], np.uint8)), "PNG", transparency=9)
    np.testing.assert_array_equal(Reading("LA").pixels(key), [[[7, 255], [9, 0]]])


def test_conversions_in_closed_form() -> None:
    rgb = values("RGB")
    grey = converted(rgb, "RGB", "L")
    np.testing.assert_array_equal(grey, np.asarray(Image.fromarray(rgb).convert("L")))
    deep = rgb.astype(np.uint16) * 257
    np.testing.assert_allclose(converted(deep, "RGB;16", "I;16"), deep @ [0.299, 0.587, 0.114], atol=1)
    np.testing.assert_array_equal(converted(grey, "L", "RGBA"), np.dstack([grey] * 3 + [np.full_like(grey, 255)]))
    np.testing.assert_array_equal(converted(np.array([[True, False]]), "1", "L"), [[255, 0]])
    half = np.array([[[100, 51]]], np.uint8)  # an opacity of one fifth
    assert converted(half, "LA", "L").item() == 100 / 5 + 255 * 4 / 5
    assert converted(half, "LA", "L", "black").item() == 100 / 5
    with pytest.raises(ValueError, match=r"pixels of mode I;16, expected RGB"):
        converted(values("I;16"), "I;16", "RGB")


@pytest.mark.parametrize("mode", MODES)
def test_resizing_keeps_types_and_means(mode: str) -> None:
    """Antialiasing averages: no pixel is left out, and a constant image stays as it is."""
    constant = np.broadcast_to(values(mode, (1, 1)), values(mode, (12, 8)).shape)
    small = resized(constant, (3, 4))
    assert small.dtype == constant.dtype
    np.testing.assert_allclose(small, constant[:3, :4], rtol=1e-6)
    if mode == "RGBA":  # a transparent pixel has no colour that could bleed
        edge = np.array([[[200, 0, 0, 255], [0, 99, 0, 0]]], np.uint8)
        np.testing.assert_array_equal(resized(edge, (1, 1)), [[[200, 0, 0, 128]]])
    if mode == "F":
        stripes = np.tile(np.array([0, 1], np.float32), (12, 32))
        np.testing.assert_allclose(resized(stripes, (3, 4)), 0.5, atol=0.05)


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -30])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".jp2"])
def test_parts_of_files_are_refused(tmp_path: Path, suffix: str, cut: int) -> None:
    content = encoded(values("RGB", (40, 50)), suffix)[:cut]
    with pytest.raises(ValueError, match=r"\w{4}"):
        Reading("RGB").pixels(content)
