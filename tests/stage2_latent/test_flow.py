"""Flows: inverse, determinant, initial values at the base, and a better fit where the base is too simple."""

import pytest
import torch
from support.equations import perturb, seeded
from support.latent import labelled, random_mixture

from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.flow import Base, Conditional, Flow
from postprior.stage2_latent.gaussian_mixture import GaussianMixture
from postprior.stage2_latent.transport import COUPLINGS, MaskedAutoregression, Sizes, Transport

CODES, _ = labelled(400, seed=1)
SIZES = Sizes(blocks=3, hidden=16, bins=6, bound=4.0)


def transport(coupling: str, features: int = 5, spread: float = 0.3) -> Transport:
    """Layers with random weights, in double precision."""
    return perturb(Transport(features, 3, coupling, SIZES).double(), spread, seeded())


@pytest.fixture(params=list(COUPLINGS))
def coupling(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_layers_invert(coupling: str) -> None:
    layers = transport(coupling)
    x = 2 * torch.randn(50, 5, generator=seeded(1), dtype=torch.float64)
    classes = torch.randint(3, (50,), generator=seeded(2))
    u, log_det = layers.to_base(x, classes)
    back, log_det_back = layers.to_codes(u, classes)
    assert not torch.allclose(u, x, atol=0.1)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det_back, -log_det, rtol=1e-6, atol=1e-6)


def test_determinant_is_that_of_the_jacobian(coupling: str) -> None:
    layers = transport(coupling)
    for row in range(4):
        x = 2 * torch.randn(5, generator=seeded(row), dtype=torch.float64)
        classes = torch.tensor([row % 3])
        _, log_det = layers.to_base(x.unsqueeze(0), classes)
        jacobian = torch.autograd.functional.jacobian(lambda v, c=classes: layers.to_base(v.unsqueeze(0), c)[0][0], x)
        torch.testing.assert_close(log_det[0], torch.linalg.slogdet(jacobian).logabsdet)


def test_layers_see_the_label(coupling: str) -> None:
    layers = transport(coupling)
    x = torch.randn(1, 5, generator=seeded(), dtype=torch.float64)
    first, second = (layers.to_base(x, torch.tensor([label]))[0] for label in (0, 1))
    assert not torch.allclose(first, second)


def test_fresh_layers_only_permute(coupling: str) -> None:
    layers = Transport(5, 3, coupling, SIZES).double()
    x = torch.randn(10, 5, generator=seeded(), dtype=torch.float64)
    u, log_det = layers.to_base(x, torch.zeros(10, dtype=torch.int64))
    order = layers.permutation()
    torch.testing.assert_close(u, x[:, order], rtol=1e-3, atol=1e-3)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    torch.testing.assert_close(log_det, torch.zeros_like(log_det), rtol=0, atol=1e-2)


def test_base_starts_at_the_mixture_it_is_given() -> None:
    mixture = random_mixture()
    again = Base(mixture)()
    x = torch.randn(2, 6, 4, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(again.log_prob(x), mixture.log_prob(x))


def ring(rows: int, seed: int) -> Codes:
    """A ring of radius 2, which no Gaussian fits."""
    generator = seeded(seed)
    angle = 2 * torch.pi * torch.rand(rows, generator=generator)
    radius = 2 + 0.2 * torch.randn(rows, generator=generator)
    return Codes.empirical((Block("z", (2,)),), torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1))


def test_flow_beats_its_base_where_that_is_too_simple(coupling: str) -> None:
    density = Flow(
        coupling=coupling,
        components=1,
        blocks=3,
        hidden=16,
        steps=150,
        batch=128,
        noise=0.0,
        learning_rate=1e-2,
        weight_decay=0.0,
    )
    density.fit(ring(2000, 1), ring(500, 2), seeded())
    z = ring(1000, 3).mean
    base = GaussianMixture(components=1).fit(ring(2000, 1), ring(500, 2), seeded())
    assert density.log_prob(z).mean() > base.log_prob(z).mean() + 0.3
    radius = density.sample(2000, seeded()).mean.norm(dim=1)
    assert float((radius < 1).float().mean()) < 0.1
    assert float(base.sample(2000, seeded()).mean.norm(dim=1).lt(1).float().mean()) > 0.15


def test_weights_of_the_best_held_out_look_are_kept() -> None:
    """Twenty rows are overfitted at once; the kept weights are no worse than the initial ones."""
    few = CODES.select(torch.arange(20))
    density = Flow(components=1, steps=200, patience=3, learning_rate=1e-2, hidden=32, blocks=2, noise=0.0)
    density.fit(few, CODES, seeded())
    held_out = [row["validation_log_likelihood"] for row in density.history]
    assert len(held_out) < 11, "did not stop early"
    z = torch.cat([CODES.draw(seeded(i)) for i in range(8)])
    assert CODES.labels is not None
    labels = CODES.labels.repeat(8)
    assert float(density.log_prob(z, labels).mean()) == pytest.approx(max(held_out), abs=0.1)


def test_noise_keeps_the_held_out_codes_as_likely_as_the_others() -> None:
    """Forty rows are overfitted for all steps: the gap to held-out rows is smaller with noise."""
    gaps = []
    for noise in (0.0, 0.5):
        density = Flow(components=1, steps=100, learning_rate=1e-2, hidden=32, blocks=2, batch=64, noise=noise)
        density.fit(CODES.select(torch.arange(40)), CODES, seeded())
        last = density.history[-1]
        gaps.append(last["train_log_likelihood"] - last["validation_log_likelihood"])
    assert gaps[1] < 0.5 * gaps[0]


def test_the_average_follows_the_weights() -> None:
    """aₜ = aₜ₋₁ + s (wₜ − aₜ₋₁) for every parameter, of the layers and of the base."""
    first, second = (Conditional(transport("affine", spread=spread), Base(random_mixture())) for spread in (0, 1))
    with torch.no_grad():
        second.base.means.add_(1.0)
    before = [value.clone() for value in first.parameters()]
    first.follow(second, 0.25)
    for old, new, other in zip(before, first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(new, 0.75 * old + 0.25 * other)


def test_standard_base() -> None:
    """Without components the base is and stays N(0, I) for every label."""
    density = Flow(components=0, steps=40, hidden=16, blocks=2).fit(CODES, generator=seeded())
    x = torch.randn(2, 7, 4, generator=seeded())
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(x).sum(-1)
    torch.testing.assert_close(density.base.log_prob(x), expected)
    assert density.history[-1]["validation_log_likelihood"] > density.history[0]["validation_log_likelihood"]


def test_masked_coordinates_see_those_before_them_alone() -> None:
    """The Jacobian is triangular, and the iterated inverse equals the inverse solved coordinate by coordinate."""
    layer = transport("masked", features=6).layers[1]
    assert isinstance(layer, MaskedAutoregression)
    context = torch.eye(3, dtype=torch.float64)[1:2]
    x = torch.randn(1, 6, generator=seeded(1), dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: layer.inverse(v, context)[0], x)[0, :, 0]
    assert torch.equal(jacobian, jacobian.tril())
    assert (jacobian.tril(-1) != 0).any()
    u, _ = layer.inverse(x, context)
    solved = torch.zeros_like(x)
    for coordinate in range(6):
        maps = layer._maps(solved, context)
        solved[:, coordinate] = ((u - maps.shift) * (-maps.log_scale).exp())[:, coordinate]
    torch.testing.assert_close(layer.forward(u, context)[0], solved, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(solved, x, rtol=1e-12, atol=1e-12)


def test_samples_push_the_base_through_the_layers() -> None:
    """log p of a draw is that of the base plus log-determinants, in both directions."""
    density = Flow(components=2, steps=40, hidden=16, blocks=2).fit(CODES, generator=seeded()).to(torch.float64)
    classes = torch.tensor([0, 1] * 20)
    u = density.base.sample(classes, seeded())
    x, log_det = density.transport.to_codes(u, classes)
    forward = torch.stack(
        [density.base.select(int(c)).log_prob(p.reshape(1, 1, -1))[0, 0] for c, p in zip(classes, u, strict=True)]
    )
    z = density.whitening.inverse(x)
    expected = forward - log_det + density.whitening.log_det
    torch.testing.assert_close(density.log_prob(z, density.classes.labels[classes]), expected)


def test_one_dimension_cannot_be_coupled() -> None:
    codes = Codes.empirical((Block("z", (1,)),), torch.randn(20, 1, generator=seeded()))
    with pytest.raises(ValueError, match="codes have 1 dimension, expected at least 2"):
        Flow().fit(codes)
