"""Objects in the place of a trained autoencoder: forms of posteriors and likelihoods, units, missing modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from support.own_autoencoder import LATENT, SIZES, Linear, Locations
from torch import Tensor, distributions, nn

from postprior.stage1_vae.adapted import Adaptable, Adapted, Units
from postprior.stage1_vae.adapters import adaptable
from postprior.stage1_vae.discrete import ZeroInflatedNegativeBinomial
from postprior.stage1_vae.distributions import Block, Laplace, Mixture, Normal
from postprior.stage1_vae.foreign import Located, as_likelihood, as_mixture
from postprior.stage1_vae.imports import UserCodeError
from postprior.stage1_vae.likelihoods import Columns, likelihood, raw_shape
from postprior.stage1_vae.modalities import Batch, Column, Modality
from postprior.stage1_vae.randomness import generator_for

MODALITIES = [Modality(name, "vector", (size,), "normal") for name, size in SIZES.items()]
LOC, SCALE = torch.arange(6.0).view(3, 2), torch.tensor([0.5, 2.0]).expand(3, 2)


def batch(observed: Sequence[Sequence[bool]]) -> Batch:
    generator = torch.Generator().manual_seed(0)
    data = {m.name: 5 + torch.randn(len(observed), *m.shape, generator=generator) for m in MODALITIES}
    return Batch(data, torch.tensor(observed))


def test_the_evidence_of_an_exact_linear_model_is_that_of_its_normal_distribution() -> None:
    """With the exact posterior, log p(x_S|z) + log p(z) − log q(z|x_S) is log p(x_S) whatever z is."""
    source = Linear(noise=0.4, seed=3)
    rows = batch([[True, True], [True, False], [False, True]])
    found = Adapted(source, MODALITIES).log_evidence(rows, generator_for("cpu", 0), draws=2)
    for row, expected in enumerate(found):
        seen = [m.name for m, has in zip(MODALITIES, rows.observed[row].tolist(), strict=True) if has]
        weights = torch.cat([source.maps[m] for m in seen]).detach()
        covariance = weights @ weights.T + 0.4**2 * torch.eye(len(weights))
        law = distributions.MultivariateNormal(torch.full((len(weights),), 5.0), covariance)
        assert float(law.log_prob(torch.cat([rows.data[m][row] for m in seen]))) == pytest.approx(
            float(expected), abs=1e-3
        )


@pytest.mark.parametrize(
    "found",
    [
        (LOC, SCALE),
        Normal(LOC, SCALE),
        Mixture.single(Normal(LOC, SCALE)),
        distributions.Normal(LOC, SCALE),
        distributions.Independent(distributions.Normal(LOC, SCALE), 1),
        distributions.MixtureSameFamily(
            distributions.Categorical(probs=torch.ones(3, 1)),
            distributions.Independent(distributions.Normal(LOC[:, None], SCALE[:, None]), 1),
        ),
    ],
    ids=lambda found: type(found).__name__,
)
def test_the_same_posterior_in_all_forms(found: Any) -> None:
    q = as_mixture(found, 3, 2)
    torch.testing.assert_close(q.mean, LOC)
    torch.testing.assert_close(q.variance, SCALE.square())
    torch.testing.assert_close(q.log_prob(LOC), distributions.Normal(LOC, SCALE).log_prob(LOC).sum(-1))


def test_draws_are_a_mixture_of_points_and_laplace_stays_laplace() -> None:
    draws = torch.randn(3, 5, 2)
    q = as_mixture(draws, 3, 2)
    torch.testing.assert_close(q.mean, draws.mean(1))
    torch.testing.assert_close(q.variance, draws.var(1, correction=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(as_mixture(draws[:, 0], 3, 2).mean, draws[:, 0])
    assert isinstance(as_mixture(distributions.Laplace(LOC, SCALE), 3, 2).components, Laplace)


@pytest.mark.parametrize("found", ["text", distributions.Gamma(SCALE, SCALE), (LOC[:2], SCALE[:2]), LOC[:, :1]])
def test_other_posteriors_are_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        as_mixture(found, 3, 2)


RAW: dict[str, tuple[Modality, Callable[[Tensor], Any]]] = {
    "bernoulli": (
        Modality("x", "image", (1, 2, 2), "bernoulli"),
        lambda raw: distributions.Bernoulli(logits=raw),
    ),
    "categorical": (
        Modality("x", "sequence", (4,), "categorical", classes=3),
        lambda raw: distributions.Categorical(logits=raw.movedim(1, -1)),
    ),
    "normal": (
        Modality("x", "vector", (4,), "normal"),
        lambda raw: distributions.Independent(distributions.Normal(raw, 1.0), 1),
    ),
    "laplace": (Modality("x", "vector", (4,), "laplace"), lambda raw: distributions.Laplace(raw, torch.ones(()))),
    "negative_binomial": (
        Modality("x", "vector", (4,), "negative_binomial"),
        lambda raw: distributions.NegativeBinomial(
            raw.view(-1, 2, 4)[:, 1].exp(), logits=raw.view(-1, 2, 4)[:, 0] - raw.view(-1, 2, 4)[:, 1]
        ),
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_a_likelihood_of_torch_is_that_of_its_raw_output(name: str) -> None:
    modality, of_torch = RAW[name]
    raw = torch.randn(6, *raw_shape(modality), generator=torch.Generator().manual_seed(0))
    expected = likelihood(modality, raw.unflatten(0, (2, 3)), 1.0)
    x = expected.rsample((), generator_for("cpu", 0))
    for form in (raw, of_torch(raw), likelihood(modality, raw, 1.0)):
        p = as_likelihood(modality, form, 1.0, (2, 3))
        torch.testing.assert_close(p.log_prob(x), expected.log_prob(x))
        torch.testing.assert_close(p.mean, expected.mean)
        torch.testing.assert_close(p.log_prob(x), of_torch(raw).log_prob(x.flatten(0, 1)).reshape(2, 3, -1).sum(-1))


def test_counts_of_scvi_tools_and_tables_keep_their_likelihood() -> None:
    class Counts:
        mu, theta, zi_logits = torch.rand(6, 4) * 5, torch.rand(6, 4) + 0.5, torch.randn(6, 4)

    p = as_likelihood(Modality("x", "vector", (4,), "negative_binomial"), Counts(), 1.0, (2, 3))
    assert isinstance(p, ZeroInflatedNegativeBinomial)
    torch.testing.assert_close(p.mean.flatten(0, 1), (1 - Counts.zi_logits.sigmoid()) * Counts.mu)
    columns = (Column("u", "normal"), Column("v", "categorical", 3))
    table = Modality("x", "table", (2,), "columns", columns=columns)
    raw = torch.randn(6, *raw_shape(table))
    found = as_likelihood(table, likelihood(table, raw, 1.0), 1.0, (2, 3))
    assert isinstance(found, Columns)
    torch.testing.assert_close(found.mean.flatten(0, 1), likelihood(table, raw, 1.0).mean)


@pytest.mark.parametrize("found", [torch.zeros(6, 5), "text", distributions.Gamma(torch.ones(6, 4), 1.0)])
def test_other_likelihoods_are_refused(found: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        as_likelihood(Modality("x", "vector", (4,), "normal"), found, 1.0, (6,))


def test_units_change_neither_posteriors_nor_values() -> None:
    """Numbers x = (v − offset) / scale of a dataset give the posteriors and the likelihoods of the values v."""
    source, plain = Linear(seed=3), batch([[True, True], [True, False]])
    units = {"a": Units(2.0, 4.0), "b": Units((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 0.5, 1.0))}
    adapted = Adapted(source, MODALITIES, units=units)
    data = {m: (x - torch.tensor(units[m].offset)) / torch.tensor(units[m].scale) for m, x in plain.data.items()}
    scaled, reference = Batch(data, plain.observed), Adapted(source, MODALITIES)
    with torch.no_grad():
        torch.testing.assert_close(adapted.posterior(scaled).mean, reference.posterior(plain).mean)
        z = torch.randn(3, LATENT)
        for m in MODALITIES:
            one, other = adapted.decode_one(m, z), reference.decode_one(m, z)
            offset, scale = (torch.tensor(part) for part in units[m.name])
            torch.testing.assert_close(one.mean * scale + offset, other.mean)
            jacobian = scale.expand(m.shape).log().sum()
            v = other.mean + 0.1
            torch.testing.assert_close(one.log_prob((v - offset) / scale), other.log_prob(v) + jacobian)


def test_scales_of_locations_are_the_errors_of_reconstructions() -> None:
    adapted = Adapted(Locations(seed=3), MODALITIES)
    rows = batch([[True, True]] * 50)
    adapted.fit_scales(rows)
    with torch.no_grad():
        means = adapted.decode(adapted.posterior(rows).mean)
    for m in MODALITIES:
        error = (means[m.name].mean - rows.data[m.name]).square().mean().sqrt()
        assert adapted.scales[m.name] == pytest.approx(float(error), rel=1e-5)
        assert float(adapted.decode_one(m, torch.zeros(1, LATENT)).scale) == pytest.approx(float(error), rel=1e-5)  # type: ignore[union-attr, arg-type]
    exact = Adapted(Linear(seed=3), MODALITIES)
    exact.fit_scales(rows)
    assert not exact.scales


class Private(nn.Module):
    """Codes are the values themselves; each modality has a private block, and the prior is not standard."""

    layout = (Block("z", (1,)), Block("w_a", (1,), "a"), Block("w_b", (1,), "b"))

    def encode(self, batch: Mapping[str, Tensor]) -> Tensor:
        first = next(iter(batch.values()))
        return torch.stack([first[:, 0], first[:, 1], first[:, 2]], 1)

    def prior(self) -> tuple[Tensor, Tensor]:
        return torch.tensor([[0.0, 7.0, 8.0]]), torch.tensor([[1.0, 2.0, 3.0]])

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        shapes = {m.name: m.shape for m in MODALITIES}
        return {m: Located(latents[:, :1].expand(-1, *shapes[m]), Laplace) for m in names}


def test_private_codes_of_missing_modalities_follow_the_prior_and_subsets_hide_modalities() -> None:
    rows = batch([[True, True], [False, True]])
    adapted = Adapted(Private(), MODALITIES)
    q = adapted.posterior(rows)
    torch.testing.assert_close(q.mean[0], rows.data["a"][0, :3])
    torch.testing.assert_close(q.mean[1], torch.tensor([rows.data["b"][1, 0], 7.0, rows.data["b"][1, 2]]))
    assert float(q.variance[1, 1]) == pytest.approx(4)
    only = adapted.posterior(rows, torch.tensor([[False, True]]))[:, 0]
    torch.testing.assert_close(only.mean[0, [0, 2]], rows.data["b"][0, [0, 2]])
    assert isinstance(adapted.decode_one(MODALITIES[0], q.mean), Laplace)
    with pytest.raises(ValueError, match="no modality of a subset"):
        adapted.posterior(rows, torch.tensor([[True, False]]))


class Hierarchy(Linear):
    """Decoder inputs are twice the code, or one more than the code where they are drawn given the data."""

    def descend(self, codes: Tensor, generator: torch.Generator | None) -> Tensor:
        return 2 * codes

    def candidates(self, batch: Mapping[str, Tensor], draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        loc, scale = self.encode(batch)
        codes = loc.unsqueeze(1) + scale.unsqueeze(1) * torch.randn(len(loc), draws, LATENT)
        return codes, codes + 1


def test_lower_levels_follow_codes_or_data() -> None:
    adapted, rows = Adapted(Hierarchy(), MODALITIES), batch([[True, True], [False, True], [True, True]])
    z = torch.randn(2, 3, LATENT)
    torch.testing.assert_close(adapted.descend(z), 2 * z)
    with torch.no_grad():
        state = torch.get_rng_state()
        codes, latents = adapted.candidates(rows, 4000, generator_for("cpu", 0))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(adapted.candidates(rows, 4000, generator_for("cpu", 0))[0], codes)
        torch.testing.assert_close(codes.mean(1), adapted.posterior(rows).mean, atol=0.02, rtol=0)
        torch.testing.assert_close(latents, codes + 1)
        inferred = adapted.infer(rows, torch.tensor([[True, True], [False, True]]), generator_for("cpu", 1))
        torch.testing.assert_close(inferred.mean(1), adapted.posterior(rows).mean + 1, atol=1.0, rtol=0)
    assert inferred.shape == (3, 2, LATENT)


def test_a_state_gives_the_same_model_again() -> None:
    adapted = Adapted(Linear(seed=3), MODALITIES, units={"a": Units((1.0, 2.0, 3.0), 2.0)}, origin={"build": "x:y"})
    adapted.scales, adapted.tractable = {"a": 0.5}, False
    again = Adapted.from_state(Linear(), *adapted.state())
    rows = batch([[True, True]])
    with torch.no_grad():
        assert torch.equal(again.posterior(rows).mean, adapted.posterior(rows).mean)
    assert (again.units, again.scales, again.tractable, again.own_code) == (adapted.units, {"a": 0.5}, False, ["x:y"])


def test_faults_of_an_object_are_told_in_a_sentence() -> None:
    class Broken(Linear):
        def encode(self, batch: Mapping[str, Tensor]) -> Any:
            return batch["missing"]

        def decode(self, latents: Tensor, names: Sequence[str]) -> Any:
            return {m: torch.zeros(1) for m in names}

    adapted = Adapted(Broken(), MODALITIES)
    with pytest.raises(UserCodeError, match=r"Broken\.encode raised KeyError: 'missing'"):
        adapted.posterior(batch([[True, True]]))
    with pytest.raises(
        UserCodeError, match=r"Broken\.decode returned values of shape \(1,\), expected \(3,\) for each"
    ):
        adapted.decode_one(MODALITIES[0], torch.zeros(2, LATENT))
    with pytest.raises(ValueError, match="found blocks of b, expected owners among a, c"):
        Adapted(Private(), [Modality("a", "vector", (3,), "normal"), Modality("c", "vector", (3,), "normal")])
    with pytest.raises(ValueError, match="Linear without layout, encode, decode"):
        adaptable(nn.Linear(1, 1), {})
    assert isinstance(Linear(), Adaptable)
