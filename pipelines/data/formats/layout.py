"""The layout of a folder of images: which of its folders are splits, modalities, classes or subjects.

photo/0.png, mask/0.png                 folders that share file names are modalities
photo/a/0.png, mask/a/0.png             folders below them are part of the ids, or the classes or subjects of --folders
cat/0.png, dog/1.png                    folders that share no file names are classes
train/cat/0.png, test/dog/1.png         folders named like splits may stand above all others
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from postprior.pipelines.data.dataset import OTHER_SPLITS, SPLITS
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import enumerated

KINDS = ("modalities", "classes", "subjects")
SHOWN = 4  # greatest number of folders that a note names
Parts = tuple[str, ...]
"""The names of folders above an image, and its own name without the suffix."""


@dataclass(frozen=True)
class File:
    """An image file, its modality and id, and the names of its split and of its class or subject, if folders say so."""

    path: Path
    modality: str
    id: str
    split: str | None
    owner: str | None


@dataclass(frozen=True)
class Layout:
    """Image files by modality, what folders are (one of `KINDS`), and lines that tell the user."""

    files: Mapping[str, tuple[File, ...]]
    kind: str
    notes: tuple[str, ...]


def layout_of(root: Path, paths: Iterable[Path], wanted: str | None) -> Layout:
    """Return the layout of the image files `paths` under `root`; ids are paths below the modality, without suffix.

    `wanted`, one of `KINDS`, says what folders are instead of their file names: the outermost ones, or those below
    modalities that share file names. With an image directly in it, `root` is one modality.
    """
    if wanted not in (None, *KINDS):
        raise UserError(f"--folders: '{wanted}' found, expected one of {', '.join(KINDS)}; correct the kind")
    places = {path: path.relative_to(root).with_suffix("").parts for path in paths}
    tops = {parts[0]: _split(parts[0]) for parts in places.values()}
    split = all(tops.values()) and min(map(len, places.values())) > 1
    above = {path: parts[:1] if split else () for path, parts in places.items()}
    below = {path: parts[len(above[path]) :] for path, parts in places.items()}
    depth = min(map(len, below.values()))
    inner, shared = _shared(above, below)
    several, kind = len(inner) > 1, wanted
    if kind is None:
        kind = "classes" if depth > 1 and several and not shared else "modalities"
    owned = kind != "modalities"
    folders = depth > 2 and (shared or not several) if owned else depth > 1
    complete = split and set(tops.values()) == set(SPLITS)
    files: dict[str, list[File]] = {}
    for path, parts in sorted(below.items()):
        name, rest = (parts[0], parts[1:]) if folders else (root.name, parts)
        owner = rest[0] if owned and len(rest) > 1 else None
        side = tops[above[path][0]] if complete else None
        files.setdefault(name, []).append(File(path, name, "/".join((*above[path], *rest)), side, owner))
    notes = [_told_splits(root, tops, complete)] if split else []
    if depth > 1 and several and wanted is None:
        notes.append(_told_kind(root, inner, kind))
    return Layout({name: tuple(found) for name, found in sorted(files.items())}, kind, tuple(notes))


def _split(name: str) -> str | None:
    """Return the split that a folder is named after."""
    plain = OTHER_SPLITS.get(name.lower(), name.lower())
    return plain if plain in SPLITS else None


def _shared(above: Mapping[Path, Parts], below: Mapping[Path, Parts]) -> tuple[Collection[str], bool]:
    """Return the names of the outermost folders, and whether two of them have an image of the same name."""
    names: dict[str, set[Parts]] = {}
    for path, parts in below.items():
        names.setdefault(parts[0], set()).add((*above[path], *parts[1:]))
    return names.keys(), len(set().union(*names.values())) < sum(map(len, names.values()))


def _told_splits(root: Path, tops: Mapping[str, str | None], complete: bool) -> str:
    names = ", ".join(sorted(tops))
    if complete:
        return f"{root.name}: the folders {names} are the splits"
    return f"{root.name}: the images of {names} are split anew; with folders train, validation and test, these are kept"


def _told_kind(root: Path, folders: Collection[str], kind: str) -> str:
    why = "share file names" if kind == "modalities" else "share no file names"
    others = " or ".join(f"--folders {other}" for other in KINDS if other != kind)
    found = f"{len(folders)} folders {why} and are {kind} ({enumerated(sorted(folders), SHOWN)})"
    return f"{root.name}: {found}; {others} reads them otherwise"
