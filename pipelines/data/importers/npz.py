"""NumPy archives: one key a modality.

labels (N,)               whole numbers, texts or booleans; `label_names` (K,) may name the numbers
ids (N,), groups (N,)     whole numbers or texts
targets (N,) or (N, T)    numbers; `target_names` (T,) may name them
mask (N, M)               true where a modality is there, columns in the order of the keys
mask_<modality> (N,)      the same of one modality

An array that the user gives a role to (--label, --id, --group, --split, --target) takes that of the name above.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.exchange import read_arrays
from postprior.pipelines.data.importers.files import ends_in
from postprior.pipelines.data.importers.found import ArrayView, Found, Named, Roles
from postprior.pipelines.data.importers.kinds import array_axes, array_kind, check_finite
from postprior.pipelines.data.importers.tables import plain
from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.messages import listed

Values = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Values]
KNOWN = ("labels", "label_names", "ids", "groups", "targets", "target_names", "mask")


def is_npz(path: Path) -> bool:
    """Whether a path is a NumPy archive by its name."""
    return ends_in(path, (".npz",))


def read_npz(path: Path, roles: Roles) -> list[Found]:
    """The arrays of one archive, rows matched by ids or by their order; pickles are refused."""
    arrays = {name: _native(array) for name, array in read_arrays(path).items()}
    names = {
        "labels": roles.label or "labels",
        "groups": roles.group or "groups",
        "ids": roles.id if roles.id in arrays else "ids",
        "split": roles.split or "",
    }
    chosen = [name for name in roles.targets if name in arrays]
    known = {key: arrays.pop(key) for key in (*KNOWN, *names.values(), *chosen) if key in arrays}
    skipped = tuple(name for name in (*known, *arrays) if name in roles.skip)
    known = {key: array for key, array in known.items() if key not in skipped}
    masks = {key: arrays.pop(key) for key in list(arrays) if key[:5] == "mask_" and key[5:] in arrays}
    rows = _check_rows(path, arrays, {**known, **masks})
    _check_masks(path, {**masks, **({"mask": known["mask"]} if "mask" in known else {})}, len(arrays))
    targets = _targets(path, known, chosen)
    facts: dict[str, Any] = {
        "source": "npz",
        "file": path.name,
        "names": {role: name for role, name in names.items() if name in known and role != "split"},
        "apart": chosen,
    }
    if names["labels"] in known and "label_names" in known:
        facts["coded"] = {"type": str(known[names["labels"]].dtype), "names": known["label_names"].tolist()}
    views = []
    for m, (name, array) in enumerate(arrays.items()):
        if name in roles.skip:
            continue
        there = known["mask"][:, m].copy() if "mask" in known else np.ones(rows, bool)
        if f"mask_{name}" in masks:
            there &= masks[f"mask_{name}"]
        views.append(_view(path, name, array, ~there, roles, facts))
    return [
        Found(
            path.name,
            rows,
            tuple(views),
            ids=_named(path, names["ids"], known),
            label=_labels(path, names["labels"], known),
            group=_named(path, names["groups"], known),
            split=_named(path, names["split"], known),
            targets=targets,
            names=tuple(
                dict.fromkeys((*known, *(name for name in arrays if arrays[name].ndim == 1), *targets))
            ),
            skipped=skipped,
        )
    ]


def _native(array: Values) -> Values:
    """An array in the byte order of this machine."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _check_rows(path: Path, arrays: Arrays, others: Arrays) -> int:
    """The number of rows, which all arrays have; modalities are numbers."""
    if not arrays:
        raise UserError(
            f"{path}: found no modality, expected one array (N, …) a modality under names of its own"
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            raise UserError(
                f"{path}: {name}: {array.dtype} of shape {array.shape} found, expected numbers (N, …); convert it, "
                "take it out or give it a role (--label, --id, --group, --split, --target)"
            )
        if name[:5] == "mask_" and array.dtype == bool and array.ndim == 1:
            raise UserError(
                f"{path}: {name}: no array {name[5:]!r} found, expected one of {listed(arrays.keys() - {name})}; "
                "rename the mask or take it out"
            )
    first = next(iter(arrays))
    if not len(arrays[first]):
        raise UserError(f"{path}: {first}: no rows found, expected one a sample")
    for name, array in {**arrays, **others}.items():
        if name not in ("label_names", "target_names") and array.shape[:1] != arrays[first].shape[:1]:
            raise UserError(
                f"{path}: {name} has shape {array.shape}, expected {len(arrays[first])} rows as {first} has; give "
                "every array one row a sample"
            )
    return len(arrays[first])


def _check_masks(path: Path, masks: Arrays, modalities: int) -> None:
    for name, mask in masks.items():
        shape = (len(mask), modalities) if name == "mask" else (len(mask),)
        if mask.dtype != bool or mask.shape != shape:
            raise UserError(
                f"{path}: {name}: {mask.dtype} {mask.shape} found, expected bool {shape}, true where a modality is "
                "there; convert it"
            )


def _view(
    path: Path, name: str, array: Values, missing: Values, roles: Roles, facts: dict[str, Any]
) -> ArrayView:
    """One modality; its values are finite, or NaN where that stands for missing."""
    check_finite(f"{path}: {name}", array, missing, roles)
    axes = array_axes(path.name, name, array.shape[1:])
    there = array if not missing.any() else array[~missing]
    kind = array_kind(path.name, name, there, axes, roles.kinds)
    return ArrayView(name, array, axes, kind, facts, missing)


def _named(path: Path, name: str, known: Arrays) -> Named | None:
    if name not in known:
        return None
    array = known[name]
    if array.dtype.kind not in "biuU" or array.ndim != 1:
        raise UserError(
            f"{path}: {name}: {array.dtype} {array.shape} found, expected whole numbers or texts (N,); convert it"
        )
    return name, pa.chunked_array([pa.array(array)])


def _labels(path: Path, name: str, known: Arrays) -> Named | None:
    """Labels, by their names where the archive has them."""
    found = _named(path, name, known)
    if found is None or "label_names" not in known:
        return found
    names, labels = known["label_names"], known[name]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise UserError(
            f"{path}: label_names: {names.dtype} {names.shape} found, expected texts (K,); convert them"
        )
    _check_different(path, "label_names", names)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
        low, high = np.unique(labels)[[0, -1]]
        raise UserError(
            f"{path}: {name}: {low} to {high} found, expected 0 to {len(names) - 1}, the places of label_names; "
            "correct either"
        )
    return name, pa.chunked_array([pa.array(names[labels])])


def _targets(path: Path, known: Arrays, chosen: list[str]) -> dict[str, pa.ChunkedArray]:
    """The columns of `targets`, and arrays that the user has chosen."""
    columns: Arrays = {name: known[name] for name in chosen}
    if "targets" in known:
        targets = known["targets"]
        if targets.dtype.kind not in "fiub" or targets.ndim > 2:
            raise UserError(
                f"{path}: targets: {targets.dtype} {targets.shape} found, expected numbers (N,) or (N, T); convert them"
            )
        targets = targets.reshape(len(targets), -1)
        names = known.get("target_names", np.array([f"target{t}" for t in range(targets.shape[1])]))
        if names.dtype.kind != "U" or names.shape != (targets.shape[1],):
            raise UserError(
                f"{path}: target_names: {names.dtype} {names.shape} found, expected {targets.shape[1]} texts, one a "
                "column of targets"
            )
        _check_different(path, "target_names", np.array([*chosen, *names]))
        columns |= dict(zip(names.tolist(), targets.T, strict=True))
    for name in chosen:
        if known[name].dtype.kind not in "fiubU" or known[name].ndim != 1:
            raise UserError(
                f"{path}: {name}: {known[name].dtype} {known[name].shape} found, expected numbers or texts (N,) for a "
                "target; leave it a modality"
            )
    long = {
        name for name, column in columns.items() if column.dtype.kind == "f" and column.dtype.itemsize > 8
    }
    columns |= {name: columns[name].astype(np.float64) for name in long}
    return {
        name: plain(path, name, pa.chunked_array([pa.array(np.ascontiguousarray(column))]))
        for name, column in columns.items()
    }


def _check_different(path: Path, name: str, texts: Values) -> None:
    if twice := [text for text, count in Counter(texts.tolist()).items() if count > 1]:
        raise UserError(f"{path}: {name}: {twice[0]!r} found twice, expected different names; rename one")
