"""Stage `privacy`: whether samples of a density give away rows that it and its autoencoder were trained on.

Samples are what decoders make of codes, smoother than any real row and for that alone closer to all of them, known or
not. They are set against held-out rows that went the same way: encoded, one posterior draw of each decoded. In the
space of codes it is these draws themselves. The attack compares real rows with real rows and needs no such care;
it alone sees a decoder that repeats training rows whatever the code, for then these held-out rows become copies too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.artefacts.codes import load_codes, whole_rows
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import ROWS, Generator, draw_codes
from postprior.pipelines.generation.request import Request
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from postprior.pipelines.metrics.privacy.membership import Projection, Sides
    from postprior.pipelines.metrics.privacy.proximity import Proximity, Vectors
    from postprior.pipelines.metrics.privacy.records import Points, Scale
    from postprior.pipelines.metrics.statistics.intervals import Ints

KIND = "privacy"
MOST = 5000  # samples, held-out rows and candidates of the attack, each at most
ASKED = ("seed", "labels", "temperature", "truncation")  # what decides the codes of samples
SHOWN = 12  # samples that are kept beside their closest training rows


def privacy(name: str, params: Params, root: Path) -> None:
    """Test artefacts/synthetic/<name> and further draws; results/privacy/<name>.json, artefacts/privacy/<name>."""
    from postprior.pipelines.metrics.privacy.proximity import (
        CAUTION,
        MARGINS,
        beyond,
        near_copies,
        proximity_vectors,
        written,
    )

    settings, folder = params.evaluate, root / "artefacts"
    generator = Generator.load(folder / "densities" / name)
    synthetic = Dataset.load(folder / "synthetic" / name)
    check_origin(synthetic, generator)
    with track("privacy", params, root, density=name) as run:
        run.dataset(folder / "synthetic" / name, synthetic.hash)
        rng = np.random.default_rng(settings.seed)
        real = Real.load(folder, settings.seed)
        train, test = real.splits["train"], real.splits["test"]
        found = compare(real, generator, synthetic, settings.seed)
        close = proximity_vectors(found, test.data.sources[real.fresh], settings.resamples, rng)
        aucs, samples = attack(real, generator, synthetic.provenance, params, rng)
        vectors: dict[str, Vectors] = {
            space: few | close.get(space, {}) | ({"membership_auc": aucs[space]} if space in aucs else {})
            for space, few in untested(real).items()
        }
        ids = train.names
        result = {
            "spaces": {space: written(values) for space, values in vectors.items()},
            "near_copies": near_copies(found, ids),
            "flagged": beyond(vectors, MARGINS),
            "detected": beyond(vectors, {}),
            "samples": {"synthetic": min(len(synthetic), MOST), "held_out": len(real.fresh), **samples},
            "caution": CAUTION,
        }
        write_json(root / f"results/privacy/{name}.json", result)
        origins, arrays = {"synthetic": synthetic.hash}, gallery(found, synthetic, train.data, ids)
        save_artefact(folder / KIND / name, KIND, {**generator.provenance, **origins}, arrays=arrays)


@dataclass(frozen=True)
class Split:
    """Real rows, and one posterior draw of each of those that have every block.

    Args:
        data: the rows.
        points: the same, scaled.
        z: codes (n, D).
        codes: the same, whitened.
        places: the row (n,) of each code.
    """

    data: Dataset
    points: Points
    z: Tensor
    codes: Points
    places: Ints

    @property
    def names(self) -> NDArray[Any]:
        """The id of each row, its number where it has none."""
        return np.arange(len(self.data)) if self.data.ids is None else self.data.ids


@dataclass(frozen=True)
class Real:
    """The splits, the rows (m,) of `test` that samples are set against, and the units of distances.

    Those rows were encoded from every modality; the units are those of the training rows and codes.
    """

    splits: dict[str, Split]
    fresh: Ints
    scales: tuple[Scale, ...]
    whiten: Callable[[Tensor], Tensor]

    @classmethod
    def load(cls, folder: Path, seed: int) -> Real:
        """The splits in artefacts/data and artefacts/codes."""
        from postprior.pipelines.metrics.privacy.records import Points, Scale, evenly
        from postprior.stage1_vae.randomness import generator_for
        from postprior.stage2_latent.moments import Whitening

        data = {split: Dataset.load(folder / "data" / split) for split in SPLITS}
        codes = {split: load_codes(folder / "codes" / split) for split in SPLITS}
        scales = tuple(Scale.fit(data["train"], m) for m in data["train"].modalities)
        whiten, generator = Whitening.fit(codes["train"]).forward, generator_for("cpu", seed)
        whole = whole_rows(codes["test"]).numpy()
        splits = {}
        for split, table in codes.items():
            complete = table.complete.nonzero().squeeze(-1)
            z, points = table.draw(generator, complete), Points.of_data(data[split], scales)
            splits[split] = Split(data[split], points, z, Points.of_codes(whiten(z)), complete.numpy())
        return cls(splits, whole[evenly(len(whole), MOST)], scales, whiten)


def untested(real: Real) -> dict[str, Vectors]:
    """By space, the tests for which rows are too few there, and why."""
    from postprior.pipelines.metrics.privacy.membership import REFERENCES
    from postprior.pipelines.metrics.privacy.proximity import PROXIMITY, parts_of, unmeasured
    from postprior.pipelines.metrics.privacy.records import CODES
    from postprior.pipelines.metrics.statistics.intervals import too_few

    found: dict[str, Vectors] = {}
    needed = {"train": 1, "test": 1, "validation": REFERENCES}
    for space in (*real.splits["train"].points.spaces, CODES):
        having = {
            split: len((rows.codes if space == CODES else rows.points).having(space))
            for split, rows in real.splits.items()
        }
        found[space] = {}
        if why := unmeasured(len(real.fresh), having["train"], space):
            found[space] |= dict.fromkeys(PROXIMITY, why)
        for split, least in needed.items():
            if why := too_few(having[split], least, f"{split} rows with {parts_of(space)}"):
                found[space]["membership_auc"] = why
    return found


def check_origin(synthetic: Dataset, generator: Generator) -> None:
    """Refuse samples of another density, and those whose codes cannot be drawn again."""
    found, expected = synthetic.provenance.get("density"), generator.provenance["density"]
    if found != expected:
        raise UserError(
            f"{synthetic.folder}: density {str(found)[:12]} found, expected {expected[:12]}; "
            "run postprior generate again"
        )
    if isinstance(synthetic.provenance["labels"], str):
        raise UserError(
            f"{synthetic.folder}: {synthetic.provenance['labels']} was asked for, expected counts of labels, or labels "
            "as the density learned them, for which the same codes can be drawn again; run postprior generate again"
        )


def compare(real: Real, generator: Generator, synthetic: Dataset, seed: int) -> dict[str, Proximity]:
    """How close the published samples come to training records, beside fresh rows, in every space.

    Nothing where there are too few fresh rows.
    """
    import torch

    from postprior.pipelines.metrics.privacy.proximity import proximities
    from postprior.pipelines.metrics.privacy.records import Closest, Points
    from postprior.pipelines.metrics.statistics.intervals import FEWEST
    from postprior.stage1_vae.randomness import generator_for

    if len(real.fresh) < FEWEST:
        return {}
    train, test, drawn = real.splits["train"], real.splits["test"], synthetic.provenance
    rows = np.arange(min(len(synthetic), MOST))
    asked = Request(len(synthetic), **{key: drawn[key] for key in ASKED})
    blocks = islice(draw_codes(generator.density, asked), -(-len(rows) // ROWS))
    codes = torch.cat([codes.loc[:, 0] for _, _, codes, _ in blocks])[: len(rows)]
    fresh = test.z[torch.from_numpy(np.searchsorted(test.places, real.fresh))]
    noise = generator_for("cpu", seed, 1)
    with torch.no_grad():
        decoded = [generator.decode(block, drawn["values"], noise) for block in fresh.split(ROWS)]
    values = {name: np.concatenate([block[name] for block in decoded]) for name in decoded[0]}
    points = [
        Points.of_data(data, real.scales) for data in (synthetic, Dataset(train.data.modalities, values))
    ]
    found = proximities(points[0].select(rows), points[1], train.points)
    whitened = [Points.of_codes(real.whiten(z)) for z in (codes, fresh)]
    for space, each in proximities(whitened[0], whitened[1], train.codes).items():
        known = Closest(each.samples.distance, train.places[each.samples.record])
        found[space] = replace(each, samples=known)
    return found


def attack(
    real: Real, generator: Generator, drawn: dict[str, Any], params: Params, rng: np.random.Generator
) -> tuple[dict[str, NDArray[np.float64]], dict[str, int]]:
    """The AUC of the attack by space, under half-samples (1 + B,), and how many rows and samples it saw.

    The reference rows are the validation split, the others that members are told from the test split. Samples are
    drawn as the published ones, but for their labels, which come as often as in the data.
    """
    import torch

    from postprior.pipelines.metrics.privacy.membership import Attack, Projection
    from postprior.pipelines.metrics.privacy.records import CODES, Points
    from postprior.pipelines.metrics.statistics.intervals import half_samples

    splits, modalities, settings = real.splits, generator.modalities, params.privacy
    project = Projection.fit(splits["validation"].points, settings.dimensions)
    chosen = {split: np.sort(rng.permutation(len(rows.data))[:MOST]) for split, rows in splits.items()}
    sides = {split: side(rows, project, chosen[split]) for split, rows in splits.items()}
    game = Attack(sides["train"], sides["test"], sides["validation"])
    samples = settings.draws * len(splits["train"].data)
    noise = {key: drawn[key] for key in ("temperature", "truncation")}
    blocks = draw_codes(generator.density, Request(samples, params.evaluate.seed, **noise))
    with progress(f"privacy {generator.density.name}", -(-samples // ROWS)) as step, torch.no_grad():
        for _, kept, codes, source in blocks:
            z, rows = codes.loc[:, 0], np.arange(kept)
            data = Dataset(modalities, generator.decode(z, drawn["values"], source))
            parts = [part(rows) for part in Points.of_data(data, real.scales).parts]
            game.see({**project(parts), CODES: real.whiten(z[:kept])})
            step("")
    weights = [
        half_samples(splits[split].data.sources[chosen[split]], params.evaluate.resamples, rng)
        for split in ("train", "test")
    ]
    names = {"members": "train", "others": "test", "reference": "validation"}
    counts = {name: len(chosen[split]) for name, split in names.items()}
    return game.aucs(*weights), {"train": len(splits["train"].data), "drawn": samples, **counts}


def side(split: Split, project: Projection, rows: Ints) -> Sides:
    """Some rows (n,) of a split, ascending, as the attack sees them: principal components, and whitened codes."""
    from postprior.pipelines.metrics.privacy.membership import Side
    from postprior.pipelines.metrics.privacy.records import CODES

    coded = np.flatnonzero(np.isin(split.places, rows))
    codes = Side(split.codes.parts[0](coded), np.searchsorted(rows, split.places[coded]))
    return {**project.side(split.points.select(rows)), CODES: codes}


def gallery(
    found: dict[str, Proximity], synthetic: Dataset, train: Dataset, ids: NDArray[Any]
) -> dict[str, np.ndarray]:
    """Samples beside their closest training rows in the joint space, from the closest pair of all to the farthest."""
    from postprior.pipelines.metrics.privacy.records import JOINT

    if JOINT not in found:
        return {}
    closest = found[JOINT].samples
    order = np.argsort(closest.distance, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, SHOWN).round().astype(int))]
    records = closest.record[rows]
    images = [m.name for m in train.modalities if m.kind == "image"]
    return {
        **{f"synthetic.{name}": synthetic.data[name][rows] for name in images},
        **{f"nearest.{name}": train.data[name][records] for name in images},
        "distances": closest.distance[rows],
        "samples": rows,
        "ids": ids[records],
    }
