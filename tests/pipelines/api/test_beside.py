"""A second process of the package: what it writes, its errors, and its end with the first one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from postprior.pipelines.api.beside import beside, cores
from postprior.pipelines.errors import UserError

FIFO = "waits"


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_a_command_runs_beside_the_block_and_has_ended_after_it(tmp_path: Path) -> None:
    """The command writes a project while the block waits for its settings."""
    with beside(tmp_path, "init", "demo", "--no-git"):
        assert torch.get_num_threads() == 1
        deadline = time.monotonic() + 60
        while not (tmp_path / "demo/params.yaml").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert (tmp_path / "demo/dvc.yaml").exists()


def test_the_message_of_a_command_that_fails_is_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^params\.yaml"), beside(tmp_path, "evaluate-imputation", "gmm"):
        pass


def test_an_error_in_the_block_ends_the_command(tmp_path: Path) -> None:
    """The command reads a file that nobody writes, and would wait forever."""
    os.mkfifo(tmp_path / FIFO)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), beside(tmp_path, "import", FIFO, "data"):
        raise KeyboardInterrupt
    assert time.monotonic() - start < 20


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= cores() <= (os.cpu_count() or 1)
