"""Copies of the sources, and new processes that import nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.project import REPOSITORY

PACKAGES = ("pipelines", "stage1_vae", "stage2_latent")
ROOT_FILES = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "NOTICE")
"""Files beside the packages that an installation is built from."""
BINARIES = Path(sys.executable).parent


def copy(root: Path) -> Path:
    """Copy the packages, `postprior` with its links, the settings, the pipeline and the files of an installation."""
    root.mkdir(parents=True, exist_ok=True)
    for name in (*ROOT_FILES, "params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, root)
    for name in ("postprior", *PACKAGES):
        shutil.copytree(REPOSITORY / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def touched(root: Path) -> set[str]:
    """Files of a copy that are new or changed."""
    names = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    return {
        name
        for name in names
        if not (REPOSITORY / name).exists() or (REPOSITORY / name).read_bytes() != (root / name).read_bytes()
    }


def run(*command: str, folder: Path, path: Path | str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder; Python looks for packages there and in `path`."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    environment |= {"MLFLOW_TRACKING_URI": "off"} | ({} if path is None else {"PYTHONPATH": str(path)})
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def python(*arguments: str, folder: Path = REPOSITORY, path: Path | str | None = None) -> str:
    """Run Python in a new process, which must succeed, and return what it printed."""
    answer = run(sys.executable, *arguments, folder=folder, path=path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def build(kind: str, sources: Path, out: Path) -> Path:
    """Return the file of a wheel or source distribution of a copy, in the folder `out`."""
    pytest.importorskip("setuptools", minversion="77")
    out.mkdir(exist_ok=True)
    script = f"from setuptools.build_meta import build_{kind}; build_{kind}({str(out)!r})"
    python("-c", script, folder=sources)
    (file,) = out.iterdir()
    return file
