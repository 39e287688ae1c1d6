"""Figures that answer whether synthetic data are useful."""

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any

from postprior.pipelines.metrics.registry import of_family
from postprior.pipelines.report.figures import Figure, Mark, Panel, density_mark
from postprior.pipelines.report.plots import drawing
from postprior.pipelines.report.results import IMPUTERS, Results
from postprior.pipelines.report.rows import MISSING, Estimate, Row

Looks = Mapping[str, Mark]

TRAINED = {  # the title of a panel, by keys in a row's `utility`
    ("train_synthetic_test_real", "joint"): "Accuracy, joint",
    ("train_synthetic_test_real", "mean"): "Accuracy, mean",
    ("ratio_to_real", "joint"): "Ratio to real, joint",
    ("ratio_to_real", "mean"): "Ratio to real, mean",
    ("train_real_test_synthetic", "joint"): "Reverse, joint",
}
REFERENCE_LINES = {"ratio_to_real": 1.0}  # where a dashed line stands
ARMS = {  # names for readers
    "real": "Real alone",
    "classical": "Real, classical augmentation",
    "synthetic_1x": "Real + 1 × synthetic",
    "synthetic_5x": "Real + 5 × synthetic",
    "both_1x": "Classical + 1 × synthetic",
    "both_5x": "Classical + 5 × synthetic",
}
MARKS = {arm: density_mark(number) for number, arm in enumerate(ARMS)}
PARTS = {"joint": "all modalities together", "mean": "mean of the modalities"}
GAINS = {"over_real": "Joint gain over real", "over_classical": "Joint gain over classical"}
FILLED = of_family("imputation")
TASKS = {
    "modalities": "One modality of each held-out row, hidden and imputed",
    "cells": "Cells of tables and vectors in held-out rows, hidden and imputed",
}
NO_DRAWS = IMPUTERS["mean"]
BEYOND = (NO_DRAWS, "energy_score")  # far from all others, which limits keep apart
OTHERS = {title: Mark(None, shape) for title, shape in zip(IMPUTERS.values(), "hd>", strict=True)}


def useful(results: Results, look: Looks) -> Iterator[Figure]:
    """The figures: training on synthetic rows instead of real ones, and beside them; filling in what rows lack."""
    yield from utility(results, look)
    yield from augmentation(results.augmentation)
    yield from imputation(results, look)


def utility(results: Results, look: Looks) -> Iterator[Figure]:
    """Accuracy of classifiers that saw synthetic rows only, and of classifiers of real rows on synthetic ones."""
    rows = [row for row in results.rows if "utility" in row.scores]
    found = {keys: {row.title: e for row in rows if (e := _trained(row, *keys))} for keys in TRAINED}
    parts = [
        drawing.Part(
            keys,
            TRAINED[keys],
            estimates,
            f"{keys[0].replace('_', ' ')}, {PARTS[keys[1]]}",
            limits=_around(estimates.values(), REFERENCE_LINES.get(keys[0])),
            reference_line=REFERENCE_LINES.get(keys[0]),
        )
        for keys, estimates in found.items()
        if estimates
    ]
    if parts:
        yield drawing.dotted(
            "utility",
            "Classifiers trained on synthetic rows, tested on real ones",
            ("score", "part", "row"),
            parts,
            drawing.marked(rows, look),
            columns=max(len(parts), 2),
            about=(
                "Real, held out: what training on as many real rows reaches; ratios to it are paired by test row. "
                "Reverse: trained on real rows, tested on synthetic ones."
            ),
        )


def augmentation(curve: Mapping[str, Any]) -> Iterator[Figure]:
    """Accuracy of classifiers of n real rows, alone and with others added, by n."""
    sizes = sorted(curve, key=int)
    arms = {arm: mark for arm, mark in MARKS.items() if any(arm in curve[size] for size in sizes)}
    if not arms:
        return
    every = {
        (size, arm, part, score): estimate
        for size in sizes
        for arm in arms
        for part in PARTS
        for score in ("accuracy", *GAINS)
        if (estimate := Row("", "", curve[size].get(arm, {})).estimate(score, part))
    }

    def by_arm(size: str, part: str, score: str = "accuracy") -> dict[str, Estimate]:
        return {ARMS[arm]: every.get((size, arm, part, score), MISSING) for arm in arms}

    marks = {ARMS[arm]: mark for arm, mark in arms.items()}
    accuracy = {part: {size: by_arm(size, part) for size in sizes} for part in PARTS}
    if len(sizes) > 1:
        panels = drawing.with_legend([_curve(part, accuracy[part], marks) for part in PARTS], marks)
    else:
        found = {f"Accuracy, {part}": by_arm(sizes[0], part) for part in PARTS}
        parts = [drawing.Part((), title, e, limits=_around(e.values())) for title, e in found.items()]
        gains = {title: by_arm(sizes[0], "joint", score) for score, title in GAINS.items()}
        parts += [drawing.Part((), title, e, reference_line=0.0) for title, e in gains.items()]
        panels = [drawing.dots(part, marks) for part in parts if any(e is not MISSING for e in part.estimates.values())]
    yield Figure(
        "augmentation",
        "Accuracy on real rows when synthetic rows are added to n real ones"
        + (f", n = {sizes[0]}" if len(sizes) == 1 else ""),
        "; ".join(
            f"with {size} real rows, {PARTS[part]}: {drawing.said(found)}"
            for part, of_size in accuracy.items()
            for size, found in of_size.items()
        ),
        *drawing.tabled(("size", "arm", "part", "score"), every),
        panels,
        height=3.2 if len(sizes) > 1 else drawing.height_of(len(arms)),
        columns=max(len(panels), 2),
        aligned=len(sizes) == 1,
        across=("score", "part"),
        about=(
            "Autoencoder, density and classifiers were trained on these n rows alone; the test rows are the same for "
            "all, and gains are paired by test row and seed."
        ),
    )


def _curve(part: str, found: Mapping[str, Mapping[str, Estimate]], marks: Looks) -> Panel:
    """Accuracies of every arm against the number of real rows."""
    places = [int(size) for size in found]
    values = {title: [of_size[title] for of_size in found.values()] for title in marks}
    label = "real rows that everything was trained on, n"
    return drawing.lines(f"Accuracy, {PARTS[part]}", places, values, marks, label)


def imputation(results: Results, look: Looks) -> Iterator[Figure]:
    """What densities and other imputers make of what was hidden, a figure a task."""
    looks = {**look, **OTHERS}
    for task, title in TASKS.items():
        rows = [row for row in results.rows if row.estimate("imputation", task, "energy_score")]
        if not rows:
            continue
        rows += [row for row in results.imputers if task in row.scores["imputation"]]
        found = {key: {row.title: e for row in rows if (e := _filled(row, task, key))} for key in FILLED}
        parts = [
            drawing.Part(
                (key,),
                metric.heading,
                found[key],
                key.replace("_", " "),
                limits=_around(
                    [e for title, e in found[key].items() if (title, key) != BEYOND], metric.expected, metric.share
                ),
                reference_line=metric.expected,
            )
            for key, metric in FILLED.items()
            if any(e is not MISSING for e in found[key].values())
        ]
        yield drawing.dotted(
            f"imputed_{task}",
            title,
            ("score", "row"),
            parts,
            drawing.marked(rows, looks),
            columns=len(parts),
            about=(
                "Energy scores weigh draws against what stood there, errors their mean, in features whose variances "
                "sum to 1 a modality. The training mean draws nothing: it has no intervals, and an energy score far "
                "off, whose number stands without a mark."
            ),
        )


def _filled(row: Row, task: str, score: str) -> Estimate | None:
    """A score of an imputer, a missing one where it says why; what draws nothing has no intervals to hold anything."""
    keys = ("imputation", task, score)
    if (row.name, score) == (NO_DRAWS, "coverage"):
        return None
    return row.estimate(*keys) or (MISSING if row.why(*keys) else None)


def _trained(row: Row, score: str, part: str) -> Estimate | None:
    """A score of a row; what real rows train is set beside what synthetic rows train."""
    own = "train_real_test_real" if row.kind == "data" and score == "train_synthetic_test_real" else score
    return row.estimate("utility", own, part)


def _around(
    estimates: Iterable[Estimate], reference_line: float | None = None, share: bool = True
) -> tuple[float, float] | None:
    """Limits a little beyond intervals and what they are set against; of shares without such, 1 at most."""
    ends = [end for e in estimates for end in drawing.written(e) if end is not None]
    if not ends:
        return None
    if reference_line is None:
        return min(ends) - 0.03, min(max(ends) + 0.03, 1.005 if share else inf)
    return min(*ends, reference_line) - 0.03, max(*ends, reference_line) + 0.03
