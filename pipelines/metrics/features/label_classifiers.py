"""Label classifiers: one small network per modality that predicts labels and yields features for distances."""

import math
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn

from postprior.pipelines.metrics.features.extractor import BLOCK, FeatureSpace, modalities_of
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.convolutional import CONVOLUTIONS
from postprior.stage1_vae.randomness import seeded

POOLS: dict[int, type[nn.Module]] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


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
