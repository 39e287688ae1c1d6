"""Fitted mixtures against the true ones: number of components, structures, missing blocks, conditional draws."""

from dataclasses import replace

import pytest
import torch
from support.equations import seeded
from support.latent import LAYOUT, labelled, posteriors, unlabelled
from torch import Tensor

from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.gaussian_mixture import COVARIANCES, GaussianMixture
from postprior.stage2_latent.layouts import split_blocks

PLANE = (Block("z", (2,)),)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2])
MEANS = torch.tensor([[-4.0, 0.0], [3.0, 3.0], [3.0, -3.0]])
ROOTS = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-0.9, 0.3]]])


def three_components(rows: int, seed: int, scale: float = 0.3) -> Codes:
    """Posterior means drawn from three Gaussians, plus posterior noise."""
    generator = seeded(seed)
    component = torch.multinomial(WEIGHTS, rows, replacement=True, generator=generator)
    noise = torch.randn(rows, 2, 1, generator=generator)
    means = MEANS[component] + (ROOTS[component] @ noise).squeeze(-1)
    return posteriors(means, torch.tensor(scale), PLANE)


def test_known_mixture_is_recovered_and_its_size_chosen() -> None:
    """Held-out log-likelihood chooses three of 1 … 6 components, with the true weights, means and covariances."""
    density = GaussianMixture(components=[1, 2, 3, 6], covariance="full", shrinkage=4.0, averaged=1)
    density.fit(three_components(2000, seed=1), three_components(1000, seed=2), seeded())
    assert density.mixture.means.shape == (1, 3, 2)
    assert max(density.scores, key=density.scores.__getitem__) == "full 3"
    mixture = density.mixture.unwhitened(density.whitening)
    order = [int((mixture.means[0] - mean).square().sum(-1).argmin()) for mean in MEANS]
    torch.testing.assert_close(mixture.log_weights.exp()[0, order], WEIGHTS, atol=0.03, rtol=0)
    torch.testing.assert_close(mixture.means[0, order], MEANS, atol=0.2, rtol=0)
    factors = mixture.factors[0, order]
    covariances = torch.linalg.inv(factors.mT @ factors)
    expected = ROOTS @ ROOTS.mT + 0.09 * torch.eye(2)
    torch.testing.assert_close(covariances, expected, atol=0.15, rtol=0.1)


def test_posteriors_of_several_components_are_fitted_whole() -> None:
    """The posterior of every row has two distant components: the density has both, with their weights."""
    rows = 300
    loc = torch.tensor([[-4.0, 0.0], [4.0, 1.0]]).expand(rows, 2, 2).clone()
    weights = torch.tensor([0.25, 0.75]).expand(rows, 2).clone()
    observed = torch.ones(rows, 1, dtype=torch.bool)
    codes = Codes(PLANE, "laplace", loc, torch.full_like(loc, 0.5), weights, observed)
    density = GaussianMixture(components=2).fit(codes, generator=seeded())
    drawn = density.sample(4000, seeded()).loc[:, 0]
    left = drawn[:, 0] < 0
    assert float(left.float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(drawn[~left].var(0).mean()) == pytest.approx(2 * 0.25, rel=0.1)


def test_fit_on_posteriors_is_wider_than_on_their_means() -> None:
    codes, validation = three_components(1000, 1, scale=1.0), three_components(300, 2, scale=1.0)
    points = [Codes.empirical(PLANE, table.mean) for table in (codes, validation)]
    wide = GaussianMixture(components=3).fit(codes, validation, seeded())
    narrow = GaussianMixture(components=3).fit(*points, seeded())
    held_out = validation.draw(seeded(5))
    assert wide.log_prob(held_out).mean() > narrow.log_prob(held_out).mean() + 0.3


def test_every_pass_sees_fresh_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    draw = Codes.draw

    def spy(self: Codes, generator: torch.Generator, rows: torch.Tensor | None = None) -> torch.Tensor:
        z = draw(self, generator, rows)
        seen.append(float(z.sum()))
        return z

    monkeypatch.setattr(Codes, "draw", spy)
    GaussianMixture(components=2, passes=10).fit(three_components(100, 1), generator=seeded())
    assert len(set(seen)) == len(seen) >= 11


def test_a_pass_reads_all_of_a_few_thousand_rows_without_labels() -> None:
    """One Gaussian of known points has exactly their mean and covariance, which are not those of a part of them."""
    z = torch.randn(4000, 2, generator=seeded()) @ ROOTS[2].T + MEANS[1]
    codes = Codes.empirical(PLANE, z)
    density = GaussianMixture(components=1, covariance="full", passes=5, shrinkage=0.0)
    mixture = density.fit(codes, codes, seeded()).mixture.unwhitened(density.whitening)
    torch.testing.assert_close(mixture.means[0, 0], z.mean(0), atol=1e-4, rtol=0)
    covariance = torch.linalg.inv(mixture.factors[0, 0].mT @ mixture.factors[0, 0])
    torch.testing.assert_close(covariance, z.T.cov(), atol=1e-4, rtol=1e-3)


def test_condition_is_the_closed_form_of_a_gaussian() -> None:
    codes, _ = labelled(2000, seed=1)
    density = GaussianMixture(components=1).fit(unlabelled(codes), generator=seeded()).to(torch.float64)
    mixture = density.mixture.unwhitened(density.whitening)
    mean, covariance = mixture.means[0, 0], torch.linalg.inv(mixture.factors[0, 0].mT @ mixture.factors[0, 0])
    given = torch.tensor([0.7, -0.4], dtype=torch.float64)
    drawn = density.condition({"z": given.expand(20_000, 2)}, seeded()).loc[:, 0, 2:]
    gain = covariance[2:, :2] @ torch.linalg.inv(covariance[:2, :2])
    expected = covariance[2:, 2:] - gain @ covariance[:2, 2:]
    torch.testing.assert_close(drawn.mean(0), mean[2:] + gain @ (given - mean[:2]), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), expected, atol=0.03, rtol=0)


def test_condition_on_everything_changes_nothing() -> None:
    codes, _ = labelled(200, seed=1)
    density = GaussianMixture(components=2, passes=10).fit(codes, generator=seeded())
    given = split_blocks(codes.layout, codes.mean)
    assert torch.equal(density.condition(given, seeded()).loc[:, 0], codes.mean)


def test_labels_share_nothing_but_the_number_of_components() -> None:
    """Two labels at different places: each has its own mixture."""
    codes, _ = labelled(400, seed=1)
    shifted = replace(codes, loc=codes.loc + 10.0 * codes.labels.reshape(-1, 1, 1))
    density = GaussianMixture(components=2, passes=10).fit(shifted, generator=seeded())
    means = density.mixture.unwhitened(density.whitening).means
    assert (means[1] - means[0]).min() > 10


@pytest.fixture(scope="module", params=list(COVARIANCES))
def structured(request: pytest.FixtureRequest) -> GaussianMixture:
    density = GaussianMixture(components=2, covariance=request.param, rank=2, passes=10)
    return density.fit(*(labelled(rows, seed)[0] for seed, rows in ((1, 1000), (2, 200))), seeded())


def test_every_structure_is_kept_by_the_state(structured: GaussianMixture) -> None:
    tensors, meta = structured.state()
    z = labelled(50, seed=3)[0].mean
    rebuilt = GaussianMixture.from_state(tensors, meta)
    assert type(rebuilt.mixture) is type(structured.mixture)
    assert torch.equal(rebuilt.log_prob(z), structured.log_prob(z))
    assert torch.equal(rebuilt.sample(20, seeded()).loc, structured.sample(20, seeded()).loc)


def test_every_structure_scores_marginals_and_draws_from_conditionals(structured: GaussianMixture) -> None:
    """For its own draws the mean of log p(z, w) − log p(z) is −H[w | z], whether w is drawn again given z or not."""
    drawn = structured.sample(20_000, seeded())
    z = drawn.loc[:, 0]
    given = {"z": z[:, :2]}
    again = structured.condition(given, seeded(1), drawn.labels).loc[:, 0]
    assert torch.equal(again[:, :2], z[:, :2])
    torch.testing.assert_close(again.T.cov(), z.T.cov(), atol=0.07, rtol=0)
    marginal = structured.log_marginal(given, drawn.labels)
    entropies = [(structured.log_prob(each, drawn.labels) - marginal).mean() for each in (z, again)]
    assert float(entropies[1]) == pytest.approx(float(entropies[0]), abs=0.04)


def truth(covariance: str) -> tuple[Tensor, Tensor]:
    """Means (T, D) and covariances (T, D, D) of distant Gaussians that have the structure in whitened codes too."""
    generator, D = seeded(8), 8
    eye, far = torch.eye(D), torch.zeros(2, D)
    if covariance == "full":
        root = torch.randn(2, D, D, generator=generator) / D**0.5
        far[1, 0] = 6
        return far, root @ root.mT + 0.05 * eye
    if covariance == "tied":
        far[1] = 6 / D**0.5
        return far, eye.expand(2, D, D)
    if covariance == "diagonal":
        variances = torch.tensor([0.1, 1.0]).repeat(D // 2)
        far[1, 0] = 6
        return far, torch.stack([variances, variances.flip(0)]).diag_embed()
    basis = torch.linalg.qr(torch.randn(D, D, generator=generator)).Q.T
    factors = 2 * basis.roll(1, 0)
    return 6 * basis, factors.unsqueeze(-1) * factors.unsqueeze(-2) + 0.3 * eye


def drawn_from(means: Tensor, covariances: Tensor, rows: int, seed: int) -> Codes:
    generator, (T, D) = seeded(seed), means.shape
    component = torch.randint(T, (rows,), generator=generator)
    noise = torch.randn(rows, D, 1, generator=generator)
    z = means[component] + (torch.linalg.cholesky(covariances)[component] @ noise).squeeze(-1)
    return Codes.empirical((Block("z", (D,)),), z)


@pytest.mark.parametrize("covariance", list(COVARIANCES))
def test_the_structure_that_codes_were_drawn_from_is_chosen(covariance: str) -> None:
    """With 300 rows, structures with fewer or more parameters than the true one fit held-out rows worse."""
    means, covariances = truth(covariance)
    codes, held_out = (drawn_from(means, covariances, rows, seed) for rows, seed in ((300, 1), (2000, 2)))
    density = GaussianMixture(components=len(means), covariance=list(COVARIANCES), rank=1, shrinkage=1.0, averaged=1)
    density.fit(codes, held_out, seeded())
    assert density.scores.keys() == {f"{name} {len(means)}" for name in COVARIANCES}
    assert density.covariance == max(density.scores, key=density.scores.__getitem__).split()[0]
    assert density.covariance == covariance


def test_an_average_of_mixtures_is_taken_where_it_is_better() -> None:
    """On a ring, where every start of k-means ends elsewhere."""
    angle = 6.283 * torch.rand(1500, generator=seeded(1))
    ring = torch.stack([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(1500, 2, generator=seeded(2))
    codes, held_out = (Codes.empirical(PLANE, part) for part in (ring[:300], ring[300:]))
    density = GaussianMixture(components=4, covariance=["full", "tied"], shrinkage=4.0).fit(codes, held_out, seeded())
    single, average = density.scores[f"{density.covariance} 4"], density.scores[f"{density.covariance} 4 x 4"]
    assert average > single
    assert density.mixture.means.shape == (1, 16, 2)
    assert float(density.log_prob(held_out.mean).mean()) == pytest.approx(average, abs=1e-4)


# Rows that lack a block


def dependent(rows: int, seed: int) -> tuple[Codes, Codes]:
    """z and w from two Gaussians with opposite dependence, and the same rows, half of which lack w.

    Whether a row lacks w depends on its z alone: missing at random, not completely at random.
    """
    generator = seeded(seed)
    side = 2.0 * torch.randint(2, (rows, 1), generator=generator) - 1
    z = 2 * side + torch.randn(rows, 2, generator=generator)
    w = side * (z - 2 * side) + 0.3 * torch.randn(rows, 2, generator=generator) + 1.5 * (side + 1)
    whole = posteriors(torch.cat([z, w], dim=1), torch.tensor(0.1), LAYOUT)
    lacking = torch.rand(rows, generator=generator) < torch.sigmoid(0.6 * z[:, 0])
    observed, loc = whole.observed.clone(), whole.loc.clone()
    observed[lacking, 1], loc[lacking, :, 2:] = False, torch.nan
    return whole, replace(whole, observed=observed, loc=loc)


@pytest.mark.parametrize(("covariance", "components"), [("full", 2), ("tied", 8), ("diagonal", 8), ("low_rank", 4)])
def test_rows_that_lack_blocks_are_learned_from(covariance: str, components: int) -> None:
    """With enough components mean and covariance converge to the truth; those of complete rows do not."""
    lacking, validation = dependent(4000, seed=1)[1], dependent(500, seed=2)[0]
    assert float(lacking.complete.double().mean()) == pytest.approx(0.5, abs=0.03)
    truth = dependent(100_000, seed=3)[0].mean
    spread = truth.std(0)
    settings = {"components": components, "rank": 2, "passes": 60, "shrinkage": 8.0, "averaged": 1}
    errors = []
    for codes in (lacking, lacking.select(lacking.complete)):
        density = GaussianMixture(covariance=covariance, **settings).fit(codes, validation, seeded())
        drawn = density.sample(50_000, seeded()).loc[:, 0]
        error = (drawn.T.cov() - truth.T.cov()) / (spread * spread.unsqueeze(-1))
        errors.append([((drawn.mean(0) - truth.mean(0)) / spread).abs().max(), error.abs().max()])
    assert max(errors[0]) < (0.06 if covariance == "full" else 0.2)
    assert min(errors[1]) > 0.3


def test_each_pass_fills_in_from_the_mixture_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """One Gaussian, the first guess, puts values between two clusters; the mixture of later passes does not."""
    lacking = dependent(2000, seed=1)[1]
    settings = {"components": 2, "covariance": "full", "shrinkage": 8.0, "averaged": 1}
    scores = {}
    for name in ("mixture", "guess"):
        if name == "guess":
            monkeypatch.setattr("postprior.stage2_latent.draws.Draws.__setattr__", keep_filling, raising=False)
        density = GaussianMixture(**settings).fit(lacking, dependent(500, seed=2)[0], seeded())
        scores[name] = float(density.log_prob(dependent(1000, seed=4)[0].mean).mean())
    assert scores["mixture"] > scores["guess"] + 0.2


def keep_filling(self: object, name: str, value: object) -> None:
    """Set an attribute, but keep the first filling."""
    if name != "filling" or "filling" not in vars(self):
        object.__setattr__(self, name, value)


@pytest.mark.parametrize("components", [[], [0], "3", [1, 2.5], True])
def test_components_are_checked(components: object) -> None:
    with pytest.raises(ValueError, match="option components: found"):
        GaussianMixture(components=components)


@pytest.mark.parametrize("covariance", [[], "round", ["full", "round"], 3, None])
def test_covariances_are_checked(covariance: object) -> None:
    with pytest.raises(ValueError, match="option covariance: found"):
        GaussianMixture(covariance=covariance)


def test_held_out_codes_choose_the_shrinkage() -> None:
    """Components of different shapes need little of it; the score is close to that of the true mixture."""
    truth = three_components(1000, 3)
    density = GaussianMixture(components=4, averaged=1).fit(
        three_components(1000, 1), three_components(500, 2), seeded()
    )
    strong = GaussianMixture(components=4, averaged=1, shrinkage=192.0)
    strong.fit(three_components(1000, 1), three_components(500, 2), seeded())
    z = truth.draw(seeded(7))
    best = max(density.history, key=lambda row: row["validation_log_likelihood"])
    assert best["shrinkage"] < 192
    assert float(density.log_prob(z).mean()) > float(strong.log_prob(z).mean()) + 0.02


@pytest.mark.parametrize("shrinkage", [[], "3", [2, -1]])
def test_shrinkages_are_checked(shrinkage: object) -> None:
    with pytest.raises(ValueError, match="option shrinkage: found"):
        GaussianMixture(shrinkage=shrinkage)


def test_labels_of_most_rows_are_inferred() -> None:
    """Sixteen of 1,000 rows have a label, as often one as the other: means and p(label) are those of all rows."""
    generator = seeded()
    labels = (torch.rand(1000, generator=generator) < 0.7).long()
    x = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])[labels] + torch.randn(1000, 2, generator=generator)
    known = torch.cat([(labels == label).nonzero()[:8, 0] for label in (0, 1)])
    few = torch.full_like(labels, -1).index_copy(0, known, labels[known])
    layout = (Block("a", (1,)), Block("b", (1,)))
    codes = posteriors(x, torch.tensor(0.05), layout, labels=few, label_names=("zero", "one"))
    observed = codes.observed.clone()
    observed[100:150, 1] = False
    density = GaussianMixture(components=1, covariance="full", averaged=1)
    density.fit(replace(codes, observed=observed), generator=seeded())
    assert density.rows == {"used": 1000, "left_out": 0, "incomplete": 50, "inferred": 984}
    means = torch.stack([x[labels == label].mean(0) for label in (0, 1)])
    torch.testing.assert_close(density.mixture.unwhitened(density.whitening).means[:, 0], means, atol=0.15, rtol=0)
    shares = torch.tensor([float((labels == label).float().mean()) for label in (0, 1)])
    torch.testing.assert_close(density.classes.probabilities, shares, atol=0.03, rtol=0)
