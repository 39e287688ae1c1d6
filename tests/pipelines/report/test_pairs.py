"""Paired tests between samplers: cases computed by hand, and samplers that do not differ."""

import math
from pathlib import Path

import numpy as np
import pytest

from postprior.pipelines.metrics.statistics.intervals import half_samples, weighted_mean
from postprior.pipelines.report.pairs import COLUMNS, holm, read_pairs, wald_tests
from postprior.pipelines.storage import save_artefact


def vector(value: float, noise: list[float]) -> np.ndarray:
    return np.array([value, *(value + error for error in noise)])


def test_holm_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.9: times 4, 3, 2, 1, and never less than the one before
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_difference_by_hand() -> None:
    noise = [-0.02, 0.0, 0.02]  # standard deviation 0.02, so z = 0.04 / 0.02 = 2
    (pair,) = wald_tests({"a": {"score": vector(0.5, noise)}, "b": {"score": vector(0.46, [0.0] * 3)}})
    assert (pair.metric, pair.first, pair.second) == ("score", "a", "b")
    assert pair.difference == pytest.approx(0.04)
    assert pair.p_value == pair.p_holm == pytest.approx(0.0455003, abs=1e-6)  # two-sided, of the normal distribution
    assert pair.significant
    assert pair.of("b").value == -pair.difference
    assert (pair.of("b").low, pair.of("b").high) == (-pair.high, -pair.low)


def test_noise_that_samplers_share_cancels() -> None:
    common = np.random.default_rng(0).normal(0, 1, 100)
    own = np.random.default_rng(1).normal(0, 0.01, 100)
    one, other = vector(5.0, list(common)), vector(4.9, list(common + own))
    (pair,) = wald_tests({"a": {"score": one}, "b": {"score": other}})
    assert pair.significant
    assert pair.high - pair.low < 0.05


def test_differences_without_noise() -> None:
    constant = vector(0.5, [0.0] * 4)
    (same,) = wald_tests({"a": {"score": constant}, "b": {"score": constant.copy()}})
    assert (same.p_value, same.significant) == (1.0, False)
    (different,) = wald_tests({"a": {"score": constant}, "b": {"score": constant + 0.1}})
    assert (different.p_value, different.significant) == (0.0, True)


def test_every_pair_is_corrected_with_all_others() -> None:
    noise = [-0.02, 0.0, 0.02]
    scores = {name: {"x": vector(value, noise)} for name, value in {"a": 0.5, "b": 0.5, "c": 0.5}.items()}
    scores["a"]["y"] = scores["b"]["y"] = vector(0.1, noise)  # c has no y
    found = wald_tests(scores)
    assert [(pair.metric, pair.first, pair.second) for pair in found] == [
        ("x", "a", "b"),
        ("x", "a", "c"),
        ("x", "b", "c"),
        ("y", "a", "b"),
    ]
    assert wald_tests({"a": scores["a"]}) == []
    assert tuple(vars(found[0])) == COLUMNS


def test_five_percent_of_tests_are_false_positives() -> None:
    """Two samplers of the same distribution differ significantly in 5 % of all cases."""
    rng = np.random.default_rng(0)
    weights = half_samples(np.arange(200), 100, rng)
    p_values = []
    for _ in range(400):
        shares = [weighted_mean(rng.random(200) < 0.8, weights) for _ in range(2)]
        (pair,) = wald_tests({"a": {"score": shares[0]}, "b": {"score": shares[1]}})
        p_values.append(pair.p_value)
    found = np.mean(np.array(p_values) < 0.05)
    assert abs(found - 0.05) < 3 * math.sqrt(0.05 * 0.95 / 400)


def test_missing_half_samples_are_not_tested(tmp_path: Path) -> None:
    scores = {"a": vector(0.5, [0.0, 0.1]), "b": vector(0.6, [0.0, 0.1]), "c": vector(0.7, [np.nan, 0.1])}
    for name, values in scores.items():
        arrays = {"scores.joint_coherence": values}
        save_artefact(tmp_path / "artefacts/evaluation" / name, "evaluation", {}, arrays=arrays)
    assert [(pair.first, pair.second) for pair in read_pairs(tmp_path, "abc")] == [("a", "b")]
