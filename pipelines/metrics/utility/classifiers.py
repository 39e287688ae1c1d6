"""Utility classifiers: trained on one set of rows with a fixed recipe and tested on another.

Train on synthetic, test on real, and the reverse (Esteban et al. 2017, https://arxiv.org/abs/1706.02633).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import emptied
from postprior.pipelines.metrics.features.descent import Descent
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.learning import Learner, Rows, Step
from postprior.pipelines.metrics.statistics.intervals import Ints, Score, estimate, half_samples, mean_of_present
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import substeps
from postprior.pipelines.settings.params import Params
from postprior.pipelines.threads import exhaust
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import generator_for

ROUND = 256
"""Steps of the classifiers of single modalities, after which the joint one follows with the features of these steps."""

Distortion = Callable[[Modality, Tensor, torch.Generator], Tensor]
"""A random transformation of a modality's values (B, *shape), applied each time they are used for training."""


class Classifiers(nn.Module):
    """One label classifier per modality and a joint one, a linear head on the concatenated features.

    The joint head's loss is not propagated to the features, so each label classifier depends on its modality only. In
    the joint head, the features of an unobserved modality are 0. Arguments are those of `LabelClassifiers`. No global
    random generator is used.
    """

    def __init__(
        self, modalities: tuple[Modality, ...], label_names: tuple[str, ...], features: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.alone = LabelClassifiers(modalities, label_names, features, seed)  # named as in the stored state dict
        self.joint = nn.utils.skip_init(nn.Linear, features * len(modalities), len(label_names))
        for parameter in self.joint.parameters():
            nn.init.zeros_(parameter)

    @property
    def label_classifiers(self) -> LabelClassifiers:
        """The label classifiers of the single modalities."""
        return self.alone

    def forward(self, batch: Batch) -> Tensor:
        """Return logits (B, 1 + M, C), the joint classifier first."""
        features = {name: self.label_classifiers.features(name, values) for name, values in batch.data.items()}
        observed = zip(features.values(), batch.observed.T, strict=True)
        inputs = [x.detach() * present[:, None] for x, present in observed]
        logits = [self.label_classifiers.heads[name](x) for name, x in features.items()]
        return torch.stack([self.joint(torch.cat(inputs, 1)), *logits], 1)

    @torch.inference_mode()
    def predict(self, dataset: Dataset) -> NDArray[np.int64]:
        """Return predicted labels (1 + M, N), the joint classifier first, computed in blocks."""
        starts = range(0, len(dataset), BLOCK)
        rows = emptied(dataset)
        blocks = [self(rows.batch(slice(start, start + BLOCK))).argmax(2) for start in starts]
        return torch.cat(blocks).T.numpy()

    def hits(self, dataset: Dataset) -> NDArray[np.bool_]:
        """Return which predicted labels are correct (1 + M, N); false for rows on which a classifier is not tested."""
        return (self.predict(dataset) == dataset.labels) & rows_by_classifier(dataset.labels, dataset.observed)


@dataclass(frozen=True)
class Recipe:
    """Training settings, equal for every set of rows: more rows do not mean more steps."""

    steps: int  # total number of minibatches
    batch_size: int  # rows per minibatch
    learning_rate: float  # AdamW's, at the maximum of its cycle
    features: int  # width of the last hidden layer per modality


def train_classifiers(
    parts: Sequence[Dataset], recipe: Recipe, seed: int, distortion: Distortion | None = None
) -> Classifiers:
    """Train classifiers on the rows of all parts by cross-entropy on observed modalities.

    Parts are datasets with the same modalities and labels; values are standardised by the moments of the first part. No
    row is held out for model selection: the result has the weights of the last step. The seed determines the initial
    weights, the order of rows and the distortion. The classifiers of single modalities are trained in parallel; the
    joint one learns from the features that they had at each step.
    """
    first, rows = parts[0], Rows(parts)
    classifiers = Classifiers(first.modalities, first.label_names or (), recipe.features, seed)
    classifiers.label_classifiers.standardise(first)
    generator, settings = generator_for("cpu", seed, 1), (recipe.learning_rate, recipe.steps)
    joint = Descent(classifiers.joint, *settings)
    learners = [Learner(classifiers.label_classifiers, m, *settings) for m in range(len(first.modalities))]
    distortions = [_of_modality(distortion, m, seed, index) for index, m in enumerate(first.modalities)]
    for order in substeps(_orders(len(rows), recipe, generator), -(-recipe.steps // ROUND)):
        features = torch.zeros(len(learners), len(order), recipe.features)  # 0 where a row lacks the modality
        columns = [column.split(recipe.batch_size) for column in features]
        tasks = zip(learners, distortions, columns, strict=True)
        exhaust([_kept(learner.steps(rows, order, recipe.batch_size, d), column) for learner, d, column in tasks])
        for inputs, numbers in zip(zip(*columns, strict=True), order.split(recipe.batch_size), strict=True):
            joint.step(F.cross_entropy(classifiers.joint(torch.cat(inputs, 1)), rows.labels[numbers]))
    return classifiers.eval()


def _orders(rows: int, recipe: Recipe, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows (≤ `ROUND` · batch size,) of successive steps, from successive permutations of all rows."""
    queue = torch.empty(0, dtype=torch.long)
    for start in range(0, recipe.steps, ROUND):
        size = min(ROUND, recipe.steps - start) * recipe.batch_size
        missing = range(math.ceil((size - len(queue)) / rows))
        queue = torch.cat([queue, *(torch.randperm(rows, generator=generator) for _ in missing)])
        order, queue = queue.tensor_split([size])
        yield order


def _kept(steps: Iterable[Step], features: Sequence[Tensor]) -> Iterator[None]:
    """Keep the features of each step in the place of its minibatch, (B, F) each."""
    for step, kept in zip(steps, features, strict=True):
        kept[step.rows] = step.features
        yield


def _of_modality(
    distortion: Distortion | None, modality: Modality, seed: int, index: int
) -> Callable[[Tensor], Tensor]:
    """Return the distortion of the values of one modality, with a generator of its own."""
    if distortion is None:
        return lambda values: values
    generator = generator_for("cpu", seed, 2, index)
    return lambda values: distortion(modality, values, generator)


def rows_by_classifier(labels: Ints | None, observed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the rows on which each classifier is tested (1 + M, N): those that have a label and its modality.

    The joint classifier, which comes first, needs no certain modality. Shapes: labels (N,), observed (N, M).
    """
    tested = np.concatenate([np.ones((1, len(observed)), bool), observed.T])
    return tested if labels is None else tested & (labels >= 0)


@dataclass(frozen=True)
class Replicates:
    """Half-samples of training seeds and of sources of test rows, drawn independently.

    An accuracy is a mean over two crossed factors. Half-samples of both give the sum of both variances, as in the
    bootstrap of Owen (2007, https://doi.org/10.1214/07-AOAS122). With one seed, the interval covers only the variation
    of test rows.
    """

    seeds: NDArray[np.float64]  # (1 + B, S), the full sample first
    rows: NDArray[np.float64]  # (1 + B, N)

    @classmethod
    def draw(
        cls, seeds: int, groups: Ints, resamples: int, rng: np.random.Generator, strata: Ints | None = None
    ) -> Self:
        """Draw weights of S seeds, and of test rows by groups (N,) within strata (N,)."""
        return cls(half_samples(np.arange(seeds), resamples, rng), half_samples(groups, resamples, rng, strata))

    def accuracy(self, hits: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return accuracies (1 + B, K) of K classifiers from hits (S, K, N), over the rows that test each (K, N).

        NaN if a half-sample keeps no row that tests the classifier.
        """
        correct = np.einsum("bs,skb->bk", self.seeds, hits.astype(np.float64) @ self.rows.T, optimize=True)
        total = self.rows @ seen.T * self.seeds.sum(1)[:, None]  # (1 + B, K)
        return np.divide(correct, total, where=total > 0, out=np.full_like(correct, np.nan))


def classifier_estimates(
    values: NDArray[np.float64], modalities: Sequence[str], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> dict[str, Any]:
    """Return estimates for the joint classifier, the mean over modalities and each modality; values (1 + B, 1 + M).

    A modality that no row has is missing, and the mean leaves it out.
    """
    return by_classifier(values, modalities, lambda score: estimate(score, bounds))


def ratio_estimates(
    values: NDArray[np.float64], real: NDArray[np.float64], rows: int, modalities: Sequence[str]
) -> dict[str, Any]:
    """Return estimates of accuracies divided by those of classifiers trained on real rows, both (1 + B, 1 + M).

    A classifier that labels none of the N rows correctly after training on real rows has no ratio.
    """
    undefined = real[0] == 0
    ratios = values / np.maximum(real, 1 / rows)
    return by_classifier(ratios, modalities, lambda score: estimate(score, (0, math.inf)), undefined)


def by_classifier(
    values: NDArray[np.float64],
    modalities: Sequence[str],
    function: Callable[[Score], Any],
    undefined: NDArray[np.bool_] | None = None,
) -> dict[str, Any]:
    """Apply `function` to the scores `joint`, `mean` and those of `modalities`, given as values (1 + B, 1 + M).

    `undefined` (1 + M,) says which of them are ratios to an accuracy of 0.
    """
    lacking = [
        Missing("no test row is labelled correctly after training on real rows") if x else None
        for x in (np.zeros(values.shape[1], bool) if undefined is None else undefined)
    ]
    joint, *columns = values.T
    scores: dict[str, Score] = {
        name: Missing(f"no test row with a label has {name}") if np.isnan(column[0]) else none or column
        for name, column, none in zip(modalities, columns, lacking[1:], strict=True)
    }
    by_modality = {name: function(score) for name, score in scores.items()}
    return {
        "joint": function(Missing("no test row has a label") if np.isnan(joint[0]) else lacking[0] or joint),
        "mean": function(mean_of_present(list(scores.values()))),
        "modalities": by_modality,
    }


def recipe(params: Params) -> Recipe:
    """Return the training settings of all utility classifiers."""
    settings = params.utility
    return Recipe(settings.steps, settings.batch_size, settings.learning_rate, params.evaluators.features)


def modality_names(dataset: Dataset) -> list[str]:
    """Return the names of the modalities."""
    return [m.name for m in dataset.modalities]
