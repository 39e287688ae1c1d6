"""Time and memory of all fidelity metrics between two sets of features, in a process of its own.

Frechet distance, kernel distance, MMD, precision, recall, density, coverage, α-precision, β-recall and authenticity,
with the half-samples behind their intervals. Peak memory is that of the process, the interpreter and torch included.

    python benchmarks/metrics.py [--rows 10000] [--features 128] [--resamples 200] [--neighbours 5]
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from postprior.pipelines.metrics.fidelity.frechet import frechet_distance
from postprior.pipelines.metrics.fidelity.kernels import Kernels, scores
from postprior.pipelines.metrics.fidelity.manifold import Balls, manifold
from postprior.pipelines.metrics.fidelity.space import Space
from postprior.pipelines.metrics.fidelity.supports import supports
from postprior.pipelines.metrics.statistics.intervals import half_samples


def features(rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Features as networks give them: correlated, of unequal variance, many of them small."""
    directions = np.linalg.qr(rng.normal(size=(width, width)))[0] * np.linspace(1, 0.05, width)
    return np.maximum(rng.normal(size=(rows, width)) @ directions + 0.2, -0.3).astype(np.float32)


def timed(name: str, action: Callable[[], Any]) -> Any:
    """What an action returns, its time on the clock and on all cores, and the most memory held so far, printed."""
    clocks = time.perf_counter, time.process_time
    begun = [clock() for clock in clocks]
    result = action()
    passed, worked = (clock() - start for clock, start in zip(clocks, begun, strict=True))
    print(f"{name:38} {passed:7.1f} s {worked:7.1f} s {peak():6.2f} GB", flush=True)
    return result


def peak() -> float:
    """The most memory that the process has held so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fidelity(real: np.ndarray, w: np.ndarray, fake: np.ndarray, v: np.ndarray, neighbours: int) -> None:
    """Every fidelity metric of features (N, D) under weights (1 + B, N), in turn."""
    timed("Frechet distance", lambda: frechet_distance(real, w, fake, v))
    reference, samples = Space(real, w, neighbours), Space(fake, v, neighbours)
    timed("kernels of the reference", lambda: reference.cached(Kernels.fit))
    timed("kernel distance, MMD", lambda: scores(reference, samples))
    theirs = timed("balls of the reference", lambda: Balls.fit(reference))
    balls = timed("balls of the samples", lambda: Balls.fit(samples))
    timed("precision, recall, density, coverage", lambda: manifold(theirs, balls))
    timed("α-precision, β-recall, authenticity", lambda: supports(theirs, balls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=128)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--neighbours", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    real, fake = (features(given.rows, given.features, rng) for _ in range(2))
    w, v = (half_samples(np.arange(given.rows), given.resamples, rng) for _ in range(2))
    size = f"{given.rows:,} × {given.rows:,} rows, {given.features} features"
    print(f"{size}, {given.resamples} half-samples, {torch.get_num_threads()} threads; {peak():.2f} GB before")
    print(f"{'':38} {'time':>9} {'of cores':>9} {'peak':>9}")
    timed("all", lambda: fidelity(real, w, fake, v, given.neighbours))


if __name__ == "__main__":
    main()
