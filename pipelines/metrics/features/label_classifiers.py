"""Label classifiers: one small network per modality that predicts labels and yields features for distances."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.extractor import BLOCK, FeatureSpace, modalities_of
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.networks.convolutional import CONVOLUTIONS
from postprior.stage1_vae.randomness import seeded

POOLS: dict[int, type[nn.Module]] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
SHIFT = 1  # maximum shift of training images in pixels


class LabelClassifiers(FeatureSpace):
    """One classifier per modality over the same C classes; the last hidden layer (B, F) is the feature space.

    The seed determines the initial weights. No global random generator is used.
    """

    def __init__(
        self, modalities: tuple[Modality, ...], label_names: tuple[str, ...], features: int, seed: int = 0
    ) -> None:
        super().__init__(modalities, features)
        self.label_names = tuple(label_names)
        with seeded(seed):
            self.bodies = nn.ModuleDict({m.name: body(self.shape(m.name), features) for m in modalities})
            self.heads = nn.ModuleDict({m.name: nn.Linear(features, self.classes) for m in modalities})

    @property
    def classes(self) -> int:
        """C, the number of labels."""
        return len(self.label_names)

    def features(self, name: str, values: Tensor) -> Tensor:
        """Return the last hidden layer (B, F) for values (B, *shape) of one modality."""
        return self.bodies[name](self.standardised(name, values))

    def logits(self, name: str, values: Tensor) -> Tensor:
        """Return logits (B, C) for values (B, *shape) of one modality."""
        return self.heads[name](self.features(name, values))

    @torch.inference_mode()
    def labels(self, name: str, values: Tensor) -> Tensor:
        """Return predicted classes (N,) for any number of values of one modality."""
        return torch.cat([self.logits(name, block).argmax(1) for block in values.split(BLOCK)])

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return named tensors and a plain description, the arguments of `from_state`."""
        tensors, description = super().state()
        return tensors, {**description, "label_names": list(self.label_names)}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """Rebuild the classifiers from what `state` returned."""
        classifiers = cls(modalities_of(description), tuple(description["label_names"]), description["features"])
        classifiers.load_state_dict(tensors)
        return classifiers.eval()


class Descent:
    """The optimiser of all evaluators: AdamW with decoupled weight decay and one cycle of the learning rate.

    The learning rate rises to `rate` and falls again (OneCycleLR). The module is put into training mode.
    """

    def __init__(self, module: nn.Module, rate: float, steps: int, decay: float = 0.0) -> None:
        module.train()
        self.optimiser = AdamW(module.parameters(), rate, weight_decay=decay, foreach=True)
        self.schedule = OneCycleLR(self.optimiser, rate, total_steps=max(2, steps))

    def step(self, loss: Tensor) -> None:
        """Take one step down the gradient of a loss."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()


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
    """Train all classifiers together by cross-entropy on observed values (AdamW, one cycle of the learning rate).

    Raises ValueError if the dataset has no labels.
    """
    if dataset.labels is None:
        raise ValueError("label classifiers learn from labels, but the dataset has none")
    labels = torch.from_numpy(np.array(dataset.labels))
    classifiers.standardise(dataset)
    descent = Descent(classifiers, learning_rate, epochs * math.ceil(len(dataset) / batch_size))
    for epoch in range(epochs):
        sums = torch.zeros(3, dtype=torch.float64)  # cross-entropy, correct predictions, values
        for rows in torch.randperm(len(dataset), generator=generator).split(batch_size):
            loss, counts = _cross_entropy(classifiers, dataset.batch(rows.numpy()), labels[rows], generator)
            descent.step(loss)
            sums += counts
        yield Epoch(epoch + 1, *(sums[:2] / sums[2]).tolist())
    classifiers.eval()


def _cross_entropy(
    classifiers: LabelClassifiers, batch: Batch, labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return the sum of the modalities' mean cross-entropies, and sums (loss, correct, values) for reporting."""
    loss, counts = torch.zeros(()), torch.zeros(3, dtype=torch.float64)
    for observed, (name, values) in zip(batch.observed.T, batch.data.items(), strict=True):
        if not observed.any():
            continue
        x, y = values[observed], labels[observed]
        logits = classifiers.logits(name, _shifted(x, generator) if x.ndim == 4 else x)
        term = F.cross_entropy(logits, y)
        counts += torch.tensor([term.item() * len(y), (logits.argmax(1) == y).sum(), len(y)])
        loss = loss + term
    return loss, counts


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift images (B, C, H, W) together by up to `SHIFT` pixels in each direction; edges are repeated."""
    row, column = torch.randint(2 * SHIFT + 1, (2,), generator=generator).tolist()
    height, width = images.shape[-2:]
    return F.pad(images, [SHIFT] * 4, mode="replicate")[..., row : row + height, column : column + width]


def body(shape: tuple[int, ...], features: int) -> nn.Module:
    """Build the network that maps values (C, *space) to features.

    Values without spatial axes pass two hidden layers. Others pass convolutions of stride 2 down to a length of about 4
    along each axis, then one hidden layer.
    """
    channels, *size = shape
    if not size:
        return nn.Sequential(nn.Linear(channels, 128), nn.SiLU(), nn.Linear(128, features), nn.SiLU())
    convolution = CONVOLUTIONS[len(size)]
    halvings = max(2, math.ceil(math.log2(min(size) / 4)))
    even = all(math.ceil(length / 2**halvings) == 4 for length in size)
    pool = nn.Identity() if even else POOLS[len(size)](4)  # pooling to the same size is slow
    widths = [channels, *(min(32 * 2**level, 128) for level in range(halvings))]
    layers: list[nn.Module] = [
        layer
        for before, after in pairwise(widths)
        for layer in (convolution(before, after, 3, stride=2, padding=1), nn.SiLU())
    ]
    layers += [pool, nn.Flatten(), nn.Linear(4 ** len(size) * widths[-1], features), nn.SiLU()]
    return nn.Sequential(*layers)
