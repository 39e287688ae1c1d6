"""The posterior of observed cells under a density: closed forms of a linear model whose encoder is wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import linear_gaussian as linear
from support.equations import repeat, seeded
from torch import Tensor
from torch.distributions import MultivariateNormal

from postprior.pipelines.generation.posterior import TRUST, VALUES, Target, has_exact_posterior, posterior_draw
from postprior.stage1_vae.distributions import Mixture
from postprior.stage1_vae.modalities import Batch, Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes

TIMES, DRAWS = 64, 32
SHIFT = torch.tensor([0.6, -0.4], dtype=torch.float64)


class PerLabel:
    """N(±SHIFT, Σ) given the labels 1 and 0, and their even mixture without one."""

    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)

    def __init__(self, layout: Any) -> None:
        self.layout = layout

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        normal = MultivariateNormal(torch.zeros(2, dtype=torch.float64), self.covariance)
        if labels is not None:
            return normal.log_prob(z - SHIFT * (2 * labels - 1).unsqueeze(-1))
        return torch.logaddexp(normal.log_prob(z - SHIFT), normal.log_prob(z + SHIFT)) - math.log(2)

    def sample(self, n: int, generator: torch.Generator) -> Codes:
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64) @ torch.linalg.cholesky(self.covariance).T
        sign = 2 * torch.randint(2, (n, 1), generator=generator) - 1
        return Codes.empirical(self.layout, noise + SHIFT * sign)


@pytest.mark.parametrize("label", [0, 1])
def test_draws_follow_bayes_rule_whatever_the_encoder_says(label: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = linear.exact(MODELS["mvae"](linear.modalities(2), **linear.SIZES))
    exact = model.proposal

    def wrong(batch: Batch) -> Mixture:
        q = exact(batch).components
        return Mixture.single(type(q)(q.loc[:, 0] + 0.8 * q.scale[:, 0], 0.4 * q.scale[:, 0]))

    monkeypatch.setattr(model, "proposal", wrong)
    f, rows = PerLabel(model.layout), linear.sample(model, 2)
    observed = torch.tensor([[True, False], [True, True]])
    cells = torch.tensor([True, True, False, True])
    repeated = repeat(Batch(rows.data, observed), TIMES)
    batch = replace(repeated, cells={"m0": cells.expand(2 * TIMES, -1)})
    labels = torch.full((2 * TIMES,), label)
    drawn = posterior_draw(model, f, batch, seeded(), DRAWS, labels)  # type: ignore[arg-type]
    assert drawn.shape == (DRAWS, 2 * TIMES, 2)
    for row, draws in enumerate(drawn.unflatten(1, (2, TIMES)).unbind(1)):
        precision = torch.linalg.inv(f.covariance)
        moment = precision @ SHIFT * (2 * label - 1)
        for name, inside in zip(rows.data, observed[row], strict=True):
            seen = cells if name == "m0" else slice(None)
            if inside:  # x = W z + b + σ ε, in the observed cells
                decoder: Any = model.decoders[name]
                weight, x = decoder.weight[seen], (rows.data[name][row] - decoder.bias)[seen]
                precision = precision + TRUST * weight.T @ weight / linear.SCALE**2
                moment = moment + TRUST * weight.T @ x / linear.SCALE**2
        covariance = torch.linalg.inv(precision)
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance))
        standard = (draws.flatten(0, 1) - covariance @ moment) @ whiten.T
        assert standard.mean(0).abs().max() < 0.12
        torch.testing.assert_close(standard.T.cov(), torch.eye(2, dtype=torch.float64), atol=0.15, rtol=0)


def test_each_row_is_drawn_given_its_own_label_and_over_all_labels_without_one() -> None:
    model = linear.exact(MODELS["mvae"](linear.modalities(2), **linear.SIZES))
    f, batch = PerLabel(model.layout), repeat(linear.sample(model, 1), 3 * TIMES)
    each = torch.arange(-1, 2).repeat(TIMES)

    def means(labels: Tensor | None) -> Tensor:
        """Means (3, 2) of every third row."""
        drawn = posterior_draw(model, f, batch, seeded(), DRAWS, labels)  # type: ignore[arg-type]
        return drawn.unflatten(1, (TIMES, 3)).mean((0, 1))

    found = means(each)
    assert (found[1] - found[2]).norm() > 0.2
    for place, labels in enumerate((None, torch.zeros(3 * TIMES, dtype=torch.long), torch.ones(3 * TIMES).long())):
        torch.testing.assert_close(found[place], means(labels)[place], atol=0.05, rtol=0)


TABLES = [
    Modality(name, "table", (2,), "columns", columns=(Column("age", "normal"), Column("sex", "bernoulli")))
    for name in ("one", "other")
]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_draws_for_rows_that_lack_cells_or_modalities(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postprior.pipelines.generation.posterior.STEPS", 2)
    model = MODELS[name](TABLES, latent=2).eval()
    data = {m.name: torch.ones(4, 2) for m in TABLES}
    observed = torch.tensor([[True, False], [False, True], [True, True], [True, True]])
    batch = Batch(data, observed, {"one": torch.tensor([[True, False]]).expand(4, -1)})
    codes = Codes.empirical(model.layout, torch.randn(40, sum(b.size for b in model.layout), generator=seeded()))
    density = DENSITIES["gaussian"]().fit(codes, generator=seeded())
    if has_exact_posterior(model, density):
        with torch.no_grad():
            one, again = (posterior_draw(model, density, batch, seeded(), 3) for _ in range(2))
        assert one.shape == (3, 4, codes.loc.shape[-1])
        assert one.isfinite().all()
        assert torch.equal(one, again)
        assert model.decode_one(TABLES[0], one).mean.shape == (3, 4, 2)
    else:
        assert name in ("mhvae", "nexus")  # hierarchical


def test_vectors_beside_tables_are_read_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Modality("counts", "vector", (5,), "negative_binomial")
    model = MODELS["mvae"]([TABLES[0], counts], latent=2).eval()
    codes = Codes.empirical(model.layout, torch.randn(40, 2, generator=seeded()))
    density = DENSITIES["gaussian"]().fit(codes, generator=seeded())
    data = {"one": torch.ones(6, 2), "counts": torch.arange(30.0).view(6, 5)}
    observed = torch.tensor([[True, False], [False, True], [True, True]]).repeat(2, 1)
    z, batch = torch.randn(6, 7, 2, generator=seeded()), Batch(data, observed)
    target = Target(model, density, batch, None, 1 / 16)
    with torch.no_grad():
        whole = target(z), target(z[:1])
        monkeypatch.setattr("postprior.pipelines.generation.posterior.CELLS", 1)
        for scores, again in zip(whole, (target(z), target(z[:1])), strict=True):
            torch.testing.assert_close(scores, again)
        p = model.decode_one(counts, z[1])
    expected = p.log_prob(data["counts"][1]) / 16 + density.log_prob(z[1])
    torch.testing.assert_close(whole[0][1].double(), expected.double(), atol=1e-4, rtol=1e-5)


def test_tables_with_a_density_that_scores_quickly_have_an_exact_posterior() -> None:
    mvae, nexus = (MODELS[name](TABLES, latent=2) for name in ("mvae", "nexus"))
    beside, wide, vectors, image = (
        MODELS["mvae"](modalities, latent=2)
        for modalities in (
            [TABLES[0], Modality("v", "vector", (3,), "normal")],
            [TABLES[0], Modality("v", "vector", (VALUES + 1,), "normal")],
            [Modality(name, "vector", (3,), "normal") for name in "uv"],
            [TABLES[0], Modality("v", "image", (1, 8, 8), "normal")],
        )
    )
    quick, slow, unscored = (
        SimpleNamespace(exact_log_prob=exact, proposals=n) for exact, n in ((True, 64), (True, 16), (False, 64))
    )
    assert has_exact_posterior(mvae, quick)  # type: ignore[arg-type]
    assert has_exact_posterior(beside, quick)  # type: ignore[arg-type]
    for model in (nexus, wide, vectors, image):
        assert not has_exact_posterior(model, quick)  # type: ignore[arg-type]
    for model, density in ((mvae, slow), (mvae, unscored)):
        assert not has_exact_posterior(model, density)  # type: ignore[arg-type]
