"""PolyMNIST from generated IDX files, and from the original files of MNIST if they are present."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images
from support.project import REPOSITORY

from postprior.pipelines.data.sources.mnist import invert, make_mnist, read_idx
from postprior.pipelines.errors import UserError

MNIST = REPOSITORY / "../shared/data"
SAMPLES = {"train": 40, "validation": 12, "test": 20}


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_digits(folder: Path, part: str, images: int, pack: bool = False) -> None:
    """Write digits of 7 × 9, whose label is the number of bright columns."""
    labels = np.arange(images, dtype=np.uint8) % 10
    pictures = np.where(np.arange(9) < labels[:, None], 200, 0).astype(np.uint8)[:, None].repeat(7, 1)
    for name, array in ((f"{part}-images-idx3-ubyte", pictures), (f"{part}-labels-idx1-ubyte", labels)):
        content = gzip.compress(idx(array), mtime=0) if pack else idx(array)
        (folder / (name + ".gz" * pack)).write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "idx").mkdir()
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "c.jpg"):
        Image.fromarray(rng.integers(0, 90, (40, 30, 3), np.uint8)).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures/readme.txt").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("pack", [False, True])
def test_with_both_parts_test_samples_come_from_t10k(root: Path, pack: bool) -> None:
    write_digits(root / "idx", "train", 400, pack)
    write_digits(root / "idx", "t10k", 100, pack)
    splits = make_mnist(0, root, "idx", "pictures", **SAMPLES)
    sources = {split: dataset.provenance["source_images"] for split, dataset in splits.items()}
    assert sources == {"train": 360, "validation": 40, "test": 100}
    assert {split: len(dataset) for split, dataset in splits.items()} == SAMPLES


def test_one_part_is_split(root: Path, tmp_path: Path) -> None:
    write_digits(root / "idx", "t10k", 400)
    splits = make_mnist(0, root, "idx", "pictures", **SAMPLES, validation_share=0.2, test_share=0.3)
    sources = {split: dataset.provenance["source_images"] for split, dataset in splits.items()}
    assert sources == {"train": 200, "validation": 80, "test": 120}
    assert splits["train"].groups is None
    assert splits["test"].groups is not None
    for split, dataset in splits.items():
        dataset.save(tmp_path / "data" / split)


def test_digits_are_inverted_into_dark_backgrounds(root: Path) -> None:
    write_digits(root / "idx", "t10k", 400)
    train = make_mnist(0, root, "idx", "pictures", **SAMPLES)["train"]
    assert train.labels is not None
    assert [(modality.name, modality.shape) for modality in train.modalities] == [
        ("m0", (3, 7, 9)),
        ("m1", (3, 7, 9)),
        ("m2", (3, 7, 9)),
    ]
    for array in train.data.values():
        bright = (array > 0.5).all((1, 2)).sum(1)
        np.testing.assert_array_equal(bright, train.labels)


def test_inverting() -> None:
    background = np.full((1, 3, 1, 2), 0.2)
    np.testing.assert_allclose(invert(background, np.array([[[[0.4, 0.6]]]]))[0, 0], [[0.2, 0.8]])


@pytest.mark.parametrize("shape", [(), (4,), (3, 2, 5)])
def test_idx_files_are_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "a").write_bytes(idx(array))
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)


WHOLE = idx(np.arange(6, dtype=np.uint8))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no such file"),
        (b"", "this is not an IDX file"),
        (b"\0\0\x0d" + WHOLE[3:], "this is not an IDX file of unsigned bytes"),
        (WHOLE[:5], "this is not an IDX file"),
        (WHOLE[:-1], "5 values found, expected 6 as its header declares"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "this is not a complete gzip file"),
    ],
)
def test_invalid_idx_files_are_refused(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.idx: {sentence}"):
        read_idx(tmp_path / "a.idx")


def no_digits(root: Path) -> None:
    for path in (root / "idx").iterdir():
        path.unlink()


def no_labels(root: Path) -> None:
    (root / "idx/t10k-labels-idx1-ubyte").unlink()


def other_labels(root: Path) -> None:
    (root / "idx/t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))


def one_picture(root: Path) -> None:
    for path in sorted((root / "pictures").iterdir())[1:]:
        path.unlink()


def a_small_picture(root: Path) -> None:
    Image.new("RGB", (5, 5)).save(root / "pictures/a.png")


def no_picture(root: Path) -> None:
    (root / "pictures/a.png").write_text("no picture")


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (no_digits, "idx: no MNIST files found, expected train-images-idx3-ubyte or t10k-images-idx3-ubyte"),
        (no_labels, "t10k-labels-idx1-ubyte: no such file"),
        (other_labels, r"t10k: images of shape \(100, 7, 9\) and labels of shape \(3,\) found"),
        (one_picture, "pictures: 1 pictures found, expected two or more"),
        (a_small_picture, r"a\.png: 5 × 5 pixels found, expected at least 9 × 7"),
        (no_picture, r"a\.png: this image cannot be read"),
    ],
)
def test_invalid_folders_are_refused(root: Path, spoil: Callable[[Path], None], sentence: str) -> None:
    write_digits(root / "idx", "t10k", 100)
    spoil(root)
    with pytest.raises(UserError, match=sentence):
        make_mnist(0, root, "idx", "pictures", **SAMPLES)


@pytest.mark.slow
@pytest.mark.skipif(not (MNIST / "t10k-images-idx3-ubyte.gz").exists(), reason="MNIST's files are not here")
def test_mnist_itself(root: Path) -> None:
    images = read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    labels = read_idx(MNIST / "t10k-labels-idx1-ubyte.gz")
    header = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
    assert hashlib.md5(header + images.tobytes()).hexdigest() == "2646ac647ad5339dbf082846283269ea"
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    for number, picture in enumerate(load_sample_images().images):
        Image.fromarray(picture).save(root / "pictures" / f"{number}.png")
    splits = make_mnist(0, root, str(MNIST.resolve()), "pictures", train=3000, validation=300, test=1000)
    for split, dataset in splits.items():
        dataset.save(root / "data" / split)
    means = [splits["train"].data["m2"][splits["train"].labels == label].mean(0) for label in range(10)]
    differences = splits["test"].data["m2"][:, None] - np.stack(means)
    found = np.square(differences).mean((2, 3, 4)).argmin(1)
    assert (found == splits["test"].labels).mean() > 0.6  # classified by nearest mean, over a dark background
