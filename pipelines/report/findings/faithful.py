"""Is it faithful? How the densities stand between the floor and real rows, and to one another."""

from collections.abc import Iterator

from postprior.pipelines.report.pairs import Pair, holm
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row
from postprior.pipelines.report.wording import (
    Finding,
    against,
    count,
    listed,
    number,
    number_with,
    percent,
    percent_with,
    points,
)

EVEN = 0.9  # of the label entropy of real rows: less is a collapse


def faithful(results: Results) -> Iterator[Finding]:
    """Coherence and distance of the best density, its rivals, and what it generates from parts."""
    best = results.densities[0]
    yield from _floor(results, best)
    yield from _gap(results, best)
    yield from _realism(results, best)
    yield from _pairings(results, best)
    yield from _diversity(results, best)
    yield from _tables(best)
    yield from _runner_up(results)
    yield from _seeds(results)
    yield from _conditional(results)
    yield from _private(results)


def above_floor(row: Row, metric: str) -> bool:
    """Whether the paired difference to the floor is clear: a share above 0, a distance below."""
    difference = row.estimate("difference_to_normal", metric)
    return difference is not None and (difference.above() if metric == "joint_coherence" else difference.below())


def collapsed(results: Results, row: Row) -> bool:
    """Whether the labels that samples show are far less even than those of real rows."""
    ours, real = row.estimate("label_entropy"), results.beside(row, "real").estimate("label_entropy")
    return ours is not None and real is not None and ours.below(EVEN * real.value)


def _floor(results: Results, best: Row) -> Iterator[Finding]:
    floor = results.beside(best, "normal").estimate("joint_coherence")
    difference = best.estimate("difference_to_normal", "joint_coherence")
    if floor and difference:
        lies = "lies" if above_floor(best, "joint_coherence") else "does not lie"
        yield Finding(
            "Floor",
            f"Draws from the autoencoder's own prior, the row Normal prior, agree in {percent(floor.value)}. The "
            f"paired difference of {best.title} to them is {_spelt(difference)}, which {lies} above 0.",
        )


def _gap(results: Results, best: Row) -> Iterator[Finding]:
    """The share of the way from the floor to reconstructions."""
    ceiling = results.beside(best, "reconstruction").estimate("joint_coherence")
    metric = "joint_coherence" if ceiling else "frechet_distance"
    if not ceiling and "gap_closed" not in best.scores:
        return
    decoded = "held-out rows, encoded and decoded again"
    gap = f"of the gap from the floor to {'them' if ceiling else decoded}"
    if closed := best.estimate("gap_closed", metric):
        share = f"{best.title} closes {percent(closed.value, 0)} {gap}"
    else:
        why = best.why("gap_closed", metric) or "it lies inside the noise"
        share = f"no share {gap}{'' if ceiling else ','} is given: {why}"
    sign = ":" if closed else ";"
    start = f"H{decoded[1:]}, agree in {percent(ceiling.value)}{sign}" if ceiling else "By Frechet distance,"
    yield Finding("Gap closed", f"{start} {share}.")


def _realism(results: Results, best: Row) -> Iterator[Finding]:
    rows = (best, results.beside(best, "reconstruction"), results.beside(best, "normal"))
    distance, decoded, floor = (row.estimate("frechet_distance") for row in rows)
    if not distance or not decoded or not floor or decoded.value <= 0:
        return
    yield Finding(
        "Realism",
        f"The Frechet distance of {best.title} to real data is {distance.value:.2f}, "
        f"{distance.value / decoded.value:.2f} times that of the reconstructions ({decoded.value:.2f}); the floor "
        f"stands at {floor.value:.2f}.",
    )
    nearest = min(results.densities, key=lambda row: row.value("frechet_distance"))
    if nearest is not best:
        yield Finding(
            "Nearest to real",
            f"The lowest Frechet distance of a density is that of {nearest.title}, "
            f"{nearest.value('frechet_distance'):.2f}.",
        )


def _pairings(results: Results, best: Row) -> Iterator[Finding]:
    """Whether modalities belong together, told without labels."""
    real, auc = (row.estimate("pairing_auc") for row in (results.beside(best, "real"), best))
    told = []
    if real and auc:
        told.append(
            f"A classifier tells true from shuffled pairings of real modalities with an AUC of {real.value:.3f}, of "
            f"those of {best.title} with {auc.value:.3f}"
        )
        if lacking := best.estimate("incoherence"):
            clear = "" if lacking.above() else ", not clearly above 0"
            told[0] += f": an incoherence of {number_with(lacking, 3)}{clear}"
    if kept := best.estimate("canonical_preservation"):
        told.append(f"Canonical correlations between modalities are kept at {percent_with(kept)}")
    if told:
        yield Finding("Pairings", " ".join(f"{text}." for text in told))


def _diversity(results: Results, best: Row) -> Iterator[Finding]:
    real = results.beside(best, "real")
    told = [
        f"{key.replace('beta_', 'β-').replace('_', ' ')} {ours.value:.3f} (real {theirs.value:.3f})"
        for key in ("label_entropy", "recall", "coverage", "beta_recall")
        if (ours := best.estimate(key)) and (theirs := real.estimate(key))
    ]
    if told:
        rewarded = "Coherence" if best.estimate("joint_coherence") else "Precision"
        text = f"{rewarded} alone would also reward a collapse; {best.title} has {', '.join(told)}."
        few = " Its labels are far less even than real ones." if collapsed(results, best) else ""
        yield Finding("Diversity", text + few)


def _tables(best: Row) -> Iterator[Finding]:
    """How well the columns of tables are met."""
    for name, scores in best.scores.get("modalities", {}).items():
        marginal, pairs = (Estimate.of(scores.get(f"{what}_similarity")) for what in ("marginal", "correlation"))
        if not marginal:
            continue
        text = f"In {name}, the distributions of single columns are met at {percent_with(marginal)}"
        if pairs:
            text += f", the correlations of pairs at {percent_with(pairs)}"
        tests = {name: told["p_value"] for name, told in scores.get("columns", {}).items() if "p_value" in told}
        if tests:
            corrected = holm(list(tests.values()))
            apart = [column for column, p in zip(tests, corrected, strict=True) if p < 0.05]
            which = f"{listed(apart)} {'is' if len(apart) == 1 else 'are'}" if apart else "none is"
            text += f"; of its {len(tests)} columns, {which} told apart from real ones at 5\u202f% over all tests"
        yield Finding("Tables", f"{text}.")


def _runner_up(results: Results) -> Iterator[Finding]:
    if len(results.densities) < 2:
        return
    first, second = results.densities[:2]
    metric = "joint_coherence" if results.labelled else "frechet_distance"
    ours, theirs = first.estimate(metric), second.estimate(metric)
    if not ours or not theirs:
        return
    follows = percent(theirs.value) if results.labelled else f"a Frechet distance of {theirs.value:.2f}"
    yield Finding("Runner-up", f"{second.title} follows with {follows}{_apart(results, metric, first, second)}.")


def told_apart(results: Results, metric: str, first: Row, second: Row) -> bool:
    """Whether two densities differ clearly: by the paired test, without one by their intervals."""
    if pair := _paired(results, metric, first, second):
        return pair.apart
    ours, theirs = first.estimate(metric), second.estimate(metric)
    if not ours or not theirs or ours.high is None or theirs.high is None:
        return False
    return ours.above(theirs.high) or theirs.above(ours.high)


def _apart(results: Results, metric: str, first: Row, second: Row) -> str:
    """Whether two densities are told apart, and by what."""
    apart = told_apart(results, metric, first, second)
    if pair := _paired(results, metric, first, second):
        difference = pair.of(first.name)
        told = points(difference) if metric == "joint_coherence" else number_with(difference, 2)
        chance = "p < 0.001" if pair.p_holm < 0.001 else f"p = {pair.p_holm:.3f}"
        verdict = "they are" if apart else "they are not"
        return f"; {verdict} told apart (paired difference {told}, {chance} after Holm's correction)"
    known = all(e and e.high is not None for e in (first.estimate(metric), second.estimate(metric)))
    return f"; their intervals {'do not overlap' if apart else 'overlap'}" if known else ""


def _paired(results: Results, metric: str, first: Row, second: Row) -> Pair | None:
    """The test between two densities, None where there is none."""
    names = {first.name, second.name}
    return next((p for p in results.pairs if p.metric == metric and {p.first, p.second} == names), None)


def _seeds(results: Results) -> Iterator[Finding]:
    """Means over seeds, whose intervals hold the luck of training too."""
    for row in results.rows:
        coherence, distance = row.estimate("joint_coherence"), row.estimate("frechet_distance")
        told = [f"a joint coherence of {percent_with(coherence)}"] if coherence else []
        told += [f"a Frechet distance of {number_with(distance, 2)}"] if distance else []
        if row.kind == "seeds" and told:
            yield Finding(
                "Seeds",
                f"{row.title}: {listed(told)}, with 95\u202f% t-intervals over seeds, which hold the luck of "
                "training too.",
            )


def _conditional(results: Results) -> Iterator[Finding]:
    """What the density that translates best adds to the autoencoder's posterior."""
    row, found = _most(results, "conditional_coherence", "conditional_gain")
    if not row:
        return
    gains = row.by_size("conditional_gain")
    fewest, most = min(gains), max(gains)
    text = (
        f"Given {_others(fewest)}, what is generated through {row.title} shows the row's label in "
        f"{percent(found[fewest].value)}, {against(gains[fewest])} the plain posterior"
    )
    if most > fewest:
        text += f"; given {count(most)}, in {percent(found[most].value)}, {against(gains[most])} it"
    text += "."
    if share := row.estimate("effective_sample_share"):
        draws = row.scores["posterior_draws"]
        text += (
            f" The density chooses among {draws} posterior draws, of which {draws * share.value:.1f} count on average "
            f"(an effective sample share of {percent(share.value, 0)})."
        )
    yield Finding("Conditional", text)


def _private(results: Results) -> Iterator[Finding]:
    """What private codes drawn given the others add to private codes from the prior."""
    row, gains = _most(results, "private_gain")
    if not row:
        return
    told = f"{points(gains[min(gains)])} given {_others(min(gains))}"
    if max(gains) > min(gains):
        told += f", and by {points(gains[max(gains)])} given {count(max(gains))}"
    doubt = "; none of these is clearly above 0" if len(gains) > 1 else ", which is not clearly above 0"
    verdict = "" if any(gain.above() for gain in gains.values()) else doubt
    yield Finding(
        "Private codes",
        f"Drawing private codes of missing modalities from {row.title} given the other codes, instead of from the "
        f"prior, changes the share that shows the row's label by {told}{verdict}.",
    )


def _most(results: Results, *keys: str) -> tuple[Row | None, dict[int, Estimate]]:
    """Of the densities that have all the keys, that of the greatest scores under the first, and these by size."""
    found = {row: row.by_size(keys[0]) for row in results.densities if all(map(row.by_size, keys))}
    row = max(found, key=lambda row: sum(estimate.value for estimate in found[row].values()), default=None)
    return row, found[row] if row else {}


def _others(number: int) -> str:
    return f"{count(number)} other modalit{'y' if number == 1 else 'ies'}"


def _spelt(difference: Estimate) -> str:
    """A difference of shares in percentage points, its interval in words."""
    text = points(Estimate(difference.value))
    if difference.low is None or difference.high is None:
        return text
    low, high = number(100 * difference.low, 1), number(100 * difference.high, 1)
    return f"{text} with a 95\u202f% interval from {low} to {high}"
