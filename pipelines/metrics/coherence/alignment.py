"""How well the modalities of a set go together, without labels: pairings and correlations, beside real data's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.metrics.coherence.canonical import Directions
from postprior.pipelines.metrics.coherence.pairing import Critic, fit_critic, pairing_auc
from postprior.pipelines.metrics.features.readings import Readings
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    SCORED,
    Floats,
    Missing,
    Scores,
    combined,
    estimate,
    too_few,
)

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("pairing_auc", "canonical_correlation", "incoherence", "canonical_preservation")
UNCORRELATED = Missing("the modalities of real rows correlate no more than by chance")


@dataclass(frozen=True)
class Alignment:
    """What was learned of real tuples, and what every set is measured by.

    Args:
        critic: tells their pairings from shuffled ones; None where nothing can be learned, see `unpaired`.
        directions: along which their modalities correlate, or None.
        seed: of the shuffles.
    """

    critic: Critic | None
    directions: Directions | None
    seed: int

    @classmethod
    def fit(cls, readings: Readings, seed: int) -> Alignment:
        """The alignment of the reference half."""
        if unpaired(readings):
            return cls(None, None, seed)
        return cls(fit_critic(readings.features, seed), Directions.fit(readings.features), seed)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
        """The critic's named tensors and description; nothing without one."""
        return ({}, None) if self.critic is None else self.critic.state()

    def score(self, readings: Readings, weights: Floats, real: Scores | None = None) -> Scores:
        """`pairing_auc` and `canonical_correlation` of readings under weights (1 + B, N), and both beside real data's.

        `incoherence` is the AUC of real data less that of the set; `canonical_preservation` the correlation over that
        of real data, where these correlate beyond noise. Decoded means are smoother than real data: they may be the
        more coherent, the first then below 0 and the second above 1. `real` are the scores of real data; None where
        these are.
        """
        if why := unpaired(readings):
            return dict.fromkeys(NAMES, why)
        assert self.critic is not None
        assert self.directions is not None
        auc = pairing_auc(self.critic, readings.features, weights, np.random.default_rng(self.seed))
        correlation = self.directions.mean(readings.features, weights)
        own: Scores = {"pairing_auc": auc, "canonical_correlation": correlation}
        of_real = own if real is None else real
        theirs = of_real["canonical_correlation"]
        told, preserved = estimate(theirs), combined(np.divide, correlation, theirs)
        if told.get("low") is None:
            preserved = Missing(told["why"])
        elif told["low"] <= 0:
            preserved = UNCORRELATED
        incoherence = combined(np.subtract, of_real["pairing_auc"], auc)
        return {**own, "incoherence": incoherence, "canonical_preservation": preserved}


def unpaired(readings: Readings) -> Missing | None:
    """Why nothing can be said of how modalities go together, if nothing can."""
    modalities = len(readings.features)
    return too_few(modalities, 2, "modalities") or too_few(len(readings), max(FEWEST, modalities), SCORED)
