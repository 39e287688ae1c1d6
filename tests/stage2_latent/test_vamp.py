"""The VampPrior fitted after training, with encoders in closed form."""

import pytest
import torch
from support.equations import seeded
from support.latent import NOISE, LinearEncoder, labelled, unlabelled
from torch import Tensor

from postprior.stage1_vae.distributions import FAMILIES, Mixture
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.vamp import Vamp, pairwise_log_prob

CODES, ENCODER = labelled(400, seed=1)
VALIDATION, _ = labelled(200, seed=2)


class MixtureEncoder(LinearEncoder):
    """Two Laplace components per row, at x and −x, with weights 0.75 and 0.25."""

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        loc = torch.stack([inputs["x"], -inputs["x"]], dim=1)
        weights = torch.tensor([0.75, 0.25]).expand(len(loc), 2)
        return Mixture(weights, FAMILIES["laplace"](loc, torch.full_like(loc, NOISE)))


def test_every_row_as_a_pseudo_input_is_the_aggregated_posterior() -> None:
    """Without training, pseudo-inputs at all rows give (1/N) Σ_n q(z | x_n) per label."""
    codes = unlabelled(CODES)
    density = Vamp(pseudo_inputs=400, steps=5, learning_rate=0.0, weight_learning_rate=0.0)
    density.fit(codes, unlabelled(VALIDATION), seeded(), ENCODER)
    z = VALIDATION.mean
    every = Mixture(torch.full((400,), 1 / 400), codes.posterior().components[:, 0])
    torch.testing.assert_close(density.log_prob(z), every.log_prob(z))


def test_pseudo_inputs_start_from_rows_of_their_label() -> None:
    density = Vamp(pseudo_inputs=40, steps=5, learning_rate=0.0).fit(CODES, VALIDATION, seeded(), ENCODER)
    assert density.loc.shape == (2, 20, 4)
    for index, label in enumerate((0, 2)):
        distance = torch.cdist(
            density.loc[index], ENCODER.x[CODES.labels == label], compute_mode="donot_use_mm_for_euclid_dist"
        )
        assert float(distance.min(dim=1).values.max()) == pytest.approx(0, abs=1e-4)
        assert len(density.loc[index].unique(dim=0)) == 20, "a row was taken twice"


def test_rows_left_out_do_not_shift_the_inputs() -> None:
    """Row numbers given to the encoder are those of the codes given to `fit`, even if some rows are incomplete."""
    observed = CODES.observed.clone()
    observed[::2] = False
    holed = Codes(**{**vars(CODES), "observed": observed})
    density = Vamp(pseudo_inputs=40, steps=5, learning_rate=0.0).fit(holed, VALIDATION, seeded(), ENCODER)
    distance = torch.cdist(density.loc.flatten(0, 1), ENCODER.x[1::2], compute_mode="donot_use_mm_for_euclid_dist")
    assert float(distance.min(dim=1).values.max()) == pytest.approx(0, abs=1e-4)


def test_learning_raises_the_likelihood_towards_the_truth() -> None:
    """A few narrow components fit better after they are moved and reweighted than at drawn rows."""
    density = Vamp(pseudo_inputs=100, steps=150, learning_rate=0.02)
    density.fit(CODES, VALIDATION, seeded(), ENCODER)
    held_out = [row["validation_log_likelihood"] for row in density.history]
    assert max(held_out) > held_out[0] + 0.3
    z, labels = VALIDATION.draw(seeded(8)), VALIDATION.labels
    assert float(density.log_prob(z, labels).mean()) > held_out[0] + 0.2
    assert density.log_weights.exp().std() > 0.001, "weights were not learned"
    torch.testing.assert_close(density.log_weights.exp().sum(-1), torch.ones(2))


def test_gradients_are_those_of_the_log_likelihood() -> None:
    """One step of plain Adam moves each pseudo-input along the sign of a gradient computed by hand."""
    codes, density = unlabelled(CODES), Vamp(pseudo_inputs=3, steps=5)
    density.whitening, density.classes = fitted_parts(codes)
    inputs = {"x": ENCODER.x[:3].clone().requires_grad_()}
    logits = torch.tensor([[0.3, -0.2, 0.0]], requires_grad=True)
    density._encode(ENCODER, inputs, logits)
    x = codes.draw(seeded())[:50]
    density._likelihood(x.unsqueeze(0)).sum().backward()
    weights = torch.softmax(torch.tensor([0.3, -0.2, 0.0]), 0)
    residual = x.unsqueeze(1) - ENCODER.x[:3]  # (50, 3, 4)
    responsibility = torch.softmax(weights.log() - 0.5 * (residual / NOISE).square().sum(-1), dim=1)
    by_hand = (responsibility.unsqueeze(-1) * residual / NOISE**2).mean(0)
    torch.testing.assert_close(inputs["x"].grad, by_hand, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.grad[0], responsibility.mean(0) - weights, rtol=1e-4, atol=1e-5)


def fitted_parts(codes: Codes) -> tuple[object, object]:
    density = Vamp(pseudo_inputs=3, steps=5).fit(codes, None, seeded(), ENCODER)
    return density.whitening, density.classes


def test_mixture_posteriors_give_all_their_components() -> None:
    encoder = MixtureEncoder(ENCODER.x)
    posterior = encoder(encoder.inputs(torch.arange(400)))
    codes = Codes(
        CODES.layout,
        "laplace",
        posterior.components.loc,
        posterior.components.scale,
        posterior.weights.clone(),
        CODES.observed,
    )
    density = Vamp(pseudo_inputs=400, steps=5, learning_rate=0.0, weight_learning_rate=0.0)
    density.fit(codes, codes, seeded(), encoder)
    assert density.family == "laplace"
    assert density.loc.shape == (1, 800, 4)
    z = codes.draw(seeded())[:50]
    aggregated = (posterior.log_prob(z.unsqueeze(1)) - torch.tensor(400.0).log()).logsumexp(1)
    torch.testing.assert_close(density.log_prob(z), aggregated, rtol=1e-4, atol=1e-4)
    drawn = density.sample(4000, seeded()).loc[:, 0]
    torch.testing.assert_close(drawn.mean(0), codes.mean.mean(0), atol=0.1, rtol=0)


def test_fewer_rows_than_pseudo_inputs_are_used_again() -> None:
    few = CODES.select(torch.arange(10))
    density = Vamp(pseudo_inputs=60, steps=5).fit(few, VALIDATION, seeded(), ENCODER)
    assert density.loc.shape == (2, 30, 4)
    assert density.log_prob(VALIDATION.mean).isfinite().all()


def test_encoder_keeps_no_gradient_and_the_state_no_data() -> None:
    density = Vamp(pseudo_inputs=20, steps=10).fit(CODES, VALIDATION, seeded(), ENCODER)
    tensors, _ = density.state()
    assert set(tensors) == {
        "levels",
        "whitening.loc",
        "whitening.root",
        "classes.labels",
        "classes.probabilities",
        "log_weights",
        "loc",
        "scale",
    }
    assert not density.stores_training_codes
    assert ENCODER.x.grad is None


def test_the_best_step_is_kept_even_if_the_encoder_returns_views_of_its_inputs() -> None:
    """Large steps change the inputs in place after the best evaluation; the components are those of that evaluation."""
    density, seen = Vamp(pseudo_inputs=20, steps=40, learning_rate=1.0), []

    def look(row: dict[str, float]) -> None:
        seen.append((row["validation_log_likelihood"], density.loc.detach().clone()))

    density.fit(CODES, VALIDATION, seeded(), ENCODER, look)
    best = max(range(len(seen)), key=lambda place: seen[place][0])
    assert best < len(seen) - 1
    torch.testing.assert_close(density.loc, seen[best][1], rtol=0, atol=0)


@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_pairs_are_scored_as_by_the_family(family: str) -> None:
    """Far from the origin and with narrow components, in single precision."""
    loc, x = (100 + torch.randn(2, rows, 3, generator=seeded(rows)) for rows in (4, 6))
    components = FAMILIES[family](loc, 0.1 + torch.rand(2, 4, 3, generator=seeded()))
    expected = FAMILIES[family](loc.double().unsqueeze(1), components.scale.double().unsqueeze(1))
    found = pairwise_log_prob(components, x)
    torch.testing.assert_close(found.double(), expected.log_prob(x.double().unsqueeze(2)), rtol=1e-4, atol=1e-3)


def test_gap_is_the_distance_to_the_nearest_component() -> None:
    """On a line: components at 0 and 10 with scale 2, points at 1 and 6."""
    density = Vamp()
    density.loc = torch.tensor([0.0, 10.0]).reshape(1, 2, 1)
    density.scale = torch.full((1, 2, 1), 2.0)
    points = torch.tensor([1.0, 6.0]).reshape(1, 2, 1)
    assert density._gap(points) == pytest.approx(((0.5**2 + 2.0**2) / 2) ** 0.5)


def test_temperature_widens_the_components() -> None:
    density = Vamp()
    density.family, density.log_weights = "normal", torch.zeros(1, 1)
    density.loc, density.scale = torch.zeros(1, 1, 3), torch.ones(1, 1, 3)
    x = torch.randn(1, 5, 3, generator=seeded())
    wide = FAMILIES["normal"](torch.zeros(3), torch.full((3,), 4.0))
    torch.testing.assert_close(density._likelihood(x, 4.0)[0], wide.log_prob(x[0]).mean())
