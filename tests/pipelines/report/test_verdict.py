"""The verdict of the report in every case that its rule distinguishes, from constructed results."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support.report_results import estimate, share

from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.verdict import STANDING, USEFUL, WORDS, Verdict, verdict

Scores = dict[str, Any]
MISSING = {"value": None, "why": "there is one row"}
FLAGGED = {"flagged": ["near_copies"]}
EXPLORE = "To explore the data, plan an analysis and test code."
NOT_SHARED = "Do not share them with people who may not see the real rows."


def harmless(auc: float = 0.51, reach: float = 0.02, held_out: int = 500, **changes: Any) -> Scores:
    """Privacy tests that find nothing, with changes."""
    joint = {"membership_auc": share(auc, reach), "near_copies": share(0.01, 0.005)}
    return {"spaces": {"joint": joint}, "flagged": [], "samples": {"held_out": held_out}, **changes}


def density(name: str = "gmm", distance: float = 8.0, ratio: Any = 0.96, **changes: Any) -> Row:
    """A density of which everything is good, with changes; without labels if the utility ratio is None."""
    scores: Scores = {
        "frechet_distance": estimate(distance),
        "coverage": share(0.8),
        "recall": share(0.7),
        "c2st_auc": share(0.6),
        "samples": 1000,
        "privacy": harmless(),
    }
    if ratio is not None:
        scores["utility"] = {"ratio_to_real": {"joint": share(ratio) if isinstance(ratio, float) else ratio}}
    return Row(name, "density", scores | changes)


REAL = Row("real", "data", {"frechet_distance": estimate(5.0), "coverage": share(0.85), "recall": share(0.8)})
PRIOR = Row(
    "normal",
    "baseline",
    {"frechet_distance": estimate(90.0), "coverage": share(0.1), "recall": share(0.75), "c2st_auc": share(0.95)},
)
GOOD_FLOOR = {"frechet_distance": estimate(2.0), "coverage": share(0.9), "recall": share(0.9), "c2st_auc": share(0.6)}
COPULA = Row("gaussian_copula", "baseline", GOOD_FLOOR)


def judged(*densities: Row, floors: tuple[Row, ...] = (PRIOR,), **more: Any) -> Verdict:
    return verdict(Results((REAL, *densities, *floors), {}, {}, [], **more))


def text(found: Verdict) -> str:
    return " ".join((found.sentence, *found.reasons, *found.purposes, *found.warnings)).replace("\u202f", " ")


def test_a_good_density_can_be_used_and_shared() -> None:
    found = judged(density())
    assert (found.use, found.privacy, found.density.name) == ("yes", "clear", "gmm")
    assert found.sentence == "You can use the samples of gmm."
    assert "To train classifiers in place of real rows: they reach 96.0 % of the accuracy with real rows." in text(
        found
    )
    assert EXPLORE in found.purposes
    assert "To share with people who may not see the real rows" in text(found)
    assert found.warnings == (STANDING,)
    assert "They are clearly nearer to real rows than those of Normal prior." in found.reasons


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"privacy": harmless(**FLAGGED)}, "The samples are flagged by the share of near copies."),
        ({"privacy": harmless(flagged=["membership_auc"])}, "flagged by the membership inference attack."),
        ({"memorisation": {"near_copies": share(0.06, 0.01), "samples": 1000}}, "memorises training codes."),
    ],
)
def test_a_density_that_leaks_is_not_to_be_shared(changes: Scores, why: str) -> None:
    found = judged(density(**changes))
    assert (found.use, found.privacy) == ("limited", "flagged")
    assert found.sentence == "You can use the samples of gmm yourself, but do not share them."
    assert "To share" not in text(found)
    assert found.warnings[0].startswith(NOT_SHARED)
    assert why in text(found)


def test_memorisation_by_chance_is_not_flagged() -> None:
    assert judged(density(memorisation={"near_copies": share(0.019, 0.005), "samples": 1000})).privacy == "clear"


@pytest.mark.parametrize(
    ("privacy", "why"),
    [
        (None, "Privacy was not tested."),
        (
            harmless(spaces={"joint": {"membership_auc": {"value": None, "why": "privacy.draws is 0"}}}),
            "privacy.draws is 0.",
        ),
        (harmless(spaces={"joint": {"membership_auc": share(0.5)}}), "The share of near copies was not tested."),
        (harmless(held_out=20), "Only 20 held-out rows are too few to find a leak."),
        (harmless(reach=0.11), "is too wide to find a leak."),
        (harmless(spaces={"joint": {"membership_auc": 0.5, "near_copies": 0.01}}), "is too wide to find a leak."),
    ],
)
def test_a_leak_that_could_not_be_found_forbids_sharing(privacy: Scores | None, why: str) -> None:
    found = judged(density(**({"privacy": privacy} if privacy else {"privacy": {}})))
    assert (found.use, found.privacy) == ("limited", "untested")
    assert why in text(found)
    assert "To share" not in text(found)


def test_the_density_that_does_not_leak_is_named() -> None:
    found = judged(density("vamp", privacy=harmless(**FLAGGED)), density("gmm", distance=9.0))
    assert (found.use, found.density.name) == ("yes", "gmm")
    assert found.reasons[0] == "vamp has the lowest Frechet distance, but privacy tests flag it."
    assert found.warnings == ("Do not share samples of vamp: privacy tests flag them.", STANDING)
    both = judged(density("vamp", privacy=harmless(**FLAGGED)), density("gmm", privacy=harmless(**FLAGGED)))
    assert (both.use, both.density.name) == ("limited", "vamp")
    assert "Do not share samples of gmm" in text(both)
    leaking = judged(density("vamp", privacy=harmless(**FLAGGED)), density("gmm", ratio=0.5, coverage=share(0.1)))
    assert (leaking.use, leaking.density.name) == ("limited", "vamp")  # the other one serves no purpose


def test_the_first_density_is_named_as_such() -> None:
    assert judged(density("a"), density("b")).reasons[0] == "Of 2 fitted densities, a has the lowest Frechet distance."
    coherent = {"joint_coherence": share(0.9), "difference_to_normal": {"joint_coherence": share(0.5)}}
    found = judged(density("a", **coherent), density("b", **coherent))
    assert found.reasons[0] == "Of 2 fitted densities, a has the highest joint coherence."


def test_a_baseline_that_is_better_is_named_and_limits_the_use() -> None:
    beaten = judged(density(), floors=(PRIOR, COPULA))
    assert beaten.use == "limited"
    assert (
        "Do not take them for a good likeness of real rows: Gaussian copula is better in Frechet distance, "
        "recall and coverage." in text(beaten)
    )
    assert EXPLORE not in beaten.purposes
    prior = Row("normal", "baseline", GOOD_FLOOR)
    assert "Normal prior, N(0, I) without a fitted density, is better in" in text(judged(density(), floors=(prior,)))
    assert judged(density(ratio=None), floors=(prior,)).use == "no"  # nothing else speaks for it
    assert judged(density(distance=0.5), density("flow"), floors=(PRIOR, COPULA)).density.name == "gmm"
    other = density("flow", frechet_distance=estimate(1.0), coverage=share(0.9), recall=share(0.9))
    chosen = judged(density(), other, floors=(PRIOR, COPULA))
    assert (chosen.use, chosen.density.name) == ("yes", "flow")
    assert chosen.reasons[0] == "gmm has the lowest Frechet distance, but Gaussian copula is nearer to real rows."


def test_a_baseline_that_wins_one_score_of_four_does_not_beat() -> None:
    """Samples of N(0, I) are spread out, so their recall is often high."""
    found = judged(density(recall=share(0.3)))
    assert found.use == "limited"
    assert "Do not study rare groups or extremes with them: recall is 30.0 %, and 80.0 % for real rows." in text(found)
    assert EXPLORE in found.purposes


def test_paired_differences_decide_about_the_prior() -> None:
    near = Row("normal", "baseline", PRIOR.scores | {"frechet_distance": estimate(8.1), "coverage": share(0.8)})
    equal = {"c2st_auc": share(0.95), "recall": share(0.75)}
    assert "not clearly nearer to real rows than those of Normal prior" in text(
        judged(density(**equal), floors=(near,))
    )
    for sign in (-1, 1):
        paired = {"frechet_distance": {"value": 0.1 * sign, "low": 0.1 * sign - 0.05, "high": 0.1 * sign + 0.05}}
        found = judged(density(**equal, difference_to_normal=paired), floors=(near,))
        assert ("is better in Frechet distance." in text(found)) == (sign > 0)


@pytest.mark.parametrize(
    ("ratio", "sentence", "use"),
    [
        (share(0.96), "To train classifiers in place of real rows", "yes"),
        (share(0.5), "Do not train classifiers on them in place of real rows: these reach 50.0 %", "limited"),
        (share(USEFUL, 0.05), "Do not count on them in place of real training rows", "limited"),
        (0.95, "but this is uncertain.", "limited"),
        (MISSING, EXPLORE, "yes"),
    ],
)
def test_utility_decides_about_training(ratio: Any, sentence: str, use: str) -> None:
    found = judged(density(ratio={**ratio} if isinstance(ratio, dict) else {"value": ratio}))
    assert sentence in text(found)
    assert found.use == use
    assert ("To train" in text(found)) == (sentence.startswith("To train"))


def test_a_gain_from_synthetic_rows_is_a_purpose_of_the_density_that_was_tested() -> None:
    arms = {"synthetic_1x": {"over_real": {"joint": 0.0}}, "synthetic_5x": {"over_real": {"joint": share(0.07)}}}
    more: Scores = {"augmentation": {"100": arms}, "augmented": {"100": {"density": "gmm"}}}
    gain = (
        "To add to few real rows: with 100 of them, the accuracy rises by 7.0 percentage points (95 % CI 5.0 to 9.0)."
    )
    assert gain in text(judged(density(), **more))
    assert "To add" not in text(judged(density("flow"), **more))
    arms["synthetic_5x"]["over_real"]["joint"] = share(0.01)
    assert "To add" not in text(judged(density(), **more))


def test_without_a_purpose_the_answer_is_no() -> None:
    found = judged(density(ratio=0.5, coverage=share(0.1)))
    assert (found.use, found.purposes) == ("no", ())
    assert found.sentence == "Do not use these samples."
    assert found.purposeless == "For nothing that was tested."


def test_few_rows_and_wide_intervals_say_nothing() -> None:
    few = judged(density(samples=49))
    assert (few.use, few.purposes) == ("unknown", ())
    assert few.sentence == "It cannot be said whether these samples can be used."
    assert few.reasons == ("Only 49 rows were scored; at least 50 are needed.",)
    unscored = judged(density(frechet_distance=MISSING))
    assert unscored.reasons == ("The samples have no scores: there is one row.",)
    wide = judged(density(ratio=share(0.85, 0.1), coverage=share(0.4, 0.2)))
    assert wide.use == "unknown"
    assert "too wide to decide" in text(wide)
    assert judged(density(samples=49), density("flow")).density.name == "flow"


def test_statements_that_samples_do_not_support() -> None:
    real = {"joint_coherence": share(0.9), "label_entropy": share(0.99, 0.002)}
    changes = {
        "joint_coherence": share(0.2),
        "difference_to_normal": {"joint_coherence": share(0.0)},
        "label_entropy": share(0.4),
        "c2st_auc": share(0.97),
    }
    rows = (Row("real", "data", REAL.scores | real), density(**changes), PRIOR)
    found = text(verdict(Results(rows, {}, {}, [])))
    for sentence in (
        "Do not use their modalities together: these agree no more often than in draws from N(0, I).",
        "Do not read frequencies of labels from them: their labels are far less even than those of real rows.",
        "Do not publish estimates from them as those of real data: a classifier tells them from real rows with an "
        "AUC of 0.97.",
    ):
        assert sentence in found
    as_coherent = Row("real", "data", REAL.scores | real | {"joint_coherence": share(0.2)})
    assert "modalities together" not in text(verdict(Results((as_coherent, *rows[1:]), {}, {}, [])))


def test_rows_of_another_source_are_held_against_its_own_baselines() -> None:
    other = Row("mopoe: gmm", "density", density().scores, "mopoe")
    own = Row("mopoe: normal", "baseline", GOOD_FLOOR, "mopoe")
    assert judged(other, floors=(PRIOR,)).use == "yes"
    assert "mopoe: Normal prior" in text(judged(other, floors=(PRIOR, own)))


def test_the_best_answer_comes_first_and_all_are_whole_sentences() -> None:
    cases = {
        "yes": density("a"),
        "limited": density("b", ratio=0.5),
        "unknown": density("c", samples=10),
        "no": density("d", ratio=0.5, coverage=share(0.1)),
    }
    assert list(cases) == list(WORDS)
    for use, row in cases.items():
        later = [other for name, other in cases.items() if list(WORDS).index(name) >= list(WORDS).index(use)]
        found = judged(*later[::-1])
        assert (found.use, found.density) == (use, row)
        for sentence in (found.sentence, *found.reasons, *found.purposes, *found.warnings):
            assert re.fullmatch(r"[^\s].*[^\s.]\.", sentence), sentence
            assert not re.search(r"  | ,|\.\.|\bnan\b|None\b|\{", sentence), sentence
