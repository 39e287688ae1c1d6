"""Training on several ranks takes the steps of one process, for every model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.equations import seeded
from support.ranked import on_ranks
from torch import Tensor

from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.randomness import generator_for, normal, uniform
from postprior.stage1_vae.ranks import ALONE, Ranks
from postprior.stage1_vae.training import Settings, train

MODALITIES = (
    Modality("a", "vector", (3,), "normal", partial=True),
    Modality("b", "image", (1, 8, 8), "laplace"),
    Modality("c", "vector", (2,), "normal"),
)
CASES = {name: {} for name in MODELS} | {
    "mopoe, draws": {"draws": 2},
    "mmvae, tight": {"draws": 2, "bound": "tight"},
    "mmvaeplus, dreg": {"draws": 2, "estimator": "dreg"},
    "dmvae, bounds": {"bounds": 1},
    "jnf, dcca": {"dcca": 2},
}
SETTINGS = Settings(
    epochs=7, batch_size=33, patience=9, hide_cells=0.3, hide_modalities=0.2, learning_rate=3e-3, device="cpu"
)


class Rows:
    """Rows of three modalities in double precision, two thirds of them incomplete; the last batch has one row."""

    def __init__(self, count: int = 2 * 33 + 1) -> None:
        values = {m.name: torch.rand(count, *m.shape, generator=seeded(), dtype=torch.float64) for m in MODALITIES}
        self.data, self.observed = values, torch.ones(count, 3, dtype=torch.bool)
        self.observed[::3, 1] = False
        self.observed[1::3, 0] = False

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: object) -> Batch:
        index = torch.as_tensor(rows)
        return Batch({name: x[index] for name, x in self.data.items()}, self.observed[index])


def trained(case: str, ranks: Ranks, rows: Rows | None = None) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """The weights of a small model after its training, and the metrics of each epoch."""
    model: MultimodalVAE = MODELS[case.partition(",")[0]](MODALITIES, latent=3, width=2, **CASES[case]).double()
    epochs = list(train(model, rows or Rows(), SETTINGS, Rows(9), ranks=ranks))
    return model.state_dict(), [epoch.metrics for epoch in epochs]


def train_all(ranks: Ranks, folder: Path) -> None:
    for case in CASES:
        weights, metrics = trained(case, ranks)
        save_file({n: t.contiguous() for n, t in weights.items()}, folder / f"{case}.{ranks.rank}")
        (folder / f"{case}.{ranks.rank}.json").write_text(json.dumps(metrics))
    assert ranks.from_first(b"for all" if ranks.is_first else b"") == b"for all"
    assert ranks.from_first() == b""
    (folder / f"error.{ranks.rank}").write_text(failure(ranks))


def failure(ranks: Ranks) -> str:
    """The error of a training in which one row, in the part of one rank, becomes infinite."""
    rows = Rows()
    rows.data["c"][7] = 1e200
    with pytest.raises(FloatingPointError) as error:
        trained("mvtcae", ranks, rows)
    return str(error.value)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(2, train_all, folder)
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_take_the_steps_of_one_process(case: str, two: Path) -> None:
    """Also with incomplete rows, hidden values and a last batch of one row."""
    weights, metrics = trained(case, ALONE)
    for rank in range(2):
        found = load_file(two / f"{case}.{rank}")
        for name, tensor in weights.items():
            torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
        for one, other in zip(json.loads((two / f"{case}.{rank}.json").read_text()), metrics, strict=True):
            assert one == pytest.approx(other, rel=1e-9)


def test_every_rank_tells_what_one_process_would(two: Path) -> None:
    told = failure(ALONE)
    assert [(two / f"error.{rank}").read_text() for rank in range(2)] == [told, told]
    assert "became inf in the log-likelihood of" in told


@pytest.mark.parametrize("draw", [normal, uniform])
def test_a_shared_generator_gives_each_rank_the_noise_of_its_rows(draw: Callable[..., Tensor]) -> None:
    like = torch.empty(0, dtype=torch.float64)
    whole = [draw(size, like, generator_for("cpu", 3), dim) for size, dim in (((7, 5), 0), ((2, 7, 5), 1))]
    rows = torch.arange(7)
    for size in (1, 2, 3, 7):
        for rank in range(size):
            ranks = Ranks(rank, size)
            for values, dim in zip(whole, (0, 1), strict=True):
                generator = ranks.generator(generator_for("cpu", 3))
                part, weight = ranks.part(rows, generator)
                assert weight == 1
                shape = (*values.shape[:dim], len(part), *values.shape[dim + 1 :])
                assert torch.equal(draw(shape, like, generator, dim), values.index_select(dim, part))
    with pytest.raises(ValueError, match="found 4 rows, expected 1 in dim 0"):
        draw((4, 5), like, generator, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("together", [False, True])
def test_every_row_counts_once(size: int, count: int, together: bool) -> None:
    counted = torch.zeros(count)
    for rank in range(size):
        part, weight = Ranks(rank, size).part(torch.arange(count), torch.Generator(), together)
        assert len(part)
        counted[part] += weight
    assert counted.eq(1).all()
