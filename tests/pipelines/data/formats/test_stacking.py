"""Images of different modes and sizes become one array, each decision is told, and files come back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.archives import SPLITS, load
from support.importing import notes, refused
from support.pixels import values

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.export import export
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.rows import import_rows
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.pixels.reading import Reading
from postprior.pipelines.data.pixels.writing import encoded, suffix_for


def by_id(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The values of a modality that models see, by id, over all splits."""
    return {str(id): x for d in load(folder).values() for id, x in zip(d.ids, d.data[name], strict=True)}  # type: ignore[arg-type]


def test_cameras_held_sideways(tmp_path: Path) -> None:
    """Models see upright pictures, and observed ones are exported as their files, which viewers turn upright."""
    rng, exif, upright = np.random.default_rng(0), Image.Exif(), {}
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    for row in range(40):
        stored = Image.fromarray(rng.integers(0, 256, (6, 5) if row % 2 else (5, 6), np.uint8))
        stored.save(tmp_path / f"in/{row}.png", **({} if row % 2 else {"exif": exif}))
        upright[str(row)] = np.asarray(
            stored if row % 2 else ImageOps.exif_transpose(Image.open(tmp_path / f"in/{row}.png"))
        )
    assert notes(tmp_path / "in", tmp_path / "data", Roles()) == [
        "in: 20 of 40 images turned upright, as their EXIF data say"
    ]
    for id, x in by_id(tmp_path / "data", "in").items():
        np.testing.assert_array_equal(np.rint(x[0] * 255), upright[id])
    export(tmp_path / "data/test", tmp_path / "back")
    for path in (tmp_path / "back/in").iterdir():
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(Image.open(path))), upright[path.stem])


@pytest.mark.parametrize("mode", ["I", "F", "RGB;16", "1"])
def test_values_of_any_bits_come_back(tmp_path: Path, mode: str) -> None:
    """Also those of a TIFF that is named .png."""
    pixels = {str(row): values(mode) for row in range(40)}
    (tmp_path / "in").mkdir()
    for name, image in pixels.items():
        (tmp_path / f"in/{name}.png").write_bytes(encoded(image, suffix_for(mode, set())))
    import_data([tmp_path / "in"], tmp_path / "data", Roles())
    train = Dataset.load(tmp_path / "data/train")
    replace(train, source_values={}, folder=None).save(tmp_path / "generated")
    for name, suffix in (("data/train", ".png"), ("generated", suffix_for(mode, set()))):
        export(tmp_path / name, tmp_path / "back" / name)
        files = sorted((tmp_path / "back" / name / "in").iterdir())
        assert {path.name for path in files} == {f"{id}{suffix}" for id in train.ids}  # type: ignore[union-attr]
        for path in files:
            found, expected = Reading(mode).pixels(path), pixels[path.stem]
            exact = name == "data/train" or mode in ("1", "RGB;16")
            np.testing.assert_allclose(
                found, expected, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-5 * np.ptp(expected.astype(float))
            )


def test_mixed_images_become_like_the_commonest(tmp_path: Path) -> None:
    """Other modes and sizes are converted and told, and observed files come back as they were."""
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    before = {}
    for row in range(40):
        image = Image.fromarray(rng.integers(0, 256, (6, 5, 3) if row else (12, 20, 3), np.uint8))
        image = image.convert("L") if row % 10 == 1 else image.convert("RGBA") if row == 2 else image
        image.save(tmp_path / f"in/{row}{'.png' if row else '.TIF'}")
    before = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    sentence = r"in/0\.TIF: 2 sizes \(height × width\) found in in: 6 × 5 \(39\), 12 × 20 \(1\); .*--size 6 5"
    refused(tmp_path / "in", tmp_path / "data", sentence, Roles())
    refused(tmp_path / "in", tmp_path / "data", "--size: 0 5 found", Roles(size=(0, 5)))
    assert notes(tmp_path / "in", tmp_path / "data", Roles(size=(6, 5))) == [
        "in: grey (4), RGBA (1) of 40 images converted to RGB; --mode chooses another mode",
        "in: transparent pixels of 1 images put over white; --alpha, --mode",
        "in: 1 of 40 images resized to 6 × 5 pixels, linearly with antialiasing",
        "in: 1 of 40 images stretched, because they have another ratio of height to width",
    ]
    seen = by_id(tmp_path / "data", "in")
    np.testing.assert_array_equal(np.rint(seen["1"] * 255), [np.asarray(Image.open(tmp_path / "in/1.png"))] * 3)
    back = {}
    for split in SPLITS:
        export(tmp_path / "data" / split, tmp_path / "back" / split)
        back |= {path.name: path.read_bytes() for path in (tmp_path / "back" / split / "in").iterdir()}
    assert back == before
    grey = import_data([tmp_path / "in"], tmp_path / "grey", Roles(size=(6, 5), mode="L"))
    assert "in: RGB (35), RGBA (1) of 40 images converted to grey; --mode chooses another mode" in grey
    np.testing.assert_array_equal(
        np.rint(by_id(tmp_path / "grey", "in")["1"] * 255)[0], np.asarray(Image.open(tmp_path / "in/1.png"))
    )
    rows = tmp_path / "rows/in"
    rows.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (9, 9), np.uint8)).save(rows / "new.png")
    import_rows([rows], tmp_path / "new", Roles(), tmp_path / "data")
    assert Dataset.load(tmp_path / "new").data["in"].shape == (1, 3, 6, 5)


def test_alpha_is_a_channel_or_composited(tmp_path: Path) -> None:
    rng, pixels = np.random.default_rng(0), {}
    (tmp_path / "in").mkdir()
    for row in range(40):
        pixels[str(row)] = rng.integers(0, 256, (6, 5, 2), np.uint8)
        Image.fromarray(pixels[str(row)]).save(tmp_path / f"in/{row}.png")
    told = "in: alpha is the last channel; --alpha white or --alpha black puts transparent pixels over a colour"
    assert notes(tmp_path / "in", tmp_path / "data", Roles()) == [told]
    for id, x in by_id(tmp_path / "data", "in").items():
        np.testing.assert_array_equal(np.rint(np.moveaxis(x, 0, -1) * 255), pixels[id])
    import_data([tmp_path / "in"], tmp_path / "black", Roles(alpha="black"))
    for id, x in by_id(tmp_path / "black", "in").items():
        np.testing.assert_allclose(x[0] * 255, pixels[id][..., 0] * (pixels[id][..., 1] / 255), atol=0.5 + 1e-4)
    export(tmp_path / "black/test", tmp_path / "back")
    for path in (tmp_path / "back/in").iterdir():
        np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels[path.stem])
