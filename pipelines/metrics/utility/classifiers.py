"""What data teach: classifiers of a fixed recipe, trained on one set of tuples and tested on another.

Train on synthetic, test on real, and the reverse (Esteban et al. 2017, https://arxiv.org/abs/1706.02633).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.label_classifiers import Descent, LabelClassifiers
from postprior.pipelines.metrics.statistics.intervals import Ints, Score, estimate, half_samples, mean_of
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.settings.params import Params
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import generator_for

Distortion = Callable[[Modality, Tensor, torch.Generator], Tensor]
"""What becomes of values (B, *shape) of a modality each time that they are learned from."""


class Classifiers(nn.Module):
    """A classifier of each of M modalities, and a joint one: a linear head on all their features side by side.

    The joint head learns from the features, the features do not learn from it: a modality's classifier is what that
    modality alone teaches. The features of a modality that a row lacks are 0 in the joint head. Arguments are those of
    `LabelClassifiers`; no global generator is touched.
    """

    def __init__(
        self, modalities: tuple[Modality, ...], label_names: tuple[str, ...], features: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.alone = LabelClassifiers(modalities, label_names, features, seed)
        self.joint = nn.utils.skip_init(nn.Linear, features * len(modalities), len(label_names))
        for parameter in self.joint.parameters():
            nn.init.zeros_(parameter)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, 1 + M, C), those of the joint classifier first."""
        seen = {name: self.alone.features(name, values) for name, values in batch.data.items()}
        observed = zip(seen.values(), batch.observed.T, strict=True)
        shown = [features.detach() * here[:, None] for features, here in observed]
        own = [self.alone.heads[name](features) for name, features in seen.items()]
        return torch.stack([self.joint(torch.cat(shown, 1)), *own], 1)

    @torch.inference_mode()
    def predict(self, dataset: Dataset) -> NDArray[np.int64]:
        """Predicted labels (1 + M, N), the joint classifier's first, read in blocks."""
        starts = range(0, len(dataset), BLOCK)
        blocks = [self(dataset.batch(slice(start, start + BLOCK))).argmax(2) for start in starts]
        return torch.cat(blocks).T.numpy()

    def hits(self, dataset: Dataset) -> NDArray[np.bool_]:
        """Where the labels are read rightly (1 + M, N); no modality that a row lacks is."""
        return (self.predict(dataset) == dataset.labels) & observed_by_classifier(dataset)


@dataclass(frozen=True)
class Recipe:
    """How classifiers are trained, the same for every set of rows: more rows are not more training."""

    steps: int  # minibatches in all
    batch_size: int  # rows of a minibatch
    learning_rate: float  # Adam's, at the top of its one cycle
    features: int  # width of a modality's last hidden layer


def train_classifiers(
    parts: Sequence[Dataset], recipe: Recipe, seed: int, distortion: Distortion | None = None
) -> Classifiers:
    """Classifiers of the rows of all parts together, by the cross-entropies of what the rows have.

    Parts are datasets of the same modalities, with labels; values are standardised by the moments of the first. No row
    is held out and none chosen by: the weights are those of the last step. The seed is that of the initial weights, of
    the order of the rows and of the distortion.
    """
    first = parts[0]
    classifiers = Classifiers(first.modalities, first.label_names or (), recipe.features, seed)
    classifiers.alone.standardise(first)
    generator = generator_for("cpu", seed, 1)
    descent = Descent(classifiers, recipe.learning_rate, recipe.steps)
    for rows in _orders(sum(map(len, parts)), recipe, generator):
        batch, labels = _together(parts, rows)
        if distortion is not None:
            values = {m.name: distortion(m, batch.data[m.name], generator) for m in first.modalities}
            batch = Batch(values, batch.observed)
        descent.step(_cross_entropies(classifiers(batch), batch.observed, labels))
    return classifiers.eval()


def _orders(rows: int, recipe: Recipe, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """The rows of every step: one permutation of all after another."""
    left = torch.empty(0, dtype=torch.long)
    for _ in range(recipe.steps):
        while len(left) < recipe.batch_size:
            left = torch.cat([left, torch.randperm(rows, generator=generator)])
        chosen, left = left.tensor_split([recipe.batch_size])
        yield chosen.numpy()


def _together(parts: Sequence[Dataset], rows: NDArray[np.int64]) -> tuple[Batch, Tensor]:
    """The rows of a minibatch, counted through all parts, and their labels."""
    batches, labels, start = [], [], 0
    for part in parts:
        chosen = rows[(rows >= start) & (rows < start + len(part))] - start
        start += len(part)
        if len(chosen):
            assert part.labels is not None
            batches.append(part.batch(chosen))
            labels.append(torch.from_numpy(np.array(part.labels[chosen])))
    data = {name: torch.cat([batch.data[name] for batch in batches]) for name in batches[0].data}
    return Batch(data, torch.cat([batch.observed for batch in batches])), torch.cat(labels)


def _cross_entropies(logits: Tensor, observed: Tensor, labels: Tensor) -> Tensor:
    """The joint classifier's mean cross-entropy, and that of each modality over the rows that have it, summed.

    Shapes: logits (B, 1 + M, C), observed (B, M), labels (B,).
    """
    classifiers = logits.shape[1]
    every = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(classifiers), reduction="none")
    seen = torch.cat([torch.ones_like(observed[:, :1]), observed], 1).to(every.dtype)  # (B, 1 + M)
    return ((every.view_as(seen) * seen).sum(0) / seen.sum(0).clamp_min(1)).sum()


def observed_by_classifier(dataset: Dataset) -> NDArray[np.bool_]:
    """The rows that each classifier reads (1 + M, N): the joint one all of them."""
    return np.concatenate([np.ones((1, len(dataset)), bool), dataset.observed.T])


@dataclass(frozen=True)
class Replicates:
    """Half-samples of both what is trained and what is tested: seeds and sources of the test rows are drawn apart.

    An accuracy is a mean over two crossed sets, and half-samples of both give the sum of both variances, after the
    bootstrap of Owen (2007, https://doi.org/10.1214/07-AOAS122). One seed says nothing of seeds: the interval
    is then that of test rows.
    """

    seeds: NDArray[np.float64]  # (1 + B, S), the full sample first
    rows: NDArray[np.float64]  # (1 + B, N)

    @classmethod
    def draw(
        cls, seeds: int, groups: Ints, resamples: int, rng: np.random.Generator, strata: Ints | None = None
    ) -> Self:
        """Weights of S seeds, and of test rows by their groups (N,), within strata (N,)."""
        return cls(half_samples(np.arange(seeds), resamples, rng), half_samples(groups, resamples, rng, strata))

    def accuracy(self, hits: NDArray[np.bool_], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Shares of right answers (1 + B, K) of K classifiers: hits (S, K, N), over the rows that each reads (K, N).

        NaN where a half-sample keeps none that a classifier reads.
        """
        right = np.einsum("bs,skb->bk", self.seeds, hits.astype(np.float64) @ self.rows.T, optimize=True)
        read = self.rows @ seen.T * self.seeds.sum(1)[:, None]  # (1 + B, K)
        return np.divide(right, read, where=read > 0, out=np.full_like(right, np.nan))


def classifier_estimates(
    values: NDArray[np.float64], modalities: Sequence[str], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> dict[str, Any]:
    """Estimates of the joint classifier, of the mean over modalities and of each modality; values (1 + B, 1 + M).

    A modality that no row has is missing, and the mean with it.
    """
    return by_classifier(values, modalities, lambda score: estimate(score, bounds))


def by_classifier(
    values: NDArray[np.float64], modalities: Sequence[str], tell: Callable[[Score], Any]
) -> dict[str, Any]:
    """What is told of scores by classifier; `joint`, `mean` and `modalities`, of values (1 + B, 1 + M)."""
    joint, *columns = values.T
    own: dict[str, Score] = {
        name: Missing(f"no tested row has {name}") if np.isnan(column[0]) else column
        for name, column in zip(modalities, columns, strict=True)
    }
    each = {name: tell(score) for name, score in own.items()}
    return {"joint": tell(joint), "mean": tell(mean_of(list(own.values()))), "modalities": each}


def recipe(params: Params) -> Recipe:
    """How all classifiers are trained."""
    settings = params.utility
    return Recipe(settings.steps, settings.batch_size, settings.learning_rate, params.evaluators.features)


def modality_names(dataset: Dataset) -> list[str]:
    """The names of the modalities."""
    return [m.name for m in dataset.modalities]
