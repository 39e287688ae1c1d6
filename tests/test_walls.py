"""Which module may import which: imports have one direction. Imports under TYPE_CHECKING count too."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from support.project import REPOSITORY

PACKAGES = ("stage1_vae", "stage2_latent", "pipelines")
FRAMEWORKS = {"dvc", "mlflow", "typer", "pydantic"}
ROOMS = [
    *("commands", "stages", "planning", "api", "report", "tracking", "detection", "scoring", "generation", "artefacts"),
    *("metrics", "data", "settings"),
    *("locks", "git", "blocks", "storage", "publishing", "space", "progress", "signals", "texts", "threads", "ranks"),
    "errors",
]
"""Folders and files of pipelines/: each may import only those that come later."""
DATA = [
    *("export", "importing", "formats", "sources", "pictures", "decoded", "constraints", "conversion"),
    *("writing", "dataset", "checks", "names", "manifest", "source_values", "rows", "shards", "pixels", "arrays"),
]
"""The same for pipelines/data/."""


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    found = sorted((REPOSITORY / package).rglob("*.py"))
    assert found
    return found


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    paths = [path for package in PACKAGES for path in files(package)]
    names = {".".join(("postprior", *p.relative_to(REPOSITORY).with_suffix("").parts)): p for p in paths}
    return {"postprior": REPOSITORY / "postprior/__init__.py"} | {
        name.removesuffix(".__init__"): path for name, path in names.items()
    }


@cache
def graph() -> dict[str, set[str]]:
    """The modules of this repository that each module imports."""
    known = modules()

    def module_of(name: str) -> str:
        while name not in known:
            name = name.rpartition(".")[0]
        return name

    return {
        name: {module_of(found) for found in imports(path) if found.startswith("postprior")}
        for name, path in known.items()
    }


def arrows(package: str) -> list[tuple[str, str]]:
    """Pairs of a module of a package and a module that it imports, without the prefix `postprior.`."""
    found = [
        (name.removeprefix("postprior."), other.removeprefix("postprior."))
        for name, others in graph().items()
        if name.startswith(f"postprior.{package}")
        for other in others
    ]
    assert found
    return found


def test_stage_1_imports_nothing_of_ours() -> None:
    assert not [arrow for arrow in arrows("stage1_vae") if not arrow[1].startswith("stage1_vae")]


def test_stage_2_imports_distributions_randomness_and_the_optimiser_of_stage_1_alone() -> None:
    allowed = ("stage2_latent", *(f"stage1_vae.{name}" for name in ("distributions", "randomness", "adamw")))
    assert not [arrow for arrow in arrows("stage2_latent") if not arrow[1].startswith(allowed)]


def test_nothing_within_imports_the_front_door() -> None:
    assert not [arrow for package in PACKAGES for arrow in arrows(package) if arrow[1] in ("postprior", "")]


def within_pipelines() -> list[tuple[str, str]]:
    """The same pairs inside `pipelines`, without that prefix."""
    return [
        (one.removeprefix("pipelines."), other.removeprefix("pipelines."))
        for one, other in arrows("pipelines.")
        if other.startswith("pipelines.")
    ]


def room(module: str) -> str:
    return module.split(".")[0]


def test_every_room_has_its_place() -> None:
    there = {path.stem for path in (REPOSITORY / "pipelines").iterdir() if not path.name.startswith("__")}
    assert there == set(ROOMS)


def test_imports_run_down() -> None:
    place = ROOMS.index
    assert not [(one, other) for one, other in within_pipelines() if place(room(other)) < place(room(one))]


def test_imports_within_data_run_down() -> None:
    place = {f"data.{name}": number for number, name in enumerate(DATA)}
    inside = [[".".join(name.split(".")[:2]) for name in pair] for pair in within_pipelines()]
    assert {one for one, _ in inside if one.startswith("data.")} == set(place)
    assert not [(one, other) for one, other in inside if place.get(other, 99) < place.get(one, -1)]


def test_no_stage_imports_a_stage() -> None:
    assert not [arrow for arrow in within_pipelines() if set(map(room, arrow)) == {"stages"}]


def test_no_circle_between_modules() -> None:
    TopologicalSorter(graph()).prepare()  # a CycleError names the modules


@pytest.mark.parametrize("package", ["stage1_vae", "stage2_latent"])
def test_the_stages_know_no_framework_and_no_file(package: str) -> None:
    for path in files(package):
        assert not tops(path) & (FRAMEWORKS | {"pathlib", "os", "shutil", "tempfile", "safetensors"}), path


def test_normflows_is_touched_in_one_file_a_stage() -> None:
    touching = {path.name for package in PACKAGES for path in files(package) if "normflows" in tops(path)}
    assert touching == {"transport.py", "flows.py"}


def test_nothing_is_ever_unpickled() -> None:
    for package in PACKAGES:
        for path in files(package):
            assert not tops(path) & {"pickle", "joblib", "dill", "shelve", "cloudpickle"}, path
            text = path.read_text()
            for unsafe in ("torch.load(", "allow_pickle=True", "yaml.load(", "yaml.unsafe_load("):
                assert unsafe not in text, f"{path}: {unsafe}"


def test_texts_reach_the_terminal_through_one_door() -> None:
    """texts.py escapes names from files before they are shown; signals.py prints only fixed texts."""
    for path in files("pipelines"):
        if path.name not in ("texts.py", "signals.py"):
            called = {
                ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
            }
            printing = {"print", "typer.echo", "typer.secho", "sys.stdout.write", "sys.stderr.write"}
            assert not called & printing, path


def test_paths_of_a_project_are_spelled_in_one_file() -> None:
    """Docstrings and messages may mention a path; a string that is a path or begins with one counts as spelled."""
    for path in set(files("pipelines")) - {REPOSITORY / "pipelines/artefacts/project.py"}:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        told = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and id(node) not in told]
        assert not [text for text in texts if re.match(r"/?(artefacts|results)(/|$)", str(text))], path
