"""Every density on difficult sets of codes: its held-out score against that of the density that generated the codes.

Each set is an affine image z = A u + m of independent draws u, so that the truth is known in closed form.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from support.equations import seeded
from support.latent import labelled
from torch import Tensor

from postprior.stage1_vae.distributions import Mixture, Normal
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Block, Codes
from postprior.stage2_latent.density import Density

DOUBLE = torch.float64


def log_normal(u: Tensor) -> Tensor:
    return torch.distributions.Normal(0.0, 1.0).log_prob(u).sum(-1)


def normal(rows: int, D: int, seed: int) -> Tensor:
    return torch.randn(rows, D, generator=seeded(seed), dtype=DOUBLE)


def student(rows: int, D: int, seed: int, freedom: int = 2) -> Tensor:
    chi2 = normal(rows, freedom, seed + 100).square().sum(-1, keepdim=True)
    return normal(rows, D, seed) * (freedom / chi2).sqrt()


def log_student(u: Tensor, freedom: int = 2) -> Tensor:
    D, half = u.shape[-1], (freedom + u.shape[-1]) / 2
    constant = math.lgamma(half) - math.lgamma(freedom / 2) - D / 2 * math.log(freedom * math.pi)
    return constant - half * (1 + u.square().sum(-1) / freedom).log()


def clusters(rows: int, D: int, seed: int) -> Tensor:
    side = 6.0 * torch.randint(2, (rows, 1), generator=seeded(seed + 100), dtype=DOUBLE) - 3
    return normal(rows, D, seed) + side


def log_clusters(u: Tensor) -> Tensor:
    return torch.stack([log_normal(u - 3), log_normal(u + 3)]).logsumexp(0) - math.log(2)


@dataclass(frozen=True)
class CodeSet:
    """Codes z = A u + m with u from `draw`, of log-density `log_prob`."""

    matrix: Tensor
    shift: float = 0.0
    rows: int = 300
    draw: Callable[[int, int, int], Tensor] = normal
    log_prob: Callable[[Tensor], Tensor] = log_normal
    dtype: torch.dtype = torch.float32
    change: Callable[[Codes], Codes] = lambda codes: codes

    @property
    def layout(self) -> tuple[Block, ...]:
        return Block("z", (1,)), Block("w", (len(self.matrix) - 1,))

    def points(self, rows: int, seed: int) -> Tensor:
        return self.draw(rows, len(self.matrix), seed) @ self.matrix.T + self.shift

    def truth(self, z: Tensor) -> Tensor:
        u = torch.linalg.solve(self.matrix, (z - self.shift).T).T
        return self.log_prob(u) - torch.linalg.slogdet(self.matrix).logabsdet

    def codes(self) -> Codes:
        codes = Codes.empirical(self.layout, self.points(self.rows, 1).to(self.dtype))
        zero = codes.loc[0, 0] * 0
        prior = Mixture.single(Normal(zero, zero + 1))
        return self.change(replace(codes, prior=prior))

    def encoder(self) -> "FixedScale":
        spread = self.matrix.square().sum(-1).sqrt()
        return FixedScale(self.codes().mean, 0.3 * spread.to(self.dtype))


class FixedScale:
    """q(z | x) = N(x, scale²)."""

    def __init__(self, x: Tensor, scale: Tensor) -> None:
        self.x, self.scale = x, scale

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        return {"x": self.x[rows]}

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        return Mixture.single(Normal(inputs["x"], self.scale.expand_as(inputs["x"])))


def duplicated(codes: Codes) -> Codes:
    return codes.select(torch.arange(len(codes)).repeat(2))


def with_a_single_row(codes: Codes) -> Codes:
    """Label 1 has one row."""
    return replace(codes, labels=(torch.arange(len(codes)) == 7).long())


def of_half_precision(codes: Codes) -> Codes:
    return replace(codes, loc=codes.loc.half().to(codes.loc))


EYE = torch.eye(2, dtype=DOUBLE)
SETS = {
    "clusters": CodeSet(EYE, draw=clusters, log_prob=log_clusters),
    "duplicated": CodeSet(EYE, change=duplicated),
    "collinear": CodeSet(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 1e-3]], dtype=DOUBLE)),
    "offset": CodeSet(1e-3 * EYE, shift=1e3),
    "far": CodeSet(1e-4 * EYE, shift=1e4, dtype=DOUBLE),
    "units": CodeSet(torch.tensor([1e-4, 1e4], dtype=DOUBLE).diag()),
    "heavy": CodeSet(EYE, draw=student, log_prob=log_student),
    "single row": CodeSet(EYE, change=with_a_single_row),
    "half": CodeSet(EYE, change=of_half_precision),
    "few": CodeSet(torch.eye(16, dtype=DOUBLE), rows=12),
}
QUICK: dict[str, dict[str, Any]] = {
    "gmm": {"components": [1, 4], "covariance": "full", "passes": 15},
    "flow": {"blocks": 1, "hidden": 8, "components": 2, "steps": 20, "batch": 64},
    "flow_matching": {"hidden": 16, "steps": 100, "batch": 64, "weight_decay": 0.1, "ode_steps": 2},
    "vamp": {"pseudo_inputs": 100, "steps": 40, "learning_rate": 0.05},
    "two_stage_vae": {"hidden": 8, "layers": 1, "draws": 8, "steps": 50, "batch": 64},
}
QUICK["auto"] = {"candidates": {"gaussian": {}, "gmm": QUICK["gmm"]}}
QUICK["independent"] = {"options": QUICK["gmm"]}
MARGIN = 0.25
"""Maximum of the mean of log p(z) − log p̂(z), in nats, unless `MARGINS` has another value."""
UNFITTED = math.inf
MARGINS: dict[str, dict[str, float]] = {
    "normal": dict.fromkeys(("clusters", "collinear", "offset", "far", "units", "heavy"), UNFITTED),
    "gaussian": {"clusters": 1.0, "collinear": 0.6, "heavy": 1.5, "few": 5.0},
    "gmm": {"heavy": 0.7, "few": 10.0},
    "flow": {"heavy": 1.2, "few": 12.0},
    # Kernels with the scales of the encoder: none of them reaches codes far from all training codes, and kernels
    # without correlations do not follow collinear coordinates.
    "vamp": {"clusters": 0.5, "offset": 0.5, "far": 0.5, "units": 0.5, "collinear": 8.0, "heavy": 100.0, "few": 100.0},
    # Copies of training rows among the held-out rows favour the smallest bandwidth.
    "kde": {"duplicated": 1.5, "collinear": 8.0, "heavy": 1.5, "few": 8.0},
    "flow_matching": {"clusters": 1.2, "collinear": 8.0, "heavy": 1.8, "few": 8.0},
    "two_stage_vae": {"clusters": 1.2, "collinear": 0.6, "heavy": 1.8, "few": 5.0},
    # What the blocks have in common is lost. Of few rows, a single one is held out to choose the components.
    "independent": {"clusters": 1.0, "collinear": 8.0, "heavy": 1.2, "few": 30.0},
    "auto": {"heavy": 0.8, "few": 6.0},
}
ROWS = 1000
"""Number of held-out codes over which losses and integrals are averaged."""


@pytest.mark.parametrize("of", SETS)
@pytest.mark.parametrize("name", DENSITIES)
def test_every_density_comes_close_to_the_truth(name: str, of: str) -> None:
    code_set = SETS[of]
    codes, encoder, z = code_set.codes(), code_set.encoder(), code_set.points(ROWS, 2)
    density = DENSITIES[name](**QUICK.get(name, {})).fit(codes, None, seeded(), encoder)
    drawn, given = density.sample(200, seeded()).mean, {"z": z[:5, :1].to(codes.loc)}
    assert drawn.isfinite().all()
    if density.conditional:
        assert density.condition(given, seeded()).mean.isfinite().all()
    if density.marginal:
        assert density.log_marginal(given).isfinite().all()
    if density.exact_log_prob or density.bound:
        loss = float((code_set.truth(z) - density.log_prob(z.to(codes.loc)).double()).mean())
        assert -0.1 < loss < MARGINS.get(name, {}).get(of, MARGIN)
    if density.exact_log_prob and len(code_set.matrix) == 2 and MARGINS.get(name, {}).get(of) != UNFITTED:
        assert integral(density.to(DOUBLE), code_set) == pytest.approx(1, abs=0.1)


def integral(density: Density, code_set: CodeSet) -> float:
    """∫ p̂ by importance sampling from t(2) with twice the scale of the codes."""
    wide = replace(code_set, matrix=2 * code_set.matrix, draw=student, log_prob=log_student)
    z = wide.points(4 * ROWS, 3)
    return float((density.log_prob(z) - wide.truth(z)).exp().mean())


def test_too_few_rows_are_refused() -> None:
    two = SETS["few"].codes().select(torch.arange(2))
    with pytest.raises(ValueError, match=r"density gaussian: 2 rows of codes have .*, expected at least 10: encode"):
        DENSITIES["gaussian"]().fit(two)


@pytest.mark.parametrize(("name", "options"), [("kde", {}), ("independent", {"options": {"components": 1}})])
def test_rows_without_a_label_do_not_change_a_density_that_leaves_them_out(name: str, options: dict[str, Any]) -> None:
    codes, _ = labelled(60, seed=3)
    validation = replace(codes, labels=torch.full((60,), -1))  # no held-out label: training rows are held out instead
    assert codes.labels is not None
    some = torch.arange(60) % 3 > 0
    partly = replace(codes, labels=codes.labels.where(some, -1))
    alone, mixed = (
        DENSITIES[name](**options).fit(table, validation, seeded()) for table in (codes.select(some), partly)
    )
    assert mixed.rows == {"used": 40, "left_out": 20, "incomplete": 0, "unlabelled": 20}
    torch.testing.assert_close(mixed.state()[0], alone.state()[0], atol=0, rtol=0)
