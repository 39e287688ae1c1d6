"""The manifest of a dataset folder, and which files are such a folder's own."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from postprior.pipelines.data.source_values import ARRAY, TABLE
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import FORMAT, MANIFEST, check_format, manifest_in, read_json, write_json
from postprior.stage1_vae.modalities import Modality

ROWWISE = ("labels", "targets", "groups", "ids")
"""What may be known of a row beside its values."""
OPTIONAL = ("mask", "filled", *ROWWISE)
"""Arrays of the folder that may be absent, so no modality may have such a name."""


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says of a dataset; the mask's columns follow the order of the modalities."""

    modalities: tuple[Modality, ...]
    samples: int
    label_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    conversion: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write it into a folder that is yet to be published."""
        content = {
            "format": FORMAT,
            "samples": self.samples,
            "modalities": {modality.name: modality.describe() for modality in self.modalities},
            "labels": None if self.label_names is None else {"names": list(self.label_names)},
            "provenance": self.provenance,
            **({} if self.conversion is None else {"conversion": self.conversion}),
        }
        write_json(folder / MANIFEST, content, sort_keys=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """That of a folder; whatever is wrong with it is a UserError."""
        path = folder / MANIFEST
        found = read_json(path)
        check_format(path, found)
        for key, kind in (("modalities", dict), ("samples", int), ("provenance", dict)):
            if not isinstance(found.get(key), kind):
                other = type(found.get(key)).__name__ if key in found else "nothing"
                raise UserError(f"{path}: {key}: {other} found, expected {kind.__name__}; correct the manifest.")
        if not isinstance(found.get("conversion", {}), dict):
            raise UserError(f"{path}: conversion: expected an object of JSON or none; import the data again.")
        modalities = tuple(_modality(path, name, entry) for name, entry in found["modalities"].items())
        labels = found.get("labels")
        names = labels.get("names") if isinstance(labels, dict) else None
        if labels is not None and not (names and isinstance(names, list) and all(isinstance(n, str) for n in names)):
            raise UserError(f'{path}: labels: {labels!r} found, expected {{"names": ["…", …]}} or null; correct it.')
        known = None if names is None else tuple(names)
        return cls(modalities, found["samples"], known, found["provenance"], found.get("conversion"))


def _modality(path: Path, name: str, entry: Any) -> Modality:
    try:
        return Modality.from_description(name, entry)
    except KeyError as error:
        raise UserError(f"{path}: modalities: {name}: the key {error} is missing; declare it.") from None
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: modalities: {name}: {error}; correct the manifest.") from None


def conversion_in(folder: Path) -> dict[str, Any] | None:
    """The conversion of the dataset in a folder; None where it has none or there is no such folder."""
    return Manifest.read(folder).conversion if (folder / MANIFEST).exists() else None


def labelled_in(folder: Path) -> bool:
    """Whether the dataset in a folder may have labels: its manifest says no, or there is no such folder to ask."""
    return not (folder / MANIFEST).exists() or Manifest.read(folder).label_names is not None


def origin_of(provenance: Mapping[str, Any]) -> str:
    """What a dataset is, by its provenance: synthetic, imputed, rows for a model (`import --like`) or real data."""
    marks = {"imputed": "imputed", "sampler": "synthetic", "like": "rows"}
    return next((kind for mark, kind in marks.items() if mark in provenance), "real")


def files_of(folder: Path, origin: str) -> Collection[Path]:
    """The files, relative to their folder, of a dataset of this origin; none where there is no such dataset."""
    manifest = manifest_in(folder)
    modalities, provenance = manifest.get("modalities"), manifest.get("provenance")
    if not (isinstance(modalities, dict) and isinstance(provenance, dict)) or origin_of(provenance) != origin:
        return ()
    arrays = {*OPTIONAL, *(name + of for name in modalities for of in ("", ".observed", ".filled"))}
    sources = {name + of for name in (*modalities, *OPTIONAL) for of in (ARRAY, TABLE)}
    return {Path(name) for name in (MANIFEST, *(f"{name}.npy" for name in arrays), *sources)}
