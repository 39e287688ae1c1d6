"""Tests over all modalities together from rows of which none has all: copies are found, fresh samples are at chance."""

import numpy as np
import pytest
import torch

from postprior.pipelines.metrics.privacy.membership import Attack, Projection
from postprior.pipelines.metrics.privacy.pairs import NO_PAIR, averaged, paired_tests, pairs_of
from postprior.pipelines.metrics.privacy.proximity import PROXIMITY
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.statistics.neighbours import Points

NAMES = ("a", "b", "c", "d")


def sparse(rows: int) -> np.ndarray:
    """Masks (N, 4) of rows with two modalities each, in turn all six pairs."""
    pairs = [{0, 1}, {0, 2}, {0, 3}, {1, 2}, {1, 3}, {2, 3}]
    return np.array([[m in pairs[row % 6] for m in range(4)] for row in range(rows)])


def values(rows: int, seed: int) -> list[torch.Tensor]:
    return list(torch.randn(4, rows, 5, generator=torch.Generator().manual_seed(seed)))


def points(parts: list[torch.Tensor], observed: np.ndarray) -> Points:
    read = tuple(lambda rows, part=part: part[torch.from_numpy(rows)] for part in parts)
    return Points(NAMES, read, observed, 20, pairs_of(NAMES, dict.fromkeys(("train", "validation", "test"), observed)))


def test_the_mean_over_pairs_finds_copies_of_rows_that_lack_modalities_and_nothing_else() -> None:
    splits = [(values(rows, seed), sparse(rows)) for seed, rows in enumerate((240, 240, 60))]
    train, test, auxiliary = (points(*split) for split in splits)
    project = Projection.fit(auxiliary, 16)
    copies, fresh = (splits[0][0], pytest.approx(1, abs=0.02)), (values(1200, 9), pytest.approx(0.5, abs=0.1))
    for samples, expected in (copies, fresh):
        attack = Attack(*(project.side(side) for side in (train, test, auxiliary)))
        attack.update(project(samples))
        vectors = {space: {"membership_auc": auc} for space, auc in attack.aucs(*np.ones((2, 1, 240))).items()}
        joint, used = averaged(vectors | {"joint": {}}, [*train.pairs], ["membership_auc"])
        assert [*joint] == [*NAMES, "joint"]
        assert used == {"membership_auc": ["a + b", "a + c", "a + d", "b + c", "b + d", "c + d"]}
        assert joint["joint"]["membership_auc"][0] == expected


def test_complete_rows_are_compared_in_all_modalities_if_there_are_enough() -> None:
    few, enough = sparse(60), sparse(60)
    enough[:8] = True
    assert paired_tests({"train": enough, "validation": np.ones((2, 4), bool), "test": enough}) == ()
    assert paired_tests({"train": enough, "validation": few, "test": enough}) == ("membership_auc",)
    assert paired_tests({"train": few, "validation": few, "test": few}) == (*PROXIMITY, "membership_auc")
    assert pairs_of(NAMES[:2], dict.fromkeys(("train", "validation", "test"), few[:, :2])) == {}
    alone = np.eye(4, dtype=bool)[np.arange(60) % 4]
    assert pairs_of(NAMES, dict.fromkeys(("train", "validation", "test"), alone)) == {}


def test_a_test_without_a_value_in_any_pair_says_so_unless_a_few_complete_rows_have_one() -> None:
    few, some = Missing("there are no complete training rows"), np.ones(3)
    vectors = {"a + b": {"x": few, "y": few}, "joint": {"x": few, "y": some}}
    assert averaged(vectors, ["a + b"], ["x", "y"]) == ({"joint": {"x": NO_PAIR, "y": some}}, {})
