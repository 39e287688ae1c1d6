"""Does it leak? Report the tests of privacy and memorisation of samples and of fitted densities."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from postprior.pipelines.metrics.privacy.near import NEAR, expected_near_copies
from postprior.pipelines.metrics.registry import JOINT
from postprior.pipelines.report.findings.attacks import ATTACK_NAMES, attacks_on_people
from postprior.pipelines.report.results import FILES, Results
from postprior.pipelines.report.rows import Row, estimates
from postprior.pipelines.report.wording import (
    Finding,
    in_words,
    listed,
    number_by_row,
    number_ci,
    percent,
    percent_ci,
    titles,
)

ATTACK = "membership_auc"
CHANCE = 0.5  # AUC of an attacker who guesses
MAX_RECORDS = 3  # a sentence names at most this many records
NO_GUARANTEE = "No guarantee"  # the topic of the caution that tests are no guarantee
MEMORISED = ("memorisation", "near_copies")  # nested keys of the share of near copies among drawn codes
TESTS = {
    "distance_ratio": "the distance ratio",
    "near_copies": "the share of near copies",
    "authenticity": "authenticity",
    "membership_auc": "the membership inference attack",
    **ATTACK_NAMES,
}


def leaks(results: Results) -> Iterator[Finding]:
    """State flags, near copies, the attack, and what else may disclose training rows."""
    tested = [row for row in results.densities if "privacy" in row.scores]
    if tested:
        yield from _flags([row for row in tested if _measured(row)])
        yield from _pairs(tested)
        yield from _unmeasured(tested)
        yield from _near_copies(tested)
        yield from _attack(tested)
        yield from attacks_on_people(tested)
        yield from _distances(tested)
    else:
        yield Finding(
            "Not tested", "The stage privacy has not run, so it is unknown whether samples leak training rows."
        )
    yield from _codes(results)
    yield from _stored(results)
    if caution := next((row.scores["privacy"].get("caution") for row in tested), None):
        yield Finding(NO_GUARANTEE, str(caution))


def _measured(row: Row) -> bool:
    """Whether any test has a value in any space."""
    spaces = row.scores["privacy"].get("spaces", {})
    return any(row.estimate("privacy", "spaces", space, test) for space in spaces for test in TESTS)


def _by_tests(
    rows: Iterable[Row], texts_of: Callable[[Row], Iterable[tuple[str, str]]]
) -> dict[tuple[str, str], list[Row]]:
    """Group rows by the names of their tests, as one text, and by what is said of these tests.

    `texts_of` gives for a row pairs of a test and a text about it.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        tests_by_text: dict[str, list[str]] = {}
        for test, text in texts_of(row):
            tests_by_text.setdefault(text, []).append(test)
        for text, tests in tests_by_text.items():
            groups.setdefault((tests_named(tests), text), []).append(row)
    return groups


def _unmeasured(rows: list[Row]) -> Iterator[Finding]:
    """Tests over all modalities together that could not be made, and why."""

    def missing(row: Row) -> Iterator[tuple[str, str]]:
        for test in TESTS:
            if (why := row.why(*JOINT, test)) and not row.estimate(*JOINT, test):
                yield test, why

    for (tests, why), untested in _by_tests(rows, missing).items():
        yield Finding(
            "Not tested",
            f"For {titles(untested)}, {tests} could not be computed over all modalities together: {why}.",
        )


def _pairs(rows: list[Row]) -> Iterator[Finding]:
    """What the tests over all modalities together are where hardly any row has all modalities."""

    def means(row: Row) -> Iterator[tuple[str, str]]:
        for test, pairs in row.scores["privacy"].get("pairs", {}).items():
            if test in TESTS:
                mean = f"the mean over {in_words(len(pairs))} pairs of modalities that rows have"
                yield test, mean if len(pairs) > 1 else f"that of {pairs[0]}"

    for (tests, mean), rows_of_mean in _by_tests(rows, means).items():
        yield Finding(
            "Pairs of modalities",
            f"For {titles(rows_of_mean)}, too few real rows have all modalities to compute {tests} over all "
            f"modalities together; the value over all modalities together is {mean}.",
        )


def _flags(rows: list[Row]) -> Iterator[Finding]:
    """Which densities a test flags, and which leak more than by chance but too little to be flagged.

    What the membership inference attack finds is said with its AUC.
    """
    flagged = {row: row.scores["privacy"].get("flagged", []) for row in rows}
    if clean := [row.title for row in rows if not flagged[row]]:
        yield Finding("Tests", f"No privacy test flags {listed(clean, 'or')}.")
    for row, names in flagged.items():
        spaces = (space for found in row.scores["privacy"].get("flagged_in", {}).values() for space in found)
        if names:
            yield Finding(
                "Flagged", f"{row.title} is flagged by {tests_named(names)}{_where(spaces)}: do not share its samples."
            )

    def traces(row: Row) -> Iterator[tuple[str, str]]:
        for name in row.scores["privacy"].get("detected", []):
            if name not in (ATTACK, *flagged[row]):
                yield name, _where(_detected_in(row, name))

    for (tests, where), traced in _by_tests(rows, traces).items():
        leak = "leaks" if len(traced) == 1 else "leak"
        yield Finding(
            "Traces",
            f"According to {tests}{where}, {titles(traced)} {leak} more about training rows than expected by chance, "
            "but not enough for a flag.",
        )


def _detected_in(row: Row, test: str) -> list[str]:
    """The spaces in which a test differs significantly from chance, corrected for the number of tests and spaces."""
    tests = row.scores["privacy"]
    spaces: list[str] = tests.get("detected_in", {}).get(test, [])
    return spaces or [JOINT[-1]] * (test in tests.get("detected", []))


def _where(spaces: Iterable[str]) -> str:
    """Name the spaces in which a row leaks, unless it is over all modalities together."""
    spaces = [*dict.fromkeys(spaces)]
    return f" (in {listed(spaces)}, not over all modalities together)" if spaces and JOINT[-1] not in spaces else ""


def tests_named(names: Sequence[str]) -> str:
    """List tests by their names for readers."""
    return listed([TESTS.get(name, name) for name in names])


def _near_copies(rows: list[Row]) -> Iterator[Finding]:
    """Samples that are nearer to a training row than nearly all held-out rows are."""
    shares = estimates(rows, *JOINT, "near_copies")
    if without := [row for row, share in shares.items() if share.value == 0]:
        yield Finding("Near copies", f"The samples of {titles(without)} contain no near copies of training rows.")
    usual = {row: share for row, share in shares.items() if share.value > 0 and not share.above(_expected(row))}
    if usual:
        values = listed([f"{percent_ci(share)} of the samples of {row.title}" for row, share in usual.items()])
        expected = max(map(_expected, usual))
        yield Finding(
            "Near copies",
            "Near copies of training rows are not clearly more frequent among samples than without a leak, where "
            f"{percent(expected, 0)} are expected. They are {values}.",
        )
    for row, share in shares.items():
        if share.above(_expected(row)):
            yield Finding("Near copies", _copied(row, percent_ci(share)))


def _expected(row: Row) -> float:
    """The share of near copies that is expected without a leak, with as many held-out rows as were compared."""
    return expected_near_copies(row.scores["privacy"]["samples"]["held_out"])


def _copied(row: Row, share: str) -> str:
    """State a share of near copies above chance, and name the nearest records."""
    text = f"{share} of the samples of {row.title} are near copies of training rows"
    text += f"; without a leak, {percent(_expected(row), 0)} are expected."
    copies = row.scores["privacy"].get("near_copies", [])
    if not (records := list(dict.fromkeys(str(copy["record"]) for copy in copies))):
        return text
    more = f"; {FILES.scores('privacy', '').parent.as_posix()} lists more" if len(records) > MAX_RECORDS else ""
    nearest = "The nearest copies, in any modality, in all of them together or in the codes, are those of"
    return f"{text} {nearest} {listed(records[:MAX_RECORDS])}{more}."


def _attack(rows: list[Row]) -> Iterator[Finding]:
    """How well an attacker who sees the samples tells training rows from held-out rows.

    An AUC is clearly better than chance if the test of the stage privacy says so.
    """
    aucs = estimates(rows, *JOINT, ATTACK)
    if not aucs:
        return
    found = {row: _detected_in(row, ATTACK) for row in aucs}
    better = [row for row in aucs if JOINT[-1] in found[row]]
    if len(aucs) == 1:
        verdict = f"This is {'clearly' if better else 'not clearly'} better than chance ({CHANCE})."
    elif len(better) in (0, len(aucs)):
        subject = "All of these AUCs are" if better else "None of these AUCs is"
        verdict = f"{subject} clearly better than chance ({CHANCE})."
    else:
        verdict = f"This is clearly better than chance ({CHANCE}) only for {titles(better)}."
    yield Finding(
        "Attack",
        "An attacker who sees the samples distinguishes training rows from held-out rows with an AUC of "
        f"{' '.join([f'{number_by_row(aucs, 3)}.', verdict, *_attack_elsewhere(found)])}",
    )


def _attack_elsewhere(found: dict[Row, list[str]]) -> Iterator[str]:
    """Say where else (`found`) the attack is better than chance, and if nowhere that is enough for a flag."""
    for row, spaces in found.items():
        if spaces and JOINT[-1] not in spaces:
            names = ["the latent codes" if space == "codes" else space for space in spaces]
            aucs = [row.estimate("privacy", "spaces", space, ATTACK) for space in spaces]
            each = [
                f"{name} alone ({number_ci(auc, 3, nested=True)})" for name, auc in zip(names, aucs, strict=True) if auc
            ]
            yield f"For {row.title}, an attack on {listed(each)} is clearly better than chance."
    weak = [row for row, spaces in found.items() if spaces and ATTACK not in row.scores["privacy"].get("flagged", [])]
    if weak:
        yield (
            f"For {titles(weak)}, this is not enough for a flag."
            if len(found) > 1
            else "This is not enough for a flag."
        )


def _distances(rows: list[Row]) -> Iterator[Finding]:
    """Whether samples are nearer to training rows than held-out rows are."""
    if ratios := estimates(rows, *JOINT, "distance_ratio"):
        yield Finding(
            "Distances",
            f"The distance ratio is {number_by_row(ratios, 2)}; it is 1 if nothing is memorised. It is the median "
            "distance of samples to their nearest training row, divided by that of held-out rows that were encoded and "
            "decoded.",
        )


def _codes(results: Results) -> Iterator[Finding]:
    """Densities whose draws are near copies of training codes."""
    shares = estimates(results.densities, *MEMORISED)
    expected = {row: _expected_codes(row) for row in shares}
    copying = {row: share for row, share in shares.items() if share.above(expected[row])}
    if copying:
        yield Finding(
            "Memorisation",
            "Among drawn codes, near copies of training codes are more frequent than without memorisation, where "
            f"{percent(max(expected.values()), 0)} are expected. Among drawn codes, their share is "
            f"{listed([f'{percent_ci(share)} for {row.title}' for row, share in copying.items()])}.",
        )


def _expected_codes(row: Row) -> float:
    """The share of near copies among drawn codes that is expected without memorisation."""
    return expected_near_copies(row.scores["memorisation"]["samples"])


def memorises(row: Row) -> bool:
    """Whether near copies of training codes are more frequent among drawn codes than expected, by a clear margin."""
    share = row.estimate(*MEMORISED)
    return share is not None and share.above(_expected_codes(row) + NEAR)


def _stored(results: Results) -> Iterator[Finding]:
    """Densities whose fitted artefact contains training codes."""
    if storing := [row for row in results.densities if row.scores.get("stores_training_codes")]:
        stores = "artefact of {} stores" if len(storing) == 1 else "artefacts of {} store"
        yield Finding("Artefacts", f"The fitted {stores.format(titles(storing))} codes of training rows.")
