"""Folders of images: one file per sample, and one folder per modality or class; see `layout`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.conversion import ArrayConversion
from postprior.pipelines.data.formats.contents import ArrayView, Named, Roles, SourceContents, pixel_kind
from postprior.pipelines.data.formats.file_names import NAMES, file_names
from postprior.pipelines.data.formats.files import ends_in, files_in, holds, is_hidden, visible
from postprior.pipelines.data.formats.layout import File, Layout, layout_of
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.stacking import Picture, original_file, stacked
from postprior.pipelines.data.formats.tables import write_table
from postprior.pipelines.data.names import composed
from postprior.pipelines.data.pixels.reading import SUFFIXES
from postprior.pipelines.data.pixels.writing import LOSSLESS_SUFFIXES, encoded, suffix_for
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import enumerated

ABOUT = "a folder of folders of images"
FACTS: tuple[str, ...] = ("folder", "mode", "suffix")
OPTIONS: tuple[str, ...] = ("folders", "size", "mode", "alpha", "first_frame", "nan_is_missing", "keep_rare")
CLASS, SUBJECT, SPLIT = "class", "subject", "split"
"""Names of the roles that folders have."""
IGNORED = 3  # greatest number of other files that a note names


def recognises(path: Path) -> bool:
    """Whether a path is a folder that contains images, at any depth."""
    return holds(path, SUFFIXES)


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read the modalities of a folder; rows are matched by file name, which includes the names of subfolders."""
    children = sorted(child for child in path.iterdir() if recognises(child) and not is_hidden(child.name))
    deep = [file for child in children for file in files_in(child, SUFFIXES, root=path)]
    layout = layout_of(path, [*files_in(path, SUFFIXES, deep=False), *deep], roles.folders)
    skipped = [name for name in layout.files if composed(name) in roles.skip]
    if len(skipped) == len(layout.files):
        raise UserError(f"{path}: all folders are left out, expected at least one modality; remove a --skip")
    contents = [_modality(n, files, layout, roles) for n, files in layout.files.items() if n not in skipped]
    notes = (*layout.notes, *_other_files(path))
    first = replace(contents[0], skipped=tuple(map(composed, skipped)), notes=(*notes, *contents[0].notes))
    return [first, *contents[1:]]


def _modality(name: str, files: Sequence[File], layout: Layout, roles: Roles) -> SourceContents:
    """Read the images of one modality, with the classes, subjects and splits that folders give them."""
    modality = composed(name)
    pictures = [Picture(row, file.path, str(file.path)) for row, file in enumerate(files)]
    stack = stacked(name, modality, lambda: pictures, len(files), roles)
    kind = pixel_kind(name, modality, stack.pixels, stack.axes, roles.kinds)
    paths, suffix = tuple(file.path for file in files), suffix_for(stack.reading.mode, {f.path.suffix for f in files})
    facts = {"source": "images", "folder": name, "mode": stack.reading.mode, "suffix": suffix}
    facts |= stack.facts | ({"folders": layout.kind} if layout.kind != "modalities" else {})
    exact = stack.exact & np.array([path.suffix == suffix and suffix.lower() in LOSSLESS_SUFFIXES for path in paths])
    view = ArrayView(modality, stack.pixels, stack.axes, kind, facts, files=None if exact.all() else paths, exact=exact)
    owners = [file.owner for file in files]
    named = {
        CLASS: _role(CLASS, owners if layout.kind == "classes" else [], roles.label),
        SUBJECT: _role(SUBJECT, owners if layout.kind == "subjects" else [], roles.group),
        SPLIT: _role(SPLIT, [file.split for file in files], roles.split),
    }
    return SourceContents(
        name,
        len(files),
        (view,),
        ids=(None, pa.chunked_array([[file.id for file in files]])),
        label=named[CLASS],
        group=named[SUBJECT],
        split=named[SPLIT],
        names=tuple(role for role, column in named.items() if column),
        notes=stack.notes,
    )


def _role(name: str, values: Sequence[str | None], wanted: str | None) -> Named | None:
    """Return a role that folders give to rows, unless the user names another column."""
    if wanted not in (None, name) or not any(values):
        return None
    return name, pa.chunked_array([pa.array(values, pa.string())])


def _other_files(folder: Path) -> Iterator[str]:
    """Tell which files are ignored."""
    if names := sorted(file.name for file in visible(folder, ("",)) if not ends_in(file, SUFFIXES)):
        yield f"{folder.name}: {len(names)} other files ignored: {enumerated(names, IGNORED)}"


def write(samples: Samples, conversions: Sequence[ArrayConversion], path: Path) -> None:
    """Write the observed images, named after the ids of the samples; names that differ from them are listed."""
    renamed: list[tuple[str, str]] = []
    for conversion in conversions:
        pixels, rows = samples.array(conversion), np.flatnonzero(samples.observed({conversion.name}))
        ids = _ids(samples, conversion.facts.get("folders") == "classes")
        for row, name in zip(rows, file_names([ids[row] for row in rows]), strict=True):
            content = original_file(samples.dataset, conversion, int(row))
            suffix = conversion.facts["suffix"] if content is None else _suffix(samples, conversion, int(row))
            file = path / conversion.facts["folder"] / f"{name}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded(pixels[row], suffix) if content is None else content)
            if name != ids[row]:
                renamed.append((file.relative_to(path).as_posix(), str(samples.ids[row].as_py())))
    if renamed:
        write_table(pa.table(dict(zip(("file", "id"), zip(*renamed, strict=True), strict=True))), path / NAMES)


def _ids(samples: Samples, classes: bool) -> list[str]:
    """Return ids as texts; with `classes`, ids of new samples get the folder of their class."""
    ids = [str(id) for id in samples.ids.to_pylist()]
    labels = samples.labels() if classes else None
    if labels is None:
        return ids
    folders = [None if label is None else f"{label}/" for label in labels.to_pylist()]
    return [id if folder is None or "/" in id else folder + id for id, folder in zip(ids, folders, strict=True)]


def _suffix(samples: Samples, conversion: ArrayConversion, row: int) -> str:
    """Return the suffix of a stored file."""
    source = samples.dataset.source_values[conversion.name]
    return str(source["suffix"][row].as_py() if "suffix" in source.column_names else conversion.facts["suffix"])
