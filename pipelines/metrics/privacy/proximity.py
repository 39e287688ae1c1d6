"""Privacy tests in every space: how much samples reveal about training records, compared with fresh rows.

Fresh rows are held-out rows that passed through the encoder and the decoders, as samples pass through the decoders.

- distance ratio: the median distance of samples to their closest training record, divided by that of fresh rows.
- near copies: the share of samples closer to a record than all but a share `NEAR` of fresh rows; see `near` for the
  share that is expected.
- authenticity (Alaa et al. 2022, https://arxiv.org/abs/2102.08921): the share of samples farther from their closest
  record than that record is from its closest other record. A fresh row is not authentic if it and a record are each
  other's nearest neighbours: two of three rows on a line, fewer than half in many dimensions. No value is right by
  itself, so fresh rows are scored as well. By definition, a near copy of a record that occurs twice is authentic.
- membership: the AUC of a membership inference attack, see `membership`; 1/2 if samples reveal nothing.

None of these tests implies differential privacy.

The memorisation check of a density works in the same way: it compares the distances of the density's draws to training
codes with those of held-out codes. The distance of a code is that to the nearest training code, in units in which the
aggregated posterior has covariance I (the Mahalanobis distance), so it is invariant to affine maps of the latent space.
All codes are single draws: draws from the density, one posterior draw per held-out row, one per training row. There are
as many draws from the density as held-out codes. A density that has learned only the distribution has draws as far from
training codes as held-out codes are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.metrics.privacy.near import NEAR, expected_near_copies
from postprior.pipelines.metrics.registry import bounds_of
from postprior.pipelines.metrics.statistics.intervals import (
    FEWEST,
    LEVEL,
    Floats,
    Ints,
    Score,
    estimate,
    half_samples,
    replicates,
    too_few,
    weighted_mean,
)
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.statistics.neighbours import CODES, JOINT, Closest, Points, closest, nearest
from postprior.stage1_vae.randomness import seed_from
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.moments import Whitening

LISTED = 50  # maximum number of near copies in the list
MOST = 2000  # maximum number of held-out codes, and of a density's draws, in the memorisation check
RESAMPLES = 200  # half-samples of the memorisation check
MARGINS = {"distance_ratio": 0.05, "near_copies": NEAR, "authenticity": 0.05, "membership_auc": 0.05}
"""Smallest difference to fresh rows that is flagged: with more samples, ever smaller differences are significant."""
CAUTION = (
    "These tests do not prove differential privacy. They detect only the leaks that they test for, in these samples "
    "and with this attack; other leaks are possible."
)
Vectors = dict[str, Score]  # by test
REPEATED = Missing("half of the held-out rows coincide with training rows, so their median distance is 0")
PROXIMITY = ("distance_ratio", "near_copies", "authenticity", "authenticity_fresh")

BOUNDS = bounds_of("privacy")
TESTS = {  # name → excess over the value of fresh rows, whose number is given: positive if samples leak
    "distance_ratio": lambda scores, fresh: 1 - scores["distance_ratio"],
    "near_copies": lambda scores, fresh: scores["near_copies"] - expected_near_copies(fresh),
    "authenticity": lambda scores, fresh: scores["authenticity_fresh"] - scores["authenticity"],
    "membership_auc": lambda scores, fresh: scores["membership_auc"] - 0.5,
}


@dataclass(frozen=True)
class Proximity:
    """Samples and fresh rows in one space, with their closest training records."""

    samples: Closest  # (n,)
    fresh: Closest  # (m,)
    samples_authentic: NDArray[np.bool_]  # (n,)
    fresh_authentic: NDArray[np.bool_]  # (m,)

    @property
    def typical(self) -> float:
        """The median distance of fresh rows to their closest records."""
        return float(np.median(self.fresh.distance))

    @property
    def near(self) -> NDArray[np.bool_]:
        """Which samples are near copies, (n,)."""
        return self.samples.distance < np.quantile(self.fresh.distance, NEAR)


def distance_scores(samples: Floats, fresh: Floats, weights: tuple[Floats, Floats]) -> Vectors:
    """Compare distances of samples (n,) with those of fresh rows (m,): `distance_ratio` and `near_copies`.

    The weights are (1 + B, n) and (1 + B, m).
    """
    pairs = [(samples[w > 0], fresh[v > 0]) for w, v in zip(*weights, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array([np.median(drawn) / np.median(held_out) for drawn, held_out in pairs])
    return {
        "distance_ratio": ratios if np.isfinite(ratios[0]) else REPEATED,
        "near_copies": np.array([np.mean(drawn < np.quantile(held_out, NEAR)) for drawn, held_out in pairs]),
    }


def proximities(samples: Points, fresh: Points, records: Points) -> dict[str, Proximity]:
    """Find the records closest to samples and to fresh rows, all complete, in every space with enough rows."""
    spaces = [space for space in records.spaces if not unmeasured(len(fresh), len(records.complete(space)), space)]
    if not spaces:
        return {}
    matches = {"samples": closest(samples, records), "fresh": closest(fresh, records)}
    matched = np.unique(np.concatenate([match.record for sets in matches.values() for match in sets.values()]))
    between = closest(records.select(matched), records, matched)  # from matched records to their closest other records
    proximity = {}
    for space in spaces:
        sides = matches["samples"][space], matches["fresh"][space]
        reach = between[space].distance
        authentic = (side.distance > reach[np.searchsorted(matched, side.record)] for side in sides)
        proximity[space] = Proximity(*sides, *authentic)
    return proximity


def unmeasured(fresh: int, records: int, space: str) -> Missing | None:
    """Return the reason if there are too few fresh rows or records for the first three tests in a space."""
    missing = too_few(fresh, FEWEST, rows_in(CODES, "test"))
    return missing or too_few(records, FEWEST, rows_in(space, "train"))


def rows_in(space: str, split: str) -> str:
    """Describe the rows of a split that are points of a space, for messages."""
    split = "training" if split == "train" else split
    if space == JOINT:
        return f"complete {split} rows"
    return f"{split} rows with {'complete codes' if space == CODES else space}"


def proximity_vectors(
    proximity: Mapping[str, Proximity], sources: Ints, resamples: int, rng: np.random.Generator
) -> dict[str, Vectors]:
    """Return the values of the first three tests by space.

    Half-samples draw samples, and the sources (m,) of fresh rows.
    """
    if not proximity:
        return {}
    fresh = half_samples(sources, resamples, rng)
    samples = len(next(iter(proximity.values())).samples.distance)
    drawn = half_samples(np.arange(samples), resamples, rng)
    return {
        space: {
            **distance_scores(sets.samples.distance, sets.fresh.distance, (drawn, fresh)),
            "authenticity": weighted_mean(sets.samples_authentic, drawn),
            "authenticity_fresh": weighted_mean(sets.fresh_authentic, fresh),
        }
        for space, sets in proximity.items()
    }


def near_copies(proximity: Mapping[str, Proximity], ids: Ints | NDArray[np.str_]) -> list[dict[str, Any]]:
    """List near copies by increasing ratio of their distance to the median distance of fresh rows.

    A sample that is a near copy in several spaces is listed once, in the space with the smallest ratio.
    """
    worst: dict[int, dict[str, Any]] = {}
    for space, sets in proximity.items():
        for sample in np.flatnonzero(sets.near).tolist():
            distance = float(sets.samples.distance[sample])
            entry = {
                "sample": sample,
                "record": ids[sets.samples.record[sample]].item(),
                "space": space,
                "distance": distance,
                "ratio": distance / sets.typical,
            }
            worst[sample] = min(worst.get(sample, entry), entry, key=lambda copy: copy["ratio"])
    return sorted(worst.values(), key=lambda copy: (copy["ratio"], copy["sample"]))[:LISTED]


def estimates(scores: Vectors) -> dict[str, Any]:
    """Return the scores of one space as estimates with intervals."""
    return {name: estimate(values, BOUNDS[name]) for name, values in scores.items()}


def leaking_tests(spaces: Mapping[str, Vectors], margins: Mapping[str, float], fresh: int) -> dict[str, list[str]]:
    """Return the tests that exceed the value of m fresh rows significantly and by more than a margin, with the spaces.

    The intervals are one-sided with Bonferroni correction: without any leak, the probability that some test is flagged
    in some space is at most (1 − LEVEL) / 2.
    """
    excesses = []
    for space, tests in spaces.items():
        scores = {name: values for name, values in tests.items() if not isinstance(values, Missing)}
        for name in TESTS.keys() & scores.keys():
            excess = TESTS[name](scores, fresh)
            halves = replicates(excess)
            if np.isfinite(excess[0]) and halves is not None:
                excesses.append((name, space, excess[0], halves.std()))
    critical = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / max(1, len(excesses)))
    leaking = [
        (name, space) for name, space, excess, error in excesses if excess - critical * error > margins.get(name, 0.0)
    ]
    found = {name: [space for test, space in leaking if test == name] for name in TESTS}
    return {name: of_test for name, of_test in found.items() if of_test}


@torch.no_grad()
def memorisation(density: Density, train: Codes, held_out: Codes, generator: torch.Generator) -> dict[str, Any]:
    """Return the entry `memorisation` of a density's manifest: medians of distances, their ratio, and near copies.

    `ratio` is the median distance of the density's draws divided by that of held-out codes: 1 if nothing is memorised,
    0 if the draws are copies. `near_copies` is the share of draws closer to a training code than all but a share `NEAR`
    of held-out codes; `near` has the share that is expected if nothing is memorised. Held-out codes have the same
    distribution as training codes, but belong to rows that the density was not fitted to.
    """
    train_rows, held_rows = (codes.complete.nonzero().squeeze(-1) for codes in (train, held_out))
    for side, side_rows in {"training": train_rows, "held-out": held_rows}.items():
        if missing := too_few(len(side_rows), FEWEST, f"{side} rows with complete codes"):
            return dict.fromkeys(("ratio", "near_copies"), missing.written)
    rows = held_rows[torch.randperm(len(held_rows), generator=generator)[:MOST]]
    whitening = Whitening.fit(train)
    targets = whitening.forward(train.draw(generator, train_rows))
    sets = held_out.draw(generator, rows), density.sample(len(rows), generator).loc[:, 0]
    held, drawn = (_distance(whitening.forward(z), targets) for z in sets)
    return memorisation_scores(held, drawn, np.random.default_rng(seed_from(generator)))


def memorisation_scores(held_out: Floats, drawn: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """Compare distances of n held-out codes and of n draws, both (n,), with 95 % intervals from half-samples."""
    rows = np.arange(len(held_out))
    fresh, samples = (half_samples(rows, RESAMPLES, rng) for _ in range(2))
    scores = estimates(distance_scores(drawn, held_out, (samples, fresh)))
    return {
        "ratio": scores["distance_ratio"],
        "near_copies": scores["near_copies"],
        "medians": {"held_out": float(np.median(held_out)), "drawn": float(np.median(drawn))},
        "samples": len(held_out),
    }


def _distance(points: Tensor, targets: Tensor) -> Floats:
    """Return the Euclidean distance (n,) of each point (n, D) to the nearest target (N, D)."""
    return (points - targets[nearest(points, targets)[:, 0]]).norm(dim=1).double().numpy()
