"""The datasheet of a synthetic dataset: its required content for data of all kinds."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from support.report_project import make_project

from postprior.pipelines.data.conversion import ColumnConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.report.datasheet import datasheet
from postprior.pipelines.report.results import Results, read_results
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import folder_hash
from postprior.stage1_vae.modalities import Column, Modality

SECTIONS = (
    "Motivation",
    "Composition",
    "Collection",
    "Fidelity",
    "Usefulness",
    "Privacy",
    "Limits",
    "Uses to avoid",
    "Distribution and citation",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("datasheet"))


@pytest.fixture(scope="module")
def known(project: Path) -> tuple[Results, Params]:
    params = load_params(project / "params.yaml")
    return read_results(params, project), params


def sheet(project: Path, known: tuple[Results, Params], name: str, **changes: Any) -> str:
    dataset = replace(Dataset.load(project / "artefacts/synthetic" / name), **changes)
    return datasheet(known[0].row(name), *known, dataset)


def test_every_section_has_content(project: Path, known: tuple[Results, Params]) -> None:
    text = sheet(project, known, "gmm")
    assert tuple(line[3:] for line in text.splitlines() if line.startswith("## ")) == SECTIONS
    for section in text.split("\n## ")[1:]:
        assert len(section.split("\n", 1)[1].strip()) > 40
    assert text.endswith("\n")
    assert text == sheet(project, known, "gmm")
    assert str(project) not in text


def test_hashes_seed_and_settings_are_named(project: Path, known: tuple[Results, Params]) -> None:
    text = sheet(project, known, "vamp")
    for content in (
        folder_hash(project / "artefacts/synthetic/vamp"),
        "d" * 64,
        "a" * 64,
        "2" * 64,
        "| seed of the samples | 2 |",
        "| values | means of the decoders |",
        "| rows that the density was fitted to | 4000 |",
        "| autoencoder | unimodal, latent size 24, seed 0 |",
        "smoother than real values",
        "| 0 | 2 | 16.7 % |",
        "| m0 | image | 3 × 16 × 16 | 0 to 1 | 0 % |",
    ):
        assert content in text
    changed = replace(Dataset.load(project / "artefacts/synthetic/vamp"), provenance={"labels": {"7": 20, "1": 3}})
    assert "| condition | 20 of 7, 3 of 1 |" in datasheet(known[0].row("vamp"), *known, changed)


def test_privacy_is_never_promised(project: Path, known: tuple[Results, Params]) -> None:
    for name, flagged in (("gmm", False), ("vamp", True)):
        text = sheet(project, known, name)
        assert text.count("not differentially private") == 1
        assert ("do not share its samples" in text) == flagged
        assert ("any purpose by people who may not see the real data" in text) == flagged
        assert "Attack AUC" in text


def test_a_datasheet_describes_only_its_own_density(project: Path, known: tuple[Results, Params]) -> None:
    text = sheet(project, known, "flow")
    assert "vamp" not in text
    assert "gmm" not in text
    assert "| Joint coherence ↑ | 0.430 (0.421 to 0.439) | 0.910 (0.892 to 0.928) |" in text


def test_tables_missing_values_and_no_labels(project: Path, known: tuple[Results, Params]) -> None:
    columns = (Column("age", "normal"), Column("site|ward", "categorical", 3))
    visit = Modality("visit", "table", (2,), "columns", columns=columns)
    word = Modality("word", "sequence", (4,), "categorical", classes=9)
    free = Modality("free", "vector", (2,), "normal")
    data = {"visit": np.zeros((4, 2)), "word": np.zeros((4, 4)), "free": np.zeros((4, 2))}
    mask = np.ones((4, 3), bool)
    mask[0, 1] = False
    text = sheet(
        project,
        known,
        "gmm",
        modalities=(visit, word, free),
        data=data,
        mask=mask,
        labels=None,
        label_names=None,
    )
    assert "| visit | table | 2 | age (normal), site\\|ward (categorical) | 0 % |" in text
    assert "| word | sequence | 4 | 9 classes | 25 % |" in text
    assert "| free | vector | 2 | unbounded | 0 % |" in text
    assert "There are no labels." in text
    assert "constraints" not in text


def test_violated_constraints_are_counted(project: Path, known: tuple[Results, Params]) -> None:
    visit = Modality("visit", "table", (2,), "columns", columns=(Column("low", "normal"), Column("high", "normal")))
    columns = [ColumnConversion(column.name, "numeric", "double", offset=5.0).describe() for column in visit.columns]
    low, high = ["visit", "low"], ["visit", "high"]
    conversion = {
        "modalities": {"visit": {"source": "tables", "file": "visit.csv", "columns": columns}},
        "constraints": [{"kind": "order", "low": low, "high": high, "strict": False, "gap": 0.5, "share": 0.5}],
    }
    values = np.array([[0, 1], [1, 0], [2, 2], [3, 1]], np.float32)
    seen = np.array([[1, 1], [1, 1], [1, 1], [1, 0]], bool)
    changes: dict[str, Any] = {"modalities": (visit,), "conversion": conversion, "labels": None, "label_names": None}
    text = sheet(project, known, "gmm", data={"visit": values}, cells={"visit": seen}, **changes)
    assert "keep these constraints among columns: low &lt;= high. 1 of the 4 synthetic rows violates one." in text
    text = sheet(project, known, "gmm", data={"visit": np.sort(values)}, **changes)
    assert "None of the 4 synthetic rows violate one." in text


def test_labels_assigned_by_label_classifiers(project: Path, known: tuple[Results, Params]) -> None:
    origin = {
        "labels_from": "judges",
        "values": "draws",
        "temperature": 0.7,
        "truncation": 0.0,
        "sampler": "gmm",
    }
    text = sheet(project, known, "flow", provenance=origin)
    assert "The labels were assigned by label classifiers that were trained on real data:" in text
    assert "| density of the latent codes | flow, of kind gmm |" in text
    assert "more typical than real rows" in text
    assert "smoother than real values" not in text


def test_names_from_files_are_shown_as_text(project: Path, known: tuple[Results, Params]) -> None:
    """In a rendered datasheet, names of columns, labels, conditions and provenance are plain text."""
    hostile = (
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "<unknown>",
        "a|b `c` **d** &lt;e&gt; <http://f.g> http://h.i",
        "`x`\n\n# y\n| 1 | 2 |",
    )
    columns = tuple(Column(name, "normal") for name in hostile)
    visit = Modality("visit", "table", (len(hostile),), "columns", columns=columns)
    origin = {"data": "`<b>`", "labels": dict.fromkeys(hostile, 2)}
    origin |= dict.fromkeys(("sampler", "seed", "temperature", "truncation"), "<i>[z](javascript:1)</i>")
    text = sheet(
        project,
        known,
        "gmm",
        modalities=(visit,),
        data={"visit": np.zeros((12, len(hostile)))},
        labels=np.arange(12) % len(hostile),
        label_names=hostile,
        provenance=origin,
    )
    html = MarkdownIt("commonmark").enable("table").render(text)
    plain = MarkdownIt("commonmark").enable("table").render(sheet(project, known, "gmm"))
    assert set(re.findall(r"<(\w+)", html)) == set(re.findall(r"<(\w+)", plain))
    assert re.findall(r"<h\d", html) == re.findall(r"<h\d", plain)
    shown = unescape(re.sub(r"<[^>]+>", "", html))
    for name in hostile:
        name = name.replace("\n", r"\n")
        assert f"\n{name}\n2\n16.7 %\n" in shown  # as a label
        assert f"{name} (normal)" in shown
        assert f"2 of {name}" in shown
    assert "\n`<b>`\n" in shown
    assert "gmm, of kind <i>[z](javascript:1)</i>" in shown
