"""The package `postprior`: the names that it exports, the time of its import, and the files of an installation."""

from __future__ import annotations

import ast
import re
import resource
import runpy
import shutil
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from support.copied import PACKAGES, REPOSITORY, build, copy, python, run

import postprior


def test_public_names_are_those_of_their_homes() -> None:
    for name in postprior.__all__:
        assert getattr(postprior, name) is getattr(import_module(f"postprior.{postprior.HOMES[name]}"), name)
    assert set(postprior.__all__) | {"__version__"} <= set(dir(postprior))
    assert postprior.__version__[0].isdigit()
    with pytest.raises(AttributeError, match="module 'postprior' has no attribute 'Generators'"):
        _ = postprior.Generators


def test_types_are_read_where_names_are_imported_from() -> None:
    """The imports that mypy reads are the names that are exported."""
    told = {
        alias.name: f"{node.module}"
        for node in ast.walk(ast.parse((REPOSITORY / "postprior/__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom) and f"{node.module}".startswith("postprior.")
        for alias in node.names
    }
    assert told == {name: f"postprior.{home}" for name, home in postprior.HOMES.items()}


SCRIPTS = sorted([*(REPOSITORY / "docs/examples").glob("*.py"), *(REPOSITORY / "benchmarks").glob("*.py")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_import_what_is_there_and_through_the_door_where_it_has_it(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f"{node.module}".partition(".")[0] == "postprior":
            imported: dict[str, Any] = {}
            exec(compile(ast.Module([node], []), str(path), "exec"), imported)  # also what nothing has imported yet
            for alias in node.names:
                public = imported[alias.asname or alias.name] is getattr(postprior, alias.name, None)
                assert public == (node.module == "postprior"), alias.name


def seconds(*arguments: str) -> float:
    """The seconds of a processor that Python takes in a new process."""

    def taken() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = taken()
    python(*arguments)
    return taken() - before


def test_the_door_is_light() -> None:
    """The fastest of several processes, so that the load of the machine does not count."""
    bare, door, shown = (
        min(seconds(*command) for _ in range(4))
        for command in (("-c", ""), ("-c", "import postprior"), ("-m", "postprior", "--help"))
    )
    assert door - bare < 0.1
    assert shown < 0.5


@pytest.mark.parametrize("name", PACKAGES)
def test_no_module_has_two_names(name: str) -> None:
    answer = run(sys.executable, "-c", f"import {name}", folder=REPOSITORY)
    assert answer.stderr.endswith(f"ImportError: {name} cannot be imported by this name: import postprior.{name}\n")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that an installation is built from."""
    return copy(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def wheel(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", sources, tmp_path_factory.mktemp("wheel"))


def listing(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        files = archive.infolist()
    assert not [file.filename for file in files if file.external_attr >> 28 == 0o12]  # links
    return {file.filename for file in files if ".dist-info/" not in file.filename}


def test_a_wheel_holds_one_name_and_all_that_it_needs(wheel: Path) -> None:
    kinds = (".py", ".yaml", ".html", ".css", ".js", ".md")
    ours = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*") if path.suffix in kinds]
    expected = {f"postprior/{path.relative_to(REPOSITORY)}" for path in ours}
    assert listing(wheel) == expected | {f"postprior/{name}" for name in ("__init__.py", "__main__.py", "py.typed")}


def test_a_source_distribution_builds_the_same_wheel(sources: Path, wheel: Path, tmp_path: Path) -> None:
    packed = build("sdist", sources, tmp_path / "out")
    with tarfile.open(packed) as archive:
        assert all(file.isfile() or file.isdir() for file in archive)
    shutil.unpack_archive(packed, tmp_path)
    (unpacked,) = tmp_path.glob("postprior-*")
    again = build("wheel", unpacked, tmp_path / "again")
    assert again.name == wheel.name
    assert listing(again) == listing(wheel)


def test_the_readme_of_a_wheel_has_links_that_work_elsewhere(wheel: Path) -> None:
    """Without the address of a repository there are none; with one, they lead to the files of the version."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    assert "Classifier: Programming Language :: Python :: 3.11\n" in metadata
    assert "Description-Content-Type: text/markdown\n" in metadata
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    standalone = runpy.run_path(str(REPOSITORY / "setup.py"))["standalone"]
    readme = (REPOSITORY / "README.md").read_text()
    assert metadata.split("\n\n", 1)[1].strip() == standalone(readme, project).strip()
    targets = re.findall(r"\]\(([^)]+)\)", standalone(readme, project))
    assert all(target.startswith("https://") for target in targets)
    page = "[a `b`](docs/a.md#c) ![d](e.png) [f](#g) [h](https://i.org)"
    assert standalone(page, {"version": "1.0"}) == "a `b`  f [h](https://i.org)"
    address = {"urls": {"Repository": "https://i.org/j/"}}
    assert standalone(page, {"version": "1.0", **address}) == (
        "[a `b`](https://i.org/j/blob/v1.0/docs/a.md#c) ![d](https://i.org/j/raw/v1.0/e.png) "
        "[f](https://i.org/j/blob/v1.0/README.md#g) [h](https://i.org)"
    )
    assert "/blob/main/docs" in standalone(page, {"version": "1.1.dev0", **address})


def test_it_is_installed_beside_packages_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    """A folder `pipelines/` of the user is imported as such and breaks nothing."""
    site, project = tmp_path / "site", tmp_path / "project"
    for name in PACKAGES:
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("mine = True\n")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target")
    python(*pip, str(site), str(wheel), folder=tmp_path)
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"postprior", "bin"}
    assert "  generate  " in python("-m", "postprior", "--help", folder=project, path=site)
    script = f"""
import sys
import {", ".join(PACKAGES)}
from postprior import *
assert all(module.mine for module in ({", ".join(PACKAGES)}))
assert "gmm" in DENSITIES and DENSITIES["gmm"] and "mvtcae" in MODELS
ours = [module for name, module in sys.modules.items() if name.partition(".")[0] == "postprior"]
assert all(module.__file__.startswith({str(site)!r}) for module in ours), ours
"""
    python("-c", script, folder=project, path=site)
