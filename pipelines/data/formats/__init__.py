"""File formats: each has a module that recognises, reads and writes it, and an entry in the table `FORMATS`."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import huggingface, images, nifti, npz, omics, tables
from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError


class Format(Protocol):
    """A file format.

    `ABOUT` describes it in messages, `FACTS` are the facts about a modality that its writer needs, and `OPTIONS` are
    the fields of `Roles` that its reader uses, besides those in `NAMING`.
    """

    ABOUT: str
    FACTS: tuple[str, ...]
    OPTIONS: tuple[str, ...]

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


NAMING = (
    *("id", "label", "group", "split", "targets", "skip", "modalities", "kinds", "keep_na", "patterns", "only"),
    *("images", "ranges", "decimals", "rare_labels", "drop_constraint"),
)
"""Fields of `Roles` about columns or arrays that have a name or a role: `join` refuses those that no source has."""


def read_source(path: Path, roles: Roles) -> list[SourceContents]:
    """Read a source with the format that recognises it."""
    format = format_of(path)
    try:
        return format.read(path.resolve() if path.name in ("", "..") else path, roles)  # . and .. are not file names
    except UnicodeEncodeError as error:
        expected = "expected file names in UTF-8; rename the file"
        raise UserError(f"{path}: the file name {error.object!r} found, {expected}") from None
    except MemoryError:
        raise UserError(f"{path}: more data found than fit into memory; import fewer or smaller files") from None


def format_of(path: Path) -> Format:
    """Return the format that recognises a path."""
    if not path.exists() and not str(path).startswith(huggingface.HUB):
        raise UserError(f"{path}: no such file or folder found; correct the path")
    if (format := next((format for format in FORMATS.values() if format.recognises(path)), None)) is None:
        known = ", ".join(format.ABOUT for format in FORMATS.values())
        raise UserError(f"{path}: no data in a known format found, expected {known}; convert the files")
    return format


def check_options(sources: Sequence[Path], roles: Roles) -> None:
    """Refuse an option that no source reads."""
    formats, usual = [format_of(source) for source in sources], Roles()
    given = (field.name for field in fields(Roles) if getattr(roles, field.name) != getattr(usual, field.name))
    for option in given:
        if option not in NAMING and not any(option in format.OPTIONS for format in formats):
            readers = [format.ABOUT for format in FORMATS.values() if option in format.OPTIONS]
            found = f"{sources[0]} found, which is not read with this option"
            raise UserError(f"--{option.replace('_', '-')}: {found}, expected {' or '.join(readers)}; leave it out")


def samples_of(dataset: Dataset) -> Samples:
    """Return the samples of a dataset, after a check that each modality has the facts that its writer needs."""
    return Samples.of(dataset, {name: format.FACTS for name, format in FORMATS.items()})
