"""Codes, draws from them and their whitening, against closed forms."""

from dataclasses import replace

import pytest
import torch
from support.equations import seeded
from support.latent import LAYOUT, labelled, posteriors

from postprior.stage1_vae.distributions import FAMILIES, Laplace, Mixture
from postprior.stage2_latent.categorical import draw_class_and_component, draw_component
from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.draws import Classes, Draws, split
from postprior.stage2_latent.layouts import coordinates, join_blocks, known_blocks, split_blocks
from postprior.stage2_latent.moments import Whitening, moments

CODES, _ = labelled(50, seed=1)


def mixtures(rows: int, family: str) -> Codes:
    """Posteriors of three components with weights 0.7, 0.3 and 0, far apart."""
    loc = torch.tensor([-5.0, 5.0, 50.0]).reshape(1, 3, 1).expand(rows, 3, 2).clone()
    scale = torch.full_like(loc, 0.5)
    weights = torch.tensor([0.7, 0.3, 0.0]).expand(rows, 3).clone()
    observed = torch.ones(rows, 1, dtype=torch.bool)
    return Codes((Block("z", (2,)),), family, loc, scale, weights, observed)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_draws_have_the_moments_of_the_posterior_mixture(family: str) -> None:
    codes = mixtures(20_000, family)
    z = codes.draw(seeded())
    variance = 0.25 * FAMILIES[family].deviation ** 2
    assert float((z[:, 0] > 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(z[z[:, 0] < 0].var()) == pytest.approx(variance, rel=0.05)
    assert not (z > 25).any(), "a component of weight 0 was drawn"
    torch.testing.assert_close(codes.mean[0], torch.full((2,), -2.0))


def test_draws_are_fresh_and_follow_the_generator() -> None:
    generator = seeded()
    first, second = CODES.draw(generator), CODES.draw(generator)
    assert not torch.equal(first, second)
    assert torch.equal(CODES.draw(seeded()), first)


def test_draws_of_some_rows_are_of_these_rows() -> None:
    sharp = replace(CODES, scale=torch.full_like(CODES.scale, 1e-6))
    rows = torch.tensor([3, 3, 7])
    torch.testing.assert_close(sharp.draw(seeded(), rows), sharp.mean[rows], atol=1e-4, rtol=0)


def test_empirical_codes_draw_themselves() -> None:
    points = torch.randn(5, 4, generator=seeded())
    codes = Codes.empirical(LAYOUT, points)
    assert torch.equal(codes.draw(seeded()), points)
    assert torch.equal(codes.mean, points)


def test_blocks_without_posterior_are_not_filled() -> None:
    observed = CODES.observed.clone()
    observed[0, 1] = False
    loc = CODES.loc.clone()
    loc[0, :, 2:] = torch.nan
    codes = replace(CODES, observed=observed, loc=loc)
    drawn = codes.draw(seeded())
    assert drawn[0].isnan().tolist() == [False, False, True, True]
    assert codes.mean[0].isnan().tolist() == [False, False, True, True]
    assert codes.draw(seeded(), torch.tensor([1, 2])).isfinite().all()
    assert codes.complete.tolist() == [False] + [True] * 49


def test_apart_gives_the_blocks_their_shapes() -> None:
    z = torch.arange(8.0).reshape(2, 4)
    parts = split_blocks(LAYOUT, z)
    assert {name: tuple(part.shape) for name, part in parts.items()} == {"z": (2, 2), "w": (2, 1, 2)}
    assert parts["w"][1, 0].tolist() == [6.0, 7.0]


def test_join_undoes_apart() -> None:
    z = torch.arange(8.0).reshape(2, 4)
    joined, known = join_blocks(LAYOUT, split_blocks(LAYOUT, z))
    assert torch.equal(joined, z)
    assert known.all()
    alone, known = join_blocks(LAYOUT, {"w": z[:, 2:].reshape(2, 1, 2)})
    assert torch.equal(alone, z * torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert known.tolist() == [False, False, True, True]


def test_coordinates_and_blocks() -> None:
    layout = (Block("z", (2,)), Block("w", (1, 3)), Block("v", (1,)))
    chosen = torch.tensor([[True, False, True], [False, True, False]])
    known = coordinates(layout, chosen)
    assert known.tolist() == [
        [True, True, False, False, False, True],
        [False, False, True, True, True, False],
    ]
    assert known_blocks(layout, known[1]).tolist() == [False, True, False]
    assert list(split_blocks(layout, torch.zeros(4, 6), chosen[0])) == ["z", "v"]


def test_select_keeps_labels_and_ids() -> None:
    codes = replace(CODES, ids=[f"row-{i}" for i in range(50)])
    some = codes.select(torch.tensor([4, 1]))
    assert some.ids == ["row-4", "row-1"]
    assert torch.equal(some.labels, codes.labels[[4, 1]])
    assert len(codes.select(codes.labels == 2)) == int((codes.labels == 2).sum())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "cauchy"}, "family is 'cauchy', expected one of normal, laplace, empirical"),
        ({"loc": torch.zeros(50, 4)}, r"loc has shape \(50, 4\), expected \(N, C, D\)"),
        ({"layout": LAYOUT[:1]}, r"loc has 4 dimensions, expected the sum of the sizes of the blocks \(z \(2,\)\)"),
        ({"scale": None}, "scale must be given for posteriors"),
        ({"scale": torch.zeros(50, 1, 4)}, "scale holds numbers that are not positive and finite"),
        ({"scale": torch.ones(50, 1, 3)}, r"scale has shape \(50, 1, 3\), expected \(50, 1, 4\)"),
        ({"loc": torch.full((50, 1, 4), torch.inf)}, "loc holds NaN or infinity"),
        ({"weights": torch.full((50, 1), 0.5)}, "weights must be probabilities that sum to 1"),
        (
            {"observed": torch.ones(50, 3, dtype=torch.bool)},
            r"observed has shape \(50, 3\), expected \(50, 2\)",
        ),
        ({"labels": torch.zeros(49, dtype=torch.int64)}, r"labels has shape \(49,\), expected \(50,\)"),
        ({"labels": torch.zeros(50)}, "labels have type torch.float32, expected torch.int64"),
        ({"labels": torch.full((50,), 3)}, "labels run from 3 to 3, expected 0 to 2"),
        ({"ids": ["a"]}, "found 1 ids, expected 50, one per row"),
    ],
)
def test_codes_that_cannot_be_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CODES, **change)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_whitening_is_that_of_the_aggregated_posterior(family: str) -> None:
    """Mean and covariance of many fresh draws become 0 and I, although whitening uses no draws."""
    means = torch.randn(30, 3, generator=seeded()) @ torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.5, 0.3], [0.0, 0.0, 3.0]])
    codes = replace(posteriors(means, torch.tensor(0.7), (Block("z", (3,)),)), family=family)
    whitening = Whitening.fit(codes)
    x = whitening.forward(codes.draw(seeded(1), torch.arange(30).repeat(2000)))
    torch.testing.assert_close(x.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(x.T.cov(), torch.eye(3), atol=0.04, rtol=0)


def test_whitening_inverts_and_reports_its_determinant() -> None:
    whitening = Whitening.fit(CODES)
    z = CODES.draw(seeded())
    torch.testing.assert_close(whitening.inverse(whitening.forward(z)), z)
    jacobian = torch.autograd.functional.jacobian(lambda row: whitening.forward(row.unsqueeze(0))[0], z[0])
    torch.testing.assert_close(whitening.log_det, torch.linalg.slogdet(jacobian).logabsdet)


def test_whitening_survives_a_constant_coordinate() -> None:
    points = torch.randn(20, 4, generator=seeded())
    points[:, 1] = 3.0
    whitening = Whitening.fit(Codes.empirical(LAYOUT, points))
    assert whitening.forward(points).isfinite().all()


def test_whitening_of_mixtures_counts_the_spread_of_components() -> None:
    whitening = Whitening.fit(mixtures(10, "laplace"))
    variance = 0.5 + 0.7 * 9 + 0.3 * 49
    assert float(whitening.root[0, 0] ** 2) == pytest.approx(variance, rel=1e-3)


def test_balanced_batches_go_round_the_rows_of_each_class() -> None:
    codes = replace(CODES, scale=torch.full_like(CODES.scale, 1e-6))
    classes = Classes.fit(codes, labelled=True)
    draws, _ = split(codes, codes, classes, Whitening.identity(codes.loc[0, 0]), lambda c: c.complete, seeded())
    for index, label in enumerate((0, 2)):
        count = int((codes.labels == label).sum())
        seen = torch.cat([draws.rows[draws.places(step, 7)[index]] for step in range(count)])
        assert torch.equal(seen.bincount(minlength=50), 7 * (codes.labels == label).long())
    x = draws.balanced(3, 7, seeded())
    torch.testing.assert_close(x, codes.mean[draws.rows[draws.places(3, 7)]], atol=1e-4, rtol=0)


def test_a_tenth_of_each_class_is_held_out_without_validation_codes() -> None:
    classes = Classes.fit(CODES, labelled=True)
    train, held_out = split(CODES, None, classes, Whitening.identity(CODES.loc[0, 0]), lambda c: c.complete, seeded())
    assert sorted(torch.cat([train.rows, held_out.rows]).tolist()) == list(range(50))
    assert torch.equal(held_out.counts, (train.counts + held_out.counts + 9) // 10)


def test_a_single_row_of_a_class_is_never_held_out() -> None:
    labels = torch.zeros(50, dtype=torch.int64)
    labels[0] = 1
    codes = replace(CODES, labels=labels)
    train, _ = split(
        codes,
        None,
        Classes.fit(codes, True),
        Whitening.identity(codes.loc[0, 0]),
        lambda c: c.complete,
        seeded(),
    )
    assert int(train.counts[1]) == 1


def test_repeated_draws_carry_their_classes() -> None:
    draws = Draws(CODES, torch.arange(50), CODES.labels // 2, Whitening.identity(CODES.loc[0, 0]), 2)
    x, classes = draws.repeated(3, seeded())
    assert x.shape == (150, 4)
    assert torch.equal(classes, draws.classes.repeat(3))
    assert torch.equal(CODES.labels[draws.rows] // 2, draws.classes)


def test_pick_follows_the_probabilities_of_each_row() -> None:
    table = torch.tensor([[0.2, 0.0, 0.8], [0.0, 1.0, 0.0]])
    rows = torch.tensor([0, 1]).repeat(10_000)
    index = draw_component(table, rows, seeded())
    assert (index[rows == 1] == 1).all()
    shares = index[rows == 0].bincount(minlength=3) / 10_000
    torch.testing.assert_close(shares, table[0], atol=0.015, rtol=0)


def test_pick_given_stays_within_the_class_asked_for() -> None:
    joint = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]]).log().expand(20_000, 2, 2)
    classes, components = draw_class_and_component(joint, None, seeded())
    shares = (classes * 2 + components).bincount() / 20_000
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.015, rtol=0)
    asked = torch.ones(20_000, dtype=torch.int64)
    classes, components = draw_class_and_component(joint, asked, seeded())
    assert torch.equal(classes, asked)
    assert float(components.float().mean()) == pytest.approx(4 / 7, abs=0.015)


def test_codes_of_mixtures_are_their_own_posterior() -> None:
    """log q of the stored posterior equals a mixture written out by hand."""
    codes = mixtures(1, "laplace")
    z = torch.tensor([[-4.0, -5.5]])
    by_hand = Mixture(codes.weights, Laplace(codes.loc, codes.scale)).log_prob(z)
    torch.testing.assert_close(codes.posterior().log_prob(z), by_hand)


def holed(rows: int = 4000) -> tuple[Codes, Codes]:
    """Codes of one Gaussian, and the same codes with block w missing where the first coordinate is above 0."""
    root = torch.randn(4, 4, generator=seeded(1)) + 2 * torch.eye(4)
    z = torch.randn(rows, 4, generator=seeded(2)) @ root.T + torch.tensor([0.0, 5.0, -3.0, 1.0])
    whole = Codes.empirical(LAYOUT, z)
    lacking = z[:, 0] > 0
    observed = whole.observed.clone()
    observed[lacking, 1] = False
    loc = z.clone()
    loc[lacking, 2:] = torch.nan
    return whole, replace(whole, loc=loc.unsqueeze(1), observed=observed)


def test_moments_of_complete_codes_are_the_closed_form() -> None:
    mean, covariance = moments(CODES)
    weights = CODES.weights.double()
    expected = torch.einsum("nc,ncd->d", weights, CODES.loc.double()) / len(CODES)
    torch.testing.assert_close(mean[0], expected)
    centred = CODES.loc.double() - expected
    between = torch.einsum("nc,ncd,nce->de", weights, centred, centred) / len(CODES)
    noise = torch.einsum("nc,ncd->d", weights, CODES.posterior().components.variance.double()) / len(CODES)
    torch.testing.assert_close(covariance[0], between + noise.diag())


def test_chunks_of_rows_are_checked_and_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks cover each row once, and moments are those of all rows at once."""
    expected, (_, lacking) = moments(CODES), holed()
    of_patterns = moments(lacking)
    monkeypatch.setattr("postprior.stage2_latent.codes.FLOATS", 4 * CODES.loc[0].numel())
    assert [len(range(50)[rows]) for rows in CODES.chunks()] == [4] * 12 + [2]
    torch.testing.assert_close(moments(CODES), expected)
    torch.testing.assert_close(moments(lacking), of_patterns)
    loc = CODES.loc.clone()
    loc[49, 0, 3] = torch.inf
    with pytest.raises(ValueError, match="loc holds NaN or infinity"):
        replace(CODES, loc=loc)


def test_moments_of_a_class_are_those_of_its_rows() -> None:
    classes = torch.arange(50) % 3 - 1
    means, covariances = moments(CODES, classes, 2)
    for index in range(2):
        alone = moments(CODES.select(classes == index))
        torch.testing.assert_close((means[index], covariances[index]), (alone[0][0], alone[1][0]))


def test_moments_see_through_what_is_missing_and_dropping_rows_does_not() -> None:
    """Blocks are missing at random given the first coordinate: EM is consistent, complete rows alone are biased."""
    whole, lacking = holed()
    truth, found = moments(whole), moments(lacking)
    spread = truth[1][0].diagonal().sqrt()
    assert ((found[0] - truth[0])[0] / spread).abs().max() < 0.1
    assert (found[1] - truth[1]).abs().max() < 0.1 * truth[1].abs().max()
    dropped = moments(lacking.select(lacking.complete))
    assert ((dropped[0] - truth[0])[0] / spread).abs().max() > 0.5


def test_moments_with_missing_blocks_maximise_the_likelihood_of_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After many iterations the gradient of the observed-data log-likelihood vanishes in double precision."""
    monkeypatch.setattr("postprior.stage2_latent.moments.TOLERANCE", 0.0)
    monkeypatch.setattr("postprior.stage2_latent.moments.ITERATIONS", 2000)
    _, lacking = holed(300)
    mean, covariance = (value[0].requires_grad_() for value in moments(lacking))
    z, known = lacking.loc[:, 0].double(), lacking.known()
    total = torch.zeros((), dtype=torch.float64)
    for pattern in known.unique(dim=0):
        rows = z[(known == pattern).all(-1)][:, pattern]
        law = torch.distributions.MultivariateNormal(mean[pattern], covariance[pattern][:, pattern])
        total = total + law.log_prob(rows).sum() / len(z)
    for gradient, unit in zip(
        torch.autograd.grad(total, (mean, covariance)),
        (covariance.diagonal().sqrt(), covariance),
        strict=True,
    ):
        assert (gradient * unit).abs().max() < 1e-3


def test_what_draws_lack_is_drawn_given_the_rest() -> None:
    whole, lacking = holed()
    identity = Whitening.identity(whole.loc[0, 0])
    train, held_out = split(lacking, whole, Classes.fit(lacking, True), identity, lambda c: c.complete | True, seeded())
    filled = train.draw(seeded())
    there = lacking.known()
    assert torch.equal(filled[there], lacking.loc[:, 0][there])
    torch.testing.assert_close(filled.mean(0), whole.mean.mean(0), atol=0.3, rtol=0)
    torch.testing.assert_close(filled.T.cov(), whole.mean.T.cov(), rtol=0.1, atol=0.7)
    assert not torch.equal(filled, train.draw(seeded(1))), "draws are fresh"
    assert held_out.filling is None


def test_codes_of_one_block() -> None:
    _, lacking = holed()
    alone = lacking.only("w")
    assert (alone.layout, len(alone)) == ((LAYOUT[1],), int(lacking.complete.sum()))
    assert torch.equal(alone.loc[:, 0], lacking.loc[lacking.complete, 0, 2:])


def test_whitened_codes_do_not_depend_on_offsets_and_units() -> None:
    points, units = torch.randn(60, 4, generator=seeded(), dtype=torch.float64), torch.tensor([1e-4, 1.0, 1e4, 30.0])
    points[:, 3] += points[:, 0]
    shifted = points * units + 100 * units
    one, other = (Whitening.fit(Codes.empirical(LAYOUT, z)).forward(z) for z in (points, shifted))
    torch.testing.assert_close(other, one)


def test_the_covariance_of_fewer_rows_than_dimensions_is_shrunk_towards_its_diagonal() -> None:
    points = torch.randn(10, 30, generator=seeded(), dtype=torch.float64)
    codes = Codes.empirical((Block("z", (30,)),), points)
    root = Whitening.fit(codes).root
    sample = points.T.cov(correction=0)
    share = 30**4 / (10**4 + 30**4)
    expected = sample.lerp(sample.diag().diag(), share) + 1e-6 * sample.diag().diag()
    torch.testing.assert_close(root @ root.T, expected)
    assert torch.linalg.eigvalsh(expected).min() > 0.9 * sample.diag().min()


def test_codes_of_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes: loc has type torch\.float16, expected torch\.float32 or torch"):
        Codes.empirical(LAYOUT, torch.zeros(20, 4).half())
