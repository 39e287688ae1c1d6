"""`llms.txt` (https://llmstxt.org): an overview of the pages for language models, with their sources as Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

TOCTREE = re.compile(r"```\{toctree\}\n:caption: (.*)\n(?::.*\n)*\n([^`]*)```")
SENTENCE = re.compile(r"^(?!\||```|#|[-*>]|---|:|\{|!)\S.*?(?:[.?!](?=\s|$)|$)", re.MULTILINE)


def overview(docs: Path, titles: dict[str, str]) -> str:
    """Return the overview: a section for each caption of the start page, a line for each page.

    Args:
        docs: The folder of the sources.
        titles: The titles of the pages by name.
    """
    index = (docs / "index.md").read_text(encoding="utf-8")
    lines = ["# postprior", "", f"> {_about(index)}"]
    for caption, entries in TOCTREE.findall(index):
        lines += ["", f"## {caption}", ""]
        for name in entries.split():
            text = (docs / f"{name}.md").read_text(encoding="utf-8")
            told = _about(text)
            lines.append(f"- [{titles[name]}](_sources/{name}.md.txt)" + (f": {told}" if told else ""))
    return "\n".join(lines) + "\n"


def _about(text: str) -> str:
    """Return the first sentence of a page below its title."""
    body = re.split(r"^# .*\n", text, maxsplit=1, flags=re.MULTILINE)[-1]
    body = re.sub(r"```.*?```", "", body, flags=re.DOTALL)
    for paragraph in body.split("\n\n"):
        if found := SENTENCE.match(" ".join(paragraph.split())):
            return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[0]).rstrip(":")
    return ""


def setup(app: Any) -> dict[str, bool]:
    """Write the overview beside the built pages."""

    def write(app: Any, exception: Exception | None) -> None:
        if exception is None and app.builder.format == "html":
            titles = {name: title.astext() for name, title in app.env.titles.items()}
            Path(app.outdir, "llms.txt").write_text(overview(Path(app.srcdir), titles), encoding="utf-8")

    app.connect("build-finished", write)
    return {"parallel_read_safe": True}
