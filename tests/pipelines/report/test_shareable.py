"""The report to share: nothing of a single real row is in it, and all of it is in the default report."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from support.report_project import MODALITIES, make_project, pictures, results_of
from typer.testing import CliRunner

from postprior.pipelines.artefacts.codes import save_codes
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.commands.app import app
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.metrics.latent.code_map import CodeMap
from postprior.pipelines.metrics.tables.marginals import of_numbers
from postprior.pipelines.report.cells import FEWEST
from postprior.pipelines.report.features import features_of
from postprior.pipelines.report.figures import Figure
from postprior.pipelines.report.shareable import frequent_labels
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.storage import read_json, save_artefact, write_json
from postprior.stage1_vae.distributions import Block
from postprior.stage1_vae.modalities import Modality
from postprior.stage2_latent.codes import Codes

RARE, FREQUENT = "label-of-a-rare-disease", "label-of-many"
IDS = ("patient-Quixote-4711", "patient-Dulcinea-4712")
POINTS = ("77.123", "-88.456")


def white(figure: Figure, narrow: bool = False) -> tuple[bytes, bytes]:
    """A figure whose bytes are its numbers, so that the page shows which numbers were drawn."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "white").save(content, format="PNG")
    drawn = content.getvalue() + repr(figure.table).encode()
    return drawn, drawn


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which ids, a rare label, points and the pixels of real rows occur nowhere else."""
    root = make_project(tmp_path_factory.mktemp("shareable"))
    for name in ("gmm", "vamp"):
        path = root / f"results/privacy/{name}.json"
        copies = [
            {"sample": 3, "record": record, "space": "joint", "distance": 0.123456, "ratio": 0.2} for record in IDS
        ]
        write_json(path, read_json(path) | {"near_copies": copies})
    names = (RARE, FREQUENT, *(f"class-{i}" for i in range(8)))
    dataset = Dataset.load(root / "artefacts/synthetic/gmm")
    for name in ("gmm", "vamp", "flow"):
        labels = np.arange(len(dataset)) % 2
        Dataset(MODALITIES, dataset.data, labels=labels, label_names=names, provenance=dataset.provenance).save(
            root / f"artefacts/synthetic/{name}"
        )
    labels = torch.tensor([0] * (FEWEST - 3) + [1] * FEWEST)
    for split, rows in (("train", labels), ("test", labels[:2])):
        codes = Codes.empirical((Block("z", (2,)),), torch.zeros(len(rows), 2), rows, names)
        save_codes(root / f"artefacts/codes/{split}", codes, {"data": "d" * 64})
    return root


@pytest.fixture(scope="module")
def pages(project: Path) -> tuple[str, str]:
    """The default page and the page to share, with the text of the numbers in figures."""
    points = np.array([[float(x) for x in POINTS]] * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postprior.pipelines.stages.compare.track", lambda *_: nullcontext())
        patch.setattr(
            "postprior.pipelines.report.writing.code_points",
            lambda *_: CodeMap(points, points, dict.fromkeys(("gmm", "flow", "vamp"), points), 0.5),
        )
        patch.setattr(Figure, "pngs", white)
        answer = CliRunner().invoke(app, ["compare", "--params", str(project / "params.yaml"), "--shareable"])
    assert answer.exit_code == 0, answer.output
    page, shared = ((project / f"results/report{of}.html").read_text() for of in ("", "-shareable"))
    return page, shared


def images(page: str) -> Iterator[np.ndarray]:
    for encoded in set(re.findall(r"data:image/(?:webp|png);base64,([^\"]+)", page)):
        yield np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))


def shows(page: str, picture: np.ndarray) -> bool:
    """Whether an image of the page contains the lines of pixels of a picture (3, H, W)."""
    first = np.round(picture * 255).astype(np.uint8)[:, 0].T.tobytes()
    return any(first in line.tobytes() for image in images(page) for line in image)


def decoded(page: str) -> str:
    """The page with the numbers of its figures, which `white` wrote behind the images."""
    found = re.findall(r"data:image/png;base64,([^\"]+)", page)
    return page + " ".join(base64.b64decode(text).decode("latin-1") for text in found)


@pytest.mark.parametrize(
    "token", [*IDS, *POINTS, RARE, "data.digits.", "0.1235", 'href="comparison.csv"', "datasheets/"]
)
def test_no_token_of_a_real_row_is_in_the_page_to_share(pages: tuple[str, str], token: str) -> None:
    page, shared = map(decoded, pages)
    assert token in page
    assert token not in shared


def test_no_picture_of_a_real_row_is_in_the_page_to_share(pages: tuple[str, str]) -> None:
    page, shared = pages
    real = [pictures(seed)[m][row] for seed in (10, 11) for m in ("m0", "m3") for row in (0, 7)]
    real += [array[0] for array in pictures(30, 6).values()] + [array[0] for array in pictures(30, 4).values()]
    for picture in real:
        assert shows(page, picture)
        assert not shows(shared, picture)
    assert all(shows(shared, picture) for picture in (pictures(0)["m0"][0], pictures(12)["m1"][7]))  # gmm and the prior
    own, all_pictures = (set(re.findall(r"base64,([^\"]+)", of)) for of in (shared, page))
    assert len(own) < len(all_pictures)


def test_samples_of_a_density_that_leaks_are_not_shown(pages: tuple[str, str]) -> None:
    galleries = re.findall(r'<span class="name">([^<]+)', pages[1].split('id="samples"')[1])
    assert galleries == ["gmm", "flow", "Normal prior"]
    assert "vamp" in re.findall(r'<span class="name">([^<]+)', pages[0].split('id="samples"')[1])


def test_frequent_labels_stay(project: Path, pages: tuple[str, str], tmp_path: Path) -> None:
    assert frequent_labels(Project(project)) == [FREQUENT]
    assert FREQUENT in pages[1]
    assert frequent_labels(Project(tmp_path)) == []  # of which nobody knows how many rows have them


def test_hashes_of_data_and_models_are_left_out(pages: tuple[str, str]) -> None:
    for folder, shown in (("artefacts/synthetic/gmm", True), ("artefacts/autoencoder", False), ("baselines", False)):
        assert f">{folder}<" in pages[0] or "baselines" in folder
        assert (f">{folder}<" in pages[1]) == shown


def test_both_pages_say_at_the_top_what_they_show(pages: tuple[str, str]) -> None:
    tops = [page.split("<h1>")[0].split("<header>")[1] for page in pages]
    assert "This page shows real rows" in tops[0]
    assert "postprior compare --shareable" in tops[0]
    assert "This page may be shared: it holds no real row" in tops[1]


def test_the_scores_and_the_verdict_are_the_same(project: Path, pages: tuple[str, str]) -> None:
    def part(page: str, start: str, end: str) -> str:
        return page.split(start)[1].split(end)[0]

    for start, end in (('<dl class="verdict">', "</dl>"), ('<table id="leaderboard"', "</table>")):
        assert part(pages[0], start, end) == part(pages[1], start, end)
    assert results_of(project).row("gmm").scores["privacy"]["near_copies"]
    links: Any = re.findall(r'<a href="([^"]*)"', pages[1])
    assert links
    assert all(f'id="{link[1:]}"' in pages[1] for link in links)
    assert not re.findall(r"https?://", pages[1])


@pytest.fixture(scope="module")
def of_table(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, list[str]]:
    """Both pages of a table whose numbers are unique, and these numbers as their file has them."""
    home, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    numbers = [f"{1e4 + number:.4f}" for number in rng.permutation(300) * 7.7713]
    wards, extremes = ["north"] * 290 + ["ward-for-zebras"] * 10, np.full(300, 20)
    extremes[::30] = 98765 + np.arange(10)  # fewer than five of each, so that they are no class
    frame = pd.DataFrame({"id": range(300), "dose": numbers, "ward": wards, "stay": extremes})
    frame = frame.sample(frac=1, random_state=0)
    frame.to_csv(home / "t.csv", index=False)
    import_data([home / "t.csv"], home / "data", Roles(id="id"))
    root = make_project(home / "project", labels=False)
    real, made = (Dataset.load(home / "data" / split) for split in ("test", "train"))
    real.save(root / "artefacts/data/test")
    values = {"t": made.data["t"] + np.float32([0.123, 0, 0])}
    for name in ("gmm", "flow", "vamp"):
        provenance = Dataset.load(root / f"artefacts/synthetic/{name}").provenance
        Dataset(made.modalities, values, provenance=provenance, conversion=made.conversion).save(
            root / f"artefacts/synthetic/{name}"
        )
    save_artefact(root / "artefacts/baselines", "reference", {}, arrays={"rows.reference": np.arange(len(real))})
    for name in ("gmm", "flow", "vamp"):
        path = root / f"results/metrics/{name}.json"
        write_json(path, read_json(path) | {"samples": len(made)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postprior.pipelines.stages.compare.track", lambda *_: nullcontext())
        patch.setattr(Figure, "pngs", white)
        compare(load_params(root / "params.yaml"), root, shareable=True)
    page, shared = (decoded((root / f"results/report{of}.html").read_text()) for of in ("", "-shareable"))
    return page, shared, [*numbers, *map(str, range(98765, 98775))]


def test_no_number_or_category_of_few_rows_is_in_the_page_to_share(of_table: tuple[str, str, list[str]]) -> None:
    page, shared, numbers = of_table
    assert "ward-for-zebras" in page
    assert "ward-for-zebras" not in shared
    assert "north" in shared
    found = [{*re.findall(r"(?<![\d.])\d+(?:\.\d+)?(?![\d.]*\d)", text)} for text in (page, shared)]
    assert {*numbers} & found[0]
    assert not {*numbers} & found[1]
    assert "987" in re.sub(r"base64,[^\"]+", "", page)  # an extreme is an end of a bin
    assert "Rows side by side" in page
    assert "Rows side by side" not in shared


def test_bins_and_features_of_few_real_rows_are_hidden() -> None:
    real = np.concatenate([np.arange(12) % 3, np.full(12, 9.0), [4.0, 5.0]])
    shown = of_numbers({"Real": real, "gmm": real}, "Real", FEWEST)
    assert shown.edges is not None
    places = np.clip(np.searchsorted(shown.edges, real, side="right") - 1, 0, len(shown.edges) - 2)
    counts = np.bincount(places, minlength=len(shown.edges) - 1)
    few = (counts > 0) & (counts < FEWEST)
    assert few.any()
    np.testing.assert_array_equal(np.isnan(shown.shares["Real"]), few)
    np.testing.assert_allclose(shown.shares["gmm"], counts / len(real))  # samples are no secret
    assert shown.edges[0] > real.min() - 1
    assert not np.isnan(of_numbers({"Real": real}, "Real").shares["Real"]).any()

    vector = Modality("x", "vector", (3,), "negative_binomial")
    values = np.zeros((40, 3), np.float32)
    values[:, 0], values[:9, 1], values[:10, 2] = 1, 977, 5
    sets = {name: Dataset((vector,), {"x": values}) for name in ("Real", "gmm")}
    own = features_of(vector, sets, "Real", FEWEST).statistics
    np.testing.assert_array_equal(np.isnan(own["Real"].means), [False, True, False])
    np.testing.assert_array_equal(np.isnan(own["Real"].zeros), [False, True, False])
    np.testing.assert_allclose(own["gmm"].means, values.mean(0))
    assert not np.isnan(features_of(vector, sets, "Real").statistics["Real"].means).any()
