"""Whether rows differ clearly."""

from postprior.pipelines.metrics.registry import Metric
from postprior.pipelines.report.pairs import Pair
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row

EVEN = 0.9  # share of the label entropy of real rows below which the labels of samples have collapsed


def above_prior(row: Row, metric: str) -> bool:
    """Whether a row is clearly better than the normal prior: the interval of the paired difference excludes 0."""
    difference = row.estimate("difference_to_normal", metric)
    return difference is not None and (difference.above() if metric == "joint_coherence" else difference.below())


def collapsed(results: Results, row: Row) -> bool:
    """Whether the labels of the samples are far less even than those of real rows."""
    entropy = row.estimate("label_entropy")
    real = results.baseline_of(row, "real").estimate("label_entropy")
    return entropy is not None and real is not None and entropy.below(EVEN * real.value)


def told_apart(results: Results, metric: str, first: Row, second: Row) -> bool:
    """Whether two densities differ clearly: by the paired test, or by their intervals if there is no test."""
    if pair := paired(results, metric, first, second):
        return pair.significant
    one, other = first.estimate(metric), second.estimate(metric)
    if not one or not other or one.high is None or other.high is None:
        return False
    return one.above(other.high) or other.above(one.high)


def paired(results: Results, metric: str, first: Row, second: Row) -> Pair | None:
    """The test between two densities, or None if there is none."""
    names = {first.name, second.name}
    return next((p for p in results.pairs if p.metric == metric and {p.first, p.second} == names), None)


def clearly(metric: Metric, row: Row, baseline: Row) -> int:
    """Return 1 if a row is clearly better than a baseline by a metric, −1 if it is clearly worse, else 0.

    Clearly: the interval of the paired difference excludes 0; where there is none, the intervals are disjoint.
    """
    if baseline.own_name == "normal" and (difference := row.estimate("difference_to_normal", metric.key)):
        sign = difference.above() - difference.below()
    else:
        one, other = row.estimate(*metric.keys), baseline.estimate(*metric.keys)
        if one is None or other is None or one.low is None or other.low is None:
            return 0
        sign = (other.high is not None and one.above(other.high)) - (one.high is not None and other.above(one.high))
    return sign if metric.better == "higher" else -sign
