"""File formats: each has a module that recognises, reads and writes it, and an entry in the table `FORMATS`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import huggingface, images, nifti, npz, omics, tables
from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError


class Format(Protocol):
    """A file format.

    `ABOUT` describes it in messages, and `FACTS` are the facts about a modality that its writer needs.
    """

    ABOUT: str
    FACTS: tuple[str, ...]

    def recognises(self, path: Path) -> bool:
        """Whether a path is a file or folder of this format, judged by names only."""

    def read(self, path: Path, roles: Roles) -> list[SourceContents]:
        """Read the contents: one `SourceContents` per file or folder; rows of several are matched later."""

    def write(self, samples: Samples, conversions: Sequence[Any], path: Path) -> None:
        """Write the modalities of these conversions into one file, or under a folder, as they were imported."""


FORMATS: dict[str, Format] = {
    "npz": npz,
    "omics": omics,
    "datasets": huggingface,
    "nifti": nifti,
    "images": images,
    "tables": tables,
}
"""File formats by their name in manifests (`source`); the first format that recognises a path reads it."""


def read_source(path: Path, roles: Roles) -> list[SourceContents]:
    """Read a source with the format that recognises it."""
    if not path.exists() and not str(path).startswith(huggingface.HUB):
        raise UserError(f"{path}: no such file or folder found; correct the path")
    if path.name in ("", ".."):  # . and .. are not file names
        path = path.resolve()
    for format in FORMATS.values():
        if format.recognises(path):
            try:
                return format.read(path, roles)
            except UnicodeEncodeError as error:
                expected = "expected file names in UTF-8; rename the file"
                raise UserError(f"{path}: the file name {error.object!r} found, {expected}") from None
            except MemoryError:
                found = "more data found than fit into memory"
                raise UserError(f"{path}: {found}; import fewer or smaller files") from None
    known = ", ".join(format.ABOUT for format in FORMATS.values())
    raise UserError(f"{path}: no data in a known format found, expected {known}; convert the files")


def samples_of(dataset: Dataset) -> Samples:
    """Return the samples of a dataset, after a check that each modality has the facts that its writer needs."""
    return Samples.of(dataset, {name: format.FACTS for name, format in FORMATS.items()})
