"""The command line: quick help, what commands do with their arguments, errors in one line, and exit codes."""

from __future__ import annotations

import csv
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import yaml
from support.dvc import BINARIES
from support.project import COMMANDS, REPOSITORY
from typer.testing import CliRunner, Result

import postprior
from postprior.pipelines.api.draw import draw
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.imputation import imputers
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import read_json

DEFAULTS = REPOSITORY / "params.yaml"
HEAVY = ("torch", "sklearn", "mlflow", "matplotlib", "numpy", "dvc", "PIL")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and nothing else, as the working directory."""
    shutil.copy(DEFAULTS, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def scored(trained: tuple[Path, Params], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained project with scored baselines, and synthetic and scored samples of `gmm`."""
    root = tmp_path_factory.mktemp("commands") / "project"
    shutil.copytree(trained[0], root)
    settings = yaml.safe_load((root / "params.yaml").read_text())
    settings["imputation"]["draws"] = 19
    settings["utility"] |= {"seeds": [0], "steps": 2}
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    for command in (["diagnose"], ["score-baselines"], ["generate", "gmm"], ["evaluate", "gmm"]):
        done(*command, "--params", str(root / "params.yaml"))
    return root


@pytest.fixture
def trained_project(scored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same project as the working directory."""
    monkeypatch.chdir(scored)
    return scored


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def done(*arguments: str) -> str:
    """Run a command, which must succeed, and return its stdout."""
    answer = run(*arguments)
    assert answer.exit_code == 0, answer.output or answer.exception
    return answer.stdout


def ended(*arguments: str) -> str:
    """Run a stage, which must succeed and write nothing on stdout, and return its stderr after the progress."""
    answer = run(*arguments)
    assert answer.exit_code == 0, answer.output or answer.exception
    assert not answer.stdout
    return answer.stderr[answer.stderr.index(f"{arguments[0]}: wrote ") :]


def refused(*arguments: str) -> str:
    """Run a command, which must fail, and return the one line that it writes on stderr."""
    answer = run(*arguments)
    assert answer.exit_code == 1, answer.output or answer.exception
    assert not answer.stdout
    assert answer.stderr.count("\n") == 1
    return answer.stderr.removesuffix("\n")


def raises(monkeypatch: pytest.MonkeyPatch, stage: str, error: BaseException) -> None:
    """Make a stage raise an error that a test cannot provoke."""

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise error

    monkeypatch.setattr(f"postprior.pipelines.stages.{stage}.{stage}", fail)


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    code = f"""
import sys
from postprior.pipelines.commands import main
try:
    main()
except SystemExit:
    pass
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
"""
    answer = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert all(f"  {name}  " in answer.stdout for name in COMMANDS)


def test_the_version_is_that_of_the_package() -> None:
    assert done("--version") == f"postprior {postprior.__version__}\n"


@pytest.mark.skipif(
    shutil.which("bash") is None or not (BINARIES / "postprior").exists(),
    reason="there is no bash, or the console script postprior is not installed",
)
def test_a_shell_completes_commands_options_and_paths(tmp_path: Path) -> None:
    """The script that --show-completion prints, in a real shell; the name of an earlier version breaks nothing."""
    (tmp_path / "codes.npz").touch()
    script = """
eval "$(postprior --show-completion)"
complete_line() {
    COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
    _postprior_completion postprior
    echo "${COMPREPLY[*]}"
}
complete_line "postprior evaluate"
complete_line "postprior generate gmm --temp"
complete_line "postprior recover --par"
"""
    environment = os.environ | {"PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}"}
    answer = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert not answer.stderr
    assert answer.stdout.splitlines() == ["evaluate evaluate-imputation", "--temperature", ""]


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (["train-evaluators"], "artefacts/evaluators/manifest.json"),
        (["train"], "artefacts/autoencoder/manifest.json"),
        (["encode"], "artefacts/codes/test/manifest.json"),
        (["diagnose"], "results/metrics/latent.json"),
        (["fit", "gmm"], "artefacts/densities/gmm/manifest.json"),
        (["evaluate", "gmm"], "results/metrics/gmm.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_stage_works_in_the_folder_of_its_settings(
    trained_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], written: str
) -> None:
    """It works there from any folder, and the same settings give the same results."""
    path = trained_project / written
    before, then = path.read_text(), path.stat().st_mtime_ns
    monkeypatch.chdir(tmp_path)
    told = ended(*command, "--params", os.path.relpath(trained_project / "params.yaml"))
    assert told.startswith(f"{command[0]}: wrote {trained_project}/")
    assert path.stat().st_mtime_ns > then
    assert path.read_text() == before
    assert not list(tmp_path.iterdir())


def test_a_stage_tells_what_it_wrote_and_what_comes_next(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outputs in dvc.yaml, and the first command that reads one of them; DVC runs that one itself."""
    wrote = "encode: wrote artefacts/codes/train, artefacts/codes/validation, artefacts/codes/test\n"
    assert ended("encode") == f"{wrote}Go on with: postprior diagnose\n"
    assert ended("diagnose").endswith("Go on with: postprior compare\n")
    assert ended("fit", "gmm") == "fit: wrote artefacts/densities/gmm\nGo on with: postprior generate gmm\n"
    monkeypatch.setenv("DVC_STAGE", "encode")
    assert ended("encode") == wrote


def test_track_logs_what_is_there(scored: Path, tracked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(scored)
    client = MlflowClient(tracked)

    def stages() -> dict[str, str]:
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return {run.info.run_id: run.data.tags["stage"] for run in client.search_runs(ids, "tags.stage LIKE '%'")}

    before = stages()
    assert done("track").startswith(f"{tracked}: ")
    logged = {stage for run, stage in stages().items() if run not in before}
    assert {"train-evaluators", "train", "diagnose", "score-baselines", "evaluate"} <= logged


@pytest.mark.parametrize(
    ("name", "option", "of_density", "of_baselines"),
    [
        ("utility", "--real", "results/utility/gmm.json", "results/utility/real.json"),
        ("evaluate-imputation", "--baselines", "results/imputation/gmm.json", "results/imputation/baselines.json"),
    ],
)
def test_baselines_are_an_option_in_place_of_a_name(
    trained_project: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    option: str,
    of_density: str,
    of_baselines: str,
) -> None:
    """A positional name is always the name of a density."""
    monkeypatch.setattr(imputers, "ROUNDS", 1)
    for given, found in (
        (["gmm", option], f"both the name 'gmm' and {option}"),
        ([], f"neither the name of a density nor {option}"),
    ):
        assert refused(name, *given) == f"postprior: error: {option}: found {found}, expected one of them"
    assert not (trained_project / of_baselines).exists()
    done(name, option)
    assert (trained_project / of_baselines).is_file()
    assert not (trained_project / of_density).exists()
    done(name, "gmm")
    assert (trained_project / of_density).is_file()


def test_generate_draws_what_its_options_ask_for(trained_project: Path, tmp_path: Path) -> None:
    labels = ["--label", "7=20", "--label", "3=3"]
    colder = ["--temperature", "0.5", "--truncation", "0.1"]
    done("generate", "gmm", "--seed", "3", "--values", "draws", *labels, *colder, "--out", str(tmp_path / "new"))
    drawn = Dataset.load(tmp_path / "new")
    asked = {"seed": 3, "labels": {"7": 20, "3": 3}, "values": "draws", "temperature": 0.5, "truncation": 0.1}
    assert {key: drawn.provenance[key] for key in asked} == asked
    assert np.bincount(drawn.labels, minlength=10).tolist() == [0, 0, 0, 3, 0, 0, 0, 20, 0, 0]
    again = ["--given", str(tmp_path / "new"), "--out", str(tmp_path / "completed"), "--samples", "23"]
    done("generate", "normal", *again)
    completed = Dataset.load(tmp_path / "completed")
    assert completed.provenance["given"] == drawn.hash
    assert completed.provenance["seed"] == 0  # as params.yaml has it


def test_a_label_is_what_stands_before_the_last_sign(trained_project: Path) -> None:
    assert refused("generate", "gmm", "--label", "a=b=3").startswith("postprior: error: labels: found 'a=b'")


def test_impute_draws_as_often_as_asked(trained_project: Path, tmp_path: Path) -> None:
    data = Dataset.load(trained_project / "artefacts/data/test").select(np.arange(6))
    mask = data.observed.copy()
    mask[::2, 0] = False
    Dataset(data.modalities, data.data, mask).save(tmp_path / "holes")
    told = done("impute", "gmm", str(tmp_path / "holes"), str(tmp_path / "out"), "--draws", "2", "--seed", "5")
    assert "3 rows" in told
    first, second = (Dataset.load(tmp_path / f"out/{draw}").provenance for draw in (1, 2))
    assert (first["seed"], second["seed"]) == (5, 5)
    assert first["draw"] != second["draw"]
    assert first["values"] == "mean"  # as params.yaml has it


def test_compare_takes_the_densities_named_or_all(trained_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postprior.pipelines.report.writing.figures", lambda *_: {})

    def rows() -> list[str]:
        with open("results/comparison.csv", encoding="utf-8") as file:
            return [row["row"] for row in csv.DictReader(file)]

    done("compare", "gmm")
    assert rows() == ["real", "reconstruction", "gmm", "normal"]
    missing = refused("compare")  # of those in params.yaml
    assert "flow_matching" in missing


def test_register_gives_a_model_its_name_and_alias(scored: Path, tracked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(scored)
    client = MlflowClient(tracked)
    for options, name, alias in (
        ([], "postprior-gmm", "champion"),
        (["--as", "command-line", "--alias", "old"], "command-line", "old"),
    ):
        told = done("register", "gmm", *options)
        assert told.startswith(f"models:/{name}@{alias} is version ")
        assert client.get_model_version_by_alias(name, alias).tags["density"] == "gmm"


def test_draw_needs_no_settings_and_leaves_what_is_not_given_as_it_is(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    density = str(scored / "artefacts/densities/gmm")
    monkeypatch.chdir(tmp_path)
    done("draw", density, "--samples", "5", "--out", "z.npz")
    draw(Path(density), Path("expected.npz"), SampleRequest(5))
    assert Path("z.npz").read_bytes() == Path("expected.npz").read_bytes()
    done("draw", density, "--samples", "5", "--seed", "1", "--out", "other.npz")
    assert Path("z.npz").read_bytes() != Path("other.npz").read_bytes()
    line = refused("draw", density, "--out", "z.npz")
    assert line.startswith("postprior: error: --samples: found none, expected a number")


def test_a_fit_to_codes_takes_the_settings_that_there_are(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    splits = [str(scored / f"artefacts/codes/{split}") for split in ("train", "validation")]
    command = ["fit", "gmm", "--codes", splits[0], "--validation", splits[1]]
    settings = yaml.safe_load(DEFAULTS.read_text())
    settings["density"]["gmm"] |= {"components": [1], "covariance": ["diagonal"]}
    Path("params.yaml").write_text(yaml.safe_dump(settings))
    done(*command, "--out", "settled")
    Path("params.yaml").unlink()
    done(*command, "--out", "alone")
    options = [read_json(tmp_path / name / "manifest.json")["options"] for name in ("settled", "alone")]
    assert [of["covariance"] for of in options] == [["diagonal"], ["full", "tied", "low_rank"]]
    assert "other.yaml" in refused(*command, "--out", "third", "--params", "other.yaml")
    line = refused("fit", "gmm", "--out", "mine")
    assert line.startswith("postprior: error: --validation and --out: found without --codes")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["7"], "--label: found '7', expected LABEL=COUNT, such as --label 7=200"),
        (["7=-1"], "--label: found '7=-1', expected LABEL=COUNT"),
        (["7=x"], "--label: found '7=x', expected LABEL=COUNT"),
        (["7=1", "7=2"], "--label: found '7' twice, expected each label once"),
    ],
)
def test_wrong_labels(trained_project: Path, tmp_path: Path, labels: list[str], sentence: str) -> None:
    options = [part for label in labels for part in ("--label", label)]
    line = refused("generate", "gmm", *options, "--out", str(tmp_path / "new"))
    assert line.startswith(f"postprior: error: {sentence}")
    assert not (tmp_path / "new").exists()


GENERATE = ["generate", "gmm", "--samples", "3"]
DRAW = ["draw", "artefacts/densities/gmm", "--samples", "3"]
IMPUTE = ["impute", "gmm", "artefacts/data/test"]
SEED = "seed: found -1, expected a whole number from 0 to 4294967295"


@pytest.mark.parametrize("temperature", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize("command", [GENERATE, DRAW], ids=lambda command: command[0])
def test_numbers_that_are_none(trained_project: Path, tmp_path: Path, command: list[str], temperature: str) -> None:
    for option, expected in (("temperature", "above 0 and at most 1"), ("truncation", "of at least 0 and below 1")):
        line = refused(*command, "--out", str(tmp_path / "z.npz"), f"--{option}", temperature)
        assert re.fullmatch(rf"postprior: error: {option}: found (NaN|-?Infinity), expected a number {expected}", line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([*GENERATE[:2], "--samples", str(2**63)], f"samples: {2**63} rows need at least .* GB on the disk"),
        (
            [*DRAW[:2], "--samples", str(10**12)],
            "samples: 1000000000000 codes need at least 32000 GB of memory and 16000",
        ),
        ([*GENERATE[:2], "--label", "7=" + "9" * 18], "samples: 9{18} rows need at least"),
        ([*GENERATE[:2], "--label", "7=" + "9" * 30], "--label: found '7=9{30}', expected LABEL=COUNT"),
        ([*DRAW[:2], "--label", "7=" + "9" * 5000], "--label: found '7=9+…9+', expected LABEL=COUNT"),
        ([*GENERATE, "--seed", "-1"], SEED),
        ([*DRAW, "--seed", "-1"], SEED),
        ([*IMPUTE, "--seed", "-1"], SEED),
        (
            [*IMPUTE, "--draws", str(10**6)],
            "draws: 1000000 draws of 120 rows need at least .* GB of memory and .* GB on",
        ),
        (["represent", "artefacts/data/test", "--seed", "-1"], SEED),
        (["augment", "9" * 5000], "size: found 9+…9*, expected all or a whole number from 1 to 300"),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else "",
)
def test_requests_out_of_range_are_refused(
    trained_project: Path, tmp_path: Path, command: list[str], sentence: str
) -> None:
    out = {"generate": ["--out"], "draw": ["--out"], "impute": [], "represent": []}
    place = [*out[command[0]], str(tmp_path / "z.npz")] if command[0] in out else []
    assert re.match(f"postprior: error: {sentence}", refused(*command, *place))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("def f(:", r"'own_extractor:Own' cannot be imported: invalid syntax \(own_extractor.py, line 1\)"),
        ("import nowhere_at_all", "'own_extractor:Own' cannot be imported: No module named 'nowhere_at_all'"),
        (
            "1 / 0",
            "'own_extractor:Own' cannot be imported: ZeroDivisionError: division by zero .*own_extractor.py, line 1",
        ),
        ("Own = 3", "found 'own_extractor:Own', expected a subclass of .*Extractor"),
    ],
)
def test_an_extractor_that_cannot_be_imported_is_told_before_training(
    trained_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, sentence: str
) -> None:
    """`refused` holds that no epoch is reported before the error."""
    settings = yaml.safe_load((trained_project / "params.yaml").read_text())
    settings["evaluators"]["extractor"] = "own_extractor:Own"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "artefacts").symlink_to(trained_project / "artefacts")
    (tmp_path / "own_extractor.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_extractor", raising=False)
    importlib.invalidate_caches()
    line = refused("train-evaluators", "--params", str(tmp_path / "params.yaml"))
    assert re.match(f"postprior: error: evaluators.extractor: {sentence}", line)


TELLS = """
from unittest.mock import patch
from postprior.pipelines import commands
from postprior.pipelines.texts import tell
with patch("postprior.pipelines.commands.app.app", lambda **_: tell("1 … é")):
    commands.main()
"""


def test_a_terminal_that_is_not_utf_8_shows_escapes() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    answer = subprocess.run([sys.executable, "-c", TELLS], capture_output=True, text=True, check=False, env=environment)
    assert (answer.returncode, answer.stdout) == (0, "1 \\u2026 \\xe9\n"), answer.stderr


@pytest.mark.parametrize("name", [["train"], ["fit", "gmm"], ["generate", "gmm"]], ids=lambda name: name[0])
def test_what_is_missing_is_one_line_and_an_exit_code(project: Path, name: list[str]) -> None:
    line = refused(*name)
    assert line.startswith(f"postprior: error: {project}/artefacts/")
    assert "no such file" in line


def test_a_fault_of_the_file_system_is_one_line(project: Path) -> None:
    """For example, a file where a folder is to be made."""
    (project / "artefacts").write_text("")
    assert refused("code").startswith(f"postprior: error: {project}/artefacts")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("m0.npy is missing."), "postprior: error: m0.npy is missing."),
        (OSError(28, "No space left on device", "a/b"), "postprior: error: a/b: No space left on device"),
        (OSError(28, "No space left on device"), "postprior: error: No space left on device"),
        (MemoryError(), "postprior: error: out of memory; use fewer rows or draws"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_faults_of_the_machine_are_one_line_each(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, line: str
) -> None:
    raises(monkeypatch, "train", error)
    assert refused("train") == line


ENDS = """import sys
from torch import nn
class Ends(nn.Module):
    def __init__(self, shape, features, width):
        sys.exit(0)
"""


def test_own_code_that_ends_the_program_is_no_success(trained_project: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((trained_project / "params.yaml").read_text())
    settings["vae"]["networks"] = {"m0": "network_that_ends:Ends,network_that_ends:Ends"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "artefacts").symlink_to(trained_project / "artefacts")
    code = tmp_path / "network_that_ends.py"
    code.write_text(ENDS)
    line = refused("train", "--params", str(tmp_path / "params.yaml"))
    assert line.startswith(
        "postprior: error: vae.networks of m0: the encoder network_that_ends:Ends raised SystemExit: 0 "
    )
    assert f"({code}, line 5)" in line


def test_a_fault_of_ours_is_not_dressed_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raises(monkeypatch, "train", ZeroDivisionError())
    assert isinstance(run("train").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "name",
    [name for name in COMMANDS if name not in ("import", "init", "upgrade", "draw", "export", "doctor", "advise")],
)
def test_no_settings_no_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    densities = ("fit", "generate", "evaluate", "utility", "evaluate-imputation", "privacy", "register")
    argument = {"augment": ["100"], "impute": ["gmm", "data", "out"], "represent": ["data", "codes.npz"]}
    argument |= {"detect": ["gmm", "data", "--out", "scores.csv"]} | {name: ["gmm"] for name in densities}
    answer = CliRunner().invoke(app, [name, *argument.get(name, [])])
    assert answer.exit_code == 1
    assert answer.stderr == (
        "postprior: error: params.yaml: there is no such file; run in the project's folder, or pass --params\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "old", "new", "sentence"),
    [
        (
            ["prepare"],
            "  digits:",
            "  digitz:",
            "data.source: found 'digits', which has no entry under `data`",
        ),
        (["train"], "\ntrain:", "\ntrian:", "trian is not a known key (did you mean train?)"),
        (
            ["train"],
            "unimodal: {beta",
            "unimodal: {betta",
            "vae.options.unimodal.betta is not a known key (did you mean beta?)",
        ),
        (
            ["augment", "50"],
            "mopoe: {draws",
            "mopoe: {drawn",
            "vae.options.mopoe.drawn is not a known key (did you mean draws?)",
        ),
        (["fit", "spline"], "", "", "density: found 'spline', which is not a known density; known: "),
        (
            ["fit", "gmm"],
            "  gmm:\n",
            "  gmm:\n    row: all\n",
            "density.gmm.row is not a known key (did you mean rows?)",
        ),
    ],
)
def test_settings_are_checked_before_a_stage_starts(
    project: Path, arguments: list[str], old: str, new: str, sentence: str
) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace(old, new, 1))
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 1
    assert sentence in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (project / "artefacts").exists()
