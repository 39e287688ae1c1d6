"""The report page, from made-up results: its text, and how a browser shows it."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, Browser
from support.report_project import make_project, pictures, results_of, without

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.registry import LEADERBOARD, METRICS
from postprior.pipelines.report.figures import DARK, LIGHT, Figure
from postprior.pipelines.report.gallery import Pictures
from postprior.pipelines.report.page import render
from postprior.pipelines.report.plots import marks
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.stages.compare import compare

NONE = Pictures({}, {}, {})
CHECKS = """
  const seen = (element) => element.checkVisibility() && !element.closest(".unseen, .mark, legend");
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return rgb("255 255 255");
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (element) => {
    const pair = [rgb(getComputedStyle(element).color), ground(element)].map(light).sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  };
  const written = [...document.body.querySelectorAll("*")].filter(
    (element) => seen(element) && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
"""


def blank(figure: Figure, narrow: bool = False) -> tuple[bytes, bytes]:
    """Blank images in place of a figure, whose drawing takes long."""
    light, dark = io.BytesIO(), io.BytesIO()
    for theme, content in ((LIGHT, light), (DARK, dark)):
        Image.new("RGB", (300 if narrow else 800, 300), theme.paper).save(content, format="PNG")
    return light.getvalue(), dark.getvalue()


def written(root: Path) -> Path:
    """Write the comparison of a project, and return the project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postprior.pipelines.stages.compare.track", lambda *_: nullcontext())
        patch.setattr(Figure, "pngs", blank)
        compare(load_params(root / "params.yaml"), root)
    return root


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(make_project(tmp_path_factory.mktemp("report")))


@pytest.fixture
def results(project: Path) -> Results:
    return results_of(project)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed, so the page cannot be tested in a browser")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def page(project: Path) -> str:
    return (project / "results/report.html").read_text(encoding="utf-8")


def files(project: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(project)): path.read_bytes()
        for path in sorted((project / "results").rglob("*"))
        if path.is_file()
    }


def plain(results: Results) -> str:
    """The page of results without images."""
    return render(results, marks([row.name for row in results.rows]), NONE, {}, {}, [], {})


def test_the_same_results_give_the_same_bytes(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    for name in ("plots", "datasheets"):
        shutil.rmtree(copy / "results" / name)
    assert files(written(copy)) == files(project)


def test_the_page_needs_nothing_but_itself(project: Path) -> None:
    html = page(project)
    assert not re.findall(r"https?://", html)
    assert not re.findall(r"@import|url\(|<link(?! rel=\"icon\")|<script src", html)
    sources = re.findall(r'(?:src|srcset)="([^"]{0,40})', html)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert str(project) not in html


def test_links_lead_to_files_beside_the_page_and_to_places_in_it(project: Path) -> None:
    html = page(project)
    links = set(re.findall(r'<a href="([^"]*)"', html))
    assert {"comparison.csv", "datasheets/gmm.md", "#leaks"} < links
    for link in links:
        assert f'id="{link[1:]}"' in html if link.startswith("#") else (project / "results" / link).is_file(), link


def test_every_image_has_a_text_and_every_table_a_caption(project: Path) -> None:
    html = page(project)
    images = re.findall(r"<img [^>]*?>", html)
    plots = [path.stem for path in (project / "results/plots").glob("*.png")]
    assert len(plots) == 15  # all but the map of codes, of which the project has none
    assert (
        len(images) == 15 + 6 + 3 + 3
    )  # figures, samples of all rows, conditional generation and neighbours of the densities
    assert all(re.search(r'alt="[^"]{20,}"', image) for image in images)
    assert html.count("<table") == len(re.findall(r"<caption( class=\"unseen\")?>[^<]{5,}", html))


def test_the_page_shows_settings_and_hashes(project: Path) -> None:
    html = page(project)
    for text in ("vae.model", "unimodal", "train.epochs", "artefacts/autoencoder", "artefacts/synthetic/vamp"):
        assert text in html
    assert "vae.options.mopoe" not in html


def test_images_have_no_section_of_tables(project: Path) -> None:
    assert 'id="tables"' not in page(project)


def test_each_question_has_its_numbers_and_its_sentences(project: Path) -> None:
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page(project))).replace("\u202f", " "))
    neutral = {metric.key: metric.neutral.replace("\u202f", " ") for metric in LEADERBOARD}
    first = "gmm, the density of the verdict:"
    for sentence in (
        "You can use the samples of gmm. ✓ Can I use it? Yes. vamp has the highest joint coherence, but privacy tests "
        "flag it. No privacy test flags its samples. They are clearly nearer to real rows than those of Normal prior. "
        "→ For what? To train classifiers in place of real rows: they reach 98.0 % of the accuracy with real rows.",
        "✕ What not? Do not share samples of vamp: privacy tests flag them. Do not take them for anonymous",
        "Of 3 fitted densities, vamp draws the most coherent samples: in 82.0 % of them, all 5 modalities show the "
        "same label.",
        f"Is it faithful? {first} 80.0 % Joint coherence 91.0 % for real rows 8.60 Frechet distance 5.10 for real rows",
        f"Is it useful? {first} 98.0 % Utility {neutral['utility_ratio']}",
        f"Does it leak? {first} 0.512 Attack AUC {neutral['membership_auc']}",
        "8 of 32 latent dimensions carry almost no information: use 24 in all",
    ):
        assert sentence in text


def test_tables_show_names_instead_of_keys(project: Path) -> None:
    html = page(project)
    assert "<tr><td>Joint coherence</td><td>gmm</td><td>flow</td>" in html
    assert "<tr><td>vamp</td><td>17</td><td>train-31</td><td>all together</td>" in html
    cells = set(re.findall(r"<t[dh][^>]*>([^<]+)</t[dh]>", html.split('id="settings"')[0]))
    raw = {metric.key for metric in METRICS} - {"density"}  # also the heading of a column of names
    assert not cells & (raw | {key.replace("_", " ") for key in raw})


def test_remarks_on_a_density(results: Results) -> None:
    unusual = {"bound": True, "values": "refined", "temperature": 0.7, "truncation": 0.05}
    changed = [
        replace(row, scores=row.scores | unusual | {"rows": {"used": 4000, "left_out": 0, "incomplete": 1200}})
        if row.name == "flow"
        else row
        for row in results.rows
    ]
    html = plain(replace(results, rows=tuple(changed)))
    remarks = (
        "log-likelihoods are lower bounds; 1200 of the rows lack a modality; images and volumes drawn by the "
        "refiner; drawn at temperature 0.7; the least likely 5 % of draws replaced"
    )
    assert f'<td class="remark">{remarks}</td>' in html
    assert '<td class="remark">stores training codes</td>' in html


def test_a_row_of_another_source_carries_its_label(results: Results) -> None:
    other = Row("mopoe: gmm", "density", results.row("gmm").scores, "mopoe")
    html = plain(replace(results, rows=(*results.rows, other)))
    assert re.search(r'data-row="mopoe: gmm">\s*<th scope="row">.*?<span class="source">mopoe</span> gmm</th>', html)


def test_what_was_not_measured_has_no_column(results: Results) -> None:
    def headings(html: str) -> set[str]:
        return set(re.findall(r'data-group="[^"]+"[^>]*><button type="button">([^<&]+)', html))

    assert {"Utility", "Attack AUC", "Incoherence"} < headings(plain(results))
    less = headings(plain(without(results, "utility", "privacy", "incoherence", "log_likelihood")))
    assert less
    assert not {"Utility", "Attack AUC", "Incoherence"} & less


def test_texts_are_escaped(results: Results) -> None:
    looks = marks([row.name for row in results.rows])
    html = render(results, looks, NONE, {}, {}, ["<b onload='x()'>\"&"], {})
    assert "<b onload" not in html
    assert "&lt;b onload=&#39;x()&#39;&gt;&#34;&amp;" in html
    turned = Row("mopoe: \u202egmm", "density", results.row("gmm").scores, "mopoe")
    html = plain(replace(results, rows=(*results.rows, turned)))
    assert "\u202e" not in html  # it would reverse the direction of the text that follows
    assert r"\u202egmm" in html


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("gmm", "evaluate gmm"),
        ("normal", "score-baselines"),
        ("evaluators", "train-evaluators"),
        ("autoencoder", "score-baselines"),
    ],
)
def test_missing_results_name_the_command(project: Path, tmp_path: Path, name: str, command: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    (copy / f"results/metrics/{name}.json").unlink()
    with pytest.raises(UserError, match=f"run `postprior {command}` first"):
        compare(load_params(copy / "params.yaml"), copy)
    assert files(copy)["results/report.html"] == files(project)["results/report.html"]


def all_of(selector: str) -> str:
    """JavaScript for an array of the elements that match a selector."""
    return f"[...document.querySelectorAll({selector!r})]"


def one_of(selector: str, text: str) -> str:
    """JavaScript for the first of these elements that contains a text."""
    return f"{all_of(selector)}.find((part) => part.textContent.includes({text!r}))"


def opened(browser: Browser, project: Path, width: int = 1200, **how: str) -> None:
    browser.open((project / "results/report.html").as_uri(), width, **how)


def errors(browser: Browser) -> list[dict[str, Any]]:
    names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    return [event for event in browser.events if event.get("method") in names]


def test_a_browser_reports_no_errors_and_loads_nothing(project: Path, browser: Browser) -> None:
    browser.events.clear()
    opened(browser, project)
    browser.run(f"{all_of('button, input, summary')}.forEach((part) => part.click())")
    assert errors(browser) == []
    requested = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert sum(url.startswith("data:") for url in requested) > 1
    assert [url for url in requested if not url.startswith("data:")] == [(project / "results/report.html").as_uri()]
    assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")


def test_the_page_is_accessible(project: Path, browser: Browser) -> None:
    opened(browser, project)
    assert browser.run("document.title.length > 10 && document.documentElement.lang === 'en'")
    for landmark in ("header", "nav", "main", "footer"):
        assert browser.run(f"{all_of(landmark)}.length") == 1
    levels = browser.run(f"{all_of('h1, h2, h3, h4')}.map((heading) => Number(heading.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    titled = "(part) => document.getElementById(part.getAttribute('aria-labelledby'))"
    assert browser.run(f"{all_of('section')}.every({titled})")
    ids = browser.run(f"{all_of('[id]')}.map((part) => part.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(project: Path, browser: Browser, scheme: str) -> None:
    opened(browser, project, scheme=scheme)
    faint = "written.filter((e) => contrast(e) < 4.5).map((e) => e.outerHTML.slice(0, 80))"
    answer = f"[written.length, {faint}, light(ground(document.body))]"
    number, found, paper = browser.run(f"(() => {{ {CHECKS} return {answer}; }})()")
    assert number > 300
    assert found == []
    assert paper > 0.9 if scheme == "light" else paper < 0.02


def test_a_phone_shows_the_page_without_horizontal_scrolling(project: Path, browser: Browser) -> None:
    opened(browser, project, 390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run(f"{all_of('.wide img')}.every((image) => image.currentSrc !== image.src)")
    left = "document.querySelector('#leaderboard tbody th').getBoundingClientRect().left"
    place = "document.querySelector('#leaderboard').closest('.scroll')"
    before = browser.run(left)
    shade = "getComputedStyle({}, '::after').content"
    edges = "document.querySelector('#leaderboard').closest('.framed').classList"
    assert browser.run(f"[{edges}.contains('left'), {edges}.contains('right')]") == [False, True]
    frame = "document.querySelector('#leaderboard').closest('.framed')"
    assert browser.run(shade.format(frame)) != "none"
    assert browser.run(f"({place}.scrollLeft = 200, {place}.scrollLeft)") == 200
    assert browser.run(left) == before  # the names of rows do not move
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert browser.run(f"{edges}.contains('left')")
    browser.run(f"{place}.scrollLeft = 1e6")
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert not browser.run(f"{edges}.contains('right')")
    assert browser.run(shade.format(frame)) == "none"
    beyond = "(e) => !e.closest('.scroll, .unseen') && e.getBoundingClientRect().right > 391"
    assert browser.run(f"{all_of('body *')}.filter({beyond}).length") == 0


def test_the_verdict_is_on_the_first_screen_of_a_phone(project: Path, browser: Browser) -> None:
    opened(browser, project, 390)
    assert browser.run("document.querySelector('.verdict').getBoundingClientRect().bottom") < 1000
    assert browser.run(f"{all_of('.verdict dt')}.map((name) => name.textContent.slice(1))") == [
        "Can I use it?",
        "For what?",
        "What not?",
    ]


def test_a_long_finding_is_unfolded_by_a_key(project: Path, browser: Browser) -> None:
    opened(browser, project)
    finding = one_of("details.more", "structural similarity")
    rest = f"{finding}.querySelector('p').checkVisibility()"
    assert browser.run(f"{finding}.querySelector('summary').checkVisibility()")
    assert not browser.run(rest)
    browser.run(f"{finding}.querySelector('summary').focus()")
    browser.press("Enter")
    assert browser.run(rest)
    assert browser.run(f"{all_of('details.more')}.length") > 8


def test_print_is_white_and_shows_folded_parts(project: Path, browser: Browser) -> None:
    opened(browser, project, 700, scheme="dark")
    folded = f"{all_of('details table')}.filter((t) => t.checkVisibility({{contentVisibilityAuto: true}})).length"
    few = browser.run(folded)
    browser.show("print", "dark")
    assert few < browser.run(folded) == browser.run(f"{all_of('details table')}.length")
    assert browser.run(f"{all_of('.more summary, .more p')}.every((t) => t.offsetHeight > 0)")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.run(f"{all_of('.sheet img')}.every((image) => image.offsetHeight > 0)")
    assert browser.run(f"{all_of('.plot img')}.every((image) => image.currentSrc === image.src)")  # the light ones
    assert not browser.run(f"{all_of('nav, .choices, .thumbs, .tuple')}.some((part) => part.checkVisibility())")
    browser.show("screen", "light")


def test_a_heading_sorts_by_click_and_by_key(project: Path, browser: Browser) -> None:
    opened(browser, project)
    rows = f"{all_of('#leaderboard tbody tr')}.map((row) => row.dataset.row)"
    heading, use = (one_of("#leaderboard th button", text) for text in ("Frechet", "Utility"))
    assert browser.run(rows) == ["real", "reconstruction", "vamp", "gmm", "flow", "normal"]
    browser.run(f"{heading}.click()")
    assert browser.run(rows) == ["normal", "flow", "vamp", "gmm", "reconstruction", "real"]
    assert browser.run(f"{heading}.parentElement.ariaSort") == "descending"
    browser.run(f"{heading}.focus()")
    browser.press("Enter")
    assert browser.run(rows) == ["real", "reconstruction", "gmm", "vamp", "flow", "normal"]
    assert browser.run(f"{all_of('#leaderboard [aria-sort=ascending]')}.length") == 1
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.run(f"{use}.click()")
    assert browser.run(rows)[:3] == ["gmm", "vamp", "flow"]  # rows without a number stay last
    browser.press("Tab")
    assert browser.run("document.activeElement.matches('button:focus-visible')")


def test_a_choice_shows_other_columns(project: Path, browser: Browser) -> None:
    opened(browser, project)
    headings = f"{all_of('#leaderboard thead tr:last-child th')}.filter((h) => h.checkVisibility())"
    titles = f"{headings}.map((heading) => heading.innerText)"
    groups = f"{all_of('#leaderboard [scope=colgroup]')}.filter((h) => h.checkVisibility())"
    every = browser.run("document.querySelectorAll('#leaderboard thead tr:last-child th').length")
    overview = browser.run(titles)
    assert "Utility\u00a0↑" in overview
    assert "Precision\u00a0↑" not in overview
    for view in ("Overlap", "all"):
        browser.run(f"document.querySelector('[name=columns][value={view}]').click()")
        shown = browser.run(titles)
        assert "Precision\u00a0↑" in shown
        assert (len(shown) == every) == (view == "all")
        assert browser.run(f"{groups}.reduce((number, group) => number + group.colSpan, 1)") == len(shown)


def pixels(browser: Browser, canvas: str) -> np.ndarray:
    """The colours (H, W, 3) of a canvas."""
    data = "canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data"
    height, width, values = browser.run(f"((canvas) => [canvas.height, canvas.width, [...{data}]])({canvas})")
    return np.array(values).reshape(height, width, 4)[..., :3]


def colours(image: np.ndarray) -> np.ndarray:
    """An image (C, H, W) of numbers from 0 to 1 as bytes (H, W, C)."""
    return np.round(image * 255).transpose(1, 2, 0)


def test_one_click_shows_a_code_in_every_modality(project: Path, browser: Browser) -> None:
    opened(browser, project)
    figure = one_of("#samples figure", "gmm")
    title = f"{figure}.querySelector('.tuple p').textContent"
    browser.run(f"{figure}.querySelectorAll('.thumbs label')[2].click()")
    assert browser.run(title) == "Sample 3, label 2"
    for m, array in enumerate(pictures(0).values()):
        shown = pixels(browser, f"{figure}.querySelectorAll('.tuple canvas')[{m}]")
        np.testing.assert_array_equal(shown, colours(array[2]))
    browser.run(f"{figure}.querySelector('.thumbs :checked').focus()")
    browser.press("ArrowRight")
    assert browser.run(title) == "Sample 4, label 3"
    assert browser.run(f"{figure}.querySelectorAll('.tuple canvas')[1].ariaLabel") == "gmm, Sample 4, label 3, m1"
    browser.run("document.querySelectorAll('[name=samples]')[4].click()")
    thumbnail = pixels(browser, f"{figure}.querySelectorAll('.thumbs canvas')[0]")
    np.testing.assert_array_equal(thumbnail, colours(pictures(0)["m4"][0]))
    assert browser.run(title) == "Sample 4, label 3"


def test_a_sample_is_shown_with_its_nearest_training_row(project: Path, browser: Browser) -> None:
    opened(browser, project)
    figure = one_of("#neighbours figure", "gmm")
    names = browser.run(f"[...{figure}.querySelectorAll('.line b')].map((line) => line.textContent)")
    assert names == ["Synthetic", "Nearest training row"]
    for line, kind in enumerate(("synthetic", "nearest")):
        array = np.load(project / f"artefacts/privacy/gmm/{kind}.m3.npy")
        shown = pixels(browser, f"{figure}.querySelectorAll('.line')[{line}].querySelectorAll('canvas')[3]")
        np.testing.assert_array_equal(shown, colours(array[0]))


def test_given_modalities_are_marked_among_generated_ones(project: Path, browser: Browser) -> None:
    opened(browser, project)
    figure = one_of("#conditional figure", "flow")
    marked = "[...line.querySelectorAll('canvas')].map((cell) => cell.classList.contains('given'))"
    first, *others = browser.run(f"[...{figure}.querySelectorAll('.line')].map((line) => {marked})")
    assert not any(first)
    assert others == np.load(project / "artefacts/evaluation/flow/grid.observed.npy")[0].tolist()
    real = np.load(project / "artefacts/evaluation/flow/grid.real.m2.npy")
    shown = pixels(browser, f"{figure}.querySelectorAll('.line')[0].querySelectorAll('canvas')[2]")
    np.testing.assert_array_equal(shown, colours(real[0]))


def test_without_scripts_everything_is_shown(project: Path, browser: Browser) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.go((project / "results/report.html").as_uri())
        tree = browser.send("DOM.getDocument", depth=1)["root"]["nodeId"]
        changed = browser.send("DOM.querySelectorAll", nodeId=tree, selector="[hidden], .live, .choices")
        assert changed["nodeIds"] == []
        sheet = browser.send("DOM.querySelector", nodeId=tree, selector=".sheet img")["nodeId"]
        assert browser.send("DOM.getBoxModel", nodeId=sheet)["model"]["height"] > 50
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_a_page_without_labels(tmp_path: Path, browser: Browser) -> None:
    root = written(make_project(tmp_path, labels=False))
    browser.events.clear()
    opened(browser, root)
    assert errors(browser) == []
    titles = browser.run(f"{all_of('h2')}.map((heading) => heading.textContent)")
    assert {"Samples", "Fidelity", "Usefulness", "Privacy"} < set(titles)
    plots = {path.stem for path in (root / "results/plots").glob("*.png")}
    assert "imputed_modalities" in plots
    assert not {"trade_off", "utility", "augmentation"} & plots


def test_a_page_of_scores_alone(results: Results, tmp_path: Path, browser: Browser) -> None:
    page = tmp_path / "page.html"
    page.write_text(plain(without(results, "utility", "privacy")), encoding="utf-8")
    browser.events.clear()
    browser.open(page.as_uri(), 1200)
    assert errors(browser) == []
    assert browser.run("document.images.length") == 0


def test_a_missing_value_or_interval_shows_the_reason(results: Results) -> None:
    few = {"precision": {"value": None, "why": 'one "row" <'}}
    unsure = {"coverage": {"value": 0.5, "low": None, "high": None, "why": "few rows"}}
    changed = [replace(row, scores=row.scores | few | unsure) for row in results.rows]
    html = plain(replace(results, rows=tuple(changed)))
    dash = r'<td class="none" data-group="Overlap" title="one &#34;row&#34; &lt;">–</td>'
    assert len(re.findall(dash, html)) == len(results.rows)
    assert re.search(r'<td data-value="0.5"[^>]* title="few rows"[^>]*><span class="value">0.500</span></td>', html)
