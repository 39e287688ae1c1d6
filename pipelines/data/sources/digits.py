"""Five modalities that share a digit, made from images that are part of scikit-learn; nothing is downloaded.

The data imitate PolyMNIST (Sutter, Daunhawer, Vogt 2021, https://arxiv.org/abs/2105.02470): handwritten digits
(`load_digits`, 1,797 images of 8 × 8) over random crops of two photographs (`load_sample_images`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.sources.compose import Pool, compose_splits, split_by_label

SIZE = 16
"""Height and width of an image."""


@dataclass(frozen=True)
class Layer:
    """Appearance of one modality: a region of a photograph of scikit-learn, and the colour (`ink`) of the digit.

    `box` is the region (left, top, right, bottom), and `shrink` is the factor by which it is reduced in size. Colours
    are rotated by `hue` degrees about the grey axis, and scaled so that their 1 % and 99 % quantiles become `low` and
    `high`.
    """

    photo: str
    box: tuple[int, int, int, int]
    shrink: int
    hue: float
    low: float
    high: float
    ink: tuple[float, float, float]


LAYERS = (
    Layer("china.jpg", (90, 40, 330, 360), 3, 0, 0.0, 0.8, (1, 1, 1)),  # the pagoda
    Layer("china.jpg", (340, 140, 640, 427), 3, 100, 0.2, 1.0, (0, 0, 0)),  # lake and trees
    Layer("flower.jpg", (150, 85, 460, 427), 3, 0, 0.0, 0.75, (1, 1, 1)),  # petals
    Layer("flower.jpg", (0, 0, 300, 427), 4, 210, 0.25, 1.0, (0, 0, 0)),  # dark leaves
    Layer("china.jpg", (0, 140, 260, 427), 3, 250, 0.0, 0.8, (1, 1, 0.5)),  # roofs and bushes
)
"""Chosen so that a small classifier recognises the digits in each modality; the crops keep about three quarters of the
variation of the photographs (standard deviation of their pixels)."""


def make_digits(
    seed: int,
    root: Path,
    train: int = 5000,
    validation: int = 500,
    test: int = 2000,
    validation_share: float = 0.1,
    test_share: float = 0.25,
) -> dict[str, Dataset]:
    """Make the splits with the given numbers of samples; each split draws from its own share of the 1,797 digits."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images, labels = enlarge(source.images / 16.0), source.target.astype(np.int64)
    rng = np.random.default_rng(seed)
    shares = (1 - validation_share - test_share, validation_share, test_share)
    layers = [(picture(layer), partial(paint, ink=layer.ink)) for layer in LAYERS]
    parts = zip(SPLITS, split_by_label(labels, shares, rng), strict=True)
    pools = {split: Pool(images[rows], labels[rows]) for split, rows in parts}
    return compose_splits(pools, (train, validation, test), layers, rng, {"source": "digits", "seed": seed})


def enlarge(images: np.ndarray) -> np.ndarray:
    """Resize images (n, h, w) in [0, 1] to (n, SIZE, SIZE) by bicubic interpolation, as one matrix product per axis."""
    from PIL import Image

    def matrix(size: int) -> np.ndarray:
        identity = Image.fromarray(np.eye(size, dtype=np.float32))
        return np.asarray(identity.resize((size, SIZE), Image.Resampling.BICUBIC))  # (SIZE, size)

    rows, columns = (matrix(size) for size in images.shape[1:])
    return np.clip(rows @ images.astype(np.float32) @ columns.T, 0, 1)


def picture(layer: Layer) -> np.ndarray:
    """Return the background (H, W, 3) in [low, high] from which the crops of a layer are taken."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    left, top, right, bottom = layer.box
    region = Image.fromarray(load_sample_image(layer.photo)[top:bottom, left:right])
    size = (region.width // layer.shrink, region.height // layer.shrink)
    colours = np.asarray(region.resize(size, Image.Resampling.BOX), np.float32) / 255 @ turn(layer.hue).T
    darkest, brightest = np.quantile(colours, (0.01, 0.99))
    shade = np.clip((colours - darkest) / (brightest - darkest), 0, 1)
    return (layer.low + (layer.high - layer.low) * shade).astype(np.float32)


def turn(degrees: float) -> np.ndarray:
    """Return the rotation (3, 3) of colours about the grey axis (1, 1, 1)/√3, by Rodrigues' formula.

    >>> np.allclose(turn(120) @ [1, 0, 0], [0, 1, 0])  # red becomes green
    True
    """
    angle = np.deg2rad(degrees)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    return np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3


def paint(background: np.ndarray, digit: np.ndarray, ink: tuple[float, float, float]) -> np.ndarray:
    """Blend a digit (n, 1, H, W), as opacity of the ink, over a background (n, 3, H, W)."""
    colour = np.array(ink, np.float32)[:, None, None]
    return background + digit * (colour - background)
