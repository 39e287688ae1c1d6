"""Figures on the question whether synthetic data is useful."""

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any

from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.report.figures import MUTED, Figure, Mark, Panel, density_mark
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.results import IMPUTERS, Results
from postprior.pipelines.report.rows import MISSING, Estimate, Row

Looks = Mapping[str, Mark]

SCORES = {  # titles of the scores in the `utility` of a row
    "train_synthetic_test_real": "Accuracy",
    "ratio_to_real": "Ratio to real",
    "train_real_test_synthetic": "Reverse",
}
PANELS = {  # title of each panel, by keys in the `utility` of a row
    keys: f"{SCORES[keys[0]]}, {keys[1]}"
    for keys in (
        ("train_synthetic_test_real", "joint"),
        ("train_synthetic_test_real", "mean"),
        ("ratio_to_real", "joint"),
        ("ratio_to_real", "mean"),
        ("train_real_test_synthetic", "joint"),
    )
}
REFERENCE_LINES = {"ratio_to_real": 1.0}  # position of a dashed line
ARMS = {  # titles of the arms of the augmentation
    "real": "Real alone",
    "classical": "Real, classical augmentation",
    "synthetic_1x": "Real + 1 × synthetic",
    "synthetic_5x": "Real + 5 × synthetic",
    "both_1x": "Classical + 1 × synthetic",
    "both_5x": "Classical + 5 × synthetic",
}
MARKS = {arm: density_mark(number) for number, arm in enumerate(ARMS)}
CLASSIFIERS = {"joint": "all modalities together", "mean": "mean of the modalities"}
GAINS = {"over_real": "Gain over real", "over_classical": "Gain over classical"}
IMPUTATION = of_family("imputation")
TASKS = {
    "modalities": "Imputation of one hidden modality per held-out row",
    "cells": "Imputation of hidden cells of tables and vectors in held-out rows",
}
POINT_IMPUTER = IMPUTERS["mean"]  # imputes one value and draws none
OUTLIER = (POINT_IMPUTER, "energy_score")  # left out of the limits of the axis
IMPUTER_MARKS = {title: Mark(MUTED, shape) for title, shape in zip(IMPUTERS.values(), "hd>P8", strict=True)}


def useful(results: Results, look: Looks) -> Iterator[Figure]:
    """Yield the figures: training on synthetic rows instead of real ones or in addition to them, and imputation."""
    yield from utility(results, look)
    yield from augmentation(results.augmentation)
    yield from imputation(results, look)


def utility(results: Results, look: Looks) -> Iterator[Figure]:
    """Plot the accuracy of classifiers trained on synthetic rows, and of classifiers of real rows on synthetic ones."""
    rows = [row for row in results.rows if "utility" in row.scores]
    values = {keys: {row.title: e for row in rows if (e := _utility_score(row, *keys))} for keys in PANELS}
    panels = [
        drawing.DotPanel(
            keys,
            PANELS[keys],
            estimates,
            PANELS[keys],
            limits=_around(estimates.values(), REFERENCE_LINES.get(keys[0])),
            reference_line=REFERENCE_LINES.get(keys[0]),
        )
        for keys, estimates in values.items()
        if estimates
    ]
    if panels:
        yield drawing.dotted(
            "utility",
            "Classifiers trained on synthetic rows, tested on real ones",
            ("score", "part", "row"),
            panels,
            drawing.marked(rows, look),
            columns=max(len(panels), 2),
            names={"score": SCORES},
            about=(
                "Real, held out: training on the same number of real rows. Ratios to real are paired by test row; 1 "
                "(dashed) means as good as real rows. Joint: one classifier of all modalities. Mean: mean over the "
                "classifiers of single modalities. Reverse: trained on real rows, tested on synthetic ones. "
                f"{drawing.INTERVALS}"
            ),
        )


def augmentation(curve: Mapping[str, Any]) -> Iterator[Figure]:
    """Plot the accuracy of classifiers trained on n real rows, with and without added rows, by n."""
    sizes = sorted(curve, key=int)
    arms = {arm: mark for arm, mark in MARKS.items() if any(arm in curve[size] for size in sizes)}
    if not arms:
        return
    cells = {
        (size, arm, kind, score): estimate
        for size in sizes
        for arm in arms
        for kind in CLASSIFIERS
        for score in ("accuracy", *GAINS)
        if (estimate := Row("", "", curve[size].get(arm, {})).estimate(score, kind))
    }

    def by_arm(size: str, kind: str, score: str = "accuracy") -> dict[str, Estimate]:
        return {ARMS[arm]: cells.get((size, arm, kind, score), MISSING) for arm in arms}

    marks = {ARMS[arm]: mark for arm, mark in arms.items()}
    accuracy = {kind: {size: by_arm(size, kind) for size in sizes} for kind in CLASSIFIERS}
    if len(sizes) > 1:
        panels = drawing.with_legend([_curve(kind, accuracy[kind], marks) for kind in CLASSIFIERS], marks)
    else:
        accuracies = {f"Accuracy, {kind}": by_arm(sizes[0], kind) for kind in CLASSIFIERS}
        dots = [drawing.DotPanel((), title, e, limits=_around(e.values())) for title, e in accuracies.items()]
        gains = {f"{title}, joint": by_arm(sizes[0], "joint", score) for score, title in GAINS.items()}
        dots += [drawing.DotPanel((), title, e, reference_line=0.0) for title, e in gains.items()]
        panels = [
            drawing.dots(panel, marks) for panel in dots if any(e is not MISSING for e in panel.estimates.values())
        ]
    yield Figure(
        "augmentation",
        "Accuracy on held-out real rows when synthetic rows are added to n real training rows"
        + (f", n = {sizes[0]}" if len(sizes) == 1 else ""),
        "; ".join(
            f"with {size} real rows, {CLASSIFIERS[kind]}: {drawing.values_as_text(estimates)}"
            for kind, by_size in accuracy.items()
            for size, estimates in by_size.items()
        ),
        *drawing.tabled(("size", "arm", "part", "score"), cells),
        panels,
        height=3.2 if len(sizes) > 1 else drawing.height_of(len(arms)),
        columns=max(len(panels), 2),
        aligned=len(sizes) == 1,
        across=("score", "part"),
        headings={"size": "real rows, n"},
        names={"score": {"accuracy": "Accuracy", **GAINS}, "arm": ARMS},
        about=(
            "Autoencoder, density and classifiers were trained on these n rows only. All classifiers are tested on "
            "the same rows, and gains are paired by test row and seed. Higher is better. "
            f"{drawing.INTERVALS}"
        ),
    )


def _curve(kind: str, accuracy: Mapping[str, Mapping[str, Estimate]], marks: Looks) -> Panel:
    """Draw the accuracy of each arm against the number of real rows."""
    places = [int(size) for size in accuracy]
    values = {title: [by_arm[title] for by_arm in accuracy.values()] for title in marks}
    return drawing.lines(f"Accuracy, {CLASSIFIERS[kind]}", places, values, marks, "real training rows, n")


def imputation(results: Results, look: Looks) -> Iterator[Figure]:
    """Plot the scores of densities and baseline imputers on hidden values, one figure per task."""
    looks = {**look, **IMPUTER_MARKS}
    for task, title in TASKS.items():
        rows = [row for row in results.rows if row.estimate("imputation", task, "energy_score")]
        if not rows:
            continue
        imputers = [row for row in results.imputers if task in row.scores["imputation"]]
        rows += sorted(imputers, key=lambda row: row.value("imputation", task, "energy_score"))
        values = {key: {row.title: e for row in rows if (e := _imputed(row, task, key))} for key in IMPUTATION}
        panels = [
            drawing.DotPanel(
                (key,),
                metric.heading,
                values[key],
                metric.title,
                limits=_around(
                    [e for title, e in values[key].items() if (title, key) != OUTLIER], metric.expected, metric.share
                ),
                reference_line=metric.expected,
            )
            for key, metric in IMPUTATION.items()
            if any(e is not MISSING for e in values[key].values())
        ]
        yield drawing.dotted(
            f"imputed_{task}",
            title,
            ("score", "row"),
            panels,
            drawing.marked(rows, looks),
            columns=len(panels),
            names={"score": {key: metric.title for key, metric in IMPUTATION.items()}},
            about=(
                "Energy scores compare draws with the hidden values, and errors compare the mean of the draws with "
                "them, in features whose variances sum to 1 per modality. Coverage: share of the hidden "
                "continuous values inside the 90 % intervals (dashed: 0.9). "
                "The training mean draws no values: it has no such intervals, its energy score is too large for the "
                f"axis, and only its error is a fair comparison. {drawing.INTERVALS}"
            ),
        )


def _imputed(row: Row, task: str, score: str) -> Estimate | None:
    """Return a score of an imputer, `MISSING` if the results give a reason; a point imputer has no coverage."""
    keys = ("imputation", task, score)
    if (row.name, score) == (POINT_IMPUTER, "coverage"):
        return None
    return row.estimate(*keys) or (MISSING if row.why(*keys) else None)


def _utility_score(row: Row, score: str, kind: str) -> Estimate | None:
    """Return a utility score of a row; real data has the accuracy after training on real rows."""
    key = "train_real_test_real" if row.kind == "data" and score == "train_synthetic_test_real" else score
    return row.estimate("utility", key, kind)


def _around(
    estimates: Iterable[Estimate], reference_line: float | None = None, share: bool = True
) -> tuple[float, float] | None:
    """Return limits of an axis slightly beyond the intervals and the reference line; without one, a share ends at 1."""
    ends = [end for e in estimates for end in drawing.fields(e) if end is not None]
    if not ends:
        return None
    if reference_line is None:
        return min(ends) - 0.03, min(max(ends) + 0.03, 1.005 if share else inf)
    return min(*ends, reference_line) - 0.03, max(*ends, reference_line) + 0.03
