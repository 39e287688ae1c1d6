"""Normal columns of which some values stand for an interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm
from support.equations import seeded

from postprior.stage1_vae.likelihoods import likelihood, raw_shape
from postprior.stage1_vae.modalities import Column, Modality

STEPS = ((-1.0, 0.0), (0.0, 0.5), (2.0, 4.0))
COLUMNS = (
    Column("steps", "normal", intervals=STEPS),
    Column("x", "normal"),
    Column("zeros", "normal", None, STEPS[:1]),
)
TABLE = Modality("table", "table", (3,), "columns", columns=COLUMNS)


def test_values_in_an_interval_have_its_probability_and_others_their_density() -> None:
    output = torch.randn(500, *raw_shape(TABLE), generator=seeded(), dtype=torch.float64)
    value = 2 * torch.randn(500, 3, generator=seeded(1), dtype=torch.float64)
    p = likelihood(TABLE, output, 1.0)
    ours, loc = p.elementwise_log_prob(value).numpy(), p.mean.numpy()
    scale = np.exp(output.numpy()[:, [2, 5, 3]])  # steps and zeros are one group of columns, x is another
    np.testing.assert_array_equal(loc, output.numpy()[:, [0, 4, 1]])
    for j, column in enumerate(COLUMNS):
        x = value[:, j].numpy()
        expected = norm.logpdf(x, loc[:, j], scale[:, j])
        for low, high in column.intervals:
            mass = norm.cdf(high, loc[:, j], scale[:, j]) - norm.cdf(low, loc[:, j], scale[:, j])
            expected = np.where((x >= low) & (x <= high), np.log(np.maximum(mass, 1e-300)), expected)
        usual = expected > -20  # differences of Φ have no digits beyond
        np.testing.assert_allclose(ours[usual, j], expected[usual], rtol=1e-6)
        assert (ours[~usual, j] < -19).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_stay_finite_at_extreme_outputs(dtype: torch.dtype) -> None:
    value = torch.tensor([[0.3, 0.3, -0.5], [3.0, -9.0, 8.0]], dtype=dtype)
    for loc in (-1e4, -7.0, 0.0, 7.0, 1e4):
        for log_scale in (-1e4, 0.0, 1e4):
            output = torch.tensor([loc, loc, log_scale, log_scale, loc, log_scale], dtype=dtype, requires_grad=True)
            loss = likelihood(TABLE, output, 1.0).log_prob(value).sum()
            loss.backward()
            assert loss.isfinite()
            assert output.grad is not None
            assert output.grad.isfinite().all()


def test_the_best_normal_gives_an_interval_its_share() -> None:
    """Two thirds of the rows are zero, as censored values are: draws have as many, unlike those of a plain normal."""
    share, x = 2 / 3, norm.ppf((2 + (np.arange(200) + 0.5) / 200) / 3)
    ends = (-4.0, float(norm.ppf(share)))
    rows = torch.from_numpy(np.concatenate([np.full(400, -0.5), x]))[:, None]
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    table = Modality("table", "table", (1,), "columns", columns=(Column("x", "normal", None, (ends,)),))
    optimiser = torch.optim.LBFGS([parameters], max_iter=25, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = -likelihood(table, parameters, 1.0).log_prob(rows).mean()
        value.backward()
        return value

    optimiser.step(loss)
    with torch.no_grad():
        drawn = likelihood(table, parameters, 1.0).rsample((20_000,), seeded())
    assert (drawn <= ends[1]).double().mean().item() == pytest.approx(share, abs=0.01)
    assert parameters.tolist() == pytest.approx([0, 0], abs=0.03)


def test_intervals_are_checked_and_described() -> None:
    assert Modality.from_description("table", TABLE.describe()) == TABLE
    assert "intervals" not in COLUMNS[1].describe()
    with pytest.raises(ValueError, match="intervals of column age: found likelihood laplace, expected normal"):
        Column("age", "laplace", None, STEPS)
    with pytest.raises(ValueError, match=r"intervals of column age: found \[1.0, 1.0\], expected low < high"):
        Column("age", "normal", None, ((1, 1),))
