"""The correct predictions of the arms of the augmentation: gains paired by seed and test row."""

from dataclasses import replace

import numpy as np
import pytest

from postprior.pipelines.metrics.utility.augmentation import ArmHits

ARMS = ("real", "classical", "synthetic_1x")
ROWS = 300


def arm_hits(*gains: int) -> ArmHits:
    """Return one seed per gain, with its own difficult rows; the other arms are correct on `gain` more than `real`."""
    difficulty = [np.random.default_rng(seed).permutation(ROWS) for seed in range(len(gains))]
    correct = [[[d < 150 + more] * 3 for more in (0, gain, gain)] for d, gain in zip(difficulty, gains, strict=True)]
    return ArmHits(100, range(len(gains)), ARMS, ("a", "b"), np.array(correct))


def test_arms_with_equal_predictions_have_zero_gain() -> None:
    found = arm_hits(0, 0).estimates
    for gain in (found["classical"]["over_real"], found["synthetic_1x"]["over_classical"]):
        assert gain["joint"] == gain["mean"] == gain["modalities"]["b"] == {"value": 0, "low": 0, "high": 0}
    assert "over_real" not in found["real"]
    assert "over_classical" not in found["classical"]
    assert found["real"]["over_classical"]["joint"]["value"] == 0


def test_gains_are_means_over_seeds_and_paired() -> None:
    found = arm_hits(30, 30).estimates
    gain, accuracy = found["synthetic_1x"]["over_real"]["joint"], found["synthetic_1x"]["accuracy"]["joint"]
    assert accuracy["value"] == pytest.approx(0.6)
    assert gain["value"] == pytest.approx(0.1)
    assert 0 < gain["low"] < 0.1 < gain["high"]
    arms = [found[arm]["accuracy"]["joint"] for arm in ARMS[:2]]
    unpaired = np.hypot(*[arm["high"] - arm["low"] for arm in arms])
    assert gain["high"] - gain["low"] < 0.7 * unpaired


def test_accuracies_of_the_file_are_the_means_that_have_intervals() -> None:
    found = arm_hits(0, 60)
    for arm, accuracies in found.accuracy.items():
        estimates = found.estimates[arm]["accuracy"]
        assert accuracies["joint"] == pytest.approx(estimates["joint"]["value"])
        assert accuracies["mean"] == pytest.approx(estimates["mean"]["value"])
    assert found.accuracy["classical"]["joint"] == pytest.approx(0.6)


def test_seeds_that_disagree_widen_the_interval() -> None:
    widths = []
    for found in (arm_hits(30, 30), arm_hits(0, 60)):
        gain = found.estimates["synthetic_1x"]["over_real"]["joint"]
        assert gain["value"] == pytest.approx(0.1)
        widths.append(gain["high"] - gain["low"])
    assert widths[1] > 2 * widths[0]


def test_sources_are_resampled_and_not_rows() -> None:
    one = arm_hits(30, 30)
    copies = replace(one, hits=np.repeat(one.hits, 5, axis=3))
    grouped = replace(copies, groups=np.repeat(np.arange(ROWS), 5))
    widths = []
    for found in (one, grouped, copies):
        accuracy = found.estimates["real"]["accuracy"]["joint"]
        widths.append(accuracy["high"] - accuracy["low"])
    assert widths[1] == pytest.approx(widths[0])
    assert widths[2] < 0.6 * widths[0]


def test_a_modality_is_scored_on_the_rows_that_have_it() -> None:
    mask = np.ones((ROWS, 2), bool)
    mask[100:, 0] = False
    hits = np.zeros((1, 3, 3, ROWS), bool)
    hits[..., 0, :150] = hits[..., 1, :50] = hits[..., 2, :30] = True
    one = ArmHits(100, [0], ARMS, ("a", "b"), hits, mask=mask)
    found = one.estimates["real"]["accuracy"]
    for name, value in (("joint", 0.5), ("mean", 0.3)):
        assert one.accuracy["real"][name] == pytest.approx(value)
        assert found[name]["value"] == pytest.approx(value)
    assert one.accuracy["real"]["modalities"] == pytest.approx({"a": 0.5, "b": 0.1})
    assert found["modalities"]["a"]["value"] == pytest.approx(0.5)


def test_a_modality_that_no_test_row_has_is_missing() -> None:
    one = replace(arm_hits(0), mask=np.ones((ROWS, 2), bool) & [True, False])
    missing = {"value": None, "why": "no test row with a label has b"}
    assert one.accuracy["real"] == {"joint": 0.5, "mean": 0.5, "modalities": {"a": 0.5, "b": missing}}
    estimates = one.estimates["synthetic_1x"]
    assert estimates["over_real"]["modalities"]["b"] == missing
    assert estimates["accuracy"]["mean"] == estimates["accuracy"]["modalities"]["a"]
