"""Name the density that is first in the leaderboard."""

from postprior.pipelines.report.findings.comparisons import above_prior, collapsed, told_apart
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row
from postprior.pipelines.report.wording import percent, rounded


def ranking(results: Results) -> str:
    """Name the density that is first in the leaderboard, in one sentence."""
    best = results.densities[0]
    coherence = best.estimate("joint_coherence") if results.labelled else None
    metric = "joint_coherence" if coherence else "frechet_distance"
    score = coherence or best.estimate(metric)
    if not score:
        why = best.why("joint_coherence") or best.why("frechet_distance")
        return f"The samples have no scores: {why}." if why else "The samples have no scores."
    if above_prior(best, metric):
        result = (_by_coherence if coherence else _by_distance)(results, best, score)
    else:
        agreement = f": {_agreement(best, coherence, 'its samples')}" if coherence else ""
        result = (
            f"By {metric.replace('_', ' ').replace('frechet', 'Frechet')}, no fitted density is clearly better than "
            "the autoencoder's own prior. The first density is "
            f"{best.title}{agreement}"
        )
    return f"{result}."


def _by_coherence(results: Results, best: Row, coherence: Estimate) -> str:
    """Name the density with the highest joint coherence, without the full stop."""
    uneven = ", but its labels are far less even than those of real rows" if collapsed(results, best) else ""
    fitted = len(results.densities)
    if fitted == 1:
        agreement = _agreement(best, coherence, f"the samples of {best.title}")
        return f"{agreement[0].upper()}{agreement[1:]}{uneven}"
    agreement = _agreement(best, coherence, "them")
    close = _close_second(results, "joint_coherence")
    return f"Of {fitted} fitted densities, {best.title} draws the most coherent samples: {agreement}{uneven}{close}"


def _by_distance(results: Results, best: Row, distance: Estimate) -> str:
    """Name the density with the lowest Frechet distance, without the full stop."""
    fitted = len(results.densities)
    if fitted == 1:
        return f"The samples of {best.title} have a Frechet distance of {rounded(distance.value)} to real rows"
    close = _close_second(results, "frechet_distance")
    score = f"their Frechet distance is {rounded(distance.value)}"
    return f"Of {fitted} fitted densities, {best.title} draws the samples nearest to real rows: {score}{close}"


def _agreement(row: Row, coherence: Estimate, samples: str) -> str:
    """State the joint coherence of samples as a clause."""
    scores = row.scores
    modalities = f"all {len(scores.get('modalities', {}))} modalities"
    if scores.get("incomplete_rows"):
        modalities = "all modalities that a row has"
    return f"in {percent(coherence.value)} of {samples}, {modalities} show the same label"


def _close_second(results: Results, metric: str) -> str:
    """Name the second density if it is not clearly worse than the first."""
    first, second = results.densities[:2]
    return "" if told_apart(results, metric, first, second) else f"; {second.title} is not clearly worse"
