"""Stage `augment`: whether synthetic rows help a classifier that has few real ones.

The autoencoder, the density and every classifier of a cell see the same few training rows and no other.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from postprior.pipelines.artefacts.autoencoder import build, mendable
from postprior.pipelines.artefacts.cells import KIND, load_cell
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.artefacts.density import density_of
from postprior.pipelines.data.dataset import Dataset, check_labels
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import FrozenEncoder, learn
from postprior.pipelines.generation.generator import Generator, apportion, as_set
from postprior.pipelines.metrics.utility.classifiers import names_of, recipe
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import ALL, Params
from postprior.pipelines.storage import Artefact, save_artefact, write_json
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from postprior.pipelines.metrics.statistics.intervals import Ints
    from postprior.stage1_vae.model import MultimodalVAE

ARMS = {  # synthetic rows for each real one, and whether rows are augmented classically as they are learned from
    "real": (0, False),
    "classical": (0, True),
    "synthetic_1x": (1, False),
    "synthetic_5x": (5, False),
    "both_1x": (1, True),
    "both_5x": (5, True),
}
MOST = max(copies for copies, _ in ARMS.values())


def augment(size: str, params: Params, root: Path, seed: int) -> None:
    """Train all arms on `size` training rows and test them; results/augmentation/<size>-<seed>.json.

    Without labels there is nothing to learn, and the file says no more than what was asked for.
    """
    train, test = (Dataset.load(root / "artefacts/data" / split) for split in ("train", "test"))
    check_labels(train, test)
    settings, name = params.augment, f"{size}-{seed}"
    with track("augment", params, root) as run:
        run.dataset(root / "artefacts/data/train", train.hash)
        rows = few(train, size, seed)
        asked = {"size": len(rows), "seed": seed, "model": settings.model, "density": settings.density}
        folder = root / "artefacts/augmentation" / name
        known = {**asked, "modalities": names_of(test), "data": train.hash, "test": test.hash}
        if train.labels is None:
            save_artefact(folder, KIND, {**known, "arms": []})
            write_json(root / f"results/augmentation/{name}.json", asked)
            return
        hits = answers(rows, test, params, seed)
        shown = {"groups": test.groups, "labels": test.labels, "mask": test.mask}
        arrays = {key: array for key, array in shown.items() if array is not None}
        save_artefact(folder, KIND, {**known, "arms": list(ARMS)}, arrays={"hits": hits, **arrays})
        cell = load_cell(folder)
        run.metrics(cell.accuracy, prefix=f"augmentation.{len(rows)}.")
        written = {**asked, "accuracy": cell.accuracy, "samples": {"train": len(rows), "test": len(test)}}
        write_json(root / f"results/augmentation/{name}.json", written)


def answers(rows: Dataset, test: Dataset, params: Params, seed: int) -> np.ndarray:
    """Where the classifiers of each arm read the test rows rightly: (arms, 1 + M, N) bool."""
    from postprior.pipelines.metrics.utility.classical import Classical
    from postprior.pipelines.metrics.utility.classifiers import train_classifiers

    generator, number = pair(rows, params, seed), MOST * len(rows)
    samples = generator.sample(number, seed, **as_set(params.generate, number))
    classical, hits = Classical(rows), []
    with progress(f"augment {len(rows)}", len(ARMS)) as step:
        for copies, changed in ARMS.values():
            parts = [rows, samples.select(np.arange(copies * len(rows)))] if copies else [rows]
            learned = train_classifiers(parts, recipe(params), seed, classical if changed else None)
            if samples.labels is None:  # the first arm has learned from the real rows alone
                samples = replace(samples, labels=learned.predict(samples)[0], label_names=rows.label_names)
            hits.append(learned.hits(test))
            step(f"accuracy {hits[-1][0].mean():.3f}")
    return np.stack(hits)


def few(train: Dataset, size: str, seed: int) -> Dataset:
    """So many training rows, each label in its share, or all of them."""
    if size == ALL:
        return train
    if not size.isdecimal() or not 1 <= int(size) <= len(train):
        raise UserError(
            f"size: found {size}, expected a whole number from 1 to {len(train)}, the number of training rows, or {ALL}"
        )
    labels = np.zeros(len(train), int) if train.labels is None else train.labels
    return train.select(stratified(labels, int(size), np.random.default_rng(seed)))


def stratified(labels: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Random rows (size,), in order, with each label as often as in `labels` (N,).

    >>> np.bincount(np.repeat([0, 1], [60, 40])[stratified(np.repeat([0, 1], [60, 40]), 10, np.random.default_rng(0))])
    array([6, 4])
    """
    names, counts = np.unique(labels, return_counts=True)
    wanted = apportion({str(name): float(count) for name, count in zip(names, counts, strict=True)}, size)
    order = rng.permutation(len(labels))
    chosen = [order[labels[order] == name][: wanted[str(name)]] for name in names]
    return np.sort(np.concatenate(chosen))


def pair(rows: Dataset, params: Params, seed: int) -> Generator:
    """The autoencoder of these rows, and the density of its codes of these rows."""
    from postprior.stage1_vae import training

    name = params.augment.density
    vae = params.vae.model_copy(update={"model": params.augment.model})
    model = build(params.model_copy(update={"vae": vae, "seed": seed}), rows)
    epochs = epochs_of(params.augment.steps, len(rows), params.train.batch_size)
    options = params.train.model_dump() | {"epochs": epochs, "patience": 0}
    total = sum(training.epochs_of(phase, training.Settings(**options)) for phase in model.phases())
    with progress(f"train {params.augment.model}", total) as step:
        for epoch in mendable(training.train(model, rows, training.Settings(**options, seed=seed))):
            step(f"loss {epoch.metrics['train_loss']:.1f}")
    model.to("cpu")
    codes = posteriors(model, rows, params.encode.components, training.generator_for("cpu", seed, 0))
    encoder = EncoderOfRows(model, rows)
    manifest, tensors = learn(name, params.density[name], {"train": codes}, seed, encoder)
    density = density_of(Artefact(manifest, tensors, {}, ""), Path(f"density.{name}"))
    return Generator(model, density, {})


def epochs_of(steps: int, rows: int, batch_size: int) -> int:
    """Passes over the rows that come to about so many steps.

    >>> epochs_of(800, 100, 64), epochs_of(800, 5000, 64)
    (400, 10)
    """
    return max(1, round(steps / math.ceil(rows / batch_size)))


class EncoderOfRows(FrozenEncoder):
    """The encoder of an autoencoder in memory, for densities that learn with one.

    Args:
        model: the autoencoder.
        rows: what it was trained on.
    """

    def __init__(self, model: MultimodalVAE, rows: Dataset) -> None:
        self.model, self.data = model.requires_grad_(False), rows
