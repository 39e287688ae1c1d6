"""Utility classifiers, and the half-samples behind their intervals."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.labelled import NAMES, data
from torch import Tensor
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.learning import Rows
from postprior.pipelines.metrics.statistics.intervals import estimate
from postprior.pipelines.metrics.utility import classifiers as utility_classifiers
from postprior.pipelines.metrics.utility.classifiers import (
    Classifiers,
    Recipe,
    Replicates,
    _orders,
    classifier_estimates,
    ratio_estimates,
    rows_by_classifier,
    train_classifiers,
)
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import generator_for

RECIPE = Recipe(steps=40, batch_size=32, learning_rate=1e-2, features=8)
SHORT = replace(RECIPE, steps=3)


def test_labels_of_unseen_rows_are_predicted() -> None:
    hits = train_classifiers([data(300)], RECIPE, seed=0).hits(data(200, seed=1))
    assert hits.shape == (3, 200)
    assert (hits.mean(1) > 0.95).all()


def test_two_modalities_with_half_the_information_each_suffice_jointly() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(2, size=(600, 2))
    modalities = tuple(Modality(name, "vector", (1,), "normal") for name in ("one", "other"))
    values = {m.name: bits[:, [i]].astype(np.float32) for i, m in enumerate(modalities)}
    rows = Dataset(modalities, values, labels=2 * bits[:, 0] + bits[:, 1], label_names=tuple("abcd"))
    hits = train_classifiers([rows], RECIPE, seed=0).hits(rows)
    assert hits[0].mean() == 1
    assert (hits[1:].mean(1) < 0.75).all()  # about half


def test_a_modality_s_classifier_learns_nothing_from_the_joint_one() -> None:
    classifiers = Classifiers(data(1).modalities, NAMES, 8)
    torch.nn.init.ones_(classifiers.joint.weight)
    logits = classifiers(data(6).batch(slice(None)))
    assert logits.shape == (6, 3, 3)
    logits[:, 0].square().sum().backward()
    assert classifiers.joint.weight.grad.any()
    assert not any(parameter.grad.any() for parameter in classifiers.label_classifiers.parameters())


def test_a_seed_gives_the_same_bytes_and_no_global_generator_moves() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    states = [train_classifiers([data(60)], SHORT, seed).state_dict() for seed in (0, 0, 1)]
    assert torch.rand(1) == expected
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["joint.weight"], states[2]["joint.weight"])


def test_missing_values_are_neither_learned_from_nor_counted() -> None:
    learned = [train_classifiers([data(90, fill=fill)], RECIPE, 0) for fill in (0.0, 1e3)]
    states = [each.state_dict() for each in learned]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    test = data(120, seed=1, fill=1e3)
    hits, seen = learned[0].hits(test), rows_by_classifier(test.labels, test.observed)
    assert seen.sum(1).tolist() == [120, 80, 80]
    assert not hits[~seen].any()
    weights = Replicates.draw(1, np.arange(120), 20, np.random.default_rng(0))
    assert (weights.accuracy(hits[None], seen)[0] > 0.9).all()


def test_rows_without_a_label_are_neither_learned_from_nor_counted() -> None:
    first, second, test = data(90), data(30, seed=1), data(120, seed=2)
    unlabelled = replace(second, labels=np.full(30, -1))
    alone, both = (train_classifiers(parts, RECIPE, 0) for parts in ([first], [first, unlabelled]))
    assert all(torch.equal(value, both.state_dict()[name]) for name, value in alone.state_dict().items())
    assert test.labels is not None
    known = np.arange(120) % 3 > 0
    some = replace(test, labels=np.where(known, test.labels, -1))
    hits, seen = alone.hits(some), rows_by_classifier(some.labels, some.observed)
    assert (seen == known).all()
    assert (hits == alone.hits(test) & known).all()


@pytest.mark.parametrize("rows", [20, 400])
def test_more_rows_are_not_more_training(rows: int) -> None:
    learned_from = Counter[str]()

    def look(modality: Modality, values: Tensor, generator: torch.Generator) -> Tensor:
        learned_from[modality.name] += len(values)
        return values

    train_classifiers([data(10), data(rows)], SHORT, 0, look)
    assert learned_from == {"picture": 3 * 32, "table": 3 * 32}


def test_rows_are_taken_from_all_parts() -> None:
    first, second = data(5), data(7, seed=1, fill=0.0)
    rows, order = Rows([first, second]), np.array([11, 0, 5, 4, 6])
    for modality in first.modalities:
        values = np.concatenate([first.data[modality.name], second.data[modality.name]])
        assert (rows.values(modality, torch.from_numpy(order)).numpy() == values[order]).all()
    assert (rows.labels.numpy() == np.concatenate([first.labels, second.labels])).all()
    assert (rows.observed.numpy() == np.concatenate([first.observed, second.observed])).all()


def test_training_minimises_the_sum_of_the_mean_cross_entropies_over_observed_rows() -> None:
    """The same training, written as one loop over whole minibatches and with the optimiser of torch."""
    parts, recipe = [data(50, fill=1e3), data(33, seed=1)], replace(RECIPE, steps=8)
    rows, (order,) = Rows(parts), _orders(83, recipe, generator_for("cpu", 3, 1))
    expected = Classifiers(parts[0].modalities, NAMES, recipe.features, 3)
    expected.label_classifiers.standardise(parts[0])
    optimiser = torch.optim.AdamW(expected.parameters(), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, recipe.steps)
    for numbers in order.split(recipe.batch_size):
        batch = Batch({m.name: rows.values(m, numbers) for m in parts[0].modalities}, rows.observed[numbers])
        labels, logits = rows.labels[numbers], expected(batch)
        seen = torch.cat([torch.ones(len(numbers), 1, dtype=torch.bool), batch.observed], 1)
        optimiser.zero_grad()
        sum(F.cross_entropy(logits[present, k], labels[present]) for k, present in enumerate(seen.T)).backward()
        optimiser.step()
        schedule.step()
    found = train_classifiers(parts, recipe, 3).state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    states, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        states.append(train_classifiers([data(60)], SHORT, 0).state_dict())
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_rounds_take_up_the_order_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.cat(list(_orders(7, RECIPE, generator_for("cpu", 0))))
    monkeypatch.setattr(utility_classifiers, "ROUND", 6)
    rounds = list(_orders(7, RECIPE, generator_for("cpu", 0)))
    assert {len(order) for order in rounds} == {6 * 32, 4 * 32}
    assert torch.equal(torch.cat(rounds), whole)


def test_shares_are_weighted_over_seeds_and_rows() -> None:
    rng = np.random.default_rng(0)
    hits, seen = rng.random((3, 2, 12)) < 0.6, rng.random((2, 12)) < 0.8
    hits &= seen
    weights = Replicates.draw(3, np.arange(12) // 2, 7, rng)
    shares = weights.accuracy(hits, seen)
    for b in range(8):
        for k in range(2):
            correct = sum(weights.seeds[b, s] * weights.rows[b, n] * hits[s, k, n] for s in range(3) for n in range(12))
            total = sum(weights.seeds[b, s] * weights.rows[b, n] * seen[k, n] for s in range(3) for n in range(12))
            assert shares[b, k] == pytest.approx(correct / total)
    assert shares[0] == pytest.approx(hits.sum((0, 2)) / (3 * seen.sum(1)))


def test_replicates_spread_as_seeds_and_rows_do_together() -> None:
    rng = np.random.default_rng(0)
    of_seed, of_row = rng.normal(size=6), 2 * rng.normal(size=40)
    values = of_seed[:, None, None] + of_row[None, None, :]  # (S, 1, N); any values may replace hits
    weights = Replicates.draw(6, np.arange(40), 20_000, rng)
    shares = weights.accuracy(values, np.ones((1, 40), bool))[1:, 0]
    expected = of_seed.var(ddof=1) / 6 + of_row.var(ddof=1) / 40
    assert shares.var() == pytest.approx(expected, rel=0.03)


def test_one_seed_has_no_variation_of_seeds() -> None:
    rng = np.random.default_rng(0)
    assert (Replicates.draw(1, np.arange(9), 30, rng).seeds == 1).all()
    same = np.ones((1, 2, 9), bool)
    values = Replicates.draw(1, np.arange(9), 30, rng).accuracy(same, same[0])
    assert estimate(values[:, 0]) == {"value": 1, "low": 1, "high": 1}


def test_estimates_contain_the_mean_over_modalities() -> None:
    values = np.stack([np.full(21, share) for share in (0.9, 0.4, 0.6)], 1)
    found = classifier_estimates(values, ["x", "y"], (0, 1))
    assert found["joint"]["value"] == 0.9
    assert found["mean"]["value"] == 0.5
    assert {name: each["value"] for name, each in found["modalities"].items()} == {"x": 0.4, "y": 0.6}


def test_a_modality_that_no_row_has_is_missing_and_not_wrong() -> None:
    hits = np.array([[[True, False], [False, False], [True, False]]])  # (S, 1 + M, N)
    seen = np.array([[True, True], [False, False], [True, True]])
    weights = Replicates.draw(1, np.arange(2), 4, np.random.default_rng(0))
    found = classifier_estimates(weights.accuracy(hits, seen), ("picture", "table"), (0, 1))
    missing = {"value": None, "why": "no test row with a label has picture"}
    assert found["joint"]["value"] == found["modalities"]["table"]["value"] == found["mean"]["value"] == 0.5
    assert found["modalities"]["picture"] == missing


def test_there_is_no_ratio_to_an_accuracy_of_zero() -> None:
    values, real = np.full((3, 3), 0.2), np.tile([0.4, 0.0, 0.8], (3, 1))
    found = ratio_estimates(values, real, 10, ["m0", "m1"])
    assert found["joint"]["value"] == pytest.approx(0.5)
    assert found["mean"]["value"] == found["modalities"]["m1"]["value"] == pytest.approx(0.25)
    assert found["modalities"]["m0"]["why"] == "no test row is labelled correctly after training on real rows"
