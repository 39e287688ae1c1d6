"""Files of a folder by the ends of their names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from postprior.pipelines.errors import UserError


def ends_in(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a name ends in one of these ways, in capitals or not."""
    return path.name.lower().endswith(suffixes)


def visible(folder: Path, suffixes: tuple[str, ...], deep: bool = True) -> Iterator[Path]:
    """Files of a folder, at any depth if `deep`; hidden ones, which systems and editors leave behind, are no data."""
    for path in folder.rglob("*") if deep else folder.iterdir():
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if ends_in(path, suffixes) and not hidden and not path.is_dir():
            yield path


def files_in(
    folder: Path, suffixes: tuple[str, ...], deep: bool = True, root: Path | None = None
) -> list[Path]:
    """The same in alphabetical order; a link that leads out of `root`, the folder if not given, is a UserError."""
    files = sorted(visible(folder, suffixes, deep))
    for file in files:
        check_inside(file, folder if root is None else root)
    return files


def check_inside(file: Path, root: Path) -> None:
    """Refuse a file that lies, by a link or a name with .., outside of the folder `root`."""
    if not file.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{file}: leads out of {root}, expected files inside; copy it there")
