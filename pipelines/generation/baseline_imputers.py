"""Baseline imputers on the tasks of the imputation benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.imputation import HiddenValues, ImputationBenchmark
from postprior.pipelines.metrics.imputation.scores import RowScores
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.statistics.missing import Missing

if TYPE_CHECKING:
    from postprior.pipelines.metrics.imputation.imputers import Imputer, Neighbours

CHOOSING = 200  # largest number of validation rows that choose the number of neighbours
FEATURES = 1 << 26
"""Largest number of features, rows times features, that imputers learn from: about 2 GB of memory."""
WIDE = 64  # largest number of values of a vector that chained equations take one by one
T = TypeVar("T")
Trial = Callable[[], dict[str, RowScores] | Missing]
"""Returns the scores of an imputer by task, or `Missing` if the imputer fails."""


def baseline_imputers(benchmark: ImputationBenchmark, seed: int) -> tuple[dict[str, int], dict[str, Trial]]:
    """Return the number of `neighbours`, if one could be chosen, and a trial of each baseline imputer by name.

    Labels, where rows have one, are features that no task hides. If there are too many training rows, imputers learn
    from a random subset, and its number of `training_rows` is returned as well.
    """
    from postprior.pipelines.metrics.imputation.chained import Forests, MeanMatching
    from postprior.pipelines.metrics.imputation.imputers import Iterative, Mean

    rng, modalities = np.random.default_rng(seed), benchmark.train.modalities
    train = learned_rows(benchmark, seed)
    learned = features_of(next(iter(benchmark.tasks.values())), train, benchmark.train)
    units = [scale.source.numpy() for scale in benchmark.scales]
    units.append(np.zeros(learned.shape[1] - sum(map(len, units)), int))  # the classes of the label
    widths = [len(unit) for unit in units]
    pictures = [number for number, m in enumerate(modalities) if not m.tabular]
    wide = [number for number, m in enumerate(modalities) if m.kind == "vector" and m.shape[0] > WIDE]
    best = missing_on_failure(partial(best_neighbours, benchmark, learned, widths, rng))
    imputers: dict[str, Imputer | Missing] = {
        "mean": Mean(widths),
        "neighbours": best,
        "iterative": Iterative(widths, pictures),
        "mice": MeanMatching(units, pictures + wide),
        "forest": Forests(units, pictures + wide),
    }
    if len(pictures) == len(modalities):
        imputers |= dict.fromkeys(("mice", "forest"), Missing("no modality is a table or a vector"))

    def trial(imputer: Imputer | Missing) -> dict[str, RowScores] | Missing:
        if isinstance(imputer, Missing):
            return imputer
        return missing_on_failure(partial(scores_by_task, benchmark, imputer, learned, rng))

    trials: dict[str, Trial] = {name: partial(trial, imputer) for name, imputer in imputers.items()}
    numbers = {} if train is benchmark.train else {"training_rows": len(train)}
    return numbers | ({} if isinstance(best, Missing) else {"neighbours": best.neighbours}), trials


def learned_rows(benchmark: ImputationBenchmark, seed: int) -> Dataset:
    """Return the training rows, or as many of them at random as have `FEATURES` features."""
    train, most = benchmark.train, max(1, FEATURES // sum(len(scale.source) for scale in benchmark.scales))
    if len(train) <= most:
        return train
    return train.select(np.sort(np.random.default_rng([seed, 1]).permutation(len(train))[:most]))


def features_of(task: HiddenValues, data: Dataset, train: Dataset) -> Floats:
    """Return the features (N, F) of all modalities, then those of labels; NaN where a value or a label is missing."""
    return np.concatenate([*task.features(data, missing_as_nan=True), one_hot_labels(data, train)], 1)


def one_hot_labels(data: Dataset, train: Dataset) -> Floats:
    """Return the labels as features (N, L) whose variances sum to 1 in the training rows; NaN without a label.

    L is 0 if training rows have no labels or all the same.
    """
    known = np.zeros(0, int) if train.labels is None else train.labels[train.labels >= 0]
    names, counts = np.unique(known, return_counts=True)
    if len(names) < 2:
        return np.zeros((len(data), 0))
    if data.labels is None:
        return np.full((len(data), len(names)), np.nan)
    shares = counts / counts.sum()
    features = ((data.labels[:, None] == names) - shares) / np.sqrt((shares * (1 - shares)).sum())
    return np.where(np.isin(data.labels, names)[:, None], features, np.nan)


def best_neighbours(
    benchmark: ImputationBenchmark, learned: Floats, widths: Sequence[int], rng: np.random.Generator
) -> Neighbours:
    """Return the imputer with the best number of neighbours; the smallest if no held-out value is hidden."""
    from postprior.pipelines.metrics.imputation.imputers import NEIGHBOURS, Neighbours

    train, settings = benchmark.train, benchmark.provenance
    numbers = [k for k in NEIGHBOURS if k <= len(learned)] or [len(learned)]
    held_out = benchmark.validation.select(np.arange(min(len(benchmark.validation), CHOOSING)))
    choice = HiddenValues.hide("modalities", held_out, benchmark.scales, settings["cells"], rng)
    imputer = Neighbours(widths, numbers[0]).fit(learned, rng)
    if len(choice.rows):
        rows = features_of(choice, choice.incomplete, train)
        fills = imputer.filled_by_number(rows, settings["draws"], rng, numbers)
        imputer.neighbours = numbers[int(np.argmin([_energy_score(choice.scores(fill)) for fill in fills]))]
    return imputer


def _energy_score(scores: RowScores) -> float:
    return np.inf if isinstance(scores, Missing) else float(np.nanmean(scores["energy_score"]))


def scores_by_task(
    benchmark: ImputationBenchmark, imputer: Imputer, learned: Floats, rng: np.random.Generator
) -> dict[str, RowScores]:
    """Fit an imputer, impute the rows of all tasks at once, and return their scores by task."""
    rows = [features_of(task, task.incomplete, benchmark.train) for task in benchmark.tasks.values()]
    fill = imputer.fit(learned, rng).filled(np.concatenate(rows), benchmark.provenance["draws"], rng)
    starts = np.cumsum([0, *map(len, rows)])

    def scores(task: HiddenValues, start: int) -> RowScores:
        return task.scores(lambda block, subset: fill(block, start + subset))

    return {name: scores(task, start) for (name, task), start in zip(benchmark.tasks.items(), starts, strict=False)}


def missing_on_failure(function: Callable[[], T]) -> T | Missing:
    """Call a function of an imputer; return `Missing` with the first clause of the error if it fails on the data."""
    try:
        with np.errstate(all="ignore"):
            return function()
    except (ArithmeticError, ValueError) as error:
        clause = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        return Missing(f"it failed on this data: {clause}")
