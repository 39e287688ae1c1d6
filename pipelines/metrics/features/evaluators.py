"""Feature extractors by name, and the evaluators that compute features and predicted labels of a dataset."""

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.features.extractor import Extractor, FeatureSpace
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.own import OwnExtractor, own_extractor, try_own_extractor
from postprior.pipelines.metrics.features.pretrained import DINOv2, Inception
from postprior.pipelines.metrics.features.projections import PrincipalComponents, RandomNetworks
from postprior.pipelines.progress import substeps
from postprior.pipelines.settings.names import hint, listed
from postprior.stage1_vae.modalities import Modality
from postprior.stage2_latent.states import strip_prefix

EXTRACTORS: dict[str, type[FeatureSpace]] = {
    "classifier": LabelClassifiers,  # their last hidden layer; needs labels
    "pca": PrincipalComponents,
    "random": RandomNetworks,
    "inception": Inception,
    "dinov2": DINOv2,
}
"""Name → class of the feature extractor; `auto` is `classifier` if the data have labels, `pca` otherwise."""


@dataclass(frozen=True)
class Evaluators:
    """The feature extractor and, if the data have labels, the label classifiers that scores need."""

    name: str  # of the extractor, as `resolve` accepts it
    extractor: FeatureSpace  # for `classifier`, the label classifiers themselves
    classifiers: LabelClassifiers | None  # None without labels

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The M modalities, in the order of the dataset."""
        return self.extractor.modalities

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """The names of the C labels; None without labels."""
        return None if self.classifiers is None else self.classifiers.label_names

    @property
    def classes(self) -> int | None:
        """The number C of labels; None without labels."""
        return None if self.classifiers is None else self.classifiers.classes

    def outputs(self, dataset: Dataset) -> EvaluatorOutputs:
        """Return features and predicted labels of all modalities, with the dataset's labels and groups.

        Features are 0 and predictions −1 if a modality is not observed. All blocks have the same size, so that the
        outputs of a row do not depend on other rows, to the last bit.
        """
        found, expected = ({m.name: m.shape for m in source.modalities} for source in (dataset, self))
        if found != expected:
            raise UserError(
                f"dataset: found modalities {found}, expected {expected}, on which the evaluators were trained; "
                "run postprior train-evaluators on these data"
            )
        observed = dataset.observed
        features: list[np.ndarray] = []
        predictions = None if self.classifiers is None else np.full(observed.shape, -1, np.int64)
        for m, (modality, present) in enumerate(
            substeps(zip(self.modalities, observed.T, strict=True), observed.shape[1])
        ):
            blocks = []
            starts = range(0, len(dataset) or 1, self.extractor.block)  # one empty block if there are no rows
            for start in substeps(starts, len(starts)):
                rows = slice(start, min(start + self.extractor.block, len(dataset)))
                block, labels = self._evaluate(modality.name, values_of(dataset, modality, rows))
                blocks.append(block)
                if predictions is not None and labels is not None:
                    predictions[rows, m] = labels
            features.append(np.concatenate(blocks))
            features[m][~present] = 0
        if predictions is not None:
            predictions[~observed] = -1
        return EvaluatorOutputs(tuple(features), predictions, dataset.labels, dataset.groups, dataset.mask)

    def label(self, rows: Dataset) -> np.ndarray | None:
        """Return the label (n,) predicted for most modalities that a row has; None without label classifiers."""
        if self.classifiers is None:
            return None
        labelling = Evaluators("classifier", self.classifiers, self.classifiers)  # the extractor may be a large network
        return labelling.outputs(rows).vote(self.classifiers.classes)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return named tensors and a plain description, the arguments of `from_state`."""
        # files store the extractor as "space" and separate label classifiers as "judges"
        parts = {"space": self.extractor, "judges": None if self.classifiers is self.extractor else self.classifiers}
        states = {name: part.state() for name, part in parts.items() if part is not None}
        tensors = {f"{part}.{name}": value for part, (state, _) in states.items() for name, value in state.items()}
        return tensors, {"extractor": self.name, **{part: about for part, (_, about) in states.items()}}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """Rebuild the evaluators from what `state` returned."""
        name = description["extractor"]
        extractor = resolve(name).from_state(strip_prefix("space.", tensors), description["space"])
        classifiers = extractor if isinstance(extractor, LabelClassifiers) else None
        if "judges" in description:
            classifiers = LabelClassifiers.from_state(strip_prefix("judges.", tensors), description["judges"])
        return cls(name, extractor, classifiers)

    @torch.inference_mode()
    def _evaluate(self, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return features (n, F_m) and labels (n,) of at most one block of n values, padded to a full block."""
        n = len(values)
        block = torch.from_numpy(np.array(values, np.float32))
        block = F.pad(block, [0, 0] * (block.dim() - 1) + [0, self.extractor.block - n])
        features = self.extractor.features(name, block)
        if self.classifiers is None:
            return features[:n].numpy(), None
        hidden = features if self.classifiers is self.extractor else self.classifiers.features(name, block)
        return features[:n].numpy(), self.classifiers.heads[name](hidden)[:n].argmax(1).numpy()


def resolve(name: str) -> type[FeatureSpace]:
    """Return the extractor class of a name in `EXTRACTORS` or of an import path; raise UserError for other names."""
    if ":" not in name:
        if name not in EXTRACTORS:
            raise UserError(
                f"evaluators.extractor: found '{name}', which is not an extractor{hint(name, EXTRACTORS)}; "
                f"expected auto, {listed(EXTRACTORS)}, or the import path package.module:Name of your own class"
            )
        return EXTRACTORS[name]
    return own_extractor(name)


def fit_extractor(name: str, dataset: Dataset, features: int, seed: int, weights: Path | None) -> Extractor:
    """Fit the extractor of a name that `resolve` accepts to training data; `weights` is a pretrained network's file.

    Raises UserError for `classifier`, which learns from labels, for an unknown extractor, for missing weights, and for
    weights that the extractor does not use; UserCodeError for a user-defined extractor that fails.
    """
    kind = resolve(name)
    if not issubclass(kind, Extractor):
        raise UserError(
            f"evaluators.extractor: found '{name}', which learns from labels, but the data have none; "
            "expected auto, pca, random or another extractor, or data with labels"
        )
    pretrained = "weights" in inspect.signature(kind).parameters
    if weights is not None and not pretrained:
        raise UserError(f"evaluators.weights: found '{weights}', expected null: extractor {name} uses no weights")
    options: dict[str, Any] = {"weights": weights} if pretrained else {}
    extractor = kind(dataset.modalities, features, seed, **options).fit(dataset).eval()
    if isinstance(extractor, OwnExtractor):
        try_own_extractor(extractor, dataset)
    return extractor
