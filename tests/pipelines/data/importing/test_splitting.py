"""Splits: each label in its share, each subject in one split."""

from __future__ import annotations

import numpy as np
import pytest

from postprior.pipelines.data.importing.run import split_rows
from postprior.pipelines.errors import UserError

SHARES = (0.1, 0.2)


@pytest.mark.parametrize("seed", range(4))
def test_every_label_gets_its_share_plus_or_minus_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(6, 500, p=[0.5, 0.3, 0.1, 0.07, 0.02, 0.01])
    splits = split_rows(labels, None, 500, SHARES, rng)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(splits.values()))), np.arange(500))
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        expected = np.bincount(labels) * share
        found = np.bincount(labels[splits[split]], minlength=6)
        assert (np.abs(found - expected) < 2).all(), (split, found, expected)
        assert abs(len(splits[split]) - 500 * share) <= 1.5


@pytest.mark.parametrize("seed", range(4))
def test_every_subject_is_in_one_split_and_sizes_are_even(seed: int) -> None:
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(100), rng.integers(1, 12, 100))
    labels = (subjects % 3 == 0).astype(np.int64)
    rows = len(subjects)
    splits = split_rows(labels, subjects, rows, SHARES, rng)
    sides = [set(subjects[split]) for split in splits.values()]
    assert sum(map(len, sides)) == 100
    assert set.union(*sides) == set(range(100))
    for (split, chosen), share in zip(splits.items(), (0.7, 0.1, 0.2), strict=True):
        assert abs(len(chosen) / rows - share) < 0.03, split
        assert abs(labels[chosen].mean() - labels.mean()) < 0.12, split


def test_the_seed_determines_the_split() -> None:
    def test_rows(seed: int) -> set[int]:
        return set(split_rows(None, None, 200, SHARES, np.random.default_rng(seed))["test"].tolist())

    assert test_rows(0) == test_rows(0) != test_rows(1)
    counts = np.zeros(200)
    for seed in range(300):
        counts[list(test_rows(seed))] += 1
    assert abs(counts / 300 - 0.2).max() < 0.1  # all rows are equally likely: four standard deviations of 0.023


@pytest.mark.parametrize("rows", range(15, 60))
def test_few_rows_are_enough_in_every_split(rows: int) -> None:
    rng = np.random.default_rng(rows)
    labels = rng.integers(0, 2, rows)
    labels[rows // 2] = 2  # a label of one row, which only training can have
    sizes = {split: len(chosen) for split, chosen in split_rows(labels, None, rows, SHARES, rng).items()}
    assert sizes["train"] >= 10
    assert sizes["validation"] >= 2 - (rows < 18)
    assert sizes["test"] >= min(7, (rows - 10) // 2)


def test_a_rare_label_is_in_training() -> None:
    for seed in range(20):
        labels = np.repeat([0, 1, 2], [40, 1, 2])
        splits = split_rows(labels, None, 43, SHARES, np.random.default_rng(seed))
        assert set(labels[splits["train"]]) == {0, 1, 2}


@pytest.mark.parametrize("shares", [(0.0, 0.2), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_that_leave_a_split_empty_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(UserError, match=r"shares: .* expected both above 0 and their sum below 1"):
        split_rows(None, None, 10, shares, np.random.default_rng(0))
