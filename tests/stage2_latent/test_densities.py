"""The contract of every density in `DENSITIES`."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from support.equations import seeded
from support.latent import LAYOUT, labelled, unlabelled

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import split_blocks

QUICK: dict[str, dict[str, Any]] = {
    "gmm": {"components": [1, 2], "passes": 15},
    "flow": {"blocks": 2, "hidden": 16, "components": 2, "steps": 40, "batch": 128},
    "flow_matching": {"hidden": 32, "steps": 300, "batch": 128, "weight_decay": 0.1, "ode_steps": 2},
    "vamp": {"pseudo_inputs": 100, "steps": 40, "learning_rate": 0.05},
    "kde": {"bandwidth": [1, 2]},
    "two_stage_vae": {
        "hidden": 16,
        "layers": 1,
        "draws": 8,
        "steps": 100,
        "batch": 64,
        "learning_rate": 0.01,
    },
    "riemannian": {"radius": [0.05, 0.2]},
    "auto": {"candidates": {"normal": {}, "gmm": {"components": [1], "passes": 15}}},
}
QUICK["independent"] = {"density": "gmm", "options": QUICK["gmm"]}
TRAIN, ENCODER = labelled(400, seed=1)
VALIDATION, _ = labelled(100, seed=2)
PLANE, PLANE_ENCODER = labelled(400, seed=1, dimensions=2)


def fitted(name: str, codes: Codes = TRAIN, seed: int = 0, encoder: Any = ENCODER) -> Density:
    density = DENSITIES[name](**QUICK.get(name, {}))
    return density.fit(codes, VALIDATION if codes is TRAIN else None, seeded(seed), encoder)


@pytest.fixture(scope="module", params=list(DENSITIES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def density(name: str) -> Density:
    return fitted(name)


@pytest.fixture(scope="module")
def plane(name: str) -> Density:
    return fitted(name, PLANE, encoder=PLANE_ENCODER)


@dataclass
class Again:
    """The same fit once more, what it reported of each pass, and whether it left the global generators alone."""

    density: Density
    seen: list[dict[str, float]]
    untouched: bool


def global_states() -> bytes:
    """The states of the global generators of torch and NumPy."""
    return torch.get_rng_state().numpy().tobytes() + np.random.get_state()[1].tobytes()  # noqa: NPY002


@pytest.fixture(scope="module")
def again(name: str) -> Again:
    seen: list[dict[str, float]] = []
    before = global_states()
    density = DENSITIES[name](**QUICK.get(name, {})).fit(TRAIN, VALIDATION, seeded(), ENCODER, seen.append)
    return Again(density, seen, global_states() == before)


def test_names_are_read_without_torch() -> None:
    script = (
        "import sys; from postprior.stage2_latent import DENSITIES as d; "
        "print('gmm' in d, list(d), 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"True {list(DENSITIES)} False"


def test_table_names_its_classes(name: str) -> None:
    assert DENSITIES[name].name == name
    assert DENSITIES[name].__doc__


def test_same_seed_same_bytes(density: Density, again: Again) -> None:
    assert torch.equal(again.density.sample(50, seeded(3)).loc, density.sample(50, seeded(3)).loc)
    assert not torch.equal(density.sample(50, seeded(3)).loc, density.sample(50, seeded(4)).loc)


def test_global_generators_are_untouched(density: Density, again: Again) -> None:
    assert again.untouched
    before = global_states()
    density.sample(10, seeded())
    if scored(density):
        density.log_prob(TRAIN.mean)
    assert global_states() == before


def test_state_rebuilds_it_bit_by_bit(name: str, density: Density) -> None:
    tensors, meta = density.state()
    rebuilt = DENSITIES[name].from_state(tensors, json.loads(json.dumps(meta, sort_keys=True)))
    assert all(type(value) is torch.Tensor and not value.requires_grad for value in tensors.values())
    assert torch.equal(rebuilt.sample(20, seeded()).loc, density.sample(20, seeded()).loc)
    if scored(density):
        assert torch.equal(rebuilt.log_prob(TRAIN.mean), density.log_prob(TRAIN.mean))
    again, meta_again = rebuilt.state()
    assert json.dumps(meta_again, sort_keys=True) == json.dumps(meta, sort_keys=True)
    assert again.keys() == tensors.keys()
    assert rebuilt.layout == LAYOUT
    assert rebuilt.options == density.options


def test_state_of_another_density_is_refused(name: str, density: Density) -> None:
    tensors, meta = density.state()
    with pytest.raises(ValueError, match="the state is of 'other', expected"):
        DENSITIES[name].from_state(tensors, {**meta, "density": "other"})


def test_samples_are_codes_with_labels(name: str, density: Density) -> None:
    codes = density.sample(2000, seeded())
    assert (codes.family, codes.loc.shape, codes.layout) == ("empirical", (2000, 1, 4), LAYOUT)
    assert split_blocks(codes.layout, codes.loc[:, 0])["w"].shape == (2000, 1, 2)
    if not density.classes.labelled:
        assert codes.labels is None
        return
    assert codes.label_names == ("zero", "one", "two")
    share = float((codes.labels == 2).float().mean())
    assert share == pytest.approx(float((TRAIN.labels == 2).float().mean()), abs=0.04)


def test_labels_are_honoured_row_by_row(name: str, density: Density) -> None:
    if not density.labelled:
        pytest.skip("has no labels")
    asked = torch.tensor([0, 2, 2, 0]).repeat(250)
    codes = density.sample(1000, seeded(), labels=asked)
    assert torch.equal(codes.labels, asked)
    for label in (0, 2):
        truth = TRAIN.mean[TRAIN.labels == label]
        error = codes.mean[asked == label].mean(0) - truth.mean(0)
        assert error.abs().max() < 0.3


def test_draws_are_independent_of_their_place(density: Density) -> None:
    """Draws grouped by label or component would correlate with their neighbours."""
    z = density.sample(4000, seeded()).loc[:, 0]
    z = (z - z.mean(0)) / z.std(0)
    assert (z[1:] * z[:-1]).mean(0).abs().max() < 0.07
    halves = z[:2000].mean(0) - z[2000:].mean(0)
    assert halves.abs().max() < 0.15


def test_fits_better_than_the_prior(name: str, density: Density) -> None:
    if name == "normal" or not scored(density):
        pytest.skip("is the prior, or has no score")
    z = VALIDATION.draw(seeded(7))
    assert density.log_prob(z).mean() > fitted("normal").log_prob(z).mean() + 0.5


def test_marginal_is_the_sum_over_labels(density: Density) -> None:
    if not scored(density):
        pytest.skip("has no score")
    z = VALIDATION.draw(seeded())
    if density.classes.labelled:
        joint = [
            density.log_prob(z, torch.full((len(z),), int(label))) + probability.log()
            for label, probability in zip(density.classes.labels, density.classes.probabilities, strict=True)
        ]
        torch.testing.assert_close(density.log_prob(z), torch.stack(joint).logsumexp(0))
    else:
        assert density.log_prob(z).shape == (len(z),)


def test_log_prob_of_mixed_labels_is_that_of_each_label(density: Density) -> None:
    if not scored(density):
        pytest.skip("has no score")
    if not density.classes.labelled:
        pytest.skip("has no labels")
    z, labels = VALIDATION.draw(seeded()), VALIDATION.labels
    mixed = density.log_prob(z, labels)
    for label in (0, 2):
        alone = density.log_prob(z[labels == label], labels[labels == label])
        torch.testing.assert_close(mixed[labels == label], alone)


def test_log_prob_in_chunks_is_log_prob(density: Density, monkeypatch: pytest.MonkeyPatch) -> None:
    if not scored(density):
        pytest.skip("has no score")
    z = VALIDATION.mean
    whole = density.log_prob(z)
    monkeypatch.setattr("postprior.stage2_latent.density.FLOATS", 1)
    torch.testing.assert_close(density.log_prob(z), whole)


def test_gradients_flow_to_the_codes(density: Density) -> None:
    """Against central differences, in double precision."""
    if not scored(density):
        pytest.skip("has no score")
    exact = density.to(torch.float64)
    z = VALIDATION.mean[:5].double().requires_grad_()
    (gradient,) = torch.autograd.grad(exact.log_prob(z).sum(), z)
    for dimension in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[dimension] = 1e-6
        with torch.no_grad():
            slope = (exact.log_prob(z + step) - exact.log_prob(z - step)) / 2e-6
        torch.testing.assert_close(gradient[:, dimension], slope, rtol=1e-4, atol=1e-4)


def test_double_precision_agrees(density: Density) -> None:
    if not scored(density):
        pytest.skip("has no score")
    exact = density.to(torch.float64)
    z = VALIDATION.mean
    assert exact.log_prob(z.double()).dtype == torch.float64
    torch.testing.assert_close(exact.log_prob(z.double()).float(), density.log_prob(z), rtol=1e-4, atol=1e-4)
    assert exact.sample(3, seeded()).loc.dtype == torch.float64


def test_it_integrates_to_one(plane: Density) -> None:
    """Monte Carlo over a wide normal, in the plane: of p(z) and of p(z | y)."""
    if not plane.exact_log_prob:
        pytest.skip("declares no normalised density")
    exact = plane.to(torch.float64)
    proposal = torch.distributions.Normal(0.0, 3.0)
    noise = torch.randn(20_000, 2, generator=seeded(), dtype=torch.float64)
    z = 3.0 * noise
    weight = -proposal.log_prob(z).sum(-1)
    labels = [None, *exact.classes.labels.tolist()] if exact.classes.labelled else [None]
    for label in labels:
        asked = None if label is None else torch.full((len(z),), label)
        assert (exact.log_prob(z, asked) + weight).exp().mean() == pytest.approx(1, abs=0.05)


def test_history_reports_each_pass(again: Again) -> None:
    density, seen = again.density, again.seen
    assert seen == density.history
    assert len(seen) <= density.checks
    if not {"patience", "averaged"} & density.options.keys() and scored(density):  # such fits may need fewer
        assert len(seen) == density.checks
    assert [row["step"] for row in seen] == list(range(1, len(seen) + 1))
    if not scored(density):
        return
    z = VALIDATION.draw(seeded(5))
    labels = VALIDATION.labels if density.classes.labelled else None
    best = max(row["validation_log_likelihood"] for row in seen)
    assert best == pytest.approx(float(density.log_prob(z, labels).mean()), abs=0.5)


def test_unlabelled_codes_give_an_unlabelled_density(name: str) -> None:
    density = fitted(name, unlabelled(TRAIN))
    assert density.sample(5, seeded()).labels is None
    if scored(density):
        assert density.log_prob(TRAIN.mean).isfinite().all()
    with pytest.raises(ValueError, match="fitted without labels, expected labels=None"):
        density.sample(len(TRAIN), labels=TRAIN.labels)


def test_posterior_noise_is_counted(name: str) -> None:
    """Wide posteriors give a density as wide as their mixture."""
    if name in ("normal", "vamp", "riemannian"):
        pytest.skip("not learned from the noise of the codes")
    codes = replace(unlabelled(TRAIN), scale=torch.full_like(TRAIN.scale, 2.0))
    drawn = fitted(name, codes).sample(4000, seeded()).loc[:, 0]
    expected = TRAIN.mean.var(0) + 4.0
    assert ((drawn.var(0) / expected) - 1).abs().max() < 0.2


def test_incomplete_rows_are_learned_from_or_left_out(name: str, density: Density) -> None:
    """Values of missing blocks are never read; a density that needs complete rows is fitted to these."""
    hole = TRAIN.observed.clone()
    hole[300:, 1] = False

    def fit(fill: float, rows: int = 400) -> Density:
        loc, scale = TRAIN.loc.clone(), TRAIN.scale.clone()
        loc[300:, :, 2:], scale[300:, :, 2:] = fill, abs(fill)
        codes = replace(TRAIN, observed=hole, loc=loc, scale=scale).select(torch.arange(rows))
        return DENSITIES[name](**QUICK.get(name, {})).fit(codes, VALIDATION, seeded(), ENCODER)

    holed = fit(torch.nan)
    if density.incomplete:
        assert holed.rows == {"used": 400, "left_out": 0, "incomplete": 100}
        same = fit(7.0)
    else:
        assert holed.rows == {"used": 300, "left_out": 100, "incomplete": 0}
        same = fit(torch.nan, rows=300)
    assert torch.equal(holed.sample(20, seeded()).loc, same.sample(20, seeded()).loc)
    if scored(density):
        z = VALIDATION.draw(seeded(5))
        assert float(holed.log_prob(z).mean()) > float(density.log_prob(z).mean()) - 0.3


def scored(density: Density) -> bool:
    return density.exact_log_prob or density.bound


def test_a_density_has_a_score_or_says_that_it_has_none(density: Density) -> None:
    z = VALIDATION.mean
    if scored(density):
        scores = density.log_prob(z)
        assert scores.shape == (len(z),)
        assert scores.isfinite().all()
        assert len(scores.unique()) > 0.9 * len(z)  # scores depend on the codes
    else:
        with pytest.raises(ValueError, match="has no score, expected a density with one"):
            density.log_prob(z)


def test_temperature_shrinks_the_noise_of_draws(density: Density) -> None:
    """Lower temperatures give draws that vary less, 1 changes nothing, and values outside (0, 1] are refused."""
    warm = density.sample(4000, seeded())
    assert torch.equal(warm.loc, density.sample(4000, seeded(), temperature=1.0).loc)
    cold = density.sample(4000, seeded(), temperature=0.3)
    if density.classes.labelled:
        assert torch.equal(warm.labels, cold.labels)
    assert cold.loc.var(0).sum() < warm.loc.var(0).sum()
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"temperature: found {wrong}, expected a number above 0 and at most 1"):
            density.sample(3, temperature=wrong)


def test_truncation_leaves_out_what_is_less_likely_than_held_out_codes(density: Density) -> None:
    if not density.exact_log_prob:
        with pytest.raises(ValueError, match="has no exact score, expected truncation 0"):
            density.sample(3, truncation=0.1)
        return
    codes = density.sample(500, seeded(), truncation=0.2)
    labels = codes.labels
    kept = density.log_prob(codes.loc[:, 0], labels)
    real = VALIDATION.draw(seeded(3))
    held_out = density.log_prob(real, None if labels is None else VALIDATION.labels)
    for label in (None,) if labels is None else (0, 2):
        own = kept if label is None else kept[labels == label]
        theirs = held_out if label is None else held_out[VALIDATION.labels == label]
        assert theirs.quantile(0.05) < own.min() < theirs.quantile(0.5)
    with pytest.raises(ValueError, match=r"truncation: found 1\.0, expected a share of at least 0 and below 1"):
        density.sample(3, truncation=1.0)


def test_marginals_integrate_the_other_blocks_out(density: Density) -> None:
    """p(z, w) = p(z) p(w | z): importance sampling over w from draws of the other block gives p(z)."""
    if not density.marginal:
        with pytest.raises(ValueError, match="has no marginals, expected a density with"):
            density.log_marginal({"z": torch.zeros(1, 2)})
        return
    exact = density.to(torch.float64)
    z = VALIDATION.mean[:3, :2].double()
    wide = 3.0 * torch.randn(20_000, 2, generator=seeded(), dtype=torch.float64)
    weight = -torch.distributions.Normal(0.0, 3.0).log_prob(wide).sum(-1)
    labels = [None, 0, 2] if density.classes.labelled else [None]
    for label in labels:
        for point in z:
            whole = torch.cat([point.expand(len(wide), 2), wide], 1)
            asked = None if label is None else torch.full((len(wide),), label)
            expected = (exact.log_prob(whole, asked) + weight).exp().mean().log()
            one = None if label is None else torch.tensor([label])
            found = exact.log_marginal({"z": point.unsqueeze(0)}, one)
            assert float(found) == pytest.approx(float(expected), abs=0.1)
    everything = exact.log_marginal({"z": z, "w": VALIDATION.mean[:3, 2:].double().reshape(3, 1, 2)})
    torch.testing.assert_close(everything, exact.log_prob(VALIDATION.mean[:3].double()), rtol=1e-6, atol=1e-6)


def test_condition_keeps_what_is_given_and_draws_the_rest(density: Density) -> None:
    """If one block of drawn codes is drawn again given the other, the joint moments do not change."""
    if not density.conditional:
        with pytest.raises(ValueError, match="has no conditional draws, expected a density with"):
            density.condition({"z": torch.zeros(3, 2)}, seeded())
        return
    drawn = density.sample(8000, seeded())
    z = drawn.loc[:, 0]
    again = density.condition({"z": z[:, :2]}, seeded(1))
    redrawn = again.loc[:, 0]
    assert torch.equal(redrawn[:, :2], z[:, :2])
    assert not torch.equal(redrawn[:, 2:], z[:, 2:])
    torch.testing.assert_close(redrawn.mean(0), z.mean(0), atol=0.07, rtol=0)
    torch.testing.assert_close(redrawn.T.cov(), z.T.cov(), atol=0.12, rtol=0)
    if density.classes.labelled:
        kept = density.condition({"w": z[:, 2:].reshape(-1, 1, 2)}, seeded(1), labels=drawn.labels)
        assert torch.equal(kept.labels, drawn.labels)
        torch.testing.assert_close(kept.loc[:, 0].T.cov(), z.T.cov(), atol=0.12, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.sample(0), r"found n = 0 samples, expected at least 1"),
        (lambda d: d.log_prob(torch.zeros(3, 5)), r"shape \(3, 5\), expected \(N, 4\)"),
        (lambda d: d.log_prob(torch.zeros(4)), r"shape \(4,\), expected \(N, 4\)"),
        (lambda d: d.log_prob(torch.full((2, 4), torch.nan)), r"codes hold NaN or infinity"),
    ],
)
def test_misuse_is_one_clear_sentence(density: Density, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(density)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([0, 1, 2]), "labels: 1 is unknown, expected one of 0, 2"),
        (torch.tensor([0, 2, 7]), "labels: 7 is unknown, expected one of 0, 2"),
        (torch.tensor([0, 2]), r"int64 of shape \(2,\), expected integers of shape \(3,\)"),
        (torch.zeros(3), r"float32 of shape \(3,\), expected integers"),
    ],
)
def test_wrong_labels_are_refused(density: Density, labels: torch.Tensor, message: str) -> None:
    if not density.classes.labelled:
        message = "fitted without labels"
    with pytest.raises(ValueError, match=message):
        density.sample(3, seeded(), labels=labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"q": torch.zeros(3, 2)}, "blocks: found q, expected some of z, w"),
        ({}, "blocks: found none, expected some of z, w"),
        ({"w": torch.zeros(3, 2)}, r"block w: found shape \(3, 2\), expected \(3, 1, 2\)"),
    ],
)
def test_wrong_blocks_are_refused(density: Density, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message if density.conditional else "has no conditional draws"):
        density.condition(given, seeded())


def test_options_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="unknown option 'colour', expected one of"):
        DENSITIES[name](colour=3)
    for option, default in DENSITIES[name]().options.items():
        for wrong in ("never", -1):
            if type(wrong) is not type(default) or wrong != default:
                with pytest.raises(ValueError, match=f"option {option}: found {wrong!r}, expected"):
                    DENSITIES[name](**{option: wrong})


def test_unfitted_density_says_so(name: str) -> None:
    for call in (lambda d: d.sample(3), lambda d: d.log_prob(torch.zeros(1, 4)), lambda d: d.state()):
        with pytest.raises(ValueError, match="not fitted yet"):
            call(DENSITIES[name]())


def test_codes_that_do_not_match_are_refused(name: str) -> None:
    density = DENSITIES[name](**QUICK.get(name, {}))
    if density.fewest_rows > 1:  # `normal` learns nothing
        with pytest.raises(ValueError, match=r"1 rows of codes have .*observed.*, expected at least 10"):
            density.fit(TRAIN.select(torch.tensor([0])), encoder=ENCODER)
    with pytest.raises(ValueError, match="validation codes have the blocks"):
        density.fit(TRAIN, PLANE, encoder=ENCODER)
    if density.labelled:
        with pytest.raises(ValueError, match="validation codes have no labels"):
            density.fit(TRAIN, unlabelled(VALIDATION), encoder=ENCODER)
        others = replace(VALIDATION, labels=torch.ones_like(VALIDATION.labels))
        with pytest.raises(ValueError, match="no complete validation row with a label"):
            density.fit(TRAIN, others, encoder=ENCODER)
    if density.needs_encoder:
        with pytest.raises(ValueError, match="no encoder was given"):
            density.fit(TRAIN)
