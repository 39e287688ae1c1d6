"""NumPy archives: one key per modality. Keys with these names have a special meaning:

labels (N,)               whole numbers, texts or booleans; `label_names` (K,) may name the numbers. A row has no label
                          if its label is NaN, an empty text, or -1 among numbers that are named
ids (N,), groups (N,)     whole numbers or texts
targets (N,) or (N, T)    numbers; `target_names` (T,) may name them
mask (N, M)               true where a modality is observed, columns in the order of the keys
mask_<modality> (N,)      the same for one modality

An array that the user names as a role (--label, --id, --group, --split, --target) replaces the key above of that role.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, read_arrays
from postprior.pipelines.data.formats.contents import Named, Roles, SourceContents, array_view, simplify_column
from postprior.pipelines.data.formats.files import ends_in
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.names import composed
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_bytes
from postprior.pipelines.settings.names import first_duplicate, listed

ABOUT = "an .npz archive"
FACTS: tuple[str, ...] = ("file",)
OPTIONS: tuple[str, ...] = ("nan_is_missing", "keep_rare")
Arrays = dict[str, Values]
SPECIAL = ("labels", "label_names", "ids", "groups", "targets", "target_names", "mask")


def recognises(path: Path) -> bool:
    """Whether a path has the suffix of a NumPy archive."""
    return ends_in(path, (".npz",))


def read(path: Path, roles: Roles) -> list[SourceContents]:
    """Read the arrays of one archive; rows are matched by ids or by their order, and pickles are refused."""
    stored = read_arrays(path)
    _check_different(path, "arrays", [composed(name) for name in stored])
    arrays = {composed(n): array.astype(array.dtype.newbyteorder("="), copy=False) for n, array in stored.items()}
    names: dict[str, str] = {
        "labels": roles.label or "labels",
        "groups": roles.group or "groups",
        "ids": roles.id if roles.id and roles.id in arrays else "ids",
        "split": roles.split or "",
    }
    chosen = [name for name in roles.targets if name in arrays]
    special = {key: arrays.pop(key) for key in (*SPECIAL, *names.values(), *chosen) if key in arrays}
    skipped = tuple(name for name in (*special, *arrays) if name in roles.skip)
    special = {key: array for key, array in special.items() if key not in skipped}
    masks = {key: arrays.pop(key) for key in list(arrays) if key[:5] == "mask_" and key[5:] in arrays}
    rows = _check_rows(path, arrays, {**special, **masks})
    for name, mask in {**masks, **({"mask": special["mask"]} if "mask" in special else {})}.items():
        shape = (len(mask), len(arrays)) if name == "mask" else (len(mask),)
        expected = f"bool {shape}, true where a modality is observed; convert the array"
        _expect(mask.dtype == bool and mask.shape == shape, path, name, mask, expected)
    targets = _targets(path, special, chosen)
    facts: dict[str, Any] = {
        "source": "npz",
        "file": path.name,
        "names": {role: name for role, name in names.items() if name in special and role != "split"},
        "apart": chosen,
    }
    if names["labels"] in special and "label_names" in special:
        facts["coded"] = {"type": str(special[names["labels"]].dtype), "names": special["label_names"].tolist()}
    views = []
    for m, (name, array) in enumerate(arrays.items()):
        if name not in roles.skip:
            observed = special["mask"][:, m].copy() if "mask" in special else np.ones(rows, bool)
            observed &= masks.get(f"mask_{name}", True)
            views.append(array_view(path, name, array, ~observed, roles, facts))
    vectors = [name for name, array in arrays.items() if array.ndim == 1]
    label = _labels(path, names["labels"], special)
    ids, group, split = (_named(path, names[key], special) for key in ("ids", "groups", "split"))
    others = tuple(dict.fromkeys((*special, *vectors, *targets)))
    return [
        SourceContents(path.name, rows, tuple(views), ids, label, group, split, targets, names=others, skipped=skipped)
    ]


def _expect(fits: bool, path: Path, name: str, array: Values, expected: str) -> None:
    """Raise a UserError with the type and shape of an array unless it `fits`."""
    if not fits:
        raise UserError(f"{path}: {name}: {array.dtype} {array.shape} found, expected {expected}")


def _check_rows(path: Path, arrays: Arrays, others: Arrays) -> int:
    """Return the number of rows, after a check that all arrays have it and that modalities are numeric."""
    if not arrays:
        expected = "expected one array (N, …) per modality, under a name that is not reserved"
        raise UserError(f"{path}: no modality found, {expected}; add the arrays")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            remedy = "convert it, remove it or give it a role (--label, --id, --group, --split, --target)"
            found = f"{array.dtype} of shape {array.shape} found, expected numbers (N, …)"
            raise UserError(f"{path}: {name}: {found}; {remedy}")
        if name[:5] == "mask_" and array.dtype == bool and array.ndim == 1:
            expected = f"expected one of {listed(arrays.keys() - {name})}; rename or remove the mask"
            raise UserError(f"{path}: {name}: no array {name[5:]!r} found, {expected}")
    first = next(iter(arrays))
    if not len(arrays[first]):
        raise UserError(f"{path}: {first}: no rows found, expected one row per sample; check the archive")
    for name, array in {**arrays, **others}.items():
        if name not in ("label_names", "target_names") and array.shape[:1] != arrays[first].shape[:1]:
            expected = f"expected {len(arrays[first])} rows as in {first}; give each array one row per sample"
            raise UserError(f"{path}: {name}: shape {array.shape} found, {expected}")
    return len(arrays[first])


def _named(path: Path, name: str, special: Arrays) -> Named | None:
    if name not in special:
        return None
    array, expected = special[name], "whole numbers or texts (N,); convert the array"
    _expect(array.dtype.kind in "biuU" and array.ndim == 1, path, name, array, expected)
    return name, pa.chunked_array([pa.array(array)])


def _labels(path: Path, name: str, special: Arrays) -> Named | None:
    """Return the labels, null for rows without one, by name if the archive has label names."""
    if name in special and special[name].dtype.kind == "f" and special[name].ndim == 1:
        return name, simplify_column(path, name, pa.chunked_array([pa.array(special[name])]))
    labelled = _named(path, name, special)
    if labelled is None or "label_names" not in special:
        return labelled and (name, pc.if_else(pc.equal(labelled[1].cast(pa.string()), ""), None, labelled[1]))
    names, labels = special["label_names"], special[name]
    _expect(names.dtype.kind == "U" and names.ndim == 1, path, "label_names", names, "texts (K,); convert the array")
    _check_different(path, "label_names", names.tolist())
    if labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= len(names):
        low, high = np.unique(labels)[[0, -1]]
        expected = f"expected indices of label_names from 0 to {len(names) - 1}, or -1 for rows without a label"
        raise UserError(f"{path}: {name}: values from {low} to {high} found, {expected}; correct the labels")
    return name, pa.chunked_array([pa.array(names).take(pa.array(labels, mask=labels < 0))])


def _targets(path: Path, special: Arrays, chosen: list[str]) -> dict[str, pa.ChunkedArray]:
    """Return the columns of `targets`, and the arrays that the user named as targets."""
    columns: Arrays = {name: special[name] for name in chosen}
    for name, array in columns.items():
        fits = array.dtype.kind in "fiubU" and array.ndim == 1
        _expect(fits, path, name, array, "numbers or texts (N,) for a target; convert it or remove --target")
    if "targets" in special:
        targets = special["targets"]
        fits = targets.dtype.kind in "fiub" and targets.ndim <= 2
        _expect(fits, path, "targets", targets, "numbers (N,) or (N, T); convert the array")
        targets = targets.reshape(len(targets), -1)
        count = targets.shape[1]
        names = special.get("target_names", np.array([f"target{t}" for t in range(count)]))
        fits = names.dtype.kind == "U" and names.shape == (count,)
        _expect(fits, path, "target_names", names, f"{count} texts, one per column of targets; correct the names")
        _check_different(path, "target_names", [*chosen, *names.tolist()])
        columns |= dict(zip(names.tolist(), targets.T, strict=True))
    for name, column in columns.items():
        if column.dtype.kind == "f" and column.dtype.itemsize > 8:
            columns[name] = column.astype(np.float64)
    arrow = {name: pa.array(np.ascontiguousarray(column)) for name, column in columns.items()}
    return {name: simplify_column(path, name, pa.chunked_array([column])) for name, column in arrow.items()}


def _check_different(path: Path, name: str, texts: Sequence[str]) -> None:
    if (text := first_duplicate(texts)) is not None:
        raise UserError(f"{path}: {name}: {text!r} found twice, expected different names; rename one")


def write(samples: Samples, conversions: Sequence[Any], path: Path) -> None:
    """Write an archive of its modalities, ids, labels, groups and targets, under their original names."""
    facts = conversions[0].facts
    names = {role: role for role in ("ids", "labels", "groups")} | facts.get("names", {})
    titles = {m.name: m.title for m in samples.dataset.modalities}
    arrays = {_member(titles[c.name], c.name): samples.array(c) for c in conversions}
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
    with ZipFile(content, "w", ZIP_DEFLATED) as archive:  # savez refuses arrays with the names of its parameters
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    write_bytes(path, content.getvalue())


def _member(title: str, key: str) -> str:
    """Return the name of the array of a modality: its title, or its key if the title is no path in the archive."""
    parts = title.replace("\\", "/").split("/")
    return key if not parts[0] or ".." in parts or "\0" in title else title


def _arrays_of_targets(samples: Samples, apart: Sequence[str]) -> Arrays:
    """Return one array per target in `apart`, and one array `targets` of the rest, with texts as category indices."""
    if samples.dataset.targets is None:
        return {}
    columns = {name: _to_numpy(column) for name, column in samples.targets().items()}
    arrays = {name: columns[name] for name in apart if name in columns}
    rest = {name: t for t, name in enumerate(columns) if name not in arrays}
    if not columns:
        arrays["targets"] = np.asarray(samples.dataset.targets)
    elif rest:
        stacked = [columns[name] for name in rest]
        numeric = all(column.dtype.kind in "fiub" for column in stacked)
        arrays["targets"] = np.stack(stacked, 1) if numeric else samples.dataset.targets[:, list(rest.values())]
        arrays["target_names"] = np.array(list(rest))
    return arrays


def _arrays_of_labels(samples: Samples, name: str, coded: dict[str, Any] | None) -> Arrays:
    """Return the labels in their original form: values, or indices with `label_names`."""
    if coded is None and samples.dataset.conversion is not None:
        return {name: _to_numpy(samples.labels())}
    if coded is None:
        return {name: np.asarray(samples.dataset.labels), "label_names": np.array(samples.dataset.label_names)}
    places = pc.index_in(samples.labels(), value_set=pa.array(coded["names"])).fill_null(-1)
    return {name: places.to_numpy().astype(coded["type"]), "label_names": np.array(coded["names"])}


def _to_numpy(column: pa.Array) -> Values:
    """Convert a column to a NumPy array; texts get NumPy's own type of texts."""
    if pa.types.is_string(column.type):
        return np.array(column.fill_null("").to_pylist())
    return np.asarray(column.to_numpy(zero_copy_only=False))
