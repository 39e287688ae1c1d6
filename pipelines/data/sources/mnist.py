"""Make PolyMNIST from MNIST: IDX files of digits, and a folder of background pictures, one per modality.

As published (Sutter, Daunhawer, Vogt 2021, https://arxiv.org/abs/2105.02470), each image is a random crop of the
background whose colours are inverted where the digit is.
"""

import gzip
import math
from pathlib import Path

import numpy as np

from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.sources.compose import Pool, compose_splits, split_by_label
from postprior.pipelines.errors import UserError, as_user_error

PICTURES = {".jpg", ".jpeg", ".png"}


def make_mnist(
    seed: int,
    root: Path,
    digits: str,
    backgrounds: str,
    train: int = 60000,
    validation: int = 5000,
    test: int = 10000,
    validation_share: float = 0.1,
    test_share: float = 0.25,
) -> dict[str, Dataset]:
    """Make the splits with the given numbers of samples.

    `digits` is the folder of the IDX files `train-…` and `t10k-…`, which may be compressed (.gz). If both exist, test
    samples come from `t10k` and `test_share` is not used; if only one exists, its source digits are split by the
    shares. The pictures in the folder `backgrounds` define m0, m1, … in the order of their names.
    """
    rng = np.random.default_rng(seed)
    pools = _pools(root / digits, validation_share, test_share, rng)
    height, width = pools["train"].images.shape[1:]
    layers = [(picture, invert) for picture in _pictures(root / backgrounds, height, width)]
    return compose_splits(pools, (train, validation, test), layers, rng, {"source": "mnist", "seed": seed})


def invert(background: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """Invert the background (n, 3, H, W) where the digit (n, 1, H, W) is."""
    return np.where(digit > 0.5, 1 - background, background)


def read_idx(path: Path) -> np.ndarray:
    """Read an array of unsigned bytes from an IDX file, with or without gzip (http://yann.lecun.com/exdb/mnist).

    The file contains two zero bytes, a type (8: unsigned byte), the number of dimensions, their sizes as big-endian
    32-bit integers, and the values.
    """
    with as_user_error((OSError, EOFError), f"{path}: this is not a complete gzip file", "download it again"):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file, expected an IDX file; correct data.mnist.digits") from None
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{path}: this is not an IDX file of unsigned bytes; use the original files of MNIST")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", content[3], 4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    if len(values) != math.prod(shape):
        expected = f"expected {math.prod(shape)} as its header declares; download the file again"
        raise UserError(f"{path}: {len(values)} values found, {expected}")
    return values.reshape(shape)


def _pools(folder: Path, validation_share: float, test_share: float, rng: np.random.Generator) -> dict[str, Pool]:
    """Return the pool of source digits of each split."""
    parts = {part: _read_part(folder, part) for part in ("train", "t10k") if _find(folder, part, "images-idx3")}
    if not parts:
        expected = "expected train-images-idx3-ubyte or t10k-images-idx3-ubyte"
        raise UserError(f"{folder}: no MNIST files found, {expected}; correct data.mnist.digits")
    images, labels = next(iter(parts.values()))
    if len(parts) == 2:
        shares: tuple[float, ...] = (1 - validation_share, validation_share)
    else:
        shares = (1 - validation_share - test_share, validation_share, test_share)
    sources = [(images[rows], labels[rows]) for rows in split_by_label(labels, shares, rng)]
    sources += [parts["t10k"]] if len(parts) == 2 else []
    pools = [Pool(images.astype(np.float32) / 255, labels) for images, labels in sources]
    return dict(zip(SPLITS, pools, strict=True))


def _find(folder: Path, part: str, what: str) -> Path | None:
    names = (f"{part}-{what}-ubyte", f"{part}-{what}-ubyte.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_part(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Read images (n, H, W) and labels (n,) from a pair of files."""
    images, labels = (
        read_idx(_find(folder, part, what) or folder / f"{part}-{what}-ubyte")
        for what in ("images-idx3", "labels-idx1")
    )
    if images.ndim != 3 or labels.shape != images.shape[:1] or not len(labels) or labels.max() > 9:
        found = f"images of shape {images.shape} and labels of shape {labels.shape} found"
        expected = "expected one label from 0 to 9 per image; use the original files of MNIST"
        raise UserError(f"{folder}: {part}: {found}, {expected}")
    return images, labels.astype(np.int64)


def _pictures(folder: Path, height: int, width: int) -> list[np.ndarray]:
    """Read the pictures (H, W, 3) of a folder, with values in [0, 1], in the order of their names."""
    from postprior.pipelines.data.pixels.reading import rgb_pixels

    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURES)
    if len(files) < 2:
        raise UserError(f"{folder}: {len(files)} pictures found, expected two or more, one per modality; add pictures")
    pictures = []
    for path in files:
        picture = rgb_pixels(path).astype(np.float32) / 255
        if picture.shape[0] < height or picture.shape[1] < width:
            found = f"{picture.shape[1]} × {picture.shape[0]} pixels found"
            raise UserError(f"{path}: {found}, expected at least {width} × {height}; use a larger picture")
        pictures.append(picture)
    return pictures
