"""Files that anndata 0.12.19 and mudata 0.3.10 wrote, and files of earlier versions: every part of them comes back."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from support.importing import refused

from postprior.pipelines.data.arrays import blocks, chunks
from postprior.pipelines.data.dataset import SPLITS, Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.rows import SparseRows
from postprior.pipelines.errors import UserError

h5py = pytest.importorskip("h5py")
FIXTURES = Path(__file__).parents[3] / "fixtures/omics"
CELLS = [f"cell{row}" for row in range(40)]
RNG = np.random.default_rng(0)


def written(folder: Path, suffix: str = ".h5ad") -> Path:
    """Unpack a file of 40 cells with columns of every type, a layer, two matrices of obsm, and raw."""
    path = folder / f"written{suffix}"
    path.write_bytes(gzip.decompress((FIXTURES / f"{path.name}.gz").read_bytes()))
    return path


def parts(stored: Any, rows: Any = ()) -> dict[str, Any]:
    """Return the content of a group at these rows: arrays with their type, and the attributes of encodings."""
    if hasattr(stored, "keys"):
        kind = stored.attrs.get("encoding-type")
        if kind in ("csr_matrix", "csc_matrix"):
            matrix = csr_array(tuple(stored[n][()] for n in ("data", "indices", "indptr")), stored.attrs["shape"])
            return {"": (kind, matrix.toarray()[rows].tolist(), str(matrix.dtype))}
        found = {
            f"{n}/{key}": value
            for n in stored
            for key, value in parts(stored[n], rows if n != "categories" else ()).items()
        }
        return {**found, "": (kind, stored.attrs.get("encoding-version"), bool(stored.attrs.get("ordered")))}
    values = stored.asstr()[()] if stored.dtype.kind == "O" else stored[()]
    return {"": (stored.attrs["encoding-type"], repr(values[rows].tolist()), str(stored.dtype))}


def compare(path: Path, data: Path, out: Path, names: list[str], order: list[str] | None = None) -> None:
    """Export all splits, and assert that the parts of the file that hold its cells are those of the original."""
    seen = []
    with h5py.File(path) as original:
        for split in SPLITS:
            export(data / split, out / split)
            with h5py.File(out / split / path.name) as back:
                cells = back["obs/_index"].asstr()[()].tolist()
                seen += cells
                for name in names:
                    places = np.array([(order or CELLS).index(cell) for cell in cells])
                    everything = name.endswith("var")
                    assert parts(back[name]) == parts(original[name], () if everything else places), name
                assert list(back["obs"].attrs["column-order"]) == list(original["obs"].attrs["column-order"])
    assert sorted(seen) == sorted(CELLS)


def test_all_columns_and_matrices_come_back_as_anndata_wrote_them(tmp_path: Path) -> None:
    path = written(tmp_path)
    roles = Roles(label="type", group="donor", layer={"": "counts"}, obsm=("protein_expression", "X_pca"))
    lines = import_data([path], tmp_path / "data", roles)
    assert any(
        line.startswith("written.h5ad: left out: X, layer raw; --layer NAME reads one in place") for line in lines
    )
    train = Dataset.load(tmp_path / "data/train")
    assert [(m.name, m.shape, m.likelihood) for m in train.modalities] == [
        ("written", (6,), "negative_binomial"),
        ("X_pca", (4,), "normal"),
        ("protein_expression", (3,), "negative_binomial"),
    ]
    assert train.label_names == ("B", "NK", "T")
    compare(path, tmp_path / "data", tmp_path / "out", ["obs", "var", "layers", "obsm"])
    with h5py.File(tmp_path / "out/train/written.h5ad") as back:
        assert back["obs/type/categories"].asstr()[()].tolist() == ["T", "B", "unused", "NK"]
        assert back["obs/type"].attrs["ordered"]
        assert list(back["obsm/protein_expression"].attrs["column-order"]) == ["CD3", "CD4", "CD19"]


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    lines = import_data([written(tmp_path)], tmp_path / "data", Roles())
    assert (
        "written.h5ad: left out: layer raw, layer counts, obsm X_pca, obsm protein_expression; "
        "--layer NAME reads one in place of X, --obsm NAME reads one of obsm as well"
    ) in lines
    assert "written.h5ad: counts that are not read: layer counts; --layer NAME reads them in place of X" in lines
    compare(tmp_path / "written.h5ad", tmp_path / "data", tmp_path / "out", ["obs", "var", "X"])


def test_ids_of_a_column_match_another_source_and_names_of_cells_stay(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("note,age\n" + "".join(f"text {row},{row * 1.5}\n" for row in range(40)))
    import_data([written(tmp_path), tmp_path / "people.csv"], tmp_path / "data", Roles(id="note"))
    train = Dataset.load(tmp_path / "data/train")
    assert [m.name for m in train.modalities] == ["written", "people"]
    assert train.observed.all()
    compare(tmp_path / "written.h5ad", tmp_path / "data", tmp_path / "out", ["obs", "X"])


def test_cells_that_a_modality_lacks_are_missing(tmp_path: Path) -> None:
    """The file has the proteins of cell10 to cell39 only, and a column of these cells."""
    path = written(tmp_path, ".h5mu")
    import_data([path], tmp_path / "data", Roles(label="type", layer={"rna": "counts"}))
    for split in SPLITS:
        dataset = Dataset.load(tmp_path / "data" / split)
        rows = [int(name[4:]) for name in dataset.ids]  # type: ignore[union-attr]
        np.testing.assert_array_equal(dataset.observed, [[True, row >= 10] for row in rows])
        export(tmp_path / "data" / split, tmp_path / "out" / split)
        with h5py.File(tmp_path / "out" / split / path.name) as back, h5py.File(path) as original:
            assert parts(back["obs"]) == parts(original["obs"], rows)
            inside = [row - 10 for row in rows if row >= 10]
            for name in ("obs", "X"):
                assert parts(back[f"mod/prot/{name}"]) == parts(original[f"mod/prot/{name}"], inside)
            assert parts(back["mod/rna/layers"]) == parts(original["mod/rna/layers"], rows)


def no_matrix(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["X"], file["raw"]


def test_a_file_without_x_is_read_from_its_only_layer(tmp_path: Path) -> None:
    no_matrix(path := written(tmp_path))
    lines = import_data([path], tmp_path / "data", Roles())
    assert "written.h5ad: no X found, read in its place: layer counts" in lines
    compare(path, tmp_path / "data", tmp_path / "out", ["obs", "var", "layers"])
    with h5py.File(path, "a") as file:
        del file["layers"]
    refused(path, tmp_path / "none", "no X found, expected a matrix; add one of --obsm X_pca", Roles())
    import_data([path], tmp_path / "only", Roles(obsm=("X_pca",)))
    assert [m.name for m in Dataset.load(tmp_path / "only/train").modalities] == ["X_pca"]
    compare(path, tmp_path / "only", tmp_path / "out2", ["obs", "obsm/X_pca"])


@pytest.mark.parametrize("version", ["0.6", "0.7"])
def test_files_of_earlier_versions_are_read(tmp_path: Path, version: str) -> None:
    """Version 0.6 wrote arrays of records with categories in `uns`; 0.7 wrote categories beside the columns."""
    values, codes = RNG.poisson(2, (40, 3)).astype(np.float32), (np.arange(40) % 2).astype(np.int8)
    sparse, umap = csr_array(values), RNG.normal(size=(40, 2))
    names, genes = np.array(CELLS, "S6"), np.array(["g0", "g1", "g1"], "S2")
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        stored = file.create_group("X")
        if version == "0.6":
            stored.attrs.update({"h5sparse_format": b"csr", "h5sparse_shape": sparse.shape})
            records = np.rec.fromarrays([names, codes, np.arange(40.0)], names="index,type,age")
            file["obs"], file["var"] = records, np.rec.fromarrays([genes], names="index")
            file["uns/type_categories"] = np.array(["T", "B"], "S1")
            file["obsm"] = np.array([(row,) for row in umap], [("X_umap", "f8", (2,))])
        else:
            stored.attrs.update({"encoding-type": "csr_matrix", "shape": sparse.shape})
            for name, index in (("obs", names), ("var", genes)):
                file[f"{name}/index"] = index
                file[name].attrs.update({"_index": "index", "column-order": ["type", "age"][: 2 * (name == "obs")]})
            file["obs/type"], file["obs/age"], file["obsm/X_umap"] = codes, np.arange(40.0), umap
            file["obs/__categories/type"] = np.array(["T", "B"], "S1")
        for part in ("data", "indices", "indptr"):
            stored[part] = getattr(sparse, part)
    lines = import_data([tmp_path / "old.h5ad"], tmp_path / "data", Roles(label="type", obsm=("X_umap",)))
    assert "old.h5ad: features with the name of an earlier one, made unique: g1-1" in lines
    for split in SPLITS:
        dataset = Dataset.load(tmp_path / "data" / split)
        rows = [int(name[4:]) for name in dataset.ids]  # type: ignore[union-attr]
        np.testing.assert_array_equal(dataset.data["old"], values[rows])
        assert [dataset.label_names[k] for k in dataset.labels] == [["T", "B"][row % 2] for row in rows]  # type: ignore[index, union-attr]
        export(tmp_path / "data" / split, tmp_path / "out" / split)
        with h5py.File(tmp_path / "out" / split / "old.h5ad") as back:
            np.testing.assert_array_equal(back["obsm/X_umap"][()], umap[rows])
            np.testing.assert_array_equal(back["obs/age"][()], rows)
            assert back["obs/type/categories"].asstr()[()].tolist() == ["T", "B"]
            assert back["var/_index"].asstr()[()].tolist() == ["g0", "g1", "g1-1"]


def test_cells_of_the_same_name_are_refused_or_kept(tmp_path: Path) -> None:
    with h5py.File(path := written(tmp_path), "a") as file:
        file["obs/_index"][1] = "cell0"
    refused(path, tmp_path / "none", "name 'cell0' found 2 times, .* --repeated visits, or the first", Roles())
    lines = import_data([path], tmp_path / "first", Roles(repeated="first"))
    assert "written.h5ad: cells with the name of an earlier one, left out: 1" in lines
    assert sum(len(Dataset.load(tmp_path / "first" / split)) for split in SPLITS) == 39
    told = import_data([path], tmp_path / "visits", Roles(repeated="visits"))
    assert "subjects (cell): 39; each synthetic row is a subject of its own, drawn independently" in told


def test_a_column_of_unknown_encoding_is_left_out_or_refused_as_a_label(tmp_path: Path) -> None:
    with h5py.File(path := written(tmp_path), "a") as file:
        del file["obs/level"]
        file.create_group("obs/level").attrs["encoding-type"] = "awkward-array"
    lines = import_data([path], tmp_path / "data", Roles(label="type"))
    assert "written.h5ad: columns of unknown encoding, left out: obs level" in lines
    refused(
        path, tmp_path / "none", "column level: unknown encoding found, expected numbers, texts", Roles(label="level")
    )


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        (
            Roles(layer={"": "count"}),
            r"--layer count: no such matrix found \(did you mean counts\?\), expected one of",
        ),
        (Roles(layer={"rna": "counts"}), "--layer rna: no such modality found, expected one of written"),
        (Roles(obsm=("pca",)), "--obsm pca: no such matrix found.*, expected one of X_pca, protein_expression"),
        (Roles(skip=("written",)), "all modalities are left out, expected at least one"),
        (Roles(label="typ"), "--label typ: no such column found"),
    ],
)
def test_misspelt_names_are_refused(tmp_path: Path, roles: Roles, sentence: str) -> None:
    refused(written(tmp_path), tmp_path / "data", sentence, roles)


def test_layers_of_a_table_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a\n" + "".join(f"{row}.5\n" for row in range(40)))
    refused(
        tmp_path / "a.csv",
        tmp_path / "data",
        "--layer: .*a.csv found, which is not read with this option, expected an .h5ad, .h5mu or .zarr file",
        Roles(layer={"": "counts"}),
    )


def test_zarr_without_its_package_or_with_pickles_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "cells.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    refused(folder, tmp_path / "data", r"needs zarr, which is not installed; .*'postprior\[zarr\]'", Roles())
    (folder / ".zarray").write_text('{"dtype": "|O", "filters": [{"id": "pickle"}]}')
    refused(folder, tmp_path / "data", "pickled objects found, expected arrays of numbers and texts", Roles())


def test_a_zarr_folder_is_read(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(tmp_path / "cells.zarr", mode="w", zarr_format=2)
    root["X"] = values = RNG.poisson(2, (40, 3)).astype(np.float32)
    for name, size in (("obs", 40), ("var", 3)):
        frame = root.create_group(name)
        frame.attrs.update({"_index": "index", "column-order": []})
        frame["index"] = np.array([f"{name}{row}" for row in range(size)], "S6")
    import_data([tmp_path / "cells.zarr"], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    np.testing.assert_array_equal(train.data["cells"], values[[int(name[3:]) for name in train.ids]])  # type: ignore[union-attr]
    assert export(tmp_path / "data/train", tmp_path / "out") == ["cells.h5ad"]


def test_sparse_rows_are_the_rows_of_the_dense_matrix() -> None:
    dense = np.where(RNG.random((50, 7)) < 0.2, RNG.normal(size=(50, 7)), 0)
    rows = SparseRows.of(csr_array(dense))
    picked = RNG.integers(0, 50, 20)
    np.testing.assert_array_equal(np.concatenate(list(chunks(rows, picked))), dense[picked])
    np.testing.assert_array_equal(np.concatenate([rows[block] for block in blocks(rows)]), dense)
    np.testing.assert_array_equal(rows[picked, 2:5], dense[picked, 2:5])
    places = np.array([3, -1, 0])
    np.testing.assert_array_equal(rows.taken(places)[:], np.where(places[:, None] < 0, 0, dense[places]))


@pytest.mark.parametrize("layout", ["csr_matrix", "csc_matrix"])
@pytest.mark.parametrize("logarithms", [False, True])
def test_a_sparse_matrix_gives_the_rows_of_the_dense_one(tmp_path: Path, layout: str, logarithms: bool) -> None:
    """Logarithms are standardised, so that their originals are stored as well."""
    with h5py.File(path := written(tmp_path), "a") as file:
        counts = csr_array(tuple(file[f"layers/counts/{n}"][()] for n in ("data", "indices", "indptr")), (40, 6))
        values = np.log1p(counts.toarray()) if logarithms else counts.toarray()
        matrix = csr_array(values) if layout == "csr_matrix" else csr_array(values).tocsc()
        for name in ("data", "indices", "indptr"):
            del file["X"][name]
            file["X"][name] = getattr(matrix, name)
        file["X"].attrs["encoding-type"] = layout
    roles = Roles(kinds={"written": "numeric"} if logarithms else {})
    import_data([path], tmp_path / "sparse", roles)
    with h5py.File(path, "a") as file:
        del file["X"]
        file["X"] = values
    import_data([path], tmp_path / "dense", roles)
    for split in SPLITS:
        sparse, dense = (Dataset.load(tmp_path / kind / split) for kind in ("sparse", "dense"))
        assert set(sparse.source_values) == set(dense.source_values)
        assert ("written" in dense.source_values) == logarithms or split != "train"
        assert np.asarray(sparse.data["written"]).tobytes() == np.asarray(dense.data["written"]).tobytes()
        for name, source in dense.source_values.items():
            if name != "ids":
                assert np.asarray(sparse.source_values[name]).tobytes() == source.tobytes()


def test_an_unknown_modality_of_a_layer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"--layer prots: no such modality found \(did you mean prot\?\), expected one of prot, rna"
    ):
        import_data([written(tmp_path, ".h5mu")], tmp_path / "data", Roles(layer={"": "counts", "prots": "counts"}))


def test_rows_for_a_trained_model_are_read_from_the_same_matrices(tmp_path: Path) -> None:
    roles = Roles(label="type", layer={"": "counts"}, obsm=("X_pca",))
    import_data([path := written(tmp_path)], tmp_path / "data", roles)
    import_rows([path], tmp_path / "rows", Roles(), tmp_path / "data")
    rows, train = Dataset.load(tmp_path / "rows"), Dataset.load(tmp_path / "data/train")
    places = [CELLS.index(name) for name in train.ids]  # type: ignore[union-attr]
    for name in ("written", "X_pca"):
        np.testing.assert_array_equal(rows.data[name][places], train.data[name])
    with h5py.File(path, "a") as file:
        del file["obsm"], file["layers"]
    with pytest.raises(UserError, match=r"values from 0 to 2\.3.* found, expected whole numbers"):
        import_rows([path], tmp_path / "again", Roles(), tmp_path / "data")
    assert not (tmp_path / "again").exists()
