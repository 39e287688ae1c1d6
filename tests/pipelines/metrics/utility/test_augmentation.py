"""The augmentation curve: gains paired by seed and test row."""

from dataclasses import replace

import numpy as np
import pytest

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.utility.augmentation import Cell, curve

ARMS = ("real", "classical", "synthetic_1x")
ROWS = 300


def cell(seed: int, gain: int = 0, size: int = 100) -> Cell:
    """Return a cell whose difficult rows depend on the seed; other arms are correct on `gain` more rows than `real`."""
    difficulty = np.random.default_rng(seed).permutation(ROWS)
    hits = np.stack([np.stack([difficulty < 150 + more] * 3) for more in (0, gain, gain)])
    return Cell(size, seed, ARMS, ("a", "b"), hits)


def test_arms_with_equal_predictions_have_zero_gain() -> None:
    found = curve([cell(0), cell(1)])["100"]
    for gain in (found["classical"]["over_real"], found["synthetic_1x"]["over_classical"]):
        assert gain["joint"] == gain["mean"] == gain["modalities"]["b"] == {"value": 0, "low": 0, "high": 0}
    assert "over_real" not in found["real"]
    assert "over_classical" not in found["classical"]
    assert found["real"]["over_classical"]["joint"]["value"] == 0


def test_gains_are_means_over_seeds_and_paired() -> None:
    found = curve([cell(0, 30), cell(1, 30)])["100"]
    gain, accuracy = found["synthetic_1x"]["over_real"]["joint"], found["synthetic_1x"]["accuracy"]["joint"]
    assert accuracy["value"] == pytest.approx(0.6)
    assert gain["value"] == pytest.approx(0.1)
    assert 0 < gain["low"] < 0.1 < gain["high"]
    arms = [found[arm]["accuracy"]["joint"] for arm in ARMS[:2]]
    unpaired = np.hypot(*[arm["high"] - arm["low"] for arm in arms])
    assert gain["high"] - gain["low"] < 0.7 * unpaired


def test_seeds_that_disagree_widen_the_interval() -> None:
    agreeing, disagreeing = curve([cell(0, 30), cell(1, 30)]), curve([cell(0, 0), cell(1, 60)])
    widths = []
    for found in (agreeing, disagreeing):
        gain = found["100"]["synthetic_1x"]["over_real"]["joint"]
        assert gain["value"] == pytest.approx(0.1)
        widths.append(gain["high"] - gain["low"])
    assert widths[1] > 2 * widths[0]


def test_sources_are_resampled_and_not_rows() -> None:
    copies = [replace(cell(seed, 30), hits=np.repeat(cell(seed, 30).hits, 5, axis=2)) for seed in (0, 1)]
    grouped = [replace(each, groups=np.repeat(np.arange(ROWS), 5)) for each in copies]
    widths = []
    for cells in ([cell(0, 30), cell(1, 30)], grouped, copies):
        accuracy = curve(cells)["100"]["real"]["accuracy"]["joint"]
        widths.append(accuracy["high"] - accuracy["low"])
    assert widths[1] == pytest.approx(widths[0])
    assert widths[2] < 0.6 * widths[0]


def test_a_modality_is_scored_on_the_rows_that_have_it() -> None:
    mask = np.ones((ROWS, 2), bool)
    mask[100:, 0] = False
    hits = np.zeros((3, 3, ROWS), bool)
    hits[:, 0, :150] = hits[:, 1, :50] = hits[:, 2, :30] = True
    one = Cell(100, 0, ARMS, ("a", "b"), hits, mask=mask)
    found = curve([one])["100"]["real"]["accuracy"]
    for name, value in (("joint", 0.5), ("mean", 0.3)):
        assert one.accuracy["real"][name] == pytest.approx(value)
        assert found[name]["value"] == pytest.approx(value)
    assert one.accuracy["real"]["modalities"] == pytest.approx({"a": 0.5, "b": 0.1})
    assert found["modalities"]["a"]["value"] == pytest.approx(0.5)


def test_sizes_are_in_order_of_number() -> None:
    assert list(curve([cell(0, size=500), cell(0, size=50), cell(1, size=50)])) == ["50", "500"]
    assert curve([]) == {}


def test_cells_of_other_test_rows_are_refused() -> None:
    other = replace(cell(1), hits=cell(1).hits[:, :, :200])
    with pytest.raises(UserError, match="seeds 0 and 1 of size 100"):
        curve([cell(0), other])


def test_a_modality_that_no_test_row_has_is_missing() -> None:
    one = replace(cell(0), mask=np.ones((ROWS, 2), bool) & [True, False])
    missing = {"value": None, "why": "no test row has b"}
    assert one.accuracy["real"] == {"joint": 0.5, "mean": missing, "modalities": {"a": 0.5, "b": missing}}
    estimates = curve([one])["100"]["synthetic_1x"]
    assert estimates["over_real"]["modalities"]["b"] == estimates["accuracy"]["mean"] == missing
