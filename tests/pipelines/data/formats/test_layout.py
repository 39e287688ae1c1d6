"""Folders of images that are splits, modalities, classes or subjects."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.importing import notes
from support.pixels import tree

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.formats.layout import layout_of
from postprior.pipelines.data.importing.rows import import_rows


def test_folders_of_classes_are_labels(tmp_path: Path) -> None:
    pets = tree(tmp_path / "pets", *(f"{'cat' if row % 2 else 'dog'}/{row}" for row in range(60)))
    lines = notes(pets, tmp_path / "data", Roles())
    assert lines == [
        "pets: 2 folders share no file names and are classes (cat, dog); "
        "--folders modalities or --folders subjects reads them otherwise"
    ]
    train = Dataset.load(tmp_path / "data/train")
    assert (train.label_names, [m.name for m in train.modalities]) == (("cat", "dog"), ["pets"])
    assert train.ids is not None
    assert train.labels is not None
    assert [str(id).partition("/")[0] for id in train.ids] == [("cat", "dog")[label] for label in train.labels]
    replace(train, ids=None, folder=None).save(tmp_path / "synthetic")
    export(tmp_path / "synthetic", tmp_path / "out")
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.png")}
    assert written == {f"pets/{('cat', 'dog')[label]}/{row}.png" for row, label in enumerate(train.labels)}
    unlabelled = tree(tmp_path / "new/pets", "9")
    import_rows([unlabelled], tmp_path / "rows", Roles(), tmp_path / "data")
    assert Dataset.load(tmp_path / "rows").labels is None
    import_rows([tree(tmp_path / "more/pets", "cat/7")], tmp_path / "more/rows", Roles(), tmp_path / "data")
    assert Dataset.load(tmp_path / "more/rows").labels == [0]


LAYOUTS: dict[str, tuple[list[str], str | None, list[tuple[str, str, str | None, str | None]]]] = {
    "modalities": (["a/0", "b/0"], None, [("a", "0", None, None), ("b", "0", None, None)]),
    "classes": (["a/0", "b/1"], None, [("top", "a/0", None, "a"), ("top", "b/1", None, "b")]),
    "numbers that start again": (["a/0", "b/0"], "classes", [("top", "a/0", None, "a"), ("top", "b/0", None, "b")]),
    "modalities that share nothing": (["a/0", "b/1"], "modalities", [("a", "0", None, None), ("b", "1", None, None)]),
    "one modality": (["a/0", "a/1"], None, [("a", "0", None, None), ("a", "1", None, None)]),
    "images in the folder": (["0", "a/1"], None, [("top", "0", None, None), ("top", "a/1", None, None)]),
    "folders below modalities": (["a/x/0", "b/x/0"], None, [("a", "x/0", None, None), ("b", "x/0", None, None)]),
    "classes below modalities": (["a/x/0", "b/x/0"], "subjects", [("a", "x/0", None, "x"), ("b", "x/0", None, "x")]),
    "splits of classes": (
        ["train/a/0", "Val/b/1", "testing/a/0"],
        None,
        [
            ("top", "Val/b/1", "validation", "b"),
            ("top", "testing/a/0", "test", "a"),
            ("top", "train/a/0", "train", "a"),
        ],
    ),
    "splits of modalities": (
        ["train/a/0", "train/b/0", "test/a/0"],
        None,
        [("a", "test/0", None, None), ("a", "train/0", None, None), ("b", "train/0", None, None)],
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts_of_folders(case: str) -> None:
    names, wanted, expected = LAYOUTS[case]
    layout = layout_of(Path("top"), [Path("top") / f"{name}.png" for name in names], wanted)
    found = [(file.modality, file.id, file.split, file.owner) for files in layout.files.values() for file in files]
    assert found == expected


def test_files_that_systems_leave_behind(tmp_path: Path) -> None:
    folder = tree(tmp_path / "in", *map(str, range(30)))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/0.png", "@eaDir/1.jpg", "labels.csv"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"no image")
    assert notes(folder, tmp_path / "data", Roles()) == ["in: 1 other files ignored: labels.csv"]
