"""Compiled objectives: when they are used, and that they give the values of the others. Compilers run in slow tests."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.equations import seeded

from postprior.stage1_vae import compilation, training
from postprior.stage1_vae.compilation import compiled, pays
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.randomness import generator_for
from postprior.stage1_vae.training import Settings, train

MODALITIES = (Modality("a", "vector", (3,), "normal"), Modality("b", "image", (1, 8, 8), "laplace"))
CUDA = torch.device("cuda")
VARIANTS: dict[str, dict[str, Any]] = {name: {} for name in MODELS} | {
    "mvae, static": {"subsets": 0},
    "mhvae, static": {"levels": 1},
    "jnf, dcca": {"dcca": 2},
    "mmvae, dreg": {"estimator": "dreg"},
}


def build(variant: str, **options: Any) -> Any:
    return MODELS[variant.split(",")[0]](MODALITIES, latent=2, width=2, **VARIANTS[variant] | options)


def batch(count: int, seed: int) -> Batch:
    source = seeded(seed)
    data = {m.name: torch.rand(count, *m.shape, generator=source) for m in MODALITIES}
    return Batch(data, torch.ones(count, 2, dtype=torch.bool))


class Rows:
    """Complete rows, or rows one of which lacks a modality."""

    def __init__(self, complete: bool = True, count: int = 20) -> None:
        self.whole = batch(count, 0)
        self.observed = self.whole.observed.clone()
        self.observed[0, 0] = complete

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: object) -> Batch:
        index = torch.as_tensor(rows)
        return Batch({name: x[index] for name, x in self.whole.data.items()}, self.observed[index])


def test_phases_are_compiled_on_cuda_if_all_steps_have_the_same_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "find_spec", lambda name: name)
    whole, holes, (joint, *_) = Rows().observed, Rows(complete=False).observed, build("mopoe").phases()
    assert pays(joint, whole, CUDA)
    assert not pays(joint, whole, torch.device("cpu"))
    assert not pays(joint, holes, CUDA)
    assert pays(build("jmvae").phases()[0], holes, CUDA)  # trains on the complete rows alone
    assert {variant: pays(build(variant).phases()[0], whole, CUDA) for variant in VARIANTS} == {
        variant: variant not in ("mvae", "mhvae") for variant in VARIANTS
    }
    assert not pays(build("dmvae", bounds=1).phases()[0], whole, CUDA)
    monkeypatch.setattr(compilation, "find_spec", lambda _: None)
    assert not pays(joint, whole, CUDA)  # without Triton there is no compiler


@pytest.mark.parametrize(
    ("changes", "count"), [({}, 2), ({"compile": "no"}, 0), ({"hide_modalities": 0.1}, 0)], ids=["auto", "no", "hidden"]
)
def test_the_settings_decide(changes: dict[str, Any], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each of two phases, where it can pay."""
    taken: list[Any] = []
    monkeypatch.setattr(training, "pays", lambda *_: True)
    monkeypatch.setattr(training, "compiled", lambda objective: taken.append(objective) or objective)
    list(train(build("telbo"), Rows(), Settings(epochs=[1, 1], device="cpu", **changes)))
    assert len(taken) == count


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_phase_is_traced_once_for_each_number_of_rows(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch.compile sees it, with the traced operations run as they are: the same bytes and the same draws, in all
    epochs of a warm-up. Where shapes are not the same, code is added in later steps, but the bytes stay."""
    from torch._dynamo import reset
    from torch._dynamo.testing import CompileCounter

    for phase in build(variant).phases():
        reset()
        counter = CompileCounter()
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
        objective, counts = compiled(phase.objective), []
        monkeypatch.undo()
        for step, (count, weight) in enumerate([(8, 0.2), (8, 0.4), (8, 1.0), (5, 1.0), (8, 0.7), (5, 1.0)]):
            generators = [generator_for("cpu", step) for _ in range(2)]
            loss, expected = (
                function(batch(count, step), generator, weight)
                for function, generator in zip((objective, phase.objective), generators, strict=True)
            )
            assert torch.equal(*(generator.get_state() for generator in generators))
            assert torch.equal(loss.per_sample, expected.per_sample)
            found, wanted = (
                torch.autograd.grad(each.per_sample.sum(), phase.parameters, allow_unused=True)
                for each in (loss, expected)
            )
            assert all(torch.equal(g, w) for g, w in zip(found, wanted, strict=True) if w is not None)
            counts.append(counter.frame_count)
        assert counts[0] > 0
        if phase.static:
            assert counts == [counts[0]] * 3 + [counts[3]] * 3
    reset()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_training_ends_where_the_other_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding, forced on a CPU."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    settings = Settings(epochs=2, batch_size=10, warmup=1, device="cpu")
    plain, fast = (build("mvtcae", seed=1) for _ in range(2))
    list(train(plain, Rows(), settings))
    monkeypatch.setattr(training, "pays", lambda *_: True)
    list(train(fast, Rows(), settings))
    for name, tensor in fast.state_dict().items():
        torch.testing.assert_close(tensor, plain.state_dict()[name], rtol=1e-4, atol=1e-4)
    assert any(tmp_path.iterdir()), "nothing was compiled"
