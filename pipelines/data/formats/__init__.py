"""Kinds of files: a module each, which knows, reads and writes it, and a line in the table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import huggingface, images, nifti, npz, omics, tables
from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError


class Format(Protocol):
    """A kind of file: what it is to a reader of messages, and the facts of a modality that its writer needs."""

    ABOUT: str
    FACTS: tuple[str, ...]

    def recognises(self, path: Path) -> bool:
        """Whether a path is such a file or folder, by names alone."""

    def read(self, path: Path, roles: Roles) -> list[SourceContents]:
        """What it holds, one `SourceContents` a file or folder whose rows are matched with the others' later."""

    def write(self, samples: Samples, conversions: Sequence[Any], path: Path) -> None:
        """Write the modalities of these conversions into the file that they came from, or under a folder."""


FORMATS: dict[str, Format] = {
    "npz": npz,
    "omics": omics,
    "datasets": huggingface,
    "nifti": nifti,
    "images": images,
    "tables": tables,
}
"""Kinds of files by the name that manifests give them as `source`; the first that recognises a path reads it."""


def read_source(path: Path, roles: Roles) -> list[SourceContents]:
    """What a source holds, read by the format that recognises it."""
    if not path.exists() and not str(path).startswith(huggingface.HUB):
        raise UserError(f"{path}: there is no such file or folder; correct the path")
    if path.name in ("", ".."):  # . and .. are no names for files
        path = path.resolve()
    for format in FORMATS.values():
        if format.recognises(path):
            try:
                return format.read(path, roles)
            except UnicodeEncodeError as error:
                expected = "expected names of files in UTF-8; rename it"
                raise UserError(f"{path}: the name {error.object!r} found there, {expected}") from None
            except MemoryError:
                raise UserError(f"{path}: found more than fits into the memory; give fewer or smaller") from None
    known = ", ".join(format.ABOUT for format in FORMATS.values())
    raise UserError(f"{path}: nothing that can be read was found there, expected {known}; convert the files")


def samples_of(dataset: Dataset) -> Samples:
    """The samples of a dataset, checked: every modality has the facts that the writer of its format needs."""
    return Samples.of(dataset, {name: format.FACTS for name, format in FORMATS.items()})
