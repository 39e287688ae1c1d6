"""Tests between samplers that were scored on the same half-samples of the reference."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.metrics.statistics.intervals import Floats, estimate
from postprior.pipelines.report.rows import Estimate
from postprior.pipelines.storage import load_artefact


@dataclass(frozen=True)
class Pair:
    """A score's difference between two samplers, first − second, with its 95 % interval.

    `p_value` is that of no difference, `p_holm` the same, corrected for the number of tests.
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
    def apart(self) -> bool:
        """Whether the two are told apart at 5 % over all tests."""
        return self.p_holm < 0.05

    def of(self, name: str) -> Estimate:
        """The difference of one of the two to the other."""
        difference = Estimate(self.difference, self.low, self.high)
        return difference if name == self.first else -difference


COLUMNS = tuple(field.name for field in fields(Pair))  # of paired.csv


def read_pairs(root: Path, names: Sequence[str]) -> tuple[Pair, ...]:
    """The tests between densities whose half-samples are kept, all of them with a value."""
    found = {}
    for name in names:
        if (folder := Project(root).artefacts.evaluation / name).exists():
            arrays = load_artefact(folder, "evaluation").arrays
            found[name] = {
                metric: arrays[key]
                for metric in HEADLINES
                if (key := f"scores.{metric}") in arrays and np.isfinite(arrays[key]).all()
            }
    return tuple(wald_tests(found))


def wald_tests(scores: Mapping[str, Mapping[str, Floats]]) -> list[Pair]:
    """Tests of every pair under every metric, all of them corrected together.

    z = d / s, where d is the difference in the full sample and s the standard deviation of the half-samples'
    differences, which is the standard error of d (Shao & Wu 1989, https://doi.org/10.1214/aos/1176347263). Both
    samplers meet the same half-samples of the reference, so what these have in common drops out of s. Scores are by
    sampler and metric, (1 + B,), the full sample first; what one of a pair lacks is left out.
    """
    found = [
        _test(metric, first, second, scores[first][metric], scores[second][metric])
        for metric in dict.fromkeys(key for own in scores.values() for key in own)
        for first, second in combinations(scores, 2)
        if metric in scores[first] and metric in scores[second]
    ]
    corrected = holm([pair.p_value for pair in found])
    return [replace(pair, p_holm=p) for pair, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p'₍ₖ₎ = max over j ≤ k of min((m − j + 1) p₍ⱼ₎, 1).

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6.
    It bounds the chance of a single false find, whatever the tests have in common.
    """
    corrected, least = [0.0] * len(p_values), 0.0
    for place, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min((len(p_values) - place) * p_values[k], 1.0))
        corrected[k] = least
    return corrected


def _test(metric: str, first: str, second: str, ours: Floats, theirs: Floats) -> Pair:
    difference = ours - theirs
    interval, error = estimate(difference), float(difference[1:].std(ddof=1))
    size = abs(interval["value"])
    p_value = math.erfc(size / error / math.sqrt(2)) if error > 0 else float(size == 0)
    return Pair(metric, first, second, interval["value"], interval["low"], interval["high"], p_value, p_value)
