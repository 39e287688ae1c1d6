"""Import and export of Hugging Face datasets on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.importing import refused

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.errors import UserError

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()
N = 40
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 6, 5, 3), np.uint8)
SIGNAL = RNG.normal(9, 2, (N, 4)).astype(np.float32)
GRID = RNG.normal(size=(N, 3, 2)).astype(np.float32)
AGE = RNG.normal(50, 9, N).round(1)


def photo(row: int) -> Image.Image | None:
    return Image.fromarray(PIXELS[row]) if row % 4 else None


def made(rows: Any = range(N), **changes: Any) -> Any:
    """Return patients with images (missing in every fourth row), arrays, numbers and classes."""
    features = {
        "name": datasets.Value("string"),
        "photo": datasets.Image(),
        "signal": datasets.List(datasets.Value("float32"), length=4),
        "grid": datasets.Array2D((3, 2), "float32"),
        "age": datasets.Value("float64"),
        "visits": datasets.Value("int32"),
        "sex": datasets.ClassLabel(names=["f", "m"]),
    }
    columns = {
        "name": [f"p{row}" for row in rows],
        "photo": [photo(row) for row in rows],
        "signal": [SIGNAL[row].tolist() for row in rows],
        "grid": [GRID[row].tolist() for row in rows],
        "age": [None if row == 7 else AGE[row] for row in rows],
        "visits": [row % 5 for row in rows],
        "sex": [row % 2 for row in rows],
    }
    for name, (column, feature) in changes.items():
        columns[name], features[name] = column, feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


ROLES = Roles(id="name", label="sex")


def test_a_dataset_is_restored(tmp_path: Path) -> None:
    made().save_to_disk(str(tmp_path / "people"))
    text = "\n".join(import_data([tmp_path / "people"], tmp_path / "data", ROLES))
    assert "labels: f (20), m (20)" in text
    seen = []
    for split in ("train", "validation", "test"):
        dataset = Dataset.load(tmp_path / "data" / split)
        assert [(m.name, m.kind, m.shape) for m in dataset.modalities] == [
            ("photo", "image", (3, 6, 5)),
            ("signal", "vector", (4,)),
            ("grid", "image", (1, 3, 2)),
            ("people", "table", (2,)),
        ]
        assert export(tmp_path / "data" / split, tmp_path / "back" / split) == ["people"]
        back = datasets.load_from_disk(str(tmp_path / "back" / split / "people"))
        assert back.column_names == made().column_names
        for name, feature in made().features.items():
            assert back.features[name] == feature, name
        for sample in back:
            row = int(sample["name"][1:])
            assert (sample["photo"] is None) == (row % 4 == 0)
            if row % 4:
                np.testing.assert_array_equal(np.asarray(sample["photo"]), PIXELS[row])
            np.testing.assert_array_equal(sample["signal"], SIGNAL[row])
            np.testing.assert_array_equal(sample["grid"], GRID[row])
            assert sample["age"] == (None if row == 7 else AGE[row])
            assert (sample["visits"], sample["sex"]) == (row % 5, row % 2)
            seen.append(row)
    assert sorted(seen) == list(range(N))


def test_an_unknown_class_is_no_label(tmp_path: Path) -> None:
    sex = [-1] * 6 + [0, 1] * 17
    saved(sex=(sex, datasets.ClassLabel(names=["f", "m"])))(tmp_path / "people")
    import_data([tmp_path / "people"], tmp_path / "data", ROLES)
    train = Dataset.load(tmp_path / "data/train")
    assert train.ids is not None
    rows = [int(name[1:]) for name in train.ids]
    assert np.asarray(train.labels).tolist() == [sex[row] for row in rows]
    export(tmp_path / "data/train", tmp_path / "back")
    back = datasets.load_from_disk(str(tmp_path / "back/people"))
    assert back["sex"][:] == [None if row < 6 else sex[row] for row in rows]


def test_doubles_and_large_numbers_are_restored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = {
        "name": ([f"p{row}" for row in range(N)], datasets.Value("string")),
        "wave": (rng.normal(size=(N, 3)).tolist(), datasets.List(datasets.Value("float64"))),
        "grid": (rng.normal(size=(N, 3, 2)).tolist(), datasets.Array2D((3, 2), "float64")),
        "stamp": (rng.integers(2**60, 2**62, N).tolist(), datasets.Value("int64")),
        "dose": (rng.normal(size=N).tolist(), datasets.Value("float64")),
    }
    features = datasets.Features({name: feature for name, (_, feature) in columns.items()})
    before = datasets.Dataset.from_dict({name: of for name, (of, _) in columns.items()}, features=features)
    before.save_to_disk(str(tmp_path / "in"))
    import_data([tmp_path / "in"], tmp_path / "data", Roles(id="name"))
    for split in ("train", "validation", "test"):
        export(tmp_path / "data" / split, tmp_path / split)
        after = datasets.load_from_disk(str(tmp_path / split / "in"))
        assert after.features == features
        for row in after:
            assert row == before[int(row["name"][1:])]


def test_its_splits_are_kept(tmp_path: Path) -> None:
    parts = {"train": range(20), "dev": range(20, 28), "test": range(28, N)}
    whole = datasets.DatasetDict({name: made(rows) for name, rows in parts.items()})
    whole.save_to_disk(str(tmp_path / "people"))
    import_data([tmp_path / "people"], tmp_path / "data", ROLES)
    validation = Dataset.load(tmp_path / "data/validation")
    assert sorted(validation.ids) == sorted(f"p{row}" for row in parts["dev"])  # type: ignore[arg-type]
    datasets.DatasetDict({**whole, "dev": made(range(20, 24)), "val": made(range(24, 28))}).save_to_disk(
        str(tmp_path / "both")
    )
    import_data([tmp_path / "both"], tmp_path / "joined", ROLES)
    joined = Dataset.load(tmp_path / "joined/validation")
    assert sorted(joined.ids) == sorted(validation.ids)  # type: ignore[arg-type]
    whole.pop("dev")
    whole.save_to_disk(str(tmp_path / "others"))
    import_data(
        [tmp_path / "others"], tmp_path / "again", ROLES, (0.2, 0.2)
    )  # two splits only: all rows are split again
    assert sum(len(Dataset.load(tmp_path / "again" / split)) for split in ("train", "validation", "test")) == 32


def elsewhere(folder: Path) -> None:
    """Write a dataset whose images are file names, a form that no library saves."""
    import pyarrow as pa

    made().save_to_disk(str(folder))
    (file,) = folder.glob("*.arrow")
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    place = table.schema.get_field_index("photo")
    stored = pa.array([{"bytes": None, "path": "/etc/passwd"}] * N, table.schema.field(place).type)
    changed = table.set_column(place, table.schema.field(place), stored)
    with pa.ipc.new_stream(str(file), changed.schema) as writer:
        writer.write_table(changed)


def saved(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: made(**changes).save_to_disk(str(folder))


def two_kinds(folder: Path) -> None:
    other = made(age=(["old"] * N, datasets.Value("string")))
    datasets.DatasetDict({"train": made(), "test": other}).save_to_disk(str(folder))


def links(folder: Path) -> None:
    made().save_to_disk(str(folder))
    (file,) = folder.glob("*.arrow")
    file.rename(folder.parent / "moved.arrow")
    file.symlink_to(folder.parent / "moved.arrow")


def a_file_elsewhere(folder: Path) -> None:
    made().save_to_disk(str(folder))
    made().save_to_disk(str(folder.parent / "other"))
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": "../other/data-00000-of-00001.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))


def a_split_elsewhere(folder: Path) -> None:
    datasets.DatasetDict({"train": made()}).save_to_disk(str(folder))
    made().save_to_disk(str(folder.parent / "other"))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["../other"]}))


LISTS = datasets.List(datasets.Value("float32"))
SPOILED: dict[str, tuple[Callable[[Path], None], str]] = {
    "an image elsewhere": (elsewhere, "photo of row 0: only the name of a file found"),
    "a link that leads out": (links, "leads out of .*people, expected files inside"),
    "a file that lies elsewhere": (a_file_elsewhere, "leads out of .*people, expected files inside"),
    "a split that lies elsewhere": (a_split_elsewhere, "leads out of .*people, expected files inside"),
    "no rows": (lambda folder: made([]).save_to_disk(str(folder)), "people: no rows found"),
    "NaN": (
        saved(signal=([[1.0, float("nan")]] * N, LISTS)),
        "signal: NaN or infinity found in row 0, expected finite numbers; add --nan-is-missing",
    ),
    "no image": (
        saved(photo=([{"path": None, "bytes": b"PNG"}] * N, datasets.Image())),
        "photo of row 0: this image cannot be read",
    ),
    "images of two sizes": (
        saved(photo=([Image.new("RGB", (5, 6 + row)) for row in range(N)], datasets.Image())),
        r"photo of row \d+: \d+ sizes \(height × width\) found in photo: 6 × 5 \(1\), .* more; .*add --size 6 5",
    ),
    "splits of two kinds": (
        two_kinds,
        "people: splits with different columns found",
    ),
    "lists of two lengths": (
        saved(signal=([[1.0] * (1 + row % 2) for row in range(N)], LISTS)),
        r"signal: List\(.* found, expected images, numbers, texts, or arrays of one shape",
    ),
}


@pytest.mark.parametrize("mode", ["CMYK", "F"])
def test_images_of_any_mode_come_back(tmp_path: Path, mode: str) -> None:
    images = [Image.fromarray(PIXELS[row]).convert(mode) for row in range(N)]
    made(photo=(images, datasets.Image())).save_to_disk(str(tmp_path / "people"))
    text = "\n".join(import_data([tmp_path / "people"], tmp_path / "data", ROLES))
    assert ("photo: CMYK colours of 40 of 40 images converted to RGB" in text) == (mode == "CMYK")
    export(tmp_path / "data/test", tmp_path / "back")
    for sample in datasets.load_from_disk(str(tmp_path / "back/people")):
        assert sample["photo"].mode == mode
        np.testing.assert_array_equal(np.asarray(sample["photo"]), np.asarray(images[int(sample["name"][1:])]))


@pytest.mark.parametrize("case", SPOILED)
def test_invalid_datasets_are_refused(tmp_path: Path, case: str) -> None:
    make, sentence = SPOILED[case]
    make(tmp_path / "people")
    refused(tmp_path / "people", tmp_path / "data", sentence, ROLES)


def test_an_incomplete_dataset_is_refused(tmp_path: Path) -> None:
    made().save_to_disk(str(tmp_path / "people"))
    (tmp_path / "people/dataset_info.json").unlink()
    with pytest.raises(UserError, match="people: this dataset cannot be read"):
        import_data([tmp_path / "people"], tmp_path / "data", ROLES)
