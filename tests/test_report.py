"""The comparison: its table, plots and page, from results that are made up."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from contextlib import nullcontext
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from report_project import LABELS, MODALITIES, ROWS, make_project, pictures

from pipelines.compare import compare
from pipelines.config import load_params
from pipelines.errors import UserError
from pipelines.report.gallery import COLUMNS, GAP, sheet
from pipelines.report.page import GLYPHS, render
from pipelines.report.plots import marks
from pipelines.report.results import Estimate, Results, Row, read_results
from stage1_vae.modalities import Modality

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with results and their comparison."""
    root = make_project(tmp_path_factory.mktemp("report"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.compare.track", lambda *_: nullcontext())
        compare(load_params(root / "params.yaml"), root)
    return root


@pytest.fixture
def results(project: Path) -> Results:
    return read_results(load_params(project / "params.yaml"), project)


def page(project: Path) -> str:
    return (project / "results/report.html").read_text(encoding="utf-8")


def files(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in sorted((project / "results").rglob("*"))
        if path.is_file()
    }


def test_the_table_has_every_row_in_the_order_of_the_leaderboard(project: Path) -> None:
    lines = list(csv.DictReader((project / "results/comparison.csv").open()))
    assert [line["row"] for line in lines] == ["real", "reconstruction", "vamp", "gmm", "flow", "normal"]
    for line in lines:
        coherence, distance, _ = ROWS[line["row"]]
        assert float(line["joint_coherence"]) == coherence
        assert float(line["frechet_distance_low"]) < distance < float(line["frechet_distance_high"])
    assert lines[-1]["label_agreement"] == ""
    assert [lines[3][f"conditional_coherence_{n}"] for n in "14"] == ["0.77", "0.9125"]
    assert float(lines[3]["conditional_gain_2"]) == pytest.approx(0.105)
    assert [lines[3][key] for key in ("log_likelihood_test", "overfitting", "rows_left_out")] == [
        "-15.0",
        "4.5",
        "0.0",
    ]
    assert lines[-1]["conditional_coherence_1"] == lines[-1]["memorisation_ratio"] == ""
    assert float(lines[2]["gap_closed_joint_coherence"]) == pytest.approx((0.82 - 0.004) / (0.84 - 0.004))


def test_every_plot_has_the_numbers_behind_it(project: Path) -> None:
    folder = project / "results/plots"
    drawn = {path.stem for path in folder.glob("*.png")}
    assert drawn == {path.stem for path in folder.glob("*.csv")}
    assert {"trade_off", "joint_coherence", "frechet_by_modality", "training", "judges"} < drawn
    for path in folder.glob("*.csv"):
        assert len(list(csv.reader(path.open()))) > 1
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert set(image.info) <= {"dpi"}  # no date, no program: the same numbers give the same bytes
            assert image.width > 500


def test_the_same_results_give_the_same_bytes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.compare.track", lambda *_: nullcontext())
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    shutil.rmtree(copy / "results/plots")
    compare(load_params(copy / "params.yaml"), copy)
    assert files(copy) == files(project)


def test_the_page_needs_nothing_but_itself(project: Path) -> None:
    html = page(project)
    assert len(html) < 3_000_000
    assert not re.findall(r"https?://", html)
    assert not re.findall(r"@import|url\(|<link(?! rel=\"icon\")|<script src", html)
    sources = re.findall(r'(?:src|srcset|href)="([^"]{0,40})', html)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert str(project) not in html


def test_the_page_has_alternatives_for_every_image_and_captions_for_every_table(project: Path) -> None:
    html = page(project)
    images = re.findall(r"<img [^>]*?>", html)
    assert len(images) == 6 + 15  # a gallery a row, a picture a plot
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    assert html.count("<table") == html.count("<caption>") == 4


def test_the_page_tells_settings_and_hashes(project: Path) -> None:
    html = page(project)
    for text in ("vae.model", "mvtcae", "train.epochs", "artefacts/autoencoder", "artefacts/synthetic/vamp"):
        assert text in html
    assert "vae.options.mopoe" not in html


def test_the_page_says_what_was_found(project: Path) -> None:
    text = re.sub(r"\s+", " ", unescape(page(project)).replace("\u202f", " "))
    for sentence in (
        "vamp draws the most coherent samples of 3 fitted densities: in 82.0 % of them, all 5 modalities show the same",
        "the row Normal prior, agree in 0.4 %. The paired difference of vamp to them is 81.6 percentage points with a "
        "95 % interval from 80.0 to 83.2, which lies above 0.",
        "agree in 84.0 %: vamp closes 98 % of the gap from the floor to them.",
        "Its Frechet distance to real data is 9.40, 1.27 times that of the reconstructions (7.40); the floor stands",
        "The lowest Frechet distance of a density is that of gmm, 8.60.",
        "vamp has label entropy 0.970 (real 0.998)",
        "gmm follows with 80.0 %; they are told apart (paired difference 2.0 percentage points",
        "right on 97.8 % of held-out real data",
        "vamp: the artefact holds codes of training rows.",
        "Given one other modality, what is generated through gmm shows the row's label in 77.0 %, 21.0 percentage "
        "points (18.0 to 24.0) above the plain posterior; given four, in 91.2 %, 5.2 percentage points (2.2 to 8.2) "
        "above it. The density chooses among 16 posterior draws, of which 3.2 count on average (an effective sample "
        "share of 20 %).",
        "gmm has the widest gap between training and validation codes: 4.50 nats of log-likelihood a row.",
        "By definition 1 % of held-out codes are near copies of a training code; more are among the draws of vamp "
        "(6.0 %).",
    ):
        assert sentence in text


def changed(results: Results, name: str, **scores: Any) -> Results:
    """The results with other scores in one row."""
    rows = [Row(row.name, row.kind, row.scores | scores) if row.name == name else row for row in results.rows]
    return replace(results, rows=tuple(rows))


def test_a_choice_and_unusual_draws_are_told(results: Results) -> None:
    unusual = {"bound": True, "temperature": 0.7, "truncation": 0.05, "why": "gmm stands alone"}
    rows = {"used": 4000, "left_out": 0, "incomplete": 1200}
    other = changed(results, "flow", **unusual, rows=rows)
    remarks = (
        "log-likelihoods are lower bounds; 1200 of the rows lack a modality; drawn at temperature 0.7; "
        "the least likely 5 % drawn again"
    )
    html = render(other, marks(["gmm", "flow", "vamp"]), {}, {}, [], {})
    assert f'<td class="remark">{remarks}</td>' in html
    assert '<td class="remark">holds training codes</td>' in html


def test_every_density_has_a_mark_of_its_own() -> None:
    looks = marks([f"density {i}" for i in range(12)])
    assert (
        len({(mark.colour, mark.shape) for mark in looks.values()}) == 12 + 3
    )  # two rows are never in one figure
    assert {mark.shape for mark in looks.values()} == set(GLYPHS)


@pytest.mark.parametrize(
    ("written", "estimate"),
    [
        (None, None),
        ({"value": None}, None),
        (0.5, Estimate(0.5)),
        ({"value": 1, "low": 0, "high": 2}, Estimate(1, 0, 2)),
    ],
)
def test_estimates_in_files(written: Any, estimate: Estimate | None) -> None:
    assert Estimate.of(written) == estimate


@pytest.mark.parametrize(
    ("name", "command"),
    [("gmm", "evaluate gmm"), ("normal", "reference"), ("judges", "judge"), ("autoencoder", "reference")],
)
def test_missing_results_name_the_command(project: Path, tmp_path: Path, name: str, command: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    (copy / f"results/metrics/{name}.json").unlink()
    with pytest.raises(UserError, match=f"run `postprior {command}` first"):
        compare(load_params(copy / "params.yaml"), copy)
    assert files(copy)["results/report.html"] == files(project)["results/report.html"]


def test_texts_are_escaped(results: Results) -> None:
    looks = marks(["gmm", "flow", "vamp"])
    html = render(results, looks, {}, {}, ["<b onload='x()'>\"&"], {})
    assert "<b onload" not in html
    assert "&lt;b onload=&#39;x()&#39;&gt;&#34;&amp;" in html


def test_a_sheet_shows_columns_of_samples() -> None:
    labels = np.arange(12) % 10
    shown = sheet(MODALITIES, pictures(0), labels, LABELS)
    assert shown is not None
    assert shown.labels == tuple("01234567")
    assert shown.rows == tuple(m.name for m in MODALITIES)
    with Image.open(io.BytesIO(shown.png)) as image:
        pitch = image.width // COLUMNS
        assert image.size == (COLUMNS * pitch, len(MODALITIES) * pitch)
        pixel = np.asarray(image)[pitch + GAP // 2, 2 * pitch + GAP // 2]
    np.testing.assert_array_equal(pixel[:3], np.round(pictures(0)["m1"][2, :, 0, 0] * 255))


def test_a_sheet_of_other_shapes_and_kinds() -> None:
    tall = Modality("tall", "image", (1, 100, 60), "normal")
    table = Modality("table", "vector", (7,), "normal")
    data = {"tall": np.random.default_rng(0).normal(size=(3, 1, 100, 60)), "table": np.zeros((3, 7))}
    shown = sheet((tall, table), data)
    assert shown is not None
    assert shown.rows == ("tall",)
    assert shown.labels == ("", "", "")
    with Image.open(io.BytesIO(shown.png)) as image:
        assert image.size == (3 * (100 + GAP), 100 + GAP)
    assert sheet((table,), data) is None


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed, so the page cannot be looked at")
def test_a_browser_shows_the_page(project: Path, tmp_path: Path) -> None:
    """In a frame as wide as a phone all images are drawn, a heading sorts and nothing overflows."""
    probe = """
    <script>
      addEventListener("load", () => {
        const page = document.querySelector("iframe").contentDocument;
        const images = [...page.images];
        const rows = () => [...page.querySelectorAll("#leaderboard tbody tr")].map((row) => row.dataset.row);
        const before = rows();
        page.querySelectorAll("#leaderboard thead button")[4].click();
        const descending = rows();
        page.querySelectorAll("#leaderboard thead button")[4].click();
        const found = {
          before, descending, ascending: rows(),
          images: images.length, drawn: images.filter((image) => image.naturalWidth > 0).length,
          plots: page.querySelectorAll(".plot img").length, tables: page.querySelectorAll("table").length,
          overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
        };
        document.body.replaceChildren(JSON.stringify(found));
      });
    </script>"""
    quoted = page(project).replace("&", "&amp;").replace('"', "&quot;")
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><iframe width="375" height="800" srcdoc="{quoted}"></iframe>{probe}',
        encoding="utf-8",
    )
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    flags += ["--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [str(CHROMIUM), *flags, "--virtual-time-budget=20000", "--dump-dom", wrapper.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
    body = re.search(r"<body>(.*?)</body>", dom, re.DOTALL)
    assert body, dom[:500]
    found = json.loads(body.group(1))
    assert found["images"] == found["drawn"] == 21
    assert found["plots"] == 15
    assert found["tables"] == 4
    assert found["overflow"] <= 0
    assert found["before"] == ["real", "reconstruction", "vamp", "gmm", "flow", "normal"]
    assert found["descending"] == ["normal", "flow", "vamp", "gmm", "reconstruction", "real"]
    assert found["ascending"] == found["descending"][::-1]
