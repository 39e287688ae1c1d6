"""Import and export of archives: kinds of arrays, missing values, and invalid archives."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pytest
from support.archives import N, an_archive, exported, load, saved, views
from support.importing import refused

from postprior.pipelines.data.arrays import read_arrays
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError


def test_arrays_are_restored(tmp_path: Path) -> None:
    arrays = views()
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles(label="labels"))
    back = exported(tmp_path / "data", tmp_path / "back")
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype, name
        np.testing.assert_array_equal(back[name], array, name)


def test_shapes_and_values_determine_the_kind(tmp_path: Path) -> None:
    text = "\n".join(import_data([saved(tmp_path, views())], tmp_path / "data", Roles()))
    train = Dataset.load(tmp_path / "data/train")
    assert {m.name: (m.kind, m.shape, m.likelihood, m.range) for m in train.modalities} == {
        "vector": ("vector", (4,), "normal", None),
        "scalar": ("vector", (1,), "normal", None),
        "reads": ("vector", (5,), "negative_binomial", None),
        "bits": ("vector", (3,), "bernoulli", None),
        "grey": ("image", (1, 6, 5), "laplace", (0, 1)),
        "colour": ("image", (3, 6, 5), "laplace", (0, 1)),
        "scan": ("volume", (1, 4, 5, 6), "laplace", None),
    }
    assert train.label_names == ("a", "b", "c")
    for told in (
        "scan",
        "1 × 4 × 5 × 6",
        "60 of 60",
        "all rows have all modalities",
        "subjects (groups): 30",
    ):
        assert told in text
    np.testing.assert_allclose(train.data["vector"].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.data["vector"].std(0), 1, atol=1e-5)
    assert (train.data["scan"].min(), train.data["scan"].max()) == (0, 1)


def test_zero_heavy_vectors_are_recognised(tmp_path: Path) -> None:
    """Counts per cell, divided by the size of the cell, and what people make of these; one coordinate is constant."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 2, 12), (N, 12)) + (np.arange(12) == N % 12)
    counts[:, 3] = 0
    shares = counts / counts.sum(1, keepdims=True)
    arrays = {
        "counts": counts.astype(np.float32),
        "shares": shares,
        "millions": (1e6 * shares).astype(np.float32),
        "some": (1e6 * shares)[:, :8],
        "logarithms": np.log1p(1e4 * shares).round(3).astype(np.float32),
        "fractions": rng.dirichlet(np.ones(3), N)[:, [0, 1, 2, 0]] * [1, 1, 1, 0],
        "amounts": np.exp(rng.normal(size=(N, 4))) * (rng.random((N, 4)) < 0.5),
        "signed": rng.normal(size=(N, 4)) * (rng.random((N, 4)) < 0.5),
        "positive": np.exp(rng.normal(size=(N, 4))),
        "plain": np.exp(rng.normal(size=(N, 4))) * (rng.random((N, 4)) < 0.5),
    }
    lines = import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles(kinds={"plain": "numeric"}))
    found = {m.name: m.likelihood for m in Dataset.load(tmp_path / "data/train").modalities}
    assert found == {
        **dict.fromkeys(("counts", "shares", "millions", "some", "logarithms"), "negative_binomial"),
        **dict.fromkeys(("fractions", "amounts"), "hurdle_lognormal"),
        **dict.fromkeys(("signed", "positive", "plain"), "normal"),
    }
    told = {line.split(":")[0]: line.split(": ")[1].split(",")[0] for line in lines if ", read as " in line}
    assert told == {
        **dict.fromkeys(("shares", "millions", "some"), "counts"),
        "logarithms": "log(1 + counts",
        "fractions": "fractions that sum to 1 in each row",
        "amounts": "amounts",
    }
    zeros = f"{(counts == 0).mean():.0%} zeros, read as counts again; --kind shares=nonnegative keeps them"
    assert any(line.startswith("shares: ") and line.endswith(zeros) for line in lines)
    train = Dataset.load(tmp_path / "data/train")
    for name in ("shares", "millions", "logarithms"):
        np.testing.assert_array_equal(train.data[name], counts[np.asarray(train.ids)], name)
    back = exported(tmp_path / "data", tmp_path / "back")
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array, name)


def test_arrays_are_left_out_on_request(tmp_path: Path) -> None:
    arrays = views() | {"mask": np.random.default_rng(0).random((N, 7)) < 0.9}
    skip = ("scalar", "grey", "colour", "scan")
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles(skip=skip))
    for dataset in load(tmp_path / "data").values():
        assert [m.name for m in dataset.modalities] == ["vector", "reads", "bits"]
        rows = [int(name[1:]) for name in dataset.ids]  # type: ignore[union-attr]
        np.testing.assert_array_equal(dataset.observed, arrays["mask"][rows][:, [0, 2, 3]])


def test_tokens_are_used_on_request(tmp_path: Path) -> None:
    arrays = {"text": np.random.default_rng(0).integers(0, 9, (N, 7))}
    path = saved(tmp_path, arrays)
    import_data([path], tmp_path / "data", Roles(kinds={"text": "tokens"}))
    (modality,) = Dataset.load(tmp_path / "data/train").modalities
    assert (modality.kind, modality.shape, modality.classes) == ("sequence", (7,), 9)
    np.testing.assert_array_equal(exported(tmp_path / "data", tmp_path / "back")["text"], arrays["text"])


def test_tokens_that_training_lacks_are_refused(tmp_path: Path) -> None:
    arrays = {"text": np.random.default_rng(0).integers(0, 9, (N, 7))}
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles(kinds={"text": "tokens"}))
    ids = Dataset.load(tmp_path / "data/test").ids
    assert ids is not None
    arrays["text"][ids[0], 3] = 12
    with pytest.raises(UserError, match="text: token 12 found, expected 0 to 8 as in the training rows"):
        import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles(kinds={"text": "tokens"}))


def test_nan_is_missing_on_request(tmp_path: Path) -> None:
    arrays = views()
    arrays["vector"][3] = np.nan
    arrays["vector"][7, 2] = np.nan
    arrays["scan"][9] = np.nan
    path = saved(tmp_path, arrays)
    with pytest.raises(
        UserError, match="vector: NaN or infinity found in row 3, expected finite numbers; add --nan-is-missing"
    ):
        import_data([path], tmp_path / "data", Roles())
    text = "\n".join(import_data([path], tmp_path / "data", Roles(nan_is_missing=True)))
    observed = np.concatenate([d.observed for d in load(tmp_path / "data").values()])
    assert (~observed).sum(0).tolist() == [1, 0, 0, 0, 0, 0, 1]
    assert ".       x       x      x     x     x       x     1" in text
    back = exported(tmp_path / "data", tmp_path / "back")
    np.testing.assert_array_equal(np.isnan(back["vector"]), np.isnan(arrays["vector"]))
    np.testing.assert_array_equal(back["mask"][:, 6], np.arange(N) != 9)
    arrays["vector"][5, 0] = np.inf
    with pytest.raises(UserError, match="NaN or infinity found in row 5, expected finite numbers; correct"):
        import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles(nan_is_missing=True))


def test_masks_mark_missing_rows_and_scales_ignore_these(tmp_path: Path) -> None:
    arrays = {name: array for name, array in views().items() if name in ("vector", "grey", "ids")}
    arrays["vector"][::2] = 1e6
    arrays["mask"] = np.stack([np.arange(N) % 2 == 1, np.ones(N, bool)], 1)
    arrays["mask_grey"] = np.arange(N) % 4 != 1
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles())
    for dataset in load(tmp_path / "data").values():
        assert dataset.ids is not None
        rows = np.array([int(i[1:]) for i in dataset.ids])
        np.testing.assert_array_equal(dataset.observed, np.stack([rows % 2 == 1, rows % 4 != 1], 1))
        assert np.abs(dataset.data["vector"]).max() < 10
    again = exported(tmp_path / "data", tmp_path / "back")
    np.testing.assert_array_equal(again["mask"][:, 1], arrays["mask_grey"])
    assert np.isnan(again["vector"][::2]).all()


def test_fill_values_of_missing_images_do_not_affect_the_range(tmp_path: Path) -> None:
    arrays = {"colour": views()["colour"], "reads": views()["reads"], "mask_colour": np.arange(N) % 4 != 1}
    arrays["colour"][1::4] = -1
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles())
    assert Dataset.load(tmp_path / "data/train").modalities[0].range == (0, 1)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_large_arrays_are_read_in_pieces(
    save: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postprior.pipelines.data.arrays.LARGE", 1000)
    large = np.arange(600, dtype=np.int16).reshape(20, 2, 15)
    arrays = {
        "large": large,
        "fortran": np.asfortranarray(large[:, 0]),
        "small": np.arange(3),
        "texts": np.array(["a"]),
    }
    save(path := tmp_path / "x.npz", **arrays)
    found = read_arrays(path)
    assert isinstance(found["large"], np.memmap)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    place = path.read_bytes().find(large[5:7].tobytes())
    if place >= 0:  # not compressed
        path.write_bytes(path.read_bytes()[:place] + b"?" + path.read_bytes()[place + 1 :])
        with pytest.raises(UserError, match=r"x\.npz: large: no array of numbers or texts found"):
            read_arrays(path)


def an_object(folder: Path) -> Path:
    np.savez(folder / "views.npz", x=np.array([{}, None], dtype=object))
    return folder / "views.npz"


def one_name_twice(folder: Path) -> Path:
    np.savez(folder / "views.npz", x=np.zeros((20, 3)))
    content = io.BytesIO()
    np.save(content, np.ones((20, 3)))
    with (
        zipfile.ZipFile(folder / "views.npz", "a") as file,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        file.writestr("x.npy", content.getvalue())
    return folder / "views.npz"


def a_pickle(folder: Path) -> Path:
    (folder / "views.npz").write_bytes(pickle.dumps({"x": 1}))
    return folder / "views.npz"


def half_of_it(folder: Path) -> Path:
    path = saved(folder, views())
    path.write_bytes(path.read_bytes()[:1000])
    return path


def a_letter(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "views.npz", "w") as archive:
        archive.writestr("a.txt", "Dear reader")
    return folder / "views.npz"


def no_contents(folder: Path) -> Path:
    path = saved(folder, {"x": X})
    path.write_bytes(path.read_bytes().replace(b"PK\x01\x02", b"PK\x00\x02"))
    return path


X = np.random.default_rng(0).normal(size=(N, 3))
SPOILED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "objects": (an_object, "x: no array of numbers or texts found"),
    "one name twice": (
        one_name_twice,
        r"views\.npz: array x found twice, expected a different name for each array",
    ),
    "a pickle": (a_pickle, "this is not an .npz file"),
    "half a file": (half_of_it, "this is not an .npz file"),
    "unequal lengths": (an_archive(x=X, y=X[1:]), r"y: shape \(59, 3\) found, expected 60 rows as in x"),
    "short labels": (an_archive(x=X, labels=np.arange(9)), r"labels: shape \(9,\) found, expected 60 rows"),
    "no modality": (an_archive(labels=np.arange(9)), "no modality found"),
    "texts": (an_archive(x=np.array(["a"] * N)), "x: <U1 of shape .* found, expected numbers"),
    "too many axes": (an_archive(x=np.zeros((N, 1, 2, 3, 4, 5))), r"x: values of shape \(1, 2, 3, 4, 5\)"),
    "a mask of numbers": (an_archive(x=X, mask=np.ones((N, 1))), r"mask: float64 .* expected bool \(60, 1\)"),
    "a mask of another": (an_archive(x=X, mask_x=np.ones((N, 3), bool)), r"mask_x: .* expected bool \(60,\)"),
    "half labels": (an_archive(x=X, labels=X[:, 0]), "label labels: values such as .* for a quantity use --target"),
    "few names": (
        an_archive(x=X, labels=np.arange(N) % 3, label_names=np.array(["a"])),
        "labels: values from 0 to 2 found, expected indices of label_names from 0 to 0",
    ),
    "names of texts": (
        an_archive(x=X, labels=np.array(["a", "b"] * 30), label_names=np.array(["a", "b"])),
        "labels: values from a to b found, expected indices of label_names from 0 to 1",
    ),
    "one name": (
        an_archive(x=X, labels=np.arange(N) % 3, label_names=np.array("a")),
        r"label_names: <U1 \(\) found, expected texts",
    ),
    "no rows": (an_archive(x=X[:0], label_names=np.array(["a"])), "x: no rows found, expected one row per sample"),
    "a hole in the targets": (
        an_archive(x=X, targets=np.where(np.arange(N) == 3, np.nan, 1.0)),
        "target0: 1 of 60 samples have no value, the first of them is 3",
    ),
    "another archive": (a_letter, r"a\.txt: no array .*this is not an array"),
    "a broken table of contents": (no_contents, "the archive cannot be opened"),
    "targets of texts": (an_archive(x=X, targets=np.array(["a"] * N)), "targets: <U1 .* expected numbers"),
    "an id twice": (an_archive(x=X, ids=np.arange(N) // 2), "ids '0' found 2 times"),
    "never observed": (
        an_archive(x=X, y=X, mask_y=np.zeros(N, bool)),
        "y: no training row has this modality, expected at least one",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_archives_are_refused(tmp_path: Path, case: str) -> None:
    make, sentence = SPOILED[case]
    refused(make(tmp_path), tmp_path / "data", sentence, Roles())


KINDS = {
    "vector=count": "vector: float64 values .* whole numbers",
    "reads=boolean": "expected zeros and ones",
    "grey=tokens": "expected rows of whole numbers",
    "vector=image": "expected one of numeric, nonnegative, log1p, count, normalised_count, log_normalised_count, "
    "boolean, tokens",
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    name, kind = case.split("=")
    refused(saved(tmp_path, views()), tmp_path / "data", KINDS[case], Roles(kinds={name: kind}))


def test_data_without_a_conversion_are_exported_too(tmp_path: Path) -> None:
    from support.kinds import example

    made = example(12)
    made.save(tmp_path / "data")
    assert export(tmp_path / "data", tmp_path / "back") == ["data.npz", "record.csv"]
    with np.load(tmp_path / "back/data.npz") as archive:
        assert set(archive) == {"notes", "codes", "reads", "scan", "segments", "ids", "labels", "label_names"}
        for name in ("notes", "codes", "reads", "scan", "segments"):
            np.testing.assert_array_equal(archive[name], made.data[name])
    table = csv.read_csv(tmp_path / "back/record.csv")
    assert table.column_names == ["id", "label", "age", "city", "visits", "smoker"]
    assert table["city"].to_pylist() == made.data["record"][:, 1].tolist()
    for format, sentence in (
        ("csv", "notes is a sequence, expected only tables"),
        ("npz", "record is a table, expected only arrays"),
        ("pgn", r"'pgn', which is not a known format; known: csv, images, npz"),
    ):
        with pytest.raises(UserError, match=sentence):
            export(tmp_path / "data", tmp_path / "other", format)


def test_a_conversion_of_other_data_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    test = Dataset.load(tmp_path / "data/test")
    assert test.conversion is not None
    entries = test.conversion["modalities"]
    for changed, sentence in (
        ({**entries, "vector": entries["reads"]}, "conversion of vector: it belongs to other data"),
        ({**entries, "vector": {"kind": "numeric"}}, "conversion of vector: damaged \\('axes'\\)"),
        ({**entries, "vector": {**entries["vector"], "file": "../x.npz"}}, r"'\.\./x\.npz' leads to another"),
        ({**entries, "vector": {**entries["vector"], "file": "a\0b"}}, "leads to another"),
        (
            {**entries, "vector": {**entries["vector"], "source": "gopher"}},
            "conversion of vector: damaged \\('gopher'",
        ),
        (
            {**entries, "vector": {**entries["vector"], "source": "images"}},
            "conversion of vector: the key folder is missing",
        ),
        ({**entries, "vector": {**entries["vector"], "source": ["npz"]}}, "conversion of vector: damaged .unhashable"),
        ({**entries, "vector": 3}, "conversion of vector: .*; import the data again"),
    ):
        replace(test, conversion={**test.conversion, "modalities": changed}).save(tmp_path / "changed")
        with pytest.raises(UserError, match=sentence):
            export(tmp_path / "changed", tmp_path / "back")


DAMAGED: dict[str, Any] = {
    "tables": [1],
    "ids": 3,
    "labels": {"name": "labels", "type": "int64"},  # they are texts
    "groups": {"name": "groups", "type": "none that Arrow knows"},
    "targets": [{"name": "age"}],
}


@pytest.mark.parametrize("key", DAMAGED)
def test_damaged_conversions_are_refused_before_anything_is_written(tmp_path: Path, key: str) -> None:
    from dataclasses import replace

    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    test = Dataset.load(tmp_path / "data/test")
    assert test.conversion is not None
    replace(test, conversion={**test.conversion, key: DAMAGED[key]}).save(tmp_path / "changed")
    with pytest.raises(UserError, match=r"conversion: the entry is damaged \(.* found\); import the data again"):
        export(tmp_path / "changed", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_folder_of_splits_is_refused(tmp_path: Path) -> None:
    import_data([saved(tmp_path, views())], tmp_path / "data", Roles())
    with pytest.raises(
        UserError, match=r"data: a folder of splits found, expected one dataset folder; export .*data/train"
    ):
        export(tmp_path / "data", tmp_path / "back")
