"""The sentences on top of the report, in every case that they distinguish."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from support import report_results as made_up
from support.report_project import make_project, results_of, without

from postprior.pipelines.metrics.latent import health
from postprior.pipelines.metrics.privacy.proximity import NEAR
from postprior.pipelines.report.findings import QUESTIONS, findings, headline
from postprior.pipelines.report.findings.leaks import COPIES
from postprior.pipelines.report.plots.space import COLLAPSED
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row
from postprior.pipelines.report.wording import count, listed, number_with, percent, points


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(make_project(tmp_path_factory.mktemp("findings")))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(make_project(tmp_path_factory.mktemp("unlabelled"), labels=False))


def changed(results: Results, name: str, **scores: Any) -> Results:
    """The results with other scores in one row."""
    rows = [replace(row, scores=row.scores | scores) if row.name == name else row for row in results.rows]
    return replace(results, rows=tuple(rows))


def only(results: Results, *names: str) -> Results:
    """The results of some densities alone."""
    return replace(results, rows=tuple(row for row in results.rows if row.kind != "density" or row.name in names))


def told(results: Results, question: str = "") -> str:
    """All sentences, or those that answer one question, with plain spaces."""
    found = [finding.text for finding in findings(results) if question in ("", finding.question)]
    return " ".join(found).replace("\u202f", " ")


def test_every_question_is_answered_in_whole_sentences(results: Results, unlabelled: Results) -> None:
    for some in (results, unlabelled, only(results, "gmm"), only(unlabelled, "vamp")):
        found = list(findings(some))
        assert list(dict.fromkeys(finding.question for finding in found)) == list(QUESTIONS)
        for text in (headline(some), *(finding.text for finding in found)):
            assert re.fullmatch(r"[^\s].*[^\s.]\.", text), text
            assert not re.search(r"  | ,|\.\.|\bnan\b|\binf\b|None\b(?! of)|\{", text), text


def test_without_labels_distance_is_what_counts(unlabelled: Results) -> None:
    assert [row.name for row in unlabelled.densities] == ["gmm", "vamp", "flow"]
    assert headline(unlabelled) == (
        "gmm draws the samples nearest to real rows of 3 fitted densities: their Frechet distance is 8.60."
    )
    text = told(unlabelled)
    assert "By Frechet distance, gmm closes 100 % of the gap from the floor to held-out rows" in text
    assert "vamp follows with a Frechet distance of 9.40; they are told apart (paired difference −0.80" in text
    assert "Precision alone would also reward a collapse" in text
    assert "Without labels no classifier can be taught, so nothing here says whether samples teach." in text
    assert "label" not in told(unlabelled, "faithful")
    worse = {"frechet_distance": {"value": -1.0, "low": -3.0, "high": 0.5}}
    inside = changed(unlabelled, "gmm", difference_to_normal=worse, gap_closed={"frechet_distance": None})
    assert headline(inside) == ("No fitted density is told apart from the autoencoder's own prior: the best is gmm.")
    assert "encoded and decoded again, is given: it lies inside the noise." in told(inside)


def test_paired_tests_decide_who_is_ahead(results: Results) -> None:
    assert "they are told apart (paired difference 2.0 percentage points (0.8 to 3.7), p = 0.010" in told(results)
    unclear = tuple(replace(pair, p_holm=0.4) for pair in results.pairs)
    assert "they are not told apart (paired difference 2.0" in told(replace(results, pairs=unclear))
    assert "behind" not in headline(results) + headline(only(replace(results, pairs=unclear), "vamp"))
    assert headline(replace(results, pairs=unclear)).endswith("label; gmm is not clearly behind.")
    without = replace(results, pairs=())
    assert "gmm follows with 80.0 %; their intervals overlap." in told(without)
    worse = {"value": 0.5, "low": 0.48, "high": 0.52}
    assert "their intervals do not overlap." in told(changed(without, "gmm", joint_coherence=worse))
    assert "follows with 80.0 %. " in told(changed(without, "gmm", joint_coherence=0.8))


def test_a_collapse_does_not_win_unnoticed(results: Results) -> None:
    assert "far less even" not in headline(results) + told(results)
    collapse = changed(results, "vamp", label_entropy={"value": 0.4, "low": 0.35, "high": 0.45})
    assert headline(collapse).endswith("show the same label, but the labels are far less even than real ones.")
    assert "β-recall 0.485 (real 0.499). Its labels are far less even than real ones." in told(collapse)


def test_no_overfitting_is_told(results: Results) -> None:
    assert "gmm has the widest gap between training and validation codes: 4.50 nats" in told(results)
    fits = {name: {"overfitting": -0.1} for name in made_up.FITS}
    for name, scores in fits.items():
        results = changed(results, name, **scores)
    assert "No density scores training codes above validation codes." in told(results)


def test_pairings_tell_of_coherence_without_labels(results: Results) -> None:
    lacking = {"value": 0.2, "low": 0.1, "high": 0.3}
    text = told(changed(results, "vamp", pairing_auc=made_up.share(0.73), incoherence=lacking))
    assert "of those of vamp with 0.730: an incoherence of 0.200 (0.100 to 0.300). Canonical" in text
    assert "(−0.027 to 0.033), not clearly above 0." in told(results)
    assert "pairings" not in told(changed(results, "vamp", pairing_auc=None))


def test_tables_are_told_column_by_column(results: Results) -> None:
    modalities = results.row("vamp").scores["modalities"]
    table = made_up.table()
    text = told(changed(results, "vamp", modalities=modalities | {"visit": table}))
    assert (
        "In visit, the distributions of single columns are met at 94.0 % (92.0 to 96.0), the correlations of pairs at "
        "91.0 % (89.0 to 93.0); of its 2 columns, sex is told apart from real ones at 5 % over all tests." in text
    )
    table["columns"]["sex"]["p_value"] = 0.03  # twice that is more than 5 %: two columns were tested
    text = told(changed(results, "vamp", modalities=modalities | {"visit": table}))
    assert "of its 2 columns, none is told apart" in text
    table["columns"] = {name: {"p_value": 0.0} for name in ("age", "sex")}
    assert "age and sex are told apart" in told(changed(results, "vamp", modalities={"visit": table}))


def test_synthetic_rows_in_place_of_real_ones(results: Results) -> None:
    text = told(results, "useful")
    assert (
        "Training on samples of gmm alone reaches 93.1 % (91.6 to 94.6) on held-out real rows, which is 98.0 % "
        "(97.0 to 99.0) of the 95.0 % after training on real rows. Of the accuracy after real rows, other samples "
        "reach 94.7 % (vamp) and 77.9 % (flow)." in text
    )
    assert "is right on 94.1 % (92.6 to 95.6) of the samples of gmm." in text
    assert "Classifiers that see one modality reach" in text
    assert "of their accuracy after real rows, on average, after samples of gmm." in text
    assert "other samples" not in told(only(results, "gmm"), "useful")


def test_synthetic_rows_beside_few_real_ones(results: Results) -> None:
    text = told(results, "useful")
    assert (
        "With 100 real rows, on which autoencoder (mvtcae), density (gmm) and classifiers are all trained, the joint "
        "classifier is right on 71.0 %. Adding 5 × synthetic rows lifts that to 78.0 %, by 7.0 percentage points "
        in text
    )
    assert "Classical augmentation in their place reaches 75.0 %: synthetic rows stand 3.0 percentage points (" in text
    assert "; both together reach 80.0 %, 5.0 percentage points (" in text
    assert "These are means over three seeds." in text
    arms = results.augmentation["100"]

    def gains(low: float, high: float) -> str:
        gain = {"joint": {"value": (low + high) / 2, "low": low, "high": high}}
        worse = arms["synthetic_5x"] | {"over_real": gain, "over_classical": gain}
        some = {"real": arms["real"], "classical": arms["classical"], "synthetic_5x": worse}
        return told(replace(results, augmentation={"100": some}, augmented=()), "useful")

    assert "makes that 78.0 %, which is no clear change: 1.0 percentage points (−1.0 to 3.0)." in gains(-0.01, 0.03)
    assert "synthetic rows stand not clearly apart, by 1.0 percentage points (−1.0 to 3.0), from it." in gains(
        -0.01, 0.03
    )
    assert "lowers that to 78.0 %, by 2.0 percentage points (1.0 to 3.0)." in gains(-0.03, -0.01)
    assert "With 100 real rows, on which autoencoder, density and classifiers" in gains(0.0, 0.0)
    assert "seeds" not in gains(0.0, 0.0)
    assert "100 real rows" not in told(replace(results, augmentation={}), "useful")


def test_what_densities_impute_is_told_beside_the_best_other_imputer(results: Results) -> None:
    assert (
        "Where held-out rows lose one of their modalities, gmm imputes best of three densities, with an energy score "
        "of 0.600 (0.588 to 0.612), which is clearly better than that of nearest neighbours, the best "
        "other imputer (paired difference −0.040 (−0.045 to −0.035)). Its 90 % intervals hold 90.2 % (89.6 to 90.8) "
        "of the continuous values that were lost." in told(results, "useful")
    )
    assert "modalities, flow imputes with an energy score of 0.660" in told(only(results, "flow"), "useful")
    task = made_up.recovery("gmm")["modalities"]

    def beside(**differences: tuple[float, float]) -> str:
        against = {
            other: {"energy_score": {"value": (low + high) / 2, "low": low, "high": high}}
            for other, (low, high) in differences.items()
        }
        return told(changed(results, "gmm", imputation={"modalities": task | {"against": against}}), "useful")

    worse = beside(neighbours=(0.01, 0.03), iterative=(0.02, 0.04), mean=(-0.4, -0.3))
    assert (
        "which is clearly worse than that of chained regressions, the best other imputer (paired difference 0.030 "
        "(0.020 to 0.040))." in worse
    )
    unclear = beside(neighbours=(-0.01, 0.03), mean=(-0.4, -0.3))
    assert (
        "which is not clearly apart from that of nearest neighbours, the best other imputer (paired difference 0.010 "
        "(−0.010 to 0.030))." in unclear
    )
    assert "0.600 (0.588 to 0.612). Its 90 % intervals" in beside()


def test_what_is_imputed_is_told_of_the_tasks_and_densities_that_there_are(results: Results) -> None:
    assert "lose cells" not in told(results, "useful")
    both = changed(results, "vamp", imputation=made_up.recovery("vamp", tasks=("modalities", "cells")))
    assert "Where held-out rows lose cells of tables and vectors, vamp imputes with an energy score of 0.620" in told(
        both, "useful"
    )
    assert "gmm imputes best of three densities" in told(both, "useful")
    classes = made_up.recovery("gmm")["modalities"] | {"coverage": None}  # none of whose values is continuous
    assert "90 % intervals" not in told(changed(results, "gmm", imputation={"modalities": classes}), "useful")
    lacking = told(changed(results, "gmm", imputation={}), "useful")  # as if it had not been recovered yet
    assert "vamp imputes best of two densities" in lacking
    assert "imputes" not in told(without(results, "imputation"))


def test_what_was_not_run_is_said(results: Results) -> None:
    bare = replace(without(results, "utility", "privacy", "imputation"), augmentation={})
    assert told(bare, "useful") == "The stage utility has not run, so nothing here says whether samples teach."
    assert told(bare, "leaks").startswith("The stage privacy has not run, so nothing here says whether samples leak.")


def test_leaks_are_named(results: Results) -> None:
    text = told(results, "leaks")
    for sentence in (
        "No test of privacy flags gmm or flow.",
        "vamp is flagged by near copies and the attack: do not share its samples.",
        "By distances to training rows, flow shows traces of its training rows: more than by chance, less than is "
        "flagged.",
        "There are no near copies of training rows among the samples of gmm and flow.",
        "6.0 % (3.6 to 8.4) of the samples of vamp are near copies of training rows (1 % of held-out rows are, "
        "by definition); over all spaces, samples come nearest to train-0, train-31 and train-62, and others that "
        "results/privacy lists.",
        "flow, clearly better than a coin for vamp alone (0.5).",
        "vamp: the artefact holds codes of training rows.",
        "None of these tests is differential privacy",
        "more are among the draws of vamp (6.0 %).",
    ):
        assert sentence in text
    clean = told(only(results, "gmm"), "leaks")
    assert "with an AUC of 0.512 (0.499 to 0.525) of gmm, not clearly better than a coin (0.5)." in clean
    assert "flagged" not in clean
    assert "traces" not in clean
    few = results.row("gmm").scores["privacy"]
    few = {**few, "spaces": {"joint": {"near_copies": made_up.share(0.011, 0.002)}}}
    usual = told(only(changed(results, "gmm", privacy=few), "gmm"), "leaks")
    assert "1 % by definition: 1.1 % (0.9 to 1.3) of the samples of gmm." in usual
    assert "an attacker" not in usual
    assert "none clearly better than a coin" in told(only(results, "gmm", "flow"), "leaks")
    assert "of vamp, clearly better than a coin (0.5)." in told(only(results, "vamp"), "leaks")


def test_of_many_densities_the_lowest_and_the_highest_are_told(results: Results) -> None:
    more = [replace(results.row("flow"), name=f"flow {i}") for i in range(3)]
    many = replace(results, rows=(*results.rows, *more))
    text = told(many)
    assert (
        "an AUC of 0.508 (0.495 to 0.521) of flow at the lowest and 0.710 (0.697 to 0.723) of vamp at the highest, "
        "clearly better than a coin for vamp alone" in text
    )
    assert "Of the accuracy after real rows, other samples reach from 77.9 % (flow 2) to 94.7 % (vamp)." in text
    assert "flow, flow 0, flow 1 and flow 2 show traces of their training rows: more than by chance" in text
    assert "No test of privacy flags gmm, flow, flow 0, flow 1 or flow 2." in text


def test_rows_with_and_without_labels_are_ranked_by_distance(results: Results, unlabelled: Results) -> None:
    rows = [*results.rows, replace(unlabelled.row("gmm"), name="other: gmm", source="other")]
    mixed = replace(results, rows=tuple(rows))
    assert not mixed.labelled
    assert headline(mixed).startswith("vamp draws the samples nearest to real rows")  # the first of those rows
    assert "follows with a Frechet distance" in told(mixed)


def test_cautions_are_told_once(results: Results) -> None:
    few, fewer = "1000 rows are few for 320 features.", "the features hardly vary."
    some = changed(changed(results, "gmm", cautions=[few, fewer]), "flow", cautions=[few])
    text = told(some, "basis")
    assert f"gmm and flow: {few}" in text
    assert f"gmm: {fewer}" in text
    rows = tuple(replace(row, scores=row.scores | {"cautions": [few]}) for row in results.rows)
    assert told(replace(results, rows=rows), "basis").count(few) == 1
    others = replace(results, cautions=("Real rows score otherwise in mopoe.",))
    assert "Real rows score otherwise in mopoe." in told(others, "basis")


def test_advice_on_the_latent_space_and_choices_are_told(results: Results) -> None:
    assert "4 of 32 latent dimensions carry nothing" in told(results, "basis")
    text = told(changed(results, "flow", why="gmm stands alone"))
    assert "flow compared its candidates on held-out codes: gmm stands alone." in text


def test_words() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert points(Estimate(0.01)) == "1.0 percentage points"
    assert percent(-0.0001) == "0.0\u202f%"
    assert number_with(Estimate(-1.5, -2.0, 1.0), 1) == "−1.5 (−2.0 to 1.0)"
    assert [count(n) for n in (1, 9, 10)] == ["one", "nine", "10"]


def test_a_difference_inside_the_noise_is_told(results: Results) -> None:
    noise = {"joint_coherence": {"value": 0.01, "low": -0.02, "high": 0.04}}
    unclear = changed(results, "vamp", difference_to_normal=noise)
    assert "which does not lie above 0" in told(unclear)
    assert headline(unclear).startswith("No fitted density is told apart from the autoencoder's own prior: in the best")


def test_a_gap_inside_the_noise_has_no_share(results: Results) -> None:
    text = told(changed(results, "vamp", gap_closed={"joint_coherence": None}))
    assert "no share of the gap from the floor to them is given: it lies inside the noise" in text
    assert "closes" not in text


def test_no_gain_over_the_posterior_is_told(results: Results) -> None:
    noise = {"value": -0.004, "low": -0.02, "high": 0.01}
    worse = {"value": -0.1, "low": -0.12, "high": -0.08}
    text = told(changed(results, "gmm", conditional_gain={"1": noise, "2": worse}))
    assert "not clearly apart, by −0.4 percentage points (−2.0 to 1.0), from the plain posterior;" in text
    assert "10.0 percentage points (8.0 to 12.0) below it." in text
    plain = [row if row.kind != "density" else Row(row.name, row.kind, {}) for row in results.rows]
    assert "posterior" not in told(replace(results, rows=tuple(plain)))


def test_what_conditioned_private_codes_add_is_told(results: Results) -> None:
    gain, noise = {"value": 0.3, "low": 0.2, "high": 0.4}, {"value": 0.01, "low": -0.02, "high": 0.04}
    text = told(changed(results, "flow", private_gain={"1": gain, "2": gain, "3": noise}))
    assert "from flow given the other codes, instead of from the prior, changes the share" in text
    assert "by 30.0 percentage points (20.0 to 40.0) given one other modality, and by 1.0" in text
    assert "none of these" not in text
    assert ", which is not clearly above 0." in told(changed(results, "flow", private_gain={"1": noise}))
    assert "; none of these is clearly above 0." in told(
        changed(results, "flow", private_gain={"1": noise, "2": noise})
    )
    assert "rivate codes" not in told(results)


def test_thresholds_are_those_of_the_metrics() -> None:
    assert COPIES == NEAR
    assert COLLAPSED == health.COLLAPSED


def test_labels_given_by_judges_are_told(results: Results) -> None:
    assert "flow: the labels of the samples were given by the classifiers." in told(
        changed(results, "flow", labels_from="judges")
    )


def test_one_density_has_no_rivals(results: Results) -> None:
    alone = only(results, "gmm")
    assert headline(alone).startswith("gmm draws the most coherent samples: in 80.0")
    assert "follows" not in told(alone)


def test_scores_that_are_missing_are_told_by_reason(results: Results) -> None:
    few, unsure = "there is one row", "too few rows for an interval"
    missing = {"value": None, "why": few}
    alone = {"value": 0.5, "low": None, "high": None, "why": unsure}
    some = changed(results, "gmm", precision=missing, coverage=missing, density=alone)
    text = told(some, "basis")
    assert f"Without a value in some rows: Precision and Coverage. The reason: {few}." in text
    assert f"Without an interval in some rows: Density. The reason: {unsure}." in text
    assert "Without" not in told(results, "basis")
    gap = {"joint_coherence": missing}
    assert f"to them is given: {few}." in told(changed(results, "vamp", gap_closed=gap))


def test_nothing_is_best_where_nothing_is_scored(results: Results) -> None:
    missing = {"value": None, "why": "there is one row"}
    rows = [
        replace(row, scores=row.scores | {"joint_coherence": missing, "frechet_distance": missing})
        for row in results.rows
    ]
    assert headline(replace(results, rows=tuple(rows))) == "The samples have no scores: there is one row."


def test_tests_that_could_not_be_made_flag_nobody_and_clear_nobody(results: Results) -> None:
    missing = {"value": None, "why": "there is one row"}
    tests = dict.fromkeys(("distance_ratio", "near_copies", "authenticity", "membership_auc"), missing)
    nothing = results.row("gmm").scores["privacy"] | {
        "spaces": {"joint": tests},
        "flagged": [],
        "near_copies": [],
    }
    text = told(changed(only(results, "gmm"), "gmm", privacy=nothing), "leaks")
    assert "No test of privacy flags" not in text
    assert (
        "For gmm, over all modalities together, there is no result by distances to training rows, near copies, "
        "authenticity and the attack: there is one row." in text
    )


def test_an_imputer_that_failed_is_told(results: Results) -> None:
    failed = {"value": None, "why": "it failed on these data: its values grew without bound"}
    imputers = tuple(
        replace(row, scores={"imputation": {"modalities": {"energy_score": failed}}})
        if row.title == "Chained regressions"
        else row
        for row in results.imputers
    )
    text = told(replace(results, imputers=imputers), "useful")
    assert "Chained regressions say nothing where held-out rows lose one of their modalities: it failed on" in text
    assert "say nothing" not in told(results, "useful")
