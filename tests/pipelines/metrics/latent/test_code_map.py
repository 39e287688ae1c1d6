"""The map of codes: principal axes of the training codes only, with a fixed sign."""

import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.latent.code_map import MOST, chosen, code_map

RNG = np.random.default_rng(0)
TRAIN = RNG.normal(size=(300, 5)) * [0.1, 3.0, 1.0, 0.2, 2.0] + 4.0
HELD_OUT = RNG.normal(size=(40, 5))
DRAWN = {"gmm": RNG.normal(size=(30, 5)), "vamp": RNG.normal(size=(20, 5))}


def test_axes_are_the_principal_ones_of_training_codes() -> None:
    found = code_map(TRAIN, HELD_OUT, DRAWN)
    oracle = PCA(2, svd_solver="full").fit(TRAIN)
    for points, codes in (
        (found.train, TRAIN),
        (found.held_out, HELD_OUT),
        *((found.drawn[n], DRAWN[n]) for n in DRAWN),
    ):
        np.testing.assert_allclose(np.abs(points), np.abs(oracle.transform(codes)), atol=1e-9)
    assert found.explained == pytest.approx(oracle.explained_variance_ratio_.sum())
    assert {name: points.shape for name, points in found.drawn.items()} == {"gmm": (30, 2), "vamp": (20, 2)}


def test_held_out_and_drawn_codes_do_not_change_the_map() -> None:
    one, other = code_map(TRAIN, HELD_OUT, DRAWN), code_map(TRAIN, 100 * HELD_OUT, {})
    np.testing.assert_array_equal(one.train, other.train)


def test_the_greater_coordinate_points_the_same_way() -> None:
    found = code_map(TRAIN, HELD_OUT, {})
    for axis, column in enumerate((1, 4)):  # of the two largest variances, in this order
        assert np.corrcoef(found.train[:, axis], TRAIN[:, column])[0, 1] > 0.9


def test_rows_to_show() -> None:
    rows = chosen(3000, seed=1)
    assert len(np.unique(rows)) == MOST
    assert rows.tolist() == sorted(rows) == chosen(3000, seed=1).tolist() != chosen(3000, seed=2).tolist()
    assert chosen(7, seed=1).tolist() == list(range(7))


def test_umap_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match=r"compare.map: found umap.*pip install 'postprior\[umap\]'"):
        code_map(TRAIN, HELD_OUT, DRAWN, "umap")


@pytest.mark.slow
def test_umap_keeps_neighbourhoods_and_obeys_its_seed() -> None:
    pytest.importorskip("umap", reason="The extra umap is not installed")
    centres = 30 * np.eye(3, 5)
    sets = centres[np.arange(60) % 3] + np.random.default_rng(1).normal(size=(2, 60, 5))
    one, again, other = (code_map(*sets, {"gmm": DRAWN["gmm"]}, "umap", seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.train, again.train)
    np.testing.assert_array_equal(one.drawn["gmm"], again.drawn["gmm"])
    assert not np.array_equal(one.train, other.train)
    assert one.explained is None
    distances = np.linalg.norm(one.held_out[:, None] - one.train, axis=-1)  # (n, N)
    assert (distances.argmin(1) % 3 == np.arange(60) % 3).mean() > 0.95
