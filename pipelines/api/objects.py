"""Rows in memory for a trained generator, and messages of the command line in the words of Python."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import memory
from postprior.pipelines.data.formats.contents import Roles, SourceContents
from postprior.pipelines.data.formats.text_files import stem
from postprior.pipelines.data.importing.rows import rows_like
from postprior.pipelines.errors import UserError


class GivenRows(NamedTuple):
    """Objects by name, their contents, and their rows as a dataset like the training data."""

    objects: dict[str, Any]
    contents: Sequence[SourceContents]
    dataset: Dataset


def given_rows(data: Any, trained: Dataset, ids: Any = None) -> GivenRows:
    """Convert objects with the scales and categories of training data.

    Raises:
        UserError: the training data were not imported, or the objects have other columns, categories or shapes.
    """
    if trained.conversion is None:
        expected = "expected data that were imported or given to synthesise; pass a Dataset"
        raise UserError(f"data: found a generator whose training data have no conversion, {expected}")
    sources = trained.provenance.get("sources", ())
    alone = stem(sources[0]) if len(sources) == 1 else None
    objects = memory.named({alone: data} if alone and not isinstance(data, Mapping) else data)
    contents: list[SourceContents] = []

    def read(roles: Roles) -> list[SourceContents]:
        contents.extend(memory.read(objects, roles, ids))
        _check_periods(contents, trained.conversion or {})
        return contents

    rows = rows_like(trained, read, [], Roles(nan_is_missing=True))
    return GivenRows(objects, contents, rows.dataset)


def _check_periods(contents: Sequence[SourceContents], conversion: Mapping[str, Any]) -> None:
    """Refuse columns of periods with another frequency than in the training data, whose numbers mean other times."""
    for source in contents:
        types = conversion.get("frames", {}).get(source.place, {"columns": []})
        trained = {entry["header"]: entry["dtype"].get("period") for entry in types["columns"]}
        for entry in (source.frame or types)["columns"]:
            found, expected = entry["dtype"].get("period"), trained.get(entry["header"])
            if found and expected and found != expected:
                raise UserError(
                    f"{stem(source.place)}: column {entry['header']}: periods {found} found, expected {expected} as in "
                    "the training data; convert them with .dt.asfreq"
                )


@contextmanager
def in_python() -> Iterator[None]:
    """Name options as the fields of `Roles` and arguments, not as those of the command line, in errors of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(python_words(str(error))) from None


def python_words(text: str) -> str:
    """Return a text with the names of fields and arguments in place of options.

    >>> python_words("--keep-rare keeps those of few rows")
    'keep_rare keeps those of few rows'
    """
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), text)
