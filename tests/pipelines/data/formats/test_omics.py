"""AnnData and MuData files as data: counts, cells that lack a modality, and the way back.

The files are written here by the published layout, by hand: anndata itself cannot write with the pandas of the lock.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csc_array, csr_array
from support.importing import refused

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

h5py = pytest.importorskip("h5py")
SPLITS = ("train", "validation", "test")
N = 50
RNG = np.random.default_rng(0)
RNA = RNG.poisson(2, (N, 6)).astype(np.float32)
PROTEIN = RNG.normal(3, 2, (N, 3))
HAS = np.arange(N) % 3 != 0
CELLS = [f"cell{row}" for row in range(N)]
TYPES = np.array(["B", "T"])[np.arange(N) % 2]


def put(group: Any, name: str, value: Any, kind: str = "array", version: str = "0.2.0", **attributes: Any) -> None:
    stored = group.create_dataset(name, data=value)
    stored.attrs.update({"encoding-type": kind, "encoding-version": version, **attributes})


def texts(group: Any, name: str, values: list[str]) -> None:
    put(group, name, np.array(values, object), "string-array")


def frame(group: Any, name: str, index: list[str], **columns: Any) -> None:
    made = group.create_group(name)
    made.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "names"})
    made.attrs["column-order"] = list(columns) or np.array([], "S1")
    texts(made, "names", index)
    for column, values in columns.items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "U":
            levels, codes = np.unique(values, return_inverse=True)
            coded = made.create_group(column)
            coded.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
            texts(coded, "categories", levels.tolist())
            put(coded, "codes", codes.astype(np.int8))
        else:
            put(made, column, values)


def matrix(group: Any, values: np.ndarray, layout: str) -> None:
    if layout == "dense":
        put(group, "X", values)
        return
    sparse = {"csr_matrix": csr_array, "csc_matrix": csc_array}[layout](values)
    stored = group.create_group("X")
    stored.attrs.update({"encoding-type": layout, "encoding-version": "0.1.0", "shape": values.shape})
    for part in ("data", "indices", "indptr"):
        stored.create_dataset(part, data=getattr(sparse, part))


def annotated(group: Any, values: np.ndarray, cells: list[str], prefix: str, layout: str, **columns: Any) -> None:
    group.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    matrix(group, values, layout)
    frame(group, "obs", cells, **columns)
    frame(group, "var", [f"{prefix}{place}" for place in range(values.shape[1])])


def multi(path: Path, layout: str = "csr_matrix", padded: bool = False) -> Path:
    """Write a file whose proteins are missing in a third of the cells: absent from the matrix, or NaN and masked."""
    rows = np.arange(N) if padded else np.flatnonzero(HAS)
    proteins = np.where(HAS[:, None], PROTEIN, np.nan)[rows]
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "MuData", "encoding-version": "0.1.0", "axis": 0})
        modalities = file.create_group("mod")
        modalities.attrs["mod-order"] = ["rna", "protein"]
        annotated(modalities.create_group("rna"), RNA, CELLS, "g", layout)
        annotated(modalities.create_group("protein"), proteins, [CELLS[row] for row in rows], "p", "dense")
        frame(file, "obs", CELLS, type=TYPES, age=np.arange(N) * 1.5, donor=np.arange(N) // 5)
        frame(file, "var", [f"g{j}" for j in range(6)] + [f"p{j}" for j in range(3)])
        for name, mask in (("rna", np.ones(N, bool)), ("protein", HAS)):
            put(file, f"obsm/{name}", mask[:, None] if padded else mask)  # both shapes exist in published files
    return path


ROLES = Roles(label="type", group="donor", targets=("age",))


@pytest.mark.parametrize("layout", ["csr_matrix", "csc_matrix", "dense"])
@pytest.mark.parametrize("padded", [False, True])
def test_two_modalities_of_cells_are_restored(tmp_path: Path, layout: str, padded: bool) -> None:
    import_data([multi(tmp_path / "cells.h5mu", layout, padded)], tmp_path / "data", ROLES)
    seen = []
    for split in SPLITS:
        dataset = Dataset.load(tmp_path / "data" / split)
        assert [(m.name, m.kind, m.likelihood) for m in dataset.modalities] == [
            ("rna", "vector", "negative_binomial"),
            ("protein", "vector", "normal"),
        ]
        assert dataset.ids is not None
        assert dataset.labels is not None
        assert dataset.targets is not None
        rows = np.array([CELLS.index(name) for name in dataset.ids])
        np.testing.assert_array_equal(dataset.observed, np.stack([np.ones(N, bool), HAS], 1)[rows])
        np.testing.assert_array_equal(dataset.data["rna"], RNA[rows])
        np.testing.assert_array_equal(dataset.targets[:, 0], rows * 1.5)
        np.testing.assert_array_equal(np.array(dataset.label_names)[dataset.labels], TYPES[rows])
        assert export(tmp_path / "data" / split, tmp_path / "back" / split) == ["cells.h5mu"]
        with h5py.File(tmp_path / "back" / split / "cells.h5mu") as file:
            proteins = file["mod/protein"]
            names = proteins["obs/_index"].asstr()[()].tolist()
            assert names == [name for name, there in zip(dataset.ids, HAS[rows], strict=True) if there]
            np.testing.assert_array_equal(proteins["X"][()], PROTEIN[[CELLS.index(n) for n in names]])
            np.testing.assert_array_equal(file["obsm/protein"][()], HAS[rows])
            assert file["mod/rna/var/_index"].asstr()[()].tolist() == [f"g{j}" for j in range(6)]
            stored = file["obs/type"]
            assert stored.attrs["encoding-type"] == "categorical"
            categories = stored["categories"].asstr()[()]
            assert categories[stored["codes"][()]].tolist() == TYPES[rows].tolist()
            np.testing.assert_array_equal(file["obs/age"][()], rows * 1.5)
            assert hasattr(file["mod/rna/X"], "keys") == (layout != "dense")
        seen += rows.tolist()
    assert sorted(seen) == list(range(N))
    import_data(
        [tmp_path / "back/train/cells.h5mu"], tmp_path / "again", Roles(), (0.2, 0.2)
    )  # the written file can be read
    again = Dataset.load(tmp_path / "again/train")
    assert [m.name for m in again.modalities] == ["rna", "protein"]


def test_one_matrix_is_one_modality(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "pbmc.h5ad", "w") as file:
        annotated(file, RNA, CELLS, "g", "csr_matrix", type=TYPES)
        file["obs/type/codes"][:6] = -1  # no label
    import_data([tmp_path / "pbmc.h5ad"], tmp_path / "data", Roles(label="type"))
    train = Dataset.load(tmp_path / "data/train")
    assert [(m.name, m.shape, m.likelihood) for m in train.modalities] == [("pbmc", (6,), "negative_binomial")]
    export(tmp_path / "data/train", tmp_path / "back")
    with h5py.File(tmp_path / "back/pbmc.h5ad") as file:
        stored = {part: file["X"][part][()] for part in ("data", "indices", "indptr")}
        back = csr_array((stored["data"], stored["indices"], stored["indptr"]), shape=file["X"].attrs["shape"])
        codes = file["obs/type/codes"][()]
    assert train.ids is not None
    rows = np.array([CELLS.index(name) for name in train.ids])
    np.testing.assert_array_equal(back.toarray(), RNA[rows])
    np.testing.assert_array_equal(codes < 0, rows < 6)
    np.testing.assert_array_equal(np.asarray(train.labels) < 0, rows < 6)


def no_file(path: Path) -> None:
    path.write_bytes(b"HDF")


def a_link(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["mod/rna/X"]
        file["mod/rna/X"] = h5py.ExternalLink("/etc/secret.h5", "/X")


def no_cells(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["mod/rna/obs"]


def a_hole(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["mod/protein/X"][3, 1] = np.nan


def elsewhere(path: Path) -> None:
    """Store the bytes of a matrix in another file."""
    with h5py.File(path, "a") as file:
        shape = file["mod/protein/X"].shape
        del file["mod/protein/X"]
        outside = [("/etc/hostname", 0, h5py.h5f.UNLIMITED)]
        file["mod/protein"].create_dataset("X", shape=shape, dtype="f4", external=outside)


def put_together(path: Path) -> None:
    """Make a matrix a view of one in another file."""
    with h5py.File(path, "a") as file:
        shape = file["mod/protein/X"].shape
        del file["mod/protein/X"]
        layout = h5py.VirtualLayout(shape=shape, dtype="f4")
        layout[:] = h5py.VirtualSource("other.h5", "X", shape=shape)
        file["mod/protein"].create_virtual_dataset("X", layout, fillvalue=0)


def sparse(part: str, place: int, value: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "a") as file:
            file[f"mod/rna/X/{part}"][place] = value

    return spoil


def changed(name: str, values: Any) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file[name]
            put(file, name, values)

    return spoil


def a_cell_twice(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["mod/rna/obs/names"][1] = file["mod/rna/obs/names"][0]


SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "no file of HDF5": (no_file, "this is not a valid .h5mu file of anndata"),
    "a link to another file": (a_link, "mod/rna/X leads to another file, /etc/secret.h5"),
    "a matrix that lies elsewhere": (elsewhere, "mod/protein/X is stored in another file"),
    "a view of another file": (put_together, "mod/protein/X is stored in another file"),
    "a feature out of the matrix": (
        sparse("indices", 0, 10**6),
        r"this is not a valid \.h5mu file .*indices must be < 6",
    ),
    "a feature before the first": (
        sparse("indices", 0, -5),
        r"this is not a valid \.h5mu file .*indices must be >= 0",
    ),
    "rows that end before they begin": (sparse("indptr", 3, 10**6), r"this is not a valid \.h5mu file .*indptr"),
    "fewer rows than cells": (
        changed("mod/protein/X", PROTEIN[:20]),
        r"protein: X of type float64 and shape \(20, 3\) found, expected numbers for 33 cells and 3 features",
    ),
    "a mask of others": (
        changed("obsm/protein", np.ones(7, bool)),
        r"obsm/protein: shape \(7,\) found, expected one",
    ),
    "a cell twice": (a_cell_twice, "cells.h5mu/rna: name 'cell0' found 2 times"),
    "no cells": (no_cells, "this is not a valid .h5mu file of anndata"),
    "NaN": (a_hole, "protein: NaN or infinity found in row 3, expected finite numbers"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_files_are_refused(tmp_path: Path, case: str) -> None:
    path = multi(tmp_path / "cells.h5mu")
    spoil, sentence = SPOILED[case]
    spoil(path)
    refused(path, tmp_path / "data", sentence, ROLES)


def test_a_modality_is_left_out_on_request(tmp_path: Path) -> None:
    import_data([multi(tmp_path / "cells.h5mu")], tmp_path / "data", Roles(label="type", skip=("protein",)))
    assert [m.name for m in Dataset.load(tmp_path / "data/train").modalities] == ["rna"]


def test_a_misspelt_label_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--label typ: no such column found \(did you mean type"):
        import_data([multi(tmp_path / "cells.h5mu")], tmp_path / "data", Roles(label="typ"))


def test_normalised_counts_in_raw_are_told_where_x_has_been_scaled(tmp_path: Path) -> None:
    """As scanpy leaves a file: X has z-scores of log(1 + counts, divided by totals), and raw has these logarithms."""
    counts = RNG.poisson(1, (N, 30)) + np.eye(N, 30)
    logarithms = np.log1p(1e4 * counts / counts.sum(1, keepdims=True)).astype(np.float32)
    scaled = (logarithms - logarithms.mean(0)) / logarithms.std(0)
    genes = [f"gene{number}" for number in range(30)]
    for name, x, raw in (("scaled", scaled, logarithms), ("log", logarithms, logarithms), ("other", scaled, scaled)):
        with h5py.File(tmp_path / f"{name}.h5ad", "w") as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            frame(file, "obs", CELLS)
            frame(file, "var", genes)
            put(file, "X", x)
            frame(file.create_group("raw"), "var", genes)
            matrix(file["raw"], raw, "csr_matrix")
    told = [
        [line for line in import_data([tmp_path / f"{name}.h5ad"], tmp_path / name, Roles()) if "further" in line]
        for name in ("scaled", "log", "other")
    ]
    assert told == [
        [
            "scaled.h5ad: X has been transformed further than counts that were divided by the total of their row, "
            "which are not read: layer raw; --layer NAME reads them in place of X, as counts again"
        ],
        [],
        [],
    ]
    import_data([tmp_path / "scaled.h5ad"], tmp_path / "raw", Roles(layer={"": "raw"}))
    assert Dataset.load(tmp_path / "raw/train").modalities[0].likelihood == "negative_binomial"
