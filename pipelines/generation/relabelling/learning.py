"""Learn the labels of synthetic rows from training rows, where held-out rows say that they are better than a density's.

Both sides are judged by values alone. Trees that learn from training rows are compared with trees that learn from as
many samples and the labels that the density gave them: by their log loss of a fifth of the training rows, from which
neither learned. What rows lack is known to the trees, since labels are drawn last.
"""

from __future__ import annotations

import math

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.fitting import FrozenEncoder
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.missingness.model import Missingness
from postprior.pipelines.generation.relabelling.model import Relabelling, features, offsets_for, softmax
from postprior.pipelines.generation.relabelling.trees import BoostedTrees
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.stage1_vae.randomness import generator_for, seed_from
from postprior.stage2_latent.density import Density

FEWEST = 20  # held-out rows, at least
FOLDS = 5  # a row in this many is held out
ROWS, NUMBERS = 20_000, 2**23  # training rows, and features of all of them, at most
CLEAR = 2.0  # standard errors of the gain, at least
STEPS = (50, 200)  # of boosting: both sides are compared after the fewest, and held-out rows choose for samples


def learned_relabelling(
    density: Density, train: Dataset, seed: int, encoder: FrozenEncoder, missingness: Missingness | None
) -> Relabelling | None:
    """Return what draws the labels of samples of a density given their values; None where its own labels stay.

    They stay where a modality is no table, with few rows, and where held-out rows do not clearly say otherwise.

    Args:
        train: The training rows, whose codes the density was fitted to.
        encoder: The encoder of these codes.
        missingness: What samples lack.
    """
    if train.labels is None or not density.classes.labelled or not all(m.columns for m in train.modalities):
        return None
    rng, labels = np.random.default_rng(seed_from(generator_for("cpu", seed, 4))), density.classes.labels.numpy()
    values = sum(math.prod(m.shape) for m in train.modalities)
    rows = rng.permutation(np.flatnonzero(np.isin(train.labels, labels)))[: min(ROWS, NUMBERS // values)]
    classes = np.searchsorted(labels, train.labels[rows])
    held_out = rank_within(classes) % FOLDS == FOLDS - 1
    if len(labels) < 2 or len(np.unique(classes)) < len(labels) or held_out.sum() < FEWEST:
        return None
    generator = Generator(encoder.trained[0], density, {}, train.conversion, missingness=missingness)
    samples = generator.draw(SampleRequest(seed=seed, labels=labels[classes]))
    real, drawn = features(train.select(rows)), features(samples)

    def losses(x: Floats, steps: int) -> Floats:
        """Return the log loss of each held-out row after learning from the other rows, with the features x (N, F)."""
        trees = BoostedTrees.fit(x[~held_out], classes[~held_out], len(labels), steps, seed)
        given = softmax(trees.scores(real[held_out]))
        loss: Floats = -np.log(given[np.arange(len(given)), classes[held_out]].clip(1e-300))
        return loss

    fewest, *more = STEPS
    known, own = losses(real, fewest), losses(drawn, fewest)
    gain = own - known
    if gain.mean() <= CLEAR * gain.std(ddof=1) / np.sqrt(len(gain)):
        return None
    by_steps = {fewest: float(known.mean())} | {steps: float(losses(real, steps).mean()) for steps in more}
    trees = BoostedTrees.fit(real, classes, len(labels), min(by_steps, key=by_steps.__getitem__), seed)
    offsets = offsets_for(trees.scores(drawn), density.classes.probabilities.double().numpy())
    return Relabelling(labels, trees, offsets, {"values": float(known.mean()), "density": float(own.mean())})


def rank_within(classes: Ints) -> Ints:
    """Return the place of each row (N,) among the rows of its class, from 0.

    >>> rank_within(np.array([0, 1, 0, 0, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(classes, kind="stable")
    counts = np.bincount(classes)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order)) - np.repeat(counts.cumsum() - counts, counts)
    return ranks
