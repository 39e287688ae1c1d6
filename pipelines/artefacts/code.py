"""The code of each stage as a hash, so that DVC knows what an edit or another version of the package makes stale.

The import statements say what a stage runs: its module, what that imports, and so on, wherever in a file they stand. A
module that imports others of ours by computed names runs all of its folder; a package does so where names are taken
from it that are no modules, such as `DENSITIES`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
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


def own_code(names: Iterable[str]) -> list[Path]:
    """The files of classes of the user's own, named by import paths, each package.module:Name; others are left out."""
    paths = [path.partition(":")[0].strip() for name in names if ":" in name for path in name.split(",")]
    specs = [find_spec(name) for name in sorted(set(paths))]
    return [Path(spec.origin) for spec in specs if spec is not None and spec.origin is not None]


def _location(name: str) -> Path | None:
    """The file of one of our modules; None of what is none."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Modules of ours that a module imports when it or a function of it runs, with the packages that they lie in."""
    path = _location(name)
    assert path is not None
    nodes = list(_run(ast.parse(path.read_text(encoding="utf-8"))))
    found = [] if path.name == "__init__.py" else _by_computed_names(path, nodes)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("postprior."):
            package = str(node.module)
            for whole in (f"{package}.{alias.name}" for alias in node.names):
                found.append(whole if _location(whole) else package)
                if found[-1] == package:
                    found += _tabled(package)
    packages = {one.rsplit(".", depth)[0] for one in [name, *found] for depth in range(1, one.count("."))}
    return (*found, *sorted(packages))


@cache
def _tabled(package: str) -> tuple[str, ...]:
    """What a package imports by computed names."""
    path = _location(package)
    if path is None or path.name != "__init__.py":
        return ()
    return tuple(_by_computed_names(path, _run(ast.parse(path.read_text(encoding="utf-8")))))


def _by_computed_names(path: Path, nodes: Iterable[ast.AST]) -> list[str]:
    """The modules beside a file, if it calls `import_module` for some of them."""
    calls = (ast.unparse(node) for node in nodes if isinstance(node, ast.Call))
    ours = ("__name__", "postprior")
    if not any(call.startswith("import_module(") and any(name in call for name in ours) for call in calls):
        return []
    folder = ".".join(("postprior", *path.parent.relative_to(ROOT).parts))
    return [f"{folder}.{one.stem}" for one in sorted(path.parent.glob("[!_]*.py"))]


def _run(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes beneath one, but for what stands under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from _run(child)
