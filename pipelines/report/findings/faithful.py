"""Is it faithful? Compare the best density with the normal prior, with real rows and with the other densities."""

from collections.abc import Callable, Iterator
from functools import partial

from postprior.pipelines.report.findings.comparisons import above_prior, collapsed, paired, told_apart
from postprior.pipelines.report.findings.ranking import ranking
from postprior.pipelines.report.pairs import holm
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import (
    Finding,
    compared,
    in_words,
    listed,
    number,
    number_ci,
    p_value,
    percent,
    percent_ci,
    points_ci,
    rounded,
)
from postprior.pipelines.settings.params import SAMPLER_ROWS

DIVERSITY: dict[str, Callable[[float], str]] = {  # scores of diversity, and how each is formatted
    "label_entropy": partial(number, decimals=3),
    "recall": percent,
    "coverage": percent,
    "beta_recall": partial(number, decimals=3),
}


def faithful(results: Results, best: Row) -> Iterator[Finding]:
    """State coherence, distance and diversity of the best density, its rivals, and conditional generation."""
    yield Finding("Ranking", ranking(results))
    yield from _prior(results, best)
    yield from _gap(results, best)
    yield from _distance(results, best)
    yield from _pairings(results, best)
    yield from _diversity(results, best)
    yield from _cells(results, best)
    yield from _tables(best)
    yield from _missing_values(results, best)
    yield from _runner_up(results)
    yield from _seeds(results)
    yield from _conditional(results)
    yield from _private(results)


def _prior(results: Results, best: Row) -> Iterator[Finding]:
    prior = results.baseline_of(best, "normal").estimate("joint_coherence")
    difference = best.estimate("difference_to_normal", "joint_coherence")
    if prior and difference:
        clear = "clearly" if above_prior(best, "joint_coherence") else "not clearly"
        yield Finding(
            "Normal prior",
            f"In {percent(prior.value)} of the samples from the autoencoder's own prior (Normal prior in "
            "the report), all modalities show the same label. The paired difference between "
            f"{best.title} and this prior is {points_ci(difference)}, which is {clear} above 0.",
        )


def _gap(results: Results, best: Row) -> Iterator[Finding]:
    """The share of the gap between the normal prior and reconstructions that the best density closes."""
    reconstruction = results.baseline_of(best, "reconstruction").estimate("joint_coherence")
    if not reconstruction and "gap_closed" not in best.scores:
        return
    metric, sentences = "frechet_distance", []
    if reconstruction:
        metric = "joint_coherence"
        sentences.append(
            f"In {percent(reconstruction.value)} of the held-out rows that were encoded and decoded "
            "(Reconstruction in the report), all modalities show the same label."
        )
    by = metric.replace("_", " ").replace("frechet", "Frechet")
    if closed := best.estimate("gap_closed", metric):
        gap = f"of the gap between the normal prior and the reconstructions, measured by {by}"
        sentences.append(f"{best.title} closes {percent(closed.value, 0)} {gap}.")
    else:
        why = best.why("gap_closed", metric) or "the confidence interval of the gap contains 0"
        gap = f"the gap between the normal prior and the reconstructions, measured by {by}"
        sentences.append(f"The share that {best.title} closes of {gap}, is not given: {why}.")
    yield Finding("Gap closed", " ".join(sentences))


def _distance(results: Results, best: Row) -> Iterator[Finding]:
    """The Frechet distance of the best density beside the baselines, and the density with the lowest one."""
    rows = (best, results.baseline_of(best, "reconstruction"), results.baseline_of(best, "normal"))
    distance, reconstruction, prior = (row.estimate("frechet_distance") for row in rows)
    if not distance or not reconstruction or not prior or reconstruction.value <= 0:
        return
    yield Finding(
        "Distance",
        f"The Frechet distance of {best.title} to real data is {rounded(distance.value)}, which is "
        f"{distance.value / reconstruction.value:.2f} times the distance of the reconstructions "
        f"({rounded(reconstruction.value)}). The normal prior has a distance of {rounded(prior.value)}.",
    )
    nearest = min(results.densities, key=lambda row: row.value("frechet_distance"))
    if nearest is not best:
        yield Finding(
            "Lowest distance",
            f"{nearest.title} has the lowest Frechet distance of all densities: "
            f"{rounded(nearest.value('frechet_distance'))}.",
        )


def _pairings(results: Results, best: Row) -> Iterator[Finding]:
    """Whether the modalities of a sample belong together, measured without labels."""
    real, auc = (row.estimate("pairing_auc") for row in (results.baseline_of(best, "real"), best))
    sentences = []
    if real and auc:
        sentences.append(
            "The pairing classifier distinguishes true from shuffled pairings of modalities with an AUC of "
            f"{real.value:.3f} in real rows and of {auc.value:.3f} in samples of {best.title}."
        )
        if incoherence := best.estimate("incoherence"):
            clear = "clearly" if incoherence.above() else "not clearly"
            sentences.append(
                f"The first AUC minus the second, the incoherence, is {number_ci(incoherence, 3)}, which is {clear} "
                "above 0."
            )
    if preserved := best.estimate("canonical_preservation"):
        sentences.append(
            f"Canonical correlations between modalities are {percent_ci(preserved)} of those in real rows."
        )
    if sentences:
        yield Finding("Pairings", " ".join(sentences))


def _diversity(results: Results, best: Row) -> Iterator[Finding]:
    real_row = results.baseline_of(best, "real")
    scores = [
        f"{key.replace('beta_', 'β-').replace('_', ' ')} {shown(score.value)} (real rows {shown(real.value)})"
        for key, shown in DIVERSITY.items()
        if (score := best.estimate(key)) and (real := real_row.estimate(key))
    ]
    if scores:
        blind = "Coherence" if best.estimate("joint_coherence") else "Precision"
        text = f"The samples of {best.title} have {listed(scores)}."
        uneven = " Their labels are far less even than those of real rows." if collapsed(results, best) else ""
        yield Finding("Diversity", f"{text}{uneven} {blind} alone does not reveal a collapse of diversity.")


def _cells(results: Results, best: Row) -> Iterator[Finding]:
    """How much the cells of tables and vectors resemble those of real rows, beside the samplers without a model."""
    if quality := best.estimate("quality"):
        parts = [
            f"{percent(part.value)} for {of}"
            for key, of in (("column_shapes", "single columns"), ("column_pair_trends", "associated pairs of columns"))
            if (part := best.estimate(key))
        ]
        text = f"The table quality of {best.title} is {percent_ci(quality)}, which is the mean of {listed(parts)}."
        yield Finding("Table quality", text + _beside(results, best, "quality", percent))
    if auc := best.estimate("c2st_auc"):
        text = (
            f"A boosted classifier tells samples of {best.title} from real rows with an AUC of {number_ci(auc, 3)}; it "
            "is 0.5 if nothing tells them apart, and 1 if every row gives itself away."
        )
        yield Finding("Two-sample test", text + _beside(results, best, "c2st_auc", lambda value: number(value, 3)))


def _beside(results: Results, best: Row, key: str, formatted: Callable[[float], str]) -> str:
    """Return a sentence with the score of real rows and of the samplers without a model."""
    scored = [row for row in results.rows if row.source == best.source and row.own_name in ("real", *SAMPLER_ROWS)]
    scores = [f"{formatted(score.value)} for {row.title}" for row, score in estimates(scored, key).items()]
    return f" Beside it, the score is {listed(scores)}." if scores else ""


def _tables(best: Row) -> Iterator[Finding]:
    """How well the single columns of each table match those of real rows."""
    for name, scores in best.scores.get("modalities", {}).items():
        if not (shapes := Estimate.of(scores.get("column_shapes"))):
            continue
        text = f"In {name}, the similarity to real rows is {percent_ci(shapes)} for distributions of single columns."
        tests = {column: test["p_value"] for column, test in scores.get("columns", {}).items() if "p_value" in test}
        if tests:
            corrected = holm(list(tests.values()))
            different = [column for column, p in zip(tests, corrected, strict=True) if p < 0.05]
            differ = f"{listed(different)} differ{'s' if len(different) == 1 else ''}" if different else "none differs"
            text += (
                f" Of its {len(tests)} columns, {differ} significantly from real rows (5\u202f% level, corrected for "
                "the number of columns)."
                if len(tests) > 1
                else f" Its column {'differs' if different else 'does not differ'} significantly from real rows "
                "(5\u202f% level)."
            )
        yield Finding("Tables", text)


def _missing_values(results: Results, best: Row) -> Iterator[Finding]:
    """How often samples and real rows lack each modality, and values of it."""
    sides = [row.scores.get("modalities", {}) for row in (best, results.baseline_of(best, "real"))]
    shares = {
        (name, part): [side.get(name, {}).get("missing", {}).get(part, 0.0) for side in sides]
        for name in dict.fromkeys(name for side in sides for name in side)
        for part in ("rows", "values")
    }
    told = {
        part: [
            f"{name} {percent(ours)} ({percent(real)})"
            for (name, of), (ours, real) in shares.items()
            if of == part and (ours or real)
        ]
        for part in ("rows", "values")
    }
    texts = []
    if told["rows"]:
        texts.append(
            f"Share of the samples of {best.title} (of real rows) that lack a modality: {listed(told['rows'])}."
        )
    if told["values"]:
        texts.append(
            f"Share of missing values in samples of {best.title} (in real rows) that have the modality: "
            f"{listed(told['values'])}."
        )
    if texts:
        yield Finding("Missing values", " ".join(texts))


def _runner_up(results: Results) -> Iterator[Finding]:
    if len(results.densities) < 2:
        return
    first, second = results.densities[:2]
    metric = "joint_coherence" if results.labelled else "frechet_distance"
    score = second.estimate(metric)
    if not first.estimate(metric) or not score:
        return
    value = (
        f"a joint coherence of {percent(score.value)}"
        if results.labelled
        else f"a Frechet distance of {rounded(score.value)}"
    )
    yield Finding("Runner-up", f"{second.title} is second with {value}.{_significance(results, metric, first, second)}")


def _significance(results: Results, metric: str, first: Row, second: Row) -> str:
    """Say whether two densities differ clearly, and by which test."""
    apart = told_apart(results, metric, first, second)
    if pair := paired(results, metric, first, second):
        difference = pair.of(first.name)
        coherence = metric == "joint_coherence"
        value = points_ci(difference, nested=True) if coherence else number_ci(difference, 2, nested=True)
        p = p_value(pair.p_holm)
        p = f"p\u202f{p}" if p.startswith("<") else f"p\u202f=\u202f{p}"
        verdict = f"The difference to {first.title} is {'' if apart else 'not '}significant"
        minus = f"paired difference, {first.title} minus {second.title}: {value}"
        return f" {verdict} ({minus}; {p} after Holm's correction)."
    if any(score is None or score.high is None for score in (first.estimate(metric), second.estimate(metric))):
        return ""
    return f" The 95\u202f% confidence intervals of the two {'do not overlap' if apart else 'overlap'}."


def _seeds(results: Results) -> Iterator[Finding]:
    """Means over seeds, whose intervals include the variation between training runs."""
    for row in results.rows:
        coherence, distance = row.estimate("joint_coherence"), row.estimate("frechet_distance")
        scores = [f"a joint coherence of {percent_ci(coherence)}"] if coherence else []
        scores += [f"a Frechet distance of {number_ci(distance, 2)}"] if distance else []
        if row.kind == "seeds" and scores:
            yield Finding(
                "Seeds",
                f"{row.title}: {listed(scores)}. These are t-intervals over seeds, which include the variation "
                "between training runs.",
            )


def _conditional(results: Results) -> Iterator[Finding]:
    """What the density with the best conditional coherence adds to the autoencoder's posterior."""
    row, scores = _most(results, "conditional_coherence", "conditional_gain")
    if not row:
        return
    gains = row.by_size("conditional_gain")
    fewest, most = min(gains), max(gains)
    text = (
        f"Given {_others(fewest)}, {percent(scores[fewest].value)} of the modalities generated with {row.title} show "
        f"the label of their row. This share is {compared(gains[fewest], 'that of the plain posterior')}."
    )
    if most > fewest:
        text += (
            f" Given {_others(most)}, the share is {percent(scores[most].value)}, "
            f"which is {compared(gains[most], 'that of the plain posterior')}."
        )
    if share := row.estimate("effective_sample_share"):
        draws = row.scores["posterior_draws"]
        text += (
            f" The density reweights {draws} posterior draws; their effective sample size is {draws * share.value:.1f} "
            f"on average ({percent(share.value, 0)} of them)."
        )
    yield Finding("Conditional generation", text)


def _private(results: Results) -> Iterator[Finding]:
    """What private codes that are drawn given the other codes add to private codes from the prior."""
    row, gains = _most(results, "private_gain")
    if not row:
        return
    changes = f"{points_ci(gains[min(gains)])} given {_others(min(gains))}"
    if max(gains) > min(gains):
        changes += f" and by {points_ci(gains[max(gains)])} given {in_words(max(gains))}"
    verdict = ""
    if not any(gain.above() for gain in gains.values()):
        verdict = " None of the differences is clearly above 0." if len(gains) > 1 else " This is not clearly above 0."
    yield Finding(
        "Private codes",
        f"Private codes of missing modalities are drawn from {row.title} given the other codes, instead of from the "
        f"prior. This changes the share of generated modalities that show the label of their row by {changes}."
        f"{verdict}",
    )


def _most(results: Results, *keys: str) -> tuple[Row | None, dict[int, Estimate]]:
    """The density with the highest total under the first key, and its scores by number of observed modalities.

    Only densities that have all the keys count.
    """
    scores = {row: row.by_size(keys[0]) for row in results.densities if all(map(row.by_size, keys))}
    row = max(scores, key=lambda row: sum(estimate.value for estimate in scores[row].values()), default=None)
    return row, scores[row] if row else {}


def _others(number: int) -> str:
    return f"{in_words(number)} other modalit{'y' if number == 1 else 'ies'}"
