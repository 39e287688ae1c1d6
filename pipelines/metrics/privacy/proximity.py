"""What synthetic samples give away of training records, beside what fresh rows would: four tests in every space.

- distance ratio: the median distance of samples to their closest training record, over that of fresh rows.
- near copies: the share of samples closer to a record than all but the share `NEAR` of fresh rows, hence `NEAR`.
- authenticity (Alaa et al. 2022, https://arxiv.org/abs/2102.08921): the share of samples that are farther from
  their closest record than that is from its own closest other. A fresh row fails where it and a record are each
  other's closest: two of three rows on a line, fewer than half in many dimensions. No number is right in itself, so
  fresh rows are measured too. A near copy of a record that stands in the data twice is authentic, by the definition.
- membership: the AUC of an attack, see `membership`; 1/2 where samples tell nothing.

None of them is differential privacy.

Whether a density repeats its training codes is told alike: how near its draws come to them, against how near held-out
codes do. A code's distance is that to the nearest training code, in units in which the aggregated posterior has
covariance I (the Mahalanobis distance), which no affine change of the latent space alters. Everything compared is one
draw: a draw of the density, one posterior draw of each held-out row, one of each training row; and there are as many of
the first as of the second. A density that has learned no more than the distribution comes as near as held-out codes do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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

NEAR = 0.01  # of fresh rows lie nearer to a record than a near copy must
LISTED = 50  # near copies, at most
MOST = 2000  # held-out codes, and draws of a density, that are compared
RESAMPLES = 200  # half-samples behind their intervals
MARGINS = {"distance_ratio": 0.05, "near_copies": NEAR, "authenticity": 0.05, "membership_auc": 0.05}
"""How far beyond fresh rows a leak is flagged: more samples tell ever smaller ones from chance."""
CAUTION = (
    "None of this is differential privacy: these tests look for leaks that they know, in these samples and to this "
    "attack, and where they find none there may be others."
)
Vectors = dict[str, Score]  # by test
REPEATED = Missing("half of the held-out rows lie on training rows, which leaves no distance to compare with")
WHOLE = "every modality"
PROXIMITY = ("distance_ratio", "near_copies", "authenticity", "authenticity_fresh")

BOUNDS = bounds_of("privacy")
TESTS = {  # name → what it is beyond what fresh rows give: positive where samples leak
    "distance_ratio": lambda found: 1 - found["distance_ratio"],
    "near_copies": lambda found: found["near_copies"] - NEAR,
    "authenticity": lambda found: found["authenticity_fresh"] - found["authenticity"],
    "membership_auc": lambda found: found["membership_auc"] - 0.5,
}


@dataclass(frozen=True)
class Proximity:
    """Samples and fresh rows in one space: how close they come to training records."""

    samples: Closest  # (n,), their closest records
    fresh: Closest  # (m,), likewise
    samples_authentic: NDArray[np.bool_]  # (n,)
    fresh_authentic: NDArray[np.bool_]  # (m,)

    @property
    def typical(self) -> float:
        """The median distance of fresh rows."""
        return float(np.median(self.fresh.distance))

    @property
    def near(self) -> NDArray[np.bool_]:
        """Which samples are near copies, (n,)."""
        return self.samples.distance < np.quantile(self.fresh.distance, NEAR)


def compared(samples: Floats, fresh: Floats, weights: tuple[Floats, Floats]) -> Vectors:
    """Distances of samples (n,) beside those of fresh rows (m,): two tests under weights (1 + B, n) and (1 + B, m)."""
    pairs = [(samples[ours > 0], fresh[theirs > 0]) for ours, theirs in zip(*weights, strict=True)]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.array([np.median(ours) / np.median(theirs) for ours, theirs in pairs])
    return {
        "distance_ratio": ratios if np.isfinite(ratios[0]) else REPEATED,
        "near_copies": np.array([np.mean(ours < np.quantile(theirs, NEAR)) for ours, theirs in pairs]),
    }


def proximities(samples: Points, fresh: Points, records: Points) -> dict[str, Proximity]:
    """How close samples and fresh rows, whole ones, come to the records, in every space that can be measured."""
    spaces = [s for s in records.spaces if not unmeasured(len(fresh), len(records.complete(s)), s)]
    if not spaces:
        return {}
    found = {"samples": closest(samples, records), "fresh": closest(fresh, records)}
    met = np.unique(np.concatenate([each.record for sets in found.values() for each in sets.values()]))
    own = closest(records.select(met), records, met)  # of records that are some row's closest
    proximity = {}
    for space in spaces:
        ours, theirs = found["samples"][space], found["fresh"][space]
        reach = own[space].distance
        authentic = (side.distance > reach[np.searchsorted(met, side.record)] for side in (ours, theirs))
        proximity[space] = Proximity(ours, theirs, *authentic)
    return proximity


def unmeasured(fresh: int, records: int, space: str) -> Missing | None:
    """Why the first three tests say nothing of so many fresh rows and records in a space, if they do not."""
    few = too_few(fresh, FEWEST, f"test rows with {WHOLE}")
    return few or too_few(records, FEWEST, f"training rows with {parts_of(space)}")


def parts_of(space: str) -> str:
    """What a row needs to lie in a space, in words."""
    return {JOINT: WHOLE, CODES: "every block of codes"}.get(space, space)


def proximity_vectors(
    found: Mapping[str, Proximity], sources: Ints, resamples: int, rng: np.random.Generator
) -> dict[str, Vectors]:
    """The numbers of the first three tests by space; half-samples of the sources (m,) of fresh rows, and of samples."""
    if not found:
        return {}
    fresh = half_samples(sources, resamples, rng)
    samples = len(next(iter(found.values())).samples.distance)
    drawn = half_samples(np.arange(samples), resamples, rng)
    return {
        space: {
            **compared(each.samples.distance, each.fresh.distance, (drawn, fresh)),
            "authenticity": weighted_mean(each.samples_authentic, drawn),
            "authenticity_fresh": weighted_mean(each.fresh_authentic, fresh),
        }
        for space, each in found.items()
    }


def near_copies(found: Mapping[str, Proximity], ids: Ints | NDArray[np.str_]) -> list[dict[str, Any]]:
    """The near copies, each in the space where it is closest to a record by what is typical there; the worst first."""
    worst: dict[int, dict[str, Any]] = {}
    for space, each in found.items():
        for sample in np.flatnonzero(each.near).tolist():
            distance = float(each.samples.distance[sample])
            entry = {
                "sample": sample,
                "record": ids[each.samples.record[sample]].item(),
                "space": space,
                "distance": distance,
                "ratio": distance / each.typical,
            }
            worst[sample] = min(worst.get(sample, entry), entry, key=lambda one: one["ratio"])
    return sorted(worst.values(), key=lambda one: (one["ratio"], one["sample"]))[:LISTED]


def written(found: Vectors) -> dict[str, Any]:
    """The numbers of one space with their intervals."""
    return {name: estimate(values, BOUNDS[name]) for name, values in found.items()}


def beyond(spaces: Mapping[str, Vectors], margins: Mapping[str, float]) -> list[str]:
    """The tests whose interval in some space lies beyond what fresh rows give, by more than a margin.

    The intervals are one-sided and have Bonferroni's correction: without any leak, some test flags in some space in a
    share (1 − LEVEL) / 2 of all cases at the most.
    """
    excesses = []
    for tests in spaces.values():
        found = {name: values for name, values in tests.items() if not isinstance(values, Missing)}
        for name in TESTS.keys() & found.keys():
            excess = TESTS[name](found)
            halves = replicates(excess)
            if np.isfinite(excess[0]) and halves is not None:
                excesses.append((name, excess[0], halves.std()))
    critical = NormalDist().inv_cdf(1 - (1 - LEVEL) / 2 / max(1, len(excesses)))
    told = {name for name, excess, error in excesses if excess - critical * error > margins.get(name, 0.0)}
    return [name for name in TESTS if name in told]


@torch.no_grad()
def memorisation(density: Density, train: Codes, held_out: Codes, generator: torch.Generator) -> dict[str, Any]:
    """The content of `memorisation` in a density's manifest: medians of the distances, their ratio, and near copies.

    `ratio` is the median distance of the density's draws over that of the held-out codes: 1 where nothing is
    memorised, 0 where the draws are copies. `near_copies` is the share of draws nearer to a training code than all but
    the share `NEAR` of held-out codes, hence `NEAR` where nothing is memorised. Those are codes of other rows than the
    density was fitted to, of the same distribution.
    """
    known, held = (codes.complete.nonzero().squeeze(-1) for codes in (train, held_out))
    for side, there in {"training": known, "held-out": held}.items():
        if few := too_few(len(there), FEWEST, f"{side} rows with every block of codes"):
            return dict.fromkeys(("ratio", "near_copies"), few.written)
    rows = held[torch.randperm(len(held), generator=generator)[:MOST]]
    whitening = Whitening.fit(train)
    targets = whitening.forward(train.draw(generator, known))
    sets = held_out.draw(generator, rows), density.sample(len(rows), generator).loc[:, 0]
    real, new = (_distance(whitening.forward(z), targets) for z in sets)
    return scored(real, new, np.random.default_rng(seed_from(generator)))


def scored(held_out: Floats, drawn: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """Distances of n held-out codes and of n draws (both (n,)), in numbers with 95 % intervals from half-samples."""
    rows = np.arange(len(held_out))
    fresh, samples = (half_samples(rows, RESAMPLES, rng) for _ in range(2))
    found = written(compared(drawn, held_out, (samples, fresh)))
    return {
        "ratio": found["distance_ratio"],
        "near_copies": found["near_copies"],
        "medians": {"held_out": float(np.median(held_out)), "drawn": float(np.median(drawn))},
        "samples": len(held_out),
    }


def _distance(points: Tensor, targets: Tensor) -> Floats:
    """Euclidean distance of each of the points (n, D) to the nearest target (N, D): (n,)."""
    return (points - targets[nearest(points, targets)[:, 0]]).norm(dim=1).double().numpy()
