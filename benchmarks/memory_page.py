"""Writes the table of memory in docs/scale.md from the file of benchmarks/memory.py.

python benchmarks/memory_page.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from memory import DENSITIES, words

from postprior.pipelines.publishing import write_text
from postprior.pipelines.storage import read_json

RESULTS = Path(__file__).with_name("memory.json")
PAGE = Path(__file__).parents[1] / "docs/scale.md"
BEGIN, END = "<!-- memory -->", "<!-- /memory -->"


def head(name: str, found: dict[str, Any]) -> str:
    """Return the head of the column of some rows."""
    rows, size = f"{found['rows']:,} rows of {name.split()[0]}", found["source_bytes"] / 1e9
    return f"{rows} ({size:.1f} GB), {found['samples']:,} samples"


def cell(found: dict[str, Any] | None) -> str:
    """Return what a stage took."""
    if found is None:
        return "–"
    return f"{found['anonymous_bytes'] / 1e6:,.0f} MB, {found['processor_seconds']:.0f} s"


def text(results: dict[str, dict[str, Any]]) -> str:
    """Return the table of all stages that were measured with some rows."""
    stages = ["import", *(" ".join(stage) for stage in words(DENSITIES) if stage != ("code",))]
    rows = [[f"`{stage}`", *(cell(found.get(stage)) for found in results.values())] for stage in stages]
    lines = [["stage", *(head(name, found) for name, found in results.items())], ["---"] * (1 + len(results)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    write_text(PAGE, f"{before}{BEGIN}\n{text(read_json(RESULTS))}\n{END}{after}")


if __name__ == "__main__":
    main()
