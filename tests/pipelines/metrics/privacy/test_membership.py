"""The membership inference attack: densities by brute force, detection of copies, chance level for fresh samples."""

import numpy as np
import pytest
import torch

from postprior.pipelines.metrics.privacy.membership import NEIGHBOURS, Attack, Projection, Side
from postprior.pipelines.metrics.statistics import neighbours as module
from postprior.pipelines.metrics.statistics.intervals import SHARE, estimate, half_samples, weighted_auc
from postprior.pipelines.metrics.statistics.neighbours import Points, kth_distance

DIMENSIONS = 8


def normal(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, DIMENSIONS, generator=torch.Generator().manual_seed(seed))


def side(x: torch.Tensor) -> dict[str, Side]:
    return {"a": Side(x, np.arange(len(x)))}


def attacked(members: torch.Tensor, non_members: torch.Tensor, samples: list[torch.Tensor]) -> np.ndarray:
    """Return the AUC and its half-samples."""
    attack = Attack(side(members), side(non_members), side(normal(300, 99)))
    for block in samples:
        attack.update({"a": block})
    rng = np.random.default_rng(0)
    return attack.aucs(*(half_samples(np.arange(len(x)), 100, rng) for x in (members, non_members)))["a"]


def test_densities_are_those_of_all_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLOATS", 4 * 1000)
    members, non_members, samples, auxiliary = (normal(n, seed) for seed, n in enumerate((40, 30, 200, 60)))
    attack = Attack(side(members), side(non_members), side(auxiliary))
    for block in samples.split(37):
        attack.update({"a": block})
    from_auxiliary, from_samples = (
        torch.cdist(torch.cat([members, non_members]).double(), x.double()) for x in (auxiliary, samples)
    )
    score = (from_auxiliary.kthvalue(NEIGHBOURS).values.log() - from_samples.amin(1).log()).numpy()
    ones = np.ones((1, 40)), np.ones((1, 30))
    assert attack.aucs(*ones)["a"] == pytest.approx(weighted_auc(score[:40], score[40:], *ones))
    few = kth_distance(members, auxiliary[:4], NEIGHBOURS).double()
    torch.testing.assert_close(few, torch.cdist(members.double(), auxiliary[:4].double()).amax(1), rtol=1e-5, atol=0)


def test_copies_reveal_members_and_fresh_samples_do_not() -> None:
    members, non_members = normal(400, 0), normal(300, 1)
    noise = 0.05 * torch.randn(2000, DIMENSIONS, generator=torch.Generator().manual_seed(5))
    copies = members.repeat(5, 1) + noise
    assert attacked(members, non_members, [copies])[0] >= 0.95
    assert attacked(members, non_members, [normal(2000, 2)])[0] == pytest.approx(0.5, abs=0.05)
    a_quarter = attacked(members, non_members, [copies[:100], normal(1900, 3)])
    assert a_quarter[0] == pytest.approx(0.25 + 0.75 / 2, abs=0.06)
    assert estimate(a_quarter, SHARE)["low"] > 0.5


def test_the_interval_covers_one_half_for_fresh_samples() -> None:
    covered = 0
    for seed in range(30):
        x = [normal(n, 100 * seed + k) for k, n in enumerate((150, 150, 750))]
        found = estimate(attacked(x[0], x[1], [x[2]]), SHARE)
        covered += found["low"] <= 0.5 <= found["high"]
    assert covered >= 25


def test_all_components_keep_all_distances_and_the_first_those_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(50, 3)) * [5, 1, 0.1], rng.normal(size=(50, 4)) * 0.01]
    parts = tuple(lambda rows, v=v: torch.from_numpy(v[rows]).float() for v in values)
    points = Points(("a", "b"), parts, np.ones((50, 2), bool), 7)
    complete, short = (Projection.fit(points, d).side(points) for d in (20, 2))
    exact = torch.from_numpy(np.concatenate(values, 1))
    assert complete["joint"].components.shape == (50, 7)
    torch.testing.assert_close(
        torch.pdist(complete["joint"].components.double()), torch.pdist(exact), rtol=1e-3, atol=1e-4
    )
    variances = np.linalg.svd(exact - exact.mean(0), compute_uv=False)[:2] ** 2 / 49
    np.testing.assert_allclose(short["joint"].components.var(0), variances, rtol=1e-3)


def test_rows_without_a_modality_are_left_out_of_its_space() -> None:
    values = [normal(40, 0), normal(40, 1)]
    observed = np.ones((40, 2), bool)
    observed[:10, 1] = False
    points = Points(("a", "b"), tuple(lambda rows, v=v: v[torch.from_numpy(rows)] for v in values), observed, 16)
    sides = Projection.fit(points, 3).side(points)
    assert {space: len(side.components) for space, side in sides.items()} == {"a": 40, "b": 30, "joint": 30}
    assert sides["b"].rows.tolist() == list(range(10, 40))
    never = Points(points.names, points.parts, observed & [True, False], 16)
    assert list(Projection.fit(never, 3).axes) == ["a"]
    attack = Attack(sides, Projection.fit(points, 3).side(never), sides)
    attack.update(Projection.fit(points, 3)([v[:5] for v in values]))
    assert list(attack.aucs(np.ones((1, 40)), np.ones((1, 40)))) == ["a"]
