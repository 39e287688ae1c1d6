"""Measures time and memory of all fidelity metrics between two sets of features.

The metrics are Frechet distance, kernel distance, MMD, precision, recall, density, coverage, α-precision, β-recall and
authenticity, with the half-samples for their intervals. Peak memory is that of the whole process, including the
interpreter and torch.

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
    """Return features similar to those of networks: correlated, with unequal variances, many of which are small."""
    directions = np.linalg.qr(rng.normal(size=(width, width)))[0] * np.linspace(1, 0.05, width)
    return np.maximum(rng.normal(size=(rows, width)) @ directions + 0.2, -0.3).astype(np.float32)


def timed(name: str, action: Callable[[], Any]) -> Any:
    """Return the result of an action; print its wall time, its CPU time, and the peak memory so far."""
    clocks = time.perf_counter, time.process_time
    starts = [clock() for clock in clocks]
    result = action()
    wall, cpu = (clock() - start for clock, start in zip(clocks, starts, strict=True))
    print(f"{name:38} {wall:7.1f} s {cpu:7.1f} s {peak():6.2f} GB", flush=True)
    return result


def peak() -> float:
    """Return the peak memory of the process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def fidelity(real: np.ndarray, w: np.ndarray, fake: np.ndarray, v: np.ndarray, neighbours: int) -> None:
    """Compute every fidelity metric of features (N, D) under weights (1 + B, N), one after another."""
    timed("Frechet distance", lambda: frechet_distance(real, w, fake, v))
    reference, samples = Space(real, w, neighbours), Space(fake, v, neighbours)
    timed("kernels of the reference", lambda: reference.cached(Kernels.fit))
    timed("kernel distance, MMD", lambda: scores(reference, samples))
    real_balls = timed("balls of the reference", lambda: Balls.fit(reference))
    fake_balls = timed("balls of the samples", lambda: Balls.fit(samples))
    timed("precision, recall, density, coverage", lambda: manifold(real_balls, fake_balls))
    timed("α-precision, β-recall, authenticity", lambda: supports(real_balls, fake_balls))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000, help="number of rows of each set")
    parser.add_argument("--features", type=int, default=128, help="number of features")
    parser.add_argument("--resamples", type=int, default=200, help="number of half-samples")
    parser.add_argument("--neighbours", type=int, default=5, help="number of nearest neighbours")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    real, fake = (features(arguments.rows, arguments.features, rng) for _ in range(2))
    w, v = (half_samples(np.arange(arguments.rows), arguments.resamples, rng) for _ in range(2))
    size = f"{arguments.rows:,} × {arguments.rows:,} rows, {arguments.features} features"
    print(f"{size}, {arguments.resamples} half-samples, {torch.get_num_threads()} threads; {peak():.2f} GB before")
    print(f"{'':38} {'wall time':>9} {'CPU time':>9} {'peak':>9}")
    timed("all", lambda: fidelity(real, w, fake, v, arguments.neighbours))


if __name__ == "__main__":
    main()
