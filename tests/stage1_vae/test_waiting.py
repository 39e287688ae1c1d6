"""A training step on complete rows asks the device for nothing, so that the host can run ahead of an accelerator.

The device is `meta`, whose tensors have no values: whatever needs one raises an error. A copy of values from the host,
for which an accelerator would wait too, is found by its devices.
"""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from support.equations import seeded
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.rows import Scale, ScaledIntegers
from postprior.stage1_vae.adamw import AdamW
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.nonfinite import Watch
from postprior.stage1_vae.resident import ResidentRows
from postprior.stage1_vae.training import freeze_except

MODALITIES = (
    Modality("a", "image", (1, 8, 8), "laplace"),
    Modality("b", "image", (2, 8, 8), "normal"),
    Modality("c", "image", (1, 8, 8), "bernoulli", (0, 1)),
)
OPTIONS: dict[str, dict[str, Any]] = {
    "mvae": {"subsets": 0},  # random subsets are drawn on the device, and their sizes are read
    "mmvae": {"estimator": "dreg"},
    "mhvae": {"levels": 1},  # factors below the code exist for the modalities of random subsets only
}


class Copies(TorchDispatchMode):
    """Collects the operations that combine tensors of the host and of the device inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        devices = {x.device.type for x in tree_leaves((args, kwargs, result)) if isinstance(x, Tensor)}
        if len(devices) > 1:
            self.found.append(str(func))
        return result


@pytest.mark.parametrize("name", MODELS)
def test_a_step_on_complete_rows_does_not_wait_for_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # `meta` has none
    options = {"rescaling": "dimensions", "likelihood_scale": {"a": "learned"}, **OPTIONS.get(name, {})}
    model = MODELS[name](MODALITIES, latent=2, width=2, **options).to("meta")
    observed = torch.ones(4, len(MODALITIES), dtype=torch.bool)
    batch = Batch({m.name: torch.rand(4, *m.shape) for m in MODALITIES}, observed).to("meta")
    for phase in model.phases():
        optimizer, watch = AdamW(phase.parameters, 1e-3), Watch(torch.device("meta"))
        with freeze_except(model, phase), Copies() as copies:
            loss = phase.objective(batch, None, 1.0)
            loss.per_sample.mean().backward()
            watch.end(loss.per_sample, phase.parameters)
            optimizer.step(watch.failed)
            assert watch.first(last=False) is None
        assert copies.found == [] or phase.name == "flows", phase.name  # normflows indexes with arrays of the host
        assert all(p.grad is not None for p in phase.parameters), phase.name


def test_the_rows_of_a_device_are_known_to_be_complete_where_they_were_complete_on_the_host() -> None:
    data, observed = {"a": torch.zeros(2, 1), "b": torch.zeros(2, 1)}, torch.ones(2, 2, dtype=torch.bool)
    assert Batch(data, observed).to("meta").complete
    observed[0, 0] = False
    assert not Batch(data, observed).to("meta").complete


def test_rows_that_stay_on_a_device_give_the_batches_of_the_data() -> None:
    """Also with missing modalities and cells, and bytes as bytes; whether a batch is complete is known without them."""
    rng = np.random.default_rng(0)
    pixels = ScaledIntegers(
        rng.integers(-128, 128, (9, 1, 8, 8)).astype(np.int8), Scale(offset=-28, scale=255, bound=0.3)
    )
    depths = ScaledIntegers(rng.integers(0, 1 << 16, (9, 1, 4, 4)).astype(np.uint16), Scale(scale=7))
    modalities = (
        Modality("a", "vector", (3,), "normal"),
        Modality("b", "image", (1, 8, 8), "normal"),
        Modality("c", "image", (1, 4, 4), "normal"),
    )
    values = {"a": rng.random((9, 3), np.float32), "b": pixels, "c": depths}
    mask = np.ones((9, 3), bool)
    mask[4, 1] = False
    data = Dataset(modalities, values, mask, {"a": rng.random((9, 3)) < 0.5})
    resident = ResidentRows(data, torch.device("cpu"))
    assert len(resident) == 9
    assert [data.stored(name, slice(1)).dtype for name in values] == [torch.float32, torch.uint8, torch.float32]
    for rows in (np.array([8, 0, 3]), np.array([4, 4, 1])):
        ours, theirs = resident.batch(rows), data.batch(rows)
        assert ours.complete == theirs.complete == (4 not in rows)
        for part in ("data", "cells"):
            assert getattr(ours, part).keys() == getattr(theirs, part).keys()
            assert all(torch.equal(x, getattr(theirs, part)[name]) for name, x in getattr(ours, part).items())
        assert torch.equal(ours.observed, theirs.observed)
    assert ResidentRows(data, torch.device("meta")).batch(np.array([8, 0, 3])).complete


@pytest.mark.parametrize("name", MODELS)
def test_losses_have_single_precision_although_networks_have_half(name: str) -> None:
    """So that a sum over many values keeps its digits; the networks' own rounding stays."""
    model = MODELS[name](MODALITIES, latent=2, width=4)
    values = {m.name: torch.rand(4, *m.shape, generator=seeded(3)) for m in MODALITIES}
    batch = Batch(values, torch.ones(4, len(MODALITIES), dtype=torch.bool))
    for phase in model.phases():
        expected = phase.objective(batch, seeded(), 1.0).per_sample
        with torch.autocast("cpu", torch.bfloat16):
            loss = phase.objective(batch, seeded(), 1.0)
        assert {values.dtype for values in (loss.per_sample, *loss.terms.values())} == {torch.float32}, phase.name
        torch.testing.assert_close(loss.per_sample, expected, rtol=0.05, atol=0.5)
