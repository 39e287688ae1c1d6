"""Disks that are full, read-only or broken: one sentence that names the file, and results as they were."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.forked import Command, Project, partials, run
from support.mounts import mounted

from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import load_artefact, save_artefact

UNREADABLE = Path("/proc/self/mem")
"""Reading from the start of this file of Linux is an input/output error."""


@contextmanager
def full(disk: Path, free: int = 0) -> Iterator[None]:
    """Fill a disk up to some free bytes inside the block."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - free)
    yield
    filler.unlink()


def refuse(project: Project, words: str, *reasons: str, fault: Callable[[], object] = str) -> None:
    """Run a command that cannot write; the last line that it prints gives one of the reasons."""
    command = Command(project.root, words, fault=fault)
    case = (words, command.wait(), command.said)
    *_, last = command.said.splitlines()
    assert case[1] == 1, case
    assert last.startswith((f"postprior: error: {project.root}", "postprior: error: samples: ")), case
    assert any(reason in last for reason in reasons), case
    assert "Traceback" not in command.said, case
    project.check(case)


def test_an_artefact_on_a_full_disk_is_the_old_or_the_new(tmp_path: Path) -> None:
    """The disk has room for a part of the files, for all files but the manifest, or for all."""
    written, tensors, arrays = [], {"t": torch.zeros(5000)}, {"d": np.zeros(2500)}  # 20 kB each
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=128k", "tmpfs") as disk:
        for free in range(0, 64 * 1024, 4096):
            save_artefact(disk / "thing", "thing", {"free": -1})
            with full(disk, free):
                with suppress(OSError, UserError):
                    save_artefact(disk / "thing", "thing", {"free": free}, tensors, arrays)
                found = load_artefact(disk / "thing", "thing").manifest["free"]
            assert found in (-1, free)
            written.append(found == free)
            assert not partials(disk)
    assert written == sorted(written)
    assert {*written} == {False, True}


def test_a_stage_on_a_full_disk(project: Project) -> None:
    with mounted(project.root.with_name("disk"), "-t", "tmpfs", "-o", "size=128m", "tmpfs") as disk:
        there = Project(Path(shutil.copytree(project.root, disk, dirs_exist_ok=True)), project.stages)
        for words in project.stages:
            with full(disk):
                refuse(there, words, os.strerror(errno.ENOSPC), "kB on the disk, expected at most")
            run(there.root, words)
            there.check(words)


def test_a_stage_on_a_read_only_disk(project: Project) -> None:
    with mounted(project.root, "-o", "bind,ro", str(project.root)):
        for words in project.stages:
            refuse(project, words, os.strerror(errno.EROFS))


def break_disk(after: int) -> None:
    """Let flushing to the disk fail for good after some calls."""
    flush, calls = os.fsync, iter(range(after))

    def fsync(descriptor: int) -> None:
        if next(calls, None) is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(descriptor)

    os.fsync = fsync


@pytest.mark.parametrize("after", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_stage_whose_disk_fails(project: Project, after: int) -> None:
    for words in project.stages:
        refuse(project, words, os.strerror(errno.EIO), fault=partial(break_disk, after))
        run(project.root, words)
        project.check(words)


@pytest.mark.parametrize("path", ["params.yaml", "artefacts/data/train/manifest.json", "artefacts/data/train/m0.npy"])
def test_an_input_that_cannot_be_read(project: Project, path: str) -> None:
    if not UNREADABLE.exists():
        pytest.skip("this system has no /proc")
    (project.root / path).unlink()
    (project.root / path).symlink_to(UNREADABLE)
    command = Command(project.root, "encode")
    assert command.wait() == 1
    *_, last = command.said.splitlines()
    assert re.fullmatch(rf"postprior: error: \S*{path}: {os.strerror(errno.EIO)}", last), command.said


def test_an_earlier_result_that_cannot_be_read_is_told_and_stays(tmp_path: Path) -> None:
    if not UNREADABLE.exists():
        pytest.skip("this system has no /proc")
    save_artefact(tmp_path / "thing", "thing", {})
    (tmp_path / "thing/manifest.json").unlink()
    (tmp_path / "thing/manifest.json").symlink_to(UNREADABLE)
    with pytest.raises(OSError, match=f"{os.strerror(errno.EIO)}.*thing/manifest.json"):
        save_artefact(tmp_path / "thing", "thing", {})
    assert (tmp_path / "thing/manifest.json").is_symlink()
    assert not partials(tmp_path)


def write_to_full() -> None:
    for stream in (1, 2):
        os.dup2(os.open("/dev/full", os.O_WRONLY), stream)


def test_a_log_on_a_full_disk_stops_no_stage(project: Project) -> None:
    for words in project.stages:
        assert Command(project.root, words, fault=write_to_full).wait() == 0, words
        project.check(words)
