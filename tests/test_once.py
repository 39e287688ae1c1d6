"""`once` makes a folder in one process of a test run, for all of them."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.once import once


def test_a_folder_is_made_once_and_all_get_it_whole(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        folder.mkdir()
        time.sleep(0.05)  # time for the others to ask
        (folder / "file.txt").write_text("whole")

    def read(_: int) -> str:
        return (once(tmp_path, "folder", make) / "file.txt").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == ["whole"] * 8
    assert len(made) == 1


def test_after_a_failure_the_next_tries_again(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        once(tmp_path, "folder", fail)
    assert not (tmp_path / "folder").exists()
    assert once(tmp_path, "folder", Path.mkdir).is_dir()
