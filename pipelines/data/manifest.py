"""Read and write the manifest of a dataset folder, and list the files that belong to the folder."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from postprior.pipelines.data.rows import PARTS, Scale
from postprior.pipelines.data.shards import shard_files
from postprior.pipelines.data.source_values import ARRAY, SOURCE, TABLE
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import FORMAT, MANIFEST, check_format, manifest_in, read_json, write_json
from postprior.stage1_vae.modalities import Modality

ROWWISE = ("labels", "targets", "groups", "ids")
"""Arrays with one entry per row, besides the values of the modalities."""
OPTIONAL = ("mask", "filled", *ROWWISE)
"""Arrays that a folder may contain; their names are reserved, so no modality may use them."""
SUMMARY = "import.txt"
"""The file in which an import tells how it read its sources."""


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json; the columns of the mask follow the order of the modalities."""

    modalities: tuple[Modality, ...]
    samples: int
    label_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    conversion: dict[str, Any] | None = None
    scales: dict[str, Scale] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write the manifest into a folder that is not published yet."""
        content = {
            "format": FORMAT,
            "samples": self.samples,
            "modalities": {modality.name: modality.describe() for modality in self.modalities},
            "labels": None if self.label_names is None else {"names": list(self.label_names)},
            "provenance": self.provenance,
            **({"scales": {name: scale.describe() for name, scale in self.scales.items()}} if self.scales else {}),
            **({"shards": self.shards} if self.shards else {}),
            **({} if self.conversion is None else {"conversion": self.conversion}),
        }
        write_json(folder / MANIFEST, content, sort_keys=False)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the manifest of a folder; a UserError if it is missing or invalid."""
        path = folder / MANIFEST
        content = read_json(path)
        check_format(path, content)
        for key, kind in (("modalities", dict), ("samples", int), ("provenance", dict)):
            if not isinstance(content.get(key), kind):
                found = type(content.get(key)).__name__ if key in content else "nothing"
                raise UserError(f"{path}: {key}: {found} found, expected {kind.__name__}; correct the manifest")
        if not isinstance(content.get("conversion", {}), dict):
            raise UserError(f"{path}: conversion: expected a JSON object or no such key; import the data again")
        modalities = tuple(_modality(path, name, entry) for name, entry in content["modalities"].items())
        labels = content.get("labels")
        names = labels.get("names") if isinstance(labels, dict) else None
        if labels is not None and not (names and isinstance(names, list) and all(isinstance(n, str) for n in names)):
            expected = 'expected {"names": ["…", …]} or null'
            raise UserError(f"{path}: labels: {labels!r} found, {expected}; correct the manifest")
        label_names = None if names is None else tuple(names)
        scales = _scales(path, content.get("scales", {}))
        shards = _shards(path, content.get("shards", {}))
        return cls(
            modalities,
            content["samples"],
            label_names,
            content["provenance"],
            content.get("conversion"),
            scales,
            shards,
        )


def _modality(path: Path, name: str, entry: Any) -> Modality:
    try:
        return Modality.from_description(name, entry)
    except KeyError as error:
        raise UserError(f"{path}: modalities: {name}: the key {error} is missing; add it to the manifest") from None
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        raise UserError(f"{path}: modalities: {name}: {error}; correct the manifest") from None


def _scales(path: Path, entries: Any) -> dict[str, Scale]:
    try:
        return {str(name): Scale.from_description(entry) for name, entry in entries.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: scales: {error}; correct the manifest") from None


def _shards(path: Path, entries: Any) -> dict[str, int]:
    if isinstance(entries, dict) and all(type(count) is int and count > 0 for count in entries.values()):
        return entries
    raise UserError(f"{path}: shards: {entries!r} found, expected numbers of files by array; correct the manifest")


def conversion_in(folder: Path) -> dict[str, Any] | None:
    """Return the conversion of the dataset in a folder; None if it has none or the folder does not exist."""
    return Manifest.read(folder).conversion if (folder / MANIFEST).exists() else None


def labelled_in(folder: Path) -> bool:
    """Whether the dataset in a folder may have labels: false only if its manifest exists and names no labels."""
    return not (folder / MANIFEST).exists() or Manifest.read(folder).label_names is not None


def origin_of(provenance: Mapping[str, Any]) -> str:
    """Return the origin of a dataset from its provenance: synthetic, imputed, rows (`import --like`) or real."""
    marks = {"imputed": "imputed", "sampler": "synthetic", "like": "rows"}
    return next((kind for mark, kind in marks.items() if mark in provenance), "real")


def files_of(folder: Path, origin: str) -> Collection[Path]:
    """Return the files, relative to the folder, of a dataset of this origin; none if there is no such dataset."""
    manifest = manifest_in(folder)
    modalities, provenance = manifest.get("modalities"), manifest.get("provenance")
    if not (isinstance(modalities, dict) and isinstance(provenance, dict)) or origin_of(provenance) != origin:
        return ()
    arrays = {*OPTIONAL, *(name + suffix for name in modalities for suffix in ("", ".observed", ".filled"))}
    arrays |= {name + suffix + part for name in modalities for suffix in ("", SOURCE) for part in PARTS}
    sources = {name + suffix for name in (*modalities, *OPTIONAL) for suffix in (ARRAY, TABLE)}
    files = {f"{name}.npy" for name in arrays} | shard_files(_shards(folder / MANIFEST, manifest.get("shards", {})))
    return {Path(name) for name in (MANIFEST, SUMMARY, *files, *sources)}
