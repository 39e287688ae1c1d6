"""Texts of others on their way out: to a terminal, to Markdown, to a shell.

Names, labels, headers and paths come from files of strangers. They stay what they are in data and files; where people
read them they are shown, and do nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from unicodedata import category

STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode that move the cursor, break or turn the line, or are not seen."""
JOINERS = "\u200c\u200d"
"""Of these, what letters of several scripts and emoji are joined by."""

# What acts in Markdown: emphasis, code, links, tables, headings, notes, addresses that renderers turn into links,
# underscores but inside a word, and what begins a list or a rule.
ACTS = re.compile(
    r"[\\`*\[\]|~^#@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.|^[-+=](?=[-+=\s]|$)", re.IGNORECASE
)
NUMBERED = re.compile(r"^([0-9]+)([.)])(?=\s|$)")
ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;", "{": "&#123;"})
"""Of HTML, of mathematics, and of templates that are filled in before Markdown is read."""
PLAIN = re.compile(r"[\w.:/-]+")


def visible(text: str) -> str:
    r"""The text on one line, with escapes in place of characters that steer a terminal or hide.

    >>> print(visible("red\x1b[31m\nand 7\u202e8"))
    red\x1b[31m\nand 7\u202e8
    """
    if text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode() if category(one) in STEERING and one not in JOINERS else one
        for one in text
    )


def tell(*lines: str, err: bool = False) -> None:
    """Print texts, each on a line of its own whatever it holds, on stdout or stderr."""
    for line in lines:
        print(visible(line), file=sys.stderr if err else sys.stdout, flush=True)


def quoted(text: str | Path) -> str:
    """A text or path as one word of a command that a user may copy into a shell; a path is never taken for an option.

    >>> print(quoted("age"), quoted("my data; rm -rf x"), quoted(Path("-x")))
    age 'my data; rm -rf x' ./-x
    """
    plain = f"./{text}" if isinstance(text, Path) and str(text).startswith("-") else str(text)
    if visible(plain) == plain:
        return shlex.quote(plain)
    escaped = re.sub(r"[\\']", r"\\\g<0>", plain)
    return "$'" + "".join(one if visible(one) == one else _bytes(one) for one in escaped) + "'"


class Markdown(str):
    """A text that is Markdown already."""


def markdown(text: object) -> Markdown:
    r"""A text as Markdown that shows it, in a paragraph, a list or a cell: no tag, link or mark comes of it.

    >>> print(markdown("<unknown> site|ward"))
    &lt;unknown&gt; site\|ward
    """
    if isinstance(text, Markdown):
        return text
    escaped = NUMBERED.sub(r"\1\\\2", ACTS.sub(r"\\\g<0>", visible(str(text))))
    return Markdown(re.sub(r"^\s|\s$", lambda edge: f"&#{ord(edge[0])};", escaped.translate(ENTITIES)))


def code(name: object) -> Markdown:
    """A name as code in Markdown, where nothing in it could act there."""
    return Markdown(f"`{name}`") if PLAIN.fullmatch(str(name)) else markdown(name)


def _bytes(text: str) -> str:
    """The bytes of a text, as bash and zsh read them between $' and '."""
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(text))
