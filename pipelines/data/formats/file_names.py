"""Names of files for ids: different for all rows, on every disk, inside the folder that they are written to."""

import re
from collections.abc import Sequence
from unicodedata import category, normalize

from postprior.pipelines.texts import CONTROL_CATEGORIES

NAMES = "postprior-names.csv"
"""The table of ids whose files have other names."""
UNSAFE = '<>:"\\|?*'
"""Characters that some disks do not store in names."""
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""Names of devices on Windows."""
FILE = re.compile(r"\.\w{2,4}$")
LONGEST = 200  # bytes of a name, without its suffix


def file_names(ids: Sequence[str]) -> list[str]:
    """Return a name without suffix for each id: the id if it can be a name, else a similar one.

    `/` separates folders. A name that an earlier row has, also in other case or another composition of accents, gets a
    number.

    >>> file_names(["a/1", "7", "7", "con", "../x", "what?"])
    ['a/1', '7', '7-2', '_con', '__/x', 'what_']
    """
    names = [_safe(id) for id in ids]
    taken, seen, counts = {_key(name) for name in names}, set(), dict[str, int]()
    for row, name in enumerate(names):
        key = _key(name)
        if key in seen:
            number = counts.get(key, 1) + 1
            while _key(f"{name}-{number}") in taken:
                number += 1
            counts[key], names[row] = number, f"{name}-{number}"
            taken.add(_key(names[row]))
        seen.add(key)
    return names


def _key(name: str) -> str:
    """Return the same text for names that may be one file on some disks."""
    return normalize("NFC", normalize("NFC", name).casefold())


def _safe(id: str) -> str:
    *folders, name = id.split("/")
    # a folder must not end in a dot or blank, nor have the name of a file
    folders = [
        re.sub(r"[. ]+$", lambda end: "_" * len(end[0]), FILE.sub(r"_", _safe_part(folder))) for folder in folders
    ]
    return "/".join([*folders, _safe_part(name)])


def _safe_part(part: str) -> str:
    """Return a part of a path without unsafe characters; a dot in front would hide the file."""
    part = "".join("_" if c in UNSAFE or category(c) in CONTROL_CATEGORIES else c for c in part) or "_"
    part = re.sub(r"^[. ]+", lambda start: "_" * len(start[0]), part)
    part = f"_{part}" if RESERVED.fullmatch(part) else part
    return part.encode()[:LONGEST].decode(errors="ignore")
