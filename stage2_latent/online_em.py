"""Online EM for mixtures of Gaussians, and the k-means clusters that it starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from postprior.stage2_latent.gaussians import FLOATS, C, Components, Statistics

ROWS = 128
"""Maximum number of points per class in a chunk of the E-step, so that a chunk fits in a processor's cache."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Run operations on one thread inside the block: on chunks of this size, several take up to twice as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def expectation(mixture: Components, x: Tensor) -> tuple[Statistics[Any], Tensor]:
    """Run the E-step over points (K, B, D) in chunks; return the statistics and the mean log-likelihood (K,)."""
    first, *others = x.split(max(1, min(ROWS, FLOATS // mixture.means.numel())), dim=1)
    statistics, likelihood = _expectation(mixture, first)
    done = first.shape[1]
    for chunk in others:
        chunk_statistics, chunk_likelihood = _expectation(mixture, chunk)
        done += chunk.shape[1]
        share = chunk.shape[1] / done
        statistics = statistics.towards(chunk_statistics, share)
        likelihood = likelihood.lerp(chunk_likelihood, share)
    return statistics, likelihood


def _expectation(mixture: Components, x: Tensor) -> tuple[Statistics[Any], Tensor]:
    joint = mixture.joint(x)
    return mixture.statistics(x, joint.softmax(-1)), joint.logsumexp(-1).mean(-1)


def online_em(
    statistics: Statistics[C],
    draw: Callable[[int], Tensor],
    passes: int,
    maximise: Callable[[Statistics[C]], C],
) -> Iterator[tuple[Statistics[C], Tensor]]:
    """Fit mixtures by online EM (Cappé & Moulines 2009, arXiv 0712.4273).

    The statistics of fresh points in each pass are averaged with a decaying step.

    Args:
        statistics: statistics of the first mixture.
        draw: function from the number of the pass to fresh points (K, B, D).
        passes: number of passes; the step is 1 in the first third, then decays as t^−0.6.
        maximise: the M-step, a function from statistics to a mixture.

    Yields:
        After each pass, the statistics, and the log-likelihood (K,) of the points of the pass under the mixture of the
        previous statistics.
    """
    full_steps = passes // 3
    for turn in range(passes):
        fresh, likelihood = expectation(maximise(statistics), draw(turn))
        statistics = statistics.towards(fresh, max(1, turn - full_steps + 1) ** -0.6)
        yield statistics, likelihood


def clusters(x: Tensor, components: int, seed: int) -> Tensor:
    """Return responsibilities of 0 or 1, (K, B, T), from scikit-learn's k-means on the points (K, B, D) per class."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # With several threads, the order of summation would change the last bits from run to run.
    with threadpool_limits(limits=1):
        # More clusters than distinct points would make scikit-learn warn.
        counts = [min(components, len(points.unique(dim=0))) for points in x]
        labels = [
            torch.from_numpy(KMeans(count, n_init=1, random_state=seed).fit_predict(points))
            for count, points in zip(counts, x.cpu().numpy(), strict=True)
        ]
    return torch.nn.functional.one_hot(torch.stack(labels).long(), components).to(x)
