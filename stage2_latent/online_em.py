"""Online EM of mixtures of Gaussians, started at clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from postprior.stage2_latent.gaussians import FLOATS, C, Components, Statistics

ROWS = 128
"""Points of a class in a chunk of the E-step, few enough to stay in a processor's cache."""


def expectation(mixture: Components, x: Tensor) -> tuple[Statistics[Any], Tensor]:
    """The E-step over points (K, B, D), chunk by chunk: statistics, and the mean log-likelihood (K,)."""
    first, *others = x.split(max(1, min(ROWS, FLOATS // mixture.means.numel())), dim=1)
    statistics, total = _expectation(mixture, first)
    done = first.shape[1]
    for part in others:
        fresh, likelihood = _expectation(mixture, part)
        done += part.shape[1]
        share = part.shape[1] / done
        statistics, total = statistics.towards(fresh, share), total.lerp(likelihood, share)
    return statistics, total


def _expectation(mixture: Components, x: Tensor) -> tuple[Statistics[Any], Tensor]:
    joint = mixture.joint(x)
    return mixture.statistics(x, joint.softmax(-1)), joint.logsumexp(-1).mean(-1)


def online_em(
    start: Statistics[C], draw: Callable[[int], Tensor], passes: int, shrinkage: Tensor
) -> Iterator[tuple[C, Tensor]]:
    """Online EM (Cappé & Moulines 2009, arXiv 0712.4273): statistics of fresh points, averaged with a decaying step.

    Args:
        start: statistics of the first mixture.
        draw: pass → fresh points (K, B, D).
        passes: number of passes; over the first third the step is 1, then it decays as t^−0.6.
        shrinkage: see `Statistics.maximise`.

    Yields:
        After every pass the mixture, and the log-likelihood (K,) of the pass's points under the one before.
    """
    statistics, warm = start, passes // 3
    mixture = statistics.maximise(shrinkage)
    for turn in range(passes):
        fresh, likelihood = expectation(mixture, draw(turn))
        statistics = statistics.towards(fresh, max(1, turn - warm + 1) ** -0.6)
        mixture = statistics.maximise(shrinkage)
        yield mixture, likelihood


def clusters(x: Tensor, components: int, seed: int) -> Tensor:
    """Responsibilities 0 or 1 (K, B, T): scikit-learn's k-means clusters of the points (K, B, D) of each class."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    # One thread: the order in which threads add up would change the last bits from run to run.
    with threadpool_limits(limits=1):
        cluster = KMeans(min(components, x.shape[1]), n_init=1, random_state=seed)
        labels = [torch.from_numpy(cluster.fit_predict(points)) for points in x.cpu().numpy()]
    return torch.nn.functional.one_hot(torch.stack(labels).long(), components).to(x)
