"""Privacy tests of all modalities together where hardly any row has all of them: means over pairs of modalities.

A test of the joint space needs rows that have every modality. If fewer than `ENOUGH` do, and others lack some, the test
is made for every pair of modalities that enough rows have, and its joint value is the mean over these pairs. Training
rows, samples and held-out rows are compared in the same pairs, so the value without a leak is the same.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.privacy.membership import MIN_AUXILIARY
from postprior.pipelines.metrics.privacy.proximity import PROXIMITY, Vectors
from postprior.pipelines.metrics.statistics.intervals import ENOUGH, FEWEST, mean_of_present, well_observed
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.statistics.neighbours import JOINT

NO_PAIR = Missing("too few rows have all modalities, and no two modalities are observed together in enough rows")
Masks = Mapping[str, NDArray[np.bool_]]  # by split, the observed modalities of its rows (N, M)


def paired_tests(observed: Masks) -> tuple[str, ...]:
    """Return the tests with too few complete rows: the distances need training rows, the attack rows of every split."""
    few = {split for split, mask in observed.items() if mask.all(1).sum() < min(ENOUGH, len(mask))}
    return (*(PROXIMITY if "train" in few else ()), *(("membership_auc",) if few else ()))


def pairs_of(names: Sequence[str], observed: Masks) -> dict[str, tuple[int, int]]:
    """Return the pairs of the M modalities that enough rows have, with their places; none if complete rows suffice.

    >>> some = np.eye(3, dtype=bool)[np.arange(30) % 3] | [True, False, False]
    >>> pairs_of("abc", {"train": some, "validation": some, "test": some})
    {'a + b': (0, 1), 'a + c': (0, 2)}
    """
    if len(names) < 3 or not paired_tests(observed):  # the only pair of two is the joint space
        return {}
    pairs = np.array([*combinations(range(len(names)), 2)])
    rows = {split: mask[:, pairs].all(2).sum(0) for split, mask in observed.items()}
    compared = np.minimum(rows["train"], rows["test"])
    attacked = np.where(rows["validation"] >= MIN_AUXILIARY, compared, 0)
    enough = well_observed(attacked if attacked.any() else compared) & (rows["train"] >= FEWEST)
    return {f"{names[m]} + {names[n]}": (m, n) for m, n in pairs[enough].tolist()}


def averaged(
    vectors: Mapping[str, Vectors], pairs: Sequence[str], tests: Sequence[str]
) -> tuple[dict[str, Vectors], dict[str, list[str]]]:
    """Return the vectors without the spaces of pairs, and the pairs in which each of these tests has a value.

    In the joint space, the tests are the means over these pairs; a test that has no value there either says so.
    """
    found = {test: [pair for pair in pairs if not isinstance(vectors[pair][test], Missing)] for test in tests}
    used = {test: measured for test, measured in found.items() if measured}
    joint: Vectors = {
        test: mean_of_present([vectors[pair][test] for pair in measured]) for test, measured in used.items()
    }
    kept = {space: scores for space, scores in vectors.items() if space not in pairs}
    joint |= {test: NO_PAIR for test in tests if test not in used and isinstance(kept[JOINT][test], Missing)}
    return kept | {JOINT: kept[JOINT] | joint}, used
