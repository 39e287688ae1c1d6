"""The memorisation check: distances by brute force, invariance, coverage of intervals, detection of memorisation."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.equations import seeded
from support.latent import posteriors
from torch import Tensor

from postprior.pipelines.metrics.privacy import proximity as module
from postprior.pipelines.metrics.privacy.near import NEAR
from postprior.pipelines.metrics.privacy.proximity import _distance, memorisation, memorisation_scores
from postprior.pipelines.metrics.statistics import neighbours
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Block, Codes

LAYOUT = (Block("z", (8,)),)


@dataclass
class Replay:
    """A density whose draws are given."""

    z: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Codes:
        return Codes.empirical(LAYOUT, self.z[:n])


def points(n: int, seed: int) -> Tensor:
    return torch.randn(n, 8, generator=seeded(seed))


def codes(n: int, seed: int) -> Codes:
    return posteriors(points(n, seed), torch.tensor(0.1), LAYOUT)


@pytest.mark.parametrize("floats", [1, 2**24])
def test_nearest_is_the_least_of_all_distances(monkeypatch: pytest.MonkeyPatch, floats: int) -> None:
    monkeypatch.setattr(neighbours, "FLOATS", floats)
    targets, queries = points(300, 0), points(50, 1)
    exact = (queries.double().unsqueeze(1) - targets.double()).norm(dim=-1).amin(1)
    np.testing.assert_allclose(_distance(queries, targets), exact, rtol=1e-6)
    assert not _distance(targets[:20], targets).any()
    near = targets[:20] + 1e-4 / 8**0.5  # lost in a difference of squares in single precision
    np.testing.assert_allclose(_distance(near, targets), 1e-4, rtol=0.01)


def test_the_check_is_invariant_under_affine_maps_of_the_latent_space() -> None:
    change = torch.randn(8, 8, generator=seeded(5)) + 3 * torch.eye(8)
    sets = [points(400, 0), points(100, 1), points(100, 2)]
    moved = [z @ change + 7.0 for z in sets]
    one, other = (
        memorisation(Replay(drawn), Codes.empirical(LAYOUT, train), Codes.empirical(LAYOUT, held), seeded())
        for train, held, drawn in (sets, moved)
    )
    for name in ("held_out", "drawn"):
        assert one["medians"][name] == pytest.approx(other["medians"][name], rel=1e-3)


def test_as_many_draws_as_held_out_codes_and_no_more_than_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    train, held_out, drawn = codes(200, 0), codes(60, 1), Replay(points(60, 2))
    assert memorisation(drawn, train, held_out, seeded())["samples"] == 60
    monkeypatch.setattr(module, "MOST", 25)
    assert memorisation(drawn, train, held_out, seeded())["samples"] == 25


def test_rows_that_lack_a_block_are_ignored() -> None:
    train, held_out = codes(200, 0), codes(60, 1)
    train.observed[100:] = False
    held_out.observed[:20] = False
    found = memorisation(Replay(points(60, 2)), train, held_out, seeded())
    alone = memorisation(
        Replay(points(60, 2)),
        train.select(torch.arange(100)),
        held_out.select(torch.arange(20, 60)),
        seeded(),
    )
    assert found["samples"] == alone["samples"] == 40
    assert found["ratio"] == pytest.approx(alone["ratio"], rel=1e-4)


def test_intervals_cover_the_true_value_if_nothing_is_memorised() -> None:
    rng = np.random.default_rng(0)
    covered = {"ratio": 0, "near_copies": 0}
    for _ in range(30):
        held_out, drawn = rng.gamma(9.0, size=(2, 500))
        found = memorisation_scores(held_out, drawn, rng)
        covered["ratio"] += found["ratio"]["low"] <= 1 <= found["ratio"]["high"]
        covered["near_copies"] += found["near_copies"]["low"] <= NEAR <= found["near_copies"]["high"]
    assert covered["ratio"] >= 25
    assert covered["near_copies"] >= 25


def test_near_copies_is_the_share_of_copies() -> None:
    rng = np.random.default_rng(0)
    held_out, drawn = rng.gamma(9.0, size=(2, 2000))
    drawn[: len(drawn) // 2] = 0.0
    found = memorisation_scores(held_out, drawn, rng)
    assert found["near_copies"]["value"] == pytest.approx(0.5, abs=0.02)
    assert memorisation_scores(held_out, held_out * 0.7, rng)["ratio"]["value"] == pytest.approx(0.7)
    repeated = memorisation_scores(np.zeros(50), drawn[:50], rng)["ratio"]
    assert repeated["value"] is None
    assert repeated["why"].startswith("half of the held-out rows coincide with training rows")


def test_a_mixture_of_training_posteriors_is_distinguished_from_a_fitted_mixture() -> None:
    train, validation, test = (codes(n, seed) for n, seed in ((800, 0), (200, 1), (400, 2)))
    found = {
        name: memorisation(DENSITIES[name](**options).fit(train, validation, seeded()), train, test, seeded())
        for name, options in {
            "kde": {"bandwidth": 1.0},
            "gmm": {"components": [1, 2], "passes": 20},
        }.items()
    }
    assert found["kde"]["ratio"]["high"] < 0.4
    assert found["kde"]["near_copies"]["low"] > 0.9
    assert 0.9 < found["gmm"]["ratio"]["low"] < found["gmm"]["ratio"]["high"] < 1.1
    assert found["gmm"]["near_copies"]["low"] <= NEAR
    assert found["gmm"]["near_copies"]["high"] < 0.05
