"""Where results come from: settings, hashes of artefacts, and a few facts of what was compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.report.findings.words import listed
from postprior.pipelines.report.results import Results
from postprior.pipelines.settings.params import Params, leaves
from postprior.pipelines.storage import folder_hash


def settings(params: Params) -> list[tuple[str, str]]:
    """The settings that led here, by dotted key."""
    return [(key, _spelt(value)) for key, value in leaves(params.chosen(params.densities))]


def _spelt(value: Any) -> str:
    """A value as params.yaml has it, a list without its brackets."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_spelt, value)) or "none"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def hashes(params: Params, project: Project) -> Iterator[tuple[str, str]]:
    """The identities of the artefacts behind the results."""
    folders = project.artefacts
    places = [folders.autoencoder, folders.judges, folders.reference]
    places += [kind / name for kind in (folders.densities, folders.synthetic) for name in params.densities]
    for place in places:
        with suppress(UserError):
            yield place.relative_to(project.root).as_posix(), folder_hash(place)[:16]


def facts(params: Params, results: Results) -> list[str]:
    """What was compared, in a few words each."""
    told = [
        f"model {params.vae.model}, {params.vae.latent} latent dimensions",
        f"data {params.data.source}",
        f"{results.row(params.densities[0]).scores['samples']} samples scored a row",
        f"{params.evaluate.resamples} half-samples behind every interval",
    ]
    if others := list(dict.fromkeys(row.source for row in results.rows if row.source)):
        told.append(f"beside {listed(others)}")
    return told
