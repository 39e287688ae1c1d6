"""Import and bit-exact export of folders of images."""

from __future__ import annotations

import struct
import unicodedata
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from PIL import Image
from support.archives import SPLITS, load, saved, views
from support.importing import refused

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.stage1_vae.modalities import Modality


def pictures(folder: Path, rows: int = 40) -> dict[str, np.ndarray]:
    """Write three modalities of images named 0, 1, …; `depth` is missing in every fourth row."""
    rng = np.random.default_rng(0)
    found = {
        "photo": rng.integers(0, 256, (rows, 6, 5, 3), np.uint8),
        "mask": rng.integers(0, 256, (rows, 6, 5), np.uint8),
        "depth": rng.integers(900, 5000, (rows, 4, 4)).astype(np.uint16),
    }
    for name, pixels in found.items():
        for row in range(rows):
            path = folder / name.replace("mask", "mask 1") / f"{'ab'[row % 2]}/{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if name != "depth" or row % 4:
                Image.fromarray(pixels[row]).save(path)
    return found


def test_images_are_restored_to_the_bit(tmp_path: Path) -> None:
    pixels = pictures(tmp_path / "in")
    table = pa.table({"file": [f"{'ab'[row % 2]}/{row}" for row in range(40)], "sex": ["f", "m"] * 20})
    csv.write_csv(table, tmp_path / "people.csv")
    roles = Roles(id="file", label="sex")
    import_data([tmp_path / "in", tmp_path / "people.csv"], tmp_path / "data", roles)
    splits = load(tmp_path / "data")
    assert [(m.name, m.shape, m.range) for m in splits["train"].modalities] == [
        ("depth", (1, 4, 4), None),
        ("mask_1", (1, 6, 5), (0, 1)),
        ("photo", (3, 6, 5), (0, 1)),
    ]
    assert sum((~dataset.observed[:, 0]).sum() for dataset in splits.values()) == 10
    count = 0
    for split in SPLITS:
        written = export(tmp_path / "data" / split, tmp_path / "back" / split)
        assert written == ["depth", "mask 1", "people.csv", "photo"]
        for path in (tmp_path / "back" / split).rglob("*.png"):
            name = path.relative_to(tmp_path / "back" / split).parts[0].split()[0]
            with Image.open(path) as image:
                np.testing.assert_array_equal(np.asarray(image), pixels[name][int(path.stem)])
            count += 1
    assert count == 3 * 40 - 10


def test_lossy_files_are_restored_as_files(tmp_path: Path) -> None:
    """Writing the pixels of a JPEG as JPEG changes them, so an observed image is exported as its original file."""
    rng = np.random.default_rng(0)
    (tmp_path / "in/photo").mkdir(parents=True)
    before = {}
    for row in range(40):
        path = tmp_path / f"in/photo/{row}.jpg"
        exif = Image.Exif()
        exif[0x010E] = f"picture {row}"
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(path, quality=60, exif=exif)
        before[path.name] = path.read_bytes()
    import_data([tmp_path / "in"], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    export(tmp_path / "data/train", tmp_path / "out")
    back = {path.name: path.read_bytes() for path in (tmp_path / "out/photo").iterdir()}
    assert len(back) == len(train)
    assert back == {name: before[name] for name in back}
    values = np.array(train.data["photo"])
    values[0] = 1 - values[0]
    replace(train, data={"photo": values}, folder=None).save(tmp_path / "changed")
    export(tmp_path / "changed", tmp_path / "new")
    assert train.ids is not None
    changed = [name for name in back if (tmp_path / "new/photo" / name).read_bytes() != back[name]]
    assert changed == [f"{train.ids[0]}.jpg"]


def pictures_in(folder: Path) -> Path:
    pictures(folder)
    return folder / "photo"


def other_size(folder: Path) -> None:
    Image.new("RGB", (9, 9)).save(folder / "photo/a/4.png")


def animate(folder: Path) -> None:
    frames = [Image.new("RGB", (5, 6), colour) for colour in ("red", "green", "blue")]
    frames[0].save(folder / "photo/a/4.png", save_all=True, append_images=frames[1:])


def break_chunk(folder: Path) -> None:
    path = folder / "photo/a/4.png"
    content = path.read_bytes()
    place = content.index(b"IDAT") - 1  # the last byte of the length of the chunk
    path.write_bytes(content[:place] + bytes(1) + content[place + 1 :])


def a_link(folder: Path) -> None:
    outside = folder.parent / "secret.png"
    Image.new("RGB", (5, 6)).save(outside)
    (folder / "photo/a/4.png").unlink()
    (folder / "photo/a/4.png").symlink_to(outside)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: int, bits: int, rows: bytes) -> bytes:
    """Assemble a PNG with colours by hand: Pillow writes neither 16 bits nor a wrong size in the header."""
    head = struct.pack(">IIBBBBB", size, size, bits, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


IMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "unreadable": (
        lambda folder: (folder / "photo/a/4.png").write_bytes(b"PNG"),
        r"photo/a/4\.png: this image cannot be read",
    ),
    "a broken chunk": (
        break_chunk,
        r"photo/a/4\.png: this image cannot be read",
    ),
    "colours of other bits": (
        lambda folder: (folder / "photo/a/4.png").write_bytes(png(4, 16, bytes(4 * (1 + 4 * 6)))),
        r"photo/a/4\.png: RGB \(39\), 16-bit RGB \(1\) found in photo, expected images of one type",
    ),
    "broken images": (
        lambda folder: [(folder / f"photo/a/{row}.png").write_bytes(b"") for row in range(0, 20, 2)],
        r"photo/a/0\.png: this image cannot be read \(the file is empty\), nor can 9 others: 10\.png, 12\.png, "
        r"14\.png, … and 6 more; replace",
    ),
    "animated": (
        animate,
        r"photo/a/4\.png: several frames or pages found, expected one per image; .*--first-frame.*\(1 of 40\)",
    ),
    "more pixels than an image has": (
        lambda folder: (folder / "photo/a/4.png").write_bytes(png(11_000, 8, bytes(99))),
        r"photo/a/4\.png: this image cannot be read .*could be a decompression bomb: it has more than 89 million",
    ),
    "a folder that leads out": (
        lambda folder: (folder / "linked").symlink_to(pictures_in(folder.parent / "other")),
        r"linked/.*png: this link leads out of .*in, expected files inside",
    ),
    "another size": (
        other_size,
        r"4\.png: 2 sizes \(height × width\) found in photo: 6 × 5 \(39\), 9 × 9 \(1\); .*add --size 6 5",
    ),
    "a link that leads out": (a_link, r"4\.png: this link leads out of .*in, expected files inside"),
    "the same name twice": (
        lambda folder: (folder / "photo/a/4.png").rename(folder / "photo/a/6.jpg"),
        "name 'a/6' found 2 times",
    ),
}


@pytest.mark.parametrize("case", IMAGES)
def test_invalid_images_are_refused(tmp_path: Path, case: str, recwarn: pytest.WarningsRecorder) -> None:
    pictures(tmp_path / "in")
    spoil, sentence = IMAGES[case]
    spoil(tmp_path / "in")
    refused(tmp_path / "in", tmp_path / "data", sentence, Roles())
    assert not [warning for warning in recwarn if "Bomb" in warning.category.__name__]


def test_one_colour_in_all_images_is_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "in")
    for path in (tmp_path / "in/photo").rglob("*.png"):
        Image.new("RGB", (5, 6), (9, 9, 9)).save(path)
    sentence = r"photo: all values are 9 in the training rows.*\(--skip photo\)"
    refused(tmp_path / "in", tmp_path / "data", sentence, Roles())
    import_data([tmp_path / "in"], tmp_path / "data", Roles(skip=("photo",)))
    assert [m.name for m in Dataset.load(tmp_path / "data/train").modalities] == ["depth", "mask_1"]
    refused(
        tmp_path / "in",
        tmp_path / "none",
        "all folders are left out, expected at least one modality",
        Roles(skip=("photo", "depth", "mask 1")),
    )


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    pixels = pictures(tmp_path / "in")
    (tmp_path / "in/photo/a/._0.png").write_bytes(b"Mac OS")
    pictures(tmp_path / "in/.trash")
    import_data([tmp_path / "in"], tmp_path / "data", Roles())
    assert sum(len(dataset) for dataset in load(tmp_path / "data").values()) == len(pixels["photo"])


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".PNG"])
def test_files_keep_their_suffixes(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "in/photo").mkdir(parents=True)
    x, y = np.meshgrid(np.arange(16), np.arange(16))
    for row in range(24):
        smooth = np.stack([x * 8 + row, y * 8, x * 4 + y * 4], 2).astype(np.uint8)
        Image.fromarray(smooth).save(tmp_path / f"in/photo/{row}{suffix}")
    import_data([tmp_path / "in"], tmp_path / "data", Roles(), (0.2, 0.2))
    export(tmp_path / "data/test", tmp_path / "back")
    names = Dataset.load(tmp_path / "data/test").ids
    assert names is not None
    assert {path.name for path in (tmp_path / "back/photo").iterdir()} == {f"{name}{suffix}" for name in names}
    for path in (tmp_path / "back/photo").iterdir():
        with Image.open(path) as found, Image.open(tmp_path / "in/photo" / path.name) as original:
            assert found.format == original.format
            np.testing.assert_array_equal(np.asarray(found), np.asarray(original))


def test_every_image_gets_a_file_of_its_own(tmp_path: Path) -> None:
    """Ids that are equal, unsafe, long, or differ only by case keep their images; a table gives the ids as written."""
    odd = [
        "a",
        "a",
        "A",
        "../x",
        "/etc/x",
        "con",
        "x?",
        ".hidden",
        "e\u0301",
        "é",
        "y" * 300,
        "y" * 301,
        "",
        "b.png/1",
        "b",
        "a-2",
    ]
    ids = [*odd, *(f"many {row % 5}" for row in range(284))]
    pixels = np.random.default_rng(0).integers(0, 256, (300, 4, 4), np.uint8)
    modality = Modality("x", "image", (1, 4, 4), "laplace", (0, 1))
    values = (pixels[:, None] / 255).astype(np.float32)
    Dataset((modality,), {"x": values}, ids=np.array(ids)).save(tmp_path / "data")
    assert export(tmp_path / "data", tmp_path / "out", "images") == ["postprior-names.csv", "samples.csv", "x"]
    files = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out/x").rglob("*.png"))
    assert len({unicodedata.normalize("NFC", file).casefold() for file in files}) == 300
    table = csv.read_csv(
        tmp_path / "out/postprior-names.csv",
        convert_options=csv.ConvertOptions(column_types={"id": pa.string()}, strings_can_be_null=False),
    )
    named = dict(zip(table["file"].to_pylist(), table["id"].to_pylist(), strict=True))
    found: dict[str, list[bytes]] = {}
    for file in files:
        with Image.open(tmp_path / "out" / file) as image:
            id = named.get(file, file.removeprefix("x/").removesuffix(".png"))
            found.setdefault(id, []).append(np.asarray(image).tobytes())
    expected: dict[str, list[bytes]] = {}
    for id, image in zip(ids, pixels, strict=True):
        expected.setdefault(id, []).append(image.tobytes())
    assert {id: sorted(images) for id, images in found.items()} == {id: sorted(i) for id, i in expected.items()}


def test_doubles_become_images_of_bytes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((40, 3, 6, 5))
    np.savez(tmp_path / "in.npz", photo=pixels, labels=["01", "02"] * 20)
    import_data([tmp_path / "in.npz"], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    assert list(train.source_values) == ["photo"]
    export(tmp_path / "data/train", tmp_path / "out", "images")
    assert train.ids is not None
    for row in train.ids:
        with Image.open(tmp_path / f"out/photo/{row}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), np.moveaxis(np.rint(pixels[row] * 255), 0, -1))


def test_images_are_written_from_any_images(tmp_path: Path) -> None:
    from dataclasses import replace

    arrays = {name: array for name, array in views().items() if name in ("colour", "grey", "labels", "label_names")}
    import_data([saved(tmp_path, arrays)], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    replace(train, conversion=None).save(tmp_path / "bare")
    for name in ("data/train", "bare"):
        assert export(tmp_path / name, tmp_path / "back" / name, "images") == [
            "colour",
            "grey",
            "samples.csv",
        ]
        assert train.ids is not None
        for row, sample in enumerate(train.ids):
            with Image.open(tmp_path / "back" / name / f"colour/{sample}.png") as image:
                found = np.asarray(image) / 255
                np.testing.assert_allclose(found, arrays["colour"][int(sample)], atol=0.5 / 255 + 1e-6)
            with Image.open(tmp_path / "back" / name / f"grey/{sample}.png") as image:
                np.testing.assert_array_equal(np.asarray(image), arrays["grey"][int(sample)], err_msg=str(row))
        table = csv.read_csv(tmp_path / "back" / name / "samples.csv")
        assert table["labels" if name != "bare" else "label"].to_pylist() == ["abc"[n] for n in train.labels]  # type: ignore[union-attr]
