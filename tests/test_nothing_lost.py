"""Every command that writes refuses, in one line, every place that it must not replace, and loses no file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.once import state
from support.project import COMMANDS
from typer.testing import CliRunner, Result

from postprior.pipelines.api.init import init
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.settings.params import Params

FOLDERS: dict[str, Callable[[str], list[str]]] = {
    "generate": lambda out: ["generate", "normal", "--samples", "5", "--out", out],
    "generate from given": lambda out: ["generate", "normal", "--given", "{given}", "--out", out],
    "impute": lambda out: ["impute", "normal", "{given}", out],
    "impute, two draws": lambda out: ["impute", "normal", "{given}", out, "--draws", "2"],
    "fit": lambda out: ["fit", "gaussian", "--codes", "{project}/artefacts/codes/train", "--out", out],
    "import": lambda out: ["import", "{table}", out, "--id", "id", "--label", "label"],
    "import like": lambda out: ["import", "{table}", out, "--id", "id", "--like", "{data}"],
    "export": lambda out: ["export", "{given}", out],
}
FILES: dict[str, Callable[[str], list[str]]] = {
    "draw": lambda out: [
        "draw",
        "{project}/artefacts/densities/gmm",
        "--samples",
        "5",
        "--out",
        out + ".npz",
    ],
    "detect": lambda out: ["detect", "normal", "{given}", "--out", out + ".csv"],
    "represent": lambda out: ["represent", "{given}", out + ".npz"],
}
IN_PLACE = {
    "code",
    "prepare",
    "train-evaluators",
    "train",
    "refine",
    "encode",
    "diagnose",
    "score-baselines",
    "evaluate",
    "utility",
    "augment",
}
IN_PLACE |= {
    "evaluate-imputation",
    "privacy",
    "compare",
    "track",
    "register",
    "init",
    "upgrade",
    "plan",
    "advise",
    "doctor",
}
"""Commands that write where the project keeps what they write, or nothing, and take no other place."""
PROJECTS = ("generate", "impute", "fit", "detect", "represent")


class Place:
    """A working directory with files of the user, beside a copy of a trained project."""

    def __init__(self, root: Path, project: Path) -> None:
        self.root, self.project, self.home = root, root / "project", root / "work"
        shutil.copytree(project, self.project)
        (self.home / "docs").mkdir(parents=True)
        (self.home / "docs/thesis.txt").write_text("thesis")
        (self.home / ".git").mkdir()
        (self.home / ".git/config").write_text("[core]")
        given = Dataset.load(self.project / "artefacts/data/test").select(np.arange(6))
        mask = given.observed.copy()
        mask[::2, 0] = False
        given = Dataset(given.modalities, given.data, mask, labels=given.labels, label_names=given.label_names)
        given.save(self.home / "given")
        rows = (f"p{row},{row % 7}.5,{'ab'[row % 2]}\n" for row in range(40))
        (self.home / "table.csv").write_text("id,age,label\n" + "".join(rows))
        import_data([self.home / "table.csv"], self.home / "data", Roles(id="id", label="label"))

    def run(self, arguments: list[str]) -> Result:
        names = {"given": self.home / "given", "project": self.project, "data": self.home / "data"}
        given = [word.format(table=self.home / "table.csv", **names) for word in arguments]
        params = ["--params", str(self.project / "params.yaml")] if given[0] in PROJECTS else []
        return CliRunner().invoke(app, [*given, *params])

    def files(self) -> dict[str, tuple[int, int]]:
        """Size and time of every file, by path."""
        return state(self.root)


@pytest.fixture(scope="module")
def place(trained: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"), trained[0])


@pytest.fixture
def work(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(place.home / "docs")
    monkeypatch.setenv("HOME", str(place.home))
    return place


PLACES: dict[str, str] = {
    "the current folder": ".",
    "an empty variable": "",
    "a folder above": "../..",
    "the home folder": "{home}",
    "the project": "{project}",
    "its artefacts": "{project}/artefacts",
    "the autoencoder": "{project}/artefacts/autoencoder",
    "the training data": "{project}/artefacts/data/train",
    "all data": "{project}/artefacts/data",
    "a folder with a file": "{home}/docs",
    "a folder with a hidden file": "{home}/.git",
    "a file": "{home}/table.csv",
    "what is read": "{home}/given",
    "a link to a folder": "{link}",
    "a link to a file": "{link_to_file}",
}


@pytest.mark.parametrize("target", PLACES)
@pytest.mark.parametrize("command", FOLDERS)
def test_a_folder_that_is_not_its_own_is_refused(work: Place, tmp_path: Path, command: str, target: str) -> None:
    links = {"link": work.home / "docs", "link_to_file": work.home / "table.csv"}
    for name, leads_to in links.items():
        (tmp_path / name).symlink_to(leads_to)
    before = work.files()
    out = PLACES[target].format(home=work.home, project=work.project, **{name: tmp_path / name for name in links})
    result = work.run(FOLDERS[command](out))
    assert result.exit_code == 1, result.output
    assert result.output.startswith("postprior: error: ")
    assert result.output.count("\n") == 1
    assert work.files() == before
    assert all((tmp_path / name).is_symlink() for name in links)


@pytest.mark.parametrize("command", FOLDERS)
def test_its_own_result_is_replaced_and_what_was_added_to_it_is_not(work: Place, tmp_path: Path, command: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for again in range(2 if command != "export" else 1):  # an export never replaces a folder
        result = work.run(FOLDERS[command](str(out)))
        assert result.exit_code == 0, (again, result.output)
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    result = work.run(FOLDERS[command](str(out)))
    assert result.exit_code == 1
    assert f"{out}: found " in result.output
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_draw_takes_the_place_of_several(work: Place, tmp_path: Path) -> None:
    for command, there in (("impute, two draws", "2/manifest.json"), ("impute", "manifest.json")):
        assert work.run(FOLDERS[command](str(tmp_path / "out"))).exit_code == 0
        assert (tmp_path / "out" / there).exists()
    assert not (tmp_path / "out/2").exists()


@pytest.mark.parametrize("command", FILES)
def test_a_file_is_replaced_by_force_alone(work: Place, tmp_path: Path, command: str) -> None:
    arguments = FILES[command](str(tmp_path / "out"))
    out = next(Path(word) for word in arguments if word.startswith(str(tmp_path)))
    out.write_text("mine")
    result = work.run(arguments)
    assert result.exit_code == 1
    assert result.output.endswith("or pass --force to replace it\n")
    assert out.read_text() == "mine"
    assert work.run([*arguments, "--force"]).exit_code == 0
    assert out.read_bytes() != b"mine"
    out.unlink()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert work.run([*arguments, "--force"]).exit_code == 1
    assert (out / "notes.txt").read_text() == "mine"


def test_every_command_is_looked_at() -> None:
    """A new command that writes needs an entry in one of the tables above."""
    assert {name.split()[0].rstrip(",") for name in (*FOLDERS, *FILES)} | IN_PLACE == set(COMMANDS)


def test_init_keeps_what_is_in_the_folder(work: Place, tmp_path: Path) -> None:
    for name in ("thesis.txt", ".gitignore", "results"):
        (tmp_path / name).write_text("mine\n")
    init(tmp_path, work.home / "data")
    assert [(tmp_path / name).read_text() for name in ("thesis.txt", "results")] == ["mine\n"] * 2
    assert (tmp_path / ".gitignore").read_text().startswith("mine\n")
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["data"]["source"] == "folder"
