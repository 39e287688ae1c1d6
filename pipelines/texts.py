"""Escape untrusted names and paths for a terminal, Markdown and a shell, so that they are shown and have no effect."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Self
from unicodedata import category, combining, east_asian_width

from postprior.pipelines import ranks
from postprior.pipelines.errors import naming

CONTROL_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of characters that move the cursor, break or reverse the line, or are invisible."""
OUTPUT = Path("standard output")
"""The name of stdout in errors."""
LONGEST = 1200
"""Maximal number of characters of a line on stderr."""
WIDEST, LONG, FEW = 200, 60, 6
"""Maximal number of characters of a line of a summary and of a name in a list, and number of names in a list."""
JOINERS = "\u200c\u200d"
"""Characters of these categories that join letters of several scripts and emoji. They are not escaped."""

# Characters with a meaning in Markdown. Where every renderer accepts a backslash, it is put in front: code, emphasis,
# links, tables, headings, lists and rules; underscores inside a word stay. The others become an HTML entity: HTML,
# mathematics, footnotes, template placeholders, and addresses that renderers turn into links.
MARKS = re.compile(r"[\\`*\[\]|#]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.|^[-+](?=[-+\s]|$)", re.IGNORECASE)
NUMBERED = re.compile(r"^([0-9]+)([.)])(?=\s|$)")
ENTITIES = re.compile(r"[${~^@]|:(?=//)|^=|^\s|\s$")
PLAIN = re.compile(r"[\w.:/-]+")


def escape_controls(text: str) -> str:
    r"""Return the text on one line, with escapes in place of control characters and invisible characters.

    >>> print(escape_controls("red\x1b[31m\nand 7\u202e8"))
    red\x1b[31m\nand 7\u202e8
    """
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if category(character) in CONTROL_CATEGORIES and character not in JOINERS
        else character
        for character in text
    )


def shortened(text: str, most: int = LONGEST) -> str:
    """Return the text without its middle if it has more than `most` characters; an error ends with its remedy.

    >>> print(shortened("found xxxxxxxxxxxxxxxxxxxx, expected y", 21))
    found xxxx…expected y
    """
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}"


def enumerated(names: Sequence[object], most: int = FEW) -> str:
    """Join names with commas; of more than `most` names only the first are listed, and long ones are shortened.

    >>> enumerated(["age", "sex", "weight", "site"], 2)
    'age, sex, … and 2 more'
    """
    rest = f", … and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shortened(str(name), LONG) for name in names[:most]) + rest


def as_text(value: object) -> str:
    """Return a setting as readers see it.

    >>> as_text(["gmm", "vamp"]), as_text({"m0": 0.1}), as_text(None), as_text(24)
    ('gmm, vamp', 'm0 0.1', 'null', '24')
    """
    if isinstance(value, Mapping):
        return enumerated([f"{key} {item}" for key, item in value.items()])
    if isinstance(value, list):
        return enumerated(value)
    return "null" if value is None else str(value)


class Listing(str):
    """A line that lists all items; `brief` lists the first and counts the rest.

    >>> Listing.of("constant: {}", ["age", "sex"] * 4).brief
    'constant: age, sex, age, sex, age, sex, … and 2 more'
    """

    brief: str

    @classmethod
    def of(cls, topic: str, items: Sequence[str]) -> Self:
        """Return the line for a topic with `{}` in place of the items."""
        line = cls(topic.format(", ".join(items)))
        line.brief = topic.format(enumerated(items))
        return line

    def after(self, start: str) -> Self:
        """Return the line after another text."""
        line = type(self)(start + self)
        line.brief = start + self.brief
        return line


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a wide character, none for a combining one.

    >>> width("abc"), width("基因"), width("e\u0301")
    (3, 4, 1)
    """
    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def brief(line: str) -> str:
    """Return a line with short lists, of at most `WIDEST` characters."""
    return shortened(line.brief if isinstance(line, Listing) else line, WIDEST)


def tell(*lines: str, err: bool = False) -> None:
    """Print each text as one line, with control characters escaped, on stdout or stderr; on stderr it is shortened.

    A line on stderr that cannot be written (the disk of a log is full, the reader of a pipe has ended) is left out: it
    must not stop a training. Of several ranks only the first one prints.
    """
    for line in lines if ranks.number() == 0 else ():
        if err:
            _complain(line)
        else:
            with naming(OUTPUT):
                print(escape_controls(line), flush=True)


def tell_failure(line: str) -> None:
    """Print on stderr why a command ends, as `tell` does; of several ranks, the first one that fails prints."""
    if ranks.is_first_to_tell():
        _complain(line)


def _complain(line: str) -> None:
    with suppress(OSError):
        print(shortened(escape_controls(line)), file=sys.stderr, flush=True)


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning of a library as one line, without the `line` of source code that raised it."""
    text = shortened(escape_controls(" ".join(str(message).split())))
    return f"postprior: warning: {text} ({category.__name__}, {escape_controls(filename)}:{lineno})\n"


def shell_quoted(text: str | Path) -> str:
    """Quote a text or path as one word of a shell command to copy; a path never acts as an option.

    >>> print(shell_quoted("age"), shell_quoted("my data; rm -rf x"), shell_quoted(Path("-x")))
    age 'my data; rm -rf x' ./-x
    """
    plain = f"./{text}" if isinstance(text, Path) and str(text).startswith("-") else str(text)
    if escape_controls(plain) == plain:
        return shlex.quote(plain)
    escaped = re.sub(r"[\\']", r"\\\g<0>", plain)
    characters = (
        character
        if escape_controls(character) == character
        else "".join(map("\\x{:02x}".format, os.fsencode(character)))
        for character in escaped
    )
    return f"$'{''.join(characters)}'"  # the ANSI-C quoting of bash and zsh


class Markdown(str):
    """A text that is already Markdown."""


def markdown(text: object) -> Markdown:
    r"""Escape a text for a paragraph, a list or a cell of Markdown, so that it creates no tag, link or formatting.

    GitHub alone still turns a mail address into a link; its rules offer no way to prevent this.

    >>> print(markdown("<unknown> site|ward"))
    &lt;unknown&gt; site\|ward
    """
    if isinstance(text, Markdown):
        return text
    marked = NUMBERED.sub(r"\1\\\2", MARKS.sub(r"\\\g<0>", escape_controls(str(text))))
    return Markdown(ENTITIES.sub(lambda match: f"&#{ord(match[0])};", escape(marked, quote=False)))


def markdown_code(name: object) -> Markdown:
    """Format a name as code in Markdown if it has no special characters; otherwise escape it as text."""
    return Markdown(f"`{name}`") if PLAIN.fullmatch(str(name)) else markdown(name)
