"""The size of the data is known before they are prepared, and the speeds are measured with the project's networks."""

from pathlib import Path

import pytest
import torch
from support.project import small, write_params

from postprior.pipelines.data.sources import SOURCES
from postprior.pipelines.errors import UserError
from postprior.pipelines.planning.workload import data_of, measure

DIGITS = {"train": 300, "validation": 60, "test": 120}


def test_a_source_that_makes_rows_makes_only_a_few(tmp_path: Path) -> None:
    params = write_params(tmp_path, small(data__digits={"train": 10**9, "test": 10**9}))
    rows, sample = data_of(params, tmp_path)
    assert rows == {"train": 10**9, "validation": 500, "test": 10**9}
    assert len(sample) == 256


def test_a_folder_is_counted_by_its_manifests(tmp_path: Path) -> None:
    for split, data in SOURCES["digits"](0, tmp_path, **DIGITS).items():
        data.save(tmp_path / "data" / split)
    params = write_params(tmp_path, small(data__source="folder", data__folder={"path": "data"}))
    rows, sample = data_of(params, tmp_path)
    assert rows == DIGITS
    assert len(sample) == 256


def test_a_source_that_reads_files_must_be_prepared_first(tmp_path: Path) -> None:
    params = write_params(tmp_path, small(data__source="polymnist", data__polymnist={"path": "data"}))
    with pytest.raises(UserError, match="run postprior prepare first"):
        data_of(params, tmp_path)


def test_the_speeds_are_those_of_the_networks_of_the_project(tmp_path: Path) -> None:
    """A wider network takes longer, and no random number of the global generator is used."""
    before = torch.random.get_rng_state()
    narrow, wide = (
        measure(
            write_params(tmp_path, small(vae__width=width, augment__model="jnf", vae__options__jnf__beta=1.0)), tmp_path
        )
        for width in (4, 64)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (narrow.modalities, narrow.values, narrow.labels, narrow.dimensions, narrow.blocks) == (5, 3840, 10, 4, 1)
    for speed in ("step", "augment_step", "encode", "decode"):
        assert 0 < getattr(narrow.speeds, speed) < getattr(wide.speeds, speed)
    assert min(narrow.speeds.classifier_step, narrow.speeds.classify, narrow.speeds.pace) > 0
