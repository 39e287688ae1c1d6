"""Real rows of every split as the tests of privacy see them, and what these find of samples."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.privacy.membership import REFERENCES, Attack, Projection, Side, Sides, evenly
from postprior.pipelines.metrics.privacy.proximity import (
    PROXIMITY,
    Proximity,
    Vectors,
    parts_of,
    proximities,
    unmeasured,
)
from postprior.pipelines.metrics.statistics.intervals import Ints, half_samples, too_few
from postprior.pipelines.metrics.statistics.neighbours import CODES, JOINT, Closest, Points
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.moments import Whitening

MOST = 5000  # samples, held-out rows and candidates of the attack, each at most
SHOWN = 12  # samples that are kept beside their closest training rows
SIDES = {"members": "train", "others": "test", "reference": "validation"}  # of the attack, and their splits


@dataclass(frozen=True)
class Split:
    """Real rows, and one posterior draw of each of those that have every block."""

    data: Dataset
    points: Points  # the rows, scaled
    z: Tensor  # codes (n, D)
    codes: Points  # the same, whitened
    places: Ints  # the row (n,) of each code

    @property
    def names(self) -> NDArray[Any]:
        """The id of each row, its number where it has none."""
        return np.arange(len(self.data)) if self.data.ids is None else self.data.ids

    def side(self, project: Projection, rows: Ints) -> Sides:
        """Some rows (n,), ascending, as the attack sees them: principal components, and whitened codes."""
        coded = np.flatnonzero(np.isin(self.places, rows))
        codes = Side(self.codes.parts[0](coded), np.searchsorted(rows, self.places[coded]))
        return {**project.side(self.points.select(rows)), CODES: codes}


@dataclass(frozen=True)
class RealSplits:
    """The splits, the rows (m,) of `test` that samples are set against, and the units of distances.

    Those rows were encoded from every modality; the units are those of the training rows and codes.
    """

    splits: dict[str, Split]
    fresh: Ints
    scales: tuple[Scale, ...]
    whiten: Callable[[Tensor], Tensor]

    @classmethod
    def fit(cls, data: Mapping[str, Dataset], codes: Mapping[str, Codes], whole: Ints, seed: int) -> Self:
        """The rows and codes of every split; `whole` are the rows of `test` that were encoded from every modality."""
        scales = tuple(Scale.fit(data["train"], m) for m in data["train"].modalities)
        whiten, generator = Whitening.fit(codes["train"]).forward, generator_for("cpu", seed)
        splits = {}
        for split, table in codes.items():
            complete = table.complete.nonzero().squeeze(-1)
            z, points = table.draw(generator, complete), points_of(data[split], scales)
            splits[split] = Split(data[split], points, z, Points.of_codes(whiten(z)), complete.numpy())
        return cls(splits, whole[evenly(len(whole), MOST)], scales, whiten)

    @property
    def fresh_codes(self) -> Tensor:
        """The codes (m, D) of the rows that samples are set against."""
        test = self.splits["test"]
        return test.z[torch.from_numpy(np.searchsorted(test.places, self.fresh))]

    def untested(self) -> dict[str, Vectors]:
        """By space, the tests for which rows are too few there, and why."""
        found: dict[str, Vectors] = {}
        needed = {"train": 1, "test": 1, "validation": REFERENCES}
        for space in (*self.splits["train"].points.spaces, CODES):
            rows = {split: of.codes if space == CODES else of.points for split, of in self.splits.items()}
            having = {split: len(points.complete(space)) for split, points in rows.items()}
            found[space] = {}
            if why := unmeasured(len(self.fresh), having["train"], space):
                found[space] |= dict.fromkeys(PROXIMITY, why)
            for split, least in needed.items():
                if why := too_few(having[split], least, f"{split} rows with {parts_of(space)}"):
                    found[space]["membership_auc"] = why
        return found

    def proximities(self, samples: Dataset, codes: Tensor, fresh: Dataset) -> dict[str, Proximity]:
        """How close samples and their codes (n, D) come to training records, in every space.

        They stand beside `fresh`, what the decoders make of `fresh_codes`.
        """
        train = self.splits["train"]
        points = [points_of(data, self.scales) for data in (samples, fresh)]
        found = proximities(points[0], points[1], train.points)
        whitened = [Points.of_codes(self.whiten(z)) for z in (codes, self.fresh_codes)]
        for space, each in proximities(whitened[0], whitened[1], train.codes).items():
            known = Closest(each.samples.distance, train.places[each.samples.record])
            found[space] = replace(each, samples=known)
        return found

    def attack(
        self, samples: Iterable[tuple[Tensor, Dataset]], dimensions: int, resamples: int, rng: np.random.Generator
    ) -> tuple[Vectors, dict[str, int]]:
        """The AUC of the attack by space, under half-samples (1 + B,), and how many rows each side has.

        Samples come as codes (n, D) and rows, block by block; each space has so many principal components. The
        reference rows are the validation split, the others that members are told from the test split.
        """
        project = Projection.fit(self.splits["validation"].points, dimensions)
        chosen = {split: np.sort(rng.permutation(len(rows.data))[:MOST]) for split, rows in self.splits.items()}
        game = Attack(*(self.splits[split].side(project, chosen[split]) for split in SIDES.values()))
        for z, data in samples:
            rows = np.arange(len(data))
            parts = [part(rows) for part in points_of(data, self.scales).parts]
            game.see({**project(parts), CODES: self.whiten(z)})
        sources = [self.splits[split].data.sources[chosen[split]] for split in ("train", "test")]
        aucs = game.aucs(*(half_samples(of, resamples, rng) for of in sources))
        return {**aucs}, {name: len(chosen[split]) for name, split in SIDES.items()}

    def gallery(self, found: Mapping[str, Proximity], samples: Dataset) -> dict[str, np.ndarray]:
        """Samples beside their closest training rows in the joint space, the closest pair first."""
        if JOINT not in found:
            return {}
        closest, train = found[JOINT].samples, self.splits["train"]
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
