"""The whole pipeline under DVC, on a few digits: which stages run, which do not run again, and what they write."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.dvc import BINARIES, DENSITIES, settings
from support.project import REPOSITORY
from support.recorded import Recorded

from postprior.pipelines.artefacts.code import SILENT, _computed_imports, _imports, closure
from postprior.pipelines.report.figures import Figure
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.profiles import SECTIONS
from postprior.pipelines.stages.code import code
from postprior.pipelines.tracking.runs import Run

OF_A_DENSITY = ("fit", "generate", "evaluate", "utility", "evaluate-imputation", "privacy")
STAGES = ["code", "prepare", "train-evaluators", "train", "refine", "encode", "diagnose", "score-baselines"]
STAGES += [f"{stage}@{name}" for stage in OF_A_DENSITY for name in DENSITIES]
STAGES += ["utility-real", "evaluate-imputation-baselines", "augment@40", "compare"]

pytestmark = [
    pytest.mark.timeout(900),  # the whole pipeline; a minute on a quiet machine
    pytest.mark.skipif(
        not (BINARIES / "postprior").exists() or shutil.which("git") is None,
        reason="The console script postprior is not installed, or git is not",
    ),
]


TOLD = """
import atexit, os, sys
from pathlib import Path

def tell():
    ours = sorted(name for name in sys.modules if name.startswith("postprior."))
    if ours:
        Path(os.environ["MODULES"], f"{sys.argv[1]} {os.getpid()}").write_text("\\n".join(ours))

atexit.register(tell)
"""
"""Runs in every process, and leaves the names of our modules that it has imported."""


def run(root: Path, *command: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(root.parent / "package"),  # a copy that tests may edit
        "MODULES": str(root.parent / "modules"),
        "PATH": f"{root.parent / 'warm'}{os.pathsep}{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "1",
    }
    answer = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=880
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '(.+?)'", output)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, warm: Path) -> tuple[Path, str]:
    """A project of git and DVC in which `dvc repro` has run once, and what that run said."""
    root = tmp_path_factory.mktemp("pipeline") / "project"
    root.mkdir()
    package = root.parent / "package"
    shutil.copytree(REPOSITORY / "postprior", package / "postprior", ignore=shutil.ignore_patterns("__pycache__"))
    (package / "sitecustomize.py").write_text(TOLD)
    (root.parent / "modules").mkdir()
    (root.parent / "warm").symlink_to(warm)
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(REPOSITORY / name, root)
    (root / "params.yaml").write_text(yaml.safe_dump(settings()))
    run(root, "git", "init", "-q")
    run(root, "dvc", "init", "-q")
    return root, run(root, "dvc", "repro")


def numbers(tree: Mapping[str, Any]) -> Iterator[float]:
    for value in tree.values():
        if isinstance(value, Mapping):
            yield from numbers(value)
        elif isinstance(value, (int, float)):
            yield value


def test_every_stage_runs_once(first: tuple[Path, str]) -> None:
    ran = stages_run(first[1])
    assert sorted(ran) == sorted(STAGES)
    assert ran[-1] == "compare"


def test_the_results_are_there_and_finite(first: tuple[Path, str]) -> None:
    metrics = first[0] / "results/metrics"
    rows = ["real", "reconstruction", "normal", *DENSITIES]
    assert {path.stem for path in metrics.glob("*.json")} == {*rows, "autoencoder", "evaluators", "latent", "samplers"}
    for path in metrics.glob("*.json"):
        found = list(numbers(json.loads(path.read_text())))
        assert found or path.stem == "samplers"  # which sample tables and vectors
        assert all(map(math.isfinite, found)), path
    table = list(csv.DictReader((first[0] / "results/comparison.csv").open()))
    assert sorted(line["row"] for line in table) == sorted(rows)
    assert len((first[0] / "results/training.csv").read_text().splitlines()) == 1 + 2
    assert (first[0] / "results/report.html").stat().st_size < 3_000_000
    assert not (first[0] / "mlflow.db").exists()


def test_nothing_runs_twice(first: tuple[Path, str]) -> None:
    """Except the stage that hashes the code."""
    assert stages_run(run(first[0], "dvc", "repro")) == ["code"]


def test_a_stage_runs_no_code_that_its_hash_leaves_out(first: tuple[Path, str]) -> None:
    told = list((first[0].parent / "modules").iterdir())
    assert len(told) >= len(STAGES)
    for path in told:
        command = path.name.split()[0]
        left_out = set(path.read_text().splitlines()) - closure(f"stages.{command.replace('-', '_')}").keys()
        silent = tuple(f"postprior.pipelines.{room}" for room in (*SILENT, "commands", "settings", "texts"))
        harmless = {  # what the command line and MLflow import: names of scores, and an error that is told in one line
            "postprior.pipelines",
            "postprior.pipelines.metrics",
            "postprior.pipelines.metrics.registry",
            "postprior.stage1_vae.imports",
        }
        assert not {name for name in left_out - harmless if not name.startswith(silent)}, command


@pytest.fixture(scope="module")
def copied_code(first: tuple[Path, str]) -> Iterator[None]:
    """The stage `code` hashes the copy of the package, whose edits below change no import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postprior.pipelines.artefacts.code.ROOT", first[0].parent / "package/postprior")
        for cached in (_imports, _computed_imports):
            cached.cache_clear()
        yield
    for cached in (_imports, _computed_imports):
        cached.cache_clear()


def stale(root: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The stages that DVC would run because their own code, settings or inputs changed."""
    from dvc.repo import Repo

    code(load_params(root / "params.yaml"), root)
    monkeypatch.chdir(root)
    with Repo(str(root)) as repo:
        return set(repo.status()) - {"code"}


def downstream(root: Path, stages: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The stages that read what some stages write, or what such stages write."""
    from dvc.repo import Repo
    from networkx import ancestors

    monkeypatch.chdir(root)
    with Repo(str(root)) as repo:
        graph = repo.index.graph  # its edges go from a stage to those that it reads from
        named = {stage.name: stage for stage in graph}
        return {stage.name for name in stages for stage in ancestors(graph, named[name])}


def of_all(*stages: str) -> set[str]:
    """Stages, and those of a density for every density."""
    return {f"{stage}@{name}" for stage in stages if stage in OF_A_DENSITY for name in DENSITIES} | {
        stage for stage in stages if stage not in OF_A_DENSITY
    }


LOADS_A_PAIR = (
    "generate",
    "evaluate",
    "utility",
    "utility-real",
    "evaluate-imputation",
    "evaluate-imputation-baselines",
    "privacy",
)
SCORES = (
    *("diagnose", "score-baselines", "evaluate", "utility-real", "utility", "augment@40", "privacy"),
    *("evaluate-imputation-baselines", "evaluate-imputation", "compare"),
)
"""Stages whose settings may have one value per profile: a change of the profile trains and fits nothing."""


@pytest.mark.usefixtures("copied_code")
@pytest.mark.parametrize(
    ("file", "stages"),
    {
        "pipelines/report/page.py": ("compare",),
        "pipelines/report/style.css": ("compare",),
        "pipelines/metrics/fidelity/frechet.py": ("score-baselines", "evaluate"),
        "pipelines/metrics/privacy/membership.py": ("privacy",),
        "pipelines/metrics/privacy/proximity.py": ("evaluate", "privacy"),
        "pipelines/metrics/imputation/imputers.py": ("evaluate-imputation", "evaluate-imputation-baselines"),
        "pipelines/metrics/latent/health.py": ("diagnose", "score-baselines"),
        "pipelines/data/sources/digits.py": ("prepare",),
        "pipelines/data/formats/npz.py": (),
        "pipelines/tracking/runs.py": (),
        "stage1_vae/training.py": ("train", "refine", "augment@40"),
        "stage1_vae/models/mvtcae.py": (
            "train",
            "refine",
            "encode",
            "score-baselines",
            "fit",
            "augment@40",
            *LOADS_A_PAIR,
            "compare",
        ),
        "stage2_latent/flow.py": ("fit", "score-baselines", "augment@40", *LOADS_A_PAIR, "compare"),
    }.items(),
)
def test_an_edit_of_code_reruns_what_runs_it(
    first: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, file: str, stages: tuple[str, ...]
) -> None:
    path = first[0].parent / "package/postprior" / file
    before = path.read_bytes()
    path.write_bytes(before + b"\n\n")
    try:
        assert stale(first[0], monkeypatch) == of_all(*stages)
    finally:
        path.write_bytes(before)


@pytest.mark.usefixtures("copied_code")
@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("evaluators.epochs", 2, ("train-evaluators", "compare")),
        ("train.epochs", 3, ("train", "augment@40", "compare")),
        ("evaluate.neighbours", 4, ("score-baselines", "evaluate", "compare")),
        ("generate.balance", {"0": 1.0}, ("generate", "utility", "augment@40", "compare")),
        ("privacy.draws", 3, ("privacy", "compare")),
        ("imputation.draws", 20, ("evaluate-imputation", "evaluate-imputation-baselines", "compare")),
        ("compare.map", "umap", ("compare",)),
        ("profile", "full", SCORES),
        ("augment.steps", 5, ("augment@40", "compare")),
    ],
)
def test_a_setting_reruns_what_reads_it(
    first: tuple[Path, str], monkeypatch: pytest.MonkeyPatch, key: str, value: Any, stages: tuple[str, ...]
) -> None:
    path, tree = first[0] / "params.yaml", settings()
    section, _, name = key.rpartition(".")
    (tree[section] if section else tree)[name] = value
    before = path.read_text()
    path.write_text(yaml.safe_dump(tree))
    try:
        assert stale(first[0], monkeypatch) == of_all(*stages)
    finally:
        path.write_text(before)


@pytest.mark.usefixtures("copied_code")
def test_a_setting_of_a_density_reruns_only_that_density(
    first: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tree = first[0] / "params.yaml", settings()
    tree["density"]["vamp"]["pseudo_inputs"] = 12
    before = path.read_text()
    path.write_text(yaml.safe_dump(tree))
    try:
        changed = stale(first[0], monkeypatch)
    finally:
        path.write_text(before)
    ran = changed | downstream(first[0], changed, monkeypatch)
    assert "fit@vamp" in changed
    assert ran == {*(f"{stage}@vamp" for stage in OF_A_DENSITY), "compare"}


def declared(stage: str, tree: Mapping[str, Any]) -> set[str]:
    """The keys of params.yaml that dvc.yaml names for a stage, for one of its densities or sizes."""
    entry = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"][stage.partition("@")[0]]
    chosen = {
        "${data.source}": tree["data"]["source"],
        "${vae.model}": tree["vae"]["model"],
        "${augment.density}": tree["augment"]["density"],
        "${augment.model}": tree["augment"]["model"],
        "${item.density}": stage.partition("@")[2],
    }
    return {re.sub(r"\$\{[\w.]+\}", lambda found: chosen[found[0]], key) for key in entry.get("params", [])}


def covers(key: str, other: str) -> bool:
    """Whether a key equals another or is one of its parents."""
    return f"{other}.".startswith(f"{key}.")


def test_a_stage_reads_the_settings_that_dvc_watches_for_it_and_no_other(
    first: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "project"
    shutil.copytree(first[0], root, ignore=shutil.ignore_patterns(".git", ".dvc"))
    params = load_params(root / "params.yaml")
    tree = params.model_dump()
    monkeypatch.setattr(
        Figure, "pngs", lambda *_, **__: (bytes(24), bytes(24))
    )  # no setting is read while they are drawn
    for rounds in ("imputers", "chained"):
        monkeypatch.setattr(f"postprior.pipelines.metrics.imputation.{rounds}.ROUNDS", 1)
    wrong: dict[str, tuple[set[str], set[str]]] = {}
    for stage in STAGES:
        name, _, item = stage.partition("@")
        file, function, others = CALLS.get(name, (name.replace("-", "_"), name.replace("-", "_"), ()))
        module = import_module(f"postprior.pipelines.stages.{file}")
        monkeypatch.setattr(module, "track", lambda *_, **__: nullcontext(Run()), raising=False)
        before = others if name == "augment" else (item,) if item else ()
        read: set[str] = set()
        getattr(module, function)(*before, Recorded(params, read), root)
        if any(key.partition(".")[0] in SECTIONS for key in read):
            read.add("profile")  # these settings may have one value per profile
        wanted = declared(stage, tree)
        undeclared = {key for key in read if not any(covers(one, key) for one in wanted)}
        unread = {one for one in wanted if not any(covers(one, key) for key in read)}
        if undeclared or unread:
            wrong[stage] = (undeclared, unread)
    assert wrong == {}


CALLS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "utility-real": ("utility", "utility_of_real", ()),
    "evaluate-imputation-baselines": ("evaluate_imputation", "evaluate_baseline_imputers", ()),
    "augment": ("augment", "augment", ("40",)),
}
"""Modules and functions that do not have the name of their stage, and the arguments before the settings."""


def test_the_results_are_for_git_and_the_artefacts_are_not(first: tuple[Path, str]) -> None:
    root = first[0]
    run(root, "git", "add", "--all")
    kept = run(root, "git", "ls-files").splitlines()
    assert {
        "dvc.lock",
        "results/metrics/gmm_free.json",
        "results/report.html",
        "results/comparison.csv",
        "results/summary.json",
    } <= set(kept)
    assert not [path for path in kept if path.startswith(("artefacts/", ".postprior/"))]
