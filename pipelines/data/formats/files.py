"""Files of a folder by the ends of their names, and the packages that only some of them need."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from postprior.pipelines.errors import UserError


def optional(module: str, extra: str, place: object) -> Any:
    """A module of an extra; a UserError says how to install it where it is not there."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(f"{place}: needs {package}, which is not installed; pip install 'postprior[{extra}]'") from None


def ends_in(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a name ends in one of these ways, in capitals or not."""
    return path.name.lower().endswith(suffixes)


def visible(folder: Path, suffixes: tuple[str, ...], deep: bool = True) -> Iterator[Path]:
    """Files of a folder, at any depth if `deep`; hidden ones, which systems and editors leave behind, are no data."""
    for path in folder.rglob("*") if deep else folder.iterdir():
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if ends_in(path, suffixes) and not hidden and not path.is_dir():
            yield path


def holds(path: Path, suffixes: tuple[str, ...], deep: bool = True) -> bool:
    """Whether a path is a folder that holds such files."""
    return path.is_dir() and any(visible(path, suffixes, deep))


def files_in(folder: Path, suffixes: tuple[str, ...], deep: bool = True, root: Path | None = None) -> list[Path]:
    """The same in alphabetical order; a link that leads out of `root`, the folder if not given, is a UserError."""
    files = sorted(visible(folder, suffixes, deep))
    for file in files:
        check_inside(file, folder if root is None else root)
    return files


def check_inside(file: Path, root: Path) -> None:
    """Refuse a file that lies, by a link or a name with .., outside of the folder `root`."""
    if not file.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{file}: leads out of {root}, expected files inside; copy it there")


def inside(folder: Path, name: str) -> Path:
    """The path of a file under a folder; a name that leads out of it is refused."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"id {name!r}: leads out of {folder.name}, expected a file name; rename the sample")
    return folder / name
