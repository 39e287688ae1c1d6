"""The refiner: its objective, its draws, its masks and its state."""

import math

import pytest
import torch
from torch import Tensor, nn

from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent import refiner as module
from postprior.stage2_latent.descent import Descent, Group
from postprior.stage2_latent.refiner import UNLABELLED, Examples, Refiner

SHAPES = {"a": (1, 6, 5), "b": (1, 6, 5), "scan": (2, 4, 4, 5)}


def examples(rows: int = 7) -> dict[str, Examples]:
    generator = torch.Generator().manual_seed(1)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    labels = torch.randint(-1, 3, (rows,), generator=generator)
    return {
        name: Examples(normal(rows, *shape), normal(rows, *shape), normal(rows, 4), labels)
        for name, shape in SHAPES.items()
    }


@pytest.fixture
def refiner() -> Refiner:
    """A refiner with random instead of zero parameters in its last layers."""
    refiner = Refiner(SHAPES, 4, 3, width=8, ode_steps=2).double()
    generator = torch.Generator().manual_seed(2)
    for parameter in refiner.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    refiner.standardise(examples())
    return refiner


def test_the_objective_is_the_mean_square_of_the_velocity_error(refiner: Refiner) -> None:
    rows = examples()
    found = refiner.loss(rows, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    for index, (name, each) in enumerate(rows.items()):
        noise = torch.randn(each.values.shape, generator=generator, dtype=torch.float64)
        t = (torch.rand(1, generator=generator, dtype=torch.float64) + torch.arange(7) / 7) % 1
        hidden = torch.rand(7, generator=generator, dtype=torch.float64) < UNLABELLED
        for row in range(7):
            residual = (each.values[row] - each.means[row]) / refiner.scales[index]
            at = (1 - t[row]) * noise[row] + t[row] * residual
            label = torch.tensor([-1 if hidden[row] else int(each.labels[row])])
            vector = refiner._vector(name, t[row : row + 1], each.latents[row : row + 1], label)
            seen = refiner._seen(name, each.means[row : row + 1])
            v = refiner.networks[refiner.group[name]](torch.cat([at.unsqueeze(0), seen], 1), vector)[0]
            torch.testing.assert_close(found[name][row], (v - (residual - noise[row])).square().mean())


def test_residuals_and_codes_are_standardised(refiner: Refiner) -> None:
    rows = examples()
    for scale, each in zip(refiner.scales, rows.values(), strict=True):
        torch.testing.assert_close(scale.square(), (each.values - each.means).square().mean())
    torch.testing.assert_close(refiner.centre, torch.cat([each.latents for each in rows.values()]).mean(0))


def test_missing_values_and_labels_are_not_in_the_loss(refiner: Refiner) -> None:
    rows = examples()
    mask = torch.rand(rows["a"].values.shape, generator=torch.Generator().manual_seed(4)) < 0.5
    losses = []
    for fill in (0.0, 1e6):
        each = rows["a"]
        masked = Examples(each.values.where(mask, fill), each.means, each.latents, each.labels, mask)
        losses.append(refiner.loss({**rows, "a": masked}, torch.Generator().manual_seed(3)))
    for name in SHAPES:
        torch.testing.assert_close(losses[0][name], losses[1][name], rtol=0, atol=0)
    whole = refiner.loss(rows, torch.Generator().manual_seed(3))
    assert not torch.allclose(whole["a"], losses[0]["a"])


class Oracle(nn.Module):
    """E[r − ε | x_t] of residuals r ~ N(b, S), in closed form; reads the time in place of the vector."""

    def __init__(self, offset: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.offset, self.covariance = offset, covariance

    def forward(self, inputs: Tensor, t: Tensor) -> Tensor:
        x, time, eye = inputs[:, :1].flatten(1), t[0, 0], torch.eye(len(self.offset)).to(t)
        between = (1 - time) ** 2 * eye + time**2 * self.covariance
        gain = torch.linalg.solve(between, time * self.covariance - (1 - time) * eye)
        return (self.offset + (x - time * self.offset) @ gain).view(-1, 1, *inputs.shape[2:])


def test_the_draws_of_gaussian_data_have_their_mean_and_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    """x = μ(h) + σ r with a mean that is linear in h and r ~ N(b, S): so are draws under the velocity of this path."""
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    root, offset, rows = normal(12, 12) / 3 + torch.eye(12).double(), normal(12), 40_000
    refiner = Refiner({"x": (1, 3, 4)}, 2, 0, ode_steps=40).double()
    refiner.scales.fill_(0.5)
    refiner.networks[0] = Oracle(offset, root @ root.T)
    monkeypatch.setattr(refiner, "_vector", lambda name, t, *_: t.unsqueeze(-1))
    monkeypatch.setattr(module, "IMAGES", rows)
    h = normal(rows, 2)
    means = h @ normal(2, 12)
    x = refiner.sample("x", means.view(-1, 1, 3, 4), h, None, generator).flatten(1)
    fitted = torch.linalg.lstsq(torch.cat([h, torch.ones(rows, 1).double()], 1), x - means).solution
    error = 5 * 0.5 * root.norm(dim=1).max() / rows**0.5  # five standard errors
    assert fitted[:2].abs().max() < error
    assert (fitted[2] - 0.5 * offset).abs().max() < error
    covariance = 0.25 * root @ root.T
    scale = covariance.diag().sqrt()
    assert ((x - means).T.cov() - covariance).abs().div(torch.outer(scale, scale)).max() < 5 * (2 / rows) ** 0.5 + 0.01


def test_training_finds_the_dependence_of_neighbouring_values() -> None:
    """Residuals with one bright or dark level per image: the decoder's likelihood would draw each value for itself."""
    generator = torch.Generator().manual_seed(0)

    def data(rows: int) -> Examples:
        h, level, noise = (torch.randn(rows, *s, generator=generator) for s in ((2,), (1, 1, 1), (1, 4, 4)))
        means = h[:, :1, None, None].expand(-1, 1, 4, 4)
        return Examples(means + 0.8 * level + 0.6 * noise, means, h, torch.full((rows,), -1))

    refiner = Refiner({"x": (1, 4, 4)}, 2, 0, width=8, ode_steps=8)
    refiner.standardise({"x": data(1000)})
    descent = Descent(Group(refiner.parameters(), 1e-2, limit=1.0), steps=120)
    for _ in range(120):
        descent.step(refiner.loss({"x": data(64)}, generator)["x"].mean())
    held_out = data(1000)
    residual = refiner.sample("x", held_out.means, held_out.latents, None, generator) - held_out.means
    assert math.isclose(float(residual.flatten(1).mean(1).std()), math.hypot(0.8, 0.6 / 4), rel_tol=0.15)
    assert math.isclose(float(residual.flatten(1).std(1).square().mean()), 0.36, rel_tol=0.2)


def test_draws_do_not_depend_on_the_rows_beside_them(refiner: Refiner, monkeypatch: pytest.MonkeyPatch) -> None:
    each = examples()["scan"]
    whole = refiner.sample("scan", each.means, each.latents, each.labels, torch.Generator().manual_seed(5))
    monkeypatch.setattr(module, "IMAGES", 3)
    parts = refiner.sample("scan", each.means, each.latents, each.labels, torch.Generator().manual_seed(5))
    torch.testing.assert_close(whole, parts, rtol=1e-10, atol=1e-12)
    nested = refiner.sample(
        "scan",
        each.means.expand(2, *each.means.shape),
        each.latents.expand(2, -1, -1),
        each.labels.expand(2, -1),
        torch.Generator().manual_seed(5),
    )
    torch.testing.assert_close(nested[0], whole, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(nested[0], nested[1])


@pytest.mark.parametrize("given", ["label", "code", "modality"])
def test_draws_depend_on_what_they_are_given(refiner: Refiner, given: str) -> None:
    each = examples()["a"]
    before = refiner.sample("a", each.means, each.latents, None, torch.Generator().manual_seed(5))
    latents = each.latents + (given == "code")
    labels = torch.ones(7, dtype=torch.int64) if given == "label" else None
    name = "b" if given == "modality" else "a"
    after = refiner.sample(name, each.means, latents, labels, torch.Generator().manual_seed(5))
    assert not torch.allclose(before, after)


def test_an_untrained_refiner_adds_white_noise_of_the_temperature() -> None:
    refiner = Refiner({"x": (3, 8, 8)}, 2, 0, width=8, temperature=0.5)
    refiner.scales.fill_(0.1)
    means = torch.zeros(64, 3, 8, 8)
    drawn = refiner.sample("x", means, torch.zeros(64, 2), None, generator_for("cpu", 0))
    assert math.isclose(float(drawn.std()), 0.05, rel_tol=0.03)


def test_the_state_gives_the_refiner_back_bit_for_bit(refiner: Refiner) -> None:
    refiner = refiner.float()
    state = torch.get_rng_state()
    copy = Refiner.from_state(*refiner.state())
    assert torch.equal(torch.get_rng_state(), state)
    for name, each in examples().items():
        means, latents = each.means.float(), each.latents.float()
        draws = [one.sample(name, means, latents, each.labels, generator_for("cpu", 1)) for one in (refiner, copy)]
        assert torch.equal(*draws)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: found 0.0, expected a number above 0 and at most 1"),
        ({"temperature": 2}, "temperature"),
        ({"ode_steps": 0}, "ode_steps"),
        ({"width": 1.5}, "width"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Refiner({"x": (1, 4, 4)}, 2, 0, **options)  # type: ignore[arg-type]
