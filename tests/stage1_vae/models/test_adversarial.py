"""The adversarial loss of MHVAE: whom each of its terms trains, closed forms, and exact resumption."""

import pytest
import torch
from support.equations import HOLES, batch, by_mask, same_loss, seeded
from torch import Tensor, nn
from torch.nn.functional import conv2d

from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.models import MHVAE
from postprior.stage1_vae.networks.patches import PatchDiscriminator
from postprior.stage1_vae.training import Settings, train

MODALITIES = (
    Modality("a", "image", (1, 16, 16), "normal"),
    Modality("b", "vector", (3,), "normal"),
    Modality("c", "image", (2, 9, 12), "laplace", (0, 1)),
)
WEIGHT = 0.7


def model(adversarial: float = WEIGHT, modalities: tuple[Modality, ...] = MODALITIES) -> MHVAE:
    sizes = {"latent": 3, "width": 2, "likelihood_scale": 0.3, "seed": 3}
    return MHVAE(modalities, levels=2, subsets=2, adversarial=adversarial, **sizes).double()


def gradients(value: Tensor, of: nn.Module) -> dict[str, Tensor]:
    parameters = dict(of.named_parameters())
    found = torch.autograd.grad(value.sum(), list(parameters.values()), retain_graph=True, allow_unused=True)
    return {name: g for name, g in zip(parameters, found, strict=True) if g is not None}


def score(discriminator: PatchDiscriminator, image: Tensor) -> Tensor:
    return discriminator(image[None])[0]


@by_mask
def test_the_terms_are_the_least_squares_of_generated_and_real_images(observed: Tensor) -> None:
    """One row, subset and modality at a time: H W (D(x̂) − 1)² for the model, (D(x) − 1)² + D(x̂)² for D."""
    trained, rows = model(), batch(observed, MODALITIES)
    source = seeded()
    levels = trained.posterior_levels(rows, trained.draw_subsets(observed, source), source)
    states, generator, discriminator = levels[-1].state, [], []
    for row, has in enumerate(observed):
        fooled = found = torch.zeros((), dtype=torch.float64)
        for place, m in enumerate(MODALITIES):
            if m.kind == "image" and has[place]:
                d = trained.discriminators[m.name]
                scores = [score(d, trained.decode_one(m, state[None]).mean[0]) for state in states[row]]
                pixels = m.shape[1] * m.shape[2]
                fooled = fooled + pixels * sum((values - 1).square().mean() for values in scores) / 2
                found = found + sum(values.square().mean() for values in scores) / 2
                found = found + (score(d, rows.data[m.name][row]) - 1).square().mean()
        generator.append(fooled)
        discriminator.append(found)
    loss, plain = (trained.loss(rows, seeded()), model(0.0).loss(rows, seeded()))
    same_loss(loss.terms["generator"], generator)
    same_loss(loss.terms["discriminator"], discriminator)
    same_loss(loss.per_sample, list(plain.per_sample + WEIGHT * torch.stack(generator)))


def test_each_player_follows_the_gradient_of_its_own_term() -> None:
    trained, rows = model(), batch(HOLES, MODALITIES)
    loss = trained.loss(rows, seeded())
    plain, fooled = (gradients(value, trained) for value in (loss.terms["reconstruction"], loss.terms["generator"]))
    divergence = gradients(loss.terms["kl"], trained)
    found = gradients(loss.terms["discriminator"], trained)
    players = {name for name, _ in trained.named_parameters() if name.startswith("discriminators.")}
    assert set(found) == players
    assert not set(fooled) & players
    zero = torch.zeros((), dtype=torch.float64)
    for name, gradient in gradients(loss.per_sample, trained).items():
        own = plain.get(name, zero) + divergence.get(name, zero) + WEIGHT * fooled.get(name, zero)
        torch.testing.assert_close(gradient, found.get(name, zero) + own, rtol=1e-9, atol=1e-12)


def test_the_gradient_of_a_linear_discriminator_is_known() -> None:
    """D(x) = w ∗ x + b, so ∂/∂x̂ of H W · mean_p (D_p − 1)² is the transpose of the convolution of 2 (D − 1)."""
    discriminator = PatchDiscriminator((1, 6, 7), 4).double()
    layer = discriminator.layers[-1]
    fake, real = torch.rand(2, 2, 1, 1, 6, 7, generator=seeded(), dtype=torch.float64)
    fake.requires_grad_()
    discriminator.terms(fake, real[:, 0])[0].sum().backward()
    with torch.no_grad():
        scores = conv2d(fake[:, 0], layer.weight, layer.bias, padding=1)
        expected = conv2d(2 * (scores - 1), layer.weight.flip(2, 3), padding=1)
    torch.testing.assert_close(fake.grad[:, 0], expected)
    assert layer.weight.grad is None


@pytest.mark.parametrize("blur", [0.4, 1.0])
def test_a_discriminator_learns_how_probable_it_is_that_an_image_is_real(blur: float) -> None:
    """Scores approach the optimum p/(p + q): 1 and 0 if the images can be told apart, 1/2 if they are alike."""
    source = seeded()

    def images(contrast: float) -> Tensor:
        pixels = 0.5 + contrast * (torch.rand(16, 1, 8, 8, generator=source) - 0.5)
        return pixels.repeat_interleave(2, -1).repeat_interleave(2, -2)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        discriminator = PatchDiscriminator((1, 16, 16), 4)
    optimizer = torch.optim.Adam(discriminator.parameters(), 5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        discriminator.terms(images(blur)[:, None], images(1.0))[1].mean().backward()
        optimizer.step()
    fake, real = (float(discriminator(images(contrast)).detach().mean()) for contrast in (blur, 1.0))
    if blur < 1:
        assert fake < 0.3 < 0.7 < real
    else:
        assert abs(fake - 0.5) < 0.1
        assert abs(real - 0.5) < 0.1


def test_a_batch_without_any_image_trains_nobody_s_images() -> None:
    trained = model()
    loss = trained.loss(batch(torch.tensor([[False, True, False]]), MODALITIES), seeded())
    assert not loss.terms["generator"].any()
    assert not loss.terms["discriminator"].any()
    assert not any(g.any() for name, g in gradients(loss.per_sample, trained).items() if "discriminators" in name)


def test_without_a_weight_nothing_is_added_and_with_one_the_networks_start_the_same() -> None:
    without, trained = model(0.0).state_dict(), model().state_dict()
    assert {name for name in trained if name not in without} == {
        name for name in trained if name.startswith("discriminators.")
    }
    assert all(torch.equal(tensor, trained[name]) for name, tensor in without.items())


def test_the_state_rebuilds_the_discriminators() -> None:
    trained = model()
    tensors, description = trained.state()
    rebuilt = MHVAE.from_state({name: tensor.float() for name, tensor in tensors.items()}, description)
    assert rebuilt.state_dict().keys() == trained.state_dict().keys()


class Rows:
    """40 rows, some of which lack a modality."""

    observed = HOLES.repeat(10, 1)
    data = batch(observed, MODALITIES).data

    def __len__(self) -> int:
        return len(self.observed)

    def batch(self, rows: object) -> Batch:
        index = torch.as_tensor(rows)
        return Batch({name: x[index].float() for name, x in self.data.items()}, self.observed[index])


def test_a_resumed_run_ends_with_the_same_bytes() -> None:
    settings, whole = Settings(epochs=3, batch_size=16, device="cpu"), model().float()
    epochs = list(train(whole, Rows(), settings))
    resumed = model().float()
    list(train(resumed, Rows(), settings, resume=epochs[0].snapshot))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    moved = epochs[0].snapshot.tensors["model/discriminators.a.layers.0.weight"]
    assert not torch.equal(moved, whole.state_dict()["discriminators.a.layers.0.weight"])


@pytest.mark.parametrize(
    ("modalities", "weight", "message"),
    [
        (MODALITIES, -0.1, "adversarial: found -0.1, expected a number of at least 0"),
        (MODALITIES[1:2], 1.0, "adversarial: found no modality that is an image with numbers, expected at least one"),
    ],
)
def test_impossible_weights_are_refused(modalities: tuple[Modality, ...], weight: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(weight, modalities)
