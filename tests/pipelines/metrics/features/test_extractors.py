"""Feature extractors by name: what each learns, reproducibility, state, and errors."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.evaluators import EXTRACTORS, Evaluators, fit_extractor, resolve
from postprior.pipelines.metrics.features.extractor import BLOCK
from postprior.pipelines.metrics.features.label_classifiers import LabelClassifiers
from postprior.pipelines.metrics.features.pretrained import VisionTransformer, _torch_fidelity
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.randomness import seeded

MODALITIES = (
    Modality("grey", "image", (1, 6, 6), "laplace", (-1, 1)),
    Modality("colour", "image", (3, 5, 7), "laplace"),
    Modality("scan", "volume", (1, 4, 4, 4), "normal"),
    Modality("text", "sequence", (5,), "categorical", classes=3),
    Modality(
        "sheet",
        "table",
        (3,),
        "columns",
        columns=(
            Column("age", "normal"),
            Column("visits", "negative_binomial"),
            Column("sex", "categorical", 2),
        ),
    ),
)
NAMES = [m.name for m in MODALITIES]


def data(rows=300, seed=0, missing=False):
    rng = np.random.default_rng(seed)
    values = {
        "grey": rng.uniform(-1, 1, (rows, 1, 6, 6)),
        "colour": rng.normal(3, 2, (rows, 3, 5, 7)),
        "scan": rng.normal(size=(rows, 1, 4, 4, 4)),
        "text": rng.integers(0, 3, (rows, 5)),
        "sheet": np.stack([rng.normal(40, 9, rows), rng.poisson(3, rows), rng.integers(0, 2, rows)], 1),
    }
    mask = np.ones((rows, 5), bool)
    if missing:
        mask[0::3, 0] = False
    return Dataset(MODALITIES, {n: v.astype(np.float32) for n, v in values.items()}, mask)


def outputs_of(extractor, dataset):
    return Evaluators("any", extractor, None).outputs(dataset)


@pytest.fixture(scope="module", params=["pca", "random", "support.extractor:Moments"])
def fitted(request):
    return request.param, fit_extractor(request.param, data(), 16, 0, None)


def test_every_kind_of_modality_has_features(fitted):
    name, extractor = fitted
    outputs = outputs_of(extractor, data(50, seed=1))
    assert outputs.predictions is None
    widths = {"pca": [16, 16, 16, 15, 4], "random": [16] * 5}.get(name, [2] * 5)
    assert [features.shape for features in outputs.features] == [(50, width) for width in widths]
    assert all(features.dtype == np.float32 for features in outputs.features)
    assert np.isfinite(outputs.joined).all()


def test_features_of_a_row_do_not_depend_on_other_rows(fitted):
    _, extractor = fitted
    many = data(BLOCK + 40, seed=1)
    long = outputs_of(extractor, many).joined
    for rows in (np.arange(7), np.arange(BLOCK, BLOCK + 40)):
        assert (outputs_of(extractor, many.select(rows)).joined == long[rows]).all()


def test_a_seed_gives_the_same_state_and_the_state_rebuilds_the_extractor(fitted):
    name, extractor = fitted
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    again = fit_extractor(name, data(), 16, 0, None)
    assert torch.rand(1) == expected
    tensors, description = Evaluators(name, extractor, None).state()
    assert all(torch.equal(value, tensors[f"space.{key}"]) for key, value in again.state()[0].items())
    rebuilt = Evaluators.from_state(tensors, description)
    assert rebuilt.label_names is rebuilt.classes is rebuilt.label(data(9)) is None
    assert (rebuilt.outputs(data(9)).joined == outputs_of(extractor, data(9)).joined).all()


def test_missing_values_are_neither_learned_from_nor_evaluated(fitted):
    name, _ = fitted
    partial = data(missing=True)
    other = {
        **partial.data,
        "grey": np.where(partial.observed[:, 0, None, None, None], partial.data["grey"], 77),
    }
    both = [
        fit_extractor(name, Dataset(MODALITIES, values, partial.mask), 16, 0, None) for values in (partial.data, other)
    ]
    outputs = [outputs_of(extractor, data(9, missing=True)) for extractor in both]
    assert (outputs[0].joined == outputs[1].joined).all()
    assert (outputs[0].features[0][0::3] == 0).all()


def test_principal_components_are_those_of_the_standardised_values_with_one_scale_per_modality():
    rows = data(400)
    extractor = fit_extractor("pca", rows, 6, 0, None)
    found = outputs_of(extractor, rows).features[2].astype(float)
    x = rows.data["scan"].reshape(400, -1).astype(float)
    x = (x - x.mean()) / x.std()
    vectors = np.linalg.eigh(np.cov(x.T))[1][:, ::-1][:, :6]
    projected = (x - x.mean(0)) @ vectors
    gram = projected @ projected.T
    np.testing.assert_allclose(found @ found.T, gram * (6 / projected.var(0, ddof=1).sum()), atol=1e-3)
    for features in outputs_of(extractor, rows).features:
        assert features.var(0, ddof=1).sum() == pytest.approx(6, rel=1e-3)


def test_other_seeds_draw_other_networks():
    one, other = (outputs_of(fit_extractor("random", data(60), 4, seed, None), data(9)).joined for seed in (0, 1))
    assert not np.allclose(one, other)


def test_label_classifiers_can_be_combined_with_another_extractor():
    labelled = Dataset(MODALITIES, data(40).data, labels=np.arange(40) % 2, label_names=("a", "b"))
    classifiers = LabelClassifiers(MODALITIES, ("a", "b"), 8)
    evaluators = Evaluators("pca", fit_extractor("pca", labelled, 5, 0, None), classifiers)
    again = Evaluators.from_state(*evaluators.state())
    for which in (evaluators, again):
        outputs = which.outputs(labelled)
        assert outputs.predictions is not None
        assert outputs.features[0].shape == (40, 5)
        expected = classifiers.labels("scan", torch.from_numpy(labelled.data["scan"]))
        assert (outputs.predictions[:, 2] == expected.numpy()).all()
    assert (again.outputs(labelled).joined == evaluators.outputs(labelled).joined).all()


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (
            "pac",
            None,
            "evaluators.extractor: found 'pac'.*did you mean pca.*expected auto, classifier, dinov2, inception",
        ),
        ("nowhere:Thing", None, "evaluators.extractor: 'nowhere:Thing' cannot be imported"),
        (
            "numpy:ndarray",
            None,
            "expected a subclass of postprior.pipelines.metrics.features.extractor.Extractor",
        ),
        ("classifier", None, "learns from labels, but the data have none"),
        ("pca", "w.safetensors", "evaluators.weights: found 'w.safetensors', expected null"),
        ("dinov2", None, "evaluators.weights: found null, but extractor dinov2"),
        ("inception", "none.safetensors", "evaluators.weights: none.safetensors does not exist"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(name, weights, message):
    with pytest.raises(UserError, match=message):
        fit_extractor(name, data(20), 4, 0, None if weights is None else Path(weights))


def test_every_name_is_a_feature_space():
    assert list(EXTRACTORS) == ["classifier", "pca", "random", "inception", "dinov2"]
    assert resolve("support.extractor:Moments").__name__ == "Moments"


# ---- pretrained networks -----------------------------------------------------------------------------------


def transformer(width=64, depth=2, side=16, seed=0):
    """Return weights of a small DINOv2 with the parameter names of the published files."""
    g = torch.Generator().manual_seed(seed)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(depth):
        layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
        layers |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        for name, shape in layers.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        vectors = ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma")
        shapes |= {f"blocks.{i}.{name}": (width,) for name in vectors}
    return {name: 0.2 * torch.randn(shape, generator=g) for name, shape in shapes.items()}


@pytest.mark.parametrize("width", [64, 128])
def test_the_transformer_is_that_of_torch_with_scaled_residuals(width):
    """With γ folded into the last layers of both branches, a block is torch's pre-norm encoder layer."""
    tensors = {name: value.double() for name, value in transformer(width).items()}
    ours = VisionTransformer(tensors).double()
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)).double()
    x = torch.nn.functional.conv2d(
        images, tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"], stride=14
    )
    x = torch.cat([tensors["cls_token"].expand(2, -1, -1), x.flatten(2).mT], 1) + tensors["pos_embed"]
    for i in range(2):
        block = {name.removeprefix(f"blocks.{i}."): value for name, value in tensors.items()}
        layer = torch.nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        ).double()
        state = {
            "self_attn.in_proj_weight": block["attn.qkv.weight"],
            "self_attn.in_proj_bias": block["attn.qkv.bias"],
        }
        for to, of, scale in (("self_attn.out_proj", "attn.proj", "ls1"), ("linear2", "mlp.fc2", "ls2")):
            gamma = block[f"{scale}.gamma"]
            state |= {
                f"{to}.weight": gamma[:, None] * block[f"{of}.weight"],
                f"{to}.bias": gamma * block[f"{of}.bias"],
            }
        for to, of in (("linear1", "mlp.fc1"), ("norm1", "norm1"), ("norm2", "norm2")):
            state |= {f"{to}.{part}": block[f"{of}.{part}"] for part in ("weight", "bias")}
        layer.load_state_dict(state)
        x = layer(x)
    expected = torch.nn.functional.layer_norm(x[:, 0], (width,), tensors["norm.weight"], tensors["norm.bias"], 1e-6)
    torch.testing.assert_close(ours(images), expected, rtol=1e-9, atol=1e-9)


def test_positions_are_interpolated_for_other_sizes_only():
    network = VisionTransformer(transformer(side=37))
    assert network.positions(37, 37) is network.pos_embed
    assert network.positions(16, 16).shape == (1, 257, 64)
    flat = transformer(side=37)
    flat["pos_embed"][:] = flat["pos_embed"][:, :1]
    torch.testing.assert_close(VisionTransformer(flat).positions(16, 16), flat["pos_embed"][:, :257])


@pytest.mark.parametrize("features", [8, 64])
def test_dinov2_is_used_for_images_and_principal_components_for_other_modalities(tmp_path, features):
    save_file(transformer(depth=1), tmp_path / "vit.safetensors")
    rows = data(30)  # less than a block
    torch.manual_seed(4)
    expected = torch.rand(1)
    torch.manual_seed(4)
    extractor = fit_extractor("dinov2", rows, features, 0, tmp_path / "vit.safetensors")
    assert torch.rand(1) == expected
    outputs = outputs_of(extractor, rows)
    widths = {8: [8, 8, 8, 8, 4], 64: [64, 64, 30, 15, 4]}[features]
    assert [array.shape[1] for array in outputs.features] == widths
    (tmp_path / "vit.safetensors").unlink()
    rebuilt = Evaluators.from_state(*Evaluators("dinov2", extractor, None).state())
    assert (rebuilt.outputs(rows).joined == outputs.joined).all()
    assert (outputs_of(fit_extractor("pca", rows, features, 0, None), rows).features[3] == outputs.features[3]).all()
    if features == 64:  # as published: no projection, the full range of values
        grey = torch.from_numpy(rows.data["grey"][:3]).expand(-1, 3, -1, -1)
        large = torch.nn.functional.interpolate((grey + 1) / 2, size=(224, 224), mode="bilinear")
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (large - mean[:, None, None]) / deviation[:, None, None]
        expected = VisionTransformer(transformer(depth=1))(x).detach()
        torch.testing.assert_close(torch.from_numpy(outputs.features[0][:3]), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("broken", ["no weights", "another network", "not a file of tensors"])
def test_other_weights_are_refused(tmp_path, broken):
    path, tensors = tmp_path / "w.safetensors", transformer()
    if broken == "not a file of tensors":
        path.write_bytes(b"PK")
    elif broken == "no weights":
        save_file({"weight": torch.zeros(2)}, path)
    else:
        save_file({**tensors, "blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(UserError, match=r"evaluators.weights: .*w\.safetensors"):
        fit_extractor("dinov2", data(5), 4, 0, path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is an extra")
def test_inception_is_that_of_torch_fidelity_with_local_weights(tmp_path, monkeypatch):
    network_class = _torch_fidelity("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with monkeypatch.context() as patch, seeded(0):
        patch.setattr(network_class, "load_state_dict", lambda self, tensors: None)
        network = network_class("inception", ["2048"], feature_extractor_weights_path=nothing)
    tensors = network.state_dict()
    save_file(tensors, tmp_path / "inception.safetensors")
    images = Dataset(MODALITIES[:1], {"grey": data(4).data["grey"]})
    extractor = fit_extractor("inception", images, 2048, 0, tmp_path / "inception.safetensors")
    (features,) = outputs_of(extractor, images).features
    bytes_of = ((torch.from_numpy(images.data["grey"]) + 1) / 2 * 255).to(torch.uint8)
    expected = network(bytes_of.expand(-1, 3, -1, -1))[0]
    torch.testing.assert_close(torch.from_numpy(features), expected, rtol=1e-4, atol=1e-5)
    save_file({"fc.bias": tensors["fc.bias"]}, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"evaluators.weights: .*part\.safetensors.*expected weights of inception"):
        fit_extractor("inception", images, 8, 0, tmp_path / "part.safetensors")


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is not None, reason="torch-fidelity is installed")
def test_inception_asks_for_its_library(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"pip install 'postprior\[features\]'"):
        fit_extractor("inception", data(5), 4, 0, tmp_path / "w.safetensors")
