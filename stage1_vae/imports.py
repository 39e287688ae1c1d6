"""Classes of the user's own, named by import paths."""

from __future__ import annotations

import traceback
from importlib import import_module
from typing import Any


def import_class(path: str, base: type[Any], named: str) -> type[Any]:
    """The class at `package.module:Name`.

    Args:
        path: the import path.
        base: what the class is a subclass of.
        named: the import path of that.

    Raises:
        ValueError: its module does not run to its end, or has none of that name, or one that is no such subclass.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError(f"{path!r} cannot be imported, expected package.module:Name")
    try:
        found = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # of any kind: the module is not ours
        reason = " ".join(str(error).split())
        if not isinstance(error, (ImportError, AttributeError, SyntaxError)):
            *_, last = traceback.extract_tb(error.__traceback__)
            reason = f"{type(error).__name__}: {reason} ({last.filename}, line {last.lineno})"
        raise ValueError(f"{path!r} cannot be imported: {reason}") from None
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"found {path!r}, expected a subclass of {named}")
    return found
