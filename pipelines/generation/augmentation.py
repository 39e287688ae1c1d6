"""Augmentation: test whether synthetic rows help a classifier that has few real training rows.

The autoencoder, the density and every classifier see the same few training rows and no others.
"""

import math
from dataclasses import replace

import numpy as np

from postprior.pipelines.artefacts.autoencoder import as_user_errors, build
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.fitting import FrozenEncoder, fit_density
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.missingness.learning import learned_missingness
from postprior.pipelines.generation.relabelling.learning import learned_relabelling
from postprior.pipelines.generation.request import REFINED, SampleRequest, apportion
from postprior.pipelines.metrics.statistics.intervals import Ints
from postprior.pipelines.metrics.utility.augmentation import Classical
from postprior.pipelines.metrics.utility.classifiers import recipe, train_classifiers
from postprior.pipelines.progress import progress, substeps
from postprior.pipelines.settings.names import is_count
from postprior.pipelines.settings.params import ALL, Params
from postprior.stage1_vae import training
from postprior.stage1_vae.randomness import generator_for

ARMS = {  # number of synthetic rows per real row, and whether rows are augmented classically during training
    "real": (0, False),
    "classical": (0, True),
    "synthetic_1x": (1, False),
    "synthetic_5x": (5, False),
    "both_1x": (1, True),
    "both_5x": (5, True),
}
MOST = max(copies for copies, _ in ARMS.values())


def stratified_subsample(train: Dataset, size: str, seed: int) -> Dataset:
    """Select `size` random training rows, stratified by label, or all; rows without a label only if none has one."""
    usable = np.arange(len(train)) if train.labels is None else np.flatnonzero(train.labelled)
    if size == ALL:
        return train if len(usable) == len(train) else train.select(usable)
    if not is_count(size) or not 1 <= int(size) <= len(usable):
        noun = "training rows" if len(usable) == len(train) else "training rows with a label"
        raise UserError(
            f"size: found {size}, expected {ALL} or a whole number from 1 to {len(usable)}, the number of {noun}"
        )
    labels = np.zeros(len(train), int) if train.labels is None else train.labels
    return train.select(usable[stratified(labels[usable], int(size), np.random.default_rng(seed))])


def stratified(labels: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Select random rows (size,), in order, with the label proportions of `labels` (N,).

    >>> np.bincount(np.repeat([0, 1], [60, 40])[stratified(np.repeat([0, 1], [60, 40]), 10, np.random.default_rng(0))])
    array([6, 4])
    """
    names, counts = np.unique(labels, return_counts=True)
    sizes = apportion(dict(zip(names.tolist(), counts.tolist(), strict=True)), size)
    order = rng.permutation(len(labels))
    return np.sort(np.concatenate([order[labels[order] == name][:n] for name, n in sizes.items()]))


def arm_hits(rows: Dataset, test: Dataset, params: Params, seed: int) -> np.ndarray:
    """Train the classifiers of every arm and return where they classify test rows correctly: (arms, 1 + M, N) bool.

    A refiner needs more than a few rows, so that samples whose values would be `refined` have those of `auto`.
    """
    values = "auto" if params.generate.values == REFINED else None
    request = SampleRequest.from_settings(params.generate, MOST * len(rows), seed=seed, values=values)
    classical, hits = Classical(rows), []
    with progress(f"augment {len(rows)}", 2 + len(ARMS)) as step:
        generator = train_generator(rows, params, seed)
        step("autoencoder and density")
        samples = generator.draw(request)
        step("samples")
        for copies, augmented in ARMS.values():
            datasets = [rows, samples.select(np.arange(copies * len(rows)))] if copies else [rows]
            classifiers = train_classifiers(datasets, recipe(params), seed, classical if augmented else None)
            if samples.labels is None:  # the classifiers of the first arm, trained on real rows only, label the samples
                samples = replace(samples, labels=classifiers.predict(samples)[0], label_names=rows.label_names)
            hits.append(classifiers.hits(test))
            step(f"accuracy {hits[-1][0].mean():.3f}")
    return np.stack(hits)


def train_generator(rows: Dataset, params: Params, seed: int) -> Generator:
    """Train an autoencoder on these rows and fit a density to the codes of the same rows."""
    name = params.augment.density
    vae = params.vae.model_copy(update={"model": params.augment.model})
    model = build(params.model_copy(update={"vae": vae, "seed": seed}), rows)
    epochs = epochs_of(params.augment.steps, len(rows), params.train.batch_size)
    settings = training.Settings(**params.train.model_dump() | {"epochs": epochs, "patience": 0, "seed": seed})
    total = sum(training.epochs_of(model.phases(), settings))
    with progress(f"train {params.augment.model}, fit {name}", 2) as step:
        for _ in substeps(as_user_errors(training.train(model, rows, settings)), total):
            pass
        step("autoencoder")
        model.to("cpu")
        codes = posteriors(model, rows, params.encode.components, generator_for("cpu", seed, 0))
        encoder = FrozenEncoder(lambda: (model, rows))
        density, _ = fit_density(name, params.density[name], {"train": codes}, seed, encoder)
        missingness = learned_missingness(density, rows, codes, seed, encoder)
        relabelling = learned_relabelling(density, rows, seed, encoder, missingness)
        step("density")
    return Generator(model, density, {}, rows.conversion, missingness=missingness, relabelling=relabelling)


def epochs_of(steps: int, rows: int, batch_size: int) -> int:
    """Return the number of epochs that take about `steps` training steps.

    >>> epochs_of(800, 100, 64), epochs_of(800, 5000, 64)
    (400, 10)
    """
    return max(1, round(steps / math.ceil(rows / batch_size)))
