"""Linkability: the two files, distances with missing values and classes, ties, and the chance of a random link."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
import torch

from postprior.pipelines.metrics.privacy.attacks.attributes import Attributes, total_distances
from postprior.pipelines.metrics.privacy.attacks.linkability import (
    NEIGHBOURS,
    euclidean,
    linkability,
    split_attributes,
)


def attributes(places: list[int], classes: list[bool] | None = None) -> Attributes:
    count = len(places)
    kinds = np.array(classes or [False] * count)
    return Attributes(
        tuple(map(str, range(count))), np.array(places), np.arange(count), kinds, np.zeros(count), np.ones(count)
    )


def test_the_files_are_modalities_or_halves_of_one_table_without_the_label() -> None:
    rng = np.random.default_rng(0)
    first, second = split_attributes(attributes([0, 0, 2, 2, 2, -1]), rng) or ([], [])
    assert sorted([[*first], [*second]]) == [[0, 1], [2, 3, 4]]
    left, right = split_attributes(attributes([1, 1, 1, 1, 1, -1]), rng) or ([], [])
    assert sorted([*left, *right]) == [0, 1, 2, 3, 4]
    assert sorted((len(left), len(right))) == [2, 3]
    assert split_attributes(attributes([0, -1]), rng) is None


def test_the_distance_is_that_of_gower_and_a_missing_value_never_matches() -> None:
    people = torch.tensor([[0.2, 1.0, 0.5], [torch.nan, 2.0, torch.nan]])
    records = torch.tensor([[0.7, 1.0, torch.nan], [9.0, 2.0, 0.5], [torch.nan, torch.nan, 0.4]])
    found = total_distances(people, records, [False, True, False])
    expected = [[0.5 + 0 + 1, 1 + 1 + 0, 1 + 1 + 0.1], [1, 0, 1]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_copies_are_always_linked_and_random_rows_as_often_as_by_chance() -> None:
    rng = np.random.default_rng(0)
    halves = [torch.from_numpy(rng.normal(size=(300, 3))) for _ in range(2)]
    others = [torch.from_numpy(rng.normal(size=(2000, 3))) for _ in range(2)]  # their halves are independent
    outcome = linkability([halves, others], halves, [euclidean] * 2, rng, {})
    assert outcome.main.share == 1
    expected = 1 - comb(300 - NEIGHBOURS, NEIGHBOURS) / comb(300, NEIGHBOURS)
    assert outcome.naive == pytest.approx(expected)
    assert abs(outcome.control.share - expected) < 4 * np.sqrt(expected / 2000)


def test_ties_are_not_links() -> None:
    """All rows are the same in both files: nothing tells the person's rows from those of all others."""
    same = [torch.zeros(500, 2)] * 2
    outcome = linkability([same, same], same, [euclidean] * 2, np.random.default_rng(0), {})
    assert outcome.main.share == outcome.control.share
    assert outcome.risk()[1] <= 0 <= outcome.risk()[2]
