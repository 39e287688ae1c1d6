"""Baseline imputers on the tasks of the imputation benchmark."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.imputation import CELLS, HiddenValues, ImputationBenchmark
from postprior.pipelines.metrics.imputation.scores import RowScores
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.pipelines.metrics.statistics.missing import Missing

CHOOSING = 200  # largest number of validation rows that choose the number of neighbours
WIDE = 64  # largest number of values of a vector that chained equations take one by one
T = TypeVar("T")
Trial = Callable[[], dict[str, RowScores] | Missing]
"""Returns the scores of an imputer by task, or `Missing` if the imputer fails."""


def baseline_imputers(benchmark: ImputationBenchmark, seed: int) -> tuple[dict[str, int], dict[str, Trial]]:
    """Return the number of `neighbours`, if one could be chosen, and a trial of each baseline imputer by name.

    Labels, where rows have one, are features that no task hides.
    """
    from postprior.pipelines.metrics.imputation.chained import Forests, MeanMatching
    from postprior.pipelines.metrics.imputation.imputers import NEIGHBOURS, Imputer, Iterative, Mean, Neighbours

    rng, train, scales = np.random.default_rng(seed), benchmark.train, benchmark.scales
    R, names = benchmark.provenance["draws"], list(benchmark.tasks)
    held_out = benchmark.validation.select(np.arange(min(len(benchmark.validation), CHOOSING)))
    choice = HiddenValues.hide("modalities", held_out, scales, benchmark.provenance["cells"], rng)

    def features(task: HiddenValues, data: Dataset) -> Floats:
        parts = task.features(data, missing_as_nan=True)
        return np.concatenate([*parts, one_hot_labels(data, train)], 1)

    learned = features(choice, train)
    units = [scale.source.numpy() for scale in scales]
    units.append(np.zeros(learned.shape[1] - sum(map(len, units)), int))
    widths = [len(unit) for unit in units]

    def best_neighbours() -> Neighbours:
        """Return the imputer with the best number of neighbours; the smallest if no held-out value is hidden."""
        numbers = [k for k in NEIGHBOURS if k <= len(train)] or [len(train)]
        imputer = Neighbours(widths, numbers[0]).fit(learned, rng)
        if len(choice.rows):
            fills = imputer.filled_by_number(features(choice, choice.incomplete), R, rng, numbers)
            imputer.neighbours = numbers[int(np.argmin([loss(choice.scores(fill)) for fill in fills]))]
        return imputer

    def loss(scores: RowScores) -> float:
        return np.inf if isinstance(scores, Missing) else float(np.nanmean(scores["energy_score"]))

    def solve_tasks(imputer: Imputer) -> dict[str, RowScores]:
        tasks = list(benchmark.tasks.values())
        rows = [features(task, task.incomplete) for task in tasks]
        fill = imputer.fit(learned, rng).filled(np.concatenate(rows), R, rng)
        starts = np.cumsum([0, *map(len, rows)])

        def scores(task: HiddenValues, start: int) -> RowScores:
            return task.scores(lambda block, subset: fill(block, start + subset))

        return {name: scores(task, start) for name, task, start in zip(names, tasks, starts, strict=False)}

    def trial(imputer: Imputer | Missing) -> dict[str, RowScores] | Missing:
        return imputer if isinstance(imputer, Missing) else missing_on_failure(partial(solve_tasks, imputer))

    best = missing_on_failure(best_neighbours)
    pictures = [number for number, m in enumerate(train.modalities) if m.kind not in CELLS]
    wide = [number for number, m in enumerate(train.modalities) if m.kind == "vector" and m.shape[0] > WIDE]
    imputers: dict[str, Imputer | Missing] = {
        "mean": Mean(widths),
        "neighbours": best,
        "iterative": Iterative(widths, pictures),
        "mice": MeanMatching(units, pictures + wide),
        "forest": Forests(units, pictures + wide),
    }
    if len(pictures) == len(train.modalities):
        imputers |= dict.fromkeys(("mice", "forest"), Missing("no modality is a table or a vector"))
    trials: dict[str, Trial] = {name: partial(trial, imputer) for name, imputer in imputers.items()}
    return {} if isinstance(best, Missing) else {"neighbours": best.neighbours}, trials


def one_hot_labels(data: Dataset, train: Dataset) -> Floats:
    """Return the labels as features (N, L) whose variances sum to 1 in the training rows; NaN without a label.

    L is 0 if training rows have no labels or all the same.
    """
    known = train.labels[train.labels >= 0] if train.labels is not None else np.zeros(0, int)
    names, counts = np.unique(known, return_counts=True)
    if len(names) < 2 or data.labels is None:
        return np.zeros((len(data), len(names) if len(names) > 1 else 0)) * np.nan
    shares = counts / counts.sum()
    features = ((data.labels[:, None] == names) - shares) / np.sqrt((shares * (1 - shares)).sum())
    return np.where(np.isin(data.labels, names)[:, None], features, np.nan)


def missing_on_failure(function: Callable[[], T]) -> T | Missing:
    """Call a function of an imputer; return `Missing` with the first clause of the error if it fails on the data."""
    try:
        with np.errstate(all="ignore"):
            return function()
    except (ArithmeticError, ValueError) as error:
        clause = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        return Missing(f"it failed on this data: {clause}")
