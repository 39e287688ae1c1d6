"""`postprior doctor` in environments that are broken: each fault is one finding, with what mends it."""

from __future__ import annotations

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.mounts import mounted
from support.project import REPOSITORY
from typer.testing import CliRunner

from postprior.pipelines.api.doctor import Finding, doctor, is_stopped, told
from postprior.pipelines.api.init import init_demo
from postprior.pipelines.commands.app import app

BINARIES = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(
    not (BINARIES / "postprior").exists() or shutil.which("git") is None,
    reason="The console script postprior is not installed, or git is not",
)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is wrong: git knows the user, and this environment comes first in PATH."""
    (tmp_path / "gitconfig").write_text('[user]\nname = "Ada"\nemail = "ada@example.org"\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PATH", f"{BINARIES}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "dvc"))
    monkeypatch.delenv("GIT_COMMITTER_NAME", raising=False)
    monkeypatch.delenv("GIT_COMMITTER_EMAIL", raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project of the demo, committed, of which tests break copies."""
    root = tmp_path_factory.mktemp("made") / "demo"
    init_demo(root)
    commit = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-q", "--allow-empty", "-m", "demo")
    subprocess.run(["git", "-C", str(root), *commit], check=True)
    return root


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "demo")


def wrong(root: Path) -> dict[str, Finding]:
    """What is wrong, by name; free space and threads are those of the machine."""
    found = {finding.name: finding for finding in doctor(root)}
    return {
        name: finding
        for name, finding in found.items()
        if finding.state != "ok" and "GB free" not in finding.found and name not in ("threads", "device")
    }


def test_where_nothing_is_wrong_it_tells_what_there_is(project: Path) -> None:
    assert not wrong(project)
    found = {finding.name: finding.found for finding in doctor(project)}
    assert {"torch", "dvc", "mlflow", "threads", "device", "git"} <= set(found)
    assert found["git user"] == "Ada <ada@example.org>"
    assert found["project"] == str(project)
    assert not (project / "mlflow.db").exists()  # it writes nothing


def test_an_error_is_an_exit_code_and_a_warning_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    answer = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    assert "git user" in answer.stdout
    assert 'git config --global user.name "YOUR NAME"' in answer.stdout
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = CliRunner().invoke(app, ["doctor", str(tmp_path)])
    assert answer.exit_code == 1
    assert answer.stdout.splitlines()[-1].startswith("Errors: 2, which stop work")


def test_programs_that_are_not_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = wrong(tmp_path)
    assert {name: finding.state for name, finding in found.items()} == {
        "command dvc": "error",
        "command postprior": "error",
        "git": "warning",
    }
    assert str(BINARIES / "activate") in found["command postprior"].remedy


def test_programs_of_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name, text in (("postprior", "echo postprior 0.0.1"), ("dvc", "echo broken >&2; exit 3")):
        (other / name).write_text(f"#!/bin/sh\n{text}\n")
        (other / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}{os.pathsep}{os.environ['PATH']}")
    found = wrong(tmp_path)
    assert set(found) == {"command postprior", "command dvc"}
    assert found["command postprior"].found == f"{other / 'postprior'}, version 0.0.1"
    assert "does not run" in found["command dvc"].found
    (other / "dvc").write_text("#!/bin/sh\necho 3.67.1\n")  # DVC may be anywhere
    assert set(wrong(tmp_path)) == {"command postprior"}


def test_a_library_that_is_too_old(tmp_path: Path) -> None:
    """The metadata of another version come first, as after a pip install --user."""
    old = tmp_path / "site/jinja2-1.0.dist-info"
    old.mkdir(parents=True)
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: jinja2\nVersion: 1.0\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "postprior", "doctor"]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1, answer.stderr
    lines = answer.stdout.splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.split()[:3] == ["error", "jinja2", "1.0"]]
    assert "pip install 'jinja2>=3.1'" in lines[place + 1]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no folder that nobody can write to")
def test_a_folder_that_cannot_be_written() -> None:
    found = wrong(Path("/proc"))
    assert found["folder"].state == "error"
    assert "cannot be written" in found["folder"].found


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=1m", "tmpfs") as disk:
        (finding,) = [finding for finding in doctor(disk) if finding.name == "folder"]
    assert finding.state == "error"
    assert "expected at least 2 GB" in finding.remedy


@pytest.mark.parametrize(
    ("damage", "name", "state", "remedy"),
    [
        ("echo 'vae: [' > params.yaml", "project", "error", "postprior upgrade"),
        ("rm dvc.yaml", "project", "error", "postprior upgrade"),
        ("sed -i 's/^evaluators:/judges:/' params.yaml", "project", "error", "postprior upgrade"),
        ("sed -i '/desc: Encode/d' dvc.yaml", "project", "warning", "postprior upgrade shows"),
        ("rm -r .dvc", "project in DVC", "error", "dvc init"),
        ("rm -rf .git", "project in git", "error", "git init"),
        ("rm -rf .git && git init -q", "project in git", "warning", "git commit"),
        ("printf 'schema: [' > dvc.lock", "dvc.lock", "error", "git checkout dvc.lock"),
        ("mkdir -p .dvc/tmp && printf '{\"' > .dvc/tmp/rwlock", ".dvc/tmp/rwlock", "error", "remove it"),
        ("dvc config -q core.no_scm true", "project in git", "warning", "dvc config --unset core.no_scm"),
    ],
)
def test_a_project_that_is_broken(project: Path, damage: str, name: str, state: str, remedy: str) -> None:
    subprocess.run(damage, shell=True, cwd=project, check=True)
    found = wrong(project)
    assert set(found) == {name}
    assert found[name].state == state
    assert remedy in found[name].remedy


def test_tracking_that_does_not_answer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        assert not wrong(project)
    finding = wrong(project)["tracking"]
    assert (finding.state, finding.found.startswith(uri)) == ("warning", True)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    sqlite3.connect(project / "mlflow.db").close()
    assert not wrong(project)
    (project / "mlflow.db").write_text("This is no database. " * 100)
    assert "file is not a database" in wrong(project)["tracking"].found


def test_what_is_told_counts_what_is_wrong() -> None:
    fine, odd, bad = Finding("a", "1"), Finding("bb", "2", "warning", "mend b"), Finding("c", "3", "error", "mend c")
    assert told([fine])[-1] == "Nothing is wrong"
    assert told([fine, odd]) == [
        "ok       a   1",
        "warning  bb  2",
        "         mend b",
        "Nothing stops work; warnings: 1",
    ]
    assert told([fine, odd, bad])[-1] == "Errors: 1, which stop work; warnings: 1, which do not"
    assert [is_stopped([fine, odd]), is_stopped([bad])] == [False, True]
