"""Run git in a folder."""

import os
import subprocess
from pathlib import Path

PLACES = frozenset(
    {
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE"),
    }
)
"""Variables that git sets for its hooks: they would lead to another repository than that of the folder."""


def run_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git in a folder and return its exit code and its texts, which are in English.

    Raises:
        FileNotFoundError: git is not installed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in PLACES} | {"LC_ALL": "C"}
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
