"""The dataset folder, which holds one split; prepared, synthetic and imputed data have the same format.

manifest.json    {"format": 1, "modalities": {"m0": {"kind": "image", "shape": [3, 16, 16], …}, …},
                  "labels": {"names": ["0", …]} or null, "samples": N, "provenance": {…}}
                 and "conversion": {…} where the data were imported: see `postprior.pipelines.data.conversion`;
                 a modality whose name is no key has the name as "title": see `postprior.pipelines.data.names`
                 and "scales": {"m0": {"offset": 0, "scale": 255}, …} for integers v that are read as
                 x = (v − offset) / scale, with |x| ≤ "bound" if there is one
m0.npy …         (N, *shape), finite everywhere; missing entries hold a fill value
m0.00000.npy …   in place of m0.npy or another array of a modality: its rows in several files (see `data.shards`), whose
                 number is in the manifest, "shards": {"m0": 3, …}
m0.data.npy, m0.indices.npy, m0.indptr.npy  in place of m0.npy: a sparse vector (N, X) in compressed rows (CSR)
mask.npy         (N, M) bool, true if a modality is observed, columns in the manifest's order; absent if all are
m0.observed.npy  (N, *shape) bool, false for missing cells of an observed modality; absent if there are none
filled.npy       (N, M) bool, modalities that were imputed, wholly or in part; absent if there are none
m0.filled.npy    (N, *shape) bool, the imputed cells of a modality that had observed cells; absent if there are none
m0.source.*      original values of the source file if they cannot be decoded from the numbers; also
                 labels.source.* and targets.source.*: see `postprior.pipelines.data.source_values`
labels.npy (N,) int64, −1 for rows without a label · targets.npy (N, T) float · groups.npy (N,) · ids.npy (N,): each
                 absent if there are none
"""

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from postprior.pipelines.data.arrays import Rows, blocks
from postprior.pipelines.data.checks import check
from postprior.pipelines.data.manifest import OPTIONAL, SUMMARY, Manifest, files_of, origin_of
from postprior.pipelines.data.rows import ScaledIntegers, can_scale, load_rows, save_rows, taken
from postprior.pipelines.data.shards import LARGEST, Shards, is_stored, load_shards
from postprior.pipelines.data.source_values import SourceValues, StoredValues, save_source_values, selected
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import publish, write_text
from postprior.pipelines.settings.names import listed
from postprior.pipelines.storage import folder_hash, load_array, read_consistently
from postprior.pipelines.texts import enumerated
from postprior.stage1_vae.modalities import Batch, Modality

if TYPE_CHECKING:
    from torch import Tensor

SPLITS = ("train", "validation", "test")
OTHER_SPLITS = {"training": "train", **dict.fromkeys(("val", "valid", "dev"), "validation"), "testing": "test"}
"""Names of splits in other data sets."""
SPATIAL_KEYS = ("affine", "affines", "header", "headers", "codes", "units", "volume", "background", "backgrounds")
"""Facts that place volumes in space: they belong to the rows of an import and may differ from the training data."""


@dataclass(frozen=True)
class Dataset:
    """N samples of M modalities, with their labels, covariates, ids and origin.

    Attributes:
        modalities: the M modalities, in the order of the mask's columns.
        data: data[m] (N, *shape), the values of each modality; dense only where rows are read (see `data.rows`).
        mask: (N, M) bool, true if a modality is observed; None if all are.
        cells: cells[m] (N, *shape) bool, true if a cell is observed; only modalities with missing cells.
        labels: (N,) integers that index `label_names`, −1 for rows without a label.
        targets: (N, T).
        groups: (N,).
        ids: (N,).
        label_names: the names of the labels.
        provenance: how the dataset was made.
        folder: the folder that it was loaded from; None if it was made in memory.
        conversion: how imported values are converted back into their original units and files.
        filled: (N, M) bool, modalities that were imputed, wholly or in part.
        filled_cells: filled_cells[m] (N, *shape) bool, cells that were imputed.
        source_values: original values, by modality or role, that cannot be decoded from the numbers. An original value
            is valid as long as the number that it was converted to is unchanged.
    """

    modalities: tuple[Modality, ...]
    data: Mapping[str, Rows]
    mask: np.ndarray | None = None
    cells: Mapping[str, Rows] = field(default_factory=dict)
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    groups: np.ndarray | None = None
    ids: np.ndarray | None = None
    label_names: tuple[str, ...] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    conversion: dict[str, Any] | None = None
    filled: np.ndarray | None = None
    filled_cells: Mapping[str, Rows] = field(default_factory=dict)
    source_values: SourceValues = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.data[self.modalities[0].name])

    @property
    def observed(self) -> np.ndarray:
        """(N, M) bool: the mask, or all true if there is none."""
        return np.ones((len(self), len(self.modalities)), bool) if self.mask is None else self.mask

    @property
    def labelled(self) -> np.ndarray:
        """(N,) bool: the rows that have a label; none if there are no labels."""
        return np.zeros(len(self), bool) if self.labels is None else np.asarray(self.labels) >= 0

    @property
    def sources(self) -> np.ndarray:
        """The group of each row (N,); without groups each row is its own source."""
        return np.arange(len(self)) if self.groups is None else self.groups

    @property
    def hash(self) -> str | None:
        """The hash of the folder that the dataset was loaded from; None if it was made in memory."""
        return None if self.folder is None else folder_hash(self.folder)

    @property
    def fully_observed(self) -> np.ndarray:
        """(N, M) bool: modalities whose cells are all observed."""
        complete = self.observed.copy()
        for m, modality in enumerate(self.modalities):
            if modality.name in self.cells:
                cells = self.cells[modality.name]
                for rows in blocks(cells):
                    complete[rows, m] &= cells[rows].reshape(-1, math.prod(modality.shape)).all(1)
        return complete

    def missing(self, name: str, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """(n, *shape) bool: the missing values of a modality, at `rows` or in all rows."""
        (observed,) = self.observed[rows].T[[m.name == name for m in self.modalities]]
        shape = self.data[name].shape[1:]
        absent = np.broadcast_to((~observed).reshape(-1, *[1] * len(shape)), (len(observed), *shape))
        return absent | ~np.asarray(self.cells[name][rows]) if name in self.cells else absent

    @property
    def arrays(self) -> dict[str, Rows]:
        """The arrays that the folder contains, by name."""
        return {
            **self.data,
            **{f"{name}.observed": cells for name, cells in self.cells.items()},
            **{f"{name}.filled": cells for name, cells in self.filled_cells.items()},
            **{name: array for name in OPTIONAL if (array := getattr(self, name)) is not None},
        }

    def select(self, rows: np.ndarray) -> Self:
        """Return the samples at `rows`, copied into memory."""
        rows = np.arange(len(self))[rows]
        selection: dict[str, Any] = {
            name: None if (array := getattr(self, name)) is None else array[rows] for name in OPTIONAL
        } | {
            arrays: {name: taken(array, rows) for name, array in getattr(self, arrays).items()}
            for arrays in ("data", "cells", "filled_cells")
        }
        return replace(self, **selection, source_values=selected(self.source_values, rows), folder=None)

    def batch(self, rows: slice | np.ndarray) -> Batch:
        """Return the samples at `rows` as tensors, the input of the models."""
        data = {m.name: _tensor(self.data[m.name][rows], np.float32) for m in self.modalities}
        cells = {name: _tensor(seen[rows], bool) for name, seen in self.cells.items()}
        return Batch(data, _tensor(self.observed[rows], bool), cells)

    @property
    def _in_bytes(self) -> dict[str, ScaledIntegers]:
        """The values of the modalities that are stored as integers of one byte."""
        scaled = {name: rows for name, rows in self.data.items() if isinstance(rows, ScaledIntegers)}
        return {name: rows for name, rows in scaled.items() if rows.integers.dtype.itemsize == 1}

    @property
    def tables(self) -> dict[str, np.ndarray]:
        """The numbers (256,) that bytes stand for, float32, of each modality stored as integers of one byte."""
        return {name: rows.table for name, rows in self._in_bytes.items()}

    def stored(self, name: str, rows: slice | np.ndarray) -> "Tensor":
        """Return the values (n, *shape) of a modality: uint8 places in its table if it has one, else float32."""
        if name in self._in_bytes:
            return _tensor(self._in_bytes[name].places(rows), np.uint8)
        return _tensor(self.data[name][rows], np.float32)

    def save(self, folder: Path, inputs: Iterable[Path] = (), summary: str = "", largest: int = LARGEST) -> None:
        """Check the samples and publish them as a dataset folder, which replaces an older one of the same origin.

        `inputs` are the files or folders that the samples were made from; `summary` is the text of import.txt.
        Arrays of modalities that have more than `largest` bytes are written as shards.
        """
        check(folder, self.modalities, self.arrays, self.label_names, self.source_values.keys())
        scales = {name: rows.scale for name, rows in self.data.items() if isinstance(rows, ScaledIntegers)}
        manifest = Manifest(self.modalities, len(self), self.label_names, self.provenance, self.conversion, scales)
        with published(folder, manifest, self.arrays, self.source_values, inputs, largest) as temporary:
            if summary:
                write_text(temporary / SUMMARY, summary)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the dataset in a folder, memory-mapped; a UserError if the folder violates the format."""
        return read_consistently(folder, cls._load)

    @classmethod
    def _load(cls, folder: Path) -> Self:
        manifest = Manifest.read(folder)
        modalities, shards = manifest.modalities, manifest.shards
        cells, filled = (
            {
                m.name: load_shards(folder, name, shards)
                for m in modalities
                if is_stored(folder, name := f"{m.name}.{suffix}", shards)
            }
            for suffix in ("observed", "filled")
        )
        optional = {name: path for name in OPTIONAL if (path := folder / f"{name}.npy").exists()}
        dataset = cls(
            modalities,
            data={m.name: _load_values(folder, m, manifest) for m in modalities},
            cells=cells,
            filled_cells=filled,
            label_names=manifest.label_names,
            provenance=manifest.provenance,
            folder=folder,
            conversion=manifest.conversion,
            source_values=StoredValues(folder, manifest.samples, {m.name: m.shape[-1] for m in modalities}, shards),
            **{name: load_array(path, None) for name, path in optional.items()},
        )
        sources = dataset.source_values.keys()
        check(folder, modalities, dataset.arrays, manifest.label_names, sources, manifest.samples)
        return dataset


def _tensor(values: Rows, dtype: Any) -> "Tensor":
    """Return values as a tensor with memory of its own."""
    import torch

    return torch.from_numpy(np.require(values, dtype, ["O", "W", "E"]))


def _load_values(folder: Path, modality: Modality, manifest: Manifest) -> Rows:
    """Load the values of a modality, memory-mapped, in the form in which they are stored."""
    rows = load_rows(folder, modality.name, modality.shape[-1], np.float32, manifest.shards)
    if (scale := manifest.scales.get(modality.name)) is None:
        return rows
    if not (isinstance(rows, np.ndarray | Shards) and can_scale(rows.dtype)):
        found = f"type {rows.dtype} found for a modality with a scale"
        raise UserError(f"{folder / modality.name}.npy: {found}, expected integers of one or two bytes; import again")
    return ScaledIntegers(rows, scale)


@contextmanager
def published(
    folder: Path,
    manifest: Manifest,
    arrays: Mapping[str, Rows],
    values: SourceValues,
    inputs: Iterable[Path],
    largest: int = LARGEST,
) -> Iterator[Path]:
    """Write parts of a dataset into a temporary folder, and publish it after the block has added the rest."""
    with publish(folder, partial(files_of, origin=origin_of(manifest.provenance)), inputs) as temporary:
        shards = manifest.shards | save_source_values(temporary, values, manifest.samples, largest)
        for name, array in arrays.items():
            shards |= save_rows(temporary, name, array, sys.maxsize if name in OPTIONAL else largest)
        replace(manifest, shards=shards).write(temporary)
        yield temporary


def joined(pieces: Sequence[Dataset]) -> Dataset:
    """Return the rows of datasets that have the same arrays, one dataset after the other."""
    parts = [piece.arrays for piece in pieces]
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    first = pieces[0]
    fields: dict[str, Any] = {name: arrays[name] for name in OPTIONAL if name in arrays} | {
        "data": {name: arrays[name] for name in first.data},
        "cells": {name: arrays[f"{name}.observed"] for name in first.cells},
        "filled_cells": {name: arrays[f"{name}.filled"] for name in first.filled_cells},
    }
    return replace(first, **fields, source_values={}, folder=None)


def conformed(dataset: Dataset, modalities: Sequence[Modality], conversion: dict[str, Any] | None = None) -> Dataset:
    """Return a dataset with the `modalities` of the training data, in their order; absent ones are missing in all rows.

    A UserError is raised if a modality is unknown, differs from the training data's modality of the same name, or was
    converted differently from the `conversion` of the training data.
    """
    place = "data" if dataset.folder is None else str(dataset.folder)
    training = "the training data; import these rows with --like"
    trained, given = ((entry or {}).get("modalities", {}) for entry in (conversion, dataset.conversion))
    for name in sorted(trained.keys() & given.keys()):
        entries = [{k: side[name][k] for k in side[name] if k not in SPATIAL_KEYS} for side in (trained, given)]
        if entries[0] != entries[1]:
            found = f"modality {name} has other scales or categories"
            raise UserError(f"{place}: {found}, expected those of {training}")
    wanted = {m.name: replace(m, partial=False) for m in modalities}
    for m in dataset.modalities:
        if m.name not in wanted:
            names = listed(m.title for m in modalities)
            raise UserError(f"{place}: modality {m.title} found, expected some of {names}; leave it out or rename it")
        expected, described = (replace(x, partial=False, title="").describe() for x in (wanted[m.name], m))
        for key in {**expected, **described}:
            if expected.get(key) != described.get(key):
                pair = f"{described.get(key)} found, expected {expected.get(key)}"
                raise UserError(f"{place}: {key} of modality {m.title}: {pair} as in {training}")
    if conversion is not None:
        merged = (dataset.conversion or {}) | conversion | {"modalities": trained | given}
        dataset = replace(dataset, conversion=merged)
    if tuple(wanted.values()) == dataset.modalities:
        return dataset
    columns = {m.name: column for m, column in zip(dataset.modalities, dataset.observed.T, strict=True)}
    unobserved, zero = np.zeros(len(dataset), bool), np.float32(0)
    data = {n: dataset.data.get(n, np.broadcast_to(zero, (len(dataset), *m.shape))) for n, m in wanted.items()}
    mask = np.stack([columns.get(name, unobserved) for name in wanted], 1)
    return replace(dataset, modalities=tuple(wanted.values()), data=data, mask=mask, filled=None, filled_cells={})


def check_labels(train: Dataset, test: Dataset) -> None:
    """Check that two splits both have labels or both have none, and that label names and their order are the same."""
    if (train.labels is None) != (test.labels is None):
        without, other = (train, test) if train.labels is None else (test, train)
        remedy = "add labels.npy and the names of the labels, or remove the labels from all splits"
        raise UserError(f"{without.folder}: no labels found, but {other.folder} has labels; {remedy}")
    if train.labels is not None and not train.labelled.any():
        remedy = "label some rows, or remove the labels from all splits"
        raise UserError(f"{train.folder}: no row with a label found, expected training rows of each label; {remedy}")
    if train.label_names != test.label_names:
        found, expected = (enumerated(split.label_names or ()) for split in (test, train))
        remedy = "give all splits the same names in the same order"
        raise UserError(
            f"{test.folder}: labels named {found} found, expected {expected} as in {train.folder}; {remedy}"
        )
