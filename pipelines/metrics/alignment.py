"""How well the modalities of a set go together, without labels: pairings and correlations, beside real data's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.metrics.canonical import Directions
from pipelines.metrics.intervals import Floats, estimate
from pipelines.metrics.pairing import Critic, fit_critic, pairing_auc
from pipelines.metrics.readings import Readings
from pipelines.metrics.scores import Scores


@dataclass(frozen=True)
class Alignment:
    """What was learned of real tuples, and what every set is measured by.

    Args:
        critic: tells their pairings from shuffled ones.
        directions: along which their modalities correlate.
        seed: of the shuffles.
    """

    critic: Critic
    directions: Directions
    seed: int

    @classmethod
    def fit(cls, readings: Readings, seed: int) -> Alignment:
        """The alignment of the reference half."""
        return cls(fit_critic(readings.features, seed), Directions.fit(readings.features), seed)

    def score(self, readings: Readings, weights: Floats, real: Scores | None = None) -> Scores:
        """`pairing_auc` and `canonical_correlation` of readings under weights (1 + B, N), and both beside real data's.

        `incoherence` is the AUC of real data less that of the set; `canonical_preservation` the correlation over that
        of real data, where these correlate beyond noise. Decoded means are smoother than real data: they may be the
        more coherent, the first then below 0 and the second above 1. `real` are the scores of real data; None where
        these are.
        """
        found: Scores = {
            "pairing_auc": pairing_auc(
                self.critic, readings.features, weights, np.random.default_rng(self.seed)
            ),
            "canonical_correlation": self.directions.mean(readings.features, weights),
        }
        real = found if real is None else real
        found["incoherence"] = real["pairing_auc"] - found["pairing_auc"]
        if estimate(real["canonical_correlation"])["low"] > 0:
            found["canonical_preservation"] = found["canonical_correlation"] / real["canonical_correlation"]
        return found
