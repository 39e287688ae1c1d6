"""Foreign data: a table of sources, each a pair of functions that know and read one kind of file.

`recognises(path)` looks at names alone. `read(path, roles)` returns what the source holds, one `Found` a file or folder
whose rows are matched with the others' later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from postprior.pipelines.data.importers.found import Found, Roles
from postprior.pipelines.data.importers.huggingface import HUB, is_datasets, read_datasets
from postprior.pipelines.data.importers.images import is_images, read_images
from postprior.pipelines.data.importers.nifti import is_nifti, read_nifti
from postprior.pipelines.data.importers.npz import is_npz, read_npz
from postprior.pipelines.data.importers.omics import is_omics, read_omics
from postprior.pipelines.data.importers.tables import is_table, read_tables
from postprior.pipelines.errors import UserError


class Importer(NamedTuple):
    """A source: what it is to a reader of messages, and its two functions."""

    about: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Roles], list[Found]]


IMPORTERS: dict[str, Importer] = {
    "npz": Importer("an .npz archive", is_npz, read_npz),
    "omics": Importer("an .h5ad or .h5mu file", is_omics, read_omics),
    "datasets": Importer("a data set of Hugging Face", is_datasets, read_datasets),
    "nifti": Importer("a folder of .nii or .nii.gz volumes", is_nifti, read_nifti),
    "images": Importer("a folder of folders of .png or .jpg images", is_images, read_images),
    "tables": Importer("a .csv, .tsv or .parquet table or a folder of them", is_table, read_tables),
}
"""Sources by the name that manifests give them, the first that recognises a path reads it."""


def read_source(path: Path, roles: Roles) -> list[Found]:
    """What a source holds, read by the importer that recognises it."""
    if not path.exists() and not str(path).startswith(HUB):
        raise UserError(f"{path}: there is no such file or folder; correct the path")
    if path.name in ("", ".."):  # . and .. are no names for files
        path = path.resolve()
    for importer in IMPORTERS.values():
        if importer.recognises(path):
            try:
                return importer.read(path, roles)
            except UnicodeEncodeError as error:
                raise UserError(
                    f"{path}: the name {error.object!r} found there, expected names of files in UTF-8; rename it"
                ) from None
            except MemoryError:
                raise UserError(
                    f"{path}: found more than fits into the memory; give fewer or smaller"
                ) from None
    known = ", ".join(importer.about for importer in IMPORTERS.values())
    raise UserError(f"{path}: nothing that can be read was found there, expected {known}; convert the files")
