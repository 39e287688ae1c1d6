"""Docstrings as they are written here become reStructuredText, before napoleon reads their sections.

An indented block after a blank line is an equation or a diagram, and the section `Example` is code: both are shown as
they are written. Lines that begin with a name in backticks and a colon are a list.
"""

from __future__ import annotations

import re
from typing import Any

SECTION = re.compile(r"^(Args|Attributes|Example|Raises|Returns|Yields|Attributes, [^:]*):$")
ENTRY = re.compile(r"^`[^`]+`: ")
MARK = re.compile(r"([*|]|(?<=\w)_(?!\w))")
"""What starts markup in reStructuredText, and is a part of mathematics in docstrings."""
LITERAL = ["::", ""]


def as_written(lines: list[str]) -> list[str]:
    """Return the lines of a docstring as reStructuredText.

    >>> as_written(["Return f.", "", "    f(x) = x", "", "`x`: a", "    number"])
    ['Return f.', '', '::', '', '    f(x) = x', '', '- `x`: a', '  number']
    >>> as_written(["Example:", "    f(1)"])
    ['.. rubric:: Example', '', '::', '', '    f(1)']
    """
    result: list[str] = []
    section, literal = "", False  # the section whose indented lines follow; whether they are a literal block
    for line in lines:
        indented, after_blank = line.startswith("    "), not result or not result[-1].strip()
        if line and not line.startswith(" "):
            found = SECTION.match(line)
            section, literal = (found[1], found[1] == "Example") if found else ("", False)
            if literal:
                result += [".. rubric:: Example", "", *LITERAL]
                continue
            if section:
                line = f"{section.partition(',')[0]}:"
            elif ENTRY.match(line):
                line = f"- {line}"
        elif indented and not section and not literal:
            literal = after_blank
            result += LITERAL if literal else []
            line = line if literal else f"  {line.strip()}"
        result.append(line if literal else plain(line))
    return result


def plain(line: str) -> str:
    r"""Return prose with marks outside of backticks escaped; *emphasis* stays.

    >>> print(plain("values (N, *shape) of |S| rows, `*args` and *not* x_"))
    values (N, \*shape) of \|S\| rows, `*args` and *not* x\_
    """
    parts = re.split(r"(`[^`]*`|\*\w+\*(?!\w))", line)
    return "".join(part if number % 2 else MARK.sub(r"\\\1", part) for number, part in enumerate(parts))


def setup(app: Any) -> dict[str, bool]:
    """Process docstrings before napoleon, whose priority is 500."""

    def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = as_written(lines)

    app.connect("autodoc-process-docstring", process, priority=400)
    return {"parallel_read_safe": True}
