"""The code of each stage as a hash, so that DVC knows what an edit or another version of the package makes stale.

The import statements say what a stage runs: its module, what that imports, and so on, wherever in a file they stand.
Where names are computed, all modules of the package count; in a package itself they count where something is taken
from it that is no module, such as `DENSITIES`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SILENT = ("tracking", "progress", "signals", "locks", "errors")
"""Rooms that show, log or stop what is done, and decide no byte of it."""
STAGES = "postprior.pipelines.stages"
ROOT = Path(__file__).parents[2]
"""The folder of the package `postprior`."""


def closure(stage: str) -> dict[str, Path]:
    """The files that a stage runs, by module; what lies beside them and is no Python, by its path in the package."""
    found: dict[str, Path] = {}
    left = [f"{STAGES}.{stage}"]
    while left:
        name = left.pop()
        path = _location(name)
        if name in found or path is None or name.startswith(tuple(f"postprior.pipelines.{r}" for r in SILENT)):
            continue
        found[name] = path
        left += _imports(name)
    folders = {path.parent for path in found.values()}
    beside = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    return found | {path.relative_to(ROOT).as_posix(): path for path in beside if path.suffix not in (".py", ".pyc")}


def fingerprint(stage: str, own: Iterable[Path] = ()) -> str:
    """The hash of the files that a stage runs, ours and the user's own."""
    known = hashlib.sha256()
    for name, path in [*sorted(closure(stage).items()), *((path.name, path) for path in own)]:
        content = path.read_bytes()
        known.update(f"{name} {len(content)}\n".encode() + content)
    return known.hexdigest()


def custom_code(names: Iterable[str]) -> list[Path]:
    """The files of classes of the user's own, named by import paths, each package.module:Name.

    Other names are left out, and so is what cannot be found: the stage that imports it tells why.
    """
    found = []
    for path in sorted({path.strip() for name in names for path in name.split(",") if ":" in path}):
        with suppress(Exception, SystemExit):  # of the package that it lies in
            spec = find_spec(path.partition(":")[0])
            if spec is not None and spec.origin is not None:
                found.append(Path(spec.origin))
    return found


def _location(name: str) -> Path | None:
    """The file of one of our modules; None of what is none."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def _nodes(name: str) -> tuple[ast.AST, ...]:
    """What stands in a module, but for what TYPE_CHECKING guards."""
    path = _location(name)
    return () if path is None else tuple(_run(ast.parse(path.read_text(encoding="utf-8"))))


def _run(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _run(child)


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Modules of ours that a module imports when it or a function of it runs, with the packages that they lie in."""
    found = [] if _is_package(name) else list(_by_computed_names(name))
    for node in _nodes(name):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("postprior."):
            package = str(node.module)
            for whole in (f"{package}.{alias.name}" for alias in node.names):
                found += [whole] if _location(whole) else [package, *_by_computed_names(package)]
    around = (one.rsplit(".", depth)[0] for one in (name, *found) for depth in range(1, one.count(".")))
    return (*found, *dict.fromkeys(around))


@cache
def _by_computed_names(name: str) -> tuple[str, ...]:
    """What a module imports as `import_module(f"a.package.{name}")`: all modules of the package."""
    found: list[str] = []
    for node in _nodes(name):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            spelt = ast.unparse(node.args[0]).replace("{__name__}", name)
            package = spelt[2:].partition("{")[0].rstrip(".")
            if package.startswith("postprior.") and _is_package(package):
                folder = ROOT.joinpath(*package.split(".")[1:])
                found += [f"{package}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    return tuple(found)


def _is_package(name: str) -> bool:
    path = _location(name)
    return path is not None and path.name == "__init__.py"
