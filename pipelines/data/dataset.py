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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from postprior.pipelines.data.arrays import beside
from postprior.pipelines.data.checks import check
from postprior.pipelines.data.manifest import OPTIONAL, Manifest, files_of, origin_of
from postprior.pipelines.data.source_values import SourceValues, StoredValues, save_source_values, selected
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import publish
from postprior.pipelines.storage import ArrayWriter, folder_hash, load_array, read_consistently, save_array
from postprior.stage1_vae.modalities import Batch, Modality

SPLITS = ("train", "validation", "test")
OTHER_SPLITS = {"val": "validation", "valid": "validation", "dev": "validation"}
"""As others call them."""
Write = Callable[..., None]
PLACES = ("affine", "affines", "codes", "units", "volume", "background", "backgrounds")
"""What an import knows of the space around its volumes: a matter of the rows, not of the model that they go to."""


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
        """The hash of the folder that the dataset was loaded from; None when it was made in memory."""
        return None if self.folder is None else folder_hash(self.folder)

    @property
    def whole(self) -> np.ndarray:
        """(N, M) bool: modalities that are observed in all their cells."""
        found = self.observed.copy()
        for m, modality in enumerate(self.modalities):
            if modality.name in self.cells:
                found[:, m] &= self.cells[modality.name].reshape(len(self), -1).all(1)
        return found

    def missing(self, name: str) -> np.ndarray:
        """(N, *shape) bool: the values of a modality that are not there."""
        values, (observed,) = self.data[name], self.observed.T[[m.name == name for m in self.modalities]]
        lacks = np.broadcast_to(beside(~observed, values), values.shape)
        return lacks | ~np.asarray(self.cells[name]) if name in self.cells else lacks

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of the folder by name, those that are there."""
        return {
            **self.data,
            **{f"{name}.observed": cells for name, cells in self.cells.items()},
            **{f"{name}.filled": cells for name, cells in self.filled_cells.items()},
            **{name: array for name in OPTIONAL if (array := getattr(self, name)) is not None},
        }

    def select(self, rows: np.ndarray) -> Self:
        """The samples at `rows`, copied into memory."""
        known: dict[str, Any] = {
            name: None if (array := getattr(self, name)) is None else array[rows] for name in OPTIONAL
        } | {
            arrays: {name: array[rows] for name, array in getattr(self, arrays).items()}
            for arrays in ("data", "cells", "filled_cells")
        }
        return replace(self, **known, source_values=selected(self.source_values, rows), folder=None)

    def batch(self, rows: slice | np.ndarray) -> Batch:
        """The samples at `rows` as tensors: what the models take."""
        import torch

        data = {m.name: torch.from_numpy(np.array(self.data[m.name][rows], np.float32)) for m in self.modalities}
        cells = {name: torch.from_numpy(np.array(seen[rows])) for name, seen in self.cells.items()}
        return Batch(data, torch.from_numpy(np.array(self.observed[rows])), cells)

    def save(self, folder: Path, inputs: Iterable[Path] = ()) -> None:
        """Check the samples, made from `inputs`, and publish them in place of a dataset folder of the same origin."""
        check(folder, self.modalities, self.arrays, self.label_names, self.source_values.keys())
        manifest = Manifest(self.modalities, len(self), self.label_names, self.provenance, self.conversion)
        with _published(folder, manifest, self.arrays, self.source_values, inputs):
            pass

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The dataset in a folder, memory-mapped; anything that breaks the format is a UserError."""
        return read_consistently(folder, cls._load)

    @classmethod
    def _load(cls, folder: Path) -> Self:
        manifest = Manifest.read(folder)
        modalities = manifest.modalities
        cells, filled = (
            {m.name: load_array(path) for m in modalities if (path := folder / f"{m.name}.{of}.npy").exists()}
            for of in ("observed", "filled")
        )
        optional = {name: path for name in OPTIONAL if (path := folder / f"{name}.npy").exists()}
        dataset = cls(
            modalities,
            data={m.name: load_array(folder / f"{m.name}.npy") for m in modalities},
            cells=cells,
            filled_cells=filled,
            label_names=manifest.label_names,
            provenance=manifest.provenance,
            folder=folder,
            conversion=manifest.conversion,
            source_values=StoredValues(folder, manifest.samples),
            **{name: load_array(path, mmap=False) for name, path in optional.items()},
        )
        sources = dataset.source_values.keys()
        check(folder, modalities, dataset.arrays, manifest.label_names, sources, manifest.samples)
        return dataset


@contextmanager
def _published(
    folder: Path, manifest: Manifest, arrays: Mapping[str, np.ndarray], values: SourceValues, inputs: Iterable[Path]
) -> Iterator[Path]:
    """A folder with these parts of a dataset, which is published when the block has added the others."""
    with publish(folder, partial(files_of, origin=origin_of(manifest.provenance)), inputs) as temporary:
        manifest.write(temporary)
        for name, array in arrays.items():
            save_array(temporary / f"{name}.npy", array)
        save_source_values(temporary, values, manifest.samples)
        yield temporary


def writing(
    folder: Path,
    manifest: Manifest,
    labels: bool,
    known: Mapping[str, np.ndarray] | None = None,
    inputs: Iterable[Path] = (),
    source_values: SourceValues | None = None,
) -> AbstractContextManager[Write]:
    """A dataset folder that is written in pieces, in bounded memory, and published when all rows are there.

    The block calls `write(start, data, labels)` to put rows start … start + n: data[m] (n, *shape), labels (n,) when
    the dataset has them. `known` are arrays of the folder, by name, that are there before the rows; so are
    `source_values`. `inputs` are what the rows are made from.
    """
    if manifest.samples < 1:
        expected = "expected at least one; ask for a positive number."
        raise UserError(f"{folder}: {manifest.samples} samples asked for, {expected}")
    if labels and manifest.label_names is None:
        raise ValueError("label_names: None found, expected the names of the labels that are written")
    if not labels and "labels" not in (known or {}):
        manifest = replace(manifest, label_names=None)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        **{m.name: ((manifest.samples, *m.shape), np.float32) for m in manifest.modalities},
        **({"labels": ((manifest.samples,), np.int64)} if labels else {}),
    }
    written = np.zeros(manifest.samples, bool)

    @contextmanager
    def writer() -> Iterator[Write]:
        with ExitStack() as stack:
            temporary = stack.enter_context(_published(folder, manifest, known or {}, source_values or {}, inputs))
            writers = {
                name: stack.enter_context(ArrayWriter(temporary / f"{name}.npy", shape, dtype))
                for name, (shape, dtype) in shapes.items()
            }

            def write(start: int, data: dict[str, np.ndarray], drawn: np.ndarray | None = None) -> None:
                arrays = data | ({} if drawn is None else {"labels": drawn})
                check(folder, manifest.modalities, arrays, manifest.label_names if labels else None)
                for name, writer in writers.items():
                    writer.write(start, arrays[name])
                written[start : start + len(arrays[manifest.modalities[0].name])] = True

            yield write
            if not written.all():
                raise ValueError(f"{folder}: {np.sum(~written)} of {len(written)} rows were never written")

    return writer()


def conformed(dataset: Dataset, modalities: Sequence[Modality], conversion: dict[str, Any] | None = None) -> Dataset:
    """A dataset with the `modalities` of training data in their order; those that it lacks are missing everywhere.

    A modality that is none of these, is another than that of its name, or was converted in another way than by the
    `conversion` of the training data, is refused.
    """
    place = "data" if dataset.folder is None else str(dataset.folder)
    training = "the training data; import these rows with --like"
    ours, theirs = ((of or {}).get("modalities", {}) for of in (conversion, dataset.conversion))
    for name in sorted(ours.keys() & theirs.keys()):
        entries = [{key: of[name][key] for key in of[name] if key not in PLACES} for of in (ours, theirs)]
        if entries[0] != entries[1]:
            found_there = f"modality {name} has scales or categories of its own"
            raise UserError(f"{place}: {found_there}, expected those of {training}")
    wanted = {m.name: replace(m, partial=False) for m in modalities}
    for m in dataset.modalities:
        if m.name not in wanted:
            known = ", ".join(wanted)
            raise UserError(f"{place}: modality {m.name} found, expected some of {known}; leave it out or rename it")
        expected, found = wanted[m.name].describe(), replace(m, partial=False).describe()
        for key in {**expected, **found}:
            if expected.get(key) != found.get(key):
                pair = f"{found.get(key)} found, expected {expected.get(key)}"
                raise UserError(f"{place}: {key} of modality {m.name}: {pair} as in {training}")
    if conversion is not None:
        whole = (dataset.conversion or {}) | conversion | {"modalities": ours | theirs}
        dataset = replace(dataset, conversion=whole)
    if tuple(wanted.values()) == dataset.modalities:
        return dataset
    columns = {m.name: column for m, column in zip(dataset.modalities, dataset.observed.T, strict=True)}
    nobody, nothing = np.zeros(len(dataset), bool), np.float32(0)
    data = {n: dataset.data.get(n, np.broadcast_to(nothing, (len(dataset), *m.shape))) for n, m in wanted.items()}
    mask = np.stack([columns.get(name, nobody) for name in wanted], 1)
    return replace(dataset, modalities=tuple(wanted.values()), data=data, mask=mask, filled=None, filled_cells={})


def check_labels(train: Dataset, test: Dataset) -> None:
    """Refuse labels that one of two splits has alone, and other names or another order of them."""
    if (train.labels is None) != (test.labels is None):
        without, other = (train, test) if train.labels is None else (test, train)
        remedy = "add labels.npy and the labels' names, or take them from every split."
        raise UserError(f"{without.folder}: no labels found, {other.folder} has them; {remedy}")
    if train.label_names != test.label_names:
        found, expected = (", ".join(of.label_names or ()) for of in (test, train))
        remedy = "give every split the same names in one order."
        raise UserError(
            f"{test.folder}: labels named {found} found, expected {expected} as in {train.folder}; {remedy}"
        )
