"""The figures of the report, their tables of numbers, and sheets of samples."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import report_results as made_up
from support.report_project import LABELS, MODALITIES, make_project, pictures, results_of, without

from postprior.pipelines.data.pictures import GAP, SAMPLES, SPACE, Sheet, sheet
from postprior.pipelines.metrics.latent.code_map import code_map
from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report import figures
from postprior.pipelines.report.figures import (
    COLOURS,
    DARK,
    GRID,
    INK,
    LIGHT,
    MUTED,
    SHAPES,
    Figure,
    Mark,
    readable,
)
from postprior.pipelines.report.gallery import PAIRS, grid, neighbours
from postprior.pipelines.report.leaderboard import as_csv
from postprior.pipelines.report.page import GLYPHS
from postprior.pipelines.report.plots import figures as figures_of
from postprior.pipelines.report.plots import marks
from postprior.pipelines.report.plots.drawing import DotPanel, dots
from postprior.pipelines.report.plots.faithful import by_modality
from postprior.pipelines.report.plots.useful import augmentation, imputation
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate
from postprior.stage1_vae.modalities import Modality

NAMES = ("gmm", "flow", "vamp")
TITLED = Figure("one", "One", "A figure of one", ("row", "part", "value", "low", "high"), [], [])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def results(project: Path) -> Results:
    return results_of(project)


@pytest.fixture(scope="module")
def drawn(results: Results) -> dict[str, Figure]:
    """All figures by name."""
    rng = np.random.default_rng(0)
    points = code_map(rng.normal(size=(40, 3)), rng.normal(size=(40, 3)), {n: rng.normal(size=(40, 3)) for n in NAMES})
    few = replace(results, rows=tuple(results.row(name) for name in ("real", "gmm", "flow", "normal")))
    found = figures_of(few, marks(NAMES), points)
    return {figure.name: figure for some in found.values() for figure in some}


def opened(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        return image


def test_there_is_a_figure_for_every_question(drawn: Mapping[str, Figure]) -> None:
    assert list(drawn) == [
        "trade_off",
        "frechet_by_modality",
        "fidelity",
        "coherence",
        "pairings",
        "conditional",
        "utility",
        "augmentation",
        "imputed_modalities",
        "privacy",
        "attacks",
        "code_map",
        "representation",
        "divergence",
        "training",
        "evaluators",
    ]


def test_every_figure_is_drawn_and_has_an_alternative_text(
    drawn: Mapping[str, Figure], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "DPI", 40)  # the same figures, drawn faster
    for figure in drawn.values():
        image = opened(figure.pngs()[0])
        assert len(image.getcolors() or ()) > 4, figure.name
        assert set(image.info) <= {"dpi"}  # no date, no program: the same numbers give the same bytes
        assert image.convert("RGB").getpixel((1, image.height - 1)) == (255, 255, 255)
        assert len(figure.alt) > 40
        assert "nan" not in figure.alt
        assert len(list(csv.reader(io.StringIO(as_csv(figure.header, figure.table))))) > 1
        assert all(len(line) == len(figure.header) for line in figure.table)


def test_figures_have_a_dark_and_a_narrow_side(drawn: Mapping[str, Figure], monkeypatch: pytest.MonkeyPatch) -> None:
    figure = drawn["code_map"]
    monkeypatch.setattr(figures, "DPI", 40)
    (wide, dark), (narrow, _) = figure.pngs(), figure.pngs(narrow=True)
    assert opened(wide).width > 2 * opened(narrow).width
    assert opened(narrow).height == 4 * opened(wide).height  # its panels, one beneath the other
    assert opened(dark).size == opened(wide).size
    assert opened(dark).convert("RGB").getpixel((1, opened(dark).height - 1)) == (26, 27, 31)
    assert figure.pngs() == (wide, dark)


def test_a_figure_is_wide_if_it_has_several_panels_to_stand_side_by_side(drawn: Mapping[str, Figure]) -> None:
    figure = drawn["code_map"]
    assert figure.wide
    assert not replace(figure, panels=figure.panels[:1]).wide
    assert not replace(figure, columns=1).wide


def test_paper_shows_through_and_greys_are_those_of_the_theme() -> None:
    """A colour c of opacity a on paper p is a c + (1 − a) p; c is the same in both themes if it is no grey."""
    blue, half = (0, 114, 178), 128 / 255
    drawn = [(255, 255, 255, 0), *((*bytes.fromhex(grey[1:]), 255) for grey in (INK, MUTED, GRID)), (*blue, 255)]
    pixels = np.array([[*drawn, (*blue, 128)]], np.uint8)
    for image, theme in zip(figures._pngs(pixels), (LIGHT, DARK), strict=True):
        expected = [[*bytes.fromhex(colour[1:])] for colour in (theme.paper, theme.ink, theme.muted, theme.grid)]
        through = [half * colour + (1 - half) * paper for colour, paper in zip(blue, expected[0], strict=True)]
        found = np.asarray(opened(image).convert("RGB"), float)[0]
        np.testing.assert_allclose(found, [*expected, blue, through], atol=0.5)


def test_the_most_frequent_colours_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "PALETTE", 3)
    pixels = np.array([[(200, 0, 0, 255)] * 3 + [(0, 0, 200, 255)] * 2 + [(190, 0, 0, 255), (0, 0, 0, 0)]], np.uint8)
    light, _ = figures._pngs(pixels)
    red, blue, paper = (200, 0, 0), (0, 0, 200), (255, 255, 255)
    assert [*map(tuple, np.asarray(opened(light).convert("RGB"))[0])] == [red] * 3 + [blue] * 2 + [red, paper]


def test_what_no_row_has_is_not_drawn(results: Results) -> None:
    coherence = (metric.key for metric in LEADERBOARD if metric.group == "Coherence")
    lacking = (*coherence, "utility", "privacy", "imputation", "conditional_coherence", "conditional_gain")
    less = replace(without(results, *lacking), evaluators={}, autoencoder={}, latent={}, augmentation={})
    found = figures_of(less, marks([row.name for row in less.rows]))
    assert list(found) == ["faithful", "reliability"]
    names = [figure.name for some in found.values() for figure in some]
    assert names == ["frechet_by_modality", "fidelity", "pairings", "training"]


def test_authenticity_is_also_shown_for_held_out_rows(drawn: Mapping[str, Figure]) -> None:
    rows = {(line[0], line[1]) for line in drawn["privacy"].table}
    assert {row for test, row in rows if test == "authenticity"} == {"Real, held out", "gmm", "flow"}
    assert {row for test, row in rows if test == "membership_auc"} == {"gmm", "flow"}


def test_an_augmentation_with_several_sizes_is_drawn_as_curves(results: Results) -> None:
    (one,) = augmentation(results.augmentation)
    (cell,) = results.augmentation.values()
    (many,) = augmentation({"500": cell, "50": cell, "100": cell})
    assert (len(one.panels), len(many.panels)) == (4, 2)
    assert list(dict.fromkeys(line[0] for line in many.table)) == ["50", "100", "500"]
    assert {line[3] for line in many.table} == {"accuracy", "over_real", "over_classical"}


def test_baseline_imputers_are_shown_with_densities_by_task(results: Results) -> None:
    tasks = ("modalities", "cells")
    rows = [
        replace(row, scores=row.scores | {"imputation": made_up.imputation("gmm", tasks=tasks)})
        if row.name == "gmm"
        else replace(row, scores={key: value for key, value in row.scores.items() if key != "imputation"})
        for row in results.rows
    ]
    scores = {task: {key: made_up.imputed(key) for key in made_up.BASELINE_IMPUTERS} for task in tasks}
    imputers = tuple(
        replace(row, scores={"imputation": {task: scores[task][key] for task in tasks}})
        for row, key in zip(results.imputers, made_up.BASELINE_IMPUTERS, strict=True)
    )
    modalities, cells = imputation(replace(results, rows=tuple(rows), imputers=imputers), marks(NAMES))
    assert (modalities.name, cells.name) == ("imputed_modalities", "imputed_cells")
    assert (len(modalities.panels), len(cells.panels)) == (4, 3)  # only hidden modalities have labels
    others = ["Nearest neighbours", "Iterative ridge", "Chained equations", "Random forests", "Training mean"]
    shown = {key: [line[1] for line in cells.table if line[0] == key] for key in ("energy_score", "coverage")}
    assert shown == {"energy_score": ["gmm", *others], "coverage": ["gmm", *others[:-1]]}
    assert ("rmse", "Nearest neighbours", 0.93, 0.93 * 0.98, 0.93 * 1.02) in modalities.table


def test_the_training_mean_does_not_set_the_limits_of_energy_scores(results: Results) -> None:
    from matplotlib.figure import Figure as Canvas

    (figure,) = imputation(results, marks(NAMES))
    energy, error, coverage, right = Canvas().subplots(4)
    for panel, axes in zip(figure.panels, (energy, error, coverage, right), strict=True):
        panel(axes)
    assert energy.get_xlim() == pytest.approx((0.60 * 0.98 - 0.03, 0.67 * 1.02 + 0.03))
    assert error.get_xlim()[1] > 1.0
    assert coverage.get_xlim()[0] > 0.8
    assert right.get_xlim()[1] <= 1.005
    dashed = [[line for line in axes.lines if line.get_linestyle() == "--"] for axes in (energy, coverage)]
    assert [len(found) for found in dashed] == [0, 1]
    assert list(dashed[1][0].get_xdata()) == [0.9, 0.9]


def test_every_row_has_its_own_mark() -> None:
    looks = marks([f"density {i}" for i in range(72)])
    pairs = {(mark.colour, mark.shape) for mark in looks.values()}
    assert len(pairs) == 72 + len({(mark.colour, mark.shape) for name, mark in looks.items() if "density" not in name})
    assert {mark.shape for mark in looks.values()} == set(GLYPHS)
    first = list(marks(["a", "b", "a", "real"]).items())
    assert [name for name, _ in first if name in "ab"] == ["a", "b"]
    assert (first[-1][1].colour, first[-1][1].shape) == (COLOURS[1], SHAPES[1])


def lines(figure: Figure, table: list[tuple[Any, ...]], *across: str) -> tuple[list[str], list[list[str]]] | None:
    return readable(Figure("one", "One", "", figure.header, table, [], across=across))


def test_tables_of_figures_show_intervals_in_columns() -> None:
    table = [("gmm", "m0", 0.5, 0.4, 0.6), ("gmm", "m1", -2.0, None, None), ("flow", "m1", 3, 2, 4)]
    assert lines(TITLED, table, "part") == (
        ["row", "m0", "m1"],
        [["gmm", "0.5 (0.4 to 0.6)", "−2"], ["flow", "–", "3 (2 to 4)"]],
    )
    assert lines(TITLED, table[:1]) == (["row", "part", "value"], [["gmm", "m0", "0.5 (0.4 to 0.6)"]])


def test_tables_of_figures_show_names_instead_of_keys(drawn: Mapping[str, Figure]) -> None:
    headers = {name: shown[0] for name, figure in drawn.items() if (shown := readable(figure))}
    assert headers["fidelity"][:5] == ["row", "Frechet distance", "Joint Frechet distance", "Kernel distance", "MMD"]
    assert headers["pairings"] == ["row", "Pairing AUC", "Incoherence", "Relative canonical correlation"]
    assert headers["trade_off"] == ["row", "Frechet distance", "Joint coherence"]
    assert headers["utility"][:3] == ["row", "Accuracy, joint", "Accuracy, mean"]
    assert headers["augmentation"][:4] == ["real rows, n", "arm", "Accuracy, joint", "Gain over classical, joint"]
    assert headers["imputed_modalities"][:3] == ["row", "Energy score", "Error"]
    assert headers["privacy"][:4] == ["test", "row", "all together", "codes"]
    assert headers["conditional"] == ["score", "row", "1 given", "2 given", "3 given", "4 given"]
    tests = {line[0] for line in (readable(drawn["privacy"]) or ((), ()))[1]}
    assert tests == {"Attack AUC", "Near copies", "Distance ratio", "Authenticity"}
    assert {line[0] for line in drawn["privacy"].table} >= {"membership_auc", "near_copies"}  # the file keeps the keys


def test_a_density_with_the_name_of_a_score_keeps_its_name() -> None:
    figure = replace(TITLED, header=("score", "row", "value", "low", "high"), names={"score": {"mmd": "MMD"}})
    table = [("mmd", "mmd", 0.5, None, None)]
    assert readable(replace(figure, table=table, across=("score",))) == (["row", "MMD"], [["mmd", "0.5"]])


@pytest.mark.parametrize("value", [-2.776e-17, -0.0, 0.0])
def test_a_rounding_error_is_shown_as_zero(value: float) -> None:
    assert lines(TITLED, [("gmm", "m0", value, -0.03, 0.03)]) == (
        ["row", "part", "value"],
        [["gmm", "m0", "0 (−0.03 to 0.03)"]],
    )


def test_a_cloud_of_points_has_no_table_in_the_page(drawn: Mapping[str, Figure]) -> None:
    assert readable(drawn["code_map"]) is None
    assert readable(drawn["privacy"]) is not None


def cell(shown: Sheet, sample: int, line: int, modality: int) -> np.ndarray:
    """The bytes of a cell (side, side, 3)."""
    left, top = np.dot((sample, line, modality), shown.steps) + GAP // 2
    pixels = np.asarray(opened(shown.image).convert("RGB"))
    return pixels[top : top + shown.side, left : left + shown.side]


def test_a_sheet_shows_columns_of_samples() -> None:
    labels = np.arange(20) % 10
    shown = sheet(MODALITIES, pictures(0, 20), labels, LABELS)
    assert shown is not None
    assert shown.labels == tuple("0123456789012345")
    assert shown.rows == tuple(m.name for m in MODALITIES)
    pitch = 16 + GAP
    assert shown.size == opened(shown.image).size == (SAMPLES * pitch, 5 * pitch)
    for modality, (_, array) in enumerate(pictures(0, 20).items()):
        expected = np.round(array[2] * 255).transpose(1, 2, 0)
        np.testing.assert_array_equal(cell(shown, 2, 0, modality), expected)


def test_a_sheet_of_other_shapes_and_kinds() -> None:
    tall = Modality("tall", "image", (1, 100, 60), "normal")
    scan = Modality("scan", "volume", (1, 5, 30, 30), "normal")
    large = Modality("large", "image", (3, 600, 600), "normal")
    vector = Modality("vector", "vector", (7,), "normal")
    rng = np.random.default_rng(0)
    data = {m.name: rng.normal(size=(6, *m.shape)) for m in (tall, scan, large, vector)}
    shown = sheet((tall, scan, vector), data)
    assert shown is not None
    assert shown.rows == ("tall", "scan")
    assert (shown.side, shown.labels) == (100, ("",) * 6)
    few = sheet((large, tall), data)
    assert few is not None
    assert (few.side, len(few.labels)) == (128, 6)
    assert sheet((vector,), data) is None
    assert sheet((), {}) is None


def test_many_large_pictures_make_a_short_sheet() -> None:
    modalities = [Modality(f"m{i}", "image", (1, 128, 128), "normal") for i in range(5)]
    shown = sheet(modalities, {m.name: np.zeros((20, 1, 128, 128)) for m in modalities})
    assert shown is not None
    assert len(shown.labels) == 4


def test_a_volume_shows_its_middle() -> None:
    scan = Modality("scan", "volume", (1, 5, 8, 8), "normal", (0.0, 1.0))
    values = np.zeros((1, 1, 5, 8, 8))
    values[0, 0, 2, 3] = 1.0
    shown = sheet((scan,), {"scan": values})
    assert shown is not None
    assert (cell(shown, 0, 0, 0)[3] == 255).all()
    assert cell(shown, 0, 0, 0).sum() == 3 * 8 * 255


def test_the_nearest_pairs_come_first(project: Path) -> None:
    shown = neighbours(project / "artefacts/privacy/gmm", MODALITIES)
    assert shown is not None
    distances = np.sort(np.load(project / "artefacts/privacy/gmm/distances.npy"))[:PAIRS]
    assert shown.labels == tuple(f"{distance:.2f}" for distance in distances)
    assert shown.steps[0][0] == 2 * (16 + GAP) + SPACE  # the two images of a pair, and a space
    assert neighbours(project / "artefacts/privacy/none", MODALITIES) is None


def test_conditional_generation_frames_what_was_given(project: Path) -> None:
    shown = grid(project / "artefacts/evaluation/gmm", MODALITIES)
    assert shown is not None
    assert shown.lines == ("Real", "1 given", "2 given", "3 given", "4 given")
    assert shown.rows == shown.lines
    frames = np.asarray(opened(shown.image).convert("RGBA"))
    for place in np.ndindex(len(shown.labels), 5, 5):
        left, top = np.dot(place, shown.steps)
        sample, line, modality = place
        assert (frames[top, left, 3] == 255) == shown.given[sample][line][modality]
    assert grid(project / "artefacts/evaluation/none", MODALITIES) is None


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


def test_a_dollar_in_a_name_is_no_formula() -> None:
    """Names also come from other projects, and an invalid formula would stop the comparison."""
    estimates = {r"$\frac{$": Estimate(0.5), "a $ and a $": Estimate(0.7)}
    panel = dots(DotPanel((), "$x", estimates), dict.fromkeys(estimates, Mark("#123456", "o")))
    assert opened(replace(TITLED, panels=[panel]).pngs()[0]).width > 0


def test_what_is_missing_has_an_empty_cell_in_tables(results: Results) -> None:
    missing = {"value": None, "why": "there is one row"}
    changed = [
        replace(row, scores=row.scores | {"modalities": {"m0": {"frechet_distance": missing}}})
        if row.name == "gmm"
        else row
        for row in results.rows
    ]
    (figure,) = by_modality(replace(results, rows=tuple(changed)), marks([row.name for row in results.rows]))
    cells = [line[2:] for line in figure.table if line[:2] == ("gmm", "m0")]
    assert cells == [(None, None, None)]
    assert "nan" not in as_csv(figure.header, figure.table)
    opened(figure.pngs()[0])


def test_an_imputer_that_failed_has_a_line_without_a_mark(results: Results) -> None:
    failed = {"value": None, "why": "it failed on this data"}
    tasks = {"modalities": {"energy_score": failed, "rmse": failed, "coverage": failed}}
    rows = [
        replace(row, scores={"imputation": tasks}) if row.title == "Chained equations" else row
        for row in results.imputers
    ]
    look = marks([row.name for row in results.rows])
    (figure,) = imputation(replace(results, imputers=tuple(rows)), look)
    assert ("energy_score", "Chained equations", None, None, None) in figure.table
    opened(figure.pngs()[0])
