"""User-defined feature extractors, with checks of what they return."""

import inspect
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.extractor import Extractor
from postprior.stage1_vae.imports import UserCodeError, file_of, import_class, running
from postprior.stage1_vae.modalities import Modality

STATE = "keep all that fit learns in parameters and buffers"


class OwnExtractor(Extractor):
    """Base class that comes before a user-defined class: it reports exceptions and results of a wrong type or shape."""

    own_place: ClassVar[str]
    own_file: ClassVar[str | None]

    def __init__(self, modalities: tuple[Modality, ...], features: int, *others: Any, **options: Any) -> None:
        expected = (
            "a class that can be called as Extractor(modalities, features, seed) and Extractor(modalities, features)"
        )
        with running(self.own_place, expected, self.own_file):
            super().__init__(modalities, features, *others, **options)

    def fit(self, dataset: Dataset) -> Self:
        """Fit to the rows in which each modality is observed; return the extractor itself."""
        with running(self.own_place, "that fit(dataset) returns the extractor", self.own_file):
            fitted: object = super().fit(dataset)  # type: ignore[safe-super]
        if fitted is not self:
            raise UserCodeError(
                f"{self.own_place}: fit returned a {type(fitted).__name__}, expected the extractor itself: return self"
            )
        return self

    def features(self, name: str, values: Tensor) -> Tensor:
        """Return features (B, F_m) of values (B, *shape) of one modality."""
        expected = f"finite numbers of shape ({len(values)}, features) from values {tuple(values.shape)} of {name}"
        with running(self.own_place, expected, self.own_file):
            found: object = super().features(name, values)  # type: ignore[safe-super]
        if not isinstance(found, Tensor):
            problem = f"a value of type {type(found).__name__}"
        elif found.dim() != 2 or len(found) != len(values) or not found.shape[1]:
            problem = f"a tensor of shape {tuple(found.shape)}"
        elif found.dtype not in (torch.float32, torch.float64):
            problem = f"a tensor of {found.dtype}"
        elif not bool(found.isfinite().all()):
            problem = "NaN or infinite values"
        else:
            return found
        raise UserCodeError(f"{self.own_place}: features returned {problem}, expected {expected}")


def own_extractor(path: str) -> type[OwnExtractor]:
    """Import a user-defined extractor; one that cannot be imported raises a UserError."""
    try:
        base = import_class(path, Extractor, f"{Extractor.__module__}.Extractor")
    except ValueError as error:
        raise UserError(f"evaluators.extractor: {error}") from None
    about = {
        "__module__": base.__module__,
        "__signature__": inspect.signature(base),
        "own_place": f"evaluators.extractor: {path}",
        "own_file": file_of(base),
    }
    return type(base.__name__, (OwnExtractor, base), about)


@torch.inference_mode()
def try_own_extractor(extractor: OwnExtractor, dataset: Dataset) -> None:
    """Compute features of a block of rows, with the fitted extractor and with one that is rebuilt from its state.

    Raises:
        UserCodeError: the features of a row depend on other rows, or the rebuilt extractor gives other features.
    """
    place, rebuilt = extractor.own_place, extractor.from_state(*extractor.state())
    for m in extractor.modalities:
        rows = np.arange(extractor.block) % len(dataset)
        values = torch.from_numpy(np.asarray(values_of(dataset, m, rows), np.float32))
        found = extractor.features(m.name, values)
        alone = torch.cat([values[:1], torch.zeros_like(values[1:])])
        if not torch.allclose(extractor.features(m.name, alone)[0], found[0], 1e-3, 1e-4):
            raise UserCodeError(
                f"{place}: the features of a row of {m.name} change with the other rows of its block, expected that "
                "they depend on this row and on what fit has learned"
            )
        try:
            same = torch.equal(rebuilt.features(m.name, values), found)
        except UserCodeError as error:
            raise UserCodeError(f"{error}, from its state as before; {STATE}") from error
        if not same:
            raise UserCodeError(f"{place}: found other features of {m.name} from its state, expected the same; {STATE}")
