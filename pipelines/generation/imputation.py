"""Evaluation of imputation: hide values of test rows, impute them, and compare the imputed values with the true ones.

There are two tasks. In `modalities`, each row loses one of the modalities that it has. In `cells`, rows lose single
cells of tables and vectors. Scores are computed on the features that encoders read, scaled by the training rows
(`metrics.features.scale`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.posterior import has_exact_posterior
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
from postprior.pipelines.progress import progress, substeps
from postprior.pipelines.settings.params import Params

if TYPE_CHECKING:
    from postprior.pipelines.generation.calibration import Calibration
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.generation.pseudo_gibbs import CellForests
    from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
    from postprior.pipelines.metrics.imputation.imputers import FillBlock

MOST = 1000  # largest number of test rows that are scored
OF_TABLES = 500  # the same for tables alone, whose draws are the ends of chains (`posterior`)


@dataclass(frozen=True)
class HiddenValues:
    """Rows of which some observed values are hidden: one task of the benchmark."""

    original: Dataset  # the rows before hiding
    incomplete: Dataset  # the same rows after hiding
    scales: tuple[Scale, ...]  # how features are computed, one per modality
    hidden_features: tuple[NDArray[np.bool_], ...]  # (N, F_m) per modality, true where an observed feature is hidden
    rows: NDArray[np.int64]  # rows of which something is hidden, (n,)

    @classmethod
    def hide(cls, task: str, data: Dataset, scales: tuple[Scale, ...], share: float, rng: np.random.Generator) -> Self:
        """Hide one modality of each row that has at least two, or a share of the cells of tables and vectors."""
        mask, cells = data.observed.copy(), dict(data.cells)
        if task == "modalities":
            keys = np.where(mask, rng.random(mask.shape), -1)
            mask[np.arange(len(data)), keys.argmax(1)] &= mask.sum(1) < 2
        else:
            for m in data.modalities:
                if m.tabular and m.shape[0] > 1:
                    observed = np.array(cells.get(m.name, np.ones((len(data), *m.shape), bool)))
                    hidden = rng.random(observed.shape) < share
                    hidden[np.arange(len(data)), np.where(observed, rng.random(observed.shape), -1).argmax(1)] = False
                    cells[m.name] = observed & ~hidden  # at least one cell stays
        incomplete = replace(data, mask=mask, cells=cells, folder=None)
        hidden_values = [incomplete.missing(m.name) & ~data.missing(m.name) for m in data.modalities]
        hidden_features = tuple(of_features(scale, x) for scale, x in zip(scales, hidden_values, strict=True))
        rows = np.flatnonzero(np.any([features.any(1) for features in hidden_features], 0))
        return cls(data, incomplete, scales, hidden_features, rows)

    def features(self, data: Dataset, missing_as_nan: bool = False) -> list[Floats]:
        """Scaled features (N, F_m) of each modality; missing values are NaN if `missing_as_nan`."""
        features = []
        for scale in self.scales:
            x = scale(data, np.arange(len(data))).numpy()
            if missing_as_nan:
                x[of_features(scale, data.missing(scale.modality.name))] = np.nan
            features.append(x)
        return features

    def scores(self, filled: FillBlock) -> RowScores:
        """Energy score, squared error and coverage of hidden features, (N, M); NaN where nothing of a row is hidden.

        The result is `Missing` if an imputed value is not finite.
        """
        truth = self.features(self.original)
        scores = {key: np.full((len(self.original), len(self.scales)), np.nan) for key in SCORES}
        for m, (scale, hidden_features) in enumerate(zip(self.scales, self.hidden_features, strict=True)):
            if not len(rows := np.flatnonzero(hidden_features.any(1))):
                continue
            draws, guess = filled(m, rows)
            if not (np.isfinite(draws).all() and np.isfinite(guess).all()):
                return Missing(f"values imputed for {scale.modality.title} are not finite")
            y, hidden = truth[m][rows], hidden_features[rows]
            x = np.where(hidden, draws, y)  # every draw holds the true value where nothing is hidden
            scores["energy_score"][rows, m] = energy_score(x, y)
            scores["rmse"][rows, m] = np.square(np.where(hidden, guess - y, 0), dtype=np.float64).sum(1)
            numbers = np.broadcast_to(continuous(scale.modality), (1, *scale.modality.shape))
            hidden_numbers = hidden & of_features(scale, numbers)
            with np.errstate(invalid="ignore"):
                scores["coverage"][rows, m] = (covered(x, y) & hidden_numbers).sum(1) / hidden_numbers.sum(1)
        return scores

    def summarise(self, scores: RowScores, weights: Floats) -> dict[str, Any]:
        """Mean scores with their intervals, over all rows of which something is hidden and by modality."""
        if isinstance(scores, Missing):
            return dict.fromkeys(SCORES, scores.written) | {"rows": len(self.rows), "modalities": {}}
        result: dict[str, Any] = {key: estimated(by_row(values), weights, key) for key, values in scores.items()}
        result["rows"] = len(self.rows)
        result["modalities"] = {
            scale.modality.name: {key: estimated(values[:, m], weights, key) for key, values in scores.items()}
            for m, scale in enumerate(self.scales)
            if self.hidden_features[m].any()
        }
        return result


def of_features(scale: Scale, values: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Map flags of values (N, *shape) to the features that are computed from them, (N, F)."""
    return values.reshape(len(values), -1)[:, scale.source.numpy()]


@dataclass(frozen=True)
class ImputationBenchmark:
    """The tasks that every imputer solves, and the data by which its answers are scored."""

    train: Dataset  # rows to learn from
    validation: Dataset  # rows for choices and for calibration
    scales: tuple[Scale, ...]  # how features are computed, one per modality
    tasks: dict[str, HiddenValues]  # by name, only tasks in which something is hidden; none without draws
    weights: Floats  # (1 + B, N), half-samples of the test rows
    provenance: dict[str, Any]  # the data and the settings that determine the benchmark

    @classmethod
    def from_splits(cls, splits: dict[str, Dataset], params: Params) -> Self:
        """Build the benchmark from the three splits; values of test rows are hidden."""
        settings, rng = params.imputation, np.random.default_rng(params.evaluate.seed)
        train, validation, test = splits.values()
        most = OF_TABLES if all(m.kind == "table" for m in test.modalities) else MOST
        test = test.select(np.arange(min(len(test), most)))
        scales = tuple(Scale.fit(train, m) for m in train.modalities)
        tasks = {name: HiddenValues.hide(name, test, scales, settings.cells, rng) for name in ("modalities", "cells")}
        weights = half_samples(test.sources, params.evaluate.resamples, rng, test.labels)
        hashes = [split.hash for split in splits.values()]
        provenance = {"data": hashes, **settings.model_dump(), "seed": params.evaluate.seed}
        if len(test) == most < MOST:  # imputers of an earlier version were scored on more rows
            provenance["rows"] = most
        tasks = {name: task for name, task in tasks.items() if len(task.rows) and settings.draws}
        return cls(train, validation, scales, tasks, weights, provenance)

    def results(self, scores: dict[str, Any]) -> dict[str, Any]:
        """Return the content of a file of results."""
        results = {"draws": self.provenance["draws"], **scores}
        if "modalities" not in self.tasks:
            why = "no test row has two modalities, of which one can be hidden"
            results["modalities"] = Missing(why if results["draws"] else "imputation.draws is 0").written
        return results


def density_scores(
    generator: Generator,
    classifiers: LabelClassifiers | None,
    task_name: str,
    benchmark: ImputationBenchmark,
    baselines: dict[str, RowScores],
    seed: int,
    forests: CellForests | None,
) -> dict[str, Any]:
    """Score a density in one task, and compute its paired differences to every baseline imputer.

    `forests` are those of `Generator.cell_forests` for the rows of the tasks.
    """
    task, R = benchmark.tasks[task_name], benchmark.provenance["draws"]
    with progress(task_name, 3) as step:
        calibration = generator.calibration(benchmark.validation, task.incomplete, seed, forests)
        step("calibration on held-out rows")
        filled = imputed(generator, task, R, seed, calibration)
        step("draws")
        scores = task.scores(filled)
        result = task.summarise(scores, benchmark.weights)
        changes = {"noise": calibration.noise, "spread": calibration.factors, "temperature": calibration.temperatures}
        for key, values in changes.items():
            result[key] = {name: float(each.mean()) for name, each in values.items()}
        if calibration.forests is not None:
            result["drawn_anew"] = calibration.drawn_anew
        if has_exact_posterior(generator.model, generator.density):
            result["power"] = calibration.power
        step("scores")
    if task_name == "modalities" and classifiers is not None:
        result["label_agreement"] = agreement(generator, classifiers, task, seed, benchmark.weights)
    result["against"] = {name: compared(scores, other, benchmark.weights) for name, other in baselines.items()}
    return result


def imputed(generator: Generator, task: HiddenValues, R: int, seed: int, calibration: Calibration) -> FillBlock:
    """Draw R values for everything hidden, in one pass over the rows; return a function that gives their features."""
    blocks = hidden_rows(generator, task, R, seed, "draws", generator.labels_of(task.incomplete), calibration)

    def filled(m: int, rows: NDArray[np.integer[Any]]) -> tuple[Floats, Floats]:
        scale = task.scales[m]
        x = np.concatenate(blocks[m], 1)  # (R, n, *shape)
        draws = Dataset((scale.modality,), {scale.modality.name: x.reshape(-1, *scale.modality.shape)})
        features = scale(draws, np.arange(len(draws))).numpy().reshape(R, len(rows), -1)
        return features, features.mean(0)

    return filled


def hidden_rows(generator: Generator, task: HiddenValues, *settings: Any) -> list[list[np.ndarray]]:
    """Return per modality the blocks (R, n, *shape) of imputed rows of which the task hides something."""
    from postprior.pipelines.generation.completion import imputations, row_blocks

    kept: list[list[np.ndarray]] = [[] for _ in task.scales]
    blocks = imputations(generator.model, generator.density, task.incomplete, *settings)
    for _, block in substeps(blocks, len(row_blocks(task.incomplete))):
        for m, scale in enumerate(task.scales):
            if scale.modality.name in block:
                rows, x = block[scale.modality.name]
                kept[m].append(x[:, task.hidden_features[m][rows].any(1)])
    return kept


def agreement(
    generator: Generator, classifiers: LabelClassifiers, task: HiddenValues, seed: int, weights: Floats
) -> Written:
    """The share of imputed modalities for which the label classifier predicts a row's label.

    These are decoder means, imputed without the labels of the rows.
    """
    labels = np.asarray(task.original.labels)
    blocks = hidden_rows(generator, task, 1, seed, "mean")
    correct = np.full((len(task.original), len(task.scales)), np.nan)
    for m, scale in enumerate(task.scales):
        name, rows = scale.modality.name, np.flatnonzero(task.hidden_features[m].any(1))
        if len(rows):
            x = torch.from_numpy(np.concatenate(blocks[m], 1)[0])
            hits = classifiers.labels(name, x).numpy() == labels[rows]
            correct[rows, m] = np.where(labels[rows] >= 0, hits, np.nan)
    return estimated(by_row(correct), weights, "label_agreement")
