"""Write the tables of docs/choose.md: the rules of `postprior advise`, and what they choose for some data."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from postprior.pipelines.api.choice.alternatives import ALTERNATIVES, alternatives
from postprior.pipelines.api.choice.facts import Facts, Rule
from postprior.pipelines.api.choice.rules import RULES, choices
from postprior.pipelines.texts import as_text
from postprior.stage1_vae.modalities import Column, Modality

PAGE = Path(__file__).with_suffix(".md")


def table_of(name: str, columns: int) -> Modality:
    """Return a table of numbers."""
    return Modality(
        name, "table", (columns,), "columns", columns=tuple(Column(f"c{j}", "normal") for j in range(columns))
    )


def image(name: str, *shape: int) -> Modality:
    """Return an image or a volume, by its shape."""
    return Modality(name, "image" if len(shape) == 3 else "volume", shape, "laplace", (0.0, 1.0))


def counts(name: str, values: int) -> Modality:
    """Return a vector of counts."""
    return Modality(name, "vector", (values,), "negative_binomial")


def facts(modalities: Iterable[Modality], rows: int, complete: float = 1.0, labels: int = 0) -> Facts:
    """Return the facts of data of which a share is complete, and of which all or no rows have a label."""
    whole, test = round(rows * complete), rows // 3
    return Facts(tuple(modalities), rows, whole, rows * (labels > 0), whole * (labels > 0), labels, test, test // 4)


DIGITS = [image(f"m{m}", 3, 16, 16) for m in range(5)]
EXAMPLES = {
    "three tables of 6, 8 and 5 columns, half of the rows lack one; 2,450 training rows, 2 labels": facts(
        [table_of("clinic", 6), table_of("labs", 8), table_of("drugs", 5)], 2450, 0.5, 2
    ),
    "the same tables, 150 complete rows without labels": facts(
        [table_of("clinic", 6), table_of("labs", 8), table_of("drugs", 5)], 150
    ),
    "five images of 3 × 16 × 16, 5,000 complete rows, 10 labels": facts(DIGITS, 5000, labels=10),
    "the same images without labels": facts(DIGITS, 5000),
    "T1 and T2 volumes of 32 × 32 × 32, 120 complete rows": facts(
        [image(name, 1, 32, 32, 32) for name in ("T1", "T2")], 120
    ),
    "2,000 genes and 30 proteins as counts, half of 5,000 cells lack one, 8 types": facts(
        [counts("rna", 2000), counts("protein", 30)], 5000, 0.5, 8
    ),
    "an image of 3 × 64 × 64 beside a table of 12 columns, 800 complete rows, 2 labels": facts(
        [image("photo", 3, 64, 64), table_of("clinic", 12)], 800, labels=2
    ),
}
"""Data that users have, in words and as facts."""
ANSWERED = ("vae.model", "vae.latent", "densities", "train.epochs")
"""The settings that the table of examples shows."""


def row(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def condition(rule: Rule) -> str:
    """Return for which data a rule decides."""
    only = [other.topic for other in (*RULES, *ALTERNATIVES)].count(rule.topic) == 1
    return rule.condition or ("any" if only else "all other data")


def told(rule: Rule) -> tuple[str, str, str]:
    """Return choice, reason and what was measured, with a link to its page."""
    page = rule.page.removeprefix("docs/")
    link = f"{rule.measured} ([{page.removesuffix('.md')}]({page}))"
    return rule.choice, rule.reason, link if rule.measured else "not compared"


def tables() -> dict[str, Iterator[str]]:
    """Return the rows of each table by the name of its mark in the page."""

    def example(words: str, data: Facts) -> str:
        chosen = {key: value for rule in choices(data) for key, value in rule.settings(data).items()}
        others = ", ".join(rule.choice for rule in alternatives(data) if rule.settings(data))
        return row(words, *(as_text(chosen[key]) for key in ANSWERED), others)

    return {
        "examples": (example(*pair) for pair in EXAMPLES.items()),
        "rules": (row(rule.topic, condition(rule), *told(rule)) for rule in RULES),
        "alternatives": (row(rule.topic, condition(rule), *told(rule)) for rule in ALTERNATIVES),
    }


def page(text: str) -> str:
    """Return the page with the rows of its tables between their marks, below the two lines of their headers."""
    for name, rows in tables().items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        header = rest.split(end)[0].splitlines()[:2]
        text = before + start + "\n".join([*header, *rows]) + "\n" + end + rest.split(end)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
