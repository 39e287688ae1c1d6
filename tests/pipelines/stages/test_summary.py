"""What DVC shows of a project with four densities: metrics, columns of experiments, and plots without a network."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.cli import main as dvc
from dvc.repo import Repo
from support.browser import CHROMIUM, Browser
from support.project import REPOSITORY, write_params
from support.report_project import ROWS, make_project

from postprior.pipelines.api.repository import PLOTS_PAGE, Repository, plots_page
from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.report import writing
from postprior.pipelines.report.gallery import Pictures
from postprior.pipelines.report.results import read_results
from postprior.pipelines.report.verdict import verdict
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json

COLUMNS = 25
"""The most metric columns of `dvc exp show`."""
NAMES = [metric.key for metric in HEADLINES]
OF_TABLES = {"quality", "c2st_auc"}
FOURTH = "other_gmm"  # with the scores of gmm

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compared project of four densities in a repository of git and DVC, as `init` sets it up."""
    root = make_project(tmp_path_factory.mktemp("summary") / "project")
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["densities"].append(FOURTH)
    tree["density"][FOURTH] = {"kind": "gmm"}
    for place in [*root.glob("results/*/gmm.json"), *root.glob("artefacts/*/gmm")]:
        copied = place.with_name(place.name.replace("gmm", FOURTH))
        shutil.copytree(place, copied) if place.is_dir() else shutil.copy(place, copied)
    write_params(root, tree)
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    (root / ".gitignore").write_text("/artefacts/\n")
    compared(root)
    Repository.around(root, git=True).set_up()
    subprocess.run(["git", "-C", str(root), "add", "-A"], check=True)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(root), *author, "commit", "-qm", "first"], check=True)
    return root


@pytest.fixture(autouse=True)
def _inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


def compared(root: Path) -> None:
    """Write the report without figures and pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "figures", lambda *_: {})
        patch.setattr(writing, "pictures", lambda *_: Pictures({}, {}, {}))
        writing.write_report(load_params(root / "params.yaml"), root)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def test_the_summary_has_all_headlines_of_the_best_density_and_two_of_each_row(project: Path) -> None:
    content = read_json(project / "results/summary.json")
    best = content.pop("best")
    name, judged = best.pop("density"), verdict(read_results(load_params(project / "params.yaml"), project))
    assert (name, best.pop("usable")) == (judged.density.name, judged.use)
    assert best.keys() == set(NAMES) - OF_TABLES
    assert content.keys() == {"gmm", "flow", "vamp", FOURTH, "real", "normal"}
    for row, scores in content.items():
        assert scores == dict(
            zip(("joint_coherence", "frechet_distance"), ROWS["gmm" if row == FOURTH else row][:2], strict=True)
        )
    assert {key: best[key] for key in content[name]} == content[name]


def test_the_table_has_the_same_columns_for_all_data(project: Path) -> None:
    table = list(csv.DictReader((project / "results/summary.csv").open(encoding="utf-8")))
    assert list(table[0]) == ["row", *(f"{key}{end}" for key in NAMES for end in ("", "_low", "_high"))]
    assert {line["row"] for line in table} == {"gmm", "flow", "vamp", FOURTH, "real", "reconstruction", "normal"}
    whole = {line["row"]: line for line in csv.DictReader((project / "results/comparison.csv").open(encoding="utf-8"))}
    for line in table:
        assert all(value == whole[line["row"]].get(key, "") for key, value in line.items())
        assert line["c2st_auc"] == ""


def test_a_score_without_a_value_is_no_column(project: Path) -> None:
    path = project / "results/metrics/flow.json"
    before = path.read_bytes()
    scores = json.loads(before) | {"joint_coherence": {"value": None, "why": "no labels"}}
    path.write_text(json.dumps(scores))
    try:
        compared(project)
        found = read_json(project / "results/summary.json")
        assert found["flow"].keys() == {"frechet_distance"}
        assert "joint_coherence" in found["gmm"]
        with Repo() as repo:
            change = repo.metrics.diff()["diff"]["results/summary.json"]["flow.joint_coherence"]
        assert change == {"old": ROWS["flow"][0], "new": None}
    finally:
        path.write_bytes(before)
        compared(project)


def test_dvc_shows_the_summary_and_no_other_metric(project: Path) -> None:
    with Repo() as repo:
        metrics = {place: entry["data"] for place, entry in repo.metrics.show()[""]["data"].items()}
    assert metrics == {"results/summary.json": read_json(project / "results/summary.json")}
    command = [sys.executable, "-m", "dvc", "exp", "show", "--csv"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    header = next(csv.reader(io.StringIO(answer.stdout)))
    columns = set(leaves(metrics["results/summary.json"]))
    assert columns <= set(header)  # without the name of their file
    assert len(NAMES) < len(columns) <= COLUMNS
    assert not [name for name in header if ":" in name]


@pytest.fixture(scope="module")
def plots(project: Path) -> str:
    """The page of `dvc plots show`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        assert dvc(["plots", "show", "-q", "-o", "plots"]) == 0
    return (project / "plots/index.html").read_text(encoding="utf-8")


def test_the_page_of_plots_loads_no_script(plots: str) -> None:
    assert "vegaEmbed('#" in plots
    assert re.findall(r"<(?:script|link|iframe)\b[^>]*\b(?:src|href)=", plots) == []
    assert "cdn." not in plots
    assert len(plots) < 1_000_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed, so the page cannot be tested in a browser")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_every_plot_is_drawn_without_a_network(project: Path, plots: str, browser: Browser) -> None:
    browser.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    browser.go((project / "plots/index.html").as_uri())
    browser.run("new Promise((done) => setTimeout(done, 500))")
    declared = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["plots"]
    drawn = browser.run("[...document.querySelectorAll('canvas')].map((canvas) => canvas.width * canvas.height)")
    assert len(drawn) == len(declared)
    assert min(drawn) > 10_000
    events = browser.events
    urls = [event["params"]["request"]["url"] for event in events if event.get("method") == "Network.requestWillBeSent"]
    assert all(url.startswith(("file:", "data:", "blob:")) for url in urls)
    assert not [event for event in events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert browser.run("document.body.innerText.includes('View Source')") is False


def test_a_page_that_the_user_chose_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / ".dvc"
    folder.mkdir()
    for config in ("", "[core]\n    analytics = false\n", "[plots]\n    auto_open = true\n"):
        (folder / "config").write_text(config)
        files = plots_page(tmp_path)
        assert files.keys() == {".dvc/config", str(PLOTS_PAGE)}
        assert files[".dvc/config"].count("[plots]\n    html_template = plots/page.html\n") == 1
        (folder / "config").write_text(files[".dvc/config"])
        assert plots_page(tmp_path) == files
    (folder / "config").write_text("[plots]\n    html_template = mine.html\n")
    assert plots_page(tmp_path) == {}
