"""`postprior doctor`: what the programs, the machine and the project are, what is wrong with them, and how to mend it.

Nothing is written. A check finds one thing; it is an error if it stops commands or `dvc repro`, and a warning if they
work without it.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from postprior.pipelines.api.repository import IDENTIFY
from postprior.pipelines.api.upgrade import Upgrade
from postprior.pipelines.errors import UserError
from postprior.pipelines.git import run_git
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.round_trip import TEMPLATES
from postprior.pipelines.settings.yaml_text import read_yaml
from postprior.pipelines.tracking.client import address, reason, shown

OWN = "postprior"
SHOWN = ("torch", "dvc", "mlflow", "scikit-learn", "numpy")
"""Libraries whose versions are shown; those of the others only if they are wrong."""
LITTLE, TOO_LITTLE = 2.0, 0.1
"""Free space in GB below which there is a warning, and an error. The demo needs half a GB."""
PATIENCE = 60
"""Seconds that a program may take to tell its version."""


State = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Args:
        name: What was checked.
        found: What it is.
        state: Whether it is as it should be; a warning does not stop work, an error does.
        remedy: What a warning or an error has as a consequence, and how to mend it.
    """

    name: str
    found: str
    state: State = "ok"
    remedy: str = ""


def doctor(root: Path) -> list[Finding]:
    """Check the installation, the machine, and the project in the folder `root`, which need not have one."""
    checks = (_python, _libraries, _devices, _programs, _git, _folders, _project, _tracking)
    return [finding for check in checks for finding in check(root)]


def is_stopped(findings: list[Finding]) -> bool:
    """Whether something stops work."""
    return any(finding.state == "error" for finding in findings)


def told(findings: list[Finding]) -> list[str]:
    """Return a line for each finding, with the remedy below it, and a last line that counts what is wrong."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<7}  {finding.name:<{width}}  {finding.found}")
        lines += [f"{'':<9}{finding.remedy}"] if finding.remedy else []
    errors, warnings = (sum(finding.state == state for finding in findings) for state in ("error", "warning"))
    if errors:
        return [*lines, f"Errors: {errors}, which stop work; warnings: {warnings}, which do not"]
    return [*lines, f"Nothing stops work; warnings: {warnings}" if warnings else "Nothing is wrong"]


def _python(_: Path) -> Iterator[Finding]:
    place = f"Python {platform.python_version()}, {sys.executable}, {platform.system()} {platform.machine()}"
    yield Finding("python", place)
    try:
        yield Finding(OWN, f"{version(OWN)}, {Path(__file__).parents[2]}")
    except PackageNotFoundError:
        remedy = "dvc repro needs the command postprior; install the package with pip"
        yield Finding(OWN, "not installed", "error", remedy)


def _libraries(_: Path) -> Iterator[Finding]:
    """Compare the installed versions with those that the package requires."""
    try:
        required = [Requirement(text) for text in requires(OWN) or ()]
    except PackageNotFoundError:
        return
    for requirement in required:
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        remedy = f"run {sys.executable} -m pip install '{requirement}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, "not installed", "error", f"expected {requirement.specifier}; {remedy}")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield Finding(requirement.name, found, "error", f"expected {requirement.specifier}; {remedy}")
        elif requirement.name in SHOWN:
            yield Finding(requirement.name, found)


def _devices(_: Path) -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        remedy = "every stage needs it; install it again, for your device as pytorch.org says"
        yield Finding("devices", f"torch cannot be imported: {reason(error)}", "error", remedy)
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    crowded = "more threads than cores are slow; set OMP_NUM_THREADS to the number of cores"
    found = f"{threads} of torch on {cores} cores"
    yield Finding("threads", found, "warning", crowded) if threads > cores else Finding("threads", found)
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(number)
            yield Finding("device", f"cuda:{number}, {card.name}, {card.total_memory / 1e9:.0f} GB")
    elif torch.backends.mps.is_available():
        yield Finding("device", "mps, and the processor")
    elif shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        mend = "training uses the processor; install a torch that fits the driver, as pytorch.org says"
        yield Finding("device", f"the processor, although there is nvidia-smi: torch is {built}", "warning", mend)
    else:
        yield Finding("device", "the processor")


def _programs(_: Path) -> Iterator[Finding]:
    """Whether `dvc repro` finds DVC, and the `postprior` of this environment."""
    for name in ("dvc", OWN):
        label = f"command {name}"
        here = Path(sys.executable).parent
        activate = f"put {here} first in PATH, for example with: source {here / 'activate'}"
        if (path := shutil.which(name)) is None:
            yield Finding(label, "not on PATH", "error", f"dvc repro needs it; {activate}")
        elif Path(path).parent.samefile(here):
            yield Finding(label, path)
        elif (other := _version_of(path)) is None:
            yield Finding(label, f"{path}, which does not run", "error", activate)
        elif name == OWN and other != version(OWN):
            yield Finding(label, f"{path}, version {other}", "error", f"expected {version(OWN)}, as here; {activate}")
        else:
            yield Finding(label, f"{path}, version {other}")


def _version_of(path: str) -> str | None:
    """Return the last word that a program prints for --version; None if it fails."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    words = answer.stdout.split()
    return words[-1] if words and not answer.returncode else None


def _git(root: Path) -> Iterator[Finding]:
    if shutil.which("git") is None:
        remedy = "projects get no versions, and dvc exp run does not work; install git"
        yield Finding("git", "not on PATH", "warning", remedy)
        return
    folder = next(place for place in (root.resolve(), *root.resolve().parents) if place.is_dir())
    yield Finding("git", run_git(folder, "version").stdout.removeprefix("git version").strip())
    identity = run_git(folder, "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT")
    if identity.returncode:
        remedy = f"init cannot commit, and dvc exp run needs a commit; run {' && '.join(IDENTIFY)}"
        yield Finding("git user", "no name or no email", "warning", remedy)
    else:
        yield Finding("git user", identity.stdout.rpartition(">")[0] + ">")


def _folders(root: Path) -> Iterator[Finding]:
    """Whether the folder of work, that of temporary files and that of DVC's locks can be written."""
    from dvc.dirs import site_cache_dir

    yield _writable("folder", root.resolve(), f"choose another folder, or give {_user()} the right to write to it")
    for name, variable, place in (
        ("temporary", "TMPDIR", Path(tempfile.gettempdir())),
        ("DVC's cache of state", "DVC_SITE_CACHE_DIR", Path(site_cache_dir())),
    ):
        yield _writable(name, place, f"set {variable} to another folder")


def _user() -> str:
    return f"user {os.geteuid()}" if hasattr(os, "geteuid") else "your user"


def _writable(name: str, place: Path, remedy: str) -> Finding:
    """Try to write a file without a name into a folder, or into the one where it would be made; look at free space."""
    there = next(folder for folder in (place, *place.parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / 1e9
    except OSError as error:
        return Finding(name, f"{place}, which cannot be written: {error.strerror or error}", "error", remedy)
    found = f"{place}, {free:.1f} GB free"
    if free < LITTLE:
        state: State = "error" if free < TOO_LITTLE else "warning"
        return Finding(name, found, state, f"expected at least {LITTLE:.0f} GB; free some space, or {remedy}")
    return Finding(name, found)


def _project(root: Path) -> Iterator[Finding]:
    if not any((root / name).exists() for name in (*TEMPLATES, ".dvc")):
        yield Finding("project", "none in this folder; postprior init demo makes one")
        return
    mend = "correct it, or run postprior upgrade if an earlier version made it"
    try:
        load_params(root / "params.yaml")
        changes = Upgrade.of(root).lines()
    except UserError as error:
        yield Finding("project", str(error), "error", mend)
        return
    if changes:
        differs = "its files differ from those of this version"
        yield Finding("project", differs, "warning", "postprior upgrade shows how, and asks before it writes")
    else:
        yield Finding("project", str(root.resolve()))
    yield from _project_in_dvc(root)


def _project_in_dvc(root: Path) -> Iterator[Finding]:
    """Whether DVC and git know the project, and DVC's files are whole, which a kill may have cut off."""
    if not (root / ".dvc").is_dir():
        remedy = "run git init && dvc init in it, or dvc init --no-scm"
        yield Finding("project in DVC", "no folder .dvc", "error", f"dvc repro needs one; {remedy}")
        return
    for name, mend in (
        ("dvc.lock", "take the last committed one with git checkout dvc.lock, or remove it"),
        (".dvc/tmp/rwlock", "remove it"),
    ):
        if (root / name).exists() and (problem := _failure(partial(read_yaml, root / name))):
            yield Finding(name, problem, "error", f"a kill may have cut it off; {mend}")
    from dvc.config import Config

    if Config(str((root / ".dvc").resolve()))["core"].get("no_scm"):
        remedy = "dvc exp run does not work; run git init && dvc config --unset core.no_scm, then commit"
        yield Finding("project in git", "without git", "warning", remedy)
    elif shutil.which("git") is None or run_git(root, "rev-parse", "--git-dir").returncode:
        remedy = "DVC expects the project in one; install git and run git init, or dvc config core.no_scm true"
        yield Finding("project in git", "no repository that git accepts", "error", remedy)
    elif run_git(root, "rev-parse", "--verify", "HEAD").returncode:
        remedy = "dvc exp run needs a first commit; run git add . && git commit"
        yield Finding("project in git", "no commit", "warning", remedy)


def _tracking(root: Path) -> Iterator[Finding]:
    """Whether MLflow's server or database answers; a stage runs without it."""
    uri = address(root)
    if uri is None:
        yield Finding("tracking", "off")
        return
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        problem = _failure(lambda: _open_database(Path(uri.removeprefix("sqlite:///"))))
    elif parts.scheme in ("http", "https"):
        server = (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))
        problem = _failure(lambda: socket.create_connection(server, timeout=5).close())
    else:
        problem = ""
    if problem:
        remedy = "stages run, but log nothing; correct MLFLOW_TRACKING_URI, or turn tracking off with the value off"
        yield Finding("tracking", f"{shown(uri)}, which does not answer: {problem}", "warning", remedy)
    else:
        yield Finding("tracking", shown(uri))


def _open_database(path: Path) -> None:
    """Open a database of SQLite for writing, if it exists."""
    if path.exists():
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=1)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("SELECT count(*) FROM sqlite_master")


def _failure(call: Callable[[], object]) -> str:
    """Return why a call fails; empty if it does not."""
    try:
        call()
    except (OSError, sqlite3.Error, UserError) as error:
        return reason(error)
    return ""
