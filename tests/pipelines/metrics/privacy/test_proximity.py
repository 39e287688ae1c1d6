"""Tests of privacy: by hand, what fresh rows give, a memoriser that all of them flag, and real data that none does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.privacy.membership import Attack, Projection
from postprior.pipelines.metrics.privacy.proximity import (
    LISTED,
    MARGINS,
    NEAR,
    TESTS,
    Proximity,
    Vectors,
    beyond,
    near_copies,
    proximities,
    proximity_vectors,
    written,
)
from postprior.pipelines.metrics.statistics.intervals import Ints, half_samples
from postprior.pipelines.metrics.statistics.neighbours import Closest, Points
from postprior.pipelines.settings.params import Params

WIDTHS = {"a": 4, "b": 6}


def points(x: np.ndarray, *widths: int) -> Points:
    """Rows (N, D) whose columns are split into modalities a, b, …"""
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
    """The four tests in every space.

    Args:
        samples: whose distances are taken.
        control: the fresh rows that they are set against.
        attack: samples that the attacker sees, members (the records), others, and reference rows.
        sources: of the control, and of the others.
    """
    drawn, records, others, reference = attack
    vectors = plain(proximities(samples, control, records), 100, sources[0])
    project = Projection.fit(reference, 16)
    game = Attack(*(project.side(rows) for rows in (records, others, reference)))
    for _, parts in drawn.blocks():
        game.see(project(parts))
    rng = np.random.default_rng(1)
    weights = [half_samples(groups, 100, rng) for groups in (np.arange(len(records)), sources[1])]
    for space, values in game.aucs(*weights).items():
        vectors[space]["membership_auc"] = values
    return vectors


def test_a_case_by_hand() -> None:
    records = line(0, 1, 10, 12)  # their closest others are 1, 1, 2 and 2 away
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


def test_no_copy_is_authentic_be_its_record_there_twice() -> None:
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
        samples = np.exp(0.13**0.5 * rng.normal(size=300))  # of the same law, each a source
        kept = np.zeros(300, bool), np.zeros(360, bool)
        closest = (Closest(x, np.zeros(len(x), int)) for x in (samples, clustered))
        found = {"a": Proximity(*closest, *kept)}
        estimates = written(plain(found, 100, sources)["a"])
        covered["distance_ratio"] += estimates["distance_ratio"]["low"] <= 1 <= estimates["distance_ratio"]["high"]
        copies = estimates["near_copies"]
        covered["near_copies"] += copies["low"] <= NEAR
    assert covered["distance_ratio"] >= 26
    assert covered["near_copies"] >= 26


def test_fresh_rows_that_lie_on_records_leave_no_ratio() -> None:
    vectors = plain(proximities(line(*range(40)), line(*[1] * 40), line(*range(40))))
    ratio = written(vectors["a"])["distance_ratio"]
    assert ratio["value"] is None
    assert ratio["why"].startswith("half of the held-out rows lie on training rows")
    assert written(vectors["a"])["near_copies"]["value"] == 0
    assert "distance_ratio" not in beyond(vectors, {})


def clusters(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows of clusters, as real ones are: records, others, reference and as many fresh samples as there are copies."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(12, sum(WIDTHS.values())))
    records, others, reference, fresh = (
        centres[rng.integers(0, 12, n)] + rng.normal(size=(n, centres.shape[1])) for n in (200, 150, 100, 1000)
    )
    copies = rng.permutation(records.repeat(5, 0)) + 0.05 * rng.normal(size=(1000, records.shape[1]))
    return records, others, reference, fresh, copies


def test_a_memoriser_is_flagged_by_all_tests_and_fresh_samples_by_none() -> None:
    """In each of ten data sets, in two modalities and jointly."""
    own = np.arange(150), np.arange(150)
    for seed in range(10):
        records, others, reference, fresh, copies = (points(x, *WIDTHS.values()) for x in clusters(seed))
        for samples, told in ((copies, list(TESTS)), (fresh, [])):
            some = samples.select(np.arange(150))
            vectors = scored(some, others, (samples, records, others, reference), own)
            assert set(vectors) == {"a", "b", "joint"}
            assert beyond(vectors, MARGINS) == told
            assert beyond({"joint": vectors["joint"]}, MARGINS) == told
            if told:
                assert min(found["membership_auc"][0] for found in vectors.values()) >= 0.9


def test_where_fresh_rows_come_back_as_copies_the_attack_still_tells() -> None:
    """So they do through a decoder that repeats training rows."""
    records, others, reference, _, copies = (points(x, *WIDTHS.values()) for x in clusters(0))
    some, control = copies.select(np.arange(150)), copies.select(np.arange(150, 300))
    own = np.arange(150), np.arange(150)
    vectors = scored(some, control, (copies, records, others, reference), own)
    assert beyond(vectors, MARGINS) == ["membership_auc"]


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
    records, reference, copies, held_out = (points_of(data, scales) for data in sets)
    real, fresh = held_out.select(np.flatnonzero(first)), held_out.select(np.flatnonzero(~first))
    for samples, told in ((copies, list(TESTS)), (real, [])):
        some = samples.select(rng.permutation(len(samples))[: len(real)])
        sources = test.groups[~first]
        vectors = scored(some, fresh, (samples, records, fresh, reference), (sources, sources))
        assert beyond(vectors, MARGINS) == beyond(vectors, {}) == told
        if told:
            assert vectors["joint"]["membership_auc"][0] >= 0.9


def test_near_copies_are_listed_once_where_they_are_worst_and_the_worst_first() -> None:
    n = 200
    rng = np.random.default_rng(0)
    distance = {space: rng.uniform(0.01, 0.5, n) * scale for space, scale in {"a": 1.0, "b": 10.0}.items()}
    fresh = {"a": np.full(30, 1.0), "b": np.full(30, 10.0)}
    distance["a"][:3], distance["b"][0] = [0.0, 9.0, 0.001], 9.0
    distance["b"][1] = 10.0
    nobody = np.zeros(n, bool), np.zeros(30, bool)
    found = {
        space: Proximity(Closest(x, np.arange(n)[::-1]), Closest(fresh[space], np.zeros(30, int)), *nobody)
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


def test_a_flag_takes_more_than_a_margin_and_more_than_chance() -> None:
    rng = np.random.default_rng(0)

    def auc(value: float, spread: float) -> dict[str, Vectors]:
        half = value + spread * rng.normal(size=200)
        return {"joint": {"membership_auc": np.concatenate([[value], half])}}

    assert beyond(auc(0.53, 0.002), {}) == ["membership_auc"]
    assert beyond(auc(0.53, 0.002), MARGINS) == []
    assert beyond(auc(0.6, 0.01), MARGINS) == ["membership_auc"]
    assert beyond(auc(0.6, 0.06), {}) == []
    many = {str(space): auc(0.525, 0.01)["joint"] for space in range(100)}  # 2.5 standard errors: one of 160 spaces
    assert beyond({"0": many["0"]}, {}) == ["membership_auc"]
    assert beyond(many, {}) == []
