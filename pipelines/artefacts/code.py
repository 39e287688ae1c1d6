"""Hash the code of each stage, so that DVC knows which stages an edit or another version of the package makes stale.

The code of a stage is its module and all modules that it imports, directly or indirectly, at any place in a file. If
the name of an imported module is computed, all modules of its package count. The computed imports of a package count if
something other than a module is imported from it, such as `DENSITIES`.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

SILENT = ("tracking", "progress", "signals", "locks", "ranks", "errors")
"""Subpackages that show, log or stop a stage and do not affect the bytes of its results."""
PIPELINES = "postprior.pipelines"
BLOCKS = (ast.stmt, ast.excepthandler, ast.match_case)
"""Nodes that an import statement is one of, or that may contain one."""
ROOT = Path(__file__).parents[2]
"""The folder of the package `postprior`."""


def closure(module: str) -> dict[str, Path]:
    """Return the files that a module of pipelines needs, by module, and other files in the same folders by their path.

    The module has a name such as "stages.fit".
    """
    modules: dict[str, Path] = {}
    pending = [f"{PIPELINES}.{module}"]
    while pending:
        name = pending.pop()
        if name in modules or name.startswith(tuple(f"{PIPELINES}.{s}" for s in SILENT)):
            continue
        if path := _location(name):
            modules[name] = path
            pending += _imports(name)
    folders = {path.parent for path in modules.values()}
    files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
    return modules | {path.relative_to(ROOT).as_posix(): path for path in files if path.suffix not in (".py", ".pyc")}


def fingerprint(module: str, custom: Iterable[Path] = ()) -> str:
    """Return the hash of the files that a module of pipelines needs, and of files with user-defined classes."""
    digest = hashlib.sha256()
    for name, path in [*sorted(closure(module).items()), *((path.name, path) for path in custom)]:
        content = path.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def custom_code(names: Iterable[str]) -> list[Path]:
    """Return the files of user-defined classes, given by import paths of the form package.module:Name.

    Other names are skipped, and so are modules that cannot be found: the stage that imports them reports the error.
    """
    files = []
    for path in sorted({path.strip() for name in names for path in name.split(",") if ":" in path}):
        with suppress(Exception, SystemExit):  # raised when the parent package is imported
            spec = find_spec(path.partition(":")[0])
            if spec is not None and spec.origin is not None:
                files.append(Path(spec.origin))
    return files


def _location(name: str) -> Path | None:
    """Return the file of a module of postprior; None if there is no such module."""
    path = ROOT.joinpath(*name.split(".")[1:])
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.exists()), None)


def _source(name: str) -> str:
    """Return the source of a module; an empty text if there is no such module."""
    path = _location(name)
    return "" if path is None else path.read_text(encoding="utf-8")


def _nodes(source: str, kinds: tuple[type[ast.AST], ...]) -> Iterator[ast.AST]:
    """Return the nodes of some kinds within nodes of these kinds, except code under `if TYPE_CHECKING`."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if isinstance(node, kinds) and not typing_only:
                yield node
                pending.append(node)


@cache
def _imports(name: str) -> tuple[str, ...]:
    """Return the modules of postprior that a module or one of its functions imports, with their parent packages."""
    modules = [] if _is_package(name) else list(_computed_imports(name))
    for node in _nodes(_source(name), BLOCKS):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("postprior."):
            package = str(node.module)
            for module in (f"{package}.{alias.name}" for alias in node.names):
                modules += [module] if _location(module) else [package, *_computed_imports(package)]
    parents = (module.rsplit(".", depth)[0] for module in (name, *modules) for depth in range(1, module.count(".")))
    return (*modules, *dict.fromkeys(parents))


@cache
def _computed_imports(name: str) -> tuple[str, ...]:
    """Return all modules of packages from which a module imports with `import_module(f"a.package.{name}")`."""
    modules: list[str] = []
    source = _source(name)
    for node in _nodes(source, (ast.AST,)) if "import_module(" in source else ():
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "import_module":
            argument = ast.unparse(node.args[0]).replace("{__name__}", name)
            package = argument[2:].partition("{")[0].rstrip(".")
            if package.startswith("postprior.") and _is_package(package):
                folder = ROOT.joinpath(*package.split(".")[1:])
                modules += [f"{package}.{path.stem}" for path in sorted(folder.glob("[!_]*.py"))]
    return tuple(modules)


def _is_package(name: str) -> bool:
    path = _location(name)
    return path is not None and path.name == "__init__.py"
