"""NumPy archives: one key a modality.

labels (N,)               whole numbers, texts or booleans; `label_names` (K,) may name the numbers
ids (N,), groups (N,)     whole numbers or texts
targets (N,) or (N, T)    numbers; `target_names` (T,) may name them
mask (N, M)               true where a modality is there, columns in the order of the keys
mask_<modality> (N,)      the same of one modality

An array that the user gives a role to (--label, --id, --group, --split, --target) takes that of the name above.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values, read_arrays
from postprior.pipelines.data.formats.contents import Found, Named, Roles, array_view, plain
from postprior.pipelines.data.formats.files import ends_in
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.settings.names import first_duplicate, listed

ABOUT = "an .npz archive"
FACTS: tuple[str, ...] = ("file",)
Arrays = dict[str, Values]
KNOWN = ("labels", "label_names", "ids", "groups", "targets", "target_names", "mask")


def recognises(path: Path) -> bool:
    """Whether a path is a NumPy archive by its name."""
    return ends_in(path, (".npz",))


def read(path: Path, roles: Roles) -> list[Found]:
    """The arrays of one archive, rows matched by ids or by their order; pickles are refused."""
    arrays = {n: array.astype(array.dtype.newbyteorder("="), copy=False) for n, array in read_arrays(path).items()}
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
    for name, mask in {**masks, **({"mask": known["mask"]} if "mask" in known else {})}.items():
        shape = (len(mask), len(arrays)) if name == "mask" else (len(mask),)
        expected = f"bool {shape}, true where a modality is there; convert it"
        _expect(mask.dtype == bool and mask.shape == shape, path, name, mask, expected)
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
        if name not in roles.skip:
            there = known["mask"][:, m].copy() if "mask" in known else np.ones(rows, bool)
            there &= masks.get(f"mask_{name}", True)
            views.append(array_view(path, name, array, ~there, roles, facts))
    vectors = [name for name, array in arrays.items() if array.ndim == 1]
    label = _labels(path, names["labels"], known)
    ids, group, split = (_named(path, names[key], known) for key in ("ids", "groups", "split"))
    others = tuple(dict.fromkeys((*known, *vectors, *targets)))
    return [Found(path.name, rows, tuple(views), ids, label, group, split, targets, names=others, skipped=skipped)]


def _expect(fits: bool, path: Path, name: str, array: Values, expected: str) -> None:
    """Refuse an array of another type or shape."""
    if not fits:
        raise UserError(f"{path}: {name}: {array.dtype} {array.shape} found, expected {expected}")


def _check_rows(path: Path, arrays: Arrays, others: Arrays) -> int:
    """The number of rows, which all arrays have; modalities are numbers."""
    if not arrays:
        raise UserError(f"{path}: found no modality, expected one array (N, …) a modality under names of its own")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            remedy = "convert it, take it out or give it a role (--label, --id, --group, --split, --target)"
            found = f"{array.dtype} of shape {array.shape} found, expected numbers (N, …)"
            raise UserError(f"{path}: {name}: {found}; {remedy}")
        if name[:5] == "mask_" and array.dtype == bool and array.ndim == 1:
            expected = f"expected one of {listed(arrays.keys() - {name})}; rename the mask or take it out"
            raise UserError(f"{path}: {name}: no array {name[5:]!r} found, {expected}")
    first = next(iter(arrays))
    if not len(arrays[first]):
        raise UserError(f"{path}: {first}: no rows found, expected one a sample")
    for name, array in {**arrays, **others}.items():
        if name not in ("label_names", "target_names") and array.shape[:1] != arrays[first].shape[:1]:
            expected = f"expected {len(arrays[first])} rows as {first} has; give every array one row a sample"
            raise UserError(f"{path}: {name} has shape {array.shape}, {expected}")
    return len(arrays[first])


def _named(path: Path, name: str, known: Arrays) -> Named | None:
    if name not in known:
        return None
    array, expected = known[name], "whole numbers or texts (N,); convert it"
    _expect(array.dtype.kind in "biuU" and array.ndim == 1, path, name, array, expected)
    return name, pa.chunked_array([pa.array(array)])


def _labels(path: Path, name: str, known: Arrays) -> Named | None:
    """Labels, by their names where the archive has them."""
    found = _named(path, name, known)
    if found is None or "label_names" not in known:
        return found
    names, labels = known["label_names"], known[name]
    _expect(names.dtype.kind == "U" and names.ndim == 1, path, "label_names", names, "texts (K,); convert them")
    _check_different(path, "label_names", names.tolist())
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
        low, high = np.unique(labels)[[0, -1]]
        expected = f"expected 0 to {len(names) - 1}, the places of label_names; correct either"
        raise UserError(f"{path}: {name}: {low} to {high} found, {expected}")
    return name, pa.chunked_array([pa.array(names[labels])])


def _targets(path: Path, known: Arrays, chosen: list[str]) -> dict[str, pa.ChunkedArray]:
    """The columns of `targets`, and arrays that the user has chosen."""
    columns: Arrays = {name: known[name] for name in chosen}
    for name, array in columns.items():
        fits = array.dtype.kind in "fiubU" and array.ndim == 1
        _expect(fits, path, name, array, "numbers or texts (N,) for a target; leave it a modality")
    if "targets" in known:
        targets = known["targets"]
        fits = targets.dtype.kind in "fiub" and targets.ndim <= 2
        _expect(fits, path, "targets", targets, "numbers (N,) or (N, T); convert them")
        targets = targets.reshape(len(targets), -1)
        count = targets.shape[1]
        names = known.get("target_names", np.array([f"target{t}" for t in range(count)]))
        fits = names.dtype.kind == "U" and names.shape == (count,)
        _expect(fits, path, "target_names", names, f"{count} texts, one a column of targets")
        _check_different(path, "target_names", [*chosen, *names.tolist()])
        columns |= dict(zip(names.tolist(), targets.T, strict=True))
    for name, column in columns.items():
        if column.dtype.kind == "f" and column.dtype.itemsize > 8:
            columns[name] = column.astype(np.float64)
    made = {name: pa.array(np.ascontiguousarray(column)) for name, column in columns.items()}
    return {name: plain(path, name, pa.chunked_array([column])) for name, column in made.items()}


def _check_different(path: Path, name: str, texts: Sequence[str]) -> None:
    if (text := first_duplicate(texts)) is not None:
        raise UserError(f"{path}: {name}: {text!r} found twice, expected different names; rename one")


def write(samples: Samples, conversions: Sequence[Any], path: Path) -> None:
    """One archive of the modalities that came from it, and of all that is known of the samples, as it had them."""
    facts = conversions[0].facts
    names = {role: role for role in ("ids", "labels", "groups")} | facts.get("names", {})
    arrays = {conversion.name: samples.array(conversion) for conversion in conversions}
    arrays[names["ids"]] = _to_numpy(samples.ids)
    if samples.dataset.labels is not None:
        arrays |= _arrays_of_labels(samples, names["labels"], facts.get("coded"))
    if samples.dataset.groups is not None:
        arrays[names["groups"]] = _to_numpy(samples.groups)
    arrays |= _arrays_of_targets(samples, facts.get("apart", ()))
    if samples.dataset.mask is not None:
        order = [m.name for m in samples.dataset.modalities]
        arrays["mask"] = samples.dataset.mask[:, [order.index(conversion.name) for conversion in conversions]]
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    write_bytes(path, content.getvalue())


def _arrays_of_targets(samples: Samples, apart: Sequence[str]) -> Arrays:
    """Targets: those `apart` in arrays of their own, the others in one, where texts are the places of their values."""
    if samples.dataset.targets is None:
        return {}
    columns = {name: _to_numpy(column) for name, column in samples.targets().items()}
    arrays = {name: columns[name] for name in apart if name in columns}
    rest = {name: t for t, name in enumerate(columns) if name not in arrays}
    if not columns:
        arrays["targets"] = np.asarray(samples.dataset.targets)
    elif rest:
        together = [columns[name] for name in rest]
        numbers = all(column.dtype.kind in "fiub" for column in together)
        arrays["targets"] = np.stack(together, 1) if numbers else samples.dataset.targets[:, list(rest.values())]
        arrays["target_names"] = np.array(list(rest))
    return arrays


def _arrays_of_labels(samples: Samples, name: str, coded: dict[str, Any] | None) -> Arrays:
    """Labels as they were: as such, or as places of their names."""
    names, labels = samples.dataset.label_names, samples.dataset.labels
    assert names is not None
    assert labels is not None
    if coded is None and samples.dataset.conversion is not None:
        return {name: _to_numpy(samples.labels())}
    if coded is None:
        return {name: np.asarray(labels), "label_names": np.array(names)}
    places = np.array([coded["names"].index(label) for label in names], coded["type"])
    return {name: places[labels], "label_names": np.array(coded["names"])}


def _to_numpy(column: pa.Array) -> Values:
    """Numbers as such, texts as NumPy has them."""
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist())
    return np.asarray(column.to_numpy(zero_copy_only=False))
