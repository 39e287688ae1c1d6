"""The space of features in which two sets of rows are compared: a modality's, or that of whole tuples."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from postprior.pipelines.metrics.statistics.intervals import Floats

T = TypeVar("T")


@dataclass(frozen=True)
class Space:
    """Features (N, D) under weights (1 + B, N), with what is computed of them once for all comparisons."""

    features: Floats
    weights: Floats
    neighbours: int  # the k of scores by nearest neighbours
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def known(self, of: Callable[["Space"], T]) -> T:
        """What a function makes of the space, computed when it is first asked for."""
        if of not in self._known:
            self._known[of] = of(self)
        return self._known[of]

    def __len__(self) -> int:
        return len(self.features)


def full(space: Space) -> Space:
    """The space without its half-samples."""
    return Space(space.features, space.weights[:1], space.neighbours)
