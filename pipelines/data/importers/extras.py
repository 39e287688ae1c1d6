"""Packages that only some formats need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from postprior.pipelines.errors import UserError


def optional(module: str, extra: str, place: object) -> Any:
    """A module of an extra; a UserError says how to install it where it is not there."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise UserError(
            f"{place}: needs {package}, which is not installed; pip install 'postprior[{extra}]'"
        ) from None
