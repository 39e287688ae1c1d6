"""Base classes of feature extractors; all distances are measured between their features."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.metrics.statistics.intervals import Floats
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import Table, Values, input_layer

BLOCK = 256  # rows per block; fixed, so that features do not depend on the number of rows, to the last bit


class FeatureSpace(nn.Module, ABC):
    """One feature space per modality; a subclass defines `features`.

    Values are encoded as encoders read them and standardised by the moments of the training data, which are part of the
    state. The M modalities are in the order of the dataset. Each has at most `features` features.
    """

    block: ClassVar[int] = BLOCK  # rows per block

    def __init__(self, modalities: tuple[Modality, ...], features: int) -> None:
        super().__init__()
        self.modalities, self.width = tuple(modalities), features
        self.inputs = nn.ModuleDict({m.name: input_layer(m) for m in modalities})
        for m in modalities:
            channels, *space = self.shape(m.name)
            shape = (channels, *[1] * len(space))  # one moment per channel or column
            self.register_buffer(f"{m.name}_mean", torch.zeros(shape))
            self.register_buffer(f"{m.name}_deviation", torch.ones(shape))

    @abstractmethod
    def features(self, name: str, values: Tensor) -> Tensor:
        """Return features (B, F_m) of values (B, *shape) of one modality; rows do not affect each other."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return named tensors and a plain description, the arguments of `from_state`."""
        modalities = [{"name": m.name, **m.describe()} for m in self.modalities]
        return self.state_dict(), {"modalities": modalities, "features": self.width}

    @classmethod
    @abstractmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """Rebuild the instance from what `state` returned."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape (channels, *space) of one value of a modality as encoders read it."""
        prepared = self.inputs[name]
        assert isinstance(prepared, Values | Table)
        return prepared.shape

    def standardised(self, name: str, values: Tensor) -> Tensor:
        """Return values (B, *shape) of a modality as encoders read them, standardised by the training moments."""
        x = self.inputs[name](values)
        return (x - self.get_buffer(f"{name}_mean")) / self.get_buffer(f"{name}_deviation")

    def standardise(self, dataset: Dataset) -> None:
        """Set the moments of each modality from the rows in which it is observed."""
        for m in self.modalities:
            centre, deviation = (self.get_buffer(f"{m.name}_{moment}") for moment in ("mean", "deviation"))
            blocks = (self.inputs[m.name](x).numpy() for x in observed_values(dataset, m, dtype=np.float64))
            mean, variance = moments(blocks, (0, *range(2, 1 + deviation.dim())))
            centre.copy_(torch.as_tensor(mean).view_as(centre))
            deviation.copy_(torch.as_tensor(variance).clamp_min(1e-12).sqrt().view_as(deviation))


class Extractor(FeatureSpace):
    """A feature space that needs no labels: the base class of `EXTRACTORS` and of user-defined extractors.

    The constructor receives the M modalities in the order of the dataset, the maximum number of features per modality
    and the seed of all random draws; if it has a parameter `weights`, it also receives the path of a file. A subclass
    defines `fit` and `features`, and keeps what it learns in parameters and buffers, which are its state. It must not
    use a global random generator.
    """

    def __init__(self, modalities: tuple[Modality, ...], features: int, seed: int = 0) -> None:
        super().__init__(modalities, features)
        self.seed = seed

    @abstractmethod
    def fit(self, dataset: Dataset) -> Self:
        """Fit to the rows in which each modality is observed; return the extractor itself."""

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """Rebuild the extractor from what `state` returned, with the buffers that only `fit` registers."""
        extractor = cls(modalities_of(description), description["features"])
        for name in tensors.keys() - extractor.state_dict().keys():
            extractor.register_buffer(name, torch.empty_like(tensors[name]))
        extractor.load_state_dict(tensors)
        return extractor.eval()


def modalities_of(description: dict[str, Any]) -> tuple[Modality, ...]:
    """Return the modalities in an extractor's description."""
    return tuple(Modality.from_description(entry["name"], entry) for entry in description["modalities"])


def observed_values(
    dataset: Dataset, modality: Modality, size: int = BLOCK, dtype: Any = np.float32
) -> Iterator[Tensor]:
    """Yield the values (≤ size, *shape) of the rows that have a modality block by block, see `values_of`."""
    rows = dataset.observed[:, [m.name for m in dataset.modalities].index(modality.name)]
    for start in range(0, len(dataset), size):
        block = slice(start, start + size)
        yield torch.from_numpy(np.asarray(values_of(dataset, modality, block)[rows[block]], dtype))


def moments(blocks: Iterable[Floats], axes: tuple[int, ...] = (0,)) -> tuple[Any, Any]:
    """Return mean and variance over the axes of values that arrive block by block."""
    count, total, square = 1e-12, np.zeros(()), np.zeros(())
    for values in blocks:
        total, square = total + values.sum(axes), square + (values**2).sum(axes)
        count += values.size / total.size
    mean = total / count
    return mean, square / count - mean**2
