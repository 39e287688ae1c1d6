"""Detection: anomalies are found and named, normal rows have the expected alarm rate, misuse is an error."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as csv
import pytest
import torch
from support import linear_gaussian as linear

from postprior.pipelines.api.detect import detect
from postprior.pipelines.artefacts.codes import posteriors
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.detection.detector import MOST, Detection, Detector
from postprior.pipelines.detection.rarity import alarm_rate
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.settings.params import Params
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES

Trained = tuple[Path, Params]
SPLITS = (400, 200, 200)  # training, calibration, scored


def of_model(model: Any, *sizes: int) -> list[Dataset]:
    """Return disjoint sets of rows drawn from a linear Gaussian model."""
    batch = linear.sample(model.double(), sum(sizes), seed=1)
    model.float()
    rows = Dataset(model.modalities, {name: x.float().numpy() for name, x in batch.data.items()})
    return [rows.select(part) for part in np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])]


def pair(model: Any, rows: Dataset, density: str = "gaussian") -> Generator:
    codes = posteriors(model, rows, 32, torch.Generator().manual_seed(0))
    return Generator(model, DENSITIES[density]().fit(codes), {})


@pytest.fixture(scope="module")
def known() -> tuple[Detector, Dataset]:
    """Return a detector with the exact model of three modalities of four values, and normal rows to score."""
    model: Any = linear.exact(MODELS["mvae"](linear.modalities(3), latent=linear.LATENT, likelihood_scale=linear.SCALE))
    train, calibration, new = of_model(model, *SPLITS)
    return Detector.fit(pair(model, train), train, calibration), new


def changed(rows: Dataset, **data: np.ndarray) -> Dataset:
    return replace(rows, data={**rows.data, **data})


def lacking(rows: Dataset, *names: str) -> Dataset:
    mask = np.array([[m.name not in names for m in rows.modalities]] * len(rows))
    return replace(rows, mask=mask)


def same(one: Detection, other: Detection) -> None:
    for key in ("score", "p_value", "calibrated_on", "contributions"):
        np.testing.assert_array_equal(getattr(one, key), getattr(other, key))
    for key in ("statistics", "row_statistics", "features"):
        for name, values in getattr(one, key).items():
            np.testing.assert_array_equal(values, getattr(other, key)[name])


def test_contributions_sum_to_the_score(known: tuple[Detector, Dataset]) -> None:
    detector, rows = known
    for scored in (rows, lacking(rows, "m1"), lacking(rows, "m0", "m1")):
        found = detector.score(scored)
        np.testing.assert_allclose(found.contributions.sum(1), found.score)
        np.testing.assert_array_equal(found.contributions != 0, scored.observed)
        assert found.score.mean() == pytest.approx(1, abs=0.15)  # each statistic has a surprisal of one nat


def test_a_changed_value_is_found_and_named(known: tuple[Detector, Dataset]) -> None:
    """One of twelve values is moved by six standard deviations of its noise."""
    detector, rows = known
    values = rows.data["m2"].copy()
    values[:, 1] += 6 * linear.SCALE
    normal, found = detector.score(rows), detector.score(changed(rows, m2=values))
    assert np.mean(found.contributions.argmax(1) == 2) > 0.9
    assert np.mean(found.features["m2"].argmax(1) == 1) > 0.9
    assert np.mean(found.p_value <= 0.05) > 0.8
    assert np.mean(normal.p_value <= 0.05) < 0.1
    for name, statistic in normal.statistics.items():
        assert (found.statistics[name][:, 2] > statistic[:, 2]).mean() > 0.5


def test_modalities_that_contradict_one_another_are_found(known: tuple[Detector, Dataset]) -> None:
    """A modality is taken from another row: it is normal by itself, and only the prediction from others reveals it."""
    detector, rows = known
    swapped = changed(rows, m1=np.roll(rows.data["m1"], 1, 0))
    normal, found = detector.score(rows), detector.score(swapped)
    for name in ("code", "distance"):
        np.testing.assert_allclose(
            np.sort(found.statistics[name][:, 1]), np.sort(normal.statistics[name][:, 1]), rtol=0.5, atol=1
        )
    assert np.mean(found.statistics["inconsistency"][:, 1] > normal.statistics["inconsistency"][:, 1]) > 0.75
    assert np.mean(found.score > normal.score) > 0.6
    assert np.mean(found.p_value <= 0.05) > 2 * np.mean(normal.p_value <= 0.05)


@pytest.mark.parametrize("names", [(), ("m1",), ("m0", "m2")])
def test_normal_rows_have_the_expected_alarm_rate_under_every_pattern(
    known: tuple[Detector, Dataset], names: tuple[str, ...]
) -> None:
    """Scored once, held-out rows are split 200 times at random into calibration rows and new rows."""
    detector, rows = known
    score = detector.score(lacking(rows, *names)).score
    rng, n, shares = np.random.default_rng(0), 120, {alpha: [] for alpha in (0.05, 0.1)}
    from postprior.pipelines.detection.rarity import p_values

    for _ in range(200):
        order = rng.permutation(score)
        for alpha, found in shares.items():
            found.append(np.mean(p_values(order[:n], order[n:]) <= alpha))
    for alpha, found in shares.items():
        assert np.mean(found) == pytest.approx(float(alarm_rate(alpha, n)), abs=0.01)


def test_rows_that_lack_modalities_are_compared_with_rows_that_have_at_least_the_same(
    known: tuple[Detector, Dataset],
) -> None:
    detector, rows = known
    half = np.ones((SPLITS[1], 3), bool)
    half[:150, 0] = False
    detector = Detector.fit(detector.generator, detector.normal, replace(detector.calibration, mask=half))
    mask = np.array([[True, True, True], [False, True, True], [True, False, False]])[np.arange(len(rows)) % 3]
    found = detector.score(replace(rows, mask=mask))
    np.testing.assert_array_equal(found.calibrated_on, np.array([50, 200, 50])[np.arange(len(rows)) % 3])
    assert np.isnan(found.statistics["code"][1::3, 0]).all()
    assert np.isnan(found.statistics["inconsistency"][2::3]).all()
    assert (found.features["m0"][1::3] == 0).all()
    for pattern in range(3):
        assert np.mean(found.p_value[pattern::3] <= 0.1) < 0.25
        assert found.p_value[pattern::3].min() >= 1 / (found.calibrated_on[pattern] + 1)


def test_values_of_missing_entries_have_no_effect(known: tuple[Detector, Dataset]) -> None:
    detector, rows = known
    seen = {"m1": np.ones((len(rows), 4), bool)}
    seen["m1"][:, 2:], seen["m1"][5] = False, False  # row 5 lacks all cells of m1: it lacks m1
    scored = replace(lacking(rows, "m0"), cells=seen)
    garbage = {"m0": np.full_like(rows.data["m0"], 99), "m1": rows.data["m1"].copy()}
    garbage["m1"][5] = -7
    found = detector.score(scored)
    same(found, detector.score(changed(scored, **garbage)))
    assert found.contributions[5].tolist() == [0, 0, found.score[5]]
    assert (found.features["m1"][:, 2:] == 0).all()


def test_the_same_seed_gives_the_same_bytes(known: tuple[Detector, Dataset]) -> None:
    detector, rows = known
    state = torch.get_rng_state()
    again = Detector.fit(detector.generator, detector.normal, detector.calibration)
    same(detector.score(rows), again.score(rows))
    assert torch.equal(state, torch.get_rng_state())
    other = Detector.fit(detector.generator, detector.normal, detector.calibration, seed=1).score(rows)
    assert not np.array_equal(other.score, detector.score(rows).score)
    assert np.corrcoef(other.score, detector.score(rows).score)[0, 1] > 0.9


def test_calibration_rows_do_not_affect_the_score(known: tuple[Detector, Dataset]) -> None:
    detector, rows = known
    far = changed(detector.calibration, m0=detector.calibration.data["m0"] + 50)
    found = Detector.fit(detector.generator, detector.normal, far).score(rows)
    np.testing.assert_array_equal(found.score, detector.score(rows).score)
    assert (found.p_value == 1).all()


def test_covariates_are_regressed_out_of_the_codes(known: tuple[Detector, Dataset]) -> None:
    """If the targets are the code itself, the distance does not grow, however far the code lies from other codes."""
    detector, rows = known

    def with_code(data: Dataset) -> Dataset:
        codes = posteriors(detector.generator.model, data, 1, torch.Generator())
        return replace(data, targets=codes.mean.numpy().astype(np.float64))

    train, calibration = (with_code(data) for data in (detector.normal, detector.calibration))
    far = with_code(changed(rows, **{name: 3 * values for name, values in rows.data.items()}))
    known_to_be = Detector.fit(detector.generator, train, calibration).score(far).row_statistics["distance"]
    told = detector.score(replace(far, targets=None)).row_statistics["distance"]
    assert np.median(known_to_be) < 5 < np.median(told)


def test_a_subset_of_many_training_rows_is_used(known: tuple[Detector, Dataset]) -> None:
    detector, _ = known
    many = detector.normal.select(np.resize(np.arange(len(detector.normal)), MOST + 50))
    assert len(Detector.fit(detector.generator, many, detector.calibration).normal) == MOST


MODALITIES = (
    Modality("a", "vector", (3,), "normal"),
    Modality(
        "b",
        "table",
        (3,),
        "columns",
        columns=(Column("age", "normal"), Column("sex", "bernoulli"), Column("site", "categorical", 3)),
        partial=True,
    ),
    Modality("c", "image", (1, 4, 4), "bernoulli", (0, 1)),
)
PRIVATE = {"dmvae": 1, "mmvaeplus": 1, "cmvae": 1}
SIZES = {"nexus": {"bottom": 4}, "mhvae": {"levels": 2}, "cmvae": {"clusters": 2}}


def mixed(rows: int) -> Dataset:
    """Return rows with a vector, a table with missing cells, and an image that a third of the rows lacks."""
    rng = np.random.default_rng(rows)
    mask = np.ones((rows, 3), bool)
    mask[: rows // 3, 2] = False
    columns = (rng.normal(size=rows), rng.random(rows) < 0.4, rng.integers(3, size=rows))
    data = {
        "a": rng.normal(size=(rows, 3)),
        "b": np.stack(columns, 1),
        "c": rng.random((rows, 1, 4, 4)).round(),
    }
    cells = {"b": rng.random((rows, 3)) < np.array([1.0, 0.8, 0.8])}
    return Dataset(MODALITIES, {k: v.astype(np.float32) for k, v in data.items()}, mask, cells=cells)


@pytest.mark.parametrize(  # models with flows encode incomplete rows by Hamiltonian steps, which take a minute
    "name", [pytest.param(name, marks=pytest.mark.slow) if name == "jnf" else name for name in MODELS]
)
def test_every_model_scores_incomplete_rows(name: str) -> None:
    private = {"private": PRIVATE[name]} if name in PRIVATE else {}
    model = MODELS[name](MODALITIES, latent=2, width=2, **private, **SIZES.get(name, {}))
    train, calibration, new = mixed(60), mixed(40), mixed(24)
    found = Detector.fit(pair(model.eval(), train), train, calibration).score(new)
    assert np.isfinite(found.score).all()
    np.testing.assert_allclose(found.contributions.sum(1), found.score)
    assert list(found.features) == ["a", "b"]
    np.testing.assert_array_equal(np.isnan(found.statistics["reconstruction"]), ~new.observed)
    assert (found.features["b"][~new.cells["b"]] == 0).all()


def test_misuse_is_an_error(known: tuple[Detector, Dataset]) -> None:
    detector, rows = known
    pair_of, train, calibration = detector.generator, detector.normal, detector.calibration
    with pytest.raises(UserError, match="calibration: found the training rows"):
        Detector.fit(pair_of, train, train)
    targets = replace(calibration, targets=np.zeros((len(calibration), 2)))
    with pytest.raises(UserError, match="calibration: found 2 targets, expected 0"):
        Detector.fit(pair_of, train, targets)
    with pytest.raises(UserError, match="modality other found, expected some of m0, m1, m2"):
        detector.score(Dataset((Modality("other", "vector", (4,), "normal"),), {"other": np.zeros((1, 4), np.float32)}))
    nothing = {m.name: np.ones((len(rows), 4), bool) for m in rows.modalities}
    for seen in nothing.values():
        seen[7] = False
    with pytest.raises(UserError, match="row 7 has no observed value"):
        detector.score(replace(rows, cells=nothing))
    few = lacking(train, "m2")
    assert few.mask is not None
    few.mask[:6] = True
    with pytest.raises(UserError, match="rows with m0, m1, m2, but only 6 training rows have these modalities"):
        Detector.fit(pair_of, few, calibration).score(rows)
    codes = posteriors(pair_of.model, train, 1, torch.Generator())
    unscored = DENSITIES["riemannian"](centroids=50).fit(codes)
    with pytest.raises(UserError, match="density riemannian: has no log-likelihood"):
        Detector.fit(Generator(pair_of.model, unscored, {}), train, calibration)


# ---- the command ---------------------------------------------------------------------------------------


def test_a_table_of_scores(trained: Trained, tmp_path: Path) -> None:
    root, params = trained
    data = Dataset.load(root / "artefacts/data/validation")
    mask = np.ones((len(data), 5), bool)
    mask[::2, 3:] = False
    replace(data.select(np.arange(len(data))), mask=mask).save(tmp_path / "new")
    lines = detect("gmm", tmp_path / "new", params, root, tmp_path / "scores.csv")
    table = csv.read_csv(tmp_path / "scores.csv")
    assert table.num_rows == len(data)
    assert table["id"].to_pylist() == data.ids.tolist() if data.ids is not None else "row" in table.column_names
    flagged = np.array(table["flagged"].to_pylist())
    p = table["p_value"].to_numpy()
    np.testing.assert_array_equal(flagged, p <= 0.05)
    contributions = sum(table[f"contribution.m{m}"].to_numpy() for m in range(5))
    np.testing.assert_allclose(contributions, table["score"].to_numpy())
    assert table["reconstruction.m4"].is_null().to_pylist()[:2] == [True, False]
    assert {"inconsistency.m0", "code.m0", "distance.m0", "code", "distance"} <= set(table.column_names)
    assert "top_feature" not in table.column_names  # images have no named features
    assert lines[0] == f"{tmp_path / 'scores.csv'}: {len(data)} rows, {int(flagged.sum())} flagged at alpha 0.05"
    assert lines[1].endswith(f"on average a share of {alarm_rate(0.05, 120):.3f} of normal rows is flagged")


def test_the_command_refuses(trained: Trained, tmp_path: Path) -> None:
    root, params = trained
    new, out = root / "artefacts/data/validation", tmp_path / "scores.csv"

    def refused(sentence: str, name: str = "gmm", **given: Any) -> None:
        with pytest.raises(UserError, match=sentence) as error:
            detect(name, new, params, root, given.pop("out", out), **given)
        assert "\n" not in str(error.value)
        assert not out.exists()

    refused("found 'gnm', which is not a known fitted density.*known: gmm, normal", "gnm")
    refused("found '.txt', which is not a known ending of a table", out=tmp_path / "scores.txt")
    refused("alpha: found 1.5, expected a number above 0 and below 1", alpha=1.5)
    refused(r"alpha: found 0.001, expected at least 0.00826, the smallest p-value possible with 120", alpha=0.001)
    refused("calibration: found the training rows", calibration=root / "artefacts/data/train")


def test_top_features_are_named(known: tuple[Detector, Dataset]) -> None:
    from postprior.pipelines.api.detect import top_features

    detector, rows = known
    values = rows.data["m1"].copy()
    values[:, 3] += 10
    names, surprisal = top_features(detector.normal.modalities, detector.score(changed(rows, m1=values)))
    assert np.mean(names == "m1.3") > 0.9
    assert (surprisal > 0).all()
