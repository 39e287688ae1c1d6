"""Does it leak? What tests of privacy and memorisation say of the samples and of what was fitted."""

from collections.abc import Callable, Iterable, Iterator

from postprior.pipelines.metrics.registry import JOINT
from postprior.pipelines.report.results import FILES, Results
from postprior.pipelines.report.rows import Row, estimates
from postprior.pipelines.report.wording import Finding, count, each, listed, percent, percent_with, titles

COPIES = 0.01  # near copies among held-out rows and codes, by their definition
COIN = 0.5  # the AUC of an attacker who guesses
SHOWN = 3  # records that are named
TESTS = {
    "distance_ratio": "distances to training rows",
    "near_copies": "near copies",
    "authenticity": "authenticity",
    "membership_auc": "the attack",
}


def leaks(results: Results) -> Iterator[Finding]:
    """Flags, near copies, the attack, and what else may give training rows away."""
    tested = [row for row in results.densities if "privacy" in row.scores]
    if tested:
        yield from _flags([row for row in tested if _measured(row)])
        yield from _unmeasured(tested)
        yield from _near_copies(tested)
        yield from _attack(tested)
        yield from _distances(tested)
    else:
        yield Finding("Not tested", "The stage privacy has not run, so nothing here says whether samples leak.")
    yield from _codes(results)
    yield from _stored(results)
    if caution := next((row.scores["privacy"].get("caution") for row in tested), None):
        yield Finding("No guarantee", str(caution))


def _measured(row: Row) -> bool:
    """Whether any test has a value in any space."""
    spaces = row.scores["privacy"].get("spaces", {})
    return any(row.estimate("privacy", "spaces", space, test) for space in spaces for test in TESTS)


def _by_tests(rows: Iterable[Row], of: Callable[[Row], Iterable[tuple[str, str]]]) -> dict[tuple[str, str], list[Row]]:
    """The rows by tests, in words, and what is told of them; `of` gives a row's pairs of a test and what is told."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        told: dict[str, list[str]] = {}
        for test, text in of(row):
            told.setdefault(text, []).append(test)
        for text, tests in told.items():
            found.setdefault((_tests(tests), text), []).append(row)
    return found


def _unmeasured(rows: list[Row]) -> Iterator[Finding]:
    """Tests in the space of all modalities that could not be made, and why."""

    def missing(row: Row) -> Iterator[tuple[str, str]]:
        for test in TESTS:
            if (why := row.why(*JOINT, test)) and not row.estimate(*JOINT, test):
                yield test, why

    for (tests, why), found in _by_tests(rows, missing).items():
        told = f"over all modalities together, there is no result by {tests}: {why}."
        yield Finding("Not tested", f"For {titles(found)}, {told}")


def _flags(rows: list[Row]) -> Iterator[Finding]:
    """Which densities some test flags, and those with leaks beyond chance that are too small to be flagged."""
    flagged = {row: row.scores["privacy"].get("flagged", []) for row in rows}
    if clean := [row.title for row in rows if not flagged[row]]:
        yield Finding("Tests", f"No test of privacy flags {listed(clean, 'or')}.")
    for row, names in flagged.items():
        if names:
            yield Finding("Flagged", f"{row.title} is flagged by {_tests(names)}: do not share its samples.")

    def traces(row: Row) -> Iterator[tuple[str, str]]:
        return ((name, "") for name in row.scores["privacy"].get("detected", []) if name not in flagged[row])

    for (tests, _), found in _by_tests(rows, traces).items():
        show = "shows traces of its" if len(found) == 1 else "show traces of their"
        more = "more than by chance, less than is flagged"
        yield Finding("Traces", f"By {tests}, {titles(found)} {show} training rows: {more}.")


def _tests(names: list[str]) -> str:
    return listed([TESTS.get(name, name) for name in names])


def _near_copies(rows: list[Row]) -> Iterator[Finding]:
    """Samples nearer to a training row than nearly all held-out rows are."""
    shares = estimates(rows, *JOINT, "near_copies")
    if without := [row for row, share in shares.items() if share.value == 0]:
        among = f"among the samples of {titles(without)}"
        yield Finding("Near copies", f"There are no near copies of training rows {among}.")
    usual = {row: share for row, share in shares.items() if share.value > 0 and not share.above(COPIES)}
    if usual:
        told = listed([f"{percent_with(share)} of the samples of {row.title}" for row, share in usual.items()])
        yield Finding(
            "Near copies",
            "Near copies of training rows are not clearly more frequent among samples than among held-out rows, where "
            f"they are {percent(COPIES, 0)} by definition: {told}.",
        )
    for row, share in shares.items():
        if share.above(COPIES):
            yield Finding("Near copies", _copied(row, percent_with(share)))


def _copied(row: Row, share: str) -> str:
    """More near copies than by chance, and of which records."""
    text = f"{share} of the samples of {row.title} are near copies of training rows"
    text += f" ({percent(COPIES, 0)} of held-out rows are, by definition)"
    copies = row.scores["privacy"].get("near_copies", [])
    if not (records := list(dict.fromkeys(str(copy["record"]) for copy in copies))):
        return f"{text}."
    others = f", and others that {FILES.scores('privacy', '').parent.as_posix()} lists" if len(records) > SHOWN else ""
    return f"{text}; over all spaces, samples come nearest to {listed(records[:SHOWN])}{others}."


def _attack(rows: list[Row]) -> Iterator[Finding]:
    """How well an attacker who sees the samples tells training rows from others."""
    found = estimates(rows, *JOINT, "membership_auc")
    if not found:
        return
    better = [row for row, auc in found.items() if auc.above(COIN)]
    verdict = "clearly better than a coin"
    if not better:
        verdict = f"{'not' if len(found) == 1 else 'none'} {verdict}"
    elif len(better) < len(found):
        verdict = f"{verdict} for {titles(better)} alone"
    elif len(found) > 1:
        verdict = f"all {verdict}"
    yield Finding(
        "Attack",
        "From the samples, an attacker tells training rows from held-out ones with an AUC of "
        f"{each(found, 3, 'of')}, {verdict} (0.5).",
    )


def _distances(rows: list[Row]) -> Iterator[Finding]:
    """Whether samples lie nearer to training rows than held-out rows do."""
    if found := estimates(rows, *JOINT, "distance_ratio"):
        yield Finding(
            "Distances",
            "The distance of samples to their nearest training row, over that of held-out rows encoded and decoded (1 "
            f"where nothing is remembered), is {each(found, 2, 'for')}.",
        )


def _codes(results: Results) -> Iterator[Finding]:
    """Densities whose draws lie on training codes."""
    found = estimates(results.densities, "memorisation", "near_copies")
    if copying := [f"{row.title} ({percent(e.value)})" for row, e in found.items() if e.above(COPIES)]:
        yield Finding(
            "Memorisation",
            f"By definition {percent(COPIES, 0)} of held-out codes are near copies of a training code; more are "
            f"among the draws of {listed(copying)}.",
        )


def _stored(results: Results) -> Iterator[Finding]:
    """Densities whose artefact itself would give codes away."""
    if keepers := [row for row in results.densities if row.scores.get("stores_training_codes")]:
        holds = "the artefact holds" if len(keepers) == 1 else f"the {count(len(keepers))} artefacts hold"
        yield Finding("Artefacts", f"{titles(keepers)}: {holds} codes of training rows.")
