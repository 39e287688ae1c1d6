"""Measures the anonymous memory of every stage on many rows: a million rows of images, or many sparse counts.

The source file is written in blocks, imported, and a project is made of it, whose stages run one after the other, each
in a process of its own whose anonymous memory is watched; mapped files do not count. Training takes one epoch with
narrow networks, because memory does not depend on the number of epochs. Results are added to benchmarks/memory.json.
A stage has the name that it has there, such as "fit gmm". A folder that is given keeps data and project, so that
another call can go on where this one ended.

    python benchmarks/memory.py images [--rows 1000000] [--samples 100000]
    python benchmarks/memory.py counts [--rows 300000] [--genes 4000] [--share 0.02]
    python benchmarks/memory.py images --home FOLDER --until train
    python benchmarks/memory.py images --home FOLDER --since encode
"""

from __future__ import annotations

import argparse
import math
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from storage import SIZE, watched, write_cells
from timing import images

from postprior.pipelines.storage import read_json, write_json

RESULTS = Path(__file__).with_suffix(".json")
BLOCK, CLASSES, WIDTH = 10_000, 10, 8
DENSITIES = ("gmm",)


def write_pictures(path: Path, rows: int) -> None:
    """Write an .npz file of five arrays of bytes (n, 3, SIZE, SIZE), noise on ten pictures, and of the labels."""
    shape = (3, SIZE, SIZE)
    labels = np.random.default_rng(0).integers(0, CLASSES, rows)

    def pictures(number: int) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(number + 1)
        classes = rng.integers(0, 200, (CLASSES, *shape), np.uint8)
        for start in range(0, rows, BLOCK):
            own = classes[labels[start : start + BLOCK]]
            yield own + rng.integers(0, 56, own.shape, np.uint8)

    with zipfile.ZipFile(path, "w") as archive:
        for number, modality in enumerate(images(SIZE)):
            _add(archive, modality.name, (rows, *shape), np.uint8, pictures(number))
        _add(archive, "labels", (rows,), np.int64, iter([labels]))


def _add(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: Any, parts: Iterator[np.ndarray]) -> None:
    """Write an array to an archive part by part."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=math.prod(shape) > 1 << 30) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def words(densities: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the commands of a project after `init`, in their order."""
    each = [(stage, name) for name in densities for stage in ("fit", "generate", "evaluate", "utility", "privacy")]
    return [
        ("code",),
        *((name,) for name in ("prepare", "train-evaluators", "train", "encode", "diagnose", "score-baselines")),
        ("utility", "--real"),
        *each,
        ("evaluate-imputation", "--baselines"),
        *(("evaluate-imputation", name) for name in densities),
        ("compare",),
    ]


def set_up(project: Path, samples: int) -> None:
    """Change the settings of a project: narrow networks, one epoch, one density, and this number of samples."""
    path = project / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["densities"] = list(DENSITIES)
    settings["vae"] |= {"model": "mvtcae" if len(settings["vae"]["options"]) > 1 else "mvae", "width": WIDTH}
    settings["train"] |= {"epochs": 1, "batch_size": 256, "device": "cpu"}
    settings["evaluators"] |= {"epochs": 1, "batch_size": 256}
    settings["generate"] |= {"samples": samples}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["images", "counts"])
    parser.add_argument("--rows", type=int, help="by default 1,000,000 images or 300,000 rows of counts")
    parser.add_argument("--samples", type=int, default=100_000, help="rows to generate")
    parser.add_argument("--genes", type=int, default=4000)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--since", metavar="STAGE", default="import", help="the first stage to run")
    parser.add_argument("--until", metavar="STAGE", default="compare", help="the last stage to run")
    parser.add_argument("--home", type=Path, help="the folder for data and project; by default a temporary one")
    settings = parser.parse_args()
    rows = settings.rows or {"images": 1_000_000, "counts": 300_000}[settings.data]
    with nullcontext(settings.home) if settings.home else tempfile.TemporaryDirectory() as home:
        measure(Path(home).resolve(), rows, settings)


def measure(home: Path, rows: int, settings: argparse.Namespace) -> None:
    """Run the stages in a folder one after the other, and write what was measured after each."""
    source = home / {"images": "pictures.npz", "counts": "cells.h5ad"}[settings.data]
    labels = ("--label", "labels") if settings.data == "images" else ()
    stages = {
        "import": ("import", str(source), "data", *labels),
        "init": ("init", "project", "--from", "data", "--no-git"),
    }
    stages |= {" ".join(stage): stage for stage in words(DENSITIES)}
    first, last = (list(stages).index(name) for name in (settings.since, settings.until))
    key = f"{settings.data} {rows}"
    if not first:
        home.mkdir(parents=True, exist_ok=True)
        if settings.data == "images":
            write_pictures(source, rows)
        else:
            write_cells(source, rows, settings.genes, settings.share)
        facts = {"rows": rows, "samples": settings.samples, "source_bytes": source.stat().st_size}
        write_json(RESULTS, (read_json(RESULTS) if RESULTS.exists() else {}) | {key: facts})
    for name in list(stages)[first : last + 1]:
        found = watched(*stages[name], place=home if name in ("import", "init") else home / "project")
        print(name, found, flush=True)
        results = read_json(RESULTS)
        write_json(RESULTS, results | {key: results[key] | {name: found}})
        if name == "import":
            source.unlink()
        if name == "init":
            set_up(home / "project", settings.samples)


if __name__ == "__main__":
    main()
