"""Folders and files are published atomically, and only the own files of a command are replaced."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from postprior.pipelines import publishing
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import check_file, publish, write_bytes, write_text
from postprior.pipelines.storage import folder_hash, load_artefact, save_artefact


@contextmanager
def small_disk() -> Iterator[None]:
    """Let the system refuse every write beyond 4 kB of a file, as on a full disk.

    This holds inside the block only, because the report of the tests may be a longer file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def everything(folder: Path) -> set[Path]:
    """Return all files of a folder as own files."""
    return {path.relative_to(folder) for path in folder.rglob("*")}


def old_folder(root: Path) -> Path:
    folder = root / "model"
    with publish(folder) as new:
        (new / "old.txt").write_text("old")
    return folder


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_publish_replaces_the_whole_folder(tmp_path: Path) -> None:
    folder = old_folder(tmp_path)
    with publish(folder, everything) as new:
        (new / "new.txt").write_text("new")
        assert content(folder) == {"old.txt": "old"}
    assert content(folder) == {"new.txt": "new"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_publish_makes_parents_and_respects_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with publish(tmp_path / "a/b/c"):
        pass
    assert (tmp_path / "a/b/c").stat().st_mode == plain.stat().st_mode


def test_publish_follows_a_relative_path_and_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = old_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("model")
    with publish(Path("link"), everything) as new:
        (new / "new.txt").write_text("new")
    assert Path("link").is_symlink()
    assert content(folder) == {"new.txt": "new"}


def test_a_file_in_place_of_a_parent_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OSError, match="exists"), publish(tmp_path / "a/b"):
        pass


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_publish_keeps_the_old_folder_on_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    folder = old_folder(tmp_path)
    with pytest.raises(error), publish(folder, everything) as new:
        (new / "half.txt").write_text("half")
        raise error
    assert content(folder) == {"old.txt": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_publish_puts_the_old_folder_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = old_folder(tmp_path)
    with pytest.raises(FileNotFoundError), publish(folder, everything) as new:
        new.rmdir()
        monkeypatch.setattr(publishing, "_sync", lambda path: None)
    assert content(folder) == {"old.txt": "old"}


def test_a_full_disk_keeps_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_artefact(folder, "thing", {"name": "old"})
    with pytest.raises(OSError, match="too large"), small_disk():
        save_artefact(folder, "thing", {}, arrays={"big": np.zeros(10_000)})
    assert load_artefact(folder, "thing").manifest["name"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(OSError, match="too large"), small_disk():
        write_bytes(tmp_path / "a.txt", bytes(10_000))
    assert content(tmp_path) == {"a.txt": "old"}


def test_a_failing_sync_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = old_folder(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with (
        pytest.raises(OSError, match="No space"),
        publish(folder, everything) as new,
        monkeypatch.context() as patch,
    ):
        (new / "half.txt").write_text("half")
        patch.setattr(os, "fsync", full)
        write_text(new / "more.txt", "more")
    assert content(folder) == {"old.txt": "old"}


@pytest.mark.parametrize(
    "writing",
    [
        "with publish(target, lambda _: [Path('old.txt')]) as new:\n (new / 'half.txt').write_text('half'); wait()",
        "with publish_file(target / 'old.txt') as file:\n file.write(b'half'); file.flush(); wait()",
    ],
    ids=["folder", "file"],
)
def test_a_kill_in_the_middle_keeps_the_old_one_and_is_cleaned_up_later(tmp_path: Path, writing: str) -> None:
    folder = old_folder(tmp_path)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom postprior.pipelines.publishing import publish, publish_file\n"
        "def wait(): print('now', flush=True); time.sleep(60)\n"
        f"target = Path(sys.argv[1])\n{writing}\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert (folder / "old.txt").read_text() == "old"
    assert len(list(tmp_path.rglob(".*.partial"))) == 1
    write_text(folder / "old.txt", "older")
    with publish(folder, everything):
        assert len(list(tmp_path.rglob(".*.partial"))) == 1
    assert not list(tmp_path.rglob(".*.partial"))


def test_the_partial_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".model.{os.getppid()}-12345678.partial"
    other.mkdir()
    old_folder(tmp_path)
    assert other.exists()


@pytest.mark.parametrize("swap", ["_exchange", "_swap"], ids=["in one step", "in two steps"])
def test_a_folder_is_complete_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: str) -> None:
    """Readers of an artefact that is published repeatedly always find a complete one, or none if it takes two steps."""
    folder, absent, wrong = tmp_path / "thing", [0], []
    if swap == "_swap":
        monkeypatch.setattr(publishing, "_exchange", lambda new, place: False)

    def write(value: int) -> None:
        tensors = {name: torch.full((50, 50), float(value)) for name in "abc"}
        save_artefact(folder, "thing", {"value": value}, tensors, {"d": np.full(5000, value)})

    def read() -> None:
        while writer.is_alive():
            try:
                found = load_artefact(folder, "thing")
            except UserError:
                absent[0] += 1
                continue
            values = {*(float(t.unique()) for t in found.tensors.values()), *found.arrays["d"].tolist()}
            if values != {found.manifest["value"]}:
                wrong.append(values)

    write(0)
    writer = threading.Thread(target=lambda: [write(value) for value in range(1, 40)])
    writer.start()
    read()
    writer.join()
    assert not wrong
    assert swap == "_swap" or not absent[0]
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_two_folders_are_swapped_in_one_step_here(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name.txt").write_text(name)
    if not publishing._exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("This system or disk cannot swap folders")
    assert content(tmp_path / "one") == {"name.txt": "other"}
    assert content(tmp_path / "other") == {"name.txt": "one"}


def test_the_old_folder_comes_back_where_the_second_of_two_steps_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = old_folder(tmp_path)
    (tmp_path / "new").mkdir()
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt):
        publishing._swap(tmp_path / "new", folder)
    assert content(folder) == {"old.txt": "old"}


def test_a_file_added_to_the_folder_in_the_meantime_is_kept(tmp_path: Path) -> None:
    folder = old_folder(tmp_path)
    with (
        pytest.raises(UserError, match=r"model: found notes\.txt in it"),
        publish(folder, lambda place: [Path("old.txt")]),
    ):
        (folder / "notes.txt").write_text("mine")
    assert content(folder) == {"old.txt": "old", "notes.txt": "mine"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_artefact_replaces_only_its_own_kind(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    (folder / "empty/folders").mkdir(parents=True)
    save_artefact(folder, "thing", {}, arrays={"a": np.arange(3)})
    before = folder_hash(folder)
    (folder / ".DS_Store").write_text("of a desktop")
    with pytest.raises(UserError, match=r"thing: found \S+ in it, which this command did not write"):
        save_artefact(folder, "another", {})
    assert folder_hash(folder) == before
    save_artefact(folder, "thing", {"new": True})
    assert load_artefact(folder, "thing").manifest["new"]


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (".", "the current folder or a folder above it"),
        ("", "the current folder or a folder above it"),
        ("..", "the current folder or a folder above it"),
        ("/", "the current folder or a folder above it"),
        ("~", "the home folder or a folder above it"),
        ("inputs", "expected a folder that contains no input"),
        ("inputs/one", "expected a folder that contains no input"),
        ("linked", "expected a folder that contains no input"),
        ("circle", None),
    ],
)
def test_folders_that_are_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, sentence: str | None
) -> None:
    """They are not replaced even if the command wrote all files in them."""
    source = tmp_path / "here/inputs/one/data.csv"
    source.parent.mkdir(parents=True)
    source.write_text("1")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    Path("linked").symlink_to("inputs")
    Path("circle").symlink_to("circle")
    folder = tmp_path / "home" if target == "~" else Path(target)
    with (
        pytest.raises(UserError if sentence else OSError, match=sentence),
        publish(folder, lambda place: [], [source]),
    ):
        pass
    assert source.read_text() == "1"
    assert Path("circle").is_symlink()


def test_a_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("mine")
    check_file(tmp_path / "b.npz", force=False)
    check_file(tmp_path / "a.npz", force=True)
    with pytest.raises(UserError, match=r"a\.npz: found a file, expected none; .* --force"):
        check_file(tmp_path / "a.npz", force=False)
    with pytest.raises(UserError, match="found a folder"):
        check_file(tmp_path, force=True)
