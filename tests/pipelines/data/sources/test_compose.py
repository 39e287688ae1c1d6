"""Splitting, grouping and drawing of source images, on which the intervals of all scores are based."""

from __future__ import annotations

import numpy as np
import pytest

from postprior.pipelines.data.sources.compose import assign_groups, draw_tuples, split_by_label
from postprior.pipelines.errors import UserError


def labels(counts: tuple[int, ...] = (40, 55, 31)) -> np.ndarray:
    return np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))


def test_splits_are_disjoint_complete_and_stratified() -> None:
    pool = labels()
    parts = split_by_label(pool, (0.65, 0.1, 0.25), np.random.default_rng(0))
    assert sorted(np.concatenate(parts)) == list(range(len(pool)))
    for part, share in zip(parts[1:], (0.1, 0.25), strict=True):
        np.testing.assert_allclose(np.bincount(pool[part]), share * np.bincount(pool), atol=1)


@pytest.mark.parametrize("shares", [(0.5, 0.5, 0.0), (-0.1, 0.6, 0.5)])
def test_shares_that_leave_a_split_empty_are_refused(shares: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="shares"):
        split_by_label(labels(), shares, np.random.default_rng(0))


def test_groups_share_a_label_and_a_size() -> None:
    pool = labels()
    groups = assign_groups(pool, 6, np.random.default_rng(0))
    sizes = np.bincount(groups)
    assert len(sizes) == 3 * 7
    for label, count in enumerate(np.bincount(pool)):
        own = np.unique(groups[pool == label])
        assert len(own) == 7
        assert sizes[own].sum() == count
        assert np.ptp(sizes[own]) <= 1


def test_a_label_with_few_images_has_smaller_groups() -> None:
    groups = assign_groups(labels((60, 2)), 6, np.random.default_rng(0))
    assert np.array_equal(np.unique(groups), np.arange(groups.max() + 1))


@pytest.mark.parametrize("seed", range(5))
def test_tuples_are_distinct_images_of_one_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = assign_groups(labels(), 6, rng)
    rows = draw_tuples(groups, 500, 5, rng)
    assert rows.shape == (500, 5)
    assert (groups[rows] == groups[rows[:, :1]]).all()
    large = np.bincount(groups)[groups[rows[:, 0]]] >= 5
    distinct = np.array([len(set(row)) for row in rows])
    assert (distinct[large] == 5).all()
    assert (distinct[~large] == np.bincount(groups)[groups[rows[~large, 0]]]).all()
    assert np.ptp(np.bincount(groups[rows[:, 0]])) <= 1


def test_every_tuple_of_a_group_is_equally_likely() -> None:
    rows = draw_tuples(np.zeros(4, int), 24_000, 3, np.random.default_rng(0))
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    assert len(counts) == 4 * 3 * 2
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_small_groups_repeat_their_images() -> None:
    rows = draw_tuples(np.array([0, 0, 1]), 10, 5, np.random.default_rng(0))
    assert rows.max() == 2
    assert set(map(len, map(set, rows.tolist()))) == {1, 2}


def test_the_order_of_rows_is_random() -> None:
    rows = draw_tuples(np.repeat([0, 1], 50), 400, 2, np.random.default_rng(0))
    first = rows[:200, 0] < 50
    assert 60 < first.sum() < 140
