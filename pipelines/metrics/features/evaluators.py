"""Extractors of features by name, and the evaluators that turns tuples into what every score takes."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.features.extractor import Extractor, FeatureSpace
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.pretrained import DINOv2, Inception
from postprior.pipelines.metrics.features.projections import PrincipalComponents, RandomNetworks
from postprior.pipelines.settings.names import hint, listed
from postprior.stage1_vae.imports import class_at
from postprior.stage1_vae.modalities import Modality
from postprior.stage2_latent.states import strip_prefix

EXTRACTORS: dict[str, type[FeatureSpace]] = {
    "classifier": LabelClassifiers,  # the last hidden layer of what reads the labels, where there are any
    "pca": PrincipalComponents,
    "random": RandomNetworks,
    "inception": Inception,
    "dinov2": DINOv2,
}
"""Name → the space in which distances are measured; `auto` is `classifier` with labels, `pca` without."""


@dataclass(frozen=True)
class Evaluators:
    """What reads tuples: the extractor of their features, and the judges of their labels where there are labels."""

    name: str  # of the extractor, as `resolve` takes it
    extractor: FeatureSpace  # the extractor; the judges themselves for `classifier`
    classifiers: LabelClassifiers | None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The M modalities, in the order of the dataset."""
        return self.extractor.modalities

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of the C labels, or None."""
        return None if self.classifiers is None else self.classifiers.label_names

    @property
    def classes(self) -> int | None:
        """C, or None without labels."""
        return None if self.classifiers is None else self.classifiers.classes

    def outputs(self, dataset: Dataset) -> EvaluatorOutputs:
        """Features and labels of all modalities, with the dataset's labels and groups.

        Features are 0 and labels −1 where a modality was not observed. Blocks are of one size, so that the bytes of a
        row do not depend on the others.
        """
        found, expected = ({m.name: m.shape for m in of.modalities} for of in (dataset, self))
        if found != expected:
            raise UserError(f"dataset: modalities {found} found, the judges read {expected}; train them on such data.")
        observed = dataset.observed
        features: list[np.ndarray] = []
        predictions = None if self.classifiers is None else np.full(observed.shape, -1, np.int64)
        for m, (modality, here) in enumerate(zip(self.modalities, observed.T, strict=True)):
            blocks = []
            for start in range(0, len(dataset) or 1, self.extractor.block):  # of no rows, one empty block
                rows = slice(start, min(start + self.extractor.block, len(dataset)))
                seen, labels = self._look(modality.name, dataset.data[modality.name][rows])
                blocks.append(seen)
                if predictions is not None and labels is not None:
                    predictions[rows, m] = labels
            features.append(np.concatenate(blocks))
            features[m][~here] = 0
        if predictions is not None:
            predictions[~observed] = -1
        return EvaluatorOutputs(tuple(features), predictions, dataset.labels, dataset.groups)

    def label(self, data: dict[str, np.ndarray]) -> np.ndarray | None:
        """The label (n,) that most modalities of each tuple show, None without classifiers; data[m] (n, *shape)."""
        if self.classifiers is None:
            return None
        alone = Evaluators("classifier", self.classifiers, self.classifiers)  # the space may be a large network
        return alone.outputs(Dataset(self.modalities, data)).vote(self.classifiers.classes)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and a plain description, the arguments of `from_state`."""
        parts = {"space": self.extractor, "judges": None if self.classifiers is self.extractor else self.classifiers}
        states = {name: part.state() for name, part in parts.items() if part is not None}
        tensors = {f"{part}.{name}": value for part, (own, _) in states.items() for name, value in own.items()}
        return tensors, {"extractor": self.name, **{part: about for part, (_, about) in states.items()}}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """The evaluators that gave this state."""
        name = description["extractor"]
        space = resolve(name).from_state(strip_prefix("space.", tensors), description["space"])
        classifiers = space if isinstance(space, LabelClassifiers) else None
        if "judges" in description:
            classifiers = LabelClassifiers.from_state(strip_prefix("judges.", tensors), description["judges"])
        return cls(name, space, classifiers)

    @torch.inference_mode()
    def _look(self, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Features (n, F_m) and labels (n,) of n values, a block at most, read as a whole one."""
        n = len(values)
        block = torch.from_numpy(np.array(values, np.float32))
        block = F.pad(block, [0, 0] * (block.dim() - 1) + [0, self.extractor.block - n])
        features = self.extractor.features(name, block)
        if self.classifiers is None:
            return features[:n].numpy(), None
        hidden = features if self.classifiers is self.extractor else self.classifiers.features(name, block)
        return features[:n].numpy(), self.classifiers.heads[name](hidden)[:n].argmax(1).numpy()


def resolve(name: str) -> type[FeatureSpace]:
    """The extractor of a name of `EXTRACTORS`, or at an import path `package.module:Name`; UserError for others."""
    if ":" not in name:
        if name not in EXTRACTORS:
            raise UserError(
                f"evaluators.extractor: found '{name}', which is no extractor{hint(name, EXTRACTORS)}; "
                f"expected auto, {listed(EXTRACTORS)}, or the import path package.module:Name of your own"
            )
        return EXTRACTORS[name]
    try:
        return class_at(name, Extractor, f"{Extractor.__module__}.Extractor")
    except ValueError as error:
        raise UserError(f"evaluators.extractor: {error}") from None


def fit_extractor(name: str, dataset: Dataset, features: int, seed: int, weights: Path | None) -> Extractor:
    """The extractor of a name as `resolve` takes it, fitted to training data; `weights` is a pretrained network's file.

    Raises UserError for `classifier`, which learns from labels, for an extractor that there is not, and for weights
    that are missing, or given where none are read.
    """
    kind = resolve(name)
    if not issubclass(kind, Extractor):
        raise UserError(
            f"evaluators.extractor: found '{name}', which learns from labels, and the data have none; "
            "expected auto, pca, random or another extractor, or data with labels"
        )
    pretrained = "weights" in inspect.signature(kind.__init__).parameters
    if weights is not None and not pretrained:
        raise UserError(f"evaluators.weights: found '{weights}', expected null: extractor {name} reads no weights")
    options: dict[str, Any] = {"weights": weights} if pretrained else {}
    return kind(dataset.modalities, features, seed, **options).fit(dataset).eval()
