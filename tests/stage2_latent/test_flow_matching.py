"""Flow matching: exact divergence, order of integration, the initial Gaussian, and learning with masks."""

import math
from dataclasses import replace

import pytest
import torch
from support.equations import perturb, seeded
from support.latent import CENTRES, LAYOUT, labelled, unlabelled
from torch import Tensor, nn

from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.flow_matching import FlowMatching
from postprior.stage2_latent.velocity import NETWORKS, Velocity, integrate

CODES, _ = labelled(400, seed=1)
SLOPE = torch.tensor([[0.9, 0.0], [0.5, -0.7]])


def network(structure: str = "plain") -> Velocity:
    """A network of two blocks of two coordinates with random weights, in double precision."""
    return perturb(NETWORKS[structure]([2, 2], classes=3, hidden=9, width=8).double(), 0.3, seeded())


every_network = pytest.mark.parametrize("structure", NETWORKS)


@every_network
@pytest.mark.parametrize("known", [(False, False), (True, False), (False, True)])
def test_a_field_is_the_network_at_one_time_with_the_trace_of_its_jacobian(
    structure: str, known: tuple[bool, bool]
) -> None:
    velocity, moving = network(structure), torch.tensor([not known[0]] * 2 + [not known[1]] * 2)
    x = torch.randn(6, 4, generator=seeded(1), dtype=torch.float64)
    times, mask = torch.tensor([0.3, 0.8], dtype=torch.float64), torch.tensor(known)
    for time, field in zip(times, velocity.fields(times, 1, mask, moving), strict=True):
        modulation = velocity.modulation(time.expand(6), torch.ones(6, dtype=torch.int64), mask.expand(6, -1))
        v = field.velocity(x)
        torch.testing.assert_close(v, velocity(x, modulation, moving))
        assert (v[:, ~moving] == 0).all()
        both = field.with_divergence(nn.functional.pad(x, (0, 1)))
        torch.testing.assert_close(both[:, :-1], v)
        for row in range(6):
            jacobian = torch.autograd.functional.jacobian(
                lambda v, field=field: field.velocity(v.unsqueeze(0))[0], x[row]
            )
            torch.testing.assert_close(both[row, -1], (jacobian.diagonal() * moving).sum())
        assert float(both[:, -1].detach().abs().max()) > 0.01


@every_network
def test_velocity_sees_time_label_and_what_is_known(structure: str) -> None:
    velocity = network(structure)
    x, moving = (
        torch.randn(1, 4, generator=seeded(), dtype=torch.float64),
        torch.tensor([True] * 2 + [False] * 2),
    )

    def at(t: float, label: int, known: bool) -> Tensor:
        time = torch.tensor([t], dtype=torch.float64)
        return velocity(x, velocity.modulation(time, torch.tensor([label]), torch.tensor([[False, known]])), moving)

    first = at(0.2, 0, True)
    for other in (at(0.7, 0, True), at(0.2, 1, True), at(0.2, 0, False)):
        assert not torch.allclose(first, other, atol=1e-3)
    x = x + torch.tensor([0.0, 0.0, 1.0, 0.0])
    assert not torch.allclose(first, at(0.2, 0, True), atol=1e-3), "known blocks are not read"


def test_blocks_hear_of_each_other_by_messages_alone() -> None:
    velocity = network("blocks")
    x, still = torch.randn(1, 4, generator=seeded(), dtype=torch.float64), torch.tensor([[False, False]])
    modulation = velocity.modulation(torch.tensor([0.2], dtype=torch.float64), torch.tensor([1]), still)

    def across() -> Tensor:
        moving = torch.ones(4, dtype=torch.bool)
        jacobian = torch.autograd.functional.jacobian(lambda x: velocity(x, modulation, moving)[0], x)[:, 0]
        return torch.cat([jacobian[:2, 2:], jacobian[2:, :2]])

    assert (across().abs() > 1e-4).all()
    with torch.no_grad():
        velocity.receive.zero_()
    assert (across() == 0).all()


def test_integration_is_of_fourth_order() -> None:
    """dy/dt = A y + t has a closed form; half the step size leaves a sixteenth of the error."""
    matrix = torch.randn(3, 3, generator=seeded(), dtype=torch.float64)
    start = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64)
    grown = torch.zeros(5, 5, dtype=torch.float64)  # d/dt (y, t, 1) is linear
    grown[:3, :3], grown[:3, 3], grown[3, 4] = matrix, 1.0, 1.0
    whole = torch.cat([start, torch.zeros(5, 1), torch.ones(5, 1)], dim=1)
    exact = (whole @ torch.linalg.matrix_exp(grown).T)[:, :3]

    def solve(start: Tensor, begin: float, end: float, steps: int) -> Tensor:
        times = torch.linspace(begin, end, 2 * steps + 1).tolist()
        return integrate([lambda y, t=t: y @ matrix.T + t for t in times], start, (end - begin) / steps)

    errors = [(solve(start, 0.0, 1.0, steps) - exact).abs().max() for steps in (8, 16)]
    assert 12 < float(errors[0] / errors[1]) < 20
    torch.testing.assert_close(solve(exact, 1.0, 0.0, 64), start, rtol=1e-6, atol=1e-6)


def test_untrained_it_is_a_gaussian_a_label_with_blocks_apart() -> None:
    """The path from noise to noise has velocity 0, so that v = 0 is exact for the Gaussian."""
    density = FlowMatching(steps=1, learning_rate=0.0, hidden=4, batch=8).fit(CODES, CODES, seeded())
    exact = density.to(torch.float64)
    z = CODES.mean.double()
    assert (density.shape.root[2:, :2] == 0).all()
    roots = torch.linalg.inv(exact.gaussians.factors[:, 0])
    covariance = (exact.classes.probabilities[:, None, None] * (roots @ roots.mT)).sum(0)
    for index, label in enumerate((0, 2)):
        mean = CODES.mean[CODES.labels == label].double().mean(0)
        expected = sum(
            torch.distributions.MultivariateNormal(mean[part], covariance[part, part]).log_prob(z[:, part])
            for part in (slice(0, 2), slice(2, 4))
        )
        found = exact.log_prob(z, torch.full((len(z),), label))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        asked = torch.full((4,), label)
        warm, cold = (density.sample(4, seeded(), labels=asked, temperature=t).mean for t in (1.0, 0.25))
        centre = density.gaussians.means[index, 0]
        torch.testing.assert_close(cold - centre, 0.25 * (warm - centre), rtol=1e-5, atol=1e-5)


def test_loss_is_that_of_the_paper() -> None:
    """Derived again with the same random numbers: the velocity of the path in the coordinates that are not known.

    Every code has two rows, with opposite noises.
    """
    density = FlowMatching(steps=1, learning_rate=0.0, hidden=9, batch=64).fit(CODES, CODES, seeded())
    density = density.to(torch.float64)
    density.network = network()
    draws = Recorded()
    found = density._loss(draws, seeded(3))  # type: ignore[arg-type]
    g = seeded(3)
    rows = torch.randint(len(draws), (32,), generator=g)
    classes, z = draws.classes[rows].repeat(2), draws.draw(g, rows).repeat(2, 1)
    x1 = torch.linalg.solve(density.shape.root, (z - density.gaussians.means[classes, 0]).T).T
    noise = torch.randn(32, 4, generator=g, dtype=torch.float64)
    x0, known = torch.cat([noise, -noise]), density._masks(32, g).repeat(2, 1)
    t = ((torch.rand(1, generator=g, dtype=torch.float64) + torch.arange(32) / 32) % 1).repeat(2)

    def path(t: Tensor) -> Tensor:
        return (math.pi * t / 2).cos().unsqueeze(-1) * x0 + (math.pi * t / 2).sin().unsqueeze(-1) * x1

    moving = ~known.repeat_interleave(2, dim=1)
    x = path(t).where(moving, x1)
    velocity = (path(t + 1e-6) - path(t - 1e-6)) / 2e-6
    error = density.network(x, density.network.modulation(t, classes, known), moving) - velocity
    expected = torch.stack([row[here].square().sum() for row, here in zip(error, moving, strict=True)]).sum()
    torch.testing.assert_close(found, expected / moving.sum(), rtol=1e-6, atol=1e-6)


class Recorded:
    """Draws that are known points."""

    def __init__(self) -> None:
        self.rows, self.classes = torch.arange(30), torch.arange(30) % 2
        self.points = torch.randn(30, 4, generator=seeded(8), dtype=torch.float64)

    def __len__(self) -> int:
        return 30

    def draw(self, generator: torch.Generator, index: Tensor) -> Tensor:
        return self.points[index]


def test_masks_leave_something_to_move() -> None:
    """Half of the rows have no known block; in the others every number and every choice of blocks is equally likely."""
    density = FlowMatching(steps=1, learning_rate=0.0, hidden=4, batch=8).fit(CODES, CODES, seeded())
    for count in (1, 2, 5):
        density.layout = tuple(Block(str(i), (1,)) for i in range(count))
        known = density._masks(6000, seeded())
        assert not known[::2].any()
        assert not known.all(-1).any()
        if count == 1:
            continue
        some = known[1::2]
        assert some.any(-1).all()
        assert (some.float().mean(0) - 0.5).abs().max() < 0.05
        assert set(some.sum(-1).unique().tolist()) == set(range(1, count))


def pair(rows: int, seed: int) -> Codes:
    """w = SLOPE z + noise of scale 0.5: two blocks, Gaussian together."""
    generator = seeded(seed)
    z = torch.randn(rows, 2, generator=generator)
    w = z @ SLOPE.T + 0.5 * torch.randn(rows, 2, generator=generator)
    return Codes.empirical(LAYOUT, torch.cat([z, w], dim=1))


@pytest.fixture(scope="module")
def learned() -> FlowMatching:
    density = FlowMatching(hidden=32, steps=600, batch=512, weight_decay=0.1)
    return density.fit(pair(4000, 1), pair(500, 2), seeded())


def test_dependence_between_blocks_is_learned(learned: FlowMatching) -> None:
    """The score lies between those of the truth and of independent blocks, which differ by the mutual information."""
    z = pair(4000, 3).mean
    covariance = torch.eye(4)
    covariance[2:, :2], covariance[:2, 2:] = SLOPE, SLOPE.T
    covariance[2:, 2:] = SLOPE @ SLOPE.T + 0.25 * torch.eye(2)
    truth = torch.distributions.MultivariateNormal(torch.zeros(4), covariance).log_prob(z).mean()
    apart = FlowMatching(steps=1, learning_rate=0.0, hidden=4).fit(pair(4000, 1), generator=seeded())
    found = learned.log_prob(z).mean()
    assert truth - apart.log_prob(z).mean() > 1.0
    assert truth - found == pytest.approx(0.0, abs=0.06)


def test_the_network_with_the_best_held_out_score_is_kept(learned: FlowMatching) -> None:
    """Both structures learn the dependence of the blocks, and an artefact without a structure has the plain one."""
    assert list(learned.scores) == ["plain 0.1", "blocks 0.1"]
    assert abs(learned.scores["plain 0.1"] - learned.scores["blocks 0.1"]) < 0.1
    assert learned.structure == max(learned.scores, key=lambda name: learned.scores[name]).split()[0]
    assert type(learned.network) is NETWORKS[learned.structure]
    assert max(row["validation_log_likelihood"] for row in learned.history) == max(learned.scores.values())
    z = pair(50, 3).mean
    for structure in NETWORKS:
        density = FlowMatching(network=structure, hidden=9, steps=4).fit(pair(60, 1), pair(60, 2), seeded())
        tensors, meta = density.state()
        if structure == "plain":
            del meta["learned"]["network"], meta["learned"]["held_out_log_likelihood"]
        assert torch.equal(FlowMatching.from_state(tensors, meta).log_prob(z), density.log_prob(z))


def test_conditional_draws_follow_the_regression(learned: FlowMatching) -> None:
    """w | z ~ N(SLOPE z, 0.25 I), and z | w in the other direction, from the same network."""
    drawn = pair(20_000, 4).mean
    z, w = drawn[:, :2], drawn[:, 2:]
    residual = learned.condition({"z": z}, seeded()).mean[:, 2:] - z @ SLOPE.T
    assert residual.mean(0).abs().max() < 0.04
    torch.testing.assert_close(residual.T.cov(), 0.25 * torch.eye(2), atol=0.03, rtol=0)
    gain = SLOPE.T @ torch.linalg.inv(SLOPE @ SLOPE.T + 0.25 * torch.eye(2))
    residual = learned.condition({"w": w.reshape(-1, 1, 2)}, seeded()).mean[:, :2] - w @ gain.T
    torch.testing.assert_close(residual.T.cov(), torch.eye(2) - gain @ SLOPE, atol=0.04, rtol=0)


def test_discretisation_is_negligible_and_the_map_inverts(learned: FlowMatching) -> None:
    exact, finer = learned.to(torch.float64), learned.to(torch.float64)
    finer.ode_steps *= 4
    z = pair(200, 5).mean.double()
    error = (exact.log_prob(z) - finer.log_prob(z)).abs()
    assert 0 < float(error.mean()) < 2 * exact.tolerance
    classes = torch.zeros(200, dtype=torch.int64)
    x = finer._sample(classes, seeded(), 1.0)
    noise = torch.randn(200, 4, generator=seeded(), dtype=torch.float64)
    fields = [field.velocity for field in reversed(finer._fields(0, finer._no_blocks()))]
    back = integrate(fields, finer._standard(x, classes), -1 / finer.ode_steps)
    torch.testing.assert_close(back, noise, rtol=0, atol=1e-3)
    assert (finer._standard(x, classes) - noise).abs().max() > 0.3


def test_a_score_does_not_depend_on_the_other_rows(learned: FlowMatching) -> None:
    exact, z = learned.to(torch.float64), pair(50, 6).mean.double()
    far = torch.cat([z, 1e3 + z])
    torch.testing.assert_close(exact.log_prob(far)[:50], exact.log_prob(z), rtol=0, atol=1e-10)
    torch.testing.assert_close(exact.log_prob(z[:1]), exact.log_prob(z)[:1], rtol=0, atol=1e-10)


def test_labels_of_conditional_draws_follow_the_known_blocks() -> None:
    """p(y | z) of Gaussians with one covariance is logistic: compared with label frequencies between the means."""
    density = FlowMatching(steps=1, learning_rate=0.0, hidden=4).fit(CODES, CODES, seeded())
    shares = []
    for share in (0.5, 0.6, 0.7):
        point = CENTRES[2, :2].lerp(CENTRES[0, :2], share)
        gaussians = density.gaussians.marginal(torch.tensor([True, True, False, False]))
        joint = gaussians.log_prob(point.expand(2, 1, 2)).squeeze(-1) + density.classes.probabilities.log()
        expected = float(joint.softmax(0)[0])
        drawn = density.condition({"z": point.expand(4000, 2)}, seeded())
        assert float((drawn.labels == 0).float().mean()) == pytest.approx(expected, abs=0.03)
        shares.append(expected)
    assert max(shares) - min(shares) > 0.1


def ring(rows: int, seed: int) -> Codes:
    """A ring of radius 2, which no Gaussian fits."""
    generator = seeded(seed)
    angle = 2 * torch.pi * torch.rand(rows, generator=generator)
    radius = 2 + 0.3 * torch.randn(rows, generator=generator)
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return Codes.empirical((Block("z", (2,)),), points)


def test_it_learns_what_no_gaussian_is_and_integrates_to_one() -> None:
    """The integral is a sum over a grid that covers the ring."""
    density = FlowMatching(hidden=32, steps=400, batch=256, weight_decay=0.01, clusters=1)
    density.fit(ring(3000, 1), ring(500, 2), seeded())
    z = ring(2000, 3).mean
    radius = z.norm(dim=1)
    truth = torch.distributions.Normal(2.0, 0.3).log_prob(radius) - (2 * torch.pi * radius).log()
    assert float(truth.mean() - density.log_prob(z).mean()) < 0.15
    assert float(truth.mean()) - density.history[0]["validation_log_likelihood"] > 0.5
    drawn = density.sample(2000, seeded()).mean.norm(dim=1)
    assert float(drawn.lt(1).float().mean()) < 0.03
    assert density.exact_log_prob
    assert density.ode_steps > density.options["ode_steps"]
    assert integral(density) == pytest.approx(1, abs=density.tolerance)
    density.ode_steps = 2
    assert abs(integral(density) - 1) > density.tolerance


def integral(density: FlowMatching, width: float = 12.0, cells: int = 120) -> float:
    """The integral of p(z) over a square in the plane, by the midpoint rule."""
    axis = (torch.arange(cells) + 0.5) * width / cells - width / 2
    with torch.no_grad():
        return float(density.log_prob(torch.cartesian_prod(axis, axis)).double().exp().sum()) * (width / cells) ** 2


def test_collinear_codes_have_a_score_that_integrates_to_one() -> None:
    """Over a grid of codes in the units of the label's Gaussian, which is narrow across the line."""
    u = torch.randn(1000, 1, generator=seeded())
    codes = Codes.empirical((Block("z", (2,)),), torch.cat([u, 2 * u], dim=1))
    density = FlowMatching(hidden=16, steps=200, batch=128, weight_decay=0.0).fit(codes, codes, seeded())
    along, across = (torch.arange(cells) + 0.5 for cells in (60, 800))
    x = torch.cartesian_prod(along / 60, across / 800) * 10 - 5
    with torch.no_grad():
        z = density.shape.inverse(x) + density.gaussians.means[0, 0]
        total = (density._log_prob(z, 0) - density.shape.log_det).double().exp().sum() * 100 / len(x)
    assert density.exact_log_prob
    assert float(total) == pytest.approx(1, abs=2 * density.tolerance)


def test_a_score_that_has_not_converged_is_declared_inexact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postprior.stage2_latent.flow_matching.MAX_ODE_STEPS", 4)
    density = FlowMatching(hidden=32, steps=300, batch=128, weight_decay=0.01, ode_steps=2)
    density.fit(ring(1000, 1), ring(500, 2), seeded())
    again = FlowMatching.from_state(*density.state())
    for one in (density, again):
        assert (one.exact_log_prob, one.ode_steps) == (False, 4)
        with pytest.raises(ValueError, match="density flow_matching: has no score, expected a density with one"):
            one.log_prob(CODES.mean[:, :2])
    assert again.sample(10, seeded()).loc.isfinite().all()
    monkeypatch.undo()
    assert density.fit(ring(1000, 1), ring(500, 2), seeded()).exact_log_prob


def test_weights_of_the_best_held_out_look_are_kept() -> None:
    """Twelve rows are overfitted at once; the kept weights are no worse than the best ones seen."""
    few = unlabelled(CODES.select(torch.arange(12)))
    density = FlowMatching(hidden=96, steps=300, batch=64, weight_decay=0.0, learning_rate=0.02, tolerance=0.1)
    density.fit(few, unlabelled(CODES), seeded())
    held_out = [row["validation_log_likelihood"] for row in density.history]
    assert held_out[-1] < max(held_out) - 0.1
    z = torch.cat([CODES.draw(seeded(i)) for i in range(3)])
    assert float(density.log_prob(z).mean()) == pytest.approx(max(held_out), abs=0.08)


def test_the_estimate_with_one_label_is_unbiased() -> None:
    """Its mean over labels is p(z); for codes between the labels, each draw is another."""
    density = FlowMatching(hidden=8, steps=40, batch=64).fit(CODES, generator=seeded())
    z = torch.cat([CODES.mean[:6], CENTRES[[0, 2]].mean(0, keepdim=True)])
    exact = density.log_prob(z)
    draws = torch.stack([density.estimate_log_prob(z, seeded(seed)) for seed in range(300)]) - exact
    assert bool((draws.std(0)[-1:] > 0).all())
    error = draws.exp().std(0) / math.sqrt(len(draws))
    assert bool(((draws.exp().mean(0) - 1).abs() <= 4 * error + 1e-5).all())


def test_without_labels_the_estimate_is_the_log_likelihood() -> None:
    density = FlowMatching(hidden=8, steps=10, batch=64, clusters=1).fit(unlabelled(CODES), generator=seeded())
    z = CODES.mean[:5]
    torch.testing.assert_close(density.estimate_log_prob(z, seeded()), density.log_prob(z))


def modes(rows: int, seed: int, centres: int = 6) -> Codes:
    """Narrow Gaussians on a circle of radius 5, without labels."""
    generator = seeded(seed)
    angle = 2 * torch.pi * torch.randint(centres, (rows,), generator=generator) / centres
    points = 5 * torch.stack([angle.cos(), angle.sin()], dim=1) + 0.25 * torch.randn(rows, 2, generator=generator)
    return Codes.empirical((Block("z", (2,)),), points)


def test_without_labels_clusters_of_codes_are_kept_apart() -> None:
    """The score is the truth, few draws lie between the modes, and the density has no labels."""
    density = FlowMatching(hidden=16, steps=60, batch=128).fit(modes(900, 1), modes(300, 2), seeded())
    assert not density.classes.labelled
    assert len(density.classes) >= 6
    z = modes(600, 3).mean
    entropy = math.log(6) + 2 * (0.5 * math.log(2 * math.pi * math.e) + math.log(0.25))
    assert float(density.log_prob(z).mean()) == pytest.approx(-entropy, abs=0.1)
    assert density.history[-1]["validation_log_likelihood"] == pytest.approx(-entropy, abs=0.2)
    drawn = density.sample(2000, seeded())
    assert drawn.labels is None
    distance = torch.cdist(drawn.mean, modes(600, 4).mean).min(1).values
    assert float((distance > 0.5).float().mean()) < 0.03
    again = FlowMatching.from_state(*density.state())
    assert torch.equal(again.log_prob(z), density.log_prob(z))
    with pytest.raises(ValueError, match="fitted without labels"):
        density.log_prob(z, torch.zeros(len(z), dtype=torch.int64))


def test_one_gaussian_has_no_clusters_and_labels_need_none() -> None:
    generator = seeded(5)
    codes = Codes.empirical((Block("z", (3,)),), torch.randn(600, 3, generator=generator))
    assert len(FlowMatching(hidden=4, steps=1).fit(codes, None, seeded()).classes) == 1
    assert FlowMatching(hidden=4, steps=1).fit(CODES, CODES, seeded()).classes.labels.tolist() == [0, 2]


def test_clusters_of_incomplete_codes_are_found_from_what_is_there() -> None:
    codes, held_out = (unlabelled(labelled(n, seed)[0]) for n, seed in ((600, 1), (200, 2)))
    observed = torch.ones(len(codes), 2, dtype=torch.bool)
    observed[::3, 1] = False
    density = FlowMatching(hidden=8, steps=20).fit(replace(codes, observed=observed), held_out, seeded())
    assert density.rows["incomplete"] == 200
    assert len(density.classes) > 1
    assert bool(density.log_prob(held_out.mean).isfinite().all())
