"""Measures what datasets take on disk and in memory, and how fast random batches are read from them.

Sparse counts and images of bytes are imported, each in a process of its own whose anonymous memory is watched; mapped
files do not count. Random batches are then read from the folders, and compared with a training step on as many rows.
Rates are per second of processor time of one thread. Results are written to benchmarks/storage.json.

    python benchmarks/storage.py [--cells 60000] [--genes 4000] [--share 0.02] [--images 20000]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from timing import WIDTH, images, optimised

from postprior import MODELS, Dataset
from postprior.pipelines.storage import write_json

RESULTS = Path(__file__).with_suffix(".json")
BATCH, BATCHES, STEPS, SIZE = 256, 100, 10, 16
POLL = 0.02
"""Seconds between two looks at the memory of a process."""


def write_cells(path: Path, cells: int, genes: int, share: float) -> None:
    """Write an .h5ad file of counts of which a share is not 0, as compressed rows of float32."""
    rng = np.random.default_rng(0)
    lengths = rng.poisson(share * genes, cells).clip(1, genes)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    keys = rng.integers(genes, size=indptr[-1]) + np.repeat(np.arange(cells), lengths) * genes
    keys = np.unique(keys)  # a gene once per cell
    with h5py.File(path, "w") as file:
        matrix = file.create_group("X")
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, genes)})
        matrix["data"] = rng.geometric(0.5, len(keys)).astype(np.float32)
        matrix["indices"] = (keys % genes).astype(np.int32)
        matrix["indptr"] = np.searchsorted(keys, np.arange(cells + 1) * genes).astype(np.int32)
        for name, size in (("obs", cells), ("var", genes)):
            frame = file.create_group(name)
            frame.attrs.update({"_index": "index", "column-order": []})
            frame["index"] = np.char.add(name, np.arange(size).astype(str)).astype("S")


def write_images(path: Path, rows: int) -> None:
    """Write an .npz file of five arrays of bytes, (n, 3, SIZE, SIZE)."""
    rng = np.random.default_rng(0)
    np.savez(path, **{m.name: rng.integers(0, 256, (rows, *m.shape), np.uint8) for m in images(SIZE)})


def watched(*words: str, place: Path = Path()) -> dict[str, Any]:
    """Run a command in a folder; return its peak of anonymous memory in bytes, and its seconds of processor time."""
    process = subprocess.Popen([sys.executable, "-m", "postprior", *words], stdout=subprocess.DEVNULL, cwd=place)
    peak, status, used = 0, 0, None
    while used is None:
        text = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(1024 * int(size) for size in re.findall(r"RssAnon:\s+(\d+)", text)), 0)
        time.sleep(POLL)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        used = usage if ended else None
    assert status == 0, f"postprior {' '.join(words)} failed"
    return {"anonymous_bytes": peak, "processor_seconds": round(used.ru_utime + used.ru_stime, 1)}


def imported(source: Path, folder: Path) -> dict[str, Any]:
    """Import a file, and say how many bytes the file and the folder have."""
    measured = watched("import", str(source), str(folder))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return {"file_bytes": source.stat().st_size, "folder_bytes": size, **measured}


def rate(action: Callable[[], None], rows: int) -> int:
    """Return how many rows an action handles in a second of processor time."""
    start = time.process_time()
    action()
    return round(rows / (time.process_time() - start))


def read(folder: Path) -> int:
    """Return the rows per second of random batches of the training split."""
    data, rng = Dataset.load(folder / "train"), np.random.default_rng(0)
    batches = [rng.choice(len(data), BATCH, replace=False) for _ in range(BATCHES)]

    def run() -> None:
        for rows in batches:
            data.batch(rows)

    run()
    return rate(run, BATCH * BATCHES)


def trained(folder: Path, model: str) -> int:
    """Return the rows per second of training steps, with batches that are in memory."""
    data = Dataset.load(folder / "train")
    vae, batch = MODELS[model](data.modalities, width=WIDTH), data.batch(np.arange(BATCH))
    generator = torch.Generator().manual_seed(0)

    def backward() -> None:
        vae.loss(batch, generator).per_sample.mean().backward()

    step = optimised(list(vae.parameters()), backward)
    step()

    def run() -> None:
        for _ in range(STEPS):
            step()

    return rate(run, BATCH * STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=60_000)
    parser.add_argument("--genes", type=int, default=4000)
    parser.add_argument("--share", type=float, default=0.02)
    parser.add_argument("--images", type=int, default=20_000)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {"settings": vars(settings) | {"batch": BATCH}}
    with tempfile.TemporaryDirectory() as home:
        counts, pictures = Path(home, "cells.h5ad"), Path(home, "images.npz")
        write_cells(counts, settings.cells, settings.genes, settings.share)
        write_images(pictures, settings.images)
        for name, source, model in (("counts", counts, "mvae"), ("images", pictures, "mvtcae")):
            folder = Path(home, name)
            results[name] = imported(source, folder)
            results[name] |= {"rows_per_second": read(folder), "trained_rows_per_second": trained(folder, model)}
            print(name, results[name], flush=True)
    write_json(RESULTS, results)


if __name__ == "__main__":
    main()
