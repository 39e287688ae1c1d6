"""Tables with missing cells through the stages that score: the scores of every row, and the baseline samplers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.project import small, write_params

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.metrics.privacy.attacks.suite import NAMES
from postprior.pipelines.metrics.tables.column_tests import column_tests
from postprior.pipelines.metrics.tables.columns import Limits
from postprior.pipelines.report.figures import Figure
from postprior.pipelines.scoring.privacy import complete_samples
from postprior.pipelines.stages.compare import compare
from postprior.pipelines.stages.encode import encode
from postprior.pipelines.stages.evaluate import evaluate
from postprior.pipelines.stages.fit import fit
from postprior.pipelines.stages.generate import generate
from postprior.pipelines.stages.privacy import privacy
from postprior.pipelines.stages.score_baselines import score_baselines
from postprior.pipelines.stages.train import train
from postprior.pipelines.stages.train_evaluators import train_evaluators
from postprior.pipelines.storage import load_artefact, read_json
from postprior.stage1_vae.modalities import Column, Modality

COLUMNS = (Column("age", "normal"), Column("sex", "bernoulli"), Column("group", "categorical", 3))
MODALITIES = (
    Modality("record", "table", (3,), "columns", columns=COLUMNS),
    Modality("scan", "vector", (4,), "normal"),
)


def people(rows: int, seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    age, sex = rng.normal(size=rows) + 2 * group, rng.random(rows) < 0.5
    record, scan = np.stack([age, sex, group], axis=1), np.eye(4)[group] + 0.1 * rng.normal(size=(rows, 4))
    cells = rng.random((rows, 3)) < 0.9
    data = {"record": np.where(cells, record, 0).astype(np.float32), "scan": scan.astype(np.float32)}
    return Dataset(MODALITIES, data, cells={"record": cells})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A project with tables after all stages, and the scores of its rows."""
    root = tmp_path_factory.mktemp("tables")
    for seed, (split, size) in enumerate({"train": 200, "validation": 40, "test": 120}.items()):
        people(size, seed).save(root / "artefacts/data" / split)
    params = write_params(root, small(evaluators__features=8, train__epochs=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("postprior.pipelines.metrics.tables.classifier_test.TREES", 30)
        for stage in (train_evaluators, train, encode, score_baselines):
            stage(params, root)
        for stage in (fit, generate, evaluate):
            stage("gmm", params, root)
        patch.setattr(Figure, "pngs", lambda *_, **__: (bytes(24), bytes(24)))
        compare(params.model_copy(update={"densities": ("gmm",)}), root)
    names = ("real", "reconstruction", "normal", "gmm")
    found = {name: read_json(root / f"results/metrics/{name}.json") for name in names}
    return root, found | read_json(root / "results/metrics/samplers.json")


def test_training_hides_cells_of_tables_and_vectors_or_tells_what_rows_never_lacked(
    rows: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    root = rows[0]
    trained = load_artefact(root / "artefacts/autoencoder", "autoencoder").manifest
    assert [m.get("partial", False) for m in trained["modalities"]] == [True, True]
    assert "never_missing" not in trained
    for split in ("train", "validation"):
        data = Dataset.load(root / "artefacts/data" / split)
        cells = np.array(data.cells["record"])
        cells[:, 1] = True
        replace(data, cells={"record": cells}).save(tmp_path / "artefacts/data" / split)
    train(write_params(tmp_path, small(train__epochs=1, train__hide_cells=0.0)), tmp_path)
    trained = load_artefact(tmp_path / "artefacts/autoencoder", "autoencoder").manifest
    assert [m.get("partial", False) for m in trained["modalities"]] == [True, False]
    assert trained["never_missing"] == {"record": [1]}


def test_single_people_are_attacked_by_the_columns_of_their_tables(
    rows: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    """An autoencoder of one epoch knows nobody: no attack is flagged, and every one has been made."""
    root = rows[0]
    privacy("gmm", write_params(root, small(evaluators__features=8, train__epochs=1, privacy__draws=0)), root)
    found = read_json(root / "results/privacy/gmm.json")
    attacks = found["attacks"]
    assert set(attacks) == set(NAMES)
    for attack in attacks.values():
        assert -1 <= attack["low"] <= attack["value"] <= attack["high"] <= 1
    assert not set(found["flagged"]) & set(NAMES)
    assert attacks["linkability"]["files"] == [
        ["0 (scan)", "1 (scan)", "2 (scan)", "3 (scan)"],
        ["age (record)", "sex (record)", "group (record)"],
    ]
    named = {secret["attribute"] for secret in attacks["attribute_inference"]["secrets"]}
    assert named == {name for file in attacks["linkability"]["files"] for name in file}


def test_every_row_compares_its_tables(rows: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    for row in rows[1].values():
        record = row["modalities"]["record"]
        for scores, name in ((record, "column_shapes"), (row, "column_shapes"), (row, "quality"), (row, "c2st_auc")):
            assert 0 <= scores[name]["low"] <= scores[name]["value"] <= scores[name]["high"] <= 1
        tests = {name: of["test"] for name, of in record["columns"].items()}
        assert tests == {"age": "ks", "sex": "chi_square", "group": "chi_square"}
        assert "columns" not in row["modalities"]["scan"]
        assert row["cautions"] == []
    real, normal, copula, independent = (
        rows[1][name] for name in ("real", "normal", "gaussian_copula", "independent_columns")
    )
    assert real["modalities"]["record"]["columns"]["age"]["p_value"] > 1e-3
    for good in (real, copula):
        assert good["quality"]["value"] > normal["quality"]["value"] + 0.1
        assert good["validity"]["value"] > 0.95
    assert real["c2st_auc"]["value"] < copula["c2st_auc"]["value"] < independent["c2st_auc"]["value"]
    assert normal["c2st_auc"]["value"] > 0.9


def test_a_density_is_compared_with_the_reference_half(rows: tuple[Path, dict[str, dict[str, Any]]]) -> None:
    root = rows[0]
    half = load_artefact(root / "artefacts/baselines", "reference").arrays["rows.reference"]
    real = Dataset.load(root / "artefacts/data/test").select(np.asarray(half))
    made = Dataset.load(root / "artefacts/synthetic/gmm").select(np.arange(60))
    found = rows[1]["gmm"]["modalities"]["record"]["columns"]
    limits = Limits.of(Dataset.load(root / "artefacts/data/train"))
    for name, of in column_tests(real, made, limits)["record"].items():
        assert found[name] == pytest.approx(of)


def test_samples_lack_cells_as_often_as_real_rows_and_all_rows_of_the_leaderboard_are_compared_alike(
    rows: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    root, scores = rows
    test, made = Dataset.load(root / "artefacts/data/test"), Dataset.load(root / "artefacts/synthetic/gmm")
    half = np.asarray(load_artefact(root / "artefacts/baselines", "reference").arrays["rows.reference"])
    shares = {name: row["modalities"]["record"]["missing"]["values"] for name, row in scores.items()}
    assert shares["normal"] == pytest.approx(1 - test.cells["record"][half].mean())
    assert shares["reconstruction"] == shares["real"]
    assert shares["gmm"] == pytest.approx(1 - made.cells["record"][:60].mean())
    assert abs(shares["gmm"] - 0.1) < 4 * np.sqrt(0.09 * (1 / 600 + 1 / 180))
    assert made.mask is None
    assert not made.data["record"][~made.cells["record"]].any()
    generator = Generator.load(root / "artefacts/densities/gmm")
    again, complete = (generator.sample(60, values="mean", complete=flag) for flag in (False, True))
    assert all(np.array_equal(array, made.arrays[name]) for name, array in again.arrays.items())
    tested = complete_samples(generator, made)
    assert not tested.cells
    assert all(np.array_equal(array, complete.data[name]) for name, array in tested.data.items())


def test_the_page_shows_tables_and_vectors_and_says_that_it_shows_real_rows(
    rows: tuple[Path, dict[str, dict[str, Any]]],
) -> None:
    root = rows[0]
    page = (root / "results/report.html").read_text(encoding="utf-8")
    section = page.split('<h2 id="tables">')[1].split("</section>")[0]
    for part in ("Real and synthetic values of each column", "How often are cells missing?", "features of scan"):
        assert part in section
    assert "This page shows real rows" in page
    half = np.asarray(load_artefact(root / "artefacts/baselines", "reference").arrays["rows.reference"])
    real = Dataset.load(root / "artefacts/data/test")
    ages = section.split('<th scope="row">age</th>')[1].split("</tr>")[0]
    for row in half[[0, -1]]:
        missing, value = real.missing("record")[row, 0], real.data["record"][row, 0]
        assert ("missing" if missing else f"{value:.3g}"[:4]) in ages
    drawn = {path.stem for path in (root / "results/plots").glob("*.csv")}
    assert {"columns", "associations", "missing_rates", "missing_patterns", "statistics_scan"} <= drawn
