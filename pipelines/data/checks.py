"""What a dataset must satisfy, read in chunks, so that a set larger than memory is checked too."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np

from postprior.pipelines.data.arrays import Values, blocks, expand_like
from postprior.pipelines.data.manifest import OPTIONAL
from postprior.pipelines.errors import UserError
from postprior.pipelines.storage import MANIFEST
from postprior.stage1_vae.modalities import Modality, support

TYPES = {"f": "float", "i": "int", "u": "unsigned", "b": "bool", "U": "text", "S": "bytes"}
Arrays = Mapping[str, Values]


def check(
    folder: Path,
    modalities: Sequence[Modality],
    arrays: Arrays,
    label_names: Sequence[str] | None,
    sources: Collection[str] = (),
    samples: int | None = None,
) -> None:
    """Raise a UserError that names the file of `folder` at fault, unless a dataset is sound.

    Modalities are in the order of the mask's columns; `arrays` are all of the folder by name, `sources` the names of
    what has values as its file had them, `samples` the number that the manifest declares, or that of the first array.
    """
    names = [modality.name for modality in modalities]
    _check_names(folder, names, arrays)
    samples = len(arrays[names[0]]) if samples is None else samples
    if samples < 1:
        _fail(folder / MANIFEST, f"samples: {samples} found, expected at least one", "write some rows")
    shapes: dict[str, tuple[tuple[int | None, ...], str]] = {
        **{m.name: ((samples, *m.shape), "fiub") for m in modalities},
        **{f"{m.name}.{of}": ((samples, *m.shape), "b") for m in modalities for of in ("observed", "filled")},
        **dict.fromkeys(("filled", "mask"), ((samples, len(names)), "b")),
        "labels": ((samples,), "iu"),
        "targets": ((samples, None), "fiub"),
        **dict.fromkeys(("groups", "ids"), ((samples,), "iuUS")),
    }
    for name, (shape, kinds) in shapes.items():
        if name in arrays:
            _check_shape(folder / f"{name}.npy", arrays[name], shape, kinds)
    _check_labels(folder, arrays.get("labels"), label_names)
    if "mask" in arrays and len(empty := np.flatnonzero(~arrays["mask"].any(1))):
        expected = "expected at least one a row"
        _fail(folder / "mask.npy", f"row {empty[0]} has no observed modality, {expected}", "drop such rows")
    if "targets" in arrays and not np.isfinite(arrays["targets"]).all():
        _fail(folder / "targets.npy", "NaN or infinity found, expected finite numbers", "fill or drop such rows")
    for name in sorted({*sources} - {*names, *(arrays.keys() & {"labels", "targets"})}):
        _fail(folder / f"{name}.source.*", "values of a file, but no others of that name found", "remove it")
    for column, modality in enumerate(modalities):
        _check_values(folder / f"{modality.name}.npy", modality, column, arrays)


def _fail(path: Path, found: str, remedy: str) -> NoReturn:
    raise UserError(f"{path}: {found}; {remedy}.")


def _check_names(folder: Path, names: Sequence[str], arrays: Arrays) -> None:
    if not names:
        _fail(folder / MANIFEST, "modalities: none found, expected at least one", "declare the modalities")
    if taken := sorted({*OPTIONAL}.intersection(names)):
        _fail(folder / MANIFEST, f"modalities: the name {taken[0]!r} is an array of the format", "rename it")
    for name in names:
        if name not in arrays:
            _fail(folder / f"{name}.npy", "this modality's array is missing", "give one array a modality")
    known = {*OPTIONAL, *(name + of for name in names for of in ("", ".observed", ".filled"))}
    for name in sorted(arrays.keys() - known):
        _fail(folder / f"{name}.npy", f"no such modality, expected one of {', '.join(names)}", "declare it")


def _check_shape(path: Path, array: Values, shape: tuple[int | None, ...], kinds: str) -> None:
    """`None` in a shape stands for any length; `kinds` are the allowed characters of `dtype.kind`."""
    if len(array.shape) != len(shape) or any(size not in (None, n) for size, n in zip(shape, array.shape, strict=True)):
        expected = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
        _fail(path, f"shape {array.shape} found, expected {expected}", "give every array one row a sample")
    if array.dtype.kind not in kinds:
        allowed = " or ".join(TYPES[kind] for kind in kinds)
        _fail(path, f"type {array.dtype} found, expected {allowed}", "convert the array before it is saved")


def _check_labels(folder: Path, labels: Values | None, names: Sequence[str] | None) -> None:
    path = folder / "labels.npy"
    if labels is None:
        if names is not None:
            _fail(path, "missing, though the manifest names labels", "write the labels or declare labels null")
        return
    if names is None:
        _fail(folder / MANIFEST, "labels: null found beside labels.npy, expected their names", "name the labels")
    for row in np.flatnonzero((labels < 0) | (labels >= len(names)))[:1]:
        found = f"label {labels[row]} in row {row} is out of range, expected 0 to {len(names) - 1}"
        _fail(path, found, "correct the labels or name them all in the manifest")


def _check_values(path: Path, modality: Modality, column: int, arrays: Arrays) -> None:
    """Finite everywhere; inside the declared range and possible under the likelihood wherever observed."""
    array, cells = arrays[modality.name], arrays.get(f"{modality.name}.observed")
    supports = [support(each.likelihood, each.classes) for each in modality.columns or (modality,)]
    low, high, whole = (np.array(limits) for limits in zip(*supports, strict=True))  # (J,) columns, or (1,)
    for rows in blocks(array):
        values = array[rows]
        if not (finite := np.isfinite(values)).all():
            row = rows.start + np.argwhere(~finite)[0, 0]
            remedy = "mark what is missing in mask.npy and fill it with any finite number"
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
            place = where[-1] if modality.columns else 0
            name = f" of column {modality.columns[place].name}" if modality.columns else ""
            found = f"value {values[tuple(where)]:g}{name} in row {rows.start + where[0]}"
            least, most, whole_ones = supports[place]
            limits = f"of at least {least:g}" if np.isinf(most) else f"from {least:g} to {most:g}"
            expected = f"expected {'whole ' * whole_ones}numbers {limits}"
            _fail(path, f"{found}, {expected}", "correct the values or the manifest")
