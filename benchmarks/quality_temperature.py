"""Chooses the temperature of a generator's draws on validation rows, for benchmarks/quality.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from postprior import Dataset
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
    from postprior.pipelines.metrics.features.evaluators import Evaluators

TEMPERATURES = (1.0, 0.975, 0.95, 0.9)
SETS = 4
"""Sets of samples whose scores are averaged, half of them for each reference."""
BARS = {"joint_coherence": 0.85, "frechet_distance": 1.1, "recall": 0.9, "precision": 0.85}
"""Largest Frechet distance of samples, and least other scores, relative to those of real rows."""
COPIES = 0.015
"""Largest share of near copies, of rows and of codes; 0.01 is expected if nothing is memorised."""
Scores = dict[str, float]


def temperature_by_validation(
    generator: Generator, evaluators: Evaluators, project: Project
) -> tuple[float, dict[str, Scores]]:
    """Choose the temperature of the draws on validation rows; return it and the scores of every candidate.

    As in the stage `evaluate`, one half of the rows, by source, is the reference for the other half and for samples,
    here in both directions. The highest temperature is chosen whose samples satisfy `BARS` relative to real rows and
    have at most a share `COPIES` of near copies, as in the stage `privacy` with validation rows as the fresh ones; 1 if
    there is none. So coherence is bought with variety and near copies only as far as it is needed.
    """
    scores, nearness = ValidationScores(evaluators, project.dataset("validation")), Nearness(project)

    def trial(temperature: float) -> Scores:
        samples = generator.sample(SETS * scores.rows, seed=1, temperature=temperature)
        return scores(samples) | nearness(generator, samples)

    trials = {str(t): trial(t) for t in TEMPERATURES}
    chosen = max((t for t in TEMPERATURES if satisfied(trials[str(t)], scores.real)), default=1.0)
    return chosen, {"real": scores.real, **trials}


def satisfied(found: Scores, real: Scores) -> bool:
    """Return whether samples have few near copies and satisfy `BARS` relative to real rows."""
    signs = {key: -1 if key == "frechet_distance" else 1 for key in BARS}
    return all(sign * found[key] >= sign * BARS[key] * real[key] for key, sign in signs.items()) and all(
        found[key] <= COPIES for key in ("near_copies", "near_copies_of_codes")
    )


class ValidationScores:
    """The scores `BARS` of rows, with one half of the validation rows as the reference, and then with the other.

    Attributes:
        halves: the rows of each half.
        rows: number of rows of a half.
        real: scores of each half relative to the other.
    """

    def __init__(self, evaluators: Evaluators, validation: Dataset) -> None:
        from postprior.pipelines.metrics.scores import ReferenceSet
        from postprior.pipelines.metrics.statistics.intervals import halves

        outputs, names = evaluators.outputs(validation), tuple(m.name for m in validation.modalities)
        rng, classes = np.random.default_rng(0), len(validation.label_names or ())
        self.halves, self.evaluators = halves(validation.sources, validation.labels, rng), evaluators
        self.rows = len(self.halves[0])
        sides, ones = [outputs.select(rows) for rows in self.halves], np.ones((1, self.rows))
        self.spaces = [ReferenceSet.fit(side, ones, 5, names, classes) for side in sides]
        self.real = self._means(sides)

    def __call__(self, data: Dataset) -> Scores:
        """Return the scores of a multiple of `rows` rows, averaged over sets of that size."""
        sets = np.split(np.arange(len(data)), len(data) // self.rows)
        return self._means([self.evaluators.outputs(data.select(rows)) for rows in sets])

    def _means(self, sets: list[EvaluatorOutputs]) -> Scores:
        """Return scores, averaged over sets of rows that alternate between the two references, the second first."""
        from postprior.pipelines.metrics.scores import score

        ones = np.ones((1, self.rows))
        found = [score(rows, ones, self.spaces[1 - index % 2]) for index, rows in enumerate(sets)]
        return {key: float(np.mean([scores[key][0] for scores in found])) for key in BARS}


class Nearness:
    """The share of samples that are nearer to a training row than all but 1 % of the validation rows, decoded."""

    def __init__(self, project: Project) -> None:
        from postprior.pipelines.artefacts.codes import load_codes
        from postprior.pipelines.metrics.privacy.splits import RealSplits

        splits = {"train": "train", "test": "validation", "validation": "validation"}
        rows: dict[str, Dataset] = {place: project.dataset(split) for place, split in splits.items()}
        codes = {place: load_codes(project.artefacts.codes / split) for place, split in splits.items()}
        self.real = RealSplits.fit(rows, codes, seed=0)

    def __call__(self, generator: Generator, samples: Dataset) -> Scores:
        from postprior.pipelines.scoring.privacy import compare

        found = compare(self.real, generator, samples, seed=0)
        spaces = {"near_copies": "joint", "near_copies_of_codes": "codes"}
        return {key: float(found[space].near.mean()) for key, space in spaces.items()}
