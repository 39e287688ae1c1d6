"""Compares two ranks with two processes that work for themselves, in training and in generation.

Each process has one thread. Two ranks train one model with half of every batch each; the independent processes train a
model each, with whole batches. Both are timed after their first epoch, in turn. In the same way, two ranks generate one
dataset of `--samples` rows, and the independent processes generate half of it each; the rate includes the time in
which the first rank reads the blocks of both and publishes. The hash of this dataset must be that of one process. The
ratio of rates needs a machine with nothing else to do; the ratio of the processor time of a row does not.

    python benchmarks/ranks.py [--rounds 3] [--models mvtcae mopoe dmvae] [--samples 200000] [--only train|generate]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BATCH, ROWS, EPOCHS, SIZE, WIDTH = 256, 2048, 4, 16, 32
RANKS = 2


def train(name: str) -> dict[str, float]:
    """Train a model on noise; return the rows per second of all ranks, and the processor time of a row."""
    import torch
    from timing import images
    from torch import Tensor

    from postprior import MODELS
    from postprior.pipelines.ranks import meet
    from postprior.stage1_vae.modalities import Batch
    from postprior.stage1_vae.training import Settings
    from postprior.stage1_vae.training import train as run

    modalities = images(SIZE)

    class Rows:
        def __init__(self) -> None:
            noise = torch.Generator().manual_seed(0)
            self.data = {m.name: torch.rand(ROWS, *m.shape, generator=noise) for m in modalities}
            self.observed = torch.ones(ROWS, len(modalities), dtype=torch.bool)

        def __len__(self) -> int:
            return ROWS

        def batch(self, rows: Any) -> Batch:
            index: Tensor = torch.from_numpy(rows)
            return Batch({m: x[index] for m, x in self.data.items()}, self.observed[index])

    settings = Settings(epochs=EPOCHS, batch_size=BATCH, device="cpu")
    clocks = []
    for _ in run(MODELS[name](modalities, width=WIDTH), Rows(), settings, ranks=meet()):
        clocks.append((time.perf_counter(), time.process_time()))
    elapsed, used = (last - first for first, last in zip(clocks[0], clocks[-1], strict=True))
    return {"rate": ROWS * (len(clocks) - 1) / elapsed, "processor": used / ROWS / (len(clocks) - 1)}


def generate(folder: Path, samples: int) -> dict[str, float]:
    """Generate samples of an untrained model; return the rows per second, and the processor time of a row."""
    import torch
    from timing import images

    from postprior import DENSITIES, MODELS
    from postprior.pipelines.blocks import Sharing
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.generation.request import SampleRequest
    from postprior.pipelines.generation.writing import write_samples
    from postprior.pipelines.ranks import meet
    from postprior.stage2_latent.codes import Codes

    model = MODELS["mvtcae"](images(SIZE), width=WIDTH).eval()
    z = torch.randn(500, model.latent, generator=torch.Generator().manual_seed(0))
    generator = Generator(model, DENSITIES["gaussian"]().fit(Codes.empirical(model.layout, z)), {})
    job = meet()
    job.wait()
    start, used = time.perf_counter(), time.process_time()
    write_samples(generator, SampleRequest(samples), folder, None, sharing=Sharing(job, folder.with_suffix(".blocks")))
    return {"rate": samples / (time.perf_counter() - start), "processor": (time.process_time() - used) / samples}


def processes(words: list[list[str]], together: bool) -> list[dict[str, float]]:
    """Run this script in several processes at once, as ranks or each for itself, and return what they found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank, each in enumerate(words):
        place = {"RANK": str(rank), "WORLD_SIZE": str(len(words)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | (place if together else {})
        command = [sys.executable, __file__, "--child", *each]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
    answers = [process.communicate()[0] for process in running]
    assert not any(process.returncode for process in running), "a process failed"
    return [json.loads(answer) for answer in answers]


def compared(task: str, shared: list[dict[str, float]], alone: list[dict[str, float]]) -> tuple[float, float]:
    """Print and return the ratios of the rates, and of the processor times of a row, of ranks and processes."""
    rates = shared[0]["rate"], sum(found["rate"] for found in alone)
    used = sum(found["processor"] for found in shared), statistics.mean(found["processor"] for found in alone)
    ratios = rates[0] / rates[1], used[1] / used[0]
    print(
        f"{task}: {RANKS} ranks {rates[0]:.0f} rows/s, {RANKS} processes {rates[1]:.0f} rows/s: {ratios[0]:.3f}; "
        f"processor time of a row {1e3 * used[0]:.3f} ms and {1e3 * used[1]:.3f} ms: {ratios[1]:.3f}",
        flush=True,
    )
    return ratios


def compare_training(models: list[str], rounds: int) -> None:
    for name in models:
        words = [["train", name]] * RANKS
        found = [
            compared(f"train {name}", processes(words, together=True), processes(words, together=False))
            for _ in range(rounds)
        ]
        tell_medians(f"train {name}", found)


def compare_generation(samples: int, rounds: int) -> None:
    from postprior.pipelines.storage import folder_hash

    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as home:
            shared, whole, *halves = (Path(home, name) for name in ("shared", "whole", "one", "other"))
            ranks = processes([["generate", str(shared), str(samples)]] * RANKS, together=True)
            alone = processes([["generate", str(half), str(samples // RANKS)] for half in halves], together=False)
            found.append(compared("generate", ranks, alone))
            if len(found) == 1:
                processes([["generate", str(whole), str(samples)]], together=False)
                assert folder_hash(shared) == folder_hash(whole), "the bytes differ from those of one process"
    tell_medians("generate, with the bytes of one process", found)


def tell_medians(task: str, found: list[tuple[float, float]]) -> None:
    rate, used = (statistics.median(column) for column in zip(*found, strict=True))
    print(f"{task}: median ratio of rates {rate:.3f}, of processor time {used:.3f}", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        task, *rest = sys.argv[2:]
        print(json.dumps(train(rest[0]) if task == "train" else generate(Path(rest[0]), int(rest[1]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["mvtcae", "mopoe", "dmvae"], metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=3, help="comparisons, of which the median is printed")
    parser.add_argument("--samples", type=int, default=200_000, help="rows to generate")
    parser.add_argument("--only", choices=["train", "generate"])
    arguments = parser.parse_args()
    if arguments.only != "generate":
        compare_training(arguments.models, arguments.rounds)
    if arguments.only != "train":
        compare_generation(arguments.samples, arguments.rounds)


if __name__ == "__main__":
    main()
