"""Is it useful? What classifiers learn from synthetic data, alone and beside real rows, and what densities impute."""

from collections.abc import Iterator

from postprior.pipelines.report.results import IMPUTERS, Results
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import (
    MANY,
    Finding,
    against,
    count,
    listed,
    number_with,
    percent,
    percent_with,
    points,
)

RATIO = ("utility", "ratio_to_real", "joint")
EACH = ("utility", "ratio_to_real", "mean")
SYNTHETIC = ("utility", "train_synthetic_test_real", "joint")
REVERSE = ("utility", "train_real_test_synthetic", "joint")
REAL = ("utility", "train_real_test_real", "joint")
LOST = {"modalities": "lose one of their modalities", "cells": "lose cells of tables and vectors"}


def useful(results: Results) -> Iterator[Finding]:
    """Synthetic rows in place of real ones, and beside few of them; what rows lack, imputed."""
    if ratios := estimates(results.densities, *RATIO):
        yield from _in_place(results, ratios)
    else:
        taught = "Without labels no classifier can be taught"
        why = "The stage utility has not run" if results.labelled else taught
        yield Finding("Not measured", f"{why}, so nothing here says whether samples teach.")
    for size, arms in results.augmentation.items():
        yield from _beside(results, size, {arm: Row(arm, "", scores) for arm, scores in arms.items()})
    for task in LOST:
        yield from _imputed(results, task)


def _in_place(results: Results, ratios: dict[Row, Estimate]) -> Iterator[Finding]:
    """Training on synthetic data alone, and what a classifier of real rows reads in them."""
    order = sorted(ratios, key=lambda row: -ratios[row].value)
    best, others = order[0], order[1:]
    real = results.beside(best, "real").estimate(*REAL)
    if not (reached := best.estimate(*SYNTHETIC)):
        return
    text = f"Training on samples of {best.title} alone reaches {percent_with(reached)} on held-out real rows"
    if real:
        text += f", which is {percent_with(ratios[best])} of the {percent(real.value)} after training on real rows"
    text += "."
    if others:
        shown = others if len(others) <= MANY else [others[0], others[-1]]
        told = [f"{percent(ratios[row].value)} ({row.title})" for row in shown]
        reach = listed(told) if shown == others else f"from {told[1]} to {told[0]}"
        text += f" Of the accuracy after real rows, other samples reach {reach}."
    yield Finding("In place of real rows", text)
    if each := estimates(ratios, *EACH):
        most = max(each, key=lambda row: each[row].value)
        yield Finding(
            "One modality alone",
            f"Classifiers that see one modality reach {percent_with(each[most])} of their accuracy after real rows, on "
            f"average, after samples of {most.title}.",
        )
    if backwards := best.estimate(*REVERSE):
        yield Finding(
            "Read by a real classifier",
            f"A classifier trained on real rows is right on {percent_with(backwards)} of the samples of {best.title}.",
        )


def _beside(results: Results, size: str, arms: dict[str, Row]) -> Iterator[Finding]:
    """What the most synthetic rows add to few real ones, alone and beside classical augmentation."""
    copies = max((int(arm[10:-1]) for arm in arms if arm.startswith("synthetic_")), default=0)
    ours, alone = arms.get(f"synthetic_{copies}x"), arms.get("real")
    gain = ours.estimate("over_real", "joint") if ours else None
    if not ours or not alone or not gain:
        return
    cells = [cell for cell in results.augmented if str(cell["size"]) == size]
    makers = f"autoencoder ({cells[0]['model']}), density ({cells[0]['density']})" if cells else "autoencoder, density"
    text = (
        f"With {size} real rows, on which {makers} and classifiers are all trained, the joint classifier is right on "
        f"{percent(alone.value('accuracy', 'joint'))}. Adding {copies} × synthetic rows {_lifts(ours, gain)}."
    )
    over, classical = ours.estimate("over_classical", "joint"), arms.get("classical")
    if over and classical:
        reached = percent(classical.value("accuracy", "joint"))
        text += f" Classical augmentation in their place reaches {reached}: synthetic rows stand {against(over)} it"
        both = arms.get(f"both_{copies}x")
        if both and (further := both.estimate("over_classical", "joint")):
            reached = percent(both.value("accuracy", "joint"))
            text += f"; both together reach {reached}, {against(further)} it"
        text += "."
    seeds = len({cell["seed"] for cell in cells})
    yield Finding("Beside few real rows", text + (f" These are means over {count(seeds)} seeds." if seeds > 1 else ""))


def _lifts(arm: Row, gain: Estimate) -> str:
    """What the arm makes of the accuracy of real rows alone."""
    reached = percent(arm.value("accuracy", "joint"))
    if gain.above():
        return f"lifts that to {reached}, by {points(gain)}"
    if gain.below():
        return f"lowers that to {reached}, by {points(-gain)}"
    return f"makes that {reached}, which is no clear change: {points(gain)}"


def _imputed(results: Results, task: str) -> Iterator[Finding]:
    """Which density imputes best, beside the best other imputer, and whether its intervals hold what they should."""
    keys = ("imputation", task, "energy_score")
    scores = estimates(results.densities, *keys)
    if not scores:
        return
    best = min(scores, key=lambda row: scores[row].value)
    among = f" best of {count(len(scores))} densities," if len(scores) > 1 else ""
    text = (
        f"Where held-out rows {LOST[task]}, {best.title} imputes{among} with an energy score of "
        f"{number_with(scores[best], 3)}{_beside_others(best, task)}."
    )
    if held := best.estimate("imputation", task, "coverage"):
        text += f" Its {percent(0.9, 0)} intervals hold {percent_with(held)} of the continuous values that were lost."
    yield Finding("Where rows lack parts", text)
    for other in results.imputers:
        if (why := other.why(*keys)) and not other.estimate(*keys):
            told = f"{other.title} say nothing where held-out rows {LOST[task]}: {why}."
            yield Finding("Other imputers", told)


def _beside_others(row: Row, task: str) -> str:
    """The paired difference of a density's energy score to that of the imputer which it stands furthest behind."""
    found = {
        title.lower(): difference
        for key, title in IMPUTERS.items()
        if (difference := row.estimate("imputation", task, "against", key, "energy_score"))
    }
    if not found:
        return ""
    other = max(found, key=lambda title: found[title].value)
    paired = found[other]
    apart = "clearly worse than" if paired.above() else "not clearly apart from"
    stands = "clearly better than" if paired.below() else apart
    return f", which is {stands} that of {other}, the best other imputer (paired difference {number_with(paired, 3)})"
