"""What the attacks on single people achieve with synthetic rows: inferred attributes, linked records, people found."""

from collections.abc import Iterator

from postprior.pipelines.metrics.registry import ATTACKS
from postprior.pipelines.report.rows import Estimate, Row, estimates
from postprior.pipelines.report.wording import Finding, listed, number_by_row, number_ci, percent, titles

ATTACK_NAMES = {
    "attribute_inference": "the attribute inference attack",
    "linkability": "the linkage attack",
    "singling_out": "the singling-out attack",
    "singling_out_univariate": "the singling-out attack with one attribute",
}
TOPICS = {"attribute_inference": "Inferring", "linkability": "Linking"}
DEEDS = {
    "attribute_inference": (
        "An attacker who knows all attributes of a person but one guesses it from the samples of {row}. The guess "
        "is right in {main} of the cases if the person was in the training data, and in {control} if not."
    ),
    "linkability": (
        "An attacker who has two partial records of a person links them through the samples of {row} in {main} of the "
        "cases if the person was in the training data, and in {control} if not."
    ),
    "singling_out": (
        "An attacker takes a combination of attributes that only one sample of {row} has. In {main} of the cases "
        "exactly one person in the training data has it; if samples told nothing about single people, this would be "
        "{control}."
    ),
    "singling_out_univariate": (
        "An attacker takes a value that only one sample of {row} has, or their largest or smallest value. In {main} of "
        "the cases exactly one person in the training data has it; if samples told nothing about single people, this "
        "would be {control}."
    ),
}
"""What an attacker could do, with the rates of the attack on training rows and of that on held-out rows."""


def attacks_on_people(rows: list[Row]) -> Iterator[Finding]:
    """Describe each attack with the samples of the density that it works best with; name the attacks not made."""
    for attack in ATTACK_NAMES:
        if risks := estimates(rows, *ATTACKS, attack):
            worst = max(risks, key=lambda row: (risks[row].low or 0.0, risks[row].value))
            texts = [*_deed(attack, worst), _risk(risks), *_secret(worst if attack == "attribute_inference" else None)]
            yield Finding(TOPICS.get(attack, "Singling out"), " ".join(texts))
    yield from _not_made(rows)


def _deed(attack: str, row: Row) -> Iterator[str]:
    """Say what an attacker could do, and whether guesses without the samples are as good."""
    main, control, naive = (row.estimate(*ATTACKS, attack, rate) for rate in ("main", "control", "naive"))
    if main and control and naive:
        yield DEEDS[attack].format(row=row.title, main=percent(main.value), control=percent(control.value))
        if not main.above(naive.value):
            yield (
                f"Guesses without the samples are right in {percent(naive.value)} of the cases, so this attack learns "
                "nothing from them."
            )


def _risk(risks: dict[Row, Estimate]) -> str:
    """State the risks, and for which densities they are clearly above 0."""
    clear = [row for row, risk in risks.items() if risk.above()]
    if len(risks) == 1 or len(clear) in (0, len(risks)):
        above = "clearly above 0" if clear else "not clearly above 0"
    else:
        above = f"clearly above 0 only for {titles(clear)}"
    return (
        f"The risk is the share of wrong guesses that training on a person makes right; it is {above}: "
        f"{number_by_row(risks, 3)}."
    )


def _secret(row: Row | None) -> Iterator[str]:
    """Name the attribute that is inferred best beyond what is inferred of held-out people."""
    secrets = row.scores["privacy"]["attacks"]["attribute_inference"].get("secrets") if row else None
    if secrets and (most := Estimate.of(secrets[0])) and most.above():
        yield f"It is greatest for the attribute {secrets[0]['attribute']}: {number_ci(most, 3)}."


def _not_made(rows: list[Row]) -> Iterator[Finding]:
    """Name the attacks that were not made, with the reasons."""
    untested: dict[tuple[str, tuple[Row, ...]], list[str]] = {}
    for attack, name in ATTACK_NAMES.items():
        reasons: dict[str, list[Row]] = {}
        for row in rows:
            if (why := row.why(*ATTACKS, attack)) and not row.estimate(*ATTACKS, attack):
                reasons.setdefault(why, []).append(row)
        for why, lacking in reasons.items():
            untested.setdefault((why, tuple(lacking)), []).append(name)
    for (why, of), names in untested.items():
        yield Finding("Not tested", f"For {titles(of)}, {listed(names)} could not be made: {why}.")
