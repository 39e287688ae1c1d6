"""Kernel densities: the aggregated posterior itself, and mixtures of wider posteriors."""

from dataclasses import replace

import pytest
import torch
from support.equations import seeded
from support.latent import LAYOUT, labelled, unlabelled

from postprior.stage1_vae.distributions import FAMILIES, Mixture
from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.kde import KernelDensity

CODES, _ = labelled(400, seed=1)
VALIDATION, _ = labelled(200, seed=2)
LINE = (Block("z", (1,)),)


def brute_force(codes: Codes, z: torch.Tensor, bandwidth: float = 1.0) -> torch.Tensor:
    """log 1/N Σ_n Σ_c w_nc p_b(z | n, c) in double precision, one row of z at a time."""
    family = FAMILIES[codes.family](codes.loc.double(), bandwidth * codes.scale.double())
    log_weights = codes.weights.double().log() - torch.tensor(len(codes)).log()
    return torch.stack([(log_weights + family.log_prob(point)).flatten().logsumexp(0) for point in z.double()])


def test_bandwidth_one_is_the_aggregated_posterior_of_each_label() -> None:
    density = KernelDensity(bandwidth=1).fit(CODES, VALIDATION, seeded()).to(torch.float64)
    z = VALIDATION.mean[:30]
    for label in (0, 2):
        own = CODES.select(CODES.labels == label)
        found = density.log_prob(z, torch.full((30,), label))
        torch.testing.assert_close(found, brute_force(own, z), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(density.log_prob(z), brute_force(CODES, z), rtol=1e-5, atol=1e-5)


def test_the_marginal_over_labels_is_that_of_unlabelled_codes() -> None:
    """Padding a small class to the size of a large one changes nothing."""
    uneven = CODES.select((CODES.labels == 0) | (torch.arange(400) < 40))
    z = VALIDATION.mean
    with_labels = KernelDensity(bandwidth=2).fit(uneven, VALIDATION, seeded())
    without = KernelDensity(bandwidth=2).fit(unlabelled(uneven), unlabelled(VALIDATION), seeded())
    torch.testing.assert_close(with_labels.log_prob(z), without.log_prob(z), rtol=1e-4, atol=1e-4)


def test_rows_that_pad_a_class_have_no_weight() -> None:
    few = torch.cat([(CODES.labels == 0).nonzero()[:, 0], (CODES.labels == 2).nonzero()[:3, 0]])
    density = KernelDensity(bandwidth=1e-3).fit(CODES.select(few), VALIDATION, seeded())
    weights = density.log_weights.exp()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    assert (weights[1] > 0).tolist() == [True] * 3 + [False] * (weights.shape[1] - 3)
    drawn = density.sample(300, seeded(), labels=torch.full((300,), 2)).mean
    distance = torch.cdist(drawn, CODES.mean[few[-3:]])
    assert float(distance.amin(1).max()) < 0.01
    torch.testing.assert_close(distance.argmin(1).bincount() / 300, torch.full((3,), 1 / 3), atol=0.1, rtol=0)


def test_gradients_do_not_see_padding() -> None:
    few = torch.cat([(CODES.labels == 0).nonzero()[:, 0], (CODES.labels == 2).nonzero()[:3, 0]])
    density = KernelDensity(bandwidth=1).fit(CODES.select(few), VALIDATION, seeded()).to(torch.float64)
    z = VALIDATION.mean[:5].double().requires_grad_()
    density.log_prob(z, torch.full((5,), 2)).sum().backward()
    other = VALIDATION.mean[:5].double().requires_grad_()
    brute_force_gradient(CODES.select(few[-3:]), other)
    torch.testing.assert_close(z.grad, other.grad, rtol=1e-4, atol=1e-4)


def brute_force_gradient(codes: Codes, z: torch.Tensor) -> None:
    family = FAMILIES[codes.family](codes.loc.double(), codes.scale.double())
    for point in z:
        family.log_prob(point).flatten().logsumexp(0).backward()


def test_mixture_posteriors_give_all_their_components() -> None:
    loc = torch.stack([CODES.mean, -CODES.mean], dim=1)
    weights = torch.tensor([0.75, 0.25]).expand(400, 2).clone()
    codes = Codes(LAYOUT, "laplace", loc, torch.full_like(loc, 0.3), weights, CODES.observed)
    density = KernelDensity(bandwidth=2).fit(codes, codes, seeded())
    assert (density.family, density.loc.shape) == ("laplace", (1, 800, 4))
    z = VALIDATION.mean[:30]
    expected = brute_force(codes, z, bandwidth=2.0).float()
    torch.testing.assert_close(density.log_prob(z), expected, rtol=1e-4, atol=1e-4)
    drawn = density.sample(8000, seeded()).mean
    torch.testing.assert_close(drawn.mean(0), 0.5 * CODES.mean.mean(0), atol=0.1, rtol=0)


def test_held_out_likelihood_chooses_the_bandwidth() -> None:
    """Narrow posteriors lie far apart: at bandwidth 1 the training rows have far higher scores than held-out rows."""
    narrow = replace(CODES, scale=torch.full_like(CODES.scale, 0.02))
    held_out = replace(VALIDATION, scale=torch.full_like(VALIDATION.scale, 0.02))
    density = KernelDensity(bandwidth=[1, 5, 20, 200]).fit(narrow, held_out, seeded())
    z = torch.cat([held_out.draw(seeded(i)) for i in range(4)])
    asked = held_out.labels.repeat(4)
    by_hand = {}
    for bandwidth in (1, 5, 20, 200):
        rows = [brute_force(narrow.select(CODES.labels == y), z[asked == y], bandwidth) for y in (0, 2)]
        by_hand[bandwidth] = float(torch.cat(rows).mean())
        recorded = density.scores[str(bandwidth)]
        assert recorded == pytest.approx(by_hand[bandwidth], rel=0.02, abs=0.02)
    assert density.bandwidth == max(by_hand, key=by_hand.__getitem__) == 20
    gaps = [row["train_log_likelihood"] - row["validation_log_likelihood"] for row in density.history]
    assert gaps[0] > 100 * abs(gaps[3])
    tensors, meta = density.state()
    assert meta["learned"]["bandwidth"] == 20
    torch.testing.assert_close(tensors["scale"], torch.full_like(tensors["scale"], 0.4))


def test_points_get_kernels_by_the_rule_of_scott() -> None:
    """The density of normal points is close to the true one; scales follow the spread of each coordinate and label."""
    noise = torch.randn(2000, 1, generator=seeded())
    labels = (torch.arange(2000) < 500).long()
    z = torch.where(labels.unsqueeze(-1) == 1, 3.0 * noise, noise)
    density = KernelDensity(bandwidth=1).fit(Codes.empirical(LINE, z, labels), None, seeded())
    for label, spread in ((0, 1.0), (1, 3.0)):
        count = int((labels == label).sum()) * 9 // 10  # a tenth is held out
        scale = density.scale[label, 0, 0]
        assert float(scale) == pytest.approx(spread * count ** (-1 / 5), rel=0.05)
        truth = torch.distributions.Normal(0.0, spread)
        fresh = spread * torch.randn(4000, 1, generator=seeded(1))
        loss = truth.log_prob(fresh).mean() - density.log_prob(fresh, torch.full((4000,), label)).mean()
        assert 0 < float(loss) < 0.02


def test_kernels_follow_the_units_of_the_points() -> None:
    z = torch.randn(300, 4, generator=seeded())
    units = torch.tensor([1.0, 1e3, 1e-3, 7.0])
    one = KernelDensity(bandwidth=[1, 2]).fit(Codes.empirical(LAYOUT, z), None, seeded())
    other = KernelDensity(bandwidth=[1, 2]).fit(Codes.empirical(LAYOUT, z * units), None, seeded())
    expected = one.log_prob(z) - units.log().sum()
    torch.testing.assert_close(other.log_prob(z * units), expected, rtol=1e-4, atol=1e-4)


def test_a_constant_coordinate_keeps_a_kernel() -> None:
    z = torch.randn(50, 4, generator=seeded())
    z[:, 1] = 2.0
    density = KernelDensity(bandwidth=1).fit(Codes.empirical(LAYOUT, z), None, seeded())
    assert density.log_prob(z).isfinite().all()
    assert float((density.sample(100, seeded()).mean[:, 1] - 2).abs().max()) < 0.01


def test_conditioning_finds_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are far apart in one block give their own other block, for any chunk size."""
    loc = torch.randn(20, 4, generator=seeded())
    loc[:, 0] = 10.0 * torch.arange(20)
    loc = loc.unsqueeze(1)
    posterior = Mixture.single(FAMILIES["normal"](loc[:, 0], torch.full_like(loc[:, 0], 0.01)))
    observed = torch.ones(20, 2, dtype=torch.bool)
    codes = Codes(LAYOUT, "normal", loc, posterior.components.scale, posterior.weights, observed)
    density = KernelDensity(bandwidth=1).fit(codes, codes, seeded())
    for floats in (2**24, 1):
        monkeypatch.setattr("postprior.stage2_latent.density.FLOATS", floats)
        found = density.condition({"z": loc[:, 0, :2]}, seeded()).mean
        assert float((found - loc[:, 0]).abs().max()) < 0.06


def test_an_empty_list_of_bandwidths_is_refused() -> None:
    with pytest.raises(ValueError, match="option bandwidth: found an empty list, expected at least one value"):
        KernelDensity(bandwidth=[])
    with pytest.raises(ValueError, match="option bandwidth: found 0, expected"):
        KernelDensity(bandwidth=[1, 0])


def test_kernels_do_not_depend_on_an_offset() -> None:
    """The offset is 1e6 times the spread: variances are computed after centring, in double precision."""
    z = 1e-3 * torch.randn(300, 4, generator=seeded())
    far = (z + 1e3).float()
    near = far - 1e3
    scales = [KernelDensity(bandwidth=1).fit(Codes.empirical(LAYOUT, x), None, seeded()).scale for x in (near, far)]
    torch.testing.assert_close(scales[1], scales[0], rtol=1e-4, atol=0)


def test_a_class_of_one_row_gets_the_spread_of_the_others() -> None:
    """Shrinkage with the weight of one row: (1 · 0 + v̄) / (1 + 1)."""
    z = torch.randn(100, 1, generator=seeded())
    labels = (torch.arange(100) == 3).long()
    codes = Codes.empirical(LINE, z, labels)
    density = KernelDensity(bandwidth=1).fit(codes, codes, seeded())
    pooled = 0.99 * float(z[labels == 0].var(correction=0))
    assert float(density.scale[1, 0, 0]) == pytest.approx((pooled / 2) ** 0.5, rel=1e-5)
