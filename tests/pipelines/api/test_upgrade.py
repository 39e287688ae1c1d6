"""Projects of earlier versions: what an upgrade shows, what it writes, and what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from support.copied import run
from support.kinds import example
from support.project import REPOSITORY
from typer.testing import CliRunner

from postprior.pipelines.api.init import init
from postprior.pipelines.api.upgrade import Upgrade
from postprior.pipelines.artefacts.project import MOVED
from postprior.pipelines.commands.app import app
from postprior.pipelines.errors import UserError
from postprior.pipelines.report.sources import Source, content, settings
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.renames import COMMANDS, SETTINGS, STAGES

FIXTURE = REPOSITORY / "tests/fixtures/formats/1/project"
RESCALING = "  rescaling: null"
FILES = ("params.yaml", "dvc.yaml")
IGNORED, CONFIG, PAGE = ".dvc/.gitignore", ".dvc/config", ".dvc/plots/page.html"
OWN = """
  publish:
    cmd: cp results/report.html public.html  # mine
    deps: [results/report.html]
    outs: [public.html]
"""


def texts(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in FILES}


@pytest.fixture(scope="module")
def current(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as `init` makes it."""
    root = tmp_path_factory.mktemp("current")
    for seed, split in enumerate(("train", "validation", "test")):
        example(40, seed).save(root / "data" / split)
    init(root / "project", root / "data")
    return root / "project"


@pytest.fixture
def older(current: Path, tmp_path: Path) -> Path:
    """The same project with earlier names, without its newest setting and file, and with a user's stage."""
    shutil.copytree(current.parent, tmp_path / "older")
    root = tmp_path / "older/project"
    params, pipeline = texts(root).values()
    for old, new in SETTINGS.items():
        params = params.replace(f"\n{new}:", f"\n{old}:")
        pipeline = pipeline.replace(f"[seed, {new}", f"[seed, {old}").replace(f" {new}.", f" {old}.")
    lines = params.replace("seed: 0  ", "seed: 3  ", 1).splitlines(keepends=True)
    (root / "params.yaml").write_text("".join(line for line in lines if not line.startswith(RESCALING)))
    for old, new in STAGES.items():
        pipeline = pipeline.replace(f"\n  {new}:", f"\n  {old}:").replace(f"postprior {new}", f"postprior {old}")
    for old, new in MOVED.items():
        pipeline = pipeline.replace(str(new), str(old))
    (root / "dvc.yaml").write_text(pipeline.replace("\nmetrics:", OWN + "\nmetrics:"))
    for name in (IGNORED, PAGE):
        (root / name).unlink()
    (root / CONFIG).write_text("[core]\n    analytics = false\n")
    return root


def test_an_upgraded_project_is_a_current_one(current: Path, older: Path) -> None:
    before = texts(older)
    change = Upgrade.of(older)
    assert texts(older) == before  # it is shown first
    shown = change.lines()
    assert "-judge:" in "\n".join(shown).replace(" ", "")
    change.write()
    params, pipeline = texts(older).values()
    same = texts(current)["params.yaml"].replace("seed: 0  ", "seed: 3  ", 1)
    assert params.split() == same.split()  # comments and places too, but for blanks before comments
    stages, expected = (yaml.safe_load(text)["stages"] for text in (pipeline, texts(current)["dvc.yaml"]))
    assert stages.pop("publish") == yaml.safe_load(OWN)["publish"]
    assert stages == expected
    assert "# mine" in pipeline
    for name in (IGNORED, PAGE):
        assert (older / name).read_text() == (current / name).read_text()
    assert (older / CONFIG).read_text().endswith("false\n[plots]\n    html_template = plots/page.html\n")
    assert f"write {PAGE}, the page of `dvc plots`" in shown
    assert sum(map(len, shown)) < 100_000  # without its content
    assert Upgrade.of(older).lines() == []
    assert load_params(older / "params.yaml").seed == 3


def test_dvc_runs_an_upgraded_project(older: Path) -> None:
    Upgrade.of(older).write()
    answer = run("dvc", "repro", "prepare", folder=older)
    assert "Running stage 'prepare'" in answer.stdout, answer.stderr


def test_a_current_project_is_left_as_it_is(current: Path) -> None:
    before = texts(current)
    answer = CliRunner().invoke(app, ["upgrade", str(current), "--yes"])
    assert answer.exit_code == 0
    assert "up to date" in answer.output
    assert texts(current) == before


def test_the_repository_is_current() -> None:
    assert Upgrade.of(REPOSITORY).lines() == []


def test_files_move_to_their_current_places(tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(FIXTURE, root)
    (root / "dvc.yaml").write_text("stages: {}\n")
    held = {new: (root / old).is_dir() for old, new in MOVED.items()}
    answer = CliRunner().invoke(app, ["upgrade", str(root)])
    assert answer.exit_code == 0
    assert answer.output.endswith("Nothing was written; `postprior upgrade --yes` writes these changes\n")
    assert "move artefacts/judges → artefacts/evaluators" in answer.output
    assert all((root / old).exists() for old in MOVED)
    answer = CliRunner().invoke(app, ["upgrade", str(root), "--yes"])
    assert answer.exit_code == 0
    assert {new: (root / new).is_dir() for new in held} == held
    assert not any((root / old).exists() for old in MOVED)
    assert Upgrade.of(root).lines() == []


def test_an_upgrade_that_was_interrupted_is_finished(older: Path) -> None:
    (older / "artefacts/judges").mkdir(parents=True)
    change = Upgrade.of(older)
    (older / "artefacts/judges").rename(older / "artefacts/evaluators")
    (older / "dvc.yaml").write_text(change.new["dvc.yaml"])
    again = Upgrade.of(older)
    assert not again.moves
    assert again.new == change.new


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("params.yaml", "seed: [", r"params\.yaml, line 1, column 8: this is not valid YAML"),
        ("params.yaml", "3", r"params\.yaml: found no sections, expected the params.yaml of a project"),
        ("params.yaml", "seed: 0", r"params\.yaml: .* is missing"),
        (
            "params.yaml",
            "judge: {}\nevaluators: {}",
            r"params\.yaml: found both judge and evaluators, .*; remove judge",
        ),
        ("dvc.yaml", "stages: [a, b]", r"dvc\.yaml: found stages that are no sections"),
        ("dvc.yaml", "stages: {prepare: 3}", r"dvc\.yaml: found stages that are no sections"),
        ("dvc.yaml", "- 3", r"dvc\.yaml: found no sections, expected the dvc.yaml of a project"),
    ],
)
def test_what_is_no_project_is_refused(older: Path, name: str, text: str, message: str) -> None:
    (older / name).write_text(text)
    before = texts(older)
    with pytest.raises(UserError, match=message):
        Upgrade.of(older)
    (older / name).unlink()
    with pytest.raises(UserError, match="found no such file, expected the folder of a project"):
        Upgrade.of(older)
    assert {n: (older / n).read_text() for n in FILES if n != name} == {n: before[n] for n in FILES if n != name}


@pytest.mark.parametrize(("old", "new"), COMMANDS.items())
def test_an_earlier_command_answers_with_the_current_one(old: str, new: str) -> None:
    answer = CliRunner().invoke(app, [old, "gmm"])
    assert answer.exit_code == 1
    assert f"the command {old}, the name of an earlier version, expected {new}" in answer.output
    assert CliRunner().invoke(app, [new, "--help"]).exit_code == 0


def test_an_earlier_setting_names_the_command_that_mends_it(older: Path) -> None:
    with pytest.raises(UserError, match=r"found judge, .* expected evaluators; run postprior upgrade"):
        load_params(older / "params.yaml")


def test_results_of_earlier_versions_are_compared_under_current_names() -> None:
    source = Source(FIXTURE)
    assert settings(source).keys() >= set(SETTINGS.values())
    for old, new in MOVED.items():
        file = new if new.suffix else new / "gmm.json"
        if file.parts[0] == "results":
            assert content(source, file) == content(source, old if old.suffix else old / "gmm.json")
            assert content(source, file) is not None
