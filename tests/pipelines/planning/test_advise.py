"""The command `advise`: what `init` would choose, for files as for imported folders, and nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from postprior.pipelines.api.choice.rules import settings
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.sources.folders import read_folders
from postprior.pipelines.planning import advise as module
from postprior.pipelines.planning.costs import Estimate


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two small tables in the working directory, whose second lacks rows."""
    first = ["id,age,sex,y", *(f"p{n},{20 + n % 37 + n / 100},{'fm'[n % 2]},{'ab'[n % 3 % 2]}" for n in range(60))]
    second = ["id,crp,flag", *(f"p{n},{n % 11 + 0.25},{n % 4 == 1}" for n in range(40))]
    (tmp_path / "people.csv").write_text("\n".join(first))
    (tmp_path / "labs.csv").write_text("\n".join(second))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return ["people.csv", "labs.csv"]


@pytest.fixture
def _known_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages have known times: those that are measured vary."""
    monkeypatch.setattr(module, "measure", lambda params, root: params)
    times = {"train": 90.0, "fit@gmm": 20.0, "fit@vamp": 5.0, "evaluate@gmm": 10.0, "compare": 2.0}
    monkeypatch.setattr(module, "estimates", lambda work: [Estimate(*item) for item in times.items()])


@pytest.mark.usefixtures("_known_times")
def test_files_and_the_imported_folder_get_the_advice_of_init(files: list[str], tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["advise", *files, "--label", "y"])
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    *lines, last = answer.output.splitlines()
    assert lines[0] == "modalities, with their numbers of values: people (table of 2), labs (table of 2)"
    assert lines[1].startswith("rows: 42 for training, ")
    assert lines[1].endswith(" of them with all modalities, 42 with one of 2 labels; 6 for validation and 12 for test")
    assert last == "Go on with: postprior import people.csv labs.csv DATA"
    assert lines[-4:] == [
        "dvc repro will take about 2 min 7 s on this machine (train.device: auto):",
        "  training: 1 min 30 s",
        "  densities: gmm 20 s, vamp 5 s",
        "  samples, scores and the report: 12 s",
    ]
    assert "not jmvae, jnf or telbo" in answer.output

    import_data([Path(name) for name in files], Path("data"), Roles(label="y"))
    again = CliRunner().invoke(app, ["advise", "data"])
    assert again.exit_code == 0, again.output
    *same, last = again.output.splitlines()
    assert same == lines
    assert last == "Go on with: postprior init PROJECT --from data"
    chosen = settings(read_folders(0, Path("data"), ""))
    assert all(f"{key}: " in again.output for key in chosen)
    assert f"vae.latent: {chosen['vae.latent']} " in again.output


def test_a_narrow_terminal_hides_no_word(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    answer = CliRunner().invoke(app, ["advise", files[0]])
    assert answer.exit_code == 0, answer.output
    table = [line for line in answer.output.splitlines() if not line.startswith(("modalities", "rows", "dvc", "Go"))]
    assert max(map(len, table)) <= 60
    assert "…" not in answer.output
    assert "without labels" in answer.output
    assert "dvc repro will take about" in answer.output


def test_an_imported_folder_has_its_roles(files: list[str], tmp_path: Path) -> None:
    import_data([Path(files[0])], Path("data"), Roles(label="y"))
    answer = CliRunner().invoke(app, ["advise", "data", "--label", "y"])
    assert answer.exit_code == 1
    assert "--label: y found together with a folder of postprior import" in answer.stderr
    answer = CliRunner().invoke(app, ["advise", "nothing.csv"])
    assert answer.exit_code == 1
    assert "nothing.csv" in answer.stderr
    assert set(os.listdir(tmp_path)) == {*files, "data"}
