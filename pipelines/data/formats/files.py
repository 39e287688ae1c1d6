"""List files of a folder by suffix, check that they lie inside it, and import packages that only some formats need."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa

from postprior.pipelines.errors import UserError

SYSTEM = ("__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "icon\r")
"""Names, in lower case, of files and folders of operating systems."""


def optional(module: str, extra: str, place: object) -> Any:
    """Import a module of an extra; if it is not installed, a UserError says how to install it."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        remedy = f"install it with: pip install 'postprior[{extra}]'"
        raise UserError(f"{place}: this needs {package}, which is not installed; {remedy}") from None


def ends_in(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file name has one of these suffixes, regardless of case."""
    return path.name.lower().endswith(suffixes)


def is_hidden(name: str) -> bool:
    """Whether a file or folder was left behind by a system or an editor."""
    return name.startswith(".") or name.lower() in SYSTEM


def visible(folder: Path, suffixes: tuple[str, ...], deep: bool = True) -> Iterator[Path]:
    """Yield the files of a folder with these suffixes, at any depth if `deep`.

    Hidden files, which systems and editors leave behind, are ignored.
    """
    for path in folder.rglob("*") if deep else folder.iterdir():
        hidden = any(map(is_hidden, path.relative_to(folder).parts))
        if ends_in(path, suffixes) and not hidden and not path.is_dir():
            yield path


def holds(path: Path, suffixes: tuple[str, ...], deep: bool = True) -> bool:
    """Whether a path is a folder that contains visible files with these suffixes."""
    return path.is_dir() and any(visible(path, suffixes, deep))


def files_in(folder: Path, suffixes: tuple[str, ...], deep: bool = True, root: Path | None = None) -> list[Path]:
    """Return the visible files in alphabetical order; a link must not lead out of `root` (by default the folder)."""
    files = sorted(visible(folder, suffixes, deep))
    for file in files:
        check_inside(file, folder if root is None else root)
    return files


def check_inside(file: Path, root: Path) -> None:
    """Refuse a file that lies outside the folder `root`, because of a link or a name with `..`."""
    if not file.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{file}: this link leads out of {root}, expected files inside it; copy the file there")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file under a folder; a UserError if the name leads out of it."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        expected = "expected a file name; rename the sample"
        raise UserError(f"id {name!r}: this path leads out of {folder.name}, {expected}")
    return folder / name


def stored_files(files: Sequence[Path | bytes | None], suffix: str) -> pa.Table:
    """Return the contents of files in a column `file`, and their suffixes if one of them is not `suffix`."""
    contents = (file.read_bytes() if isinstance(file, Path) else file for file in files)
    columns = {"file": pa.array(contents, pa.binary())}
    if any(isinstance(file, Path) and file.suffix != suffix for file in files):
        columns["suffix"] = pa.array([file.suffix if isinstance(file, Path) else None for file in files])
    return pa.table(columns)
