"""What the numbers say, in sentences: under one headline, the answers to three questions and what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from postprior.pipelines.report.findings.basis import basis
from postprior.pipelines.report.findings.faithful import above_floor, collapsed, faithful, told_apart
from postprior.pipelines.report.findings.leaks import leaks
from postprior.pipelines.report.findings.useful import useful
from postprior.pipelines.report.findings.words import Finding, percent
from postprior.pipelines.report.results import Results

QUESTIONS = {
    "faithful": "Is it faithful?",
    "useful": "Is it useful?",
    "leaks": "Does it leak?",
    "basis": "What it rests on",
}
ANSWERS: dict[str, Callable[[Results], Iterator[Finding]]] = {
    "faithful": faithful,
    "useful": useful,
    "leaks": leaks,
    "basis": basis,
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
    for question, answer in ANSWERS.items():
        for finding in answer(results):
            yield replace(finding, question=question)
