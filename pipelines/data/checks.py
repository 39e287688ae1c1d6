"""Check that a dataset is valid; arrays are read in chunks, so that a dataset larger than memory can be checked."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from postprior.pipelines.data.arrays import Rows, blocks, expand_like
from postprior.pipelines.data.manifest import OPTIONAL
from postprior.pipelines.data.rows import ScaledIntegers, SparseRows, Stored
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import MANIFEST
from postprior.stage1_vae.modalities import Modality, support

TYPES = {"f": "float", "i": "int", "u": "unsigned", "b": "bool", "U": "text", "S": "bytes"}
Arrays = Mapping[str, Rows]


def check(
    folder: Path,
    modalities: Sequence[Modality],
    arrays: Arrays,
    label_names: Sequence[str] | None,
    sources: Collection[str] = (),
    samples: int | None = None,
) -> None:
    """Raise a UserError that names the file at fault if a dataset is invalid.

    Args:
        folder: the dataset folder, named in messages.
        modalities: in the order of the mask's columns.
        arrays: all arrays of the folder, by name.
        label_names: the names of the labels, or None.
        sources: the names of modalities and roles that have source values (see `data.source_values`).
        samples: the number of rows that the manifest declares; by default that of the first array.
    """
    names = [modality.name for modality in modalities]
    _check_names(folder, names, arrays)
    samples = len(arrays[names[0]]) if samples is None else samples
    if samples < 1:
        _fail(folder / MANIFEST, f"samples: {samples} found, expected at least 1", "write at least one row")
    shapes: dict[str, tuple[tuple[int | None, ...], str]] = {
        **{m.name: ((samples, *m.shape), "fiub") for m in modalities},
        **{f"{m.name}.{suffix}": ((samples, *m.shape), "b") for m in modalities for suffix in ("observed", "filled")},
        **dict.fromkeys(("filled", "mask"), ((samples, len(names)), "b")),
        "labels": ((samples,), "iu"),
        "targets": ((samples, None), "fiub"),
        **dict.fromkeys(("groups", "ids"), ((samples,), "iuUS")),
    }
    for name, (shape, kinds) in shapes.items():
        if name in arrays:
            _check_shape(folder / f"{name}.npy", arrays[name], shape, kinds)
    _check_labels(folder, arrays.get("labels"), label_names)
    if "mask" in arrays and len(empty := np.flatnonzero(~np.asarray(arrays["mask"]).any(1))):
        expected = "expected at least one per row"
        _fail(folder / "mask.npy", f"row {empty[0]} has no observed modality, {expected}", "remove such rows")
    if "targets" in arrays and not np.isfinite(arrays["targets"]).all():
        _fail(folder / "targets.npy", "NaN or infinity found, expected finite numbers", "fill or remove such rows")
    for name in sorted({*sources} - {*names, "ids", *(arrays.keys() & {"labels", "targets"})}):
        found = f"source values found for {name}, but the dataset has no array of that name"
        _fail(folder / f"{name}.source.*", found, "remove the file")
    for column, modality in enumerate(modalities):
        _check_values(folder / f"{modality.name}.npy", modality, column, arrays)


def _fail(path: Path, found: str, remedy: str) -> NoReturn:
    raise UserError(f"{path}: {found}; {remedy}.")


def _check_names(folder: Path, names: Sequence[str], arrays: Arrays) -> None:
    if not names:
        _fail(
            folder / MANIFEST, "modalities: none found, expected at least one", "declare the modalities in the manifest"
        )
    if taken := sorted({*OPTIONAL}.intersection(names)):
        found = f"modalities: the name {taken[0]!r} is reserved for an array of the dataset format"
        _fail(folder / MANIFEST, found, "rename the modality")
    for name in names:
        if name not in arrays:
            _fail(folder / f"{name}.npy", f"the array of modality {name} is missing", "provide one array per modality")
    expected = {*OPTIONAL, *(name + suffix for name in names for suffix in ("", ".observed", ".filled"))}
    for name in sorted(arrays.keys() - expected):
        found = f"the manifest declares no modality {name}, expected one of {', '.join(names)}"
        _fail(folder / f"{name}.npy", found, "declare the modality or remove the file")


def _check_shape(path: Path, array: Rows, shape: tuple[int | None, ...], kinds: str) -> None:
    """Check shape and type; `None` in a shape stands for any length, `kinds` are the allowed values of `dtype.kind`."""
    if len(array.shape) != len(shape) or any(size not in (None, n) for size, n in zip(shape, array.shape, strict=True)):
        expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
        _fail(path, f"shape {array.shape} found, expected {expected}", "give each array one row per sample")
    if array.dtype.kind not in kinds:
        allowed = " or ".join(TYPES[kind] for kind in kinds)
        _fail(path, f"type {array.dtype} found, expected {allowed}", "convert the array and save it again")


def _check_labels(folder: Path, labels: Rows | None, names: Sequence[str] | None) -> None:
    path = folder / "labels.npy"
    if labels is None:
        if names is not None:
            found = "this file is missing, but the manifest names labels"
            _fail(path, found, "write the labels or set labels to null in the manifest")
        return
    if names is None:
        found = "labels: null found, but labels.npy exists, expected the names of the labels"
        _fail(folder / MANIFEST, found, "name the labels in the manifest")
    labels = np.asarray(labels)
    for row in np.flatnonzero((labels < -1) | (labels >= len(names)))[:1]:
        found = f"label {labels[row]} in row {row} is out of range"
        expected = f"expected 0 to {len(names) - 1}, or -1 for no label"
        _fail(path, f"{found}, {expected}", "correct the labels or name all labels in the manifest")


def _all_valid(array: ScaledIntegers | SparseRows, modality: Modality, low: float, high: float, whole: bool) -> bool:
    """Whether all values are known to be valid, observed or not, without reading dense rows."""
    if isinstance(array, SparseRows) and not array.finite:
        return False
    least, most = modality.range or (-np.inf, np.inf)
    ends = array.ends
    return max(least, low) <= ends[0] and ends[1] <= min(most, high) and (array.whole or not whole)


def _check_values(path: Path, modality: Modality, column: int, arrays: Arrays) -> None:
    """Check that all values are finite, and observed ones in the declared range and the support of the likelihood."""
    array, cells = arrays[modality.name], arrays.get(f"{modality.name}.observed")
    supports = [support(part.likelihood, part.classes) for part in modality.columns or (modality,)]
    low, high, whole = (np.array(limits) for limits in zip(*supports, strict=True))  # (J,) columns, or (1,)
    if isinstance(array, Stored) and _all_valid(array, modality, *supports[0]):
        return
    for rows in blocks(array):
        values = array[rows]
        if not (finite := np.isfinite(values)).all():
            row = rows.start + np.argwhere(~finite)[0, 0]
            remedy = "mark missing values in mask.npy and fill them with any finite number"
            _fail(path, f"NaN or infinity in row {row}, expected finite numbers", remedy)
        seen = np.ones(1, bool) if cells is None else cells[rows]
        if "mask" in arrays:
            seen = seen & expand_like(arrays["mask"][rows, column], values)
        if modality.range is not None:
            least, most = modality.range
            for where in np.argwhere(((values < least) | (values > most)) & seen)[:1]:
                found = f"value {values[tuple(where)]:g} in row {rows.start + where[0]} is outside the declared range"
                _fail(path, f"{found} {least:g} to {most:g}", "rescale the values or declare their range")
        if np.isinf(low).all():
            continue
        wrong = (values < low) | (values > high) | (whole & (values != np.rint(values)))
        for where in np.argwhere(wrong & seen)[:1]:
            column_index = where[-1] if modality.columns else 0
            name = f" of column {modality.columns[column_index].name}" if modality.columns else ""
            found = f"value {values[tuple(where)]:g}{name} in row {rows.start + where[0]} found"
            least, most, integers = supports[column_index]
            limits = f"of at least {least:g}" if np.isinf(most) else f"from {least:g} to {most:g}"
            expected = f"expected {'whole ' * integers}numbers {limits}"
            _fail(path, f"{found}, {expected}", "correct the values or the manifest")
