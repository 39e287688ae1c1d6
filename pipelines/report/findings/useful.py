"""Is it useful? Train classifiers on synthetic rows, add synthetic rows to real ones, and impute missing values."""

from collections.abc import Iterator

from postprior.pipelines.report.results import IMPUTERS, Results
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import (
    MAX_LISTED,
    Finding,
    compared,
    in_words,
    listed,
    number,
    number_ci,
    percent,
    percent_ci,
    points_ci,
)

RATIO = ("utility", "ratio_to_real", "joint")
MEAN_RATIO = ("utility", "ratio_to_real", "mean")
SYNTHETIC = ("utility", "train_synthetic_test_real", "joint")
REVERSE = ("utility", "train_real_test_synthetic", "joint")
REAL = ("utility", "train_real_test_real", "joint")
HIDDEN = {  # what each imputation task hides
    "modalities": "one modality of each held-out row is hidden",
    "cells": "cells of tables and vectors in held-out rows are hidden",
}


def useful(results: Results, best: Row) -> Iterator[Finding]:
    """State the accuracy after training on samples, the gain from adding them to few real rows, and imputation."""
    labelled = "accuracy" in results.evaluators
    if ratios := estimates(results.densities, *RATIO):
        yield from _trained_on_samples(results, ratios, best)
    else:
        why = "Without labels, no classifier can be trained"
        if labelled:
            tested = any("utility" in row.scores for row in results.densities)
            why = "The setting utility.seeds is empty" if tested else "The stage utility has not run"
            reasons = [reason for row in results.densities if (reason := row.why(*RATIO))]
            why = reasons[0][0].upper() + reasons[0][1:] if reasons else why
        yield Finding("Not measured", f"{why}, so the usefulness of samples as training data is unknown.")
    if labelled and not results.augmentation_sizes:
        yield Finding(
            "Data augmentation",
            "The setting augment.sizes is empty, so the gain from adding synthetic rows to few real rows is unknown.",
        )
    for size, arms in results.augmentation.items():
        yield from _augmentation(results, size, {arm: Row(arm, "", scores) for arm, scores in arms.items()})
    for task in HIDDEN:
        yield from _imputation(results, task)


def _trained_on_samples(results: Results, ratios: dict[Row, Estimate], best: Row) -> Iterator[Finding]:
    """Accuracy on real rows after training on samples alone, and on samples after training on real rows."""
    order = sorted(ratios, key=lambda row: -ratios[row].value)
    best = best if best in ratios else order[0]
    others = [row for row in order if row is not best]
    real = results.baseline_of(best, "real").estimate(*REAL)
    if not (accuracy := best.estimate(*SYNTHETIC)):
        return
    text = (
        f"A classifier that is trained on samples of {best.title} alone reaches an accuracy of "
        f"{percent_ci(accuracy)} on held-out real rows."
    )
    if real:
        text += f" This is {percent_ci(ratios[best])} of the accuracy with real training rows, {percent(real.value)}."
    if others:
        values = [f"{percent(ratios[row].value)} ({row.title})" for row in others]
        reached = listed(values) if len(others) <= MAX_LISTED else f"between {values[-1]} and {values[0]}"
        text += f" Samples of other densities reach {reached} of the accuracy with real rows."
    yield Finding("Synthetic training data", text)
    if means := estimates(ratios, *MEAN_RATIO):
        highest = max(means, key=lambda row: means[row].value)
        yield Finding(
            "Single modalities",
            f"Classifiers of single modalities that are trained on samples of {highest.title} reach, on average over "
            f"the modalities, {percent_ci(means[highest])} of the accuracy with real rows.",
        )
    if reverse := best.estimate(*REVERSE):
        yield Finding(
            "Reverse test",
            f"A classifier that is trained on real rows classifies {percent_ci(reverse)} of the samples of "
            f"{best.title} correctly.",
        )


def _augmentation(results: Results, size: str, arms: dict[str, Row]) -> Iterator[Finding]:
    """What the largest number of synthetic rows adds to few real ones, alone and with classical augmentation."""
    copies = max((int(arm[10:-1]) for arm in arms if arm.startswith("synthetic_")), default=0)
    synthetic, real = arms.get(f"synthetic_{copies}x"), arms.get("real")
    gain = synthetic.estimate("over_real", "joint") if synthetic else None
    if not synthetic or not real or not gain:
        return
    stage = results.augmented[size]
    text = f"Adding {copies} times as many synthetic rows to {size} real rows {_change(synthetic, real, gain)}."
    over, classical = synthetic.estimate("over_classical", "joint"), arms.get("classical")
    if over and classical:
        text += (
            f" Classical augmentation reaches {_accuracy(classical)}; "
            f"the accuracy with synthetic rows is {compared(over, 'this')}."
        )
        both = arms.get(f"both_{copies}x")
        if both and (further := both.estimate("over_classical", "joint")):
            text += f" Both together reach {_accuracy(both)}, which is {compared(further, 'classical augmentation')}."
    text += (
        f" The autoencoder ({stage['model']}), the density ({stage['density']}) and the classifiers are all trained on "
        f"the same {size} real rows."
    )
    if (seeds := len(stage["seeds"])) > 1:
        text += f" All values are means over {in_words(seeds)} seeds."
    yield Finding("Data augmentation", text)


def _accuracy(arm: Row) -> str:
    return percent(arm.value("accuracy", "joint"))


def _change(arm: Row, real: Row, gain: Estimate) -> str:
    """How the accuracy changes from that with real rows alone."""
    change = f"the accuracy of the joint classifier from {_accuracy(real)} to {_accuracy(arm)}"
    if gain.above():
        return f"raises {change}, a gain of {points_ci(gain)}"
    if gain.below():
        return f"lowers {change}, a loss of {points_ci(-gain)}"
    return f"changes {change}, which is no clear difference ({points_ci(gain, nested=True)})"


def _imputation(results: Results, task: str) -> Iterator[Finding]:
    """Which density imputes best, compared with the best baseline imputer, and the coverage of its intervals."""
    keys = ("imputation", task, "energy_score")
    scores = estimates(results.densities, *keys)
    if not scores:
        return
    best = min(scores, key=lambda row: scores[row].value)
    score = f"an energy score of {number_ci(scores[best], 3)}"
    if len(scores) > 1:
        text = f"When {HIDDEN[task]}, {best.title} is the best of {in_words(len(scores))} densities, with {score}."
    else:
        text = f"When {HIDDEN[task]}, {best.title} imputes with {score}."
    text += _against_best_baseline(_against(best, task, "energy_score"))
    if coverage := best.estimate("imputation", task, "coverage"):
        text += (
            f" The {percent(0.9, 0)} intervals of {best.title} contain {percent_ci(coverage)} of the hidden continuous "
            "values."
        )
    yield Finding("Imputation", text)
    if ratios := _against(best, task, "rmse_ratio"):
        order = sorted(ratios, key=lambda title: -ratios[title].value)
        errors = listed([f"{number_ci(ratios[title], 3)} times that of {title}" for title in order])
        text = f"When {HIDDEN[task]}, the error of the mean of the draws of {best.title} is {errors}."
        if len(order) > 1:
            span = " to ".join(number(ratios[title].value, 2) for title in (order[-1], order[0]))
            text = (
                f"When {HIDDEN[task]}, the error of the mean of the draws of {best.title} is {span} times that of the "
                f"baseline imputers. It is {errors}."
            )
        yield Finding("Error of imputation", text)
    without: dict[str, list[str]] = {}  # imputers by the reason why they have no result
    for imputer in results.imputers:
        if (why := imputer.why(*keys)) and not imputer.estimate(*keys):
            without.setdefault(why, []).append(imputer.title.lower())
    for why, titles in without.items():
        text = f"{listed(titles)}: no result when {HIDDEN[task]}, because {why}."
        yield Finding("Baseline imputers", text[0].upper() + text[1:])


def _against(row: Row, task: str, score: str) -> dict[str, Estimate]:
    """Return a comparison of a density with each baseline imputer, by its title within a sentence."""
    return {
        title.lower(): found
        for key, title in IMPUTERS.items()
        if (found := row.estimate("imputation", task, "against", key, score))
    }


def _against_best_baseline(differences: dict[str, Estimate]) -> str:
    """The paired difference between a density's energy score and that of the best baseline imputer."""
    if not differences:
        return ""
    imputer = max(differences, key=lambda title: differences[title].value)
    difference = differences[imputer]
    verdict = "clearly worse than" if difference.above() else "not clearly different from"
    verdict = "clearly better than" if difference.below() else verdict
    return (
        f" This is {verdict} the energy score of the best baseline imputer, {imputer} (paired difference "
        f"{number_ci(difference, 3, nested=True)})."
    )
