"""The scikit-learn transformer: scikit-learn's own checks, and codes of rows with missing values."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from postprior.pipelines.generation.transformer import MultimodalEncoder
from postprior.stage1_vae.models import MODELS

COLUMNS = {"a": [0, 1, 2, 3, 4], "b": [5, 6, 7, 8], "c": [9, 10, 11]}
NAMES = [f"{name}{place}" for name, places in COLUMNS.items() for place in range(len(places))]
N = 200
RNG = np.random.default_rng(0)
FACTORS = RNG.normal(size=(N, 2))
MAPS = {name: RNG.normal(size=(2, len(places))) for name, places in COLUMNS.items()}
WHOLE = 10 + 3 * np.hstack([FACTORS @ of for of in MAPS.values()]) + 0.1 * RNG.normal(size=(N, 12))
HOLES = WHOLE.copy()
HOLES[:40, 5:9], HOLES[40:60, :5], HOLES[60:80, 0], HOLES[60:70, 10] = np.nan, np.nan, np.nan, np.nan
TINY: dict[str, Any] = {"modalities": COLUMNS, "latent": 3, "width": 2, "epochs": 2}


# ---- scikit-learn's own checks ---------------------------------------------------------------------------


@parametrize_with_checks([MultimodalEncoder(latent=2, width=2, epochs=1)])
def test_scikit_learns_checks(estimator: MultimodalEncoder, check: Any) -> None:
    check(estimator)


@pytest.mark.filterwarnings("ignore:X (does not have valid|has) feature names:UserWarning")
@pytest.mark.parametrize(
    "check",
    [
        "check_dataframe_column_names_consistency",
        "check_get_feature_names_out_error",
        "check_global_output_transform_pandas",
        "check_set_output_transform",
        "check_set_output_transform_pandas",
        "check_transformer_get_feature_names_out",
        "check_transformer_get_feature_names_out_pandas",
    ],
)
def test_checks_that_scikit_learn_has_for_its_own_estimators(check: str) -> None:
    pytest.importorskip("pandas")
    getattr(estimator_checks, check)("MultimodalEncoder", MultimodalEncoder(latent=2, width=2, epochs=1))


def test_in_a_pipeline_with_a_classifier_and_missing_values() -> None:
    labels = (FACTORS[:, 0] > 0).astype(int)
    encoder = MultimodalEncoder(modalities=COLUMNS, latent=4, width=4, epochs=40, learning_rate=5e-3)
    pipeline = make_pipeline(encoder, LogisticRegression())
    scores = cross_val_score(pipeline, HOLES, labels, cv=2)
    assert scores.min() > 0.85
    chosen = clone(pipeline).set_params(multimodalencoder__latent=2, multimodalencoder__epochs=1)
    assert chosen.fit(HOLES, labels)[:-1].transform(HOLES).shape == (N, 2)


def test_columns_by_name_and_names_of_coordinates() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(HOLES, columns=NAMES, index=[f"row{n}" for n in range(N)])
    named = {of: [name for name in NAMES if name.startswith(of)] for of in ("a", "b", "c")}
    encoder = MultimodalEncoder("dmvae", **TINY | {"modalities": named}, options={"private": {"b": 2}})
    codes = encoder.set_output(transform="pandas").fit_transform(frame)
    assert list(codes.columns) == ["z_0", "z_1", "z_2", "w_b_0", "w_b_1"]
    assert list(codes.index) == list(frame.index)
    assert {name: list(columns) for name, columns in encoder.columns_.items()} == COLUMNS
    by_place = MultimodalEncoder("dmvae", **TINY, options={"private": {"b": 2}}).fit_transform(HOLES)
    np.testing.assert_array_equal(codes.to_numpy(), by_place)


# ---- content of codes ------------------------------------------------------------------------------------


def mixed() -> Any:
    """Two modalities whose texts and categories depend on the same factor as their numbers."""
    pandas = pytest.importorskip("pandas")
    high = FACTORS[:, 0] > 0
    frame = pandas.DataFrame(WHOLE[:, :2], columns=["x", "y"])
    frame["stage"] = pandas.Categorical(np.where(high, "late", "early"), ["none", "early", "late"], ordered=True)
    frame["text"] = pandas.Series(np.where(high, "b", "a")).where(np.arange(N) % 9 > 0)
    frame["number"] = pandas.array(np.where(np.arange(N) % 7 > 0, WHOLE[:, 2], None), "Float64")
    return frame


MIXED = {"numbers": ["x", "y"], "both": ["stage", "text", "number"]}


def test_texts_and_categories_are_classes() -> None:
    frame = mixed()
    encoder = MultimodalEncoder(modalities=MIXED, latent=3, width=4, epochs=40, learning_rate=5e-3).fit(frame)
    assert encoder.classes_ == {2: ("early", "late"), 3: ("a", "b")}
    assert [column.likelihood for column in encoder.model_.modalities[1].columns] == ["categorical"] * 2 + ["normal"]
    alone = frame.assign(x=np.nan, y=np.nan, number=np.nan)
    codes = encoder.transform(alone)
    high = FACTORS[:, 0] > 0
    assert LogisticRegression().fit(codes, high).score(codes, high) > 0.9
    with pytest.raises(ValueError, match="column text: found 'z', which no row of fit has, expected one of a, b"):
        encoder.transform(frame.assign(text="z"))
    with pytest.raises(ValueError, match="ndarray found, expected a data frame, as in fit"):
        encoder.transform(WHOLE[:, :5])


def test_numbers_beside_classes_have_the_likelihood_of_a_column() -> None:
    with pytest.raises(ValueError, match="likelihoods: both: found 'hurdle_softplus', expected one of"):
        MultimodalEncoder(modalities=MIXED, likelihoods={"both": "hurdle_softplus"}, epochs=1).fit(mixed())
    with pytest.raises(ValueError, match="column text holds 1 class, expected two or more"):
        MultimodalEncoder(epochs=1).fit(mixed().assign(text="a"))


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device: found 'tpu', expected auto, cpu, or an accelerator"):
        MultimodalEncoder(**TINY, device="tpu").fit(WHOLE)


def test_codes_keep_the_factors_and_those_of_one_modality_too() -> None:
    encoder = MultimodalEncoder(modalities=COLUMNS, latent=4, width=4, epochs=150, learning_rate=5e-3)
    rows = np.vstack([HOLES[:60], WHOLE[60 : N // 2]])  # modalities are missing, single values are not
    encoder.fit(rows)
    held_out, factors = WHOLE[N // 2 :], FACTORS[N // 2 :]
    readout = LinearRegression().fit(encoder.transform(WHOLE[: N // 2]), FACTORS[: N // 2])
    assert readout.score(encoder.transform(held_out), factors) > 0.9
    for name, places in COLUMNS.items():
        alone = np.full_like(held_out, np.nan)
        alone[:, places] = held_out[:, places]
        assert readout.score(encoder.transform(alone), factors) > 0.9, name


def test_a_row_with_one_modality_has_the_code_of_its_expert() -> None:
    encoder = MultimodalEncoder(**TINY).fit(WHOLE)
    alone = np.full((5, 12), np.nan)
    alone[:, 5:9] = WHOLE[:5, 5:9]
    standardised = (WHOLE[:5] - WHOLE.mean(0)) / WHOLE.std(0)
    values = torch.from_numpy(standardised[:, 5:9].astype(np.float32)).double()
    expected = encoder.model_.encoders["b"](values)[:, :3]
    np.testing.assert_allclose(encoder.transform(alone), expected, rtol=1e-6, atol=1e-9)


def test_encoders_read_which_single_values_are_missing() -> None:
    encoder = MultimodalEncoder(**TINY).fit(HOLES)
    assert [m.partial for m in encoder.model_.modalities] == [True, False, True]
    row = WHOLE[100:101].copy()
    row[0, 0] = np.nan
    mean = row.copy()
    mean[0, 0] = np.nanmean(HOLES[:, 0])
    assert np.abs(encoder.transform(row) - encoder.transform(mean)).max() > 1e-4


def test_a_missing_modality_has_the_mean_of_the_prior_for_its_private_code() -> None:
    encoder = MultimodalEncoder("dmvae", **TINY, options={"private": {"a": 2, "b": 1}}).fit(HOLES)
    codes = encoder.transform(HOLES)
    assert encoder.get_feature_names_out().tolist() == ["z_0", "z_1", "z_2", "w_a_0", "w_a_1", "w_b_0"]
    np.testing.assert_array_equal((codes[:, 3:] == 0).all(0), False)
    np.testing.assert_array_equal(codes[40:60, 3:5], 0)
    np.testing.assert_array_equal(codes[:40, 5], 0)


def test_counts_stay_counts() -> None:
    counts = np.random.default_rng(0).poisson(4, size=(60, 3)).astype(float)
    encoder = MultimodalEncoder(likelihoods="negative_binomial", latent=2, width=2, epochs=1).fit(counts)
    expected = encoder.model_.encoders["x"](torch.from_numpy(counts))[:, :2]
    np.testing.assert_allclose(encoder.transform(counts), expected, rtol=1e-6, atol=1e-9)


# ---- determinism and state -------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_chains")
@pytest.mark.parametrize("name", MODELS)
def test_every_model_encodes_a_row_alike_in_any_batch_and_after_a_copy(name: str) -> None:
    encoder = MultimodalEncoder(name, **TINY).fit(HOLES)
    jnf = name == "jnf"  # draws codes of incomplete rows with a slow sampler
    order = np.random.default_rng(1).permutation(12 if jnf else N)
    rows = HOLES[-12:] if jnf else HOLES
    codes = encoder.transform(rows)
    assert codes.dtype == np.float64
    assert codes.shape == (len(rows), len(encoder.get_feature_names_out()))
    for part in np.split(order, 4):
        np.testing.assert_allclose(encoder.transform(rows[part]), codes[part], rtol=0, atol=1e-12)
    some = HOLES[[36, 38, 40, 42, 60, 75, -2, -1]]
    codes = encoder.transform(some)
    assert np.isfinite(codes).all()
    for copied in (pickle.loads(pickle.dumps(encoder)), copy.deepcopy(encoder)):  # noqa: S301 - our own
        np.testing.assert_array_equal(copied.transform(some), codes)


def test_the_seed_decides_and_no_global_generator_is_touched() -> None:
    before, torchs = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    one, same, other = (MultimodalEncoder(**TINY, random_state=s).fit_transform(HOLES) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.random.get_rng_state(), torchs)


def test_training_lowers_the_loss() -> None:
    curve = MultimodalEncoder(**TINY | {"epochs": 10}).fit(HOLES).loss_curve_
    assert len(curve) == 10
    assert curve[-1] < curve[0]


# ---- refusals --------------------------------------------------------------------------------------------


def _blank(rows: Any, columns: Any) -> np.ndarray:
    changed = WHOLE.copy()
    changed[rows, columns] = np.nan
    return changed


@pytest.mark.parametrize(
    ("options", "X", "sentence"),
    [
        ({}, _blank(7, slice(None)), "X: row 7 holds only NaN, expected at least one value in every row"),
        ({}, _blank(slice(None), 3), "X: column 3 holds only NaN, expected at least one value; leave it out"),
        ({"model": "mvtca"}, WHOLE, r"model: found 'mvtca', which is not a known model \(did you mean mvtcae\?\)"),
        ({"options": {"betta": 1}}, WHOLE, r"options\.betta is not a known key \(did you mean beta\?\)"),
        ({"modalities": {"a": [0, 99]}}, WHOLE, "modalities: a: found column 99, expected an index below 12"),
        ({"modalities": {"a": ["x"]}}, WHOLE, "modalities: a: found column 'x', expected an index below 12"),
        ({"modalities": {"a": range(11)}}, WHOLE, "found column 11 in 0 places, expected every column of X in"),
        ({"modalities": {"a": range(12), "b": [4]}}, WHOLE, "found column 4 in 2 places, expected every"),
        ({"modalities": {}}, WHOLE, "found column 0 in 0 places, expected every column of X in exactly one"),
        ({"modalities": {"a": range(12), "b": []}}, WHOLE, "shape of modality b: found"),
        ({"likelihoods": "columns"}, WHOLE, "likelihoods: a: found 'columns', expected one of normal, laplace"),
        ({"likelihoods": {"d": "normal"}}, WHOLE, "likelihoods: found modality 'd', expected one of a, b, c"),
        ({"likelihoods": {"b": "bernoulli"}}, WHOLE, "X: modality b holds .*, expected numbers from 0 to 1 for"),
        ({"likelihoods": "negative_binomial"}, WHOLE, "X: modality a holds .*, expected whole numbers from 0 for"),
        ({"latent": 0}, WHOLE, "latent: found 0, expected a number above 0"),
        ({"epochs": 0}, WHOLE, "epochs: found 0, expected a number above 0"),
        ({"learning_rate": 1e6, "epochs": 5}, WHOLE, "the loss is no longer finite; lower learning_rate"),
    ],
)  # fmt: skip
def test_invalid_arguments_and_values_are_errors_of_one_sentence(
    options: dict[str, Any], X: np.ndarray, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        MultimodalEncoder(**TINY | options).fit(X)
    assert "\n" not in str(error.value)


def test_a_joint_encoder_needs_complete_rows() -> None:
    halves = WHOLE.copy()
    halves[::2, :5], halves[1::2, 5:] = np.nan, np.nan
    with pytest.raises(ValueError, match="phase joint: found no complete row"):
        MultimodalEncoder("jmvae", **TINY).fit(halves)


def test_rows_without_a_value_are_refused_at_transformation_too() -> None:
    encoder = MultimodalEncoder(**TINY).fit(WHOLE)
    with pytest.raises(ValueError, match="X: row 2 holds only NaN"):
        encoder.transform(_blank(2, slice(None)))
