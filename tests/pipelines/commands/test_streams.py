"""Standard streams that are full, closed or read by nobody: one line or none, and an exit code that tells of a loss."""

import subprocess
import sys
from pathlib import Path

import pytest

PYTHON = f'"{sys.executable}"'
FILE_OF_OURS = """
import os, sys
from postprior.pipelines.commands import streams
streams.prepare()
print("a line that nobody reads", file=sys.stderr, flush=True)
with open(sys.argv[1], "w") as file:
    file.write(str(file.fileno()))
"""


def shell(command: str) -> tuple[int, str]:
    answer = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    return answer.returncode, answer.stderr


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        (">/dev/full", 1, "postprior: error: standard output: No space left on device\n"),
        (">&-", 1, "postprior: error: standard output: Bad file descriptor\n"),
        ("| true", 141, ""),
        ("2>&- | cat", 0, ""),
    ],
)
def test_output_that_cannot_be_written(output: str, code: int, said: str) -> None:
    if "/dev/full" in output and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert shell(f"{PYTHON} -m postprior --help {output}") == (code, said)


def test_closed_streams_give_their_places_to_no_file(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(FILE_OF_OURS)
    assert shell(f'{PYTHON} "{tmp_path}/code.py" "{tmp_path}/file" <&- >&- 2>&-') == (0, "")
    assert int((tmp_path / "file").read_text()) > 2
