"""The verdict: can the synthetic data be used, for what, and what should nobody do with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from postprior.pipelines.metrics.registry import JOINT, LEADERBOARD, Metric
from postprior.pipelines.report.findings.comparisons import above_prior, clearly, collapsed
from postprior.pipelines.report.findings.leaks import memorises, tests_named
from postprior.pipelines.report.findings.useful import RATIO
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row
from postprior.pipelines.report.wording import listed, number, percent, points_ci, titles

FEWEST = 50  # rows that were scored, or held out for the privacy tests; with fewer, nothing can be said
WIDEST = 0.1  # half the width of the interval of the attack's AUC; a wider one cannot show that nothing leaks
USEFUL = 0.9  # accuracy after training on samples, divided by that after training on real rows
COVERED = 0.5  # coverage and recall, divided by those of real rows
TOLD_APART = 0.9  # AUC of the classifier that tells samples from real rows
FLOOR_SCORES = {  # names of the scores by which densities are held against baselines
    "frechet_distance": "Frechet distance",
    "coverage": "coverage",
    "recall": "recall",
    "c2st_auc": "the two-sample test",
}
WORDS = {"yes": "Yes", "limited": "With limits", "unknown": "Cannot be said", "no": "No"}  # the best first
STANDING = "Do not take them for anonymous: the tests find only the leaks that they look for."


@dataclass(frozen=True)
class Verdict:
    """The answer to three questions, in whole sentences of plain text.

    Attributes:
        use: whether the data can be used: a key of `WORDS`.
        density: the density whose samples are recommended; the least bad one if none is.
        privacy: "clear", "flagged", or "untested" if the tests were not made or could not find a leak.
        reasons: why; the first sentence names what decided.
        purposes: what the samples can be used for.
        warnings: what nobody should do with them, the gravest first, and at last that no test is a guarantee.
    """

    use: str
    density: Row
    privacy: str
    reasons: tuple[str, ...]
    purposes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def word(self) -> str:
        """The answer in one or two words."""
        return WORDS[self.use]

    @property
    def purposeless(self) -> str:
        """What to say if there is no purpose."""
        return "Not known." if self.use == "unknown" else "For nothing that was tested."

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        samples = f"the samples of {self.density.title}"
        if self.use == "yes":
            return f"You can use {samples}."
        if self.use == "limited":
            limits = "with limits" if self.privacy == "clear" else "yourself, but do not share them"
            return f"You can use {samples} {limits}."
        if self.use == "no":
            return "Do not use these samples."
        return "It cannot be said whether these samples can be used."


def verdict(results: Results) -> Verdict:
    """Judge each density, and return the verdict on the best one.

    A density is judged by this rule:

    1. *Unknown* if it has no Frechet distance, or if fewer than `FEWEST` rows were scored.
    2. Purposes. Its samples serve to
       - train classifiers, if the interval of the utility ratio lies above `USEFUL`;
       - be added to real rows, if augmentation with this density raised the accuracy clearly;
       - explore the data, if no baseline beats it and its coverage is at least `COVERED` times that of real rows;
       - be shared, if privacy is clear and they serve another purpose.
    3. Privacy is *flagged* if a privacy test flags the samples, or if drawn codes memorise training codes. It is
       *untested* if the tests of near copies and membership have no value, if fewer than `FEWEST` rows were held out,
       or if half the interval of the attack's AUC is wider than `WIDEST`. Otherwise, it is *clear*.
    4. A baseline (the model's own prior, the Gaussian copula, independent columns) beats a density if it is clearly
       better in more of the `FLOOR_SCORES` than it is clearly worse in (see `clearly`).
    5. *No* without a purpose; *unknown* instead if the interval of utility or coverage contains its limit. *Yes* with a
       purpose and without a warning but the standing one. *Limited* otherwise.

    The best density has the best answer; among equals, one that no privacy test flags comes first, then one that no
    baseline beats, then the order of the leaderboard.
    """
    judged = [_judged(results, row) for row in results.densities]

    def order(one: Verdict) -> tuple[int, bool, bool]:
        return [*WORDS].index(one.use), one.privacy == "flagged", bool(_beaten_by(results, one.density))

    best = min(judged, key=order)
    passed_over = list(_passed_over(results, judged, best))
    others = [one.density for one in judged if one.privacy == "flagged" and one is not best]
    warnings = list(best.warnings)
    if others:
        warnings.insert(len(warnings) - 1, f"Do not share samples of {titles(others)}: privacy tests flag them.")
    return replace(best, reasons=(*passed_over, *best.reasons), warnings=tuple(warnings))


def _judged(results: Results, row: Row) -> Verdict:
    """Return the verdict on one density, without comparing it with others."""
    if why := _unmeasured(row):
        return Verdict("unknown", row, _privacy(row)[0], (why,), (), (STANDING,))
    privacy, why_private = _privacy(row)
    trains, explores = _trains(row), _explores(results, row)
    purposes = [*_training(results, row)]
    if explores:
        purposes.append("To explore the data, plan an analysis and test code.")
    if purposes and privacy == "clear":
        purposes.append("To share with people who may not see the real rows, if your rules allow it.")
    warnings = [*_warnings(results, row)]
    without = "unknown" if None in (trains, explores) else "no"
    use = ("limited" if warnings else "yes") if purposes else without
    reasons = [_reason(use), why_private, *_against_floor(results, row)]
    return Verdict(use, row, privacy, tuple(filter(None, reasons)), tuple(purposes), (*warnings, STANDING))


def _reason(use: str) -> str:
    """Say what decided if no purpose is met."""
    if use == "no":
        return "The samples passed the test of no purpose."
    return "The intervals of the scores are too wide to decide on any purpose." if use == "unknown" else ""


def _unmeasured(row: Row) -> str:
    """Return why nothing can be said about a density, or ""."""
    if not row.estimate("frechet_distance"):
        why = row.why("frechet_distance") or row.why("joint_coherence")
        return f"The samples have no scores: {why}." if why else "The samples have no scores."
    scored = row.scores.get("samples", FEWEST)
    return f"Only {scored} rows were scored; at least {FEWEST} are needed." if scored < FEWEST else ""


def _privacy(row: Row) -> tuple[str, str]:
    """Return whether privacy is clear, and the sentence that says why."""
    tests = row.scores.get("privacy", {})
    if flags := tests.get("flagged"):
        return "flagged", f"The samples are flagged by {tests_named(flags)}."
    if memorises(row):
        return "flagged", "The density memorises training codes."
    if not tests:
        return "untested", "Privacy was not tested."
    for key in ("membership_auc", "near_copies"):
        if not row.estimate(*JOINT, key):
            why = row.why(*JOINT, key)
            return "untested", f"{tests_named([key]).capitalize()} was not tested{f': {why}' if why else ''}."
    held_out = tests.get("samples", {}).get("held_out", FEWEST)
    if held_out < FEWEST:
        return "untested", f"Only {held_out} held-out rows are too few to find a leak."
    attack = row.estimate(*JOINT, "membership_auc")
    if attack is None or attack.low is None or attack.high is None or attack.high - attack.low > 2 * WIDEST:
        return "untested", "The interval of the membership inference attack is too wide to find a leak."
    return "clear", "No privacy test flags its samples."


def _trains(row: Row) -> bool | None:
    """Whether samples can replace real rows for training; None if the interval contains the limit, or without one."""
    ratio = row.estimate(*RATIO)
    if ratio is None or ratio.low is None:
        return False if ratio is None else None
    return ratio.low >= USEFUL or (False if ratio.below(USEFUL) else None)


def _training(results: Results, row: Row) -> Iterator[str]:
    """Yield the purposes that need labels."""
    ratio = row.estimate(*RATIO)
    if ratio and _trains(row):
        yield (
            "To train classifiers in place of real rows: they reach "
            f"{percent(ratio.value)} of the accuracy with real rows."
        )
    for size, gain in _gains(results, row):
        if gain.above():
            yield f"To add to few real rows: with {size} of them, the accuracy rises by {points_ci(gain)}."


def _gains(results: Results, row: Row) -> Iterator[tuple[str, Estimate]]:
    """Yield numbers of real rows and what most synthetic rows of a density add to the accuracy with these alone."""
    for size, arms in results.augmentation.items():
        copies = max((int(arm[10:-1]) for arm in arms if arm.startswith("synthetic_")), default=0)
        gain = Row("", "", arms.get(f"synthetic_{copies}x", {})).estimate("over_real", "joint")
        if gain and results.augmented[size]["density"] == row.name:
            yield size, gain


def _explores(results: Results, row: Row) -> bool | None:
    """Whether samples resemble the real rows; None if the interval of the coverage contains the limit."""
    if _beaten_by(results, row):
        return False
    coverage, real = (scored.estimate("coverage") for scored in (row, results.baseline_of(row, "real")))
    if coverage is None or real is None:
        return None
    if coverage.value >= COVERED * real.value:
        return True
    return False if coverage.below(COVERED * real.value) else None


def _beaten_by(results: Results, row: Row) -> dict[Row, list[Metric]]:
    """Return the baselines that beat a density, each with the scores in which it is clearly better."""
    signs = {floor: _signs(row, floor) for floor in _floors(results, row)}
    return {
        floor: [metric for metric, sign in by_metric.items() if sign < 0]
        for floor, by_metric in signs.items()
        if sum(by_metric.values()) < 0
    }


def _signs(row: Row, floor: Row) -> dict[Metric, int]:
    """Return whether a density is clearly better (1) or worse (−1) than a baseline, by score."""
    return {metric: clearly(metric, row, floor) for metric in LEADERBOARD if metric.key in FLOOR_SCORES}


def _floors(results: Results, row: Row) -> list[Row]:
    """The baselines from the source of a row, or this project's if that source has none."""
    baselines = [other for other in results.rows if other.kind == "baseline"]
    own = [other for other in baselines if other.source == row.source]
    return own or [other for other in baselines if not other.source]


def _against_floor(results: Results, row: Row) -> Iterator[str]:
    """Say which baselines a density is clearly better than, and which not."""
    signs = {floor: sum(_signs(row, floor).values()) for floor in _floors(results, row)}
    if better := [floor for floor, sign in signs.items() if sign > 0]:
        yield f"They are clearly nearer to real rows than those of {titles(better)}."
    if equal := [floor for floor, sign in signs.items() if sign == 0]:
        yield f"They are not clearly nearer to real rows than those of {titles(equal)}."


def _warnings(results: Results, row: Row) -> Iterator[str]:
    """Yield what nobody should do with the samples of a density, the gravest first."""
    privacy, why = _privacy(row)
    if privacy != "clear":
        yield f"Do not share them with people who may not see the real rows. {why}"
    for floor, metrics in _beaten_by(results, row).items():
        better = listed([FLOOR_SCORES[metric.key] for metric in metrics])
        yield f"Do not take them for a good likeness of real rows: {_named(floor)} is better in {better}."
    yield from _poor_use(row)
    yield from _poor_likeness(results, row)


def _named(floor: Row) -> str:
    return f"{floor.title}, N(0, I) without a fitted density," if floor.own_name == "normal" else floor.title


def _poor_use(row: Row) -> Iterator[str]:
    """Warn of training on samples, if it was tested and did not succeed."""
    ratio = row.estimate(*RATIO)
    if ratio is None or _trains(row):
        return
    share = f"{percent(ratio.value)} of the accuracy with real rows"
    if _trains(row) is None:
        yield f"Do not count on them in place of real training rows: classifiers reach {share}, but this is uncertain."
    else:
        yield f"Do not train classifiers on them in place of real rows: these reach {share}."


def _poor_likeness(results: Results, row: Row) -> Iterator[str]:
    """Warn of statements that samples do not support."""
    real = results.baseline_of(row, "real")
    coherence, target = row.estimate("joint_coherence"), real.estimate("joint_coherence")
    if coherence and target and coherence.below(target.value) and not above_prior(row, "joint_coherence"):
        yield "Do not use their modalities together: these agree no more often than in draws from N(0, I)."
    lacking = []
    for key in ("coverage", "recall"):
        score, target = row.estimate(key), real.estimate(key)
        if score and target and score.below(COVERED * target.value):
            lacking.append(f"{key} is {percent(score.value)}, and {percent(target.value)} for real rows")
    if lacking:
        yield f"Do not study rare groups or extremes with them: {listed(lacking)}."
    if collapsed(results, row):
        yield "Do not read frequencies of labels from them: their labels are far less even than those of real rows."
    told = row.estimate("c2st_auc")
    if told and told.above(TOLD_APART):
        yield (
            "Do not publish estimates from them as those of real data: a classifier tells them from real rows with an "
            f"AUC of {number(told.value, 2)}."
        )


def _passed_over(results: Results, judged: list[Verdict], best: Verdict) -> Iterator[str]:
    """Say why the first densities of the leaderboard are not recommended, or that the best density is the first."""
    metric = "highest joint coherence" if results.labelled else "lowest Frechet distance"
    if best is judged[0]:
        if len(judged) > 1 and best.purposes:
            yield f"Of {len(judged)} fitted densities, {best.density.title} has the {metric}."
        return
    better = judged[0]
    if better.privacy == "flagged" and best.privacy != "flagged":
        why = "privacy tests flag it"
    elif _beaten_by(results, better.density) and not _beaten_by(results, best.density):
        why = f"{titles(_beaten_by(results, better.density))} is nearer to real rows"
    else:
        why = f"the answer for {best.density.title} is better"
    yield f"{better.density.title} has the {metric}, but {why}."
