"""How reliable are the results? Profile, evaluators, autoencoder, fits, missing scores and cautions."""

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.metrics.statistics.intervals import LEVEL
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import (
    MAX_LISTED,
    Finding,
    as_text,
    in_words,
    listed,
    number,
    number_ci,
    percent,
    rounded,
    titles,
)


def reliability(results: Results) -> Iterator[Finding]:
    """State what the profile leaves out, the quality of all models, which scores are missing, and cautions."""
    yield from _profile(results)
    if accuracy := Estimate.of(results.evaluators.get("accuracy")):
        yield Finding(
            "Label classifiers",
            f"The label classifiers have an accuracy of {percent(accuracy.value)} on held-out real data. Their errors "
            "lower the label-based scores of all datasets, also of real data.",
        )
    yield from _autoencoder(results)
    if labelled := [row for row in results.densities if row.scores.get("labels_from") == "judges"]:
        yield Finding("Labels", f"The label classifiers assigned the labels of the samples of {titles(labelled)}.")
    yield from _fits(results)
    yield from _missing(results)
    for advice in results.latent.get("health", {}).get("advice", []):
        yield Finding("Latent space", str(advice))
    yield from _cautions(results)


def _profile(results: Results) -> Iterator[Finding]:
    """What the profile computes less of than the profile full, and what this costs."""
    for key, (value, full) in results.shortened.items():
        if key == "augment.seeds" and not results.augmentation_sizes:  # augmentation was not tested
            continue
        cost = COSTS[key](value, full) if key in COSTS else f"{key} is {as_text(value)} instead of {as_text(full)}."
        yield Finding("Profile", cost)
    if results.shortened:
        yield Finding(
            "Profile",
            "For the larger numbers, set profile to full in params.yaml and run dvc repro: the autoencoder is "
            "not trained again, and the densities are not fitted again.",
        )


def _cost_of_resamples(few: int, many: int) -> str:
    errors = (_error_of_an_end(resamples) for resamples in (few, many))
    one, other = (percent(error, 0) for error in errors)
    return (
        f"Each interval comes from {few} half-samples instead of {many}: the distance from the value to an end of the "
        f"interval has a standard error of {one} instead of {other}."
    )


def _error_of_an_end(resamples: int) -> float:
    """Relative standard error of the quantile of B normal values, √(p (1 − p) / B) / (φ(q) |q|) with q = Φ⁻¹(p)."""
    normal, p = NormalDist(), (1 - LEVEL) / 2
    q = normal.inv_cdf(p)
    return math.sqrt(p * (1 - p) / resamples) / (normal.pdf(q) * abs(q))


def _cost_of_seeds(what: str) -> Callable[[Any, Any], str]:
    def cost(few: list[int], many: list[int]) -> str:
        one, other = (in_words(len(seeds)) for seeds in (few, many))
        effect = (
            "so the intervals do not contain the variation between seeds"
            if len(few) == 1
            else f"so the part of the intervals from seeds is {math.sqrt(len(many) / len(few)):.1f} times as wide"
        )
        return f"{what} with {one} {'seed' if len(few) == 1 else 'seeds'} instead of {other}, {effect}."

    return cost


COSTS: dict[str, Callable[[Any, Any], str]] = {
    "evaluate.resamples": _cost_of_resamples,
    "utility.seeds": _cost_of_seeds("The classifiers of the utility scores were trained"),
    "augment.seeds": _cost_of_seeds("Data augmentation was tested"),
    "privacy.draws": lambda few, many: (
        f"The attacker sees {in_words(few)} samples per training row instead of {in_words(many)}. With fewer samples "
        "the attack is weaker, and a small leak can stay undetected; the intervals are as wide."
    ),
    "privacy.attacks": lambda few, many: (
        f"The attacks on single people are made on {few} of them instead of {many}. The intervals of the risks are "
        f"{math.sqrt(many / few):.1f} times as wide."
    ),
    "imputation.draws": lambda few, many: (
        f"Every hidden value was imputed {few} times instead of {many}. Energy score and coverage have more noise, "
        "which their intervals contain."
    ),
}
"""What a smaller value of a setting costs, from the value and that of the profile full."""


def _autoencoder(results: Results) -> Iterator[Finding]:
    """How well held-out rows are encoded and decoded, which limits every density of their codes."""
    posterior = results.posterior
    correlation, accuracy = posterior.estimate("correlation"), posterior.estimate("accuracy")
    sentences = []
    if correlation:
        text = f"Values and reconstructions of held-out rows have a correlation of {number_ci(correlation, 2)}"
        modalities = [Row(name, "", scores) for name, scores in posterior.scores.get("modalities", {}).items()]
        each = estimates(modalities, "correlation")
        if 1 < len(each) <= MAX_LISTED:
            text += f": {listed([f'{number(of.value, 2)} in {modality.name}' for modality, of in each.items()])}"
        sentences.append(f"{text}.")
    if similarity := posterior.estimate("ssim"):
        sentences.append(
            f"The structural similarity (SSIM) of images and their reconstructions is {similarity.value:.2f}."
        )
    if accuracy:
        sentences.append(f"The label classifiers have an accuracy of {percent(accuracy.value)} on the reconstructions.")
    if likelihood := posterior.estimate("log_evidence"):
        sentences.append(
            f"The mean log-likelihood of held-out rows, estimated by importance sampling, is "
            f"{number_ci(likelihood, 1)} nats."
        )
    if sentences:
        yield Finding("Autoencoder", " ".join(sentences))


def _fits(results: Results) -> Iterator[Finding]:
    """Overfitting of the densities, and the candidate that `auto` chose."""
    gaps = estimates(results.densities, "overfitting")
    if gaps and max(gap.value for gap in gaps.values()) <= 0:
        yield Finding("Overfitting", "No density assigns training codes a higher likelihood than validation codes.")
    elif gaps:
        row = max(gaps, key=lambda row: gaps[row].value)
        gap = "has the largest gap" if len(gaps) > 1 else "has a gap"
        yield Finding(
            "Overfitting",
            f"{row.title} {gap} between the log-likelihoods of training and validation codes: "
            f"{rounded(gaps[row].value)} nats per row.",
        )
    for row in results.densities:
        if why := row.scores.get("why"):
            yield Finding("Model selection", f"{row.title} compared its candidates on held-out codes: {why}.")


def _missing(results: Results) -> Iterator[Finding]:
    """Scores of this project's rows that lack a value or an interval, by reason."""
    groups: dict[tuple[str, str], dict[str, None]] = {}  # titles of metrics by what they lack and why
    for row in results.rows:
        for metric in LEADERBOARD:
            if not row.source and metric.question != "leaks" and (why := row.why(*metric.keys)):
                lacking = "interval" if row.estimate(*metric.keys) else "value"
                groups.setdefault((lacking, why), {})[metric.title] = None
    for (lacking, why), metrics in groups.items():
        first, more = [*metrics][:MAX_LISTED], len(metrics) - MAX_LISTED
        names = listed([*first, *([f"{in_words(more)} more"] if more > 0 else [])])
        yield Finding("Missing scores", f"Some rows have no {lacking} for {names}. Reason: {why}.")


def _cautions(results: Results) -> Iterator[Finding]:
    """Cautions of the metrics, each once with the rows that it concerns, and cautions about other sources."""
    groups: dict[str, list[Row]] = {}
    for row in results.rows:
        for caution in row.scores.get("cautions", []):
            groups.setdefault(str(caution), []).append(row)
    for caution, rows in groups.items():
        names = titles(rows) if len(rows) < 4 else f"{in_words(len(rows))} rows"
        yield Finding("Caution", caution if len(rows) == len(results.rows) else f"{names}: {caution}")
    for caution in results.cautions:
        yield Finding("Other sources", caution)
