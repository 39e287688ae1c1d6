"""Privacy tests: cases by hand, fresh rows, a memoriser that all tests flag, and real data that none flags."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.privacy.membership import Attack, Projection
from postprior.pipelines.metrics.privacy.near import NEAR, expected_near_copies
from postprior.pipelines.metrics.privacy.proximity import (
    LISTED,
    MARGINS,
    TESTS,
    Proximity,
    Vectors,
    estimates,
    leaking_tests,
    near_copies,
    proximities,
    proximity_vectors,
)
from postprior.pipelines.metrics.statistics.intervals import Ints, half_samples
from postprior.pipelines.metrics.statistics.neighbours import Closest, Points
from postprior.pipelines.settings.params import Params

WIDTHS = {"a": 4, "b": 6}
FRESH = 150  # number of fresh rows


def points(x: np.ndarray, *widths: int) -> Points:
    """Return rows (N, D) with columns split into modalities a, b, …"""
    values = np.split(x.astype(np.float32), np.cumsum(widths)[:-1], axis=1)
    parts = tuple(lambda rows, v=v: torch.from_numpy(v[rows]) for v in values)
    return Points(tuple("abcde"[: len(widths)]), parts, np.ones((len(x), len(widths)), bool), x.shape[1])


def line(*x: float) -> Points:
    return points(np.array(x)[:, None], 1)


def plain(found: dict[str, Proximity], resamples: int = 20, sources: Ints | None = None) -> dict[str, Vectors]:
    fresh = len(next(iter(found.values())).fresh.distance)
    rng = np.random.default_rng(0)
    return proximity_vectors(found, np.arange(fresh) if sources is None else sources, resamples, rng)


def scored(samples: Points, control: Points, attack: tuple[Points, ...], sources: tuple[Ints, Ints]) -> Any:
    """Return the values of the four tests in every space.

    Args:
        samples: rows whose distances are measured.
        control: fresh rows that they are compared with.
        attack: samples that the attacker sees, members (the records), non-members, and auxiliary rows.
        sources: of the control rows, and of the non-members.
    """
    drawn, records, non_members, auxiliary = attack
    vectors = plain(proximities(samples, control, records), 100, sources[0])
    project = Projection.fit(auxiliary, 16)
    attacker = Attack(*(project.side(rows) for rows in (records, non_members, auxiliary)))
    for _, parts in drawn.blocks():
        attacker.update(project(parts))
    rng = np.random.default_rng(1)
    weights = [half_samples(groups, 100, rng) for groups in (np.arange(len(records)), sources[1])]
    for space, values in attacker.aucs(*weights).items():
        vectors[space]["membership_auc"] = values
    return vectors


def test_a_case_by_hand() -> None:
    records = line(0, 1, 10, 12)  # their closest non_members are 1, 1, 2 and 2 away
    found = proximities(line(0.5, 2.5, 9, 30), line(-3, 5, 20), records)["a"]
    assert found.samples.distance.tolist() == pytest.approx([0.5, 1.5, 1, 18])
    assert found.samples.record[1:].tolist() == [1, 2, 3]
    assert found.samples_authentic.tolist() == [False, True, False, True]
    assert found.fresh.distance.tolist() == pytest.approx([3, 4, 8])
    assert found.typical == pytest.approx(4)
    assert found.near.all() == (found.near.sum() == 4)
    assert found.near.tolist() == [True, True, True, False]
    values = {name: vector[0] for name, vector in plain({"a": found})["a"].items()}
    assert values["distance_ratio"] == pytest.approx(1.25 / 4)
    assert values["near_copies"] == 3 / 4
    assert values["authenticity"] == 1 / 2
    assert values["authenticity_fresh"] == 1


@pytest.mark.parametrize(("dimensions", "expected"), [(1, 1 / 3), (2, 0.3785)])
def test_authenticity_of_fresh_rows_is_that_of_closest_pairs(dimensions: int, expected: float) -> None:
    """A row and its neighbour are each other's closest with probability 2/3 on a line, 0.6215 in the plane."""
    rng = np.random.default_rng(0)
    records, fresh = rng.random((8000, dimensions)), 0.1 + 0.8 * rng.random((4000, dimensions))
    found = proximities(*(points(x, dimensions) for x in (fresh, fresh[:5], records)))["a"]
    assert found.samples_authentic.mean() == pytest.approx(expected, abs=0.02)


def test_a_copy_is_not_authentic_even_if_its_record_occurs_twice() -> None:
    found = proximities(line(5, 7), line(9, 9), line(5, 5, 7))["a"]
    assert found.samples_authentic.tolist() == [False, False]


def test_units_change_nothing_but_distances() -> None:
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 3)) for n in (60, 50, 200)]
    one, other = (plain(proximities(*(points(f * x, 3) for x in sets)))["a"] for f in (1, 16))
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], rtol=1e-5)


def test_intervals_cover_what_fresh_samples_give_where_rows_share_sources() -> None:
    covered = dict.fromkeys(("distance_ratio", "near_copies"), 0)
    rng = np.random.default_rng(0)
    for _ in range(30):
        sources = np.repeat(np.arange(60), 6)
        clustered = np.exp(0.3 * rng.normal(size=60)[sources] + 0.2 * rng.normal(size=360))
        samples = np.exp(0.13**0.5 * rng.normal(size=300))  # of the same distribution, each its own source
        kept = np.zeros(300, bool), np.zeros(360, bool)
        closest = (Closest(x, np.zeros(len(x), int)) for x in (samples, clustered))
        found = {"a": Proximity(*closest, *kept)}
        scores = estimates(plain(found, 100, sources)["a"])
        covered["distance_ratio"] += scores["distance_ratio"]["low"] <= 1 <= scores["distance_ratio"]["high"]
        copies = scores["near_copies"]
        covered["near_copies"] += copies["low"] <= NEAR
    assert covered["distance_ratio"] >= 26
    assert covered["near_copies"] >= 26


def test_the_ratio_is_missing_if_fresh_rows_coincide_with_records() -> None:
    vectors = plain(proximities(line(*range(40)), line(*[1] * 40), line(*range(40))))
    ratio = estimates(vectors["a"])["distance_ratio"]
    assert ratio["value"] is None
    assert ratio["why"].startswith("half of the held-out rows coincide with training rows")
    assert estimates(vectors["a"])["near_copies"]["value"] == 0
    assert "distance_ratio" not in leaking_tests(vectors, {}, FRESH)


def test_the_expected_share_of_near_copies_is_that_of_samples_like_fresh_rows() -> None:
    rng = np.random.default_rng(0)
    for fresh in (2, 13, 120):
        held_out, drawn = rng.exponential(size=(4000, fresh)), rng.exponential(size=(4000, 50))
        found = np.mean(drawn < np.quantile(held_out, NEAR, axis=1)[:, None])
        assert found == pytest.approx(expected_near_copies(fresh), rel=0.1)


def clusters(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return clustered rows: records, non-members, auxiliary rows, fresh samples and as many copies of records."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(12, sum(WIDTHS.values())))
    records, non_members, auxiliary, fresh = (
        centres[rng.integers(0, 12, n)] + rng.normal(size=(n, centres.shape[1])) for n in (200, 150, 100, 1000)
    )
    copies = rng.permutation(records.repeat(5, 0)) + 0.05 * rng.normal(size=(1000, records.shape[1]))
    return records, non_members, auxiliary, fresh, copies


def test_a_memoriser_is_flagged_by_all_tests_and_fresh_samples_by_none() -> None:
    """In each of ten data sets, in two modalities and jointly."""
    own = np.arange(150), np.arange(150)
    for seed in range(10):
        records, non_members, auxiliary, fresh, copies = (points(x, *WIDTHS.values()) for x in clusters(seed))
        for samples, flagged in ((copies, list(TESTS)), (fresh, [])):
            subset = samples.select(np.arange(150))
            vectors = scored(subset, non_members, (samples, records, non_members, auxiliary), own)
            assert set(vectors) == {"a", "b", "joint"}
            assert [*leaking_tests(vectors, MARGINS, FRESH)] == flagged
            assert [*leaking_tests({"joint": vectors["joint"]}, MARGINS, FRESH)] == flagged
            if flagged:
                assert min(found["membership_auc"][0] for found in vectors.values()) >= 0.9


def test_the_attack_detects_leaks_even_if_fresh_rows_are_decoded_as_copies() -> None:
    """A decoder that repeats training rows does this."""
    records, non_members, auxiliary, _, copies = (points(x, *WIDTHS.values()) for x in clusters(0))
    subset, control = copies.select(np.arange(150)), copies.select(np.arange(150, 300))
    own = np.arange(150), np.arange(150)
    vectors = scored(subset, control, (copies, records, non_members, auxiliary), own)
    assert [*leaking_tests(vectors, MARGINS, FRESH)] == ["membership_auc"]


def test_digits_with_a_little_noise_are_flagged_by_all_tests_and_held_out_digits_by_none(
    trained: tuple[Path, Params],
) -> None:
    folder = trained[0] / "artefacts/data"
    train, validation, test = (Dataset.load(folder / split) for split in ("train", "validation", "test"))
    assert test.groups is not None
    scales = tuple(Scale.fit(train, m) for m in train.modalities)
    first = np.isin(test.groups, np.unique(test.groups)[::2])
    rng = np.random.default_rng(0)
    noisy = {
        name: (np.repeat(x, 5, axis=0) + rng.normal(0, 0.02, (5 * len(x), *x.shape[1:]))).astype(np.float32)
        for name, x in train.data.items()
    }
    sets = (train, validation, Dataset(train.modalities, noisy), test)
    records, auxiliary, copies, held_out = (points_of(data, scales) for data in sets)
    real, fresh = held_out.select(np.flatnonzero(first)), held_out.select(np.flatnonzero(~first))
    for samples, flagged in ((copies, list(TESTS)), (real, [])):
        subset = samples.select(rng.permutation(len(samples))[: len(real)])
        sources = test.groups[~first]
        vectors = scored(subset, fresh, (samples, records, fresh, auxiliary), (sources, sources))
        assert [*leaking_tests(vectors, MARGINS, FRESH)] == [*leaking_tests(vectors, {}, FRESH)] == flagged
        if flagged:
            assert vectors["joint"]["membership_auc"][0] >= 0.9


def test_near_copies_are_listed_once_in_their_worst_space_and_the_worst_first() -> None:
    n = 200
    rng = np.random.default_rng(0)
    distance = {space: rng.uniform(0.01, 0.5, n) * scale for space, scale in {"a": 1.0, "b": 10.0}.items()}
    fresh = {"a": np.full(30, 1.0), "b": np.full(30, 10.0)}
    distance["a"][:3], distance["b"][0] = [0.0, 9.0, 0.001], 9.0
    distance["b"][1] = 10.0
    authentic = np.zeros(n, bool), np.zeros(30, bool)
    found = {
        space: Proximity(Closest(x, np.arange(n)[::-1]), Closest(fresh[space], np.zeros(30, int)), *authentic)
        for space, x in distance.items()
    }
    ids = np.array([f"person-{number}" for number in range(n)])
    listed = near_copies(found, ids)
    assert len(listed) == LISTED
    assert listed[0] == {"sample": 0, "record": "person-199", "space": "a", "distance": 0.0, "ratio": 0.0}
    assert (listed[1]["sample"], listed[1]["record"]) == (2, "person-197")
    ratios = [one["ratio"] for one in listed]
    assert ratios == sorted(ratios)
    assert len({one["sample"] for one in listed}) == LISTED
    assert 1 not in {one["sample"] for one in listed}
    for one in listed:
        by_space = {space: x[one["sample"]] / fresh[space][0] for space, x in distance.items()}
        assert one["space"] == min(by_space, key=by_space.__getitem__)
    assert near_copies(found, np.arange(n))[0]["record"] == 199


def test_a_flag_needs_more_than_the_margin_and_more_than_chance() -> None:
    rng = np.random.default_rng(0)

    def auc(value: float, spread: float) -> dict[str, Vectors]:
        half = value + spread * rng.normal(size=200)
        return {"joint": {"membership_auc": np.concatenate([[value], half])}}

    assert [*leaking_tests(auc(0.53, 0.002), {}, FRESH)] == ["membership_auc"]
    assert [*leaking_tests(auc(0.53, 0.002), MARGINS, FRESH)] == []
    assert [*leaking_tests(auc(0.6, 0.01), MARGINS, FRESH)] == ["membership_auc"]
    assert [*leaking_tests(auc(0.6, 0.06), {}, FRESH)] == []
    many = {str(space): auc(0.525, 0.01)["joint"] for space in range(100)}  # 2.5 standard errors: one of 160 spaces
    assert [*leaking_tests({"0": many["0"]}, {}, FRESH)] == ["membership_auc"]
    assert [*leaking_tests(many, {}, FRESH)] == []
