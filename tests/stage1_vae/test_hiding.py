"""Hidden values: their shares, what always stays, who reads them, and that encoders learn to do without them."""

from dataclasses import replace

import pytest
import torch
from support.equations import seeded
from torch import Tensor

from postprior.stage1_vae import hiding
from postprior.stage1_vae.hiding import hide
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage1_vae.training import Settings, train

ROWS = 20_000
MODALITIES = (
    Modality("a", "vector", (4,), "normal", partial=True),
    Modality("b", "vector", (3,), "normal", partial=True),
    Modality("c", "image", (1, 4, 4), "laplace"),
)


def rows(count: int = ROWS) -> Batch:
    """Rows that lack the second modality with probability 0.2, and some cells of the first."""
    data = {m.name: torch.rand(count, *m.shape, generator=seeded(i)) for i, m in enumerate(MODALITIES)}
    observed = torch.ones(count, 3, dtype=torch.bool)
    observed[:, 1] = torch.rand(count, generator=seeded(3)) < 0.8
    cells = torch.rand(count, 4, generator=seeded(4)) < 0.7
    cells[~cells.any(1), 0] = True
    return Batch(data, observed, {"a": cells})


@pytest.mark.parametrize("share", [0.15, 0.8])
def test_the_given_share_is_hidden_to_every_degree_and_a_rest_stays(share: float) -> None:
    batch = rows()
    found = hide(batch, MODALITIES[:2], share, share, seeded(5))
    assert found.cells == batch.cells
    assert set(found.hidden) == {"a", "b"}
    everything = torch.ones(ROWS, 3, dtype=torch.bool)
    for before, after in (
        (batch.observed, found.observed),
        (batch.cells["a"], batch.cells["a"] & ~found.hidden["a"]),
        (everything, ~found.hidden["b"]),
    ):
        assert not bool((after & ~before).any())
        assert bool(after[before.any(1)].any(1).all())
        full = before.all(1)
        left = after[full].sum(1)
        assert set(left.tolist()) == set(range(1, before.shape[1] + 1))
        assert float((left == before.shape[1]).double().mean()) > (0.7 if share < 0.5 else 0)
        kept = before.shape[1] * (1 - share)  # a row that would lose everything keeps one
        assert kept - 0.02 < float(left.double().mean()) < kept + 0.55


def test_nothing_is_drawn_if_nothing_is_hidden() -> None:
    """So that models of data without cells are trained to the same bytes as before."""
    generator, batch = seeded(0), rows(10)
    state = generator.get_state()
    assert torch.equal(hide(batch, (), 0.5, 0, generator).observed, batch.observed)
    assert not hide(batch, MODALITIES[:2], 0, 0, generator).hidden
    assert torch.equal(generator.get_state(), state)


def test_encoders_do_not_read_hidden_cells_and_likelihoods_count_them() -> None:
    model = MODELS["mvtcae"](MODALITIES, latent=2, width=2)
    batch = rows(50)
    hidden = hide(batch, MODALITIES[:2], 0.3, 0, seeded(5))
    changed = {name: torch.where(mask, batch.data[name] + 9, batch.data[name]) for name, mask in hidden.hidden.items()}
    other = replace(hidden, data=batch.data | changed)
    ours, theirs = (model.posterior(each).loc for each in (hidden, other))
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, model.posterior(batch).loc)
    z, wanted = ours.unsqueeze(1), batch.observed.unsqueeze(1)
    assert torch.equal(model.log_prob(z, hidden, wanted), model.log_prob(z, batch, wanted))
    assert not torch.equal(model.log_prob(z, hidden, wanted), model.log_prob(z, other, wanted))


@pytest.mark.parametrize("name", MODELS)
def test_rows_with_hidden_cells_count_fully_to_the_encoders_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of encoders do not depend on the weight of these rows; all others are linear in it."""
    model = MODELS[name](MODALITIES, latent=2, width=2).double()
    batch = hide(replace(rows(12), observed=torch.ones(12, 3, dtype=torch.bool)), MODALITIES[:2], 0.3, 0, seeded(5))
    batch = batch.to("cpu", torch.float64)
    gradients: dict[float, dict[str, Tensor]] = {}
    for weight in (1.0, 0.5, 0.25):
        monkeypatch.setattr(hiding, "WEIGHT", weight)
        model.zero_grad()
        for phase in model.phases():
            row_weights = hiding.weights(batch)
            assert row_weights is not None
            assert set(row_weights.tolist()) == {weight, 1.0}
            (phase.objective(batch, seeded(), 1.0).per_sample * row_weights).mean().backward()
        gradients[weight] = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
    for key, whole in gradients[1.0].items():
        half, quarter = gradients[0.5][key], gradients[0.25][key]
        if key.startswith(("encoders.", "joint.")):
            torch.testing.assert_close(quarter, whole)
        else:
            torch.testing.assert_close(half - quarter, (whole - quarter) / 3)
    assert any(key.startswith("encoders.") for key in gradients[1.0])
    decoders = [key for key in gradients[1.0] if key.startswith("decoders.")]
    assert any(not torch.allclose(gradients[1.0][key], gradients[0.25][key]) for key in decoders)


class Related:
    """Rows of a vector u, v, (u + v)/√2, (u − v)/√2 with little noise, all observed: any two values give the others."""

    def __init__(self, count: int, seed: int) -> None:
        u, v = torch.randn(2, count, generator=seeded(seed))
        noise = 0.1 * torch.randn(count, 4, generator=seeded(seed + 1))
        self.values = torch.stack([u, v, (u + v) / 2**0.5, (u - v) / 2**0.5], 1) + noise
        self.observed = torch.ones(count, 1, dtype=torch.bool)

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, rows: object) -> Batch:
        index = torch.as_tensor(rows)
        return Batch({"a": self.values[index]}, self.observed[index])


def error(hide_cells: float) -> Tensor:
    """Root mean squared error of each value of new rows, read from the other three."""
    modality = Modality("a", "vector", (4,), "normal", partial=True)
    model = MODELS["mvae"]([modality], latent=2, width=4, likelihood_scale="learned")
    list(train(model, Related(2000, 0), Settings(epochs=12, learning_rate=5e-3, hide_cells=hide_cells, device="cpu")))
    test, squares = Related(500, 10), []
    with torch.no_grad():
        for j in range(4):
            cells = torch.ones(500, 4, dtype=torch.bool)
            cells[:, j] = False
            batch = replace(test.batch(range(500)), cells={"a": cells})
            decoded = model.decode(model.posterior(batch).mean)["a"].mean[:, j]
            squares.append((decoded - test.values[:, j]).square().mean())
    return torch.stack(squares).sqrt()


def test_encoders_read_rows_with_missing_cells_if_training_hid_cells() -> None:
    """The values have standard deviation 1, and the three others determine each up to noise."""
    hidden, never = error(0.15), error(0)
    assert bool((hidden < never).all())
    assert hidden.mean() < 0.8 * never.mean()
