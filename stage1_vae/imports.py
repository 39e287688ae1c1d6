"""Imports user-defined classes by their import paths, and reports what is wrong with their code."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from textwrap import shorten
from typing import Any

LONGEST = 500
"""Number of characters after which the message of a user's exception is cut."""


class UserCodeError(Exception):
    """User-defined code raised an exception, or does not do what its documentation asks for.

    Its message is one sentence: the setting, the class, what it did, and what was expected. The exception of the user's
    code is its cause.
    """


def import_object(path: str) -> Any:
    """Import the object at `package.module:Name`.

    Raises:
        ValueError: the import of the module fails, or the module has no such name.
    """
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError(f"{path!r} cannot be imported, expected package.module:Name")
    try:
        return getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # the code of a user's module can raise anything
        is_clear = isinstance(error, ImportError | AttributeError | SyntaxError)
        raise ValueError(f"{path!r} cannot be imported: {message(error) if is_clear else told(error)}") from None


def import_class(path: str, base: type[Any], base_name: str) -> type[Any]:
    """Import the class at `package.module:Name`.

    Args:
        path: the import path.
        base: the class of which it must be a subclass.
        base_name: the import path of `base`, for the error message.

    Raises:
        ValueError: the import of the module fails, the module has no such name, the object is not such a subclass, or
            it lacks methods.
    """
    imported = import_object(path)
    if not (isinstance(imported, type) and issubclass(imported, base)):
        raise ValueError(f"found {path!r}, expected a subclass of {base_name}")
    if inspect.isabstract(imported):
        absent = ", ".join(sorted(name for name, found in inspect.getmembers(imported) if is_abstract(found)))
        raise ValueError(f"{path!r} does not define {absent}, expected a class with all methods of {base_name}")
    return imported


def is_abstract(method: object) -> bool:
    """Return whether a method of a class is still to be defined."""
    return getattr(method, "__isabstractmethod__", False)


def file_of(imported: type[Any]) -> str | None:
    """Return the file that defines a class, or None for a class of no file."""
    return getattr(sys.modules[imported.__module__], "__file__", None)


@contextmanager
def running(what: str, expected: str, file: str | None = None) -> Iterator[None]:
    """Turn exceptions of user-defined code, and calls that end the program, into a UserCodeError.

    Args:
        what: the setting and the class, before the word "raised".
        expected: what the code should have done.
        file: the file whose innermost line in the traceback is told; by default the line that raised the exception.
    """
    try:
        yield
    except UserCodeError:
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{what} raised {told(error, file)}, expected {expected}") from error


def message(error: BaseException) -> str:
    """Return the message of an exception in one line of bounded length."""
    return shorten(str(error), LONGEST, placeholder=" …")


def told(error: BaseException, file: str | None = None) -> str:
    """Return the type and the message of an exception and the line that raised it, or the innermost line in `file`."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename == file] if file else frames
    place = f"{inside[-1].filename}, line {inside[-1].lineno}" if inside else file
    return f"{type(error).__name__}: {message(error)} ({place})"
