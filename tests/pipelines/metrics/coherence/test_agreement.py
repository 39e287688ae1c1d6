"""Coherence: chance level, collapse, label entropy, and conditional coherence given subsets of modalities."""

import numpy as np
import pytest

from postprior.pipelines.metrics.coherence.agreement import (
    joint_agreement,
    label_entropy,
    nested_subsets,
    pairwise_agreement,
    share_right,
    subsets_by_size,
)


def ones(rows):
    return np.ones((1, rows))


def test_agreement_by_hand():
    predictions = np.array([[1, 1, 1], [1, 1, 2], [0, 1, 2]])
    assert joint_agreement(predictions).tolist() == [True, False, False]
    assert pairwise_agreement(predictions) == pytest.approx([1, 1 / 3, 0])


@pytest.mark.parametrize("modalities", [2, 3])
def test_independent_modalities_agree_by_chance(modalities):
    predictions = np.random.default_rng(0).integers(0, 10, (200_000, modalities))
    assert joint_agreement(predictions).mean() == pytest.approx(10.0 ** -(modalities - 1), rel=0.1)
    assert pairwise_agreement(predictions).mean() == pytest.approx(0.1, rel=0.03)


def test_collapse_is_coherent_and_has_no_entropy():
    predictions = np.full((50, 5), 7)
    assert joint_agreement(predictions).all()
    assert all(label_entropy(column, 10, ones(50)).tolist() == [0] for column in predictions.T)


def test_entropy_is_one_for_equal_classes_and_follows_the_weights():
    predictions = np.array([[0, 0], [1, 0], [2, 0], [3, 1]])
    weights = np.array([[1.0, 1, 1, 1], [2, 2, 0, 0]])
    entropy = np.stack([label_entropy(column, 4, weights) for column in predictions.T], 1)
    assert entropy[:, 0] == pytest.approx([1, 0.5])
    assert entropy[:, 1] == pytest.approx([-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(4), 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: joint_agreement(np.zeros((3, 1), int)), "at least two modalities"),
        (lambda: pairwise_agreement(np.array([[0, 0], [0, -1]])), "fewer observed"),
        (lambda: label_entropy(np.zeros(3, int), 1, ones(3)), "at least two classes"),
    ],
)
def test_undefined_scores_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_subsets_are_all_proper_ones_by_size():
    subsets = subsets_by_size(5, 60, np.random.default_rng(0))
    assert subsets.shape == (30, 5)
    assert len(np.unique(subsets, axis=0)) == 30
    assert np.bincount(subsets.sum(1)).tolist() == [0, 5, 10, 10, 5]


def test_many_modalities_give_a_seeded_selection_of_every_size():
    first, again = (subsets_by_size(9, 60, np.random.default_rng(1)) for _ in range(2))
    assert (first == again).all()
    assert len(first) <= 60
    assert set(first.sum(1)) == set(range(1, 9))
    assert len(np.unique(first, axis=0)) == len(first)


def test_conditional_coherence_counts_unobserved_modalities_only():
    subsets = np.array([[True, False, False], [False, True, False], [True, True, False]])
    # one row with label 4; predictions of observed modalities, here 9, do not count
    predictions = np.array([[[9, 4, 5], [4, 9, 4], [9, 9, 4]]])
    assert share_right(predictions, np.array([4]), subsets).tolist() == [[1 / 2, 1, 1]]


def test_subsets_of_a_row_are_nested_and_differ_between_rows():
    subsets = nested_subsets(np.ones((50, 4), bool), np.random.default_rng(0))
    assert subsets.sum(2).tolist() == [[1, 2, 3]] * 50
    assert (subsets[:, 1:] >= subsets[:, :-1]).all()
    assert len(np.unique(subsets[:, 0], axis=0)) == 4


def test_subsets_of_an_incomplete_row_hold_what_it_has():
    observed = np.array([[True, False, True, False]] * 30)
    subsets = nested_subsets(observed, np.random.default_rng(0))
    assert not (subsets & ~observed[:, None]).any()
    assert subsets.sum(2).tolist() == [[1, 2, 2]] * 30


def test_agreement_of_an_incomplete_row_is_that_of_what_it_has():
    rng = np.random.default_rng(0)
    whole = rng.integers(0, 3, (200, 3))
    predictions = np.insert(whole, 1, -1, axis=1)
    assert (joint_agreement(predictions) == joint_agreement(whole)).all()
    assert (pairwise_agreement(predictions) == pairwise_agreement(whole)).all()
