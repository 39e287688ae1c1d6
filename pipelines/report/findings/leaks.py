"""Does it leak? What tests of privacy and memorisation say of the samples and of what was fitted."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.report.findings.words import Finding, above, count, listed, number_with, percent, percent_with
from pipelines.report.results import Results
from pipelines.report.rows import Row

COPIES = 0.01  # near copies among held-out codes, by their definition
COIN = 0.5  # the AUC of an attacker who guesses
JOINT = ("privacy", "spaces", "joint")


def leaks(results: Results) -> Iterator[Finding]:
    """Flags, near copies, the attack, and what else may give training rows away."""
    tested = [row for row in results.densities if "privacy" in row.scores]
    if tested:
        yield from _flags(tested)
        yield from _near_copies(tested)
        yield from _attack(tested)
        yield from _distances(tested)
    else:
        yield Finding(
            "Not tested", "The stage privacy has not run, so nothing here says whether samples leak."
        )
    yield from _codes(results)
    yield from _stored(results)
    if caution := next((row.scores["privacy"].get("caution") for row in tested), None):
        yield Finding("No guarantee", str(caution))


def _flags(rows: list[Row]) -> Iterator[Finding]:
    """Which densities some test flags."""
    flagged = {row: row.scores["privacy"].get("flagged", []) for row in rows}
    clean = [row.title for row in rows if not flagged[row]]
    if clean:
        yield Finding("Tests", f"No test of privacy flags {listed(clean).replace(' and ', ' or ')}.")
    for row, names in flagged.items():
        if names:
            told = listed([str(name).replace("_", " ") for name in names])
            yield Finding("Flagged", f"{row.title} is flagged by {told}: do not share its samples.")


def _near_copies(rows: list[Row]) -> Iterator[Finding]:
    """Samples nearer to a training row than nearly all held-out rows are."""
    shares = {row: share for row in rows if (share := row.estimate(*JOINT, "near_copies"))}
    without = [row.title for row, share in shares.items() if share.value == 0]
    if without:
        yield Finding(
            "Near copies",
            f"There are no near copies of training rows among the samples of {listed(without)}.",
        )
    for row, share in shares.items():
        if share.value > 0:
            text = f"{percent_with(share)} of the samples of {row.title} are near copies of training rows"
            if records := list(
                dict.fromkeys(str(copy["record"]) for copy in row.scores["privacy"]["near_copies"])
            ):
                first = records[:3]
                text += f"; the records nearest to them: {listed(first)}"
                text += "" if len(records) == len(first) else ", and others that results/privacy lists"
            yield Finding("Near copies", f"{text}.")


def _attack(rows: list[Row]) -> Iterator[Finding]:
    """How well an attacker who sees the samples tells training rows from others."""
    found = {row: auc for row in rows if (auc := row.estimate(*JOINT, "membership_auc"))}
    if not found:
        return
    told = listed([f"{number_with(auc, 3)} of {row.title}" for row, auc in found.items()])
    better = [row.title for row, auc in found.items() if above(auc, COIN)]
    if not better:
        verdict = "not clearly better than a coin" if len(found) == 1 else "none clearly better than a coin"
    elif len(better) == len(found):
        verdict = "clearly better than a coin" if len(found) == 1 else "all clearly better than a coin"
    else:
        verdict = f"clearly better than a coin for {listed(better)} alone"
    yield Finding(
        "Attack",
        "From the samples, an attacker tells training rows from held-out ones with an AUC of "
        f"{told}, {verdict} (0.5).",
    )


def _distances(rows: list[Row]) -> Iterator[Finding]:
    """Whether samples lie nearer to training rows than held-out rows do."""
    found = {row: ratio for row in rows if (ratio := row.estimate(*JOINT, "distance_ratio"))}
    if found:
        told = listed([f"{number_with(ratio, 2)} for {row.title}" for row, ratio in found.items()])
        yield Finding(
            "Distances",
            "The distance of samples to their nearest training row, over that of held-out rows (1 where nothing is "
            f"remembered), is {told}.",
        )


def _codes(results: Results) -> Iterator[Finding]:
    """Densities whose draws lie on training codes."""
    copying = [
        f"{row.title} ({percent(copies.value)})"
        for row in results.densities
        if (copies := row.estimate("memorisation", "near_copies")) and above(copies, COPIES)
    ]
    if copying:
        yield Finding(
            "Memorisation",
            f"By definition {percent(COPIES, 0)} of held-out codes are near copies of a training code; more are "
            f"among the draws of {listed(copying)}.",
        )


def _stored(results: Results) -> Iterator[Finding]:
    """Densities whose artefact itself would give codes away."""
    if keepers := [row.title for row in results.densities if row.scores.get("stores_training_codes")]:
        holds = "the artefact holds" if len(keepers) == 1 else f"the {count(len(keepers))} artefacts hold"
        yield Finding("Artefacts", f"{listed(keepers)}: {holds} codes of training rows.")
