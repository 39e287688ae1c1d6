"""Pages whose text is elsewhere: the commands, from the command line, and files at the root of the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILES = {
    "reference/changelog": "CHANGELOG.md",
    "reference/contributing": "CONTRIBUTING.md",
    "reference/security": "SECURITY.md",
}
PLACES = {file: f"{page.removeprefix('reference/')}.md" for page, file in FILES.items()} | {"README.md": "../index.md"}
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(#[^)\s]*)?\)")


def moved(text: str) -> str:
    """Return the text of a file at the root with links that lead to the same places from a page in reference/.

    >>> moved("[a](docs/models.md#mvae), [b](SECURITY.md), [c](https://c.org)")
    '[a](../models.md#mvae), [b](security.md), [c](https://c.org)'
    """

    def place(link: re.Match[str]) -> str:
        target, anchor = link[1], link[2] or ""
        if target in PLACES:
            return f"]({PLACES[target]}{'' if target == 'README.md' else anchor})"
        page = target.removeprefix("docs/")
        return f"](../{page}{anchor})" if page != target else f"](../../{target})"

    return LINK.sub(place, text)


def commands() -> str:
    """Return a section for each command, with its arguments and options."""
    from typer.main import get_command

    from postprior.pipelines.commands.app import app

    group: Any = get_command(app)
    return "\n\n".join(_section(name, command) for name, command in group.commands.items() if not command.hidden)


def _section(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join(["postprior", name, *command.collect_usage_pieces(context)])
    told = re.sub(r"\s*\n(?!\n)\s*", " ", command.help or "").strip()
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    rows = "\n".join(
        f"| `{_cell(names)}` | {_cell(text)} |" for names, text in filter(None, records) if names != "--help"
    )
    table = f"\n\n| argument or option | what it does |\n|---|---|\n{rows}" if rows else ""
    return f"## {name}\n\n{told}\n\n```text\n{usage}\n```{table}"


def _cell(text: str) -> str:
    """Return a text as a cell of a table."""
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def setup(app: Any) -> dict[str, bool]:
    """Fill in the text of the pages when they are read."""

    def fill(app: Any, page: str, source: list[str]) -> None:
        if page == "reference/commands":
            source[0] += "\n" + commands()
        if page in FILES:
            source[0] = moved((ROOT / FILES[page]).read_text(encoding="utf-8"))

    app.connect("source-read", fill)
    return {"parallel_read_safe": True}
