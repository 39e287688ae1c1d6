"""User-defined networks that fail: one sentence with the setting, the class, the line and what was expected."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from postprior.stage1_vae.imports import UserCodeError
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.networks.own import OwnNetwork, try_own_networks

MODALITIES = (Modality("a", "vector", (3,), "normal"), Modality("b", "vector", (2,), "normal"))
EXAMPLES = {"a": torch.ones(2, 3), "b": torch.ones(2, 2)}


class Own(nn.Module):
    """A network that works, as an encoder and as a decoder; subclasses spoil its output."""

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(features)
        self.norm = nn.BatchNorm1d(features)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.layer(x))


class Decoder(Own):
    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        super().__init__(shape, shape[0], width)


class NoParent(nn.Module):
    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        pass


class OtherSignature(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()


class Raises(Own):
    def forward(self, x: Tensor) -> Any:
        raise KeyError("two\nlines")


class Ends(Own):
    def forward(self, x: Tensor) -> Any:
        raise SystemExit(0)


class Narrow(Own):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[:, :-1]


class Squeezed(Own):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).squeeze()


class Array(Own):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).detach().numpy()


class Doubles(Own):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).double()


class NotANumber(Own):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * float("nan")


class Overwrites(Own):
    def forward(self, x: Tensor) -> Any:
        output = super().forward(x).exp()
        output += 1
        return output


def model(encoder: str, decoder: str = "Decoder", **options: Any) -> Any:
    path = f"{__name__}:{encoder},{__name__}:{decoder}"
    return MODELS["mvtcae"](MODALITIES, latent=2, width=2, networks={"a": path}, **options)


@pytest.mark.parametrize(
    ("name", "did", "expected"),
    [
        ("NoParent", r"raised AttributeError: .* \(FILE\)", "a class that is called as Network(shape, features"),
        (
            "OtherSignature",
            r"raised TypeError: .* takes 2 positional .* \(FILE\)",
            "a class that is called as Network(shape",
        ),
        ("Raises", r"raised KeyError: 'two\\nlines' \(FILE, line LINE\)", "a tensor of shape (2, 4) from one of"),
        ("Ends", r"raised SystemExit: 0 \(FILE, line LINE\)", "a tensor of shape (2, 4) from one of shape (2, 3)"),
        ("Narrow", r"returned a value of shape \(2, 3\)", "a tensor of shape (2, 4) from one of shape (2, 3)"),
        ("Squeezed", r"returned a value of shape \(4,\)", "a tensor of shape (1, 4) from one of shape (1, 3)"),
        ("Array", "returned a value of type ndarray", "a tensor of shape (2, 4) from one of shape (2, 3)"),
        ("Doubles", "returned values of torch.float64", "torch.float32"),
        ("NotANumber", "returned NaN or infinite values", "finite numbers"),
        ("Overwrites", "raised RuntimeError: .*inplace operation.*", "an output that can be differentiated"),
    ],
)
def test_a_network_that_fails_is_told_before_training(name: str, did: str, expected: str) -> None:
    with pytest.raises(UserCodeError) as error:
        try_own_networks(model(name), EXAMPLES)
    line = inspect.getsourcelines(globals()[name])[1] + 2
    did = did.replace("FILE", re.escape(__file__)).replace("LINE", str(line))
    place = f"vae.networks of a: the encoder {__name__}:{name}"
    assert re.match(f"{re.escape(place)} {did}, expected {re.escape(expected)}", str(error.value))
    assert "\n" not in str(error.value)


def test_decoders_are_tried_as_well() -> None:
    with pytest.raises(
        UserCodeError, match=r"the decoder .*:Own returned .* \(2, 2\), expected .* shape \(2, 3\) from"
    ):
        try_own_networks(model("Own", "Own"), EXAMPLES)


def test_the_checks_change_no_state_and_no_draw() -> None:
    tried = model("Own")
    state = torch.get_rng_state()
    try_own_networks(tried, EXAMPLES)
    assert torch.equal(state, torch.get_rng_state())
    assert {name for name in tried.state_dict() if name.startswith("encoders.a.")} == {
        f"encoders.a.{name}" for name in Own((3,), 4, 2).state_dict()
    }
    assert isinstance(tried.encoders["a"], Own)
    assert isinstance(tried.encoders["a"], OwnNetwork)


def test_lazy_parameters_are_drawn_from_the_seed_of_the_model() -> None:
    states = [model("Own", seed=seed).state()[0] for seed in (0, 0, 1)]
    weights = [state["encoders.a.layer.weight"] for state in states]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_batch_in_which_no_row_has_the_modality_does_not_reach_the_network() -> None:
    """Batch normalisation refuses such a batch."""
    one = model("Own").train()
    batch = Batch({name: values.repeat(2, 1) for name, values in EXAMPLES.items()}, torch.tensor([[False, True]] * 4))
    loss = one.loss(batch, torch.Generator().manual_seed(0))
    assert bool(loss.per_sample.isfinite().all())
