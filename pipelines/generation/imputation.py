"""What rows are known to have is hidden, imputed, and set against what stood there.

Two tasks. `modalities`: each row loses one of the modalities that it has. `cells`: rows lose single cells of tables and
vectors. Scores are taken in the features that encoders read, scaled on training rows (`metrics.features.scale`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale
from postprior.pipelines.metrics.imputation.scores import (
    SCORES,
    RowScores,
    by_row,
    compared,
    continuous,
    covered,
    energy_score,
    estimated,
)
from postprior.pipelines.metrics.statistics.intervals import Floats, half_samples
from postprior.pipelines.metrics.statistics.missing import Missing, Written
from postprior.pipelines.settings.params import Params

if TYPE_CHECKING:
    from postprior.pipelines.generation.calibration import Spread
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
    from postprior.pipelines.metrics.imputation.imputers import FillBlock

MOST = 1000  # test rows that are scored, at most
CHOOSING = 200  # validation rows by which the number of neighbours is chosen, at most
CELLS = ("table", "vector")  # kinds of modalities of which single cells are hidden
T = TypeVar("T")
Trial = Callable[[], "dict[str, RowScores] | Missing"]  # gives the scores of an imputer by task; missing where it fails


@dataclass(frozen=True)
class Task:
    """Rows that have been made to lack something."""

    whole: Dataset  # the rows as they are
    hidden: Dataset  # the same rows, lacking more
    scales: tuple[Scale, ...]  # how features are made, a modality each
    lost: tuple[NDArray[np.bool_], ...]  # features (N, F_m) of each modality that were there and are hidden
    rows: NDArray[np.int64]  # those that lost anything, (n,)

    @classmethod
    def hide(cls, of: str, data: Dataset, scales: tuple[Scale, ...], share: float, rng: np.random.Generator) -> Self:
        """Hide one modality of each row that has two, or a share of the cells of tables and vectors."""
        mask, cells = data.observed.copy(), dict(data.cells)
        if of == "modalities":
            keys = np.where(mask, rng.random(mask.shape), -1)
            mask[np.arange(len(data)), keys.argmax(1)] &= mask.sum(1) < 2
        else:
            for m in data.modalities:
                if m.kind in CELLS and m.shape[0] > 1:
                    seen = np.array(cells.get(m.name, np.ones((len(data), *m.shape), bool)))
                    gone = rng.random(seen.shape) < share
                    gone[np.arange(len(data)), np.where(seen, rng.random(seen.shape), -1).argmax(1)] = False
                    cells[m.name] = seen & ~gone  # one cell at least stays
        hidden = replace(data, mask=mask, cells=cells, folder=None)
        vanished = [hidden.missing(m.name) & ~data.missing(m.name) for m in data.modalities]
        lost = tuple(of_features(scale, values) for scale, values in zip(scales, vanished, strict=True))
        return cls(data, hidden, scales, lost, np.flatnonzero(np.any([part.any(1) for part in lost], 0)))

    def features(self, data: Dataset, known: bool = False) -> list[Floats]:
        """Scaled features (N, F_m) of each modality; with `known`, NaN where a value is missing."""
        found = []
        for scale in self.scales:
            x = scale(data, np.arange(len(data))).numpy()
            if known:
                x[of_features(scale, data.missing(scale.modality.name))] = np.nan
            found.append(x)
        return found

    def scores(self, filled: FillBlock) -> RowScores:
        """Energy score, squared error and coverage of lost features, (N, M), NaN where a row lost none.

        Missing where what was filled in is not finite.
        """
        truth = self.features(self.whole)
        found = {key: np.full((len(self.whole), len(self.scales)), np.nan) for key in SCORES}
        for m, (scale, lost) in enumerate(zip(self.scales, self.lost, strict=True)):
            if not len(rows := np.flatnonzero(lost.any(1))):
                continue
            drawn, guess = filled(m, rows)
            if not (np.isfinite(drawn).all() and np.isfinite(guess).all()):
                return Missing(f"what it fills into {scale.modality.name} is not finite")
            y, gone = truth[m][rows], lost[rows]
            x = np.where(gone, drawn, y)  # what was not hidden is the truth in all of them
            found["energy_score"][rows, m] = energy_score(x, y)
            found["rmse"][rows, m] = np.square(np.where(gone, guess - y, 0), dtype=np.float64).sum(1)
            numbers = np.broadcast_to(continuous(scale.modality), (1, *scale.modality.shape))
            asked = gone & of_features(scale, numbers)
            with np.errstate(invalid="ignore"):
                found["coverage"][rows, m] = (covered(x, y) & asked).sum(1) / asked.sum(1)
        return found

    def told(self, found: RowScores, weights: Floats) -> dict[str, Any]:
        """Scores with their intervals: of all rows that lost something, and by modality."""
        if isinstance(found, Missing):
            return dict.fromkeys(SCORES, found.written) | {"rows": len(self.rows), "modalities": {}}
        result: dict[str, Any] = {key: estimated(by_row(values), weights, key) for key, values in found.items()}
        result["rows"] = len(self.rows)
        result["modalities"] = {
            scale.modality.name: {key: estimated(values[:, m], weights, key) for key, values in found.items()}
            for m, scale in enumerate(self.scales)
            if self.lost[m].any()
        }
        return result


def of_features(scale: Scale, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is true of the values (N, *shape) that features are read from: (N, F)."""
    return values.reshape(len(values), -1)[:, scale.source.numpy()]


@dataclass(frozen=True)
class Questions:
    """What every imputer is asked, and how its answers are scored: the same for all."""

    train: Dataset  # rows to learn from
    validation: Dataset  # rows to choose and to calibrate by
    scales: tuple[Scale, ...]  # how features are made, a modality each
    tasks: dict[str, Task]  # by name, those in which some row lost something
    weights: Floats  # (1 + B, N), half-samples of the test rows
    about: dict[str, Any]  # the data and settings that all this follows from

    @classmethod
    def of(cls, splits: dict[str, Dataset], params: Params) -> Self:
        """The questions of the three splits; what is hidden is of test rows."""
        settings, rng = params.imputation, np.random.default_rng(params.evaluate.seed)
        train, validation, test = splits.values()
        test = test.select(np.arange(min(len(test), MOST)))
        scales = tuple(Scale.fit(train, m) for m in train.modalities)
        tasks = {of: Task.hide(of, test, scales, settings.cells, rng) for of in ("modalities", "cells")}
        weights = half_samples(test.sources, params.evaluate.resamples, rng, test.labels)
        hashes = [split.hash for split in splits.values()]
        about = {"data": hashes, **settings.model_dump(), "seed": params.evaluate.seed}
        asked = {of: task for of, task in tasks.items() if len(task.rows)}
        return cls(train, validation, scales, asked, weights, about)

    def written(self, scores: dict[str, Any]) -> dict[str, Any]:
        """The content of a file of results."""
        written = {"draws": self.about["draws"], **scores}
        if "modalities" not in self.tasks:
            written["modalities"] = Missing("no test row has two modalities, of which one can be hidden").written
        return written


def baseline_imputers(asked: Questions, seed: int) -> tuple[dict[str, int], dict[str, Trial]]:
    """Scikit-learn's imputers by name, each to be tried, and the number of `neighbours` where one could be chosen."""
    from postprior.pipelines.metrics.imputation.imputers import NEIGHBOURS, Imputer, Iterative, Mean, Neighbours

    rng, train, scales = np.random.default_rng(seed), asked.train, asked.scales
    held_out = asked.validation.select(np.arange(min(len(asked.validation), CHOOSING)))
    choice = Task.hide("modalities", held_out, scales, asked.about["cells"], rng)
    features = np.concatenate(choice.features(train, known=True), 1)
    widths = [len(scale.source) for scale in scales]

    def scored(task: Task, imputer: Imputer) -> RowScores:
        known = np.concatenate(task.features(task.hidden, known=True), 1)
        return task.scores(imputer.filled(known, asked.about["draws"], rng))

    def nearest() -> Neighbours:
        """Those of the number of neighbours that is best, or the least one where no held-out row can tell."""
        numbers = [k for k in NEIGHBOURS if k <= len(train)] or [len(train)]
        near = [Neighbours(widths, k).fit(features, rng) for k in numbers]
        return min(near, key=lambda each: loss(scored(choice, each))) if len(choice.rows) else near[0]

    def loss(found: RowScores) -> float:
        return np.inf if isinstance(found, Missing) else float(np.nanmean(found["energy_score"]))

    def every_task(imputer: Imputer) -> dict[str, RowScores]:
        imputer.fit(features, rng)
        return {of: scored(task, imputer) for of, task in asked.tasks.items()}

    def trial(imputer: Imputer | Missing) -> dict[str, RowScores] | Missing:
        return imputer if isinstance(imputer, Missing) else attempted(partial(every_task, imputer))

    best = attempted(nearest)
    reduced = [number for number, m in enumerate(train.modalities) if m.kind not in CELLS]
    imputers = {"mean": Mean(widths), "neighbours": best, "iterative": Iterative(widths, reduced)}
    trials: dict[str, Trial] = {name: partial(trial, imputer) for name, imputer in imputers.items()}
    return {} if isinstance(best, Missing) else {"neighbours": best.neighbours}, trials


def attempted(function: Callable[[], T]) -> T | Missing:
    """What an imputer's function gives; missing, with the first clause of the error, where it fails on the data."""
    try:
        with np.errstate(all="ignore"):
            return function()
    except (ArithmeticError, ValueError) as error:
        clause = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        # scikit-learn's words for what it finds between its rounds
        diverged = "NaN" in clause or "infinity" in clause
        return Missing(f"it failed on these data: {'its values grew without bound' if diverged else clause}")


def through(
    generator: Generator,
    classifiers: LabelClassifiers | None,
    of: str,
    asked: Questions,
    others: dict[str, RowScores],
    seed: int,
) -> dict[str, Any]:
    """Scores of a density in one of the tasks, and its paired differences to every other imputer."""
    task, R = asked.tasks[of], asked.about["draws"]
    spread = generator.spread(asked.validation, task.hidden, seed)
    found = task.scores(imputed(generator, task, R, seed, spread))
    result = task.told(found, asked.weights) | {"spread": dict(spread.factors)}
    if of == "modalities" and classifiers is not None:
        result["label_agreement"] = agreement(generator, classifiers, task, seed, asked.weights)
    result["against"] = {other: compared(found, theirs, asked.weights) for other, theirs in others.items()}
    return result


def imputed(generator: Generator, task: Task, R: int, seed: int, spread: Spread) -> FillBlock:
    """Features of the generator's draws and their means, from one pass over the rows."""
    values = list(generator.completed(task.hidden, R, seed, "draws", spread=spread))

    def filled(m: int, some: NDArray[np.integer[Any]]) -> tuple[Floats, Floats]:
        scale = task.scales[m]
        x = np.concatenate([block[scale.modality.name] for _, block in values], 1)[:, some]  # (R, n, *shape)
        rows = Dataset((scale.modality,), {scale.modality.name: x.reshape(-1, *scale.modality.shape)})
        features = scale(rows, np.arange(len(rows))).numpy().reshape(R, len(some), -1)
        return features, features.mean(0)

    return filled


def agreement(generator: Generator, classifiers: LabelClassifiers, task: Task, seed: int, weights: Floats) -> Written:
    """The share of imputed modalities, decoders' means, in which judges read the label of the row."""
    labels = np.asarray(task.whole.labels)
    values = [block for _, block in generator.completed(task.hidden, 1, seed, "mean")]
    right = np.full((len(task.whole), len(task.scales)), np.nan)
    for m, scale in enumerate(task.scales):
        name, rows = scale.modality.name, np.flatnonzero(task.lost[m].any(1))
        shown = np.concatenate([block[name][0] for block in values])[rows]
        right[rows, m] = classifiers.labels(name, torch.from_numpy(shown)).numpy() == labels[rows]
    return estimated(by_row(right), weights, "label_agreement")
