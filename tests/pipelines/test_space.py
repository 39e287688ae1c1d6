"""Results that cannot fit are refused, others are not."""

import os
import shutil
from pathlib import Path

import pytest

from postprior.pipelines.errors import UserError
from postprior.pipelines.space import check_space


def test_what_fits_passes(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    check_space("10 rows", memory, disk=shutil.disk_usage(tmp_path).free // 2, place=tmp_path / "new/folder")


@pytest.mark.parametrize(("memory", "disk"), [(10**18, 0), (0, 10**18), (10**400, 10**400)])
def test_what_cannot_fit_is_refused_with_both_numbers(tmp_path: Path, memory: int, disk: int) -> None:
    needed = "at least .* of memory and .* on the disk, expected at most .* and .*; request fewer"
    with pytest.raises(UserError, match=f"^10 rows need {needed}"):
        check_space("10 rows", memory, disk, tmp_path / "new/folder")


def test_sizes_are_rounded_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 250}  # 1,024,000 bytes
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    with pytest.raises(UserError, match="need at least 2 MB of memory and 1 kB on the disk, expected at most 2 MB and"):
        check_space("10 rows", 1_024_001, disk=1, place=tmp_path)
    check_space("10 rows", 1_024_000, disk=1, place=tmp_path)
