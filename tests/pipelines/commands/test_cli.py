"""The command line: quick help, one-line errors, exit codes, and what it hands to the stages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.project import COMMANDS, REPOSITORY
from typer.testing import CliRunner

from postprior.pipelines.commands.app import app
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.request import SampleRequest

DEFAULTS = REPOSITORY / "params.yaml"
HEAVY = ("torch", "sklearn", "mlflow", "matplotlib", "numpy", "dvc", "PIL")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, as the working directory."""
    shutil.copy(DEFAULTS, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Stage:
    """A stage that records how it was called, or raises."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.error = error

    def __call__(self, *given: Any, **options: Any) -> str:
        self.calls.append((given, options))
        if self.error:
            raise self.error
        return "done"


def replace_stage(monkeypatch: pytest.MonkeyPatch, name: str, stage: Stage) -> Stage:
    room = "api" if name in ("register", "draw", "track") else "stages"
    monkeypatch.setattr(f"postprior.pipelines.{room}.{name}.{name}", stage)
    return stage


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


@pytest.mark.parametrize("name", ["train-evaluators", "train", "encode", "diagnose", "score-baselines", "track"])
def test_a_stage_gets_the_settings_and_their_folder(project: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stage = replace_stage(monkeypatch, name, Stage())
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    answer = CliRunner().invoke(app, [name, "--params", "../params.yaml"])
    assert answer.exit_code == 0, answer.output
    ((given, options),) = stage.calls
    assert given[0].seed == 0
    assert given[1] == project
    assert not options


@pytest.mark.parametrize("name", ["fit", "evaluate"])
def test_a_stage_of_a_density_gets_its_name(project: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stage = replace_stage(monkeypatch, name, Stage())
    answer = CliRunner().invoke(app, [name, "gmm"])
    assert answer.exit_code == 0, answer.output
    assert stage.calls[0][0][0] == "gmm"
    assert stage.calls[0][0][2] == project


@pytest.mark.parametrize(
    ("name", "option", "other"),
    [("utility", "--real", "utility_of_real"), ("evaluate-imputation", "--baselines", "evaluate_baseline_imputers")],
)
def test_what_densities_are_set_against_is_an_option(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, option: str, other: str
) -> None:
    """A name is a density's, whatever it is."""
    stage, beside = replace_stage(monkeypatch, name, Stage()), Stage()
    monkeypatch.setattr(f"postprior.pipelines.stages.{name}.{other}", beside)
    for given in (["gmm"], [option]):
        answer = CliRunner().invoke(app, [name, *given])
        assert answer.exit_code == 0, answer.output
    assert [given[0] for given, _ in stage.calls] == ["gmm"]
    assert [given[1] for given, _ in beside.calls] == [project]
    for given, found in (
        (["gmm", option], f"both the name 'gmm' and {option}"),
        ([], f"neither the name of a density nor {option}"),
    ):
        answer = CliRunner().invoke(app, [name, *given])
        assert answer.exit_code == 1
        assert answer.stderr == (f"postprior: error: {option}: found {found}, expected one of them\n")
    assert len(stage.calls) == len(beside.calls) == 1


def test_generate_hands_over_its_options(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = replace_stage(monkeypatch, "generate", Stage())
    labels = ["--label", "7=20", "--label", "a=b=3"]
    colder = ["--temperature", "0.5", "--truncation", "0.1"]
    places = ["--given", "data", "--out", "new"]
    answer = CliRunner().invoke(app, ["generate", "gmm", "--seed", "3", "--values", "draws", *labels, *colder, *places])
    assert answer.exit_code == 0, answer.output
    ((given, options),) = stage.calls
    asked = SampleRequest(23, 3, {"7": 20, "a=b": 3}, "draws", temperature=0.5, truncation=0.1)
    assert (given[0], given[3:]) == ("gmm", (asked, Path("new"), Path("data")))
    assert not options


def test_impute_hands_over_its_options(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("postprior.pipelines.api.impute")
    calls: list[tuple[object, ...]] = []
    module.impute = lambda *given: calls.append(given) or ["told"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    answer = CliRunner().invoke(app, ["impute", "gmm", "data", "out", "--draws", "5", "--seed", "2"])
    assert answer.output == "told\n"
    assert calls[0][:2] == ("gmm", Path("data"))
    assert calls[0][3:] == (project, Path("out"), 5, None, 2)


def test_compare_hands_over_the_densities_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = replace_stage(monkeypatch, "compare", Stage())
    for names in ([], ["gmm", "flow"]):
        answer = CliRunner().invoke(app, ["compare", *names])
        assert answer.exit_code == 0, answer.output
        assert stage.calls[-1][0][1] == project
        assert list(stage.calls[-1][0][2]) == names


def test_register_hands_over_names(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = replace_stage(monkeypatch, "register", Stage())
    for options, given in {
        (): (None, "champion"),
        ("--as", "mine", "--alias", "old"): ("mine", "old"),
    }.items():
        answer = CliRunner().invoke(app, ["register", "gmm", *options])
        assert answer.exit_code == 0, answer.output
        called = stage.calls[-1][0]
        assert (called[0], called[2:]) == ("gmm", (project, *given))
        assert answer.stdout == "done\n"


def test_draw_needs_no_settings_and_leaves_what_is_not_given_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace_stage(monkeypatch, "draw", Stage())
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["draw", "mine", "--samples", "5", "--seed", "0", "--out", "z.npz"])
    assert answer.exit_code == 0, answer.output
    ((given, options),) = stage.calls
    assert given == (Path("mine"), Path("z.npz"), SampleRequest(5), False)
    assert not options
    answer = CliRunner().invoke(app, ["draw", "mine", "--out", "z.npz"])
    assert answer.exit_code == 1
    assert answer.stderr.startswith("postprior: error: --samples: found none, expected a number")


def test_a_fit_to_codes_takes_the_settings_that_there_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("postprior.pipelines.api.fit")
    module.fit_codes = stage = Stage()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    command = ["fit", "gmm", "--codes", "a.npz", "--validation", "b.npz", "--out", "mine"]
    assert CliRunner().invoke(app, command).exit_code == 0
    (project / "params.yaml").unlink()
    assert CliRunner().invoke(app, command).exit_code == 0
    settled, alone = (given for given, _ in stage.calls)
    assert settled[1].seed == 0
    assert settled[2] == project
    assert alone[1:3] == (None, Path())
    assert settled[3:] == alone[3:] == (Path("a.npz"), Path("b.npz"), Path("mine"))
    assert CliRunner().invoke(app, [*command, "--params", "other.yaml"]).exit_code == 1
    answer = CliRunner().invoke(app, ["fit", "gmm", "--out", "mine"])
    assert answer.stderr.startswith("postprior: error: --validation and --out: found without --codes")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (["7"], "--label: found '7', expected LABEL=COUNT, such as --label 7=200"),
        (["7=-1"], "--label: found '7=-1', expected LABEL=COUNT"),
        (["7=x"], "--label: found '7=x', expected LABEL=COUNT"),
        (["7=1", "7=2"], "--label: found '7' twice, expected each label once"),
    ],
)
def test_wrong_labels(project: Path, monkeypatch: pytest.MonkeyPatch, labels: list[str], sentence: str) -> None:
    stage = replace_stage(monkeypatch, "generate", Stage())
    answer = CliRunner().invoke(app, ["generate", "gmm", *(part for label in labels for part in ("--label", label))])
    assert answer.exit_code == 1
    assert answer.stderr.startswith(f"postprior: error: {sentence}")
    assert not stage.calls


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("m0.npy is missing."), 1, "postprior: error: m0.npy is missing."),
        (OSError(28, "No space left on device", "a/b"), 1, "postprior: error: a/b: No space left on device"),
        (OSError(28, "No space left on device"), 1, "postprior: error: No space left on device"),
        (MemoryError(), 1, "postprior: error: out of memory; use fewer rows or draws"),
    ],
)
@pytest.mark.parametrize("name", ["train", "fit", "generate"])
def test_an_error_is_one_line_and_an_exit_code(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException, code: int, line: str
) -> None:
    replace_stage(monkeypatch, name, Stage(error))
    answer = CliRunner().invoke(app, [name, "gmm"][: 1 if name == "train" else 2])
    assert answer.exit_code == code
    assert answer.stderr == f"{line}\n"
    assert not answer.stdout


def test_own_code_that_ends_the_program_is_no_success(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_stage(monkeypatch, "train", Stage(SystemExit(0)))
    answer = CliRunner().invoke(app, ["train"])
    assert answer.exit_code == 1
    line = Stage.__call__.__code__.co_firstlineno + 3
    assert answer.stderr == (
        f"postprior: error: {__file__}, line {line}: this code ended the program; remove the call\n"
    )


def test_a_fault_of_ours_is_not_dressed_up(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_stage(monkeypatch, "train", Stage(ZeroDivisionError()))
    assert isinstance(CliRunner().invoke(app, ["train"]).exception, ZeroDivisionError)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("import", "init", "draw", "export")])
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
            "mvtcae: {alpha",
            "mvtcae: {alhpa",
            "vae.options.mvtcae.alhpa is not a known key (did you mean alpha?)",
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
