"""What every command does: read the settings, import the module of a stage, tell an error in one line."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import tell

if TYPE_CHECKING:
    from postprior.pipelines.settings.params import Params


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """One sentence on stderr and exit code 1: for mistakes, faults of the machine, own code that ends the program."""
    try:
        yield
    except UserError as error:
        tell(f"postprior: error: {error}", err=True)
        raise typer.Exit(1) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        tell(f"postprior: error: {place}{error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    except MemoryError:
        tell("postprior: error: more than the memory holds; give fewer rows or draws", err=True)
        raise typer.Exit(1) from None
    except SystemExit as error:  # a network or an extractor of the user's own
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        place = f"{frame.f_code.co_filename}, line {line}"
        tell(f"postprior: error: {place}: the program was ended here; take that call out", err=True)
        raise typer.Exit(1) from None


def load(path: Path) -> tuple[Params, Path]:
    """The settings, and the root of their project."""
    from postprior.pipelines.settings.checks import load_params

    root = path.resolve().parent
    sys.path.append(str(root))  # networks of the user's own, by import path, may lie in the project
    return load_params(path), root


def imported(module: str, name: str) -> Callable[..., Any]:
    """What a module of `pipelines` has under a name; the command that needs it imports it."""
    found: Callable[..., Any] = getattr(importlib.import_module(f"postprior.pipelines.{module}"), name)
    return found
