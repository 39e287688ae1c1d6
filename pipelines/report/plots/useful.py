"""Figures that answer whether synthetic data are useful."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import inf
from typing import Any

from postprior.pipelines.report.figures import Figure, Mark, Panel, density_mark
from postprior.pipelines.report.plots.drawing import (
    MISSING,
    dots,
    height_of,
    lines,
    said,
    with_legend,
    written,
)
from postprior.pipelines.report.results import IMPUTERS, Results
from postprior.pipelines.report.rows import INTERVAL, Estimate, Row

Looks = Mapping[str, Mark]

TRAINED = {  # the title of a panel, by keys in a row's `utility`
    ("train_synthetic_test_real", "joint"): "Accuracy, joint",
    ("train_synthetic_test_real", "mean"): "Accuracy, mean",
    ("ratio_to_real", "joint"): "Ratio to real, joint",
    ("ratio_to_real", "mean"): "Ratio to real, mean",
    ("train_real_test_synthetic", "joint"): "Reverse, joint",
}
OF_REAL = "train_real_test_real"
REFERENCE = {"ratio_to_real": 1.0}  # where a dashed line stands
ARMS = {  # names for readers
    "real": "Real alone",
    "classical": "Real, classical augmentation",
    "synthetic_1x": "Real + 1 × synthetic",
    "synthetic_5x": "Real + 5 × synthetic",
    "both_1x": "Classical + 1 × synthetic",
    "both_5x": "Classical + 5 × synthetic",
}
PARTS = {"joint": "all modalities together", "mean": "mean of the modalities"}
GAINS = {"over_real": "Joint gain over real", "over_classical": "Joint gain over classical"}
FILLED = {  # the title of a panel, by key in a task of a row's `recovery`
    "energy_score": "Energy score ↓",
    "rmse": "Error ↓",
    "coverage": "In 90 % intervals",
    "label_agreement": "Right label ↑",
}
HELD = {"coverage": 0.9}  # where a dashed line stands
UNBOUNDED = ("energy_score", "rmse")
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
    found = {keys: {row: e for row in rows if (e := _trained(row, *keys))} for keys in TRAINED}
    shown = {keys: estimates for keys, estimates in found.items() if estimates}
    if not shown:
        return
    yield Figure(
        "utility",
        "Classifiers trained on synthetic rows, tested on real ones",
        "; ".join(
            f"{keys[0].replace('_', ' ')}, {PARTS[keys[1]]}: "
            + said({row.title: e for row, e in estimates.items()})
            for keys, estimates in shown.items()
        ),
        ("score", "part", "row", *INTERVAL),
        [
            (*keys, row.title, *written(estimate))
            for keys, estimates in shown.items()
            for row, estimate in estimates.items()
        ],
        [
            dots(
                TRAINED[keys],
                {row.title: estimates.get(row, MISSING) for row in rows},
                [look[row.name] for row in rows],
                limits=_around(estimates.values(), REFERENCE.get(keys[0])),
                reference=REFERENCE.get(keys[0]),
            )
            for keys, estimates in shown.items()
        ],
        height=height_of(len(rows)),
        columns=max(len(shown), 2),
        aligned=True,
        across=("score", "part"),
        about=(
            "Real, held out: what training on as many real rows reaches; ratios to it are paired by test row. Reverse: "
            "trained on real rows, tested on synthetic ones."
        ),
    )


def augmentation(curve: Mapping[str, Any]) -> Iterator[Figure]:
    """Accuracy of classifiers of n real rows, alone and with others added, by n."""
    sizes = sorted(curve, key=int)
    arms = [arm for arm in ARMS if any(arm in curve[size] for size in sizes)]
    if not arms:
        return
    marks = {arm: density_mark(i) for i, arm in enumerate(ARMS)}
    accuracy = {
        part: {arm: [_of(curve, size, arm, "accuracy", part) for size in sizes] for arm in arms}
        for part in PARTS
    }
    panels: list[Panel]
    if len(sizes) > 1:
        curves = [
            lines(
                f"Accuracy, {words}",
                [int(size) for size in sizes],
                {ARMS[arm]: accuracy[part][arm] for arm in arms},
                [marks[arm] for arm in arms],
                "real rows that everything was trained on, n",
            )
            for part, words in PARTS.items()
        ]
        panels = with_legend(curves, {ARMS[arm]: marks[arm] for arm in arms})
    else:
        panels = [*_accuracies(accuracy, arms, marks), *_gains(curve, sizes[0], arms, marks)]
    yield Figure(
        "augmentation",
        "Accuracy on real rows when synthetic rows are added to n real ones"
        + (f", n = {sizes[0]}" if len(sizes) == 1 else ""),
        "; ".join(
            f"with {size} real rows, {PARTS[part]}: "
            + said({ARMS[arm]: accuracy[part][arm][i] for arm in arms})
            for part in PARTS
            for i, size in enumerate(sizes)
        ),
        ("size", "arm", "part", "score", *INTERVAL),
        [
            (size, arm, part, score, *written(_of(curve, size, arm, score, part)))
            for size in sizes
            for arm in arms
            for part in PARTS
            for score in ("accuracy", *GAINS)
            if _of(curve, size, arm, score, part) is not MISSING
        ],
        panels,
        height=3.2 if len(sizes) > 1 else height_of(len(arms)),
        columns=max(len(panels), 2),
        aligned=len(sizes) == 1,
        across=("score", "part"),
        about=(
            "Autoencoder, density and classifiers were trained on these n rows alone; the test rows are the same for "
            "all, and gains are paired by test row and seed."
        ),
    )


def imputation(results: Results, look: Looks) -> Iterator[Figure]:
    """What densities and other imputers make of what was hidden, a figure a task."""
    looks = {**look, **OTHERS}
    for task, title in TASKS.items():
        rows = [row for row in results.rows if row.estimate("recovery", task, "energy_score")]
        if not rows:
            continue
        rows += [row for row in results.imputers if task in row.scores["recovery"]]
        found = {key: {row: e for row in rows if (e := _filled(row, task, key))} for key in FILLED}
        shown = {
            key: estimates
            for key, estimates in found.items()
            if any(e is not MISSING for e in estimates.values())
        }
        yield Figure(
            f"imputed_{task}",
            title,
            "; ".join(
                f"{key.replace('_', ' ')}: {said({row.title: e for row, e in estimates.items()})}"
                for key, estimates in shown.items()
            ),
            ("score", "row", *INTERVAL),
            [
                (key, row.title, *written(estimate))
                for key, estimates in shown.items()
                for row, estimate in estimates.items()
            ],
            [
                dots(
                    FILLED[key],
                    {row.title: estimates.get(row, MISSING) for row in rows},
                    [looks[row.name] for row in rows],
                    limits=_around(
                        [e for row, e in estimates.items() if (row.name, key) != BEYOND],
                        HELD.get(key),
                        share=key not in UNBOUNDED,
                    ),
                    reference=HELD.get(key),
                )
                for key, estimates in shown.items()
            ],
            height=height_of(len(rows)),
            columns=len(shown),
            aligned=True,
            across=("score",),
            about=(
                "Energy scores weigh draws against what stood there, errors their mean, in features whose variances "
                "sum to 1 a modality. The training mean draws nothing: it has no intervals, and an energy score far "
                "off, whose number stands without a mark."
            ),
        )


def _filled(row: Row, task: str, score: str) -> Estimate | None:
    """A score of an imputer, a missing one where it says why; what draws nothing has no intervals to hold anything."""
    keys = ("recovery", task, score)
    if (row.name, score) == (NO_DRAWS, "coverage"):
        return None
    return row.estimate(*keys) or (MISSING if row.why(*keys) else None)


def _accuracies(
    accuracy: Mapping[str, Mapping[str, list[Estimate]]], arms: list[str], marks: Looks
) -> Iterator[Panel]:
    """The accuracies of every arm at the only size."""
    for part in PARTS:
        found = {ARMS[arm]: accuracy[part][arm][0] for arm in arms}
        if all(estimate is MISSING for estimate in found.values()):
            continue
        yield dots(f"Accuracy, {part}", found, [marks[arm] for arm in arms], limits=_around(found.values()))


def _gains(curve: Mapping[str, Any], size: str, arms: list[str], marks: Looks) -> Iterator[Panel]:
    """What arms gain over others at the only size, all modalities together."""
    for score, title in GAINS.items():
        found = {ARMS[arm]: _of(curve, size, arm, score, "joint") for arm in arms}
        if any(estimate is not MISSING for estimate in found.values()):
            yield dots(title, found, [marks[arm] for arm in arms], reference=0.0)


def _of(curve: Mapping[str, Any], size: str, arm: str, score: str, part: str) -> Estimate:
    """An estimate of the curve, or a missing one."""
    return Row("", "", curve[size].get(arm, {})).estimate(score, part) or MISSING


def _trained(row: Row, score: str, part: str) -> Estimate | None:
    """A score of a row; what real rows train is set beside what synthetic rows train."""
    own = OF_REAL if row.kind == "data" and score == "train_synthetic_test_real" else score
    return row.estimate("utility", own, part)


def _around(
    estimates: Iterable[Estimate], reference: float | None = None, share: bool = True
) -> tuple[float, float] | None:
    """Limits a little beyond intervals and what they are set against; of shares without such, 1 at most."""
    ends = [end for e in estimates for end in written(e) if end is not None]
    if not ends:
        return None
    if reference is None:
        return min(ends) - 0.03, min(max(ends) + 0.03, 1.005 if share else inf)
    return min(*ends, reference) - 0.03, max(*ends, reference) + 0.03
