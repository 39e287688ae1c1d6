"""Encoders and decoders of every kind of modality: shapes, inputs and names."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from postprior.stage1_vae.likelihoods import likelihood, raw_shape
from postprior.stage1_vae.modalities import KINDS, Batch, Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.networks import NETWORKS, NETWORKS_BY_KIND, decoder, encoder, network_classes
from postprior.stage1_vae.networks.inputs import input_layer
from postprior.stage1_vae.randomness import seeded

COLUMNS = (
    Column("age", "normal"),
    Column("city", "categorical", 3),
    Column("visits", "negative_binomial"),
    Column("smoker", "bernoulli"),
    Column("job", "categorical", 4),
)
MODALITIES = {
    m.name: m
    for m in (
        Modality("image", "image", (2, 8, 6), "laplace"),
        Modality("segments", "image", (1, 5, 9), "categorical", classes=3),
        Modality("volume", "volume", (2, 4, 9, 6), "normal"),
        Modality("counted", "volume", (1, 4, 4, 5), "zero_inflated_negative_binomial"),
        Modality("vector", "vector", (5,), "bernoulli"),
        Modality("classes", "vector", (5,), "categorical", classes=4),
        Modality("reads", "vector", (7,), "negative_binomial"),
        Modality("tokens", "sequence", (11,), "categorical", classes=6),
        Modality("signal", "sequence", (9,), "normal"),
        Modality("table", "table", (5,), "columns", columns=COLUMNS),
    )
}
FITS = [(name, network) for name, m in MODALITIES.items() for network in (None, *NETWORKS_BY_KIND[m.kind])]


class Flat(nn.Module):
    """A user-defined encoder."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        self.shape, self.linear = shape, nn.LazyLinear(features)

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1:] == self.shape
        return self.linear(x.flatten(1))


class Wide(nn.Module):
    """A user-defined decoder."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        self.shape, self.linear = shape, nn.Linear(features, int(torch.Size(shape).numel()))

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h).unflatten(1, self.shape)


class Linear(nn.Sequential):
    """A user-defined encoder without lazy parameters."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(int(torch.Size(shape).numel()), features))


def no_module(shape: tuple[int, ...], features: int, width: int) -> nn.Module:
    raise AssertionError("what is no module class is never called")


def values(modality: Modality, rows: int = 3) -> Tensor:
    """Values that the modality may hold."""
    output = torch.randn(rows, *raw_shape(modality), generator=torch.Generator().manual_seed(0))
    return likelihood(modality, output, 1.0).rsample((), torch.Generator().manual_seed(1))


def test_every_kind_has_a_default_and_every_network_a_kind() -> None:
    assert NETWORKS_BY_KIND.keys() == KINDS.keys() == {m.kind for m in MODALITIES.values()}
    assert {network for networks in NETWORKS_BY_KIND.values() for network in networks} == NETWORKS.keys()


@pytest.mark.parametrize(("name", "network"), FITS)
def test_networks_mirror_their_modality(name: str, network: str | None) -> None:
    modality = MODALITIES[name]
    x = values(modality)
    with seeded(0):  # with other weights, all of so few units may be inactive
        forth, back = encoder(modality, 6, 3, network), decoder(modality, 6, 3, network)
    features = forth(x)
    output = back(features)
    assert features.shape == (3, 6)
    assert output.shape == (3, *raw_shape(modality))
    likelihood(modality, output, 1.0).log_prob(x).sum().backward()
    for key, parameter in [*forth.named_parameters(), *back.named_parameters()]:
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize(
    ("modality", "expected"),
    [
        (Modality("x", "image", (3, 4, 4), "laplace"), "convolutional"),
        (Modality("x", "image", (8, 8, 3), "laplace"), "dense"),
        (Modality("x", "volume", (1, 2, 9, 9), "laplace"), "dense"),
        (Modality("x", "sequence", (8,), "categorical", classes=3), "convolutional"),
        (Modality("x", "sequence", (5,), "categorical", classes=3), "dense"),
    ],
)
def test_what_is_too_short_to_convolve_has_dense_networks_by_default(modality: Modality, expected: str) -> None:
    assert network_classes(modality, None) == NETWORKS[expected]


@pytest.mark.parametrize(("name", "network"), FITS)
def test_rows_are_independent_of_one_another(name: str, network: str | None) -> None:
    modality = MODALITIES[name]
    forth, back = encoder(modality, 6, 3, network).double(), decoder(modality, 6, 3, network).double()
    x = values(modality, 5).double()
    together = back(forth(x))
    for row in range(5):
        torch.testing.assert_close(back(forth(x[row : row + 1])), together[row : row + 1])


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (2, 5, 9), (1, 4, 4), (3, 33, 18)])
@pytest.mark.parametrize("network", ["convolutional", "residual"])
def test_convolutional_networks_mirror_any_image(shape: tuple[int, ...], network: str) -> None:
    modality = Modality("x", "image", shape, "laplace")
    assert decoder(modality, 4, 2, network)(torch.rand(3, 4)).shape == (3, *shape)
    assert encoder(modality, 4, 2, network)(torch.rand(3, *shape)).shape == (3, 4)


@pytest.mark.parametrize("shape", [(1, 16, 16, 16), (2, 4, 7, 33), (1, 5, 5, 5)])
@pytest.mark.parametrize("network", ["convolutional", "residual"])
def test_convolutional_networks_mirror_any_volume(shape: tuple[int, ...], network: str) -> None:
    modality = Modality("x", "volume", shape, "laplace")
    assert decoder(modality, 4, 2, network)(torch.rand(2, 4)).shape == (2, *shape)
    assert encoder(modality, 4, 2, network)(torch.rand(2, *shape)).shape == (2, 4)


def test_networks_of_images_and_vectors_keep_their_names_and_initial_values() -> None:
    """Saved autoencoders are loaded by these names, and a seed gives the same parameters as before."""
    digest = hashlib.sha256()
    for modality in (MODALITIES["image"], MODALITIES["vector"]):
        with seeded(3):
            networks = nn.ModuleList([encoder(modality, 8, 4), decoder(modality, 8, 4)])
        for name, tensor in networks.state_dict().items():
            digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    assert digest.hexdigest()[:16] == "bfe43f0bff20a88e"


def test_a_volume_of_one_slice_of_weights_is_an_image() -> None:
    """The layers in 3-D are those in 2-D: kernels whose weights lie in one slice act on each slice alone."""
    image, volume = (
        Modality("x", kind, shape, "normal") for kind, shape in (("image", (1, 8, 8)), ("volume", (1, 8, 8, 8)))
    )
    flat, deep = encoder(image, 4, 2), encoder(volume, 4, 2)
    names = [name.replace("weight", "").replace("bias", "") for name in flat.state_dict()]
    assert names == [name.replace("weight", "").replace("bias", "") for name in deep.state_dict()]
    first, second = (network.convolutions[0] for network in (flat, deep))  # type: ignore[union-attr, index]
    with torch.no_grad():
        second.weight.zero_()  # type: ignore[union-attr]
        second.weight[:, :, 1] = first.weight  # type: ignore[index, union-attr]
        second.bias.copy_(first.bias)  # type: ignore[union-attr, operator, arg-type]
    x = torch.rand(2, 1, 8, 8, 8)
    torch.testing.assert_close(second(x)[:, :, 1], first(x[:, :, 2]))  # type: ignore[operator]


def test_encoders_read_classes_one_hot_and_counts_as_logarithms() -> None:
    tokens = input_layer(MODALITIES["tokens"])(torch.tensor([[0.0, 5.0, 2.0, 7.0, -1.0, *[1.0] * 6]]))
    assert tokens.shape == (1, 6, 11)
    assert tokens[0].argmax(0)[:3].tolist() == [0, 5, 2]
    assert (tokens != 0).sum(1).tolist() == [[1, 1, 1, 0, 0, *[1] * 6]]  # 7 and −1 are no classes
    torch.testing.assert_close(tokens.square().mean(1)[0, :3], torch.ones(3))
    x = values(MODALITIES["segments"])
    segments = input_layer(MODALITIES["segments"])(x)
    assert segments.shape == (3, 3, 5, 9)
    assert torch.equal(segments.argmax(1, keepdim=True), x.long())
    reads = values(MODALITIES["reads"])
    torch.testing.assert_close(input_layer(MODALITIES["reads"])(reads), (reads + 1).log())
    row = torch.tensor([[0.5, 2.0, 9.0, 1.0, 0.0]])
    seen = input_layer(MODALITIES["table"])(row)
    expected = [0.5, 1.0, math.log(10), 0, 0, math.sqrt(3), math.sqrt(4), 0, 0, 0]
    torch.testing.assert_close(seen, torch.tensor([expected]))


def test_values_that_networks_read_as_they_are_go_through_no_module() -> None:
    for name in ("image", "volume", "vector"):
        assert not isinstance(encoder(MODALITIES[name], 4, 2), nn.Sequential) or name == "vector"
        assert list(encoder(MODALITIES[name], 4, 2).state_dict()) == list(
            NETWORKS[NETWORKS_BY_KIND[MODALITIES[name].kind][0]][0](MODALITIES[name].shape, 4, 2).state_dict()
        )


@pytest.mark.parametrize("name", MODALITIES)
def test_the_user_s_own_networks(name: str) -> None:
    modality, path = MODALITIES[name], f"{__name__}:Flat, {__name__}:Wide"
    forth, back = encoder(modality, 6, 3, path), decoder(modality, 6, 3, path)
    assert isinstance(back, Wide)
    assert back(forth(values(modality))).shape == (3, *raw_shape(modality))


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        (
            "vector",
            "convolutional",
            "network of modality vector: found 'convolutional', expected one of dense for kind",
        ),
        (
            "image",
            "transformer",
            "found 'transformer', expected one of convolutional, residual, dense for kind image",
        ),
        (
            "image",
            f"{__name__}:Flat",
            "expected two import paths, package.module:Encoder,package.module:Decoder",
        ),
        (
            "image",
            f"{__name__}:Flat,{__name__}:no_module",
            "found '.*:no_module', expected a subclass of torch.nn.Module",
        ),
        ("image", f"{__name__}:Flat,{__name__}:Absent", "':?.*:Absent' cannot be imported"),
        (
            "image",
            f"nowhere.to_be:Found,{__name__}:Wide",
            "'nowhere.to_be:Found' cannot be imported: No module named",
        ),
        ("image", ":Flat,:Wide", "':Flat' cannot be imported, expected package.module:Name"),
        ("image", "..x:Flat,..x:Wide", "'..x:Flat' cannot be imported, expected package.module:Name"),
    ],
)
def test_impossible_networks_are_refused_in_one_sentence(name: str, network: str, message: str) -> None:
    for build in (encoder, decoder):
        with pytest.raises(ValueError, match=message) as error:
            build(MODALITIES[name], 4, 2, network)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "shape", "found"),
    [("image", (1, 3, 9), "3 × 9"), ("volume", (1, 8, 8, 2), "8 × 8 × 2"), ("sequence", (3,), "3")],
)
def test_values_too_small_for_convolutions_are_refused(kind: str, shape: tuple[int, ...], found: str) -> None:
    modality = Modality("x", kind, shape, "normal")
    for build in (encoder, decoder):
        with pytest.raises(ValueError, match=f"found {found}, expected at least 4"):
            build(modality, 4, 2, "convolutional")
    assert encoder(modality, 4, 2)(torch.rand(2, *shape)).shape == (2, 4)


def test_a_model_of_every_kind_of_modality_is_rebuilt_from_its_state() -> None:
    networks = {"volume": "residual", "tokens": "residual", "table": f"{__name__}:Linear,{__name__}:Wide"}
    model = MODELS["mvtcae"](MODALITIES.values(), latent=4, width=2, seed=1, networks=networks).eval()
    x = {name: values(m) for name, m in MODALITIES.items()}
    batch = Batch(x, torch.ones(3, len(x), dtype=torch.bool))
    again = MODELS["mvtcae"].from_state(*model.state())
    mine, theirs = (m.loss(batch, torch.Generator().manual_seed(0)).per_sample for m in (model, again))
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_every_kind_of_modality(name: str) -> None:
    model = MODELS[name](MODALITIES.values(), latent=6, width=3, seed=1)
    x = {m.name: values(m, 4) for m in MODALITIES.values()}
    observed = torch.ones(4, len(x), dtype=torch.bool)
    if model.incomplete:
        observed[0, ::2] = observed[1, 1::2] = False
    generator = torch.Generator().manual_seed(0)
    for phase in model.phases():
        loss = phase.objective(Batch(x, observed), generator, 1.0).per_sample
        loss.mean().backward()
        assert loss.isfinite().all()
    decoded = model.decode(model.prior().rsample((3,), generator), generator)
    for m in MODALITIES.values():
        assert decoded[m.name].rsample((), generator).shape == decoded[m.name].mean.shape == (3, *m.shape)


@pytest.mark.parametrize("network", ["convolutional", "residual", "dense"])
def test_networks_of_sequences_learn_their_tokens(network: str) -> None:
    """Sentences of four words out of eight, six tokens each, are decoded from a code of sixteen numbers."""
    modality = Modality("x", "sequence", (24,), "categorical", classes=12)
    generator = torch.Generator().manual_seed(0)
    words = torch.randint(12, (8, 6), generator=generator)
    x = words[torch.randint(8, (512, 4), generator=generator)].flatten(1).float()
    with seeded(0):
        forth, back = encoder(modality, 16, 16, network), decoder(modality, 16, 16, network)
    optimizer = torch.optim.AdamW([*forth.parameters(), *back.parameters()], 5e-3)
    for _ in range(80):
        rows = torch.randint(len(x), (64,), generator=generator)
        loss = -likelihood(modality, back(forth(x[rows])), 1.0).log_prob(x[rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    guesses = likelihood(modality, back(forth(x)), 1.0).mean
    assert (guesses == x).float().mean() > 0.25  # chance is 1/12; all come close to 1 with more steps
