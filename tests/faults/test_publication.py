"""A publication is stopped before every line of its code, and fails in every call of the system."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.disturbed import DONE, FAILED, KINDS, NEW, OLD, TERMINATED


def endings(*arguments: object) -> list[tuple[int, str | None, bool]]:
    """The exit code of every disturbed publication, what was there afterwards, and whether a part was left."""
    command = [sys.executable, "-m", "support.disturbed", *map(str, arguments)]
    answer = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return [(code, value, left) for code, value, left in json.loads(answer.stdout)]


@pytest.mark.parametrize("before", [OLD, None])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("signum", "ended"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, TERMINATED)])
def test_a_publication_that_is_stopped_before_any_line(
    tmp_path: Path, kind: str, before: str | None, signum: int, ended: int
) -> None:
    """Up to some line the old is there, and from the next on the new; only a kill leaves the unfinished part."""
    codes, values, left = zip(*endings(tmp_path, kind, before or "", "signal", int(signum)), strict=True)
    assert {*codes} == {ended}
    first = values.index(NEW)
    assert first > 0
    assert values == (*[before] * first, *[NEW] * (len(values) - first))
    assert any(left) == (signum == signal.SIGKILL)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_publication_in_which_any_call_of_the_system_fails(tmp_path: Path, kind: str, error: int) -> None:
    """It ends with an error, or publishes the new."""
    found = {(code, value) for code, value, _ in endings(tmp_path, kind, OLD, "failure", error)}
    assert {(FAILED, OLD)} <= found <= {(FAILED, OLD), (FAILED, NEW), (DONE, NEW)}
