"""What the numbers say, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.report.results import Estimate, Results, Row

COPIES = 0.01  # near copies among held-out codes, by their definition
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@dataclass(frozen=True)
class Finding:
    """A sentence or two under a word that says what they are about."""

    about: str
    text: str


def headline(results: Results) -> str:
    """The one sentence on top."""
    best, coherence = _best(results)
    modalities = len(best.scores.get("modalities", {}))
    among = f" of {len(results.densities)} fitted densities" if len(results.densities) > 1 else ""
    share = _percent(coherence.value) if coherence else "an unknown share"
    if not _above_floor(best):
        return (
            "No fitted density is told apart from the autoencoder's own prior: in the best, "
            f"{best.title}, {share} of the samples show the same label in all {modalities} modalities."
        )
    return (
        f"{best.title} draws the most coherent samples{among}: in {share} of them, all {modalities} modalities "
        "show the same label."
    )


def findings(results: Results) -> Iterator[Finding]:
    """What the comparison found, each computed from the results."""
    best, _ = _best(results)
    yield from _against_the_floor(results, best)
    yield from _gap(results, best)
    yield from _realism(results, best)
    yield from _diversity(results, best)
    yield from _runner_up(results)
    yield from _conditional(results)
    yield from _private(results)
    yield from _fit(results)
    yield from _cautions(results)


def _best(results: Results) -> tuple[Row, Estimate | None]:
    best = results.densities[0]
    return best, best.estimate("joint_coherence")


def _against_the_floor(results: Results, best: Row) -> Iterator[Finding]:
    floor, difference = (
        results.row("normal").estimate("joint_coherence"),
        best.estimate("difference_to_normal", "joint_coherence"),
    )
    if not floor or not difference:
        return
    verdict = "which lies above 0" if _above_floor(best) else "which does not lie above 0"
    yield Finding(
        "Floor",
        f"Draws from the autoencoder's own prior, the row Normal prior, agree in {_percent(floor.value)}. The paired "
        f"difference of {best.title} to them is {_points(difference)}, {verdict}.",
    )


def _gap(results: Results, best: Row) -> Iterator[Finding]:
    ceiling, closed = (
        results.row("reconstruction").estimate("joint_coherence"),
        best.estimate("gap_closed", "joint_coherence"),
    )
    if not ceiling:
        return
    reached = f"Held-out rows, encoded and decoded again, agree in {_percent(ceiling.value)}"
    if closed:
        yield Finding(
            "Gap closed",
            f"{reached}: {best.title} closes {_percent(closed.value, 0)} of the gap from the floor to them.",
        )
    else:
        yield Finding(
            "Gap closed",
            f"{reached}; the gap from the floor to them lies inside the noise, so no share of it is given.",
        )


def _realism(results: Results, best: Row) -> Iterator[Finding]:
    distance, decoded, floor = (
        row.estimate("frechet_distance")
        for row in (best, results.row("reconstruction"), results.row("normal"))
    )
    if not distance or not decoded or not floor or decoded.value <= 0:
        return
    yield Finding(
        "Realism",
        f"Its Frechet distance to real data is {distance.value:.2f}, {distance.value / decoded.value:.2f} times that "
        f"of the reconstructions ({decoded.value:.2f}); the floor stands at {floor.value:.2f}.",
    )
    nearest = min(results.densities, key=lambda row: _or(row.estimate("frechet_distance"), float("inf")))
    if nearest is not best:
        value = _or(nearest.estimate("frechet_distance"), float("nan"))
        yield Finding(
            "Nearest to real",
            f"The lowest Frechet distance of a density is that of {nearest.title}, {value:.2f}.",
        )


def _diversity(results: Results, best: Row) -> Iterator[Finding]:
    real = results.row("real")
    pairs = [(key, best.estimate(key), real.estimate(key)) for key in ("label_entropy", "recall", "coverage")]
    known = [(key.replace("_", " "), ours, theirs) for key, ours, theirs in pairs if ours and theirs]
    if known:
        told = ", ".join(f"{name} {ours.value:.3f} (real {theirs.value:.3f})" for name, ours, theirs in known)
        yield Finding("Diversity", f"Coherence alone would also reward a collapse; {best.title} has {told}.")


def _runner_up(results: Results) -> Iterator[Finding]:
    if len(results.densities) < 2:
        return
    first, second = results.densities[:2]
    ours, theirs = first.estimate("joint_coherence"), second.estimate("joint_coherence")
    if not ours or not theirs or ours.low is None or theirs.high is None:
        return
    apart = "their intervals do not overlap" if ours.low > theirs.high else "their intervals overlap"
    yield Finding("Runner-up", f"{second.title} follows with {_percent(theirs.value)}; {apart}.")


def _conditional(results: Results) -> Iterator[Finding]:
    """What the density that translates best adds to the autoencoder's posterior."""
    found = {row: row.by_size("conditional_coherence") for row in results.densities}
    found = {row: sizes for row, sizes in found.items() if sizes and row.by_size("conditional_gain")}
    if not found:
        return
    row = max(found, key=lambda row: sum(estimate.value for estimate in found[row].values()))
    gains = row.by_size("conditional_gain")
    fewest, most = min(gains), max(gains)
    text = (
        f"Given {_others(fewest)}, what is generated through {row.title} shows the row's label in "
        f"{_percent(found[row][fewest].value)}, {_against(gains[fewest])} the plain posterior"
    )
    if most > fewest:
        text += f"; given {_count(most)}, in {_percent(found[row][most].value)}, {_against(gains[most])} it"
    text += "."
    if share := row.estimate("effective_sample_share"):
        draws = row.scores["posterior_draws"]
        text += (
            f" The density chooses among {draws} posterior draws, of which {draws * share.value:.1f} count on average "
            f"(an effective sample share of {_percent(share.value, 0)})."
        )
    yield Finding("Conditional", text)


def _private(results: Results) -> Iterator[Finding]:
    """What private codes drawn given the others add to private codes from the prior."""
    found = {row: gains for row in results.densities if (gains := row.by_size("private_gain"))}
    if not found:
        return
    row = max(found, key=lambda row: sum(estimate.value for estimate in found[row].values()))
    gains = found[row]
    told = f"{_change(gains[min(gains)])} given {_others(min(gains))}"
    if max(gains) > min(gains):
        told += f", and by {_change(gains[max(gains)])} given {_count(max(gains))}"
    clear = any(gain.low is not None and gain.low > 0 for gain in gains.values())
    verdict = "" if clear else "; none of these is clearly above 0"
    yield Finding(
        "Private codes",
        f"Drawing private codes of missing modalities from {row.title} given the other codes, instead of from the "
        f"prior, changes the share that shows the row's label by {told}{verdict}.",
    )


def _fit(results: Results) -> Iterator[Finding]:
    """Overfitting, memorisation and the choice of `auto`."""
    gaps = {row: gap for row in results.densities if (gap := row.estimate("overfitting"))}
    if gaps:
        row = max(gaps, key=lambda row: gaps[row].value)
        yield Finding(
            "Overfitting",
            f"{row.title} has the widest gap between training and validation codes: {gaps[row].value:.2f} nats of "
            "log-likelihood a row.",
        )
    copying = [
        f"{row.title} ({_percent(copies.value)})"
        for row in results.densities
        if (copies := row.estimate("memorisation", "near_copies"))
        and copies.low is not None
        and copies.low > COPIES
    ]
    if copying:
        yield Finding(
            "Memorisation",
            f"By definition {_percent(COPIES, 0)} of held-out codes are near copies of a training code; more are among "
            f"the draws of {_listed(copying)}.",
        )
    for row in results.densities:
        if why := row.scores.get("why"):
            yield Finding("Choice", f"{row.title} compared its candidates on held-out codes: {why}.")


def _cautions(results: Results) -> Iterator[Finding]:
    accuracy = Estimate.of(results.judges.get("accuracy"))
    if accuracy:
        read = f"The classifiers that read the labels are right on {_percent(accuracy.value)} of held-out real data"
        yield Finding("Judges", f"{read}; what they misread counts against every row.")
    if keepers := [row.title for row in results.densities if row.scores.get("stores_training_codes")]:
        yield Finding("Privacy", f"{_listed(keepers)}: the artefact holds codes of training rows.")
    if judged := [row.title for row in results.densities if row.scores.get("labels_from") == "judges"]:
        yield Finding("Labels", f"{_listed(judged)}: the labels of the samples were given by the judges.")


def _above_floor(row: Row) -> bool:
    """Whether the interval of the paired difference to the floor lies above 0."""
    difference = row.estimate("difference_to_normal", "joint_coherence")
    return difference is not None and difference.low is not None and difference.low > 0


def _against(gain: Estimate) -> str:
    """A paired difference, and whether its interval leaves 0 out, before the name of what it is set against."""
    if gain.low is None or gain.high is None or gain.low <= 0 <= gain.high:
        return f"not clearly apart, by {_change(gain)}, from"
    return f"{_change(gain)} {'above' if gain.value > 0 else 'below'}"


def _change(gain: Estimate) -> str:
    """A difference of shares in percentage points, with its interval."""
    text = f"{100 * gain.value:.1f} percentage points"
    if gain.low is not None and gain.high is not None:
        text += f" ({100 * gain.low:.1f} to {100 * gain.high:.1f})"
    return text.replace("-", "−")


def _others(number: int) -> str:
    return f"{_count(number)} other modalit{'y' if number == 1 else 'ies'}"


def _count(number: int) -> str:
    return NUMBERS[number - 1] if number <= len(NUMBERS) else str(number)


def _percent(share: float, decimals: int = 1) -> str:
    return f"{100 * share:.{decimals}f}\u202f%"  # a narrow space that does not break


def _points(difference: Estimate) -> str:
    text = f"{100 * difference.value:.1f} percentage points"
    if difference.low is None or difference.high is None:
        return text
    return f"{text} with a 95 % interval from {100 * difference.low:.1f} to {100 * difference.high:.1f}"


def _or(estimate: Estimate | None, otherwise: float) -> float:
    return estimate.value if estimate else otherwise


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
