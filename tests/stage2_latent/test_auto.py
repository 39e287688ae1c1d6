"""The density `auto`: rules of choice on known scores, energy distances in closed form, and the chosen density."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.equations import seeded
from support.latent import labelled, unlabelled
from torch import Tensor

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.auto import Auto, Trial, choose, energy_terms, estimate
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

TRAIN, ENCODER = labelled(300, seed=1)
VALIDATION, _ = labelled(100, seed=2)
GMM = {"components": [2], "passes": 15}


def trial(name: str, score: float | None, distance: float, noise: float = 1.0) -> Trial:
    """Scores and distances with these means and independent noise over 100 rows: standard errors are noise/10."""
    own = torch.randn(100, generator=seeded(sum(map(ord, name))), dtype=torch.float64)
    own = noise * (own - own.mean()) / own.std(correction=0)
    return Trial(name, None if score is None else score + own, distance + own / 100)


def test_the_first_within_one_standard_error_of_the_best_is_chosen() -> None:
    """Two candidates with independent noise 1 over 100 rows: the standard error of their difference is near √2/10."""
    far, near = trial("a", -3.0, 0.0), trial("b", -2.0, 0.0)
    for name, behind, chosen in (("c", 0.05, "b"), ("d", 0.3, "d")):
        best = trial(name, -2.0 + behind, 0.0)
        assert choose([far, near, best])[0] == chosen
        assert choose([far, best, near])[0] == best.name
    assert choose([far])[0] == "a"


def test_the_error_is_that_of_the_paired_difference() -> None:
    """Rows differ by far more than candidates do; variation that candidates share must not count."""
    rows = 50 * torch.randn(100, generator=seeded(), dtype=torch.float64)
    plain = trial("a", -2.0, 0.0, noise=0.1)
    better = trial("b", -1.9, 0.0, noise=0.1)
    shared = [replace(each, log_prob=each.log_prob + rows) for each in (plain, better) if each.log_prob is not None]
    chosen, why = choose(shared)
    assert chosen == "b"
    assert why.startswith("b has the highest held-out log-likelihood, 0.100 ± 0.01")


def test_a_candidate_without_a_score_must_be_nearer_by_more_than_the_error() -> None:
    """Distances with noise 0.01 over 100 rows: their difference has a standard error near 2√2 · 0.001."""
    scored = trial("a", -2.0, 0.05)
    clearly, barely = trial("b", None, 0.04), trial("c", None, 0.049)
    assert choose([scored, barely])[0] == "a"
    assert "draws of c, which has no exact score, are not clearly closer" in choose([scored, barely])[1]
    assert choose([scored, clearly, barely])[0] == "b"
    assert choose([clearly, scored])[1].startswith(
        "b has no exact score, but its draws are closer to held-out codes than those of a"
    )
    assert choose([trial("d", None, 0.06), clearly])[0] == "b"


def test_energy_distance_of_two_normals() -> None:
    """E|N(δ, s²)| = s √(2/π) exp(−δ²/2s²) + δ erf(δ/s√2) gives the distance and the error of its estimates."""

    def folded(delta: float, scale: float) -> float:
        peak = scale * math.sqrt(2 / math.pi) * math.exp(-(delta**2) / (2 * scale**2))
        return peak + delta * math.erf(delta / (scale * math.sqrt(2)))

    root = math.sqrt(2)
    for delta in (0.0, 1.0):
        expected = 2 * folded(delta, root) - 2 * folded(0.0, root)
        means, errors = [], []
        for seed in range(200):
            x, y = torch.randn(2, 60, 1, generator=seeded(seed), dtype=torch.float64)
            mean, error = estimate(energy_terms(x + delta, y), order=2)
            means.append(mean)
            errors.append(error)
        spread = torch.tensor(means).std()
        assert torch.tensor(means).mean() == pytest.approx(expected, abs=4 * float(spread) / math.sqrt(200))
        claimed = float(torch.tensor(errors).square().mean().sqrt() / spread)
        assert 0.9 < claimed < (1.15 if delta else 1.6)


def fit(candidates: Any, codes: Codes = TRAIN, validation: Codes | None = VALIDATION, **others: Any) -> Auto:
    return Auto(candidates=candidates).fit(codes, validation, seeded(), **others)


@pytest.mark.parametrize(("candidates", "chosen"), [({"normal": {}, "gmm": GMM}, "gmm"), (["normal", "kde"], "kde")])
def test_it_is_the_chosen_one(candidates: Any, chosen: str) -> None:
    """Draws, scores, conditionals and marginals are those of the chosen density, bit by bit."""
    auto = fit(candidates)
    assert auto.chosen.name == chosen
    assert auto.why.startswith(f"{chosen} has the highest held-out log-likelihood, ")
    assert auto.why.endswith(" nats better than normal")
    z, labels = VALIDATION.mean, VALIDATION.labels
    given = {"z": z[:, :2]}
    calls: list[Callable[[Density], Tensor]] = [
        lambda d: d.sample(50, seeded(3), temperature=0.7, truncation=0.1).loc,
        lambda d: d.log_prob(z, labels),
        lambda d: d.condition(given, seeded(3)).loc,
    ]
    if auto.marginal:
        calls.append(lambda d: d.log_marginal(given))
    for call in calls:
        assert torch.equal(call(auto), call(auto.chosen))


def test_capabilities_are_those_of_the_chosen_one() -> None:
    """One density without labels and one that stores training codes, each the only candidate."""
    auto = fit(["normal"])
    assert not auto.classes.labelled
    assert auto.sample(3, seeded()).labels is None
    rebuilt = Auto.from_state(*auto.state())
    assert not rebuilt.labelled
    for name in ("kde", "flow"):
        density = DENSITIES[name]
        chosen = fit({name: {"steps": 20, "hidden": 8}} if name == "flow" else [name])
        for capability in ("conditional", "marginal", "exact_log_prob", "stores_training_codes"):
            assert getattr(chosen, capability) == getattr(density, capability)


def test_scores_are_those_of_held_out_codes_given_their_labels() -> None:
    """Posteriors without noise give the same draws every time, so that the table can be checked."""
    sharp = Codes.empirical(VALIDATION.layout, VALIDATION.mean, VALIDATION.labels, VALIDATION.label_names)
    auto = fit({"normal": {}, "gmm": GMM}, validation=sharp)
    for row, candidate in zip(auto.scores, auto.candidates.values(), strict=True):
        labels = sharp.labels if candidate.classes.labelled else None
        score = candidate.log_prob(sharp.mean, labels)
        assert row["log_likelihood"] == pytest.approx(float(score.mean()), rel=1e-5)
        assert row["log_likelihood_error"] == pytest.approx(float(score.std(correction=0)) / 10, rel=1e-4)
        assert row["energy_distance"] < 1


def test_candidates_are_fitted_to_the_same_rows() -> None:
    """Without validation codes a tenth is held out once; every candidate reports the other rows as used."""
    auto = fit({"normal": {}, "gmm": GMM}, validation=None)
    (used,) = {density.rows["used"] for density in auto.candidates.values()}
    assert 268 <= used <= 270
    assert auto.rows["used"] == 300


def test_rows_are_counted_as_the_chosen_one_uses_them() -> None:
    """A kernel density leaves out rows that lack a block; a mixture does not."""
    observed = TRAIN.observed.clone()
    observed[250:, 1] = False
    holed = replace(TRAIN, observed=observed)
    assert fit(["kde"], holed).rows == {"used": 250, "left_out": 50, "incomplete": 0}
    assert fit({"gmm": GMM}, holed).rows == {"used": 300, "left_out": 0, "incomplete": 50}


def test_what_cannot_be_fitted_is_listed_with_the_reason() -> None:
    auto = fit({"vamp": {}, "gmm": GMM})
    assert auto.chosen.name == "gmm"
    assert auto.scores[0] == {
        "density": "vamp",
        "failed": "density vamp: no encoder was given, expected one: call fit(codes, encoder=…)",
    }
    json.dumps(auto.state()[1])
    with pytest.raises(ValueError, match="no candidate could be fitted: density vamp: no encoder was given"):
        fit(["vamp"])


def test_pseudo_inputs_start_from_the_rows_that_they_stand_for() -> None:
    """`auto` reorders rows internally; the encoder must still be given the rows of the table."""
    asked: list[Tensor] = []

    class Asked:
        def inputs(self, rows: Tensor) -> dict[str, Tensor]:
            asked.append(rows)
            return ENCODER.inputs(rows)

        def __call__(self, inputs: dict[str, Tensor]) -> Any:
            return ENCODER(inputs)

    fit({"vamp": {"pseudo_inputs": 40, "steps": 5}}, encoder=Asked())
    (rows,) = asked
    assert TRAIN.labels is not None
    assert TRAIN.labels[rows].tolist() == [0] * 20 + [2] * 20


def test_every_candidate_reports_its_passes() -> None:
    seen: list[dict[str, float]] = []
    auto = fit({"gmm": GMM, "vamp": {"steps": 10, "pseudo_inputs": 20}}, encoder=ENCODER, progress=seen.append)
    assert seen == auto.history
    for place, candidate in enumerate(auto.candidates.values()):
        own = [row for row in seen if row["candidate"] == place]
        for noted, row in zip(own, candidate.history, strict=True):
            assert noted["validation_log_likelihood"] == pytest.approx(row["validation_log_likelihood"])
            assert noted.keys() == row.keys() | {"candidate"}


def test_without_labels() -> None:
    auto = fit({"normal": {}, "gmm": GMM}, unlabelled(TRAIN), None)
    assert auto.chosen.name == "gmm"
    assert auto.sample(3, seeded()).labels is None


@pytest.mark.parametrize(
    ("candidates", "message"),
    [
        ([], "option candidates: found .*, expected names of densities, or names with options"),
        ("gmm", "option candidates: found 'gmm', expected names of densities, or names with options"),
        (["auto"], "option candidates: found 'auto', expected some of normal, "),
        (["gmmm"], "option candidates: found 'gmmm', expected some of normal, "),
        ({"gmm": {"passes": 0}}, "option passes: found 0, expected an integer"),
        ({"gmm": {"pases": 10}}, "density gmm: unknown option 'pases', expected one of"),
    ],
)
def test_candidates_are_checked(candidates: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Auto(candidates=candidates)


def test_a_score_that_has_not_converged_is_not_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flow_matching` declares at fit whether its score is exact; the state of `auto` keeps that."""
    monkeypatch.setattr("postprior.stage2_latent.flow_matching.MAX_ODE_STEPS", 4)
    candidates = {"flow_matching": {"hidden": 8, "steps": 5, "ode_steps": 4}}
    density = Auto(candidates={"gaussian": {}, **candidates}).fit(TRAIN, VALIDATION, seeded())
    assert ["log_likelihood" in row for row in density.scores] == [True, False]
    alone = Auto(candidates=candidates).fit(TRAIN, VALIDATION, seeded())
    assert alone.why.endswith("no candidate has an exact score")
    assert not alone.exact_log_prob
    assert not Auto.from_state(*alone.state()).exact_log_prob
