"""State what the results show: answers to three questions, and how reliable the results are."""

from collections.abc import Iterator
from dataclasses import replace

from postprior.pipelines.report.findings.faithful import faithful
from postprior.pipelines.report.findings.leaks import leaks
from postprior.pipelines.report.findings.reliability import reliability
from postprior.pipelines.report.findings.useful import useful
from postprior.pipelines.report.results import Results
from postprior.pipelines.report.rows import Row
from postprior.pipelines.report.wording import Finding

QUESTIONS = {
    "faithful": "Is it faithful?",
    "useful": "Is it useful?",
    "leaks": "Does it leak?",
    "reliability": "How reliable are the results?",
}


def findings(results: Results, best: Row) -> Iterator[Finding]:
    """Compute what the comparison found, question by question; `best` is the density that the page recommends."""
    answers = (
        faithful(results, best),
        useful(results, best),
        leaks(results),
        reliability(results),
    )
    for question, answer in zip(QUESTIONS, answers, strict=True):
        for finding in answer:
            yield replace(finding, question=question)
