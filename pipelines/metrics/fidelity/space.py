"""A feature space in which two sets of rows are compared: that of one modality, or the joint space of all."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from postprior.pipelines.metrics.statistics.intervals import Floats

T = TypeVar("T")


@dataclass(frozen=True)
class Space:
    """Features (N, D) with weights (1 + B, N), and a cache of what is computed from them for all comparisons."""

    features: Floats
    weights: Floats
    neighbours: int  # k of the scores based on nearest neighbours
    _cache: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def cached(self, function: Callable[["Space"], T]) -> T:
        """Return `function` of the space, computed at the first call."""
        if function not in self._cache:
            self._cache[function] = function(self)
        return self._cache[function]

    def __len__(self) -> int:
        return len(self.features)


def full(space: Space) -> Space:
    """Return the space with the full sample only, without half-samples."""
    return Space(space.features, space.weights[:1], space.neighbours)
