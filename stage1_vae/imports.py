"""Imports user-defined classes by their import paths."""

from __future__ import annotations

import traceback
from importlib import import_module
from typing import Any


def import_class(path: str, base: type[Any], base_name: str) -> type[Any]:
    """Import the class at `package.module:Name`.

    Args:
        path: the import path.
        base: the class of which it must be a subclass.
        base_name: the import path of `base`, for the error message.

    Raises:
        ValueError: the import of the module fails, the module has no such name, or the object is not such a subclass.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError(f"{path!r} cannot be imported, expected package.module:Name")
    try:
        imported = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # the code of a user's module can raise anything
        reason = " ".join(str(error).split())
        if not isinstance(error, (ImportError, AttributeError, SyntaxError)):
            *_, last = traceback.extract_tb(error.__traceback__)
            reason = f"{type(error).__name__}: {reason} ({last.filename}, line {last.lineno})"
        raise ValueError(f"{path!r} cannot be imported: {reason}") from None
    if not (isinstance(imported, type) and issubclass(imported, base)):
        raise ValueError(f"found {path!r}, expected a subclass of {base_name}")
    return imported
