"""The stage `prepare`, which writes the dataset folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.project import small, write_params

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.stages.prepare import prepare


def test_the_splits_are_published(tmp_path: Path) -> None:
    params = write_params(tmp_path, small())
    hashes = []
    for _ in range(2):
        prepare(params, tmp_path)
        splits = {split: Dataset.load(tmp_path / "artefacts/data" / split) for split in ("train", "validation", "test")}
        hashes.append([dataset.hash for dataset in splits.values()])
    assert hashes[0] == hashes[1]
    assert [len(dataset) for dataset in splits.values()] == [300, 60, 120]
    assert sorted(path.name for path in (tmp_path / "artefacts/data").iterdir()) == [
        "test",
        "train",
        "validation",
    ]


def test_a_prepared_folder_is_a_source(tmp_path: Path) -> None:
    params = write_params(tmp_path / "first", small())
    prepare(params, tmp_path / "first")
    tree = small(data={"source": "folder", "folder": {"path": "../first/artefacts/data"}})
    prepare(write_params(tmp_path / "second", tree), tmp_path / "second")
    first, second = (Dataset.load(tmp_path / name / "artefacts/data/test") for name in ("first", "second"))
    assert first.hash == second.hash
    np.testing.assert_array_equal(first.data["m4"], second.data["m4"])


def test_a_failing_source_leaves_the_old_folders(tmp_path: Path) -> None:
    prepare(write_params(tmp_path, small()), tmp_path)
    before = Dataset.load(tmp_path / "artefacts/data/train").hash
    params = write_params(tmp_path, small(data__digits={"train": 200, "test_share": 2.0}))
    with pytest.raises(UserError, match="shares of the splits"):
        prepare(params, tmp_path)
    assert Dataset.load(tmp_path / "artefacts/data/train").hash == before
