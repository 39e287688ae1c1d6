"""NumPy archives: one key a modality.

labels (N,)               whole numbers or texts; `label_names` (K,) may name the numbers
ids (N,), groups (N,)     whole numbers or texts
targets (N,) or (N, T)    numbers; `target_names` (T,) may name them
mask (N, M)               true where a modality is there, columns in the order of the keys
mask_<modality> (N,)      the same of one modality
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.errors import UserError
from pipelines.exchange import read_arrays
from pipelines.importers.found import ArrayView, Found, Named, Roles
from pipelines.importers.kinds import array_axes, array_kind
from pipelines.importers.tables import plain

Values = np.ndarray[Any, np.dtype[Any]]
KNOWN = ("labels", "label_names", "ids", "groups", "targets", "target_names", "mask")


def is_npz(path: Path) -> bool:
    """Whether a path is a NumPy archive by its name."""
    return path.suffix == ".npz"


def read_npz(path: Path, roles: Roles) -> list[Found]:
    """The arrays of one archive, rows matched by `ids` or by their order; pickles are refused."""
    arrays = read_arrays(path)
    known = {key: arrays.pop(key) for key in KNOWN if key in arrays}
    masks = {key: arrays.pop(key) for key in list(arrays) if key[:5] == "mask_" and key[5:] in arrays}
    if not arrays:
        raise UserError(
            f"{path}: found no modality, expected one array (N, …) a modality under names of its own"
        )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            raise UserError(
                f"{path}: {name}: {array.dtype} of shape {array.shape} found, expected numbers (N, …)"
            )
    rows = len(next(iter(arrays.values())))
    if not rows:
        raise UserError(f"{path}: {next(iter(arrays))}: no rows found, expected one a sample")
    for name, array in {**arrays, **known, **masks}.items():
        if not name.endswith("_names") and array.shape[:1] != (rows,):
            raise UserError(
                f"{path}: {name} has shape {array.shape}, expected {rows} rows as {next(iter(arrays))} has"
            )
    _check_masks(path, {**masks, **({"mask": known["mask"]} if "mask" in known else {})}, len(arrays))
    views = []
    for m, (name, array) in enumerate(arrays.items()):
        if name in roles.skip:
            continue
        there = known["mask"][:, m].copy() if "mask" in known else np.ones(rows, bool)
        if f"mask_{name}" in masks:
            there &= masks[f"mask_{name}"]
        views.append(_view(path, name, array, ~there, roles))
    return [
        Found(
            path.name,
            rows,
            tuple(views),
            ids=_named(path, "ids", known),
            label=_labels(path, known),
            group=_named(path, "groups", known),
            targets=_targets(path, known),
            names=tuple(known),
            skipped=tuple(name for name in arrays if name in roles.skip),
        )
    ]


def _check_masks(path: Path, masks: dict[str, Values], modalities: int) -> None:
    for name, mask in masks.items():
        shape = (len(mask), modalities) if name == "mask" else (len(mask),)
        if mask.dtype != bool or mask.shape != shape:
            raise UserError(f"{path}: {name}: {mask.dtype} {mask.shape} found, expected bool {shape}")


def _view(path: Path, name: str, array: Values, missing: Values, roles: Roles) -> ArrayView:
    """One modality; its values are finite, or NaN where that stands for missing."""
    if array.dtype.kind == "f":
        flat = array.reshape(len(array), -1)
        bad = ~np.isfinite(flat).all(1) & ~missing
        if roles.nan_is_missing:
            bad &= np.isinf(flat).any(1)
        if bad.any():
            remedy = (
                "give finite numbers" if roles.nan_is_missing else "--nan-is-missing takes NaN as missing"
            )
            raise UserError(f"{path}: {name}: NaN or infinity in row {np.argmax(bad)}; {remedy}")
    axes = array_axes(path.name, name, array.shape[1:])
    there = array if not missing.any() else array[~missing]
    kind = array_kind(path.name, name, there, axes, roles.kinds)
    return ArrayView(name, array, axes, kind, {"source": "npz", "file": path.name}, missing)


def _named(path: Path, name: str, known: dict[str, Values]) -> Named | None:
    if name not in known:
        return None
    array = known[name]
    if array.dtype.kind not in "iuU" or array.ndim != 1:
        raise UserError(
            f"{path}: {name}: {array.dtype} {array.shape} found, expected whole numbers or texts (N,)"
        )
    return name, pa.chunked_array([pa.array(array)])


def _labels(path: Path, known: dict[str, Values]) -> Named | None:
    """Labels, by their names where the archive has them."""
    found = _named(path, "labels", known)
    if found is None or "label_names" not in known:
        return found
    names, labels = known["label_names"], known["labels"]
    if names.dtype.kind != "U" or names.ndim != 1:
        raise UserError(f"{path}: label_names: {names.dtype} {names.shape} found, expected texts (K,)")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
        low, high = np.unique(labels)[[0, -1]]
        raise UserError(
            f"{path}: labels: {low} to {high} found, expected 0 to {len(names) - 1}, the places of label_names"
        )
    return "labels", pa.chunked_array([pa.array(names[labels])])


def _targets(path: Path, known: dict[str, Values]) -> dict[str, pa.ChunkedArray]:
    if "targets" not in known:
        return {}
    targets = known["targets"]
    if targets.dtype.kind not in "fiub" or targets.ndim > 2:
        raise UserError(
            f"{path}: targets: {targets.dtype} {targets.shape} found, expected numbers (N,) or (N, T)"
        )
    targets = targets.reshape(len(targets), -1)
    names = known.get("target_names", np.array([f"target{t}" for t in range(targets.shape[1])]))
    if names.dtype.kind != "U" or names.shape != (targets.shape[1],):
        raise UserError(f"{path}: target_names: expected {targets.shape[1]} texts, one a column of targets")
    return {
        str(name): plain(path, str(name), pa.chunked_array([pa.array(column)]))
        for name, column in zip(names, targets.T, strict=True)
    }
