"""What every command does: read the settings, tell an error in one line."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

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
        return
    except UserError as error:
        told = str(error)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        told = f"{place}{error.strerror or error}"
    except MemoryError:
        told = "more than the memory holds; give fewer rows or draws"
    except SystemExit as error:  # a network or an extractor of the user's own
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        told = f"{frame.f_code.co_filename}, line {line}: the program was ended here; take that call out"
    tell(f"postprior: error: {told}", err=True)
    raise typer.Exit(1)


def load(path: Path) -> tuple[Params, Path]:
    """The settings, and the root of their project."""
    from postprior.pipelines.settings.params import load_params

    root = path.resolve().parent
    sys.path.append(str(root))  # networks of the user's own, by import path, may lie in the project
    return load_params(path), root
