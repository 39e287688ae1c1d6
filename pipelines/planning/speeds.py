"""How fast this machine is: a few steps of the project's own networks, and of fixed small computations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Self

import numpy as np
import torch

from postprior.pipelines.artefacts.autoencoder import as_user_errors, build
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.training import epochs_by_phase
from postprior.pipelines.metrics.utility.classifiers import recipe, train_classifiers
from postprior.pipelines.settings.params import Params
from postprior.stage1_vae import training
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for

BATCHES = 2  # training steps between two measurements
REPEATS = 3  # of a measurement; the shortest counts, since other processes may disturb it
REFERENCE = 5.3e-3  # seconds of `small_steps` on one core of the machine of the constants in `costs`


@dataclass(frozen=True)
class Speeds:
    """Seconds that this machine takes, measured with the networks, the batches and the device of the settings."""

    step: float  # per training step of the autoencoder
    augment_step: float  # per training step of the autoencoder of the stage `augment`
    encode: float  # per encoded row
    decode: float  # per decoded row
    classifier_step: float  # per training step of the label classifiers
    classify: float  # per row whose labels are predicted from each modality
    pace: float  # as a multiple of the seconds on the machine on which the constants of `costs` were measured

    @classmethod
    def measure(cls, params: Params, model: Autoencoder, sample: Dataset) -> Self:
        """Measure all speeds in about three seconds, with an untrained autoencoder and rows of the data."""
        rows = sample.select(np.arange(BATCHES * params.train.batch_size) % len(sample))
        vae = params.vae.model_copy(update={"model": params.augment.model})
        step = 0.0
        if isinstance(model, MultimodalVAE):
            step = _training_step(model, rows, params, epochs_by_phase(params, model))
        augmenter = build(params.model_copy(update={"vae": vae}), rows)
        augment_step = _training_step(augmenter, rows, params, [phase.share for phase in augmenter.phases()])
        encode, decode = _passes(model.to("cpu").eval(), rows)
        classifier_step, classify = (0.0, 0.0) if rows.labels is None else _classifiers(rows, params)
        pace = shortest(small_steps) / REFERENCE
        return cls(step, augment_step, encode, decode, classifier_step, classify, pace)


def shortest(action: Callable[[], object]) -> float:
    """Return the shortest time of a few calls, in seconds."""
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        action()
        seconds.append(perf_counter() - start)
    return min(seconds)


def small_steps() -> None:
    """Run operations on small and on larger matrices: what densities and scores consist of."""
    matrix = torch.eye(256)
    vector = matrix[0]
    for _ in range(1200):
        vector = vector + matrix[1]
    for _ in range(10):
        matrix = matrix @ matrix


def _training_step(model: MultimodalVAE, rows: Dataset, params: Params, shares: Sequence[float]) -> float:
    """Return the seconds per training step, averaged over the phases by their shares of the epochs.

    The first epoch of each phase is slow, so each has `REPEATS` epochs.
    """
    phases = model.phases()
    settings = training.Settings(**params.train.model_dump() | {"epochs": [REPEATS] * len(phases), "patience": 0})
    seconds: dict[str, list[float]] = {}
    last = perf_counter()
    for epoch in as_user_errors(training.train(model, rows, settings)):
        now = perf_counter()
        seconds.setdefault(epoch.phase, []).append((now - last) / BATCHES)
        last = now
    fastest = [min(seconds[phase.name]) for phase in phases]
    return sum(share * step for share, step in zip(shares, fastest, strict=True)) / sum(shares)


@torch.no_grad()
def _passes(model: Autoencoder, rows: Dataset) -> tuple[float, float]:
    """Return the seconds to encode and to decode a row."""
    batch, noise = rows.batch(slice(None)), generator_for("cpu", 0)
    every = torch.ones(1, len(model.modalities), dtype=torch.bool)
    latents = model.infer(batch, every, noise)[:, 0]
    encode = shortest(lambda: model.infer(batch, every, noise))
    decode = shortest(lambda: [model.decode_one(m, latents).mean for m in model.modalities])
    return encode / len(rows), decode / len(rows)


def _classifiers(rows: Dataset, params: Params) -> tuple[float, float]:
    """Return the seconds per training step of the label classifiers, and to predict the labels of a row."""
    steps = replace(recipe(params), steps=REPEATS)
    classifiers = train_classifiers([rows], steps, 0)
    return (
        shortest(lambda: train_classifiers([rows], steps, 0)) / REPEATS,
        shortest(lambda: classifiers.predict(rows)) / len(rows),
    )
