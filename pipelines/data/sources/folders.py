"""Read existing folders: dataset folders, one per split, and PolyMNIST as published.

PolyMNIST (Sutter, Daunhawer, Vogt 2021, https://arxiv.org/abs/2105.02470) has one folder of PNG files per modality,
and the names of the files contain the label:

    <path>/train/m0/0.5.png …/m4/0.5.png      <path>/test/m0/… ; files with the same name form one sample
"""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.rows import Scale, ScaledIntegers
from postprior.pipelines.data.sources.compose import split_by_label
from postprior.pipelines.errors import UserError
from postprior.stage1_vae.modalities import Modality

NAME = re.compile(r"(\d+)\.(\d)\.png")


def read_folders(seed: int, root: Path, path: str) -> dict[str, Dataset]:
    """Load the datasets in `path`/train, `path`/validation and `path`/test; `seed` is not used."""
    splits = {split: Dataset.load(root / path / split) for split in SPLITS}
    first = splits["train"]
    for split, dataset in splits.items():
        for field in ("modalities", "label_names"):
            if getattr(dataset, field) != getattr(first, field):
                expected = f"expected the same {field} in all splits; correct the manifests"
                raise UserError(f"{root / path / split}: {field}: other values found than in train, {expected}")
    return splits


def read_polymnist(
    seed: int, root: Path, path: str, validation_share: float = 0.1, samples: int | None = None
) -> dict[str, Dataset]:
    """Read the splits under `path`; without a folder `validation`, a share of the training samples is held out.

    `samples` limits each folder to its first samples. All images are read into memory: 0.7 GB for the 60,000 training
    samples of 5 × 28 × 28.
    """
    names_of = {
        split: _names(root / path / split, samples)
        for split in SPLITS
        if split != "validation" or (root / path / split).is_dir()
    }
    places = {split: (root / path / split, names) for split, names in names_of.items()}
    if "validation" not in names_of:
        names = names_of["train"]
        shares = (1 - validation_share, validation_share)
        train, validation = split_by_label(_labels(names), shares, np.random.default_rng(seed))
        for split, rows in (("train", train), ("validation", validation)):
            places[split] = (root / path / "train", [names[row] for row in np.sort(rows)])
    return {split: _read(split, *places[split]) for split in SPLITS}


def _names(folder: Path, samples: int | None) -> list[str]:
    """Return the file names that all modalities of a split share, sorted by index."""
    names = {path.name: NAME.fullmatch(path.name) for path in (folder / "m0").glob("*.png")}
    if not names:
        expected = "expected files <index>.<label>.png; correct data.polymnist.path"
        raise UserError(f"{folder / 'm0'}: no PNG files found, {expected}")
    for name, match in names.items():
        if match is None:
            expected = "expected a name such as 17.5.png (index, label); rename the file"
            raise UserError(f"{folder / 'm0' / name}: another name found, {expected}")
    return sorted(names, key=lambda name: int(name.partition(".")[0]))[:samples]


def _labels(names: list[str]) -> np.ndarray:
    return np.array([int(name.split(".")[1]) for name in names], np.int64)


def _read(split: str, folder: Path, names: list[str]) -> Dataset:
    columns = sorted(path.name for path in folder.glob("m[0-9]*") if path.is_dir())
    with ThreadPoolExecutor() as threads:
        data = {column: _read_modality([folder / column / name for name in names], threads) for column in columns}
    return Dataset(
        tuple(Modality(column, "image", data[column].shape[1:], "laplace", (0, 1)) for column in columns),
        data,
        labels=_labels(names),
        ids=np.array([f"{folder.name}-{name.partition('.')[0]}" for name in names]),
        label_names=tuple(str(label) for label in range(10)),
        provenance={"source": "polymnist", "split": split},
    )


def _read_modality(paths: list[Path], threads: ThreadPoolExecutor) -> ScaledIntegers:
    """Read images (n, 3, H, W) of bytes, which are read as numbers in [0, 1].

    Threads run in parallel, because the PNG decoder releases the GIL.
    """
    first = _read_image(paths[0])
    images = np.empty((len(paths), *first.shape), np.uint8)
    for row, image in enumerate(threads.map(_read_image, paths)):
        if image.shape != first.shape:
            expected = f"expected {first.shape} as in {paths[0].name}; replace the image"
            raise UserError(f"{paths[row]}: shape {image.shape} found, {expected}")
        images[row] = image
    return ScaledIntegers(images, Scale(scale=255))


def _read_image(path: Path) -> np.ndarray:
    from postprior.pipelines.data.pixels.reading import rgb_pixels

    if not path.exists():
        raise UserError(f"{path}: this image is missing, expected one image per sample and modality; add the file")
    return rgb_pixels(path).transpose(2, 0, 1)
