"""Archives of arrays: roles under user-defined names, and messages about invalid archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.archives import N, an_archive, exported, load, saved, views
from support.importing import refused

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data

X = np.random.default_rng(0).normal(size=(N, 3))
CODES = np.arange(N) % 3
LABELS: dict[str, tuple[Any, Any]] = {  # labels, and the label names if the archive has them
    "whole numbers": (np.array([7, -1, 30], np.int16)[CODES], None),
    "texts": (np.array(["well", "ill", "dead"])[CODES], None),
    "booleans": (CODES == 1, None),
    "numbers of another byte order": (CODES.astype(">i4"), None),
    "places of names in an order of their own, one of them of nobody": (
        CODES.astype(np.uint8),
        np.array(["well", "ill", "dead", "gone"]),
    ),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_restored(tmp_path: Path, kind: str) -> None:
    labels, names = LABELS[kind]
    arrays = {"x": X, "labels": labels, "ids": np.arange(N)} | ({} if names is None else {"label_names": names})
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles())
    back = exported(tmp_path / "data", tmp_path / "back")
    assert back["labels"].dtype == labels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back["labels"], labels)
    assert ("label_names" in back) == (names is not None)
    if names is not None:
        assert back["label_names"].tolist() == names.tolist()


def test_arrays_get_roles_by_name(tmp_path: Path) -> None:
    arrays = {
        "x": X,
        "y": np.array(["a", "b"])[np.arange(N) % 2],
        "code": np.array([f"s{row}" for row in range(N)]),
        "who": (np.arange(N) // 2).astype(np.int32),
        "age": np.linspace(20, 80, N).astype(np.float32),
        "site": np.array(["Bern", "Zug"])[np.arange(N) % 2],
        "part": np.array(["train", "train", "val", "val", "test", "test"])[np.arange(N) % 6],
        "targets": np.arange(N) * 2.0,
        "labels": np.arange(N),  # not the requested labels, and not a modality
    }
    roles = Roles(id="code", label="y", group="who", split="part", targets=("age", "site"))
    import_data([saved(tmp_path, arrays)], tmp_path / "data", roles)
    splits = load(tmp_path / "data")
    assert [m.name for m in splits["train"].modalities] == ["x"]
    assert {split: len(dataset) for split, dataset in splits.items()} == {
        "train": 20,
        "validation": 20,
        "test": 20,
    }
    back = exported_by(tmp_path, "code")
    assert set(back) == set(arrays) - {"part", "labels"} | {"target_names"}
    for name in ("y", "code", "who", "age", "site"):
        assert back[name].dtype == arrays[name].dtype, name
        np.testing.assert_array_equal(back[name], arrays[name])
    np.testing.assert_array_equal(back["targets"][:, 0], arrays["targets"])


def exported_by(root: Path, name: str) -> dict[str, Any]:
    """Export all splits and return their arrays, with rows sorted by the ids that have this name."""
    from postprior.pipelines.data.export import export

    parts = []
    for split in ("train", "validation", "test"):
        export(root / "data" / split, root / "back" / split)
        with np.load(root / "back" / split / "views.npz") as archive:
            parts.append(dict(archive))
    order = np.argsort([int(i[1:]) for part in parts for i in part[name]])
    return {
        key: np.concatenate([part[key] for part in parts])[order] if key != "target_names" else parts[0][key]
        for key in parts[0]
    }


def test_requested_labels_replace_those_of_the_archive(tmp_path: Path) -> None:
    from support.importing import clinic, write

    ids = np.array(clinic(N)["patient"].to_pylist())
    path = saved(tmp_path, {"x": X, "labels": np.arange(N) % 5, "ids": ids})
    table = write(clinic(N), tmp_path / "clinic.csv")
    import_data([path, table], tmp_path / "data", Roles(id="patient", label="diagnosis"))
    assert Dataset.load(tmp_path / "data/train").label_names == ("ill", "well")


def test_constant_coordinates_are_kept_and_reported(tmp_path: Path) -> None:
    arrays = {"x": np.where(np.arange(3) == 1, 2.0, X), "ids": np.arange(N)}
    text = "\n".join(import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles()))
    assert "each coordinate standardised, 1 of 3 coordinates constant" in text
    np.testing.assert_array_equal(exported(tmp_path / "data", tmp_path / "back")["x"][:, 1], 2)


def test_a_last_axis_of_two_is_the_channels(tmp_path: Path) -> None:
    flow = np.random.default_rng(0).normal(size=(N, 5, 6, 2))
    import_data([saved(tmp_path, {"flow": flow})], tmp_path / "data", Roles())
    assert Dataset.load(tmp_path / "data/train").modalities[0].shape == (2, 5, 6)


def more_than_the_memory(folder: Path) -> Path:
    """Write an archive whose header declares eight terabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 1000)})
    with zipfile.ZipFile(folder / "views.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(100))
    return folder / "views.npz"


NOBODY = np.zeros((N, 2), bool)
SPOILED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "one value": (an_archive(x=X, y=np.ones((N, 3))), r"y: all values are 1 in the training rows, .*\(--skip y\)"),
    "one grey": (an_archive(y=np.full((N, 4, 4), 7, np.uint8)), "y: all values are . in the training rows"),
    "no counts": (an_archive(x=X, y=np.zeros((N, 3), int)), "y: all values are . in the training rows"),
    "numbers whose squares are none": (
        an_archive(x=X * 1e300),
        r"x: values from .*e\+300 to .* rescale them",
    ),
    "pixels without a range": (
        an_archive(x=np.stack([X, -X], 1) / np.abs(X).max() * 1.7e308),
        r"x: values from .*e\+308 to",
    ),
    "no modality in any row": (
        an_archive(x=X, y=X, mask=NOBODY),
        "60 rows without any modality found, expected at least one modality",
    ),
    "a mask of nothing": (
        an_archive(x=X, mask_z=np.arange(N) < 9),
        "mask_z: no array 'z' found, expected one of x",
    ),
    "a target twice": (
        an_archive(x=X, targets=X[:, :2], target_names=np.array(["a", "a"])),
        "target_names: 'a' found twice",
    ),
    "a label name twice": (
        an_archive(x=X, labels=CODES, label_names=np.array(["a", "b", "a"])),
        "label_names: 'a' found twice",
    ),
    "one class": (
        an_archive(x=X, labels=np.zeros(N, int)),
        "label labels: only the class 0 found, expected two classes",
    ),
    "dates": (
        an_archive(x=X, t=np.arange(N).astype("datetime64[D]")),
        r"t: datetime64\[D\] .* expected numbers",
    ),
    "complex numbers": (an_archive(x=X * 1j), "x: complex128 of shape .* expected numbers"),
    "no values": (an_archive(x=X, y=np.zeros((N, 0))), r"y: values of shape \(0,\) found, .*--skip y"),
    "one subject": (
        an_archive(x=X, groups=np.zeros(N, int)),
        r"0 rows found \(all rows of each of 1 subjects stay in one split\), expected",
    ),
    "more than the memory": (more_than_the_memory, "views.npz: more data found than fit into memory"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_archives_are_refused(tmp_path: Path, case: str) -> None:
    make, sentence = SPOILED[case]
    refused(make(tmp_path), tmp_path / "data", sentence, Roles())


def test_a_coordinate_without_any_value_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": np.where(np.arange(3) == 1, np.nan, X)})
    sentence = "x: coordinate 1 is missing in all training rows, expected two values or more"
    refused(path, tmp_path / "data", sentence, Roles(nan_is_missing=True))


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    parts = np.array(["train", "val", "gone"])[np.arange(N) % 3]
    arrays = {"x": X.copy(), "ids": np.arange(N), "part": parts}
    refused(saved(tmp_path, arrays), tmp_path / "data", "--split part: 'gone' found", Roles(split="part"))


def test_an_unknown_name_is_reported_with_the_known_names(tmp_path: Path) -> None:
    path = saved(tmp_path, views() | {"y": np.arange(N) % 2})
    refused(path, tmp_path / "data", r"--label z: no such column found, expected one of .*\by\b", Roles(label="z"))
