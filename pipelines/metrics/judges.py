"""Judges: small classifiers, one a modality, that read labels and give the features of every distance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.metrics.readings import Readings
from stage1_vae.modalities import Batch, Modality
from stage1_vae.model import seeded
from stage1_vae.networks.convolutional import CONVOLUTIONS
from stage1_vae.networks.inputs import reader

BLOCK = 256  # rows read at a time: fixed, so that the bytes of the features never depend on it
POOLS: dict[int, type[nn.Module]] = {
    1: nn.AdaptiveAvgPool1d,
    2: nn.AdaptiveAvgPool2d,
    3: nn.AdaptiveAvgPool3d,
}
SHIFT = 1  # images are trained shifted by up to so many pixels


class Judges(nn.Module):
    """One classifier a modality over the same C classes; its last hidden layer is that modality's feature space.

    Inputs are those that encoders read, standardised by the moments of the training data, which are part of the state.

    Args:
        modalities: the M modalities, in the order of the dataset.
        label_names: the names of the C classes.
        features: width F of the last hidden layer.
        seed: seed of the initial weights; no global generator is touched.
    """

    def __init__(
        self, modalities: tuple[Modality, ...], label_names: tuple[str, ...], features: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.modalities, self.label_names, self.features = tuple(modalities), tuple(label_names), features
        prepared = {m.name: reader(m) for m in modalities}
        with seeded(seed):
            self.bodies = nn.ModuleDict({name: body(of.shape, features) for name, of in prepared.items()})
            self.heads = nn.ModuleDict({m.name: nn.Linear(features, self.classes) for m in modalities})
        self.inputs = nn.ModuleDict(prepared)
        for m in modalities:
            channels, *space = prepared[m.name].shape
            shape = (channels, *[1] * len(space))  # one moment a channel, or a column
            self.register_buffer(f"{m.name}_mean", torch.zeros(shape))
            self.register_buffer(f"{m.name}_deviation", torch.ones(shape))

    @property
    def classes(self) -> int:
        """C, the number of labels."""
        return len(self.label_names)

    def standardise(self, dataset: Dataset) -> None:
        """Take the moments of each modality from the rows where it is observed."""
        for index, m in enumerate(self.modalities):
            rows, moments = dataset.observed[:, index], self.get_buffer(f"{m.name}_mean")
            axes = (0, *range(2, 1 + moments.dim()))
            count, total, square = 1e-12, 0.0, 0.0
            for start in range(0, len(dataset), BLOCK):
                block = slice(start, start + BLOCK)
                chosen = np.asarray(dataset.data[m.name][block][rows[block]], np.float64)
                values = self.inputs[m.name](torch.from_numpy(chosen)).numpy()
                count += values.size / len(moments)
                total, square = total + values.sum(axes), square + (values**2).sum(axes)
            mean = torch.as_tensor(total / count)
            deviation = (torch.as_tensor(square / count) - mean**2).clamp_min(1e-12).sqrt()
            for name, moment in (("mean", mean), ("deviation", deviation)):
                buffer = self.get_buffer(f"{m.name}_{name}")
                buffer.copy_(moment.reshape(buffer.shape))

    def forward(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, F) and logits (B, C) of values (B, *shape) of one modality."""
        x = self.inputs[name](values)
        x = (x - self.get_buffer(f"{name}_mean")) / self.get_buffer(f"{name}_deviation")
        features = self.bodies[name](x)
        return features, self.heads[name](features)

    @torch.inference_mode()
    def look(self, name: str, values: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, F) and predicted classes (N,) of any number of values, read in fixed blocks."""
        blocks = [self(name, block) for block in values.split(BLOCK)]
        return torch.cat([features for features, _ in blocks]), torch.cat(
            [logits.argmax(1) for _, logits in blocks]
        )

    def read(self, dataset: Dataset) -> Readings:
        """What the judges see in all modalities, with the dataset's labels and groups; −1 where none was observed."""
        self._check(dataset)
        observed = dataset.observed
        features = tuple(np.zeros((len(dataset), self.features), np.float32) for _ in self.modalities)
        predictions = np.full(observed.shape, -1, np.int64)
        for start in range(0, len(dataset), BLOCK):
            rows = slice(start, start + BLOCK)
            batch = dataset.batch(rows)
            for m, modality in enumerate(self.modalities):
                seen, classes = self.look(modality.name, batch.data[modality.name])
                features[m][rows], predictions[rows, m] = seen.numpy(), classes.numpy()
        for known, values in zip(observed.T, features, strict=True):
            values[~known] = 0
        predictions[~observed] = -1
        return Readings(features, predictions, dataset.labels, dataset.groups)

    def label(self, data: dict[str, np.ndarray]) -> np.ndarray:
        """The label (n,) that most modalities of each tuple show; data[m] (n, *shape)."""
        return self.read(Dataset(self.modalities, data)).vote(self.classes)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and a plain description, the arguments of `from_state`."""
        modalities = [{"name": m.name, **m.describe()} for m in self.modalities]
        names = list(self.label_names)
        return self.state_dict(), {"modalities": modalities, "label_names": names, "features": self.features}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Judges:
        """The judges that gave this state."""
        modalities = tuple(
            Modality.from_description(entry["name"], entry) for entry in description["modalities"]
        )
        judges = cls(modalities, tuple(description["label_names"]), description["features"])
        judges.load_state_dict(tensors)
        return judges.eval()

    def _check(self, dataset: Dataset) -> None:
        found, expected = ({m.name: m.shape for m in of.modalities} for of in (dataset, self))
        if found != expected:
            raise UserError(
                f"dataset: modalities {found} found, the judges read {expected}; train them on such data."
            )


@dataclass(frozen=True)
class Epoch:
    """One pass over the data, counted from 1: mean cross-entropy and accuracy of the modalities while training."""

    number: int
    loss: float
    accuracy: float


def train_judges(
    judges: Judges,
    dataset: Dataset,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
) -> Iterator[Epoch]:
    """Train all judges at once by cross-entropy on observed values (Adam, one cycle of the learning rate).

    Raises ValueError where the dataset has no labels.
    """
    if dataset.labels is None:
        raise ValueError("judges learn from labels, the dataset has none")
    labels = torch.from_numpy(np.array(dataset.labels))
    judges.standardise(dataset)
    judges.train()
    steps = epochs * math.ceil(len(dataset) / batch_size)
    optimiser = torch.optim.Adam(judges.parameters(), learning_rate, foreach=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    for epoch in range(epochs):
        seen = torch.zeros(3, dtype=torch.float64)  # cross-entropy, hits, values
        for rows in torch.randperm(len(dataset), generator=generator).split(batch_size):
            loss, counts = _cross_entropy(judges, dataset.batch(rows.numpy()), labels[rows], generator)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            seen += counts
        yield Epoch(epoch + 1, *(seen[:2] / seen[2]).tolist())
    judges.eval()


def _cross_entropy(
    judges: Judges, batch: Batch, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a batch, each modality's mean summed, and the sums (loss, hits, values) that report it."""
    loss, counts = torch.zeros(()), torch.zeros(3, dtype=torch.float64)
    for observed, (name, values) in zip(batch.observed.T, batch.data.items(), strict=True):
        if not observed.any():
            continue
        x, y = values[observed], labels[observed]
        logits = judges(name, _shifted(x, generator) if x.ndim == 4 else x)[1]
        term = F.cross_entropy(logits, y)
        counts += torch.tensor([term.item() * len(y), (logits.argmax(1) == y).sum(), len(y)])
        loss = loss + term
    return loss, counts


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) moved together by up to SHIFT pixels each way, edges repeated."""
    row, column = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    height, width = images.shape[-2:]
    return F.pad(images, [SHIFT] * 4, mode="replicate")[..., row : row + height, column : column + width]


def body(shape: tuple[int, ...], features: int) -> nn.Module:
    """The network up to the features of values (C, *space): two hidden layers where there is no space.

    Else convolutions of stride 2 down to a length of about 4 along each axis, then one hidden layer.
    """
    channels, *size = shape
    if not size:
        return nn.Sequential(nn.Linear(channels, 128), nn.SiLU(), nn.Linear(128, features), nn.SiLU())
    convolution, pool = CONVOLUTIONS[len(size)], POOLS[len(size)]
    halvings = max(2, math.ceil(math.log2(min(size) / 4)))
    widths = [channels, *(min(32 * 2**level, 128) for level in range(halvings))]
    layers: list[nn.Module] = [
        layer
        for before, after in pairwise(widths)
        for layer in (convolution(before, after, 3, stride=2, padding=1), nn.SiLU())
    ]
    layers += [pool(4), nn.Flatten(), nn.Linear(4 ** len(size) * widths[-1], features), nn.SiLU()]
    return nn.Sequential(*layers)
