"""Stage `code`: hashes of the code of every stage, of which DVC cannot know where it is installed."""

from __future__ import annotations

from pathlib import Path

from postprior.pipelines.artefacts.code import closure, custom_code, fingerprint
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.params import Params

OWN = {
    "postprior.stage1_vae.networks": "networks",
    "postprior.pipelines.metrics.features.evaluators": "extractor",
}
"""Modules of ours that run code of the user's own: where a stage runs one, that code is part of its hash."""


def code(params: Params, root: Path) -> None:
    """Write the hash of each stage's code; artefacts/code/<stage>."""
    named = {"networks": params.vae.networks.values(), "extractor": [params.evaluators.extractor]}
    own = {module: custom_code(named[which]) for module, which in OWN.items()}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        if path.stem != "code":
            ran = closure(path.stem)
            files = [file for module, found in own.items() if module in ran for file in found]
            write_text(Project(root).artefacts.code / path.stem, fingerprint(path.stem, files) + "\n")
