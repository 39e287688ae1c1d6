"""The dataset folder: one split, one folder, the same for prepared, synthetic and imputed data.

manifest.json    {"format": 1, "modalities": {"m0": {"kind": "image", "shape": [3, 16, 16], …}, …},
                  "labels": {"names": ["0", …]} or null, "samples": N, "provenance": {…}}
                 and "conversion": {…} where the data were imported: see `postprior.pipelines.data.conversion`
m0.npy …         (N, *shape), finite everywhere; missing entries hold a fill value
mask.npy         (N, M) bool, columns in the manifest's order; absent when everything is observed
m0.observed.npy  (N, *shape) bool, missing cells inside an observed modality; absent when there are none
filled.npy       (N, M) bool, values that were imputed, wholly or in part; absent when none was
m0.filled.npy    (N, *shape) bool, the imputed cells of a modality that had others observed; absent when there are none
m0.source.*      values as the file has them, where m0.npy cannot give them back, .npy or .parquet, and
                 labels.source.*, targets.source.*: see `postprior.pipelines.data.source_values`; absent where it can
labels.npy (N,) int64 · targets.npy (N, T) float · groups.npy (N,) · ids.npy (N,): absent when there are none
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.data.checks import check
from postprior.pipelines.data.source_values import (
    ARRAY,
    TABLE,
    SourceValues,
    StoredValues,
    save_source_values,
    selected,
)
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import publish
from postprior.pipelines.storage import (
    FORMAT,
    MANIFEST,
    ArrayWriter,
    check_format,
    folder_hash,
    load_array,
    manifest_in,
    read_json,
    save_array,
    undisturbed,
    write_json,
)
from postprior.stage1_vae.modalities import Modality

if TYPE_CHECKING:
    from postprior.stage1_vae.modalities import Batch

SPLITS = ("train", "validation", "test")
OTHER_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}
"""As others call them."""
ROWWISE = ("labels", "targets", "groups", "ids")
"""What may be known of a row beside its values."""
PLACES = ("affine", "affines", "codes", "units", "volume", "background", "backgrounds")
"""What an import knows of the space around its volumes: a matter of the rows, not of the model that they go to."""
OPTIONAL = ("mask", "filled", *ROWWISE)
"""Arrays of the folder that may be absent, each a field of a dataset."""


@dataclass(frozen=True)
class Dataset:
    """N samples of M modalities, with whatever is known about them.

    data[m] (N, *shape), mask (N, M) bool or None, cells[m] (N, *shape) bool, labels (N,) integers that index
    `label_names`, targets (N, T), groups (N,), ids (N,); filled (N, M) and filled_cells[m] (N, *shape) bool mark what
    was imputed. `conversion` says how imported values go back into the units and files that they came from, and
    `source_values` are these as the files had them, by modality or role, where numbers cannot give them back. One of
    them counts as long as the number stands that it was converted to.
    """

    modalities: tuple[Modality, ...]
    data: dict[str, np.ndarray]
    mask: np.ndarray | None = None
    cells: dict[str, np.ndarray] = field(default_factory=dict)
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None
    ids: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    conversion: dict[str, Any] | None = None
    filled: np.ndarray | None = None
    filled_cells: dict[str, np.ndarray] = field(default_factory=dict)
    source_values: SourceValues = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.data[self.modalities[0].name])

    @property
    def observed(self) -> np.ndarray:
        """(N, M) bool: the mask, or all true without one."""
        return np.ones((len(self), len(self.modalities)), bool) if self.mask is None else self.mask

    @property
    def sources(self) -> np.ndarray:
        """The group of each row (N,), its own where it has none."""
        return np.arange(len(self)) if self.groups is None else self.groups

    @property
    def hash(self) -> str | None:
        """The hash of the folder that this dataset was loaded from; None when it was made in memory."""
        return None if self.folder is None else folder_hash(self.folder)

    def select(self, rows: np.ndarray) -> Dataset:
        """The samples at `rows`, copied into memory."""

        def at_rows(array: np.ndarray | None) -> Any:
            return None if array is None else array[rows]

        def each_at_rows(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {name: array[rows] for name, array in arrays.items()}

        known: dict[str, Any] = {name: at_rows(getattr(self, name)) for name in OPTIONAL}
        for arrays in ("data", "cells", "filled_cells"):
            known[arrays] = each_at_rows(getattr(self, arrays))
        return replace(self, **known, source_values=selected(self.source_values, rows), folder=None)

    def batch(self, rows: slice | np.ndarray) -> Batch:
        """The samples at `rows` as tensors: what the models take."""
        import torch

        from postprior.stage1_vae.modalities import Batch

        data = {
            m.name: torch.from_numpy(np.array(self.data[m.name][rows], np.float32)) for m in self.modalities
        }
        cells = {name: torch.from_numpy(np.array(seen[rows])) for name, seen in self.cells.items()}
        return Batch(data, torch.from_numpy(np.array(self.observed[rows])), cells)

    def save(self, folder: Path, inputs: Iterable[Path] = ()) -> None:
        """Check the samples and publish them as a dataset folder, in place of one of the same origin.

        `inputs` are the files and folders that they come from.
        """
        check(self, folder)
        with publish(folder, partial(files_of, origin=origin_of(self.provenance)), inputs) as temporary:
            for name, array in self.data.items():
                save_array(temporary / f"{name}.npy", array)
            for name, array in self.cells.items():
                save_array(temporary / f"{name}.observed.npy", array)
            for name, array in self.filled_cells.items():
                save_array(temporary / f"{name}.filled.npy", array)
            for name in OPTIONAL:
                if (array := getattr(self, name)) is not None:
                    save_array(temporary / f"{name}.npy", array)
            save_source_values(temporary, self.source_values, len(self))
            _write_manifest(
                temporary, self.modalities, len(self), self.label_names, self.provenance, self.conversion
            )

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """The dataset in a folder, memory-mapped; anything that breaks the format is a UserError."""
        return undisturbed(folder, cls._load)

    @classmethod
    def _load(cls, folder: Path) -> Dataset:
        manifest = _read_manifest(folder)
        modalities = _read_modalities(folder / MANIFEST, manifest["modalities"])
        optional = {
            name: load_array(path, mmap=False) if (path := folder / f"{name}.npy").exists() else None
            for name in OPTIONAL
        }
        cells, filled = (
            {m.name: load_array(path) for m in modalities if (path := folder / f"{m.name}.{of}.npy").exists()}
            for of in ("observed", "filled")
        )
        dataset = cls(
            modalities,
            data={m.name: load_array(folder / f"{m.name}.npy") for m in modalities},
            cells=cells,
            filled_cells=filled,
            label_names=_read_label_names(folder / MANIFEST, manifest.get("labels")),
            provenance=manifest["provenance"],
            folder=folder,
            conversion=manifest.get("conversion"),
            source_values=StoredValues(folder, manifest["samples"]),
            **optional,
        )
        check(dataset, folder, manifest["samples"])
        return dataset


class DatasetWriter:
    """A dataset folder that is written in pieces, in bounded memory, and published when all rows are there.

    with DatasetWriter(folder, modalities, samples, label_names, provenance, labels=True) as writer:
        for start, data, labels in blocks:
            writer.write(start, data, labels)

    `known` are arrays of the folder, by name, that are there before the rows; so are `source_values`. `inputs` are what
    the rows are made from.
    """

    def __init__(
        self,
        folder: Path,
        modalities: tuple[Modality, ...],
        samples: int,
        label_names: tuple[str, ...] | None,
        provenance: dict[str, Any],
        labels: bool,
        conversion: dict[str, Any] | None = None,
        known: Mapping[str, np.ndarray] | None = None,
        inputs: Iterable[Path] = (),
        source_values: SourceValues | None = None,
    ) -> None:
        if samples < 1:
            raise UserError(
                f"{folder}: {samples} samples asked for, expected at least one; ask for a positive number."
            )
        if labels and label_names is None:
            raise ValueError("label_names: None found, expected the names of the labels that are written")
        self.folder, self.modalities, self.samples = Path(folder), modalities, samples
        self.provenance, self.conversion, self.known = provenance, conversion, dict(known or {})
        self.source_values = source_values or {}
        self.label_names, self.labelled = label_names if labels or "labels" in self.known else None, labels
        self._inputs = tuple(inputs)
        self._written = np.zeros(samples, bool)

    def __enter__(self) -> DatasetWriter:
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            m.name: (m.shape, np.float32) for m in self.modalities
        }
        if self.labelled:
            shapes["labels"] = ((), np.int64)
        with ExitStack() as stack:  # undoes what was opened if the rest cannot be
            ours = partial(files_of, origin=origin_of(self.provenance))
            temporary = stack.enter_context(publish(self.folder, ours, self._inputs))
            _write_manifest(
                temporary, self.modalities, self.samples, self.label_names, self.provenance, self.conversion
            )
            for name, array in self.known.items():
                save_array(temporary / f"{name}.npy", array)
            save_source_values(temporary, self.source_values, self.samples)
            self._arrays = {
                name: stack.enter_context(
                    ArrayWriter(temporary / f"{name}.npy", (self.samples, *shape), dtype)
                )
                for name, (shape, dtype) in shapes.items()
            }
            self._stack = stack.pop_all()
        return self

    def write(self, start: int, data: dict[str, np.ndarray], labels: np.ndarray | None = None) -> None:
        """Put rows start … start + n: data[m] (n, *shape), labels (n,) when the dataset has them."""
        names = self.label_names if self.labelled else None
        block = Dataset(self.modalities, data, labels=labels, label_names=names)
        check(block, self.folder)
        for name, writer in self._arrays.items():
            writer.write(start, labels if name == "labels" and labels is not None else data[name])
        self._written[start : start + len(block)] = True

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is None and not self._written.all():
            error = ValueError(
                f"{self.folder}: {np.sum(~self._written)} of {self.samples} rows were never written"
            )
            self._stack.__exit__(ValueError, error, None)
            raise error
        self._stack.__exit__(kind, error, traceback)


def conformed(
    dataset: Dataset, modalities: Sequence[Modality], conversion: dict[str, Any] | None = None
) -> Dataset:
    """A dataset with the modalities of training data in their order; those that it has not got are missing everywhere.

    Args:
        dataset: rows with some or all of the modalities.
        modalities: those of the training data.
        conversion: how the training data were imported, if they were.

    Raises:
        UserError: it has a modality that is none of these, is another one than that of its name, or was converted in
            another way.
    """
    place = "data" if dataset.folder is None else str(dataset.folder)
    ours, theirs = ((of or {}).get("modalities", {}) for of in (conversion, dataset.conversion))
    for name in sorted(ours.keys() & theirs.keys()):
        if _unplaced(ours[name]) != _unplaced(theirs[name]):
            raise UserError(
                f"{place}: modality {name} has scales or categories of its own, expected those of the training data; "
                "import these rows with --like"
            )
    wanted = {m.name: replace(m, partial=False) for m in modalities}
    for m in dataset.modalities:
        if m.name not in wanted:
            raise UserError(
                f"{place}: modality {m.name} found, expected some of {', '.join(wanted)}; leave it out or rename it"
            )
        if (expected := wanted[m.name].describe()) != (found := replace(m, partial=False).describe()):
            key = next(key for key in {**expected, **found} if expected.get(key) != found.get(key))
            raise UserError(
                f"{place}: {key} of modality {m.name}: {found.get(key)} found, expected {expected.get(key)} as in the "
                "training data; import these rows with --like"
            )
    if conversion is not None:
        whole = {**(dataset.conversion or {}), **conversion, "modalities": {**ours, **theirs}}
        dataset = replace(dataset, conversion=whole)
    if tuple(wanted.values()) == dataset.modalities:
        return dataset
    columns = {m.name: column for m, column in zip(dataset.modalities, dataset.observed.T, strict=True)}
    nobody = np.zeros(len(dataset), bool)
    return replace(
        dataset,
        modalities=tuple(wanted.values()),
        data={
            name: dataset.data.get(name, np.broadcast_to(np.float32(0), (len(dataset), *m.shape)))
            for name, m in wanted.items()
        },
        mask=np.stack([columns.get(name, nobody) for name in wanted], 1),
        filled=None,
        filled_cells={},
    )


def _unplaced(entry: dict[str, Any]) -> dict[str, Any]:
    """A modality's conversion without what may differ from import to import."""
    return {key: value for key, value in entry.items() if key not in PLACES}


def _write_manifest(
    folder: Path,
    modalities: tuple[Modality, ...],
    samples: int,
    label_names: tuple[str, ...] | None,
    provenance: dict[str, Any],
    conversion: dict[str, Any] | None,
) -> None:
    manifest = {
        "format": FORMAT,
        "samples": samples,
        "modalities": {modality.name: modality.describe() for modality in modalities},
        "labels": None if label_names is None else {"names": list(label_names)},
        "provenance": provenance,
        **({} if conversion is None else {"conversion": conversion}),
    }
    write_json(
        folder / MANIFEST, manifest, sort_keys=False
    )  # the mask's columns follow the modalities' order


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    manifest = read_json(path)
    check_format(path, manifest)
    for key, kind in (("modalities", dict), ("samples", int), ("provenance", dict)):
        if not isinstance(manifest.get(key), kind):
            found = type(manifest.get(key)).__name__ if key in manifest else "nothing"
            raise UserError(f"{path}: {key}: {found} found, expected {kind.__name__}; correct the manifest.")
    if not isinstance(manifest.get("conversion", {}), dict):
        raise UserError(f"{path}: conversion: expected an object of JSON or none; import the data again.")
    return manifest


def origin_of(provenance: Mapping[str, Any]) -> str:
    """What a dataset is, by its provenance: synthetic, imputed, rows for a model (`import --like`) or real data."""
    marks = {"imputed": "imputed", "sampler": "synthetic", "like": "rows"}
    return next((kind for mark, kind in marks.items() if mark in provenance), "real")


def files_of(folder: Path, origin: str) -> Collection[Path]:
    """The files, relative to their folder, of a dataset of this origin; none where there is no such dataset."""
    manifest = manifest_in(folder)
    modalities, provenance = manifest.get("modalities"), manifest.get("provenance")
    if (
        not isinstance(modalities, dict)
        or not isinstance(provenance, dict)
        or origin_of(provenance) != origin
    ):
        return ()
    arrays = {*OPTIONAL, *(name + of for name in modalities for of in ("", ".observed", ".filled"))}
    sources = {name + of for name in (*modalities, *OPTIONAL) for of in (ARRAY, TABLE)}
    return {Path(name) for name in (MANIFEST, *(f"{name}.npy" for name in arrays), *sources)}


def conversion_in(folder: Path) -> dict[str, Any] | None:
    """The conversion of the dataset in a folder; None where it has none or there is no such folder."""
    return _read_manifest(folder).get("conversion") if (folder / MANIFEST).exists() else None


def labelled_in(folder: Path) -> bool:
    """Whether the dataset in a folder may have labels: its manifest says no, or there is no such folder to ask."""
    return not (folder / MANIFEST).exists() or _read_manifest(folder).get("labels") is not None


def _read_modalities(path: Path, entries: dict[str, Any]) -> tuple[Modality, ...]:
    modalities = []
    for name, entry in entries.items():
        try:
            modalities.append(Modality.from_description(name, entry))
        except KeyError as error:
            raise UserError(f"{path}: modalities: {name}: the key {error} is missing; declare it.") from None
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            raise UserError(f"{path}: modalities: {name}: {error}; correct the manifest.") from None
    return tuple(modalities)


def _read_label_names(path: Path, labels: Any) -> tuple[str, ...] | None:
    if labels is None:
        return None
    names = labels.get("names") if isinstance(labels, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            f'{path}: labels: {labels!r} found, expected {{"names": ["…", …]}} or null; correct it.'
        )
    return tuple(names)
