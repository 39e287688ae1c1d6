"""Test differences between samplers that were scored on the same half-samples of the reference set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.metrics.registry import TESTED
from postprior.pipelines.metrics.statistics.intervals import Floats, estimate
from postprior.pipelines.report.rows import Estimate
from postprior.pipelines.storage import load_artefact


@dataclass(frozen=True)
class Pair:
    """The difference of a score between two samplers, first − second, with its 95 % interval.

    `p_value` tests that there is no difference; `p_holm` is corrected for the number of tests.
    """

    metric: str
    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    p_holm: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at 5 % over all tests."""
        return self.p_holm < 0.05

    def of(self, name: str) -> Estimate:
        """The difference of the named sampler to the other one."""
        difference = Estimate(self.difference, self.low, self.high)
        return difference if name == self.first else -difference


COLUMNS = tuple(field.name for field in fields(Pair))  # of paired.csv


def read_pairs(root: Path, names: Sequence[str]) -> tuple[Pair, ...]:
    """Test all pairs of densities whose half-samples are stored; scores with a missing half-sample are left out."""
    scores = {}
    for name in names:
        if (folder := Project(root).artefacts.evaluation / name).exists():
            arrays = load_artefact(folder, "evaluation").arrays
            scores[name] = {
                metric: arrays[key]
                for metric in TESTED
                if (key := f"scores.{metric}") in arrays and np.isfinite(arrays[key]).all()
            }
    return tuple(wald_tests(scores))


def wald_tests(scores: Mapping[str, Mapping[str, Floats]]) -> list[Pair]:
    """Test each pair of samplers under each metric; all p-values are corrected together.

    z = d / s, where d is the difference in the full sample and s the standard deviation of the differences in the
    half-samples, which is the standard error of d (Shao & Wu 1989, https://doi.org/10.1214/aos/1176347263). Both
    samplers are scored on the same half-samples of the reference set, so the variation that they share cancels in s.

    Args:
        scores: By sampler and metric, values (1 + B,), the full sample first. A pair is tested under the metrics that
            both samplers have.
    """
    pairs = [
        _test(metric, first, second, scores[first][metric], scores[second][metric])
        for metric in dict.fromkeys(key for values in scores.values() for key in values)
        for first, second in combinations(scores, 2)
        if metric in scores[first] and metric in scores[second]
    ]
    corrected = holm([pair.p_value for pair in pairs])
    return [replace(pair, p_holm=p) for pair, p in zip(pairs, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values by Holm's step-down method: p'₍ₖ₎ = max over j ≤ k of min((m − j + 1) p₍ⱼ₎, 1).

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    It bounds the probability of any false rejection, whatever the dependence between the tests.
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for place, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min((len(p_values) - place) * p_values[k], 1.0))
        corrected[k] = least
    return corrected


def _test(metric: str, first: str, second: str, one: Floats, other: Floats) -> Pair:
    """Test one pair of samplers by their values (1 + B,); `p_holm` is not corrected yet."""
    difference = one - other
    interval, error = estimate(difference), float(difference[1:].std(ddof=1))
    size = abs(interval["value"])
    p_value = math.erfc(size / error / math.sqrt(2)) if error > 0 else float(size == 0)
    return Pair(metric, first, second, interval["value"], interval["low"], interval["high"], p_value, p_value)
