"""Stage `recover`: what test rows are known to have is hidden, imputed, and set against what stood there.

Two tasks. `modalities`: each row loses one of the modalities that it has. `cells`: rows lose single cells of tables and
vectors. Scores are taken in the features that encoders read, scaled on training rows (`metrics.features.scale`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.artefacts.evaluators import load_judges
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.statistics.intervals import (
    SHARE,
    Floats,
    Missing,
    Written,
    combined,
    estimate,
    half_samples,
    weighted_mean,
)
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import Artefact, load_artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.metrics.features.judges import Judges
    from postprior.pipelines.metrics.features.scale import Scale
    from postprior.pipelines.metrics.imputation.imputers import Filled

T = TypeVar("T")
Found = dict[str, Floats] | Missing
"""Scores by name, (N, M) each."""
KIND = "recovery"
BASELINES = "baselines"  # the name of what densities are set against
MOST = 1000
"""Test rows that are scored, at most."""
CHOOSING = 200
"""Validation rows by which the number of neighbours is chosen, at most."""
SCORES = ("energy_score", "rmse", "coverage")
CELLS = ("table", "vector")  # kinds of which single cells are hidden
NOTHING = {  # why no row has a score
    "energy_score": Missing("nothing was hidden"),
    "rmse": Missing("nothing was hidden"),
    "coverage": Missing("no number was hidden, only counts and classes"),
    "label_agreement": Missing("no modality was hidden"),
}


def recover(name: str, params: Params, root: Path) -> None:
    """Impute what was hidden through density `name`, or by others (`baselines`); results/recovery/<name>.json."""
    from postprior.pipelines.metrics.features.scale import Scale

    splits = [Dataset.load(root / "artefacts/data" / split) for split in ("train", "validation", "test")]
    train, validation, test = splits
    test = test.select(np.arange(min(len(test), MOST)))
    scales = tuple(Scale.fit(train, m) for m in train.modalities)
    settings, rng = params.recovery, np.random.default_rng(params.evaluate.seed)
    tasks = {of: Task.hide(of, test, scales, settings.cells, rng) for of in ("modalities", "cells")}
    tasks = {of: task for of, task in tasks.items() if len(task.rows)}
    weights = half_samples(test.sources, params.evaluate.resamples, rng, test.labels)
    about = {"data": [split.hash for split in splits], **settings.model_dump(), "seed": params.evaluate.seed}
    stage, density = ("recover-baselines", None) if name == BASELINES else ("recover", name)
    with track(stage, params, root, density) as run:
        run.dataset(root / "artefacts/data/train", train.hash)
        written: dict[str, Any] = {"draws": settings.draws}
        if density is None:
            written |= of_baselines(root, tasks, train, validation, scales, weights, params, about)
        else:
            written |= of_density(density, root, tasks, validation, weights, params, about)
        if "modalities" not in tasks:
            written["modalities"] = Missing(
                "no test row has two modalities, of which one can be hidden"
            ).written
        write_json(root / f"results/recovery/{name}.json", written)


@dataclass(frozen=True)
class Task:
    """Rows that have been made to lack something.

    Args:
        whole: the rows as they are.
        hidden: the same rows, lacking more.
        scales: how features are made, a modality each.
        lost: features (N, F_m) of each modality that were there and are hidden, bool.
        rows: the rows (n,) that lost anything.
    """

    whole: Dataset
    hidden: Dataset
    scales: tuple[Scale, ...]
    lost: tuple[NDArray[np.bool_], ...]
    rows: NDArray[np.int64]

    @classmethod
    def hide(
        cls, of: str, data: Dataset, scales: tuple[Scale, ...], share: float, rng: np.random.Generator
    ) -> Task:
        """Hide one modality of each row that has two, or a share of the cells of tables and vectors."""
        from postprior.pipelines.generation.completion import missing

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
        before, after = missing(data), missing(hidden)
        lost = tuple(
            (after[s.modality.name] & ~before[s.modality.name]).reshape(len(data), -1)[:, s.source.numpy()]
            for s in scales
        )
        return cls(data, hidden, scales, lost, np.flatnonzero(np.any([part.any(1) for part in lost], 0)))

    def features(self, data: Dataset, known: bool = False) -> list[Floats]:
        """Scaled features (N, F_m) of each modality; with `known`, NaN where a value is missing."""
        from postprior.pipelines.generation.completion import missing

        found = []
        for scale in self.scales:
            x = scale(data, np.arange(len(data))).numpy()
            if known:
                x[missing(data)[scale.modality.name].reshape(len(data), -1)[:, scale.source.numpy()]] = np.nan
            found.append(x)
        return found

    def scores(self, filled: Filled) -> Found:
        """Energy score, squared error and coverage of each row's lost features, (N, M); NaN where it lost none.

        Missing where what was filled in is not finite.
        """
        from postprior.pipelines.generation.calibration import continuous
        from postprior.pipelines.metrics.imputation.scores import covered, energy_score

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
            flat = np.broadcast_to(continuous(scale.modality), scale.modality.shape).reshape(-1)
            asked = gone & flat[scale.source.numpy()]
            with np.errstate(invalid="ignore"):
                found["coverage"][rows, m] = (covered(x, y) & asked).sum(1) / asked.sum(1)
        return found


def of_baselines(
    root: Path,
    tasks: dict[str, Task],
    train: Dataset,
    validation: Dataset,
    scales: tuple[Scale, ...],
    weights: Floats,
    params: Params,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Scores of scikit-learn's imputers; those of every row are kept for the densities. One that fails says why."""
    from postprior.pipelines.metrics.imputation.imputers import (
        NEIGHBOURS,
        Imputer,
        Iterative,
        Mean,
        Neighbours,
    )

    rng, R = np.random.default_rng(params.seed), params.recovery.draws
    held_out = validation.select(np.arange(min(len(validation), CHOOSING)))
    choice = Task.hide("modalities", held_out, scales, params.recovery.cells, rng)
    rows = train.select(np.arange(len(train)))
    features = np.concatenate(replace(choice, whole=rows).features(rows, known=True), 1)
    widths = [len(scale.source) for scale in scales]

    def scored(task: Task, imputer: Imputer) -> Found:
        known = np.concatenate(task.features(task.hidden, known=True), 1)
        return task.scores(imputer.filled(known, R, rng))

    def nearest() -> Neighbours:
        """Those of the number of neighbours that is best, or the least one where no held-out row can tell."""
        numbers = [k for k in NEIGHBOURS if k <= len(train)] or [len(train)]
        near = [Neighbours(widths, k).fit(features, rng) for k in numbers]
        if not len(choice.rows):
            return near[0]
        return min(near, key=lambda each: loss(scored(choice, each)))

    def loss(found: Found) -> float:
        return np.inf if isinstance(found, Missing) else float(np.nanmean(found["energy_score"]))

    def every_task(imputer: Imputer) -> dict[str, Found]:
        imputer.fit(features, rng)
        return {of: scored(task, imputer) for of, task in tasks.items()}

    best = attempted(nearest)
    reduced = [number for number, m in enumerate(train.modalities) if m.kind not in CELLS]
    imputers = {"mean": Mean(widths), "neighbours": best, "iterative": Iterative(widths, reduced)}
    written: dict[str, Any] = {of: {} for of in tasks}
    if isinstance(best, Neighbours):
        written["neighbours"] = best.neighbours
    arrays: dict[str, Floats] = {}
    failed: dict[str, str] = {}
    with progress("recover baselines", len(imputers)) as step:
        for name, imputer in imputers.items():
            found = imputer if isinstance(imputer, Missing) else attempted(partial(every_task, imputer))
            for of, task in tasks.items():
                own = found if isinstance(found, Missing) else found[of]
                written[of][name] = told(own, weights, task)
                if isinstance(own, Missing):
                    failed[f"{of}.{name}"] = own.why
                else:
                    arrays |= {f"{of}.{name}.{key}": values for key, values in own.items()}
            step(f"{name}: {found.why}" if isinstance(found, Missing) else name)
    known = {**about, "failed": failed} if failed else about
    save_artefact(root / "artefacts/recovery" / BASELINES, KIND, known, arrays=arrays)
    return written


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


def of_density(
    name: str,
    root: Path,
    tasks: dict[str, Task],
    validation: Dataset,
    weights: Floats,
    params: Params,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Scores of a density, and its paired differences to every other imputer."""
    from postprior.pipelines.generation.calibration import Spread
    from postprior.pipelines.generation.generator import Generator

    known = load_artefact(root / "artefacts/recovery" / BASELINES, KIND)
    if any(known.manifest.get(key) != value for key, value in about.items()):
        raise UserError(
            "artefacts/recovery/baselines: other imputers of other data or settings found, expected those of this "
            f"project's; run postprior recover {BASELINES}"
        )
    generator = Generator.load(root / "artefacts/densities" / name)
    judges = load_judges(root / "artefacts/judges").judges
    seed, R = params.seed, params.recovery.draws
    written: dict[str, Any] = {}
    for of, task in tasks.items():
        spread = Spread.fit(generator, validation, task.hidden, seed)
        found = task.scores(imputed(generator, task, R, seed, spread))
        result: dict[str, Any] = told(found, weights, task)
        result["spread"] = dict(spread.factors)
        if of == "modalities" and judges is not None:
            result["label_agreement"] = agreement(generator, judges, task, seed, weights)
        result["against"] = {
            other: compared(found, theirs, weights) for other, theirs in others(known, of).items()
        }
        written[of] = result
    return written


def others(known: Artefact, of: str) -> dict[str, Found]:
    """What the other imputers reached in a task, by name."""
    names = {key.split(".")[1] for key in known.arrays if key.startswith(f"{of}.")}
    found: dict[str, Found] = {
        name: {key: known.arrays[f"{of}.{name}.{key}"] for key in SCORES} for name in names
    }
    failed = {tuple(key.split(".")): why for key, why in known.manifest.get("failed", {}).items()}
    return found | {name: Missing(why) for (task, name), why in failed.items() if task == of}


def imputed(generator: Generator, task: Task, R: int, seed: int, spread: Any) -> Filled:
    """Features of the generator's draws and their means, from one pass over the rows."""
    values = list(generator.completed(task.hidden, R, seed, "draws", spread=spread))

    def filled(m: int, some: NDArray[np.integer[Any]]) -> tuple[Floats, Floats]:
        scale = task.scales[m]
        x = np.concatenate([block[scale.modality.name] for _, block in values], 1)[:, some]  # (R, n, *shape)
        rows = Dataset((scale.modality,), {scale.modality.name: x.reshape(-1, *scale.modality.shape)})
        features = scale(rows, np.arange(len(rows))).numpy().reshape(R, len(some), -1)
        return features, features.mean(0)

    return filled


def agreement(generator: Generator, judges: Judges, task: Task, seed: int, weights: Floats) -> Written:
    """The share of imputed modalities, decoders' means, in which judges read the label of the row."""
    import torch

    labels = np.asarray(task.whole.labels)
    values = [block for _, block in generator.completed(task.hidden, 1, seed, "mean")]
    right = np.full((len(task.whole), len(task.scales)), np.nan)
    for m, scale in enumerate(task.scales):
        name, rows = scale.modality.name, np.flatnonzero(task.lost[m].any(1))
        shown = np.concatenate([block[name][0] for block in values])[rows]
        right[rows, m] = judges.labels(name, torch.from_numpy(shown)).numpy() == labels[rows]
    return estimated(by_row(right), weights, "label_agreement")


def told(found: Found, weights: Floats, task: Task) -> dict[str, Any]:
    """Scores with their intervals: of all rows that lost something, and by modality."""
    if isinstance(found, Missing):
        return dict.fromkeys(SCORES, found.written) | {"rows": len(task.rows), "modalities": {}}
    result: dict[str, Any] = {key: estimated(by_row(values), weights, key) for key, values in found.items()}
    result["rows"] = len(task.rows)
    result["modalities"] = {
        scale.modality.name: {key: estimated(values[:, m], weights, key) for key, values in found.items()}
        for m, scale in enumerate(task.scales)
        if task.lost[m].any()
    }
    return result


def compared(found: Found, theirs: Found, weights: Floats) -> dict[str, Written]:
    """The paired difference of energy scores, below 0 where ours is better, and the ratio of errors."""
    if isinstance(found, Missing) or isinstance(theirs, Missing):
        why = found if isinstance(found, Missing) else theirs
        assert isinstance(why, Missing)
        return dict.fromkeys(("energy_score", "rmse_ratio"), why.written)
    rows = np.flatnonzero(np.isfinite(by_row(found["energy_score"])))
    ours, other = (
        {key: weighted_mean(by_row(of[key])[rows], weights[:, rows]) for key in ("energy_score", "rmse")}
        for of in (found, theirs)
    )
    ratio = combined(lambda x, y: np.sqrt(x / y), ours["rmse"], other["rmse"])
    exact = Missing("the other imputer makes no error")
    return {
        "energy_score": estimate(ours["energy_score"] - other["energy_score"]),
        "rmse_ratio": estimate(ratio if other["rmse"][0] > 0 else exact, (0, np.inf)),
    }


def by_row(values: Floats) -> Floats:
    """The mean over the modalities of which a row lost something, (N,); NaN where it lost none."""
    there = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(there, values, 0).sum(1) / there.sum(1)


def estimated(values: Floats, weights: Floats, key: str) -> Written:
    """The mean (N,) over rows that have one; the root of it for errors; missing where no row has."""
    rows = np.flatnonzero(np.isfinite(values))
    if not len(rows):
        return NOTHING[key].written
    means = weighted_mean(values[rows], weights[:, rows])
    return estimate(
        np.sqrt(means) if key == "rmse" else means, SHARE if key == "coverage" else (-np.inf, np.inf)
    )
