"""What a dataset must satisfy, read in chunks, so that a set larger than memory is checked too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import MANIFEST
from postprior.stage1_vae.modalities import support

if TYPE_CHECKING:
    from postprior.pipelines.data.dataset import Dataset
    from postprior.stage1_vae.modalities import Modality

CHUNK = 1 << 22  # values looked at together: 16 MB of float32
RESERVED = {"mask", "filled", "labels", "targets", "groups", "ids"}
"""Arrays of the folder that are no modality, so no modality may have such a name."""
ROLES = ("labels", "targets")
"""What may have source values beside the modalities."""


def check(dataset: Dataset, folder: Path, samples: int | None = None) -> None:
    """Raise a UserError that names the file of `folder` at fault, unless the dataset is sound.

    `samples` is the number that the manifest declares; without it the first modality gives the number.
    """
    _check_names(dataset, folder)
    samples = len(dataset) if samples is None else samples
    if samples < 1:
        raise UserError(
            f"{folder / MANIFEST}: samples: {samples} found, expected at least one; write some rows."
        )
    for modality in dataset.modalities:
        _check_shape(
            folder / f"{modality.name}.npy", dataset.data[modality.name], (samples, *modality.shape), "fiub"
        )
    for of, arrays in (("observed", dataset.cells), ("filled", dataset.filled_cells)):
        for name, cells in arrays.items():
            _check_shape(folder / f"{name}.{of}.npy", cells, dataset.data[name].shape, "b")
    if dataset.filled is not None:
        _check_shape(folder / "filled.npy", dataset.filled, (samples, len(dataset.modalities)), "b")
    _check_mask(dataset, folder / "mask.npy", samples)
    _check_labels(dataset, folder, samples)
    _check_covariates(dataset, folder, samples)
    there = {*dataset.data, *(role for role in ROLES if getattr(dataset, role) is not None)}
    for name in dataset.source_values.keys() - there:
        _fail(folder / f"{name}.source.*", "values of a file, but no others of that name found", "remove it")
    for column, modality in enumerate(dataset.modalities):
        _check_values(dataset, modality, column, folder / f"{modality.name}.npy")


def check_labels(train: Dataset, test: Dataset) -> None:
    """Refuse labels that one of two splits has alone, and other names or another order of them."""
    if (train.labels is None) != (test.labels is None):
        without, other = (train, test) if train.labels is None else (test, train)
        raise UserError(
            f"{without.folder}: no labels found, {other.folder} has them; "
            "add labels.npy and the labels' names, or take them from every split."
        )
    if train.label_names != test.label_names:
        found, expected = (", ".join(of.label_names or ()) for of in (test, train))
        raise UserError(
            f"{test.folder}: labels named {found} found, expected {expected} as in {train.folder}; give every split "
            "the same names in one order."
        )


def _fail(path: Path, found: str, remedy: str) -> NoReturn:
    raise UserError(f"{path}: {found}; {remedy}.")


def _check_names(dataset: Dataset, folder: Path) -> None:
    names = [modality.name for modality in dataset.modalities]
    if not names:
        _fail(folder / MANIFEST, "modalities: none found, expected at least one", "declare the modalities")
    if taken := sorted(RESERVED.intersection(names)):
        _fail(folder / MANIFEST, f"modalities: the name {taken[0]!r} is an array of the format", "rename it")
    for name in names:
        if name not in dataset.data:
            _fail(folder / f"{name}.npy", "this modality's array is missing", "give one array a modality")
    for name in (*dataset.data, *dataset.cells, *dataset.filled_cells):
        if name not in names:
            _fail(
                folder / f"{name}.npy", f"no such modality, expected one of {', '.join(names)}", "declare it"
            )


def _check_shape(path: Path, array: np.ndarray, shape: tuple[int | None, ...], kinds: str) -> None:
    """`None` in a shape stands for any length; `kinds` are the allowed characters of `dtype.kind`."""
    expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    same = array.ndim == len(shape) and all(
        size in (None, n) for size, n in zip(shape, array.shape, strict=True)
    )
    if not same:
        _fail(path, f"shape {array.shape} found, expected {expected}", "give every array one row a sample")
    if array.dtype.kind not in kinds:
        names = {"f": "float", "i": "int", "u": "unsigned", "b": "bool", "U": "text", "S": "bytes"}
        allowed = " or ".join(names[kind] for kind in kinds)
        _fail(path, f"type {array.dtype} found, expected {allowed}", "convert the array before it is saved")


def _check_mask(dataset: Dataset, path: Path, samples: int) -> None:
    if dataset.mask is None:
        return
    _check_shape(path, dataset.mask, (samples, len(dataset.modalities)), "b")
    empty = np.flatnonzero(~dataset.mask.any(1))
    if len(empty):
        _fail(path, f"row {empty[0]} has no observed modality, expected at least one a row", "drop such rows")


def _check_labels(dataset: Dataset, folder: Path, samples: int) -> None:
    labels, names, path = dataset.labels, dataset.label_names, folder / "labels.npy"
    if labels is None and names is None:
        return
    if labels is None:
        _fail(path, "missing, though the manifest names labels", "write the labels or declare labels null")
    if names is None:
        _fail(
            folder / MANIFEST, "labels: null found beside labels.npy, expected their names", "name the labels"
        )
    _check_shape(path, labels, (samples,), "iu")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(wrong):
        found = f"label {labels[wrong[0]]} in row {wrong[0]} is out of range, expected 0 to {len(names) - 1}"
        _fail(path, found, "correct the labels or name them all in the manifest")


def _check_covariates(dataset: Dataset, folder: Path, samples: int) -> None:
    if dataset.targets is not None:
        _check_shape(folder / "targets.npy", dataset.targets, (samples, None), "fiub")
        if not np.isfinite(dataset.targets).all():
            _fail(
                folder / "targets.npy",
                "NaN or infinity found, expected finite numbers",
                "fill or drop such rows",
            )
    for name, array in (("groups", dataset.groups), ("ids", dataset.ids)):
        if array is not None:
            _check_shape(folder / f"{name}.npy", array, (samples,), "iuUS")


def _chunks(array: np.ndarray) -> Iterator[slice]:
    step = max(1, CHUNK // max(1, int(np.prod(array.shape[1:]))))
    for start in range(0, len(array), step):
        yield slice(start, start + step)


def _check_values(dataset: Dataset, modality: Modality, column: int, path: Path) -> None:
    """Finite everywhere; inside the declared range and possible under the likelihood wherever observed."""
    array, cells = dataset.data[modality.name], dataset.cells.get(modality.name)
    of = modality.columns or (modality,)
    supports = [support(each.likelihood, each.classes) for each in of]
    low, high, whole = (np.array(limits) for limits in zip(*supports, strict=True))  # (J,) columns, or (1,)
    for rows in _chunks(array):
        values = array[rows]
        finite = np.isfinite(values)
        if not finite.all():
            row = rows.start + np.argwhere(~finite)[0, 0]
            remedy = "mark what is missing in mask.npy and fill it with any finite number"
            _fail(path, f"NaN or infinity in row {row}, expected finite numbers", remedy)
        seen = np.ones(1, bool) if cells is None else cells[rows]
        if dataset.mask is not None:
            seen = seen & dataset.mask[rows, column].reshape(-1, *[1] * len(modality.shape))
        if modality.range is not None:
            least, most = modality.range
            for where in np.argwhere(((values < least) | (values > most)) & seen)[:1]:
                found = f"value {values[tuple(where)]:g} in row {rows.start + where[0]} is outside the declared range"
                _fail(path, f"{found} {least:g} to {most:g}", "rescale the values or declare their range")
        if np.isinf(low).all():
            continue
        wrong = (values < low) | (values > high) | (whole & (values != np.rint(values)))
        for where in np.argwhere(wrong & seen)[:1]:
            place = where[-1] if modality.columns else 0
            name = f" of column {modality.columns[place].name}" if modality.columns else ""
            found = f"value {values[tuple(where)]:g}{name} in row {rows.start + where[0]}"
            _fail(path, f"{found}, expected {_words(*supports[place])}", "correct the values or the manifest")


def _words(low: float, high: float, whole: bool) -> str:
    """A support in words."""
    numbers = "whole numbers" if whole else "numbers"
    return f"{numbers} of at least {low:g}" if np.isinf(high) else f"{numbers} from {low:g} to {high:g}"
