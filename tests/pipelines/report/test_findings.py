"""The headline and the findings of the report, in all cases that they distinguish."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import report_results as made_up
from support.report_project import make_project, results_of, without

from postprior.pipelines.metrics.latent import health
from postprior.pipelines.metrics.privacy.proximity import CAUTION
from postprior.pipelines.report.findings import QUESTIONS, findings
from postprior.pipelines.report.findings.ranking import ranking
from postprior.pipelines.report.plots.latent import COLLAPSED
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row
from postprior.pipelines.report.wording import (
    Finding,
    compared,
    folded,
    in_words,
    listed,
    number,
    number_ci,
    p_value,
    percent,
    percent_ci,
    points_ci,
    rounded,
)

SAME_LABEL = "all 5 modalities show the same label"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(make_project(tmp_path_factory.mktemp("findings")))


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results_of(make_project(tmp_path_factory.mktemp("unlabelled"), labels=False))


def changed(results: Results, name: str, **scores: Any) -> Results:
    """The results with changed scores in one row."""
    rows = [replace(row, scores=row.scores | scores) if row.name == name else row for row in results.rows]
    return replace(results, rows=tuple(rows))


def only(results: Results, *names: str) -> Results:
    """The results of some densities only."""
    return replace(results, rows=tuple(row for row in results.rows if row.kind != "density" or row.name in names))


def every(results: Results) -> list[Finding]:
    """All findings, about the first density."""
    return [*findings(results, results.densities[0])]


def sentences(results: Results, question: str = "") -> str:
    """All findings, or those that answer one question, as one text with plain spaces."""
    texts = [finding.text for finding in every(results) if question in ("", finding.question)]
    return " ".join(texts).replace("\u202f", " ")


def test_every_question_is_answered_in_whole_sentences(results: Results, unlabelled: Results) -> None:
    for case in (results, unlabelled, only(results, "gmm"), only(unlabelled, "vamp")):
        found = every(case)
        assert list(dict.fromkeys(finding.question for finding in found)) == list(QUESTIONS)
        for text in (finding.text for finding in found):
            assert re.fullmatch(r"[^\s].*[^\s.]\.", text), text
            assert not re.search(r"  | ,|\.\.|\bnan\b|\binf\b|None\b(?! of)|\{", text), text


def test_without_labels_distance_is_what_counts(unlabelled: Results) -> None:
    assert [row.name for row in unlabelled.densities] == ["gmm", "vamp", "flow"]
    assert ranking(unlabelled) == (
        "Of 3 fitted densities, gmm draws the samples nearest to real rows: their Frechet distance is 8.60."
    )
    text = sentences(unlabelled)
    assert (
        "gmm closes 100 % of the gap between the normal prior and the reconstructions, measured by Frechet distance."
        in text
    )
    assert (
        "vamp is second with a Frechet distance of 9.40. The difference to gmm is significant (paired difference, gmm "
        "minus vamp: −0.80, 95 % CI" in text
    )
    assert "Precision alone does not reveal a collapse of diversity." in text
    assert (
        "Without labels, no classifier can be trained, so the usefulness of samples as training data is unknown."
        in text
    )
    assert "label" not in sentences(unlabelled, "faithful")
    worse = {"frechet_distance": {"value": -1.0, "low": -3.0, "high": 0.5}}
    inside = changed(unlabelled, "gmm", difference_to_normal=worse, gap_closed={"frechet_distance": None})
    assert ranking(inside) == (
        "By Frechet distance, no fitted density is clearly better than the autoencoder's own prior. The first density "
        "is gmm."
    )
    assert (
        "The share that gmm closes of the gap between the normal prior and the reconstructions, measured by Frechet "
        "distance, is not given: the confidence interval of the gap contains 0." in sentences(inside)
    )
    assert ranking(only(unlabelled, "gmm")) == "The samples of gmm have a Frechet distance of 8.60 to real rows."


def test_paired_tests_decide_who_is_ahead(results: Results) -> None:
    assert (
        "gmm is second with a joint coherence of 80.0 %. The difference to vamp is significant (paired difference, "
        "vamp minus gmm: 2.0 percentage points, 95 % CI 0.8 to 3.7; p = 0.010 after Holm's correction)."
        in sentences(results)
    )
    unclear = tuple(replace(pair, p_holm=0.4) for pair in results.pairs)
    assert "The difference to vamp is not significant (paired difference, vamp minus gmm: 2.0" in sentences(
        replace(results, pairs=unclear)
    )
    assert "worse" not in ranking(results) + ranking(only(replace(results, pairs=unclear), "vamp"))
    assert ranking(replace(results, pairs=unclear)).endswith("label; gmm is not clearly worse.")
    without = replace(results, pairs=())
    assert "of 80.0 %. The 95 % confidence intervals of the two overlap." in sentences(without)
    worse = {"value": 0.5, "low": 0.48, "high": 0.52}
    assert "intervals of the two do not overlap." in sentences(changed(without, "gmm", joint_coherence=worse))
    assert "gmm is second with a joint coherence of 80.0 %. Given" in sentences(
        changed(without, "gmm", joint_coherence=0.8)
    )


def test_a_collapse_does_not_win_unnoticed(results: Results) -> None:
    assert "far less even" not in ranking(results) + sentences(results)
    collapse = changed(results, "vamp", label_entropy={"value": 0.4, "low": 0.35, "high": 0.45})
    uneven = ", but its labels are far less even than those of real rows"
    assert ranking(collapse).endswith(f"{SAME_LABEL}{uneven}.")
    assert "β-recall 0.485 (real rows 0.499). Their labels are far less even than those of real rows." in sentences(
        collapse
    )


def test_no_overfitting_is_stated(results: Results) -> None:
    assert (
        "gmm has the largest gap between the log-likelihoods of training and validation codes: 4.50 nats per row."
        in sentences(results)
    )
    fits = {name: {"overfitting": -0.1} for name in made_up.FITS}
    for name, scores in fits.items():
        results = changed(results, name, **scores)
    assert "No density assigns training codes a higher likelihood than validation codes." in sentences(results)


def test_pairings_measure_coherence_without_labels(results: Results) -> None:
    lacking = {"value": 0.2, "low": 0.1, "high": 0.3}
    text = sentences(changed(results, "vamp", pairing_auc=made_up.share(0.73), incoherence=lacking))
    assert (
        "The pairing classifier distinguishes true from shuffled pairings of modalities with an AUC of 0.930 in real "
        "rows and of 0.730 in samples of vamp. The first AUC minus the second, the incoherence, is 0.20 (95 % CI "
        "0.10 to 0.30), which is clearly above 0. Canonical correlations" in text
    )
    assert "(95 % CI −0.027 to 0.033), which is not clearly above 0." in sentences(results)
    assert "pairings" not in sentences(changed(results, "vamp", pairing_auc=None))


def test_columns_of_tables_are_compared(results: Results) -> None:
    modalities = results.row("vamp").scores["modalities"]
    table = made_up.table()
    text = sentences(changed(results, "vamp", modalities=modalities | {"visit": table}))
    assert (
        "In visit, the similarity to real rows is 94.0 % (95 % CI 92.0 to 96.0) for distributions of single columns. "
        "Of its 2 columns, sex differs significantly from real rows (5 % level, corrected for the number of columns)."
        in text
    )
    table["columns"]["sex"]["p_value"] = 0.03  # twice that is more than 5 %: two columns were tested
    text = sentences(changed(results, "vamp", modalities=modalities | {"visit": table}))
    assert "Of its 2 columns, none differs significantly" in text
    table["columns"] = {name: {"p_value": 0.0} for name in ("age", "sex")}
    assert "age and sex differ significantly" in sentences(changed(results, "vamp", modalities={"visit": table}))


def test_cells_are_compared_with_real_rows_and_samplers_without_a_model(results: Results) -> None:
    scores = {"quality": made_up.share(0.94), "column_shapes": made_up.share(0.95), "c2st_auc": made_up.share(0.7)}
    copula = Row("gaussian_copula", "baseline", {"quality": made_up.share(0.86), "c2st_auc": made_up.share(0.9)})
    text = sentences(
        replace(changed(results, "vamp", **scores), rows=(*changed(results, "vamp", **scores).rows, copula))
    )
    assert "The table quality of vamp is 94.0 % (95 % CI 92.0 to 96.0), which is the mean of 95.0 % for single" in text
    assert "Beside it, the score is 86.0 % for Gaussian copula." in text
    assert "tells samples of vamp from real rows with an AUC of 0.700 (95 % CI 0.680 to 0.720)" in text
    assert "Table quality" not in text


def test_synthetic_rows_in_place_of_real_ones(results: Results) -> None:
    text = " ".join(finding.text for finding in findings(results, results.row("gmm"))).replace("\u202f", " ")
    assert (
        "A classifier that is trained on samples of gmm alone reaches an accuracy of 93.1 % (95 % CI 91.6 to 94.6) on "
        "held-out real rows. This is 98.0 % (95 % CI 97.0 to 99.0) of the accuracy with real training rows, 95.0 %. "
        "Samples of other densities reach 94.7 % (vamp) and 77.9 % (flow) of the accuracy with real rows." in text
    )
    assert "on real rows classifies 94.1 % (95 % CI 92.6 to 95.6) of the samples of gmm correctly." in text
    assert "Classifiers of single modalities that are trained on samples of gmm reach, on average over the" in text
    assert "other densities" not in sentences(only(results, "gmm"), "useful")


def test_synthetic_rows_beside_few_real_ones(results: Results) -> None:
    text = sentences(results, "useful")
    assert (
        "Adding 5 times as many synthetic rows to 100 real rows raises the accuracy of the joint classifier from "
        "71.0 % to 78.0 %, a gain of 7.0 percentage points (95 % CI" in text
    )
    assert (
        "Classical augmentation reaches 75.0 %; the accuracy with synthetic rows is 3.0 percentage points (95 %" in text
    )
    assert "Both together reach 80.0 %, which is 5.0 percentage points (95 % CI" in text
    assert (
        "higher than classical augmentation. The autoencoder (mvtcae), the density (gmm) and the classifiers are all "
        "trained on the same 100 real rows. All values are means over three seeds." in text
    )
    arms = results.augmentation["100"]

    def gains(low: float, high: float) -> str:
        gain = {"joint": {"value": (low + high) / 2, "low": low, "high": high}}
        worse = arms["synthetic_5x"] | {"over_real": gain, "over_classical": gain}
        some = {"real": arms["real"], "classical": arms["classical"], "synthetic_5x": worse}
        one_seed = {"100": {**results.augmented["100"], "seeds": [0]}}
        return sentences(replace(results, augmentation={"100": some}, augmented=one_seed), "useful")

    unclear = gains(-0.01, 0.03)
    assert (
        "from 71.0 % to 78.0 %, which is no clear difference (1.0 percentage points, 95 % CI −1.0 to 3.0)." in unclear
    )
    assert (
        "the accuracy with synthetic rows is not clearly different from this (difference 1.0 percentage points, 95 % "
        "CI −1.0 to 3.0)." in unclear
    )
    assert "to 78.0 %, a loss of 2.0 percentage points (95 % CI 1.0 to 3.0)." in gains(-0.03, -0.01)
    assert "seeds" not in gains(0.0, 0.0)


def test_an_augmentation_that_is_switched_off_is_reported(results: Results) -> None:
    off = "The setting augment.sizes is empty, so the gain from adding synthetic rows to few real rows is unknown."
    none = replace(results, augmentation={}, augmented={})
    assert off in sentences(replace(none, augmentation_sizes=()), "useful")
    assert off not in sentences(none, "useful")
    assert "100 real rows" not in sentences(none, "useful")


def test_densities_are_compared_with_the_best_baseline_imputer(results: Results) -> None:
    assert (
        "When one modality of each held-out row is hidden, gmm is the best of three densities, with an energy "
        "score of 0.600 (95 % CI 0.588 to 0.612). This is clearly better than the energy score of the best baseline "
        "imputer, nearest neighbours (paired difference −0.040, 95 % CI −0.045 to −0.035). The 90 % intervals "
        "of gmm contain 90.2 % (95 % CI 89.6 to 90.8) of the hidden continuous values." in sentences(results, "useful")
    )
    assert (
        "is hidden, the error of the mean of the draws of gmm is 0.91 to 0.98 times that of the baseline imputers. "
        "It is 0.978 (95 % CI 0.969 to 0.988) times that of nearest "
        "neighbours, 0.968 (95 % CI 0.958 to 0.978) times that of iterative ridge," in sentences(results, "useful")
    )
    assert "is hidden, flow imputes with an energy score of 0.660" in sentences(only(results, "flow"), "useful")
    task = made_up.imputation("gmm")["modalities"]

    def against_imputers(**differences: tuple[float, float]) -> str:
        against = {
            other: {"energy_score": {"value": (low + high) / 2, "low": low, "high": high}}
            for other, (low, high) in differences.items()
        }
        return sentences(changed(results, "gmm", imputation={"modalities": task | {"against": against}}), "useful")

    worse = against_imputers(neighbours=(0.01, 0.03), iterative=(0.02, 0.04), mean=(-0.4, -0.3))
    assert (
        "This is clearly worse than the energy score of the best baseline imputer, iterative ridge (paired "
        "difference 0.030, 95 % CI 0.020 to 0.040)." in worse
    )
    unclear = against_imputers(neighbours=(-0.01, 0.03), mean=(-0.4, -0.3))
    assert (
        "This is not clearly different from the energy score of the best baseline imputer, nearest neighbours (paired "
        "difference 0.010, 95 % CI −0.010 to 0.030)." in unclear
    )
    assert "0.600 (95 % CI 0.588 to 0.612). The 90 % intervals" in against_imputers()


def test_imputation_is_reported_by_task(results: Results) -> None:
    assert "cells of tables" not in sentences(results, "useful")
    both = changed(results, "vamp", imputation=made_up.imputation("vamp", tasks=("modalities", "cells")))
    assert (
        "When cells of tables and vectors in held-out rows are hidden, vamp imputes with an energy score of 0.620"
        in sentences(both, "useful")
    )
    assert "gmm is the best of three densities" in sentences(both, "useful")
    classes = made_up.imputation("gmm")["modalities"] | {"coverage": None}  # none of whose values is continuous
    assert "90 % intervals" not in sentences(changed(results, "gmm", imputation={"modalities": classes}), "useful")
    lacking = sentences(changed(results, "gmm", imputation={}), "useful")  # as if it had not been evaluated yet
    assert "vamp is the best of two densities" in lacking
    assert "energy score" not in sentences(without(results, "imputation"))


def test_stages_that_did_not_run_are_named(results: Results) -> None:
    bare = replace(without(results, "utility", "privacy", "imputation"), augmentation={})
    assert sentences(bare, "useful") == (
        "The stage utility has not run, so the usefulness of samples as training data is unknown."
    )
    assert sentences(bare, "leaks").startswith(
        "The stage privacy has not run, so it is unknown whether samples leak training rows."
    )


def test_a_ratio_without_a_value_gives_its_reason(results: Results) -> None:
    why = "no test row is labelled correctly after training on real rows"
    missing = {"ratio_to_real": {"joint": {"value": None, "why": why}}}
    found = sentences(only(changed(results, "gmm", utility=missing), "gmm"), "useful")
    assert "No test row is labelled correctly after training on real rows, so the usefulness of samples" in found


def test_leaks_are_named(results: Results) -> None:
    text = sentences(results, "leaks")
    for sentence in (
        "No privacy test flags gmm or flow.",
        "vamp is flagged by the share of near copies, the membership inference attack and the linkage attack: do not "
        "share its samples.",
        "According to the distance ratio, flow leaks more about training rows than expected by chance, but not enough "
        "for a flag.",
        "The samples of gmm and flow contain no near copies of training rows.",
        "6.0 % (95 % CI 3.6 to 8.4) of the samples of vamp are near copies of training rows; without a leak, 1 % "
        "are expected. The nearest copies, in any modality, in all of them together or in the "
        "codes, are those of train-0, train-31 and train-62; results/privacy lists more.",
        "for flow. This is clearly better than chance (0.5) only for vamp.",
        "An attacker who has two partial records of a person links them through the samples of vamp in 44.0 % of the "
        "cases if the person was in the training data, and in 20.0 % if not. The risk is the share of wrong guesses "
        "that training on a person makes right; it is clearly above 0 only for vamp: ",
        "0.300 (95 % CI 0.260 to 0.340) for vamp",
        "the attribute inference attack, the singling-out attack and the singling-out attack with one attribute could "
        "not be made: the data have no tables or vectors, so that no value is an attribute of its own.",
        "The fitted artefact of vamp stores codes of training rows.",
        CAUTION,
        "Among drawn codes, their share is 6.0 % (95 % CI 3.6 to 8.4) for vamp.",
    ):
        assert sentence in text
    elsewhere = results.row("vamp").scores["privacy"] | {"flagged_in": {"near_copies": ["m1", "codes"]}}
    assert "(in m1 and codes, not over all modalities together): do not share its samples." in sentences(
        only(changed(results, "vamp", privacy=elsewhere), "vamp"), "leaks"
    )
    averaged = results.row("gmm").scores["privacy"] | {"pairs": {"membership_auc": ["m0 + m1", "m0 + m2"]}}
    assert "is the mean over two pairs of modalities that rows have." in sentences(
        only(changed(results, "gmm", privacy=averaged), "gmm"), "leaks"
    )
    clean = sentences(only(results, "gmm"), "leaks")
    assert "AUC of 0.512 (95 % CI 0.499 to 0.525) for gmm. This is not clearly better than chance (0.5)." in clean
    assert "flagged" not in clean
    assert "than expected by chance" not in clean
    own = results.row("gmm").scores["privacy"]
    own = own | {
        "detected": ["membership_auc", "distance_ratio"],
        "detected_in": {"membership_auc": ["m1"], "distance_ratio": ["m1"]},
        "spaces": own["spaces"] | {"m1": {"membership_auc": made_up.share(0.56, 0.02)}},
    }
    traced = sentences(only(changed(results, "gmm", privacy=own), "gmm"), "leaks")
    assert "According to the distance ratio (in m1, not over all modalities together), gmm leaks more" in traced
    assert (
        "This is not clearly better than chance (0.5). For gmm, an attack on m1 alone (0.560, 95 % CI 0.540 to 0.580) "
        "is clearly better than chance. This is not enough for a flag." in traced
    )
    few = results.row("gmm").scores["privacy"]
    few = {**few, "attacks": {}, "spaces": {"joint": {"near_copies": made_up.share(0.011, 0.002)}}}
    usual = sentences(only(changed(results, "gmm", privacy=few), "gmm"), "leaks")
    assert "where 1 % are expected. They are 1.1 % (95 % CI 0.9 to 1.3) of the samples of gmm." in usual
    assert "attacker" not in usual
    assert "None of these AUCs is clearly better than chance" in sentences(only(results, "gmm", "flow"), "leaks")
    assert "for vamp. This is clearly better than chance (0.5)." in sentences(only(results, "vamp"), "leaks")
    high = results.row("vamp").scores["privacy"]
    both = only(changed(results, "gmm", privacy=high), "gmm", "vamp")
    assert "All of these AUCs are clearly better than chance" in sentences(both, "leaks")


def test_attacks_on_single_people_say_what_an_attacker_could_do(results: Results) -> None:
    def rates(main: float, control: float, risk: tuple[float, float, float], **more: Any) -> dict[str, Any]:
        sides = {"main": made_up.share(main), "control": made_up.share(control), "naive": 0.1, "attacks": 2000}
        return dict(zip(("value", "low", "high"), risk, strict=True)) | sides | more

    secrets = [{"attribute": name, "value": 0.4, "low": low, "high": 0.5} for name, low in (("age", 0.3), ("sex", 0.1))]
    attacks = {
        "attribute_inference": rates(0.6, 0.5, (0.2, 0.15, 0.25), secrets=secrets),
        "linkability": {"value": None, "why": "the data have only one column"},
        "singling_out": rates(0.11, 0.1, (0.011, -0.02, 0.04)),
        "singling_out_univariate": rates(0.9, 0.1, (0.89, 0.8, 0.95)),
    }
    found = changed(results, "gmm", privacy=results.row("gmm").scores["privacy"] | {"attacks": attacks})
    text = sentences(only(found, "gmm"), "leaks")
    for sentence in (
        "guesses it from the samples of gmm. The guess is right in 60.0 % of the cases if the person was in the "
        "training data, and in 50.0 % if not.",
        "it is clearly above 0: 0.20 (95 % CI 0.15 to 0.25) for gmm. It is greatest for the attribute age: 0.40 ",
        "An attacker takes a combination of attributes that only one sample of gmm has. In 11.0 % of the cases exactly "
        "one person in the training data has it; if samples told nothing about single people, this would be 10.0 %. "
        "Guesses without the samples are right in 10.0 % of the cases, so this attack learns nothing from them.",
        "it is not clearly above 0: 0.011 (95 % CI −0.020 to 0.040) for gmm.",
        "For gmm, the linkage attack could not be made: the data have only one column.",
    ):
        assert sentence in text
    assert text.count("Guesses without the samples") == 1
    flags = results.row("gmm").scores["privacy"] | {"flagged": ["singling_out_univariate"]}
    assert "gmm is flagged by the singling-out attack with one attribute" in sentences(
        only(changed(results, "gmm", privacy=flags), "gmm"), "leaks"
    )


def test_only_the_lowest_and_the_highest_of_many_densities_are_named(results: Results) -> None:
    more = [replace(results.row("flow"), name=f"flow {i}") for i in range(3)]
    many = replace(results, rows=(*results.rows, *more))
    text = sentences(many)
    assert (
        "an AUC of between 0.508 (95 % CI 0.495 to 0.521) for flow and 0.710 (95 % CI 0.697 to 0.723) for vamp. This "
        "is clearly better than chance (0.5) only for vamp." in text
    )
    assert (
        "Samples of other densities reach between 77.9 % (flow 2) and 98.0 % (gmm) of the accuracy with real rows."
        in text
    )
    assert "According to the distance ratio, flow, flow 0, flow 1 and flow 2 leak more about training rows" in text
    assert "No privacy test flags gmm, flow, flow 0, flow 1 or flow 2." in text


def test_rows_with_and_without_labels_are_ranked_by_distance(results: Results, unlabelled: Results) -> None:
    rows = [*results.rows, replace(unlabelled.row("gmm"), name="other: gmm", source="other")]
    mixed = replace(results, rows=tuple(rows))
    assert not mixed.labelled
    assert ranking(mixed).startswith("Of 4 fitted densities, vamp draws the samples nearest")  # the first of those rows
    assert "is second with a Frechet distance" in sentences(mixed)


def test_each_caution_is_given_once(results: Results) -> None:
    few, fewer = "1000 rows are few for 320 features.", "the features hardly vary."
    some = changed(changed(results, "gmm", cautions=[few, fewer]), "flow", cautions=[few])
    text = sentences(some, "reliability")
    assert f"gmm and flow: {few}" in text
    assert f"gmm: {fewer}" in text
    rows = tuple(replace(row, scores=row.scores | {"cautions": [few]}) for row in results.rows)
    assert sentences(replace(results, rows=rows), "reliability").count(few) == 1
    others = replace(results, cautions=("Real rows have other scores in mopoe.",))
    assert "Real rows have other scores in mopoe." in sentences(others, "reliability")


def test_advice_on_the_latent_space_and_model_selection(results: Results) -> None:
    assert "8 of 32 latent dimensions carry almost no information: use 24 in all" in sentences(results, "reliability")
    text = sentences(changed(results, "flow", why="gmm stands alone"))
    assert "flow compared its candidates on held-out codes: gmm stands alone." in text


def test_formatting() -> None:
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert points_ci(Estimate(0.01)) == "1.0 percentage points"
    assert compared(Estimate(-0.02, -0.03, -0.01), "it") == (
        "2.0 percentage points (95\u202f% CI 1.0 to 3.0) lower than it"
    )
    assert percent(-0.0001) == "0.0\u202f%"
    assert number_ci(Estimate(-1.5, -2.0, 1.0), 1) == "−1.5 (95\u202f% CI −2.0 to 1.0)"
    assert number_ci(Estimate(-1.5, -2.0, 1.0), 1, nested=True) == "−1.5, 95\u202f% CI −2.0 to 1.0"
    assert percent_ci(Estimate(1.0, 1.0, 1.0)) == "100.0\u202f%"  # an interval of one point
    assert number_ci(Estimate(-12.01, -12.04, -11.98), 0) == "−12.01 (95\u202f% CI −12.04 to −11.98)"
    assert (
        number_ci(Estimate(43522.1687, 41000.3, 46021.9), 4) == "43\u202f522 (95\u202f% CI 41\u202f000 to 46\u202f022)"
    )
    assert points_ci(Estimate(0.117, 0.03, 0.18)) == "12 percentage points (95\u202f% CI 3 to 18)"
    assert [number(value, 2) for value in (-1234.56, 999.4, 0.0)] == ["−1235", "999.40", "0.00"]
    assert [rounded(value) for value in (331.26, 75.804, 0.0141, 2.0, 0.0)] == ["331", "75.8", "0.0141", "2.00", "0.00"]
    first, others = "The ratio is 0.5 (95\u202f% CI 0.4 to 0.6).", "It is 1 if nothing is memorised. " + "More. " * 40
    assert folded([first, others.strip()]) == (first, others.strip())
    assert folded([first, "Short."]) == (f"{first} Short.", "")
    assert folded(["One sentence " * 30]) == ("One sentence " * 30, "")
    assert [p_value(p) for p in (1e-20, 0.01, 1.0)] == ["<\u202f0.001", "0.010", "1.000"]
    assert [in_words(n) for n in (1, 9, 10)] == ["one", "nine", "10"]


def test_a_difference_inside_the_noise(results: Results) -> None:
    noise = {"joint_coherence": {"value": 0.01, "low": -0.02, "high": 0.04}}
    unclear = changed(results, "vamp", difference_to_normal=noise)
    assert "is 1.0 percentage points (95 % CI −2.0 to 4.0), which is not clearly above 0." in sentences(unclear)
    assert ranking(unclear).replace("\u202f", " ") == (
        "By joint coherence, no fitted density is clearly better than the autoencoder's own prior. The first density "
        "is vamp: in 82.0 % of its samples, all 5 modalities show the same label."
    )


def test_a_gap_inside_the_noise_has_no_share(results: Results) -> None:
    text = sentences(changed(results, "vamp", gap_closed={"joint_coherence": None}))
    assert (
        "The share that vamp closes of the gap between the normal prior and the reconstructions, measured by joint "
        "coherence, is not given: the confidence interval of the gap contains 0." in text
    )
    assert "% of the gap" not in text


def test_no_gain_over_the_posterior(results: Results) -> None:
    noise = {"value": -0.004, "low": -0.02, "high": 0.01}
    worse = {"value": -0.1, "low": -0.12, "high": -0.08}
    text = sentences(changed(results, "gmm", conditional_gain={"1": noise, "2": worse}))
    assert (
        "This share is not clearly different from that of the plain posterior (difference −0.4 percentage points, "
        "95 % CI −2.0 to 1.0)." in text
    )
    assert "10.0 percentage points (95 % CI 8.0 to 12.0) lower than that of the plain posterior." in text
    plain = [row if row.kind != "density" else Row(row.name, row.kind, {}) for row in results.rows]
    assert "posterior" not in sentences(replace(results, rows=tuple(plain)))


def test_the_gain_of_conditioned_private_codes(results: Results) -> None:
    gain, noise = {"value": 0.3, "low": 0.2, "high": 0.4}, {"value": 0.01, "low": -0.02, "high": 0.04}
    text = sentences(changed(results, "flow", private_gain={"1": gain, "2": gain, "3": noise}))
    assert "from flow given the other codes, instead of from the prior. This changes the share" in text
    assert "by 30 percentage points (95 % CI 20 to 40) given one other modality and by 1.0" in text
    assert "None of the differences" not in text
    assert "modality. This is not clearly above 0." in sentences(changed(results, "flow", private_gain={"1": noise}))
    assert "None of the differences is clearly above 0." in sentences(
        changed(results, "flow", private_gain={"1": noise, "2": noise})
    )
    assert "rivate codes" not in sentences(results)


def test_thresholds_are_those_of_the_metrics() -> None:
    assert COLLAPSED == health.COLLAPSED


def test_labels_assigned_by_label_classifiers(results: Results) -> None:
    assert "The label classifiers assigned the labels of the samples of flow." in sentences(
        changed(results, "flow", labels_from="judges")
    )


def test_one_density_has_no_rivals(results: Results) -> None:
    alone = only(results, "gmm")
    assert ranking(alone).replace("\u202f", " ") == (
        "In 80.0 % of the samples of gmm, all 5 modalities show the same label."
    )
    assert "is second" not in sentences(alone)


def test_missing_scores_are_grouped_by_reason(results: Results) -> None:
    few, unsure = "there is one row", "too few rows for an interval"
    missing = {"value": None, "why": few}
    alone = {"value": 0.5, "low": None, "high": None, "why": unsure}
    some = changed(results, "gmm", precision=missing, coverage=missing, density=alone)
    text = sentences(some, "reliability")
    assert f"Some rows have no value for Precision and Coverage. Reason: {few}." in text
    assert f"Some rows have no interval for Density. Reason: {unsure}." in text
    assert "Some rows" not in sentences(results, "reliability")
    gap = {"joint_coherence": missing}
    assert f"measured by joint coherence, is not given: {few}." in sentences(changed(results, "vamp", gap_closed=gap))


def test_nothing_is_best_where_nothing_is_scored(results: Results) -> None:
    missing = {"value": None, "why": "there is one row"}
    rows = [
        replace(row, scores=row.scores | {"joint_coherence": missing, "frechet_distance": missing})
        for row in results.rows
    ]
    assert ranking(replace(results, rows=tuple(rows))) == "The samples have no scores: there is one row."


def test_tests_that_could_not_be_made_flag_nobody_and_clear_nobody(results: Results) -> None:
    missing = {"value": None, "why": "there is one row"}
    tests = dict.fromkeys(("distance_ratio", "near_copies", "authenticity", "membership_auc"), missing)
    nothing = results.row("gmm").scores["privacy"] | {
        "spaces": {"joint": tests},
        "flagged": [],
        "near_copies": [],
    }
    text = sentences(changed(only(results, "gmm"), "gmm", privacy=nothing), "leaks")
    assert "No privacy test flags" not in text
    assert (
        "For gmm, the distance ratio, the share of near copies, authenticity and the membership inference attack could "
        "not be computed over all modalities together: there is one row." in text
    )


def test_imputers_that_failed_for_the_same_reason_share_a_sentence(results: Results) -> None:
    def failed(row: Row, why: str) -> Row:
        return replace(row, scores={"imputation": {"modalities": {"energy_score": {"value": None, "why": why}}}})

    why = {
        "Iterative ridge": "it failed",
        "Chained equations": "nothing is a table",
        "Random forests": "nothing is a table",
    }
    imputers = tuple(failed(row, why[row.title]) if row.title in why else row for row in results.imputers)
    text, hidden = (
        sentences(replace(results, imputers=imputers), "useful"),
        "one modality of each held-out row is hidden",
    )
    assert f"Iterative ridge: no result when {hidden}, because it failed." in text
    assert f"Chained equations and random forests: no result when {hidden}, because nothing is a table." in text
    assert "no result" not in sentences(results, "useful")


def test_what_the_profile_leaves_out_and_what_it_costs(results: Results) -> None:
    assert not [finding for finding in every(results) if finding.topic == "Profile"]  # full leaves out nothing
    shortened = {
        "evaluate.resamples": (100, 200),
        "utility.seeds": ([0], [0, 1, 2]),
        "augment.seeds": ([0, 1], [0, 1, 2, 3, 4, 5, 6, 7]),
        "privacy.draws": (2, 5),
        "imputation.draws": (19, 39),
        "evaluate.neighbours": (3, 5),
    }
    costs = [finding.text for finding in every(replace(results, shortened=shortened)) if finding.topic == "Profile"]
    untested = every(replace(results, shortened=shortened, augmentation_sizes=()))
    assert sum(finding.topic == "Profile" for finding in untested) == len(costs) - 1
    resamples, utility, augmentation, privacy, imputation, other, remedy = (
        text.replace("\u202f", " ") for text in costs
    )
    assert "100 half-samples instead of 200" in resamples
    rng = np.random.default_rng(0)
    ends = np.quantile(rng.standard_normal((4000, 200)), 0.975, 1)
    assert abs(ends.std() / 1.96 - 0.10) < 0.01  # the relative error that the sentence states
    assert "standard error of 14 % instead of 10 %" in resamples
    assert utility == (
        "The classifiers of the utility scores were trained with one seed instead of three, so the intervals do not "
        "contain the variation between seeds."
    )
    assert "two seeds instead of eight, so the part of the intervals from seeds is 2.0 times as wide" in augmentation
    assert "two samples per training row instead of five" in privacy
    assert "19 times instead of 39" in imputation
    assert other == "evaluate.neighbours is 3 instead of 5."
    assert "set profile to full" in remedy
