"""What the numbers say, in sentences: under one headline, the answers to three questions and what they rest on."""

from collections.abc import Iterator
from dataclasses import replace

from postprior.pipelines.metrics.registry import LEADERBOARD
from postprior.pipelines.report.findings.faithful import above_floor, collapsed, faithful, told_apart
from postprior.pipelines.report.findings.leaks import leaks
from postprior.pipelines.report.findings.useful import useful
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import MANY, Finding, count, listed, number_with, percent, titles

QUESTIONS = {
    "faithful": "Is it faithful?",
    "useful": "Is it useful?",
    "leaks": "Does it leak?",
    "basis": "What it rests on",
}


def headline(results: Results) -> str:
    """The one sentence on top."""
    best, fitted = results.densities[0], len(results.densities)
    coherence = best.estimate("joint_coherence") if results.labelled else None
    distance = best.estimate("frechet_distance")
    if not coherence and not distance:
        why = best.why("joint_coherence") or best.why("frechet_distance")
        return f"The samples have no scores: {why}." if why else "The samples have no scores."
    metric = "joint_coherence" if coherence else "frechet_distance"
    every = f"all {len(best.scores.get('modalities', {}))} modalities"
    among = f" of {fitted} fitted densities" if fitted > 1 else ""
    if not above_floor(best, metric):
        share = f", {percent(coherence.value)} of the samples show the same label in {every}" if coherence else ""
        said = f"in the best, {best.title}{share}" if share else f"the best is {best.title}"
        return f"No fitted density is told apart from the autoencoder's own prior: {said}."
    second = results.densities[1] if fitted > 1 else best
    close = second is not best and not told_apart(results, metric, best, second)
    behind = f"; {second.title} is not clearly behind" if close else ""
    if coherence:
        told = f"in {percent(coherence.value)} of them, {every} show the same label"
        but = ", but the labels are far less even than real ones" if collapsed(results, best) else ""
        return f"{best.title} draws the most coherent samples{among}: {told}{but}{behind}."
    told = f": their Frechet distance is {distance.value:.2f}" if distance else ""
    return f"{best.title} draws the samples nearest to real rows{among}{told}{behind}."


def findings(results: Results) -> Iterator[Finding]:
    """What the comparison found, question by question, each computed from the results."""
    for question, answer in zip(QUESTIONS, (faithful, useful, leaks, basis), strict=True):
        for finding in answer(results):
            yield replace(finding, question=question)


def basis(results: Results) -> Iterator[Finding]:
    """LabelClassifiers, fits, advice on the autoencoder, and cautions."""
    if accuracy := Estimate.of(results.evaluators.get("accuracy")):
        yield Finding(
            "LabelClassifiers",
            f"The classifiers that read the labels are right on {percent(accuracy.value)} of held-out real data; "
            "what they misread counts against every row.",
        )
    yield from _autoencoder(results)
    if judged := [row for row in results.densities if row.scores.get("labels_from") == "judges"]:
        yield Finding("Labels", f"{titles(judged)}: the labels of the samples were given by the classifiers.")
    yield from _fits(results)
    yield from _missing(results)
    for advice in results.latent.get("health", {}).get("advice", []):
        yield Finding("Latent space", str(advice))
    yield from _cautions(results)


def _autoencoder(results: Results) -> Iterator[Finding]:
    """How well held-out rows are encoded and decoded: no density on its codes can do better."""
    own = results.posterior
    error, accuracy = own.estimate("reconstruction_error"), own.estimate("accuracy")
    told = []
    if error:
        text = f"Reconstructions of held-out rows have a mean squared error of {error.value:.4f}"
        if similarity := own.estimate("ssim"):
            text += f" and a structural similarity (SSIM) of {similarity.value:.2f}"
        told.append(f"{text}.")
    if accuracy:
        told.append(f"The judges read them rightly in {percent(accuracy.value)}.")
    if likelihood := own.estimate("log_evidence"):
        told.append(
            f"The log-likelihood of held-out rows, by importance sampling, is {number_with(likelihood, 0)} nats."
        )
    if told:
        yield Finding("Autoencoder", " ".join(told))


def _fits(results: Results) -> Iterator[Finding]:
    """Overfitting, and the choice of `auto`."""
    gaps = estimates(results.densities, "overfitting")
    if gaps and max(gap.value for gap in gaps.values()) <= 0:
        yield Finding("Overfitting", "No density scores training codes above validation codes.")
    elif gaps:
        row = max(gaps, key=lambda row: gaps[row].value)
        has = "has the widest" if len(gaps) > 1 else "has a"
        yield Finding(
            "Overfitting",
            f"{row.title} {has} gap between training and validation codes: {gaps[row].value:.2f} nats of "
            "log-likelihood a row.",
        )
    for row in results.densities:
        if why := row.scores.get("why"):
            yield Finding("Choice", f"{row.title} compared its candidates on held-out codes: {why}.")


def _missing(results: Results) -> Iterator[Finding]:
    """Scores of this project's rows that could not be computed, or have no interval, by reason."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for row in results.rows:
        for metric in LEADERBOARD:
            if not row.source and metric.question != "leaks" and (why := row.why(*metric.keys)):
                lacks = "an interval" if row.estimate(*metric.keys) else "a value"
                found.setdefault((lacks, why), {})[metric.title] = None
    for (lacks, why), metrics in found.items():
        shown = [*metrics][:MANY]
        some = f"{', '.join(shown)} and {len(metrics) - MANY} more" if len(metrics) > MANY else listed(shown)
        yield Finding("Missing scores", f"Without {lacks} in some rows: {some}. The reason: {why}.")


def _cautions(results: Results) -> Iterator[Finding]:
    """Cautions of the metrics, each once with the rows that it is about, and those of other sources."""
    found: dict[str, list[Row]] = {}
    for row in results.rows:
        for caution in row.scores.get("cautions", []):
            found.setdefault(str(caution), []).append(row)
    for caution, rows in found.items():
        of = titles(rows) if len(rows) < 4 else f"{count(len(rows))} rows"
        yield Finding("Caution", caution if len(rows) == len(results.rows) else f"{of}: {caution}")
    for caution in results.cautions:
        yield Finding("Other sources", caution)
