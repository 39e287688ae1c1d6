"""One autoencoder per modality: its loss, its codes, and what it says about modalities that a row lacks."""

from typing import Any

import pytest
import torch
from support import linear_gaussian as linear
from support.equations import (
    CODE,
    FULL,
    HOLES,
    MODALITIES,
    ROWS,
    agree,
    batch,
    build,
    by_mask,
    expert,
    log_likelihood,
    names_of,
    repeat,
    same_loss,
    seeded,
    standard,
)
from torch import Tensor
from torch.distributions import kl_divergence

from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.models.unimodal import UnimodalVAE

SIZES = {"a": 2, "b": CODE, "c": 1}


@by_mask
def test_the_loss_is_the_sum_of_the_bounds_of_the_observed_modalities(observed: Tensor) -> None:
    model, data = build(UnimodalVAE, beta=1.3, private={"a": 2, "c": 1}), batch(observed)
    drawn = torch.randn(ROWS, sum(SIZES.values()), generator=seeded(), dtype=torch.float64)
    noise = dict(zip(SIZES, drawn.split([*SIZES.values()], -1), strict=True))
    expected = []
    for row in range(ROWS):
        bounds = []
        for name in names_of(data, row):
            q = expert(model, data, row, name)
            w = q.mean + q.stddev * noise[name][row]
            divergence = kl_divergence(q, standard(SIZES[name]))
            bounds.append(log_likelihood(model, data, row, name, w) - 1.3 * divergence)
        expected.append(-sum(bounds))
    same_loss(model.loss(data, seeded()).per_sample, expected)


def test_modalities_share_nothing() -> None:
    """The gradient of one modality's values does not reach the networks of another, nor do its values."""
    model, data = build(UnimodalVAE), batch(FULL)
    assert [(block.name, block.owner) for block in model.layout] == [(f"w_{name}", name) for name in "abc"]
    other = Batch({**data.data, "c": 1 - data.data["c"]}, data.observed)
    q, changed = model.posterior(data), model.posterior(other)
    differs = (q.loc != changed.loc).any(0)
    assert differs.tolist() == [block.owner == "c" for block in model.layout for _ in range(block.size)]
    decoded = model.decode(q.loc, only=["a"])["a"].mean
    torch.testing.assert_close(decoded, model.decoders["a"](q.loc[:, : model.layout[0].size]))


@pytest.mark.parametrize(("private", "sizes"), [(None, [3, 4, 4]), ({"b": 1}, [3, 1, 4]), (2, [2, 2, 2])])
def test_a_code_has_no_more_dimensions_than_its_modality_has_values(private: Any, sizes: list[int]) -> None:
    model = UnimodalVAE(MODALITIES, latent=4, width=2, private=private)
    assert [block.size for block in model.layout] == sizes
    assert model.prior().loc.shape == (sum(sizes),)


def test_a_modality_without_a_code_is_refused() -> None:
    with pytest.raises(ValueError, match="private: found 0 for b, c, expected at least 1 dimension"):
        UnimodalVAE(MODALITIES, private={"b": 0, "c": 0})


def exact(count: int) -> tuple[UnimodalVAE, Batch]:
    """A model with linear decoders and exact posteriors, the prior included, and rows drawn from it."""
    model: Any = linear.exact(UnimodalVAE(linear.modalities(count), **linear.SIZES))
    for encoder in model.encoders.values():
        precision = (-2 * encoder.log_scale).exp()
        encoder.gain *= (precision / (1 + precision))[:, None]
        encoder.log_scale.copy_(-0.5 * (1 + precision).log())
    return model, linear.sample(model, 5)


def test_the_bound_is_tight_and_the_evidence_that_of_independent_modalities() -> None:
    model, rows = exact(3)
    alone = torch.eye(3, dtype=torch.bool)
    evidence = torch.stack([linear.evidence(model, rows, only) for only in alone], 1)  # (B, M)
    torch.testing.assert_close(model.log_evidence(rows, seeded(), draws=2), evidence.sum(1))
    some = Batch(rows.data, torch.tensor([True, False, True]).expand(5, 3))
    torch.testing.assert_close(model.log_evidence(some, seeded(), draws=2), evidence[:, [0, 2]].sum(1))
    bounds = -model.loss(repeat(rows, 4000), seeded()).per_sample.reshape(5, -1)
    agree(bounds, evidence.sum(1))


def test_the_code_of_a_missing_modality_follows_its_prior() -> None:
    model = build(UnimodalVAE)
    q = model.posterior(batch(HOLES))
    sizes = [block.size for block in model.layout]
    for block, loc, scale in zip(model.layout, q.loc.split(sizes, 1), q.scale.split(sizes, 1), strict=True):
        lacks = ~HOLES[:, "abc".index(str(block.owner))]
        assert (loc[lacks] == 0).all()
        assert (scale[lacks] == 1).all()
        assert (scale[~lacks] != 1).all()
