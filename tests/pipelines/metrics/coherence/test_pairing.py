"""Pairing AUC: shuffles, the critic, and known values of its AUC."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from postprior.pipelines.metrics.coherence.alignment import Critic, fit_critic, pairing_auc, shuffle, shuffled
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.statistics.intervals import half_samples, weighted_auc

ONES = np.ones((1, 800))


def tuples(seed, noise, rows=800):
    """Return outputs of three views of a code by fixed maps, with independent noise."""
    maps = np.random.default_rng(5).normal(size=(3, 4, 6))
    rng = np.random.default_rng(seed)
    code = rng.normal(size=(rows, 4))
    views = ((code @ a + noise * rng.normal(size=(rows, 6))).astype(np.float32) for a in maps)
    return EvaluatorOutputs(tuple(views))


def apart(outputs, seed=9):
    """Return the same modalities, made independent by shuffling."""
    rng = np.random.default_rng(seed)
    return EvaluatorOutputs(tuple(array[rng.permutation(len(array))] for array in outputs.features))


@pytest.fixture(scope="module")
def critic():
    return fit_critic(tuples(0, 0.3), 0)


def auc(critic, outputs, weights=ONES, seed=0):
    return pairing_auc(critic, outputs, weights, np.random.default_rng(seed))


def test_the_auc_counts_pairs_and_halves_ties_under_weights():
    rng = np.random.default_rng(0)
    positive, negative = rng.integers(0, 6, 40) / 2, rng.integers(0, 5, 30) / 2
    left, right = rng.random((3, 40)), rng.random((3, 30))
    beats = (positive[:, None] > negative) + (positive[:, None] == negative) / 2
    brute = np.einsum("bi,ij,bj->b", left, beats, right) / (left.sum(1) * right.sum(1))
    assert weighted_auc(positive, negative, left, right) == pytest.approx(brute, rel=1e-12)
    truth = np.repeat([1, 0], [40, 30])
    scores, weights = np.concatenate([positive, negative]), np.concatenate([left[0], right[0]])
    assert brute[0] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weights))


@pytest.mark.parametrize("rows", [3, 4, 50])
def test_a_shuffled_tuple_takes_every_modality_from_another_row_and_every_row_once(rows):
    rng = np.random.default_rng(0)
    for _ in range(20):
        order = shuffle(np.ones((rows, 3), bool), rng)
        assert all(np.sort(column).tolist() == list(range(rows)) for column in order.T)
        assert all(len(set(line)) == 3 for line in order.tolist())
    codes = torch.arange(rows)[:, None, None].expand(rows, 3, 2)
    assert (shuffled(codes, order)[..., 0].numpy() == order).all()
    two = shuffle(np.ones((2, 3), bool), rng)  # too few rows for three sources, but never one
    assert all(set(line) == {0, 1} for line in two.tolist())
    with pytest.raises(ValueError, match="at least two rows, found 1"):
        shuffle(np.ones((1, 3), bool), rng)


def test_a_shuffled_row_has_the_modalities_of_a_real_one():
    rng = np.random.default_rng(0)
    observed = rng.random((60, 3)) < 0.6
    order = shuffle(observed, rng)
    patterns = observed[order, np.arange(3)]
    assert sorted(patterns.tolist()) == sorted(observed.tolist())
    assert all(np.sort(column).tolist() == list(range(60)) for column in order.T)
    both = patterns.sum(1) > 1
    moved = [len(set(line[seen])) > 1 for line, seen in zip(order[both], patterns[both], strict=True)]
    assert np.mean(moved) > 0.9


def test_the_auc_of_incomplete_rows_recognises_their_pairings(critic):
    def thinned(outputs, seed=3):
        """Hide one modality of every row; its features are 0."""
        mask = np.arange(3) != np.random.default_rng(seed).integers(0, 3, len(outputs))[:, None]
        hidden = zip(outputs.features, mask.T, strict=True)
        return replace(outputs, features=tuple(x * seen[:, None] for x, seen in hidden), mask=mask)

    learned = fit_critic(thinned(tuples(0, 0.3)), 0)
    for of in (critic, learned):
        assert auc(of, thinned(tuples(1, 0.3))) > 0.8
        assert auc(of, thinned(apart(tuples(1, 0.3)))) == pytest.approx(0.5, abs=0.04)


def test_the_score_is_the_sum_of_the_products_of_all_pairs(critic):
    shared = critic.embed(tuples(1, 0.3, rows=7)).double()
    brute = sum((shared[:, m] * shared[:, n]).sum(-1) for m in range(3) for n in range(m))
    torch.testing.assert_close(critic.score(shared), brute + critic.offset.double(), rtol=1e-9, atol=1e-9)


def test_true_pairings_are_recognised_and_independent_ones_are_not(critic):
    assert auc(critic, tuples(1, 0.0)) > 0.99
    assert auc(critic, apart(tuples(1, 0.3))) == pytest.approx(0.5, abs=0.03)
    noisy = [auc(critic, tuples(1, noise))[0] for noise in (0.3, 2.0, 5.0)]
    assert noisy[0] > noisy[1] > noisy[2] > 0.5


def test_collapse_is_not_coherence(critic):
    one = tuples(1, 0.0).select(np.zeros(800, int))
    assert auc(critic, one).tolist() == [0.5]


def test_other_marginals_hardly_change_the_auc(critic):
    """A density that draws only half of the codes, with matching modalities, is coherent."""
    every = tuples(1, 0.3, rows=3000)
    half = np.flatnonzero(every.features[0][:, 0] > 0)[:800]
    assert auc(critic, every.select(half)) == pytest.approx(auc(critic, tuples(2, 0.3)), abs=0.03)


def test_the_critic_comes_near_the_likelihood_ratio():
    """Two standard normals with correlation ρ: log p(x, y) / p(x) p(y) = (ρ x y − ρ² (x² + y²) / 2) / (1 − ρ²) + c."""
    rng, rho = np.random.default_rng(0), 0.8

    def pairs(rows):
        x = rng.normal(size=(rows, 1))
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(rows, 1))
        return EvaluatorOutputs((x.astype(np.float32), y.astype(np.float32)))

    def best(x, y):
        return (rho * x * y - rho**2 * (x**2 + y**2) / 2)[:, 0]

    new = pairs(4000)
    x, y = new.features
    far = np.roll(y, 1, axis=0)
    ones = np.ones((1, 4000))
    oracle = weighted_auc(best(x, y), best(x, far), ones, ones)[0]
    learned = auc(fit_critic(pairs(4000), 0), new, ones)[0]
    assert oracle - 0.03 < learned < oracle + 0.01


def test_half_samples_vary_as_fresh_data_do(critic):
    weights = half_samples(np.arange(300), 200, np.random.default_rng(0))
    of_half_samples = auc(critic, tuples(1, 2.0, rows=300), weights)[1:].std()
    fresh = np.std([auc(critic, tuples(seed, 2.0, rows=300), np.ones((1, 300)))[0] for seed in range(2, 82)])
    assert 0.7 < of_half_samples / fresh < 1.4


def test_the_same_seed_gives_the_same_bytes_and_a_state_gives_it_back(monkeypatch):
    monkeypatch.setattr("postprior.pipelines.metrics.coherence.alignment.STEPS", 20)
    critic = fit_critic(tuples(0, 0.3), 0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    again = fit_critic(tuples(0, 0.3), 0)
    assert torch.rand(1) == expected
    rebuilt = Critic.from_state(*critic.state())
    for other in (again, rebuilt):
        assert all(torch.equal(value, other.state()[0][name]) for name, value in critic.state()[0].items())
    assert (auc(rebuilt, tuples(1, 1.0)) == auc(critic, tuples(1, 1.0))).all()


def test_one_modality_has_no_pairings():
    with pytest.raises(ValueError, match="two modalities"):
        Critic((4,))
