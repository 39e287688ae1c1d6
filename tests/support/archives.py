"""Archives of arrays of every shape."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export

SPLITS = ("train", "validation", "test")


N = 60


Arrays = dict[str, Any]


def views(rows: int = N) -> Arrays:
    """An array of every shape, with labels, subjects and targets."""
    rng = np.random.default_rng(0)
    return {
        "vector": rng.normal(5, 3, (rows, 4)),
        "scalar": rng.normal(size=rows).astype(np.float32),
        "reads": rng.poisson(3, (rows, 5)),
        "bits": rng.random((rows, 3)) < 0.5,
        "grey": rng.integers(0, 256, (rows, 6, 5), np.uint8),
        "colour": rng.random((rows, 6, 5, 3), np.float32),
        "scan": rng.normal(-1000, 300, (rows, 1, 4, 5, 6)).astype(np.float32),
        "labels": np.arange(rows) % 3,
        "label_names": np.array(["a", "b", "c"]),
        "groups": np.arange(rows) // 2,
        "targets": rng.normal(size=(rows, 2)),
        "target_names": np.array(["age", "dose"]),
        "ids": np.array([f"s{row}" for row in range(rows)]),
    }


def saved(folder: Path, arrays: Arrays) -> Path:
    path = folder / "views.npz"
    np.savez(path, **arrays)
    return path


def load(folder: Path) -> dict[str, Dataset]:
    return {split: Dataset.load(folder / split) for split in SPLITS}


def exported(folder: Path, out: Path, file: str = "views.npz") -> Arrays:
    """Export all splits and return their arrays, rows in the order of their ids."""
    parts = []
    for split in SPLITS:
        export(folder / split, out / split)
        with np.load(out / split / file) as archive:
            parts.append(dict(archive))
    order = np.concatenate([part["ids"] for part in parts])
    order = np.argsort([int(str(i).removeprefix("s")) for i in order])
    joined = {key: np.concatenate([part[key] for part in parts])[order] for key in parts[0] if "_names" not in key}
    return joined | {key: array for key, array in parts[0].items() if "_names" in key}


def an_archive(**arrays: Any) -> Callable[[Path], Path]:
    return lambda folder: saved(folder, arrays)
