"""What an extractor of features is: it makes the space in which every distance is measured."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import Table, Values, input_layer

BLOCK = 256  # rows read at a time: fixed, so that the bytes of the features never depend on their number


class FeatureSpace(nn.Module, ABC):
    """Features of each of M modalities, in a space of its own; `features` is what a subclass gives.

    Values are those that encoders read, standardised by the moments of the training data, which are part of the state.
    Modalities are in the order of the dataset; each has so many features at most.
    """

    block: ClassVar[int] = BLOCK  # rows read at a time

    def __init__(self, modalities: tuple[Modality, ...], features: int) -> None:
        super().__init__()
        self.modalities, self.width = tuple(modalities), features
        self.inputs = nn.ModuleDict({m.name: input_layer(m) for m in modalities})
        for m in modalities:
            channels, *space = self.shape(m.name)
            shape = (channels, *[1] * len(space))  # one moment a channel, or a column
            self.register_buffer(f"{m.name}_mean", torch.zeros(shape))
            self.register_buffer(f"{m.name}_deviation", torch.ones(shape))

    @abstractmethod
    def features(self, name: str, values: Tensor) -> Tensor:
        """Features (B, F_m) of values (B, *shape) of one modality, each row by itself."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and a plain description, the arguments of `from_state`."""
        modalities = [{"name": m.name, **m.describe()} for m in self.modalities]
        return self.state_dict(), {"modalities": modalities, "features": self.width}

    @classmethod
    @abstractmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """The one that gave this state."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one value of a modality as it is read: (channels, *space)."""
        prepared = self.inputs[name]
        assert isinstance(prepared, Values | Table)
        return prepared.shape

    def standardised(self, name: str, values: Tensor) -> Tensor:
        """Values (B, *shape) of a modality as encoders read them, by the moments of the training data."""
        x = self.inputs[name](values)
        return (x - self.get_buffer(f"{name}_mean")) / self.get_buffer(f"{name}_deviation")

    def standardise(self, dataset: Dataset) -> None:
        """Take the moments of each modality from the rows where it is observed."""
        for m in self.modalities:
            found, deviation = (self.get_buffer(f"{m.name}_{moment}") for moment in ("mean", "deviation"))
            blocks = (self.inputs[m.name](x).numpy() for x in observed_values(dataset, m, dtype=np.float64))
            mean, variance = moments(blocks, (0, *range(2, 1 + deviation.dim())))
            found.copy_(torch.as_tensor(mean).view_as(found))
            deviation.copy_(torch.as_tensor(variance).clamp_min(1e-12).sqrt().view_as(deviation))


class Extractor(FeatureSpace):
    """A feature space that needs no labels: the contract of `EXTRACTORS` and of the user's own.

    A subclass is called with the M modalities in the order of the dataset, the number of features at most, and the seed
    of whatever is drawn; and with `weights`, the path of a file, where it takes that too. It gives `fit` and
    `features`, and keeps what it learns in parameters and buffers, which are its state. No global generator is touched.
    """

    def __init__(self, modalities: tuple[Modality, ...], features: int, seed: int = 0) -> None:
        super().__init__(modalities, features)
        self.seed = seed

    @abstractmethod
    def fit(self, dataset: Dataset) -> Self:
        """Learn from the rows where each modality is observed; returns itself."""

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """The extractor that gave this state; what only `fit` registers is registered again."""
        extractor = cls(described(description), description["features"])
        for name in tensors.keys() - extractor.state_dict().keys():
            extractor.register_buffer(name, torch.empty_like(tensors[name]))
        extractor.load_state_dict(tensors)
        return extractor.eval()


def described(description: dict[str, Any]) -> tuple[Modality, ...]:
    """The modalities of an extractor's description."""
    return tuple(Modality.from_description(entry["name"], entry) for entry in description["modalities"])


def observed_values(
    dataset: Dataset, modality: Modality, size: int = BLOCK, dtype: Any = np.float32
) -> Iterator[Tensor]:
    """The observed values (≤ size, *shape) of a modality, block by block."""
    rows = dataset.observed[:, [m.name for m in dataset.modalities].index(modality.name)]
    for start in range(0, len(dataset), size):
        block = slice(start, start + size)
        yield torch.from_numpy(np.asarray(dataset.data[modality.name][block][rows[block]], dtype))


def moments(blocks: Iterable[Floats], axes: tuple[int, ...] = (0,)) -> tuple[Any, Any]:
    """Mean and variance over some axes of values that come block by block."""
    count, total, square = 1e-12, np.zeros(()), np.zeros(())
    for values in blocks:
        total, square = total + values.sum(axes), square + (values**2).sum(axes)
        count += values.size / total.size
    mean = total / count
    return mean, square / count - mean**2
