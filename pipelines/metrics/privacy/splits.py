"""The real rows of every split in the spaces of the privacy tests, and the tests applied to samples."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.privacy.membership import (
    MIN_AUXILIARY,
    Attack,
    Projection,
    Side,
    Sides,
    evenly_spaced,
)
from postprior.pipelines.metrics.privacy.pairs import averaged, paired_tests, pairs_of
from postprior.pipelines.metrics.privacy.proximity import (
    PROXIMITY,
    Proximity,
    Vectors,
    proximities,
    rows_in,
    unmeasured,
)
from postprior.pipelines.metrics.statistics.intervals import Ints, half_samples, too_few
from postprior.pipelines.metrics.statistics.neighbours import CODES, JOINT, Closest, Points
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.moments import Whitening

MOST = 5000  # maximum number of samples, of held-out rows, and of rows per side of the attack
SHOWN = 12  # samples that are stored with their closest training rows
SIDES = {"members": "train", "others": "test", "reference": "validation"}
"""Splits of members, non-members and auxiliary rows of the attack, by the names that results store."""


@dataclass(frozen=True)
class Split:
    """The real rows of a split, and one posterior draw for each row with complete codes."""

    data: Dataset
    points: Points  # the rows, scaled
    z: Tensor  # codes (n, D)
    codes: Points  # the same, whitened
    code_rows: Ints  # the row (n,) of each code

    @property
    def names(self) -> NDArray[Any]:
        """The id of each row; its index if the rows have no ids."""
        return np.arange(len(self.data)) if self.data.ids is None else self.data.ids

    def side(self, project: Projection, rows: Ints) -> Sides:
        """Return ascending rows (n,) as a side of the attack, in principal components and whitened codes."""
        coded = np.flatnonzero(np.isin(self.code_rows, rows))
        codes = Side(self.codes.parts[0](coded), np.searchsorted(rows, self.code_rows[coded]))
        return {**project.side(self.points.select(rows)), CODES: codes}


@dataclass(frozen=True)
class RealSplits:
    """The real rows of all splits, with the scales of distances, which are fitted to training rows and codes."""

    splits: dict[str, Split]
    fresh: Ints  # (m,), rows of `test` with complete codes, that samples are compared with after decoding
    scales: tuple[Scale, ...]
    pairs: dict[str, tuple[int, int]]  # spaces of pairs of modalities, with the indices of their parts
    whiten: Callable[[Tensor], Tensor]

    @classmethod
    def fit(cls, data: Mapping[str, Dataset], codes: Mapping[str, Codes], seed: int) -> Self:
        """Prepare rows and codes of every split."""
        scales = tuple(Scale.fit(data["train"], m) for m in data["train"].modalities)
        whiten, generator = Whitening.fit(codes["train"]).forward, generator_for("cpu", seed)
        observed = {split: rows.observed for split, rows in data.items()}
        pairs = pairs_of([m.name for m in data["train"].modalities], observed)
        splits = {}
        for split, table in codes.items():
            rows = table.complete.nonzero().squeeze(-1)
            z, points = table.draw(generator, rows), points_of(data[split], scales, pairs)
            splits[split] = Split(data[split], points, z, Points.of_codes(whiten(z)), rows.numpy())
        coded = splits["test"].code_rows
        return cls(splits, coded[evenly_spaced(len(coded), MOST)], scales, pairs, whiten)

    @property
    def fresh_codes(self) -> Tensor:
        """The codes (m, D) of the rows `fresh`."""
        test = self.splits["test"]
        return test.z[torch.from_numpy(np.searchsorted(test.code_rows, self.fresh))]

    def untested(self) -> dict[str, Vectors]:
        """Return by space the tests with too few rows there, with the reasons."""
        untested: dict[str, Vectors] = {}
        needed = {"train": 1, "test": 1, "validation": MIN_AUXILIARY}
        for space in (*self.splits["train"].points.spaces, CODES):
            points = {name: split.codes if space == CODES else split.points for name, split in self.splits.items()}
            complete = {name: len(rows.complete(space)) for name, rows in points.items()}
            untested[space] = {}
            if missing := unmeasured(len(self.fresh), complete["train"], space):
                untested[space] |= dict.fromkeys(PROXIMITY, missing)
            for split, least in needed.items():
                if missing := too_few(complete[split], least, rows_in(space, split)):
                    untested[space]["membership_auc"] = missing
        return untested

    def proximities(self, samples: Dataset, codes: Tensor, fresh: Dataset) -> dict[str, Proximity]:
        """Find the training records closest to samples and their codes (n, D) in every space.

        `fresh` contains `fresh_codes` after decoding.
        """
        train = self.splits["train"]
        points = [points_of(data, self.scales, self.pairs) for data in (samples, fresh)]
        proximity = proximities(points[0], points[1], train.points)
        whitened = [Points.of_codes(self.whiten(z)) for z in (codes, self.fresh_codes)]
        for space, sets in proximities(whitened[0], whitened[1], train.codes).items():
            closest = Closest(sets.samples.distance, train.code_rows[sets.samples.record])
            proximity[space] = replace(sets, samples=closest)
        return proximity

    def attack(
        self, samples: Iterable[tuple[Tensor, Dataset]], dimensions: int, resamples: int, rng: np.random.Generator
    ) -> tuple[Vectors, dict[str, int]]:
        """Return the AUC (1 + B,) of the attack by space, with half-samples, and the number of rows per side.

        Samples arrive block by block as codes (n, D) and rows. `dimensions` is the number of principal components per
        space. Members are rows of the training split, non-members of the test split, auxiliary rows of the validation
        split.
        """
        project = Projection.fit(self.splits["validation"].points, dimensions)
        chosen = {name: np.sort(rng.permutation(len(split.data))[:MOST]) for name, split in self.splits.items()}
        attack = Attack(*(self.splits[split].side(project, chosen[split]) for split in SIDES.values()))
        for z, data in samples:
            rows = np.arange(len(data))
            parts = [part(rows) for part in points_of(data, self.scales).parts]
            attack.update({**project(parts), CODES: self.whiten(z)})
        sources = [self.splits[split].data.sources[chosen[split]] for split in ("train", "test")]
        aucs = attack.aucs(*(half_samples(groups, resamples, rng) for groups in sources))
        return {**aucs}, {name: len(chosen[split]) for name, split in SIDES.items()}

    def joint(self, vectors: Mapping[str, Vectors]) -> tuple[dict[str, Vectors], dict[str, list[str]]]:
        """Return the vectors with the joint space, and the pairs of each test that is a mean over pairs there.

        The joint space of one modality is that of this modality.
        """
        if len(self.scales) == 1:
            return {**vectors, JOINT: vectors[self.whole]}, {}
        observed = {name: split.points.observed for name, split in self.splits.items()}
        tests = paired_tests(observed) if len(self.scales) > 2 else ()
        return averaged(vectors, [*self.pairs], tests) if tests else ({**vectors}, {})

    @property
    def whole(self) -> str:
        """The space of all modalities."""
        return next(iter(self.splits["train"].points.spaces)) if len(self.scales) == 1 else JOINT

    def gallery(self, proximity: Mapping[str, Proximity], samples: Dataset) -> dict[str, np.ndarray]:
        """Return samples with their closest training rows in all modalities together, by increasing distance."""
        if self.whole not in proximity:
            return {}
        closest, train = proximity[self.whole].samples, self.splits["train"]
        order = np.argsort(closest.distance, kind="stable")
        rows = order[np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int))]
        records = closest.record[rows]
        images = [m.name for m in samples.modalities if m.kind == "image"]
        return {
            **{f"synthetic.{name}": samples.data[name][rows] for name in images},
            **{f"nearest.{name}": train.data.data[name][records] for name in images},
            "distances": closest.distance[rows],
            "samples": rows,
            "ids": train.names[records],
        }
