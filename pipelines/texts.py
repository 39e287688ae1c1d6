"""Names and paths from files of strangers, on a terminal, in Markdown and in a shell: shown, they do nothing."""

import os
import re
import shlex
import sys
from html import escape
from pathlib import Path
from unicodedata import category

STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of Unicode that move the cursor, break or turn the line, or are not seen."""
JOINERS = "\u200c\u200d"
"""Of these, what letters of several scripts and emoji are joined by."""

# What acts in Markdown. A backslash goes before what every renderer lets it go before: code, emphasis, links, tables,
# headings, lists and rules; underscores inside a word stay. The rest becomes an entity: HTML, mathematics, notes, what
# templates fill in, and addresses that renderers turn into links.
MARKS = re.compile(r"[\\`*\[\]|#]|(?<![^\W_])_|_(?![^\W_])|(?<=www)\.|^[-+](?=[-+\s]|$)", re.IGNORECASE)
NUMBERED = re.compile(r"^([0-9]+)([.)])(?=\s|$)")
OTHERS = re.compile(r"[${~^@]|:(?=//)|^=|^\s|\s$")
PLAIN = re.compile(r"[\w.:/-]+")


def escape_controls(text: str) -> str:
    r"""The text on one line, with escapes in place of characters that steer a terminal or hide.

    >>> print(escape_controls("red\x1b[31m\nand 7\u202e8"))
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
        print(escape_controls(line), file=sys.stderr if err else sys.stdout, flush=True)


def format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of a library as one line; the `line` of code that it came from is left out."""
    told = " ".join(str(message).split())
    return escape_controls(f"postprior: warning: {told} ({category.__name__}, {filename}:{lineno})") + "\n"


def shell_quoted(text: str | Path) -> str:
    """A text or path as one word of a command that a user may copy into a shell; a path is never taken for an option.

    >>> print(shell_quoted("age"), shell_quoted("my data; rm -rf x"), shell_quoted(Path("-x")))
    age 'my data; rm -rf x' ./-x
    """
    plain = f"./{text}" if isinstance(text, Path) and str(text).startswith("-") else str(text)
    if escape_controls(plain) == plain:
        return shlex.quote(plain)
    escaped = re.sub(r"[\\']", r"\\\g<0>", plain)
    spelt = (
        one if escape_controls(one) == one else "".join(map("\\x{:02x}".format, os.fsencode(one))) for one in escaped
    )
    return f"$'{''.join(spelt)}'"  # as bash and zsh read it


class Markdown(str):
    """A text that is Markdown already."""


def markdown(text: object) -> Markdown:
    r"""A text as Markdown that shows it, in a paragraph, a list or a cell: no tag, link or mark comes of it.

    GitHub alone makes a link of a mail address still, which its own rules leave no way around.

    >>> print(markdown("<unknown> site|ward"))
    &lt;unknown&gt; site\|ward
    """
    if isinstance(text, Markdown):
        return text
    marked = NUMBERED.sub(r"\1\\\2", MARKS.sub(r"\\\g<0>", escape_controls(str(text))))
    return Markdown(OTHERS.sub(lambda one: f"&#{ord(one[0])};", escape(marked, quote=False)))


def markdown_code(name: object) -> Markdown:
    """A name as code in Markdown, where nothing in it could act there."""
    return Markdown(f"`{name}`") if PLAIN.fullmatch(str(name)) else markdown(name)
