"""Training of label classifiers: those of different modalities do not depend on one another and learn in parallel."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.metrics.features.descent import Descent
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.threads import exhaust
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.randomness import seed_from

SHIFT = 1  # maximum shift of training images in pixels


class Rows:
    """The labelled rows of datasets with the same modalities and labels, numbered through all of them."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        labels = np.concatenate([part.labels for part in parts if part.labels is not None])
        self.places = np.flatnonzero(labels >= 0)  # (N,), among all rows
        self.labels = torch.from_numpy(labels[self.places])
        self.observed = torch.from_numpy(np.concatenate([part.observed for part in parts])[self.places])  # (N, M)

    def __len__(self) -> int:
        return len(self.observed)

    def values(self, modality: Modality, rows: Tensor) -> Tensor:
        """Return the values (n, *shape) of a modality in rows (n,)."""
        values, numbers = np.empty((len(rows), *modality.shape), np.float32), self.places[rows.numpy()]
        for part, end in zip(self.parts, self.ends, strict=True):
            here = (end - len(part) <= numbers) & (numbers < end)
            values[here] = values_of(part, modality, numbers[here] - end + len(part))
        return torch.from_numpy(values)


class Step(NamedTuple):
    """A training step of the classifier of one modality, on the rows of a minibatch that have the modality."""

    rows: Tensor  # (n,), their places in the minibatch
    features: Tensor  # (n, F), before the step
    logits: Tensor  # (n, C), before the step
    labels: Tensor  # (n,)


class Learner:
    """The training of the classifier of one modality: cross-entropy on the rows that have the modality.

    Args:
        classifiers: All classifiers, with the moments of their input.
        index: The index of the modality.
        rate: The highest learning rate; see `Descent`.
        steps: The number of all training steps.
    """

    def __init__(self, classifiers: LabelClassifiers, index: int, rate: float, steps: int) -> None:
        self.classifiers, self.index, self.modality = classifiers, index, classifiers.modalities[index]
        self.body, self.head = (part[self.modality.name] for part in (classifiers.bodies, classifiers.heads))
        self.descent = Descent(nn.ModuleList([self.body, self.head]), rate, steps)

    def steps(self, rows: Rows, order: Tensor, batch_size: int, distort: Callable[[Tensor], Tensor]) -> Iterator[Step]:
        """Take a step for each minibatch of an order of rows (n,); several minibatches are read at once."""
        for block in order.split(max(1, BLOCK // batch_size) * batch_size):
            values = distort(rows.values(self.modality, block))
            minibatches = (
                x.split(batch_size) for x in (self.classifiers.standardised(self.modality.name, values), block)
            )
            for x, numbers in zip(*minibatches, strict=True):
                (seen,) = rows.observed[numbers, self.index].nonzero(as_tuple=True)
                labels, features = rows.labels[numbers[seen]], self.body(x[seen])
                logits = self.head(features)
                self.descent.step(F.cross_entropy(logits, labels, reduction="sum") / max(1, len(labels)))
                yield Step(seen, features.detach(), logits.detach(), labels)


@dataclass(frozen=True)
class Epoch:
    """One pass over the data, counted from 1: mean cross-entropy and accuracy over modalities during training."""

    number: int
    loss: float
    accuracy: float


def train_label_classifiers(
    classifiers: LabelClassifiers,
    dataset: Dataset,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Iterator[Epoch]:
    """Train all classifiers together by cross-entropy on observed values of labelled rows (AdamW, see `Descent`).

    Raises ValueError if the dataset has no labels.
    """
    if dataset.labels is None:
        raise ValueError("label classifiers learn from labels, but the dataset has none")
    classifiers.standardise(dataset)
    rows = Rows([dataset])
    minibatches = math.ceil(len(rows) / batch_size)
    learners = [Learner(classifiers, m, learning_rate, epochs * minibatches) for m in range(len(dataset.modalities))]
    shifts = [Shift(torch.Generator().manual_seed(seed_from(generator)), batch_size) for _ in learners]
    for epoch in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        sums = torch.zeros(len(learners), 3, dtype=torch.float64)  # cross-entropy, correct predictions, values
        tasks = zip(learners, shifts, sums, strict=True)
        exhaust([_summed(learner.steps(rows, order, batch_size, shift), s) for learner, shift, s in tasks])
        yield Epoch(epoch + 1, *(sums[:, :2].sum(0) / sums[:, 2].sum()).tolist())
    classifiers.eval()


def _summed(steps: Iterable[Step], sums: Tensor) -> Iterator[None]:
    """Add the cross-entropy, the correct predictions and the number of values of each step to sums (3,)."""
    for step in steps:
        loss, correct = F.cross_entropy(step.logits, step.labels, reduction="sum"), step.logits.argmax(1) == step.labels
        sums += torch.stack([loss, correct.sum(), torch.tensor(len(correct))])
        yield


class Shift:
    """Shifts of images, up to `SHIFT` pixels in each direction and the same in a minibatch; edges are repeated."""

    def __init__(self, generator: torch.Generator, batch_size: int) -> None:
        self.generator, self.batch_size = generator, batch_size

    def __call__(self, values: Tensor) -> Tensor:
        """Return shifted images (n, C, H, W); values of other shapes are returned unchanged."""
        return (
            torch.cat([self.once(images) for images in values.split(self.batch_size)]) if values.dim() == 4 else values
        )

    def once(self, images: Tensor) -> Tensor:
        """Shift the images (B, C, H, W) of a minibatch together."""
        row, column = torch.randint(2 * SHIFT + 1, (2,), generator=self.generator).tolist()
        height, width = images.shape[-2:]
        return F.pad(images, [SHIFT] * 4, mode="replicate")[..., row : row + height, column : column + width]
