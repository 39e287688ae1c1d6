"""How reliable are the results? Evaluators, autoencoder, fits, missing scores and cautions."""

from collections.abc import Iterator

from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import (
    MAX_LISTED,
    Finding,
    in_words,
    listed,
    number_ci,
    percent,
    titles,
)


def reliability(results: Results) -> Iterator[Finding]:
    """State the quality of label classifiers, autoencoder and fits, which scores are missing, and cautions."""
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


def _autoencoder(results: Results) -> Iterator[Finding]:
    """How well held-out rows are encoded and decoded, which limits every density of their codes."""
    posterior = results.posterior
    error, accuracy = posterior.estimate("reconstruction_error"), posterior.estimate("accuracy")
    sentences = []
    if error:
        text = f"Reconstructions of held-out rows have a mean squared error of {error.value:.4f}"
        if similarity := posterior.estimate("ssim"):
            text += f" and a structural similarity (SSIM) of {similarity.value:.2f}"
        sentences.append(f"{text}.")
    if accuracy:
        sentences.append(f"The label classifiers have an accuracy of {percent(accuracy.value)} on the reconstructions.")
    if likelihood := posterior.estimate("log_evidence"):
        sentences.append(
            f"The mean log-likelihood of held-out rows, estimated by importance sampling, is "
            f"{number_ci(likelihood, 0)} nats."
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
            f"{gaps[row].value:.2f} nats per row.",
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
        names = f"{', '.join(first)} and {more} more scores" if more > 0 else listed(first)
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
