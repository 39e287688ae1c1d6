"""The repository of a new project: with git or without, alone or in another repository, with a known user or not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from support.dvc import BINARIES
from support.kinds import example

from postprior.pipelines.api.init import init
from postprior.pipelines.errors import UserError

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

FILES = {
    "params.yaml",
    "dvc.yaml",
    ".gitignore",
    ".dvcignore",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots/page.html",
}
LEFT = (".dvc/cache/files/md5/aa/1", ".dvc/tmp/rwlock", ".dvc/config.local", "artefacts/codes/z.npy", "mlflow.db")
"""Examples of what DVC and the stages leave in a project."""
USER = '[user]\nname = "Ada"\nemail = "ada@example.org"\n'


@pytest.fixture(autouse=True)
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration of git, in which the user has a name."""
    path = tmp_path / "gitconfig"
    path.write_text(USER)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("PATH", f"{BINARIES}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    for seed, (split, rows) in enumerate((("train", 24), ("validation", 8), ("test", 16))):
        example(rows, seed).save(folder / split)
    return folder


def sh(folder: Path, command: str) -> str:
    answer = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def repository(folder: Path) -> Path:
    """A repository with one commit."""
    folder.mkdir()
    sh(folder, "git init -q && echo mine > file && git add file && git commit -qm mine")
    return folder


def in_git(folder: Path) -> set[str]:
    """The files that git has after everything has been added."""
    for name in LEFT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return set(sh(folder, "git add --all && git ls-files").splitlines())


def advised(told: list[str], start: str) -> str:
    """The command that a line of `init` ends with."""
    (line,) = [line for line in told if start in line]
    return line[line.index(start) :]


def test_a_project_gets_a_repository_and_its_first_commit(imported: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(imported, root / "my [data]")
    (root / ".gitignore").write_text("*.log")  # no newline at its end
    told = init(root, root / "my [data]")
    assert "The project is the first commit of a new git repository" in told
    assert set(sh(root, "git show --name-only --format=%an").split()) == {"Ada", *FILES}
    assert in_git(root) == FILES
    assert sh(root, "git check-ignore a.log") == "a.log\n"


def test_a_repository_is_used_and_nothing_is_committed(imported: Path, tmp_path: Path) -> None:
    top = repository(tmp_path / "repository")
    shutil.copytree(imported, top / "data")
    (tmp_path / "link").symlink_to(top)
    told = init(tmp_path / "link/a/b", top / "data")
    assert sh(top, "git log --format=%s") == "mine\n"
    assert set(sh(top, "git diff --staged --name-only").split()) == {f"a/b/{name}" for name in FILES}
    assert not (top / "a/b/.git").exists()
    sh(top, advised(told, "git -C"))
    sh(top, advised(told, "echo"))
    assert sh(top, "git log --format=%s").endswith("\nmine\n")
    assert in_git(top / "a/b") == FILES
    assert set(sh(top, "git ls-files").split()) == {"file", ".gitignore"} | {f"a/b/{name}" for name in FILES}


def test_no_name_is_invented(imported: Path, tmp_path: Path, user: Path) -> None:
    user.write_text("")
    told = init(tmp_path / "project", imported)
    assert subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path / "project", capture_output=True).returncode
    for line in [line for line in told if line.startswith("  git")]:
        sh(tmp_path, line)
    assert sh(tmp_path / "project", "git log --format=%an") == "YOUR NAME\n"
    assert sh(tmp_path / "project", "git status --porcelain") == ""


def test_a_project_without_git_can_have_it_later(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = init(tmp_path / "chosen", imported, git=False)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # a folder without programs
        named = init(tmp_path / "project", imported)
    assert not any(line.startswith(("git", "The files are staged", "The project is")) for line in told)
    for name in ("chosen", "project"):
        assert not (tmp_path / name / ".git").exists()
        assert "no_scm = True" in (tmp_path / name / ".dvc/config").read_text()
    assert any(line.startswith("git is not installed, ") for line in named)
    sh(tmp_path, advised(named[:-1], "cd "))
    assert in_git(tmp_path / "project") == FILES
    assert sh(tmp_path / "project", "git log --format=%an") == "Ada\n"


def test_a_repository_that_ignores_the_project_is_left_alone(imported: Path, tmp_path: Path) -> None:
    top = repository(tmp_path / "home")
    (top / ".gitignore").write_text("*\n")
    init(top / "project", imported)
    assert Path(sh(top / "project", "git rev-parse --show-toplevel").strip()) == top / "project"
    assert sh(top, "git ls-files") == "file\n"


def test_what_git_refuses_ends_before_anything_is_written(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = repository(tmp_path / "repository")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(UserError, match=r"git refuses the repository in which it lies \(.+\), expected .* --no-git"):
        init(top / "project", imported)
    assert not (top / "project").exists()


def test_a_hook_of_git_does_not_lead_to_its_repository(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    init(tmp_path / "project", imported)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert sh(other, "git status --porcelain") == ""
    assert set(sh(tmp_path / "project", "git ls-files").split()) == FILES


TINY = "train.epochs=1 evaluators.epochs=1 densities=[gaussian] augment.sizes=[] privacy.draws=0 imputation.draws=0"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", ["project", "repository", "repository/project"])
def test_an_experiment_runs_at_once(place: str, imported: Path, tmp_path: Path) -> None:
    repository(tmp_path / "repository")
    root = tmp_path / place
    init(root, imported)
    before = {name: (root / name).read_bytes() for name in FILES}
    settings = " ".join(f"-S {change}" for change in f"vae.model=mopoe {TINY} evaluate.resamples=20".split())
    said = sh(root, f"dvc exp run -n tried {settings}")
    assert "Ran experiment(s): tried" in said
    assert "</html>" in (root / "results/report.html").read_text()
    assert yaml.safe_load((root / "params.yaml").read_text())["vae"]["model"] == "mopoe"
    assert "tried" in sh(root, "dvc exp list --name-only")
    assert in_git(root) >= FILES | {"dvc.lock", "results/report.html"}
    assert {name: (root / name).read_bytes() for name in FILES - {"params.yaml"}}.items() <= before.items()
