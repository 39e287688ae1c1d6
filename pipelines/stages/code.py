"""Stage `code`: hashes of the code of every stage, because DVC does not know where the code is installed."""

from __future__ import annotations

from pathlib import Path

from postprior.pipelines.artefacts.code import closure, custom_code, fingerprint
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.adaptation import adaptation
from postprior.pipelines.settings.params import ADAPTED, Params

RUNNERS = {
    "postprior.stage1_vae.networks": "networks",
    "postprior.pipelines.metrics.features.evaluators": "extractor",
    "postprior.pipelines.artefacts.adapted": "adapted",
}
"""Modules that run user-defined code. If a stage imports one of them, its hash includes that code."""


def code(params: Params, root: Path) -> None:
    """Write the hash of each stage's code to artefacts/code/<stage>, and make the folders that may stay empty."""
    project = Project(root)
    own: dict[str, list[Path]] = {
        "networks": custom_code(params.vae.networks.values()),
        "extractor": custom_code([params.evaluators.extractor]),
        "adapted": _adapted(params, root),
    }
    user_files = {module: own[setting] for module, setting in RUNNERS.items()}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        if path.stem != "code":
            modules = closure(f"stages.{path.stem}")
            files = [file for module, user_code in user_files.items() if module in modules for file in user_code]
            stage = path.stem.replace("_", "-")  # as in dvc.yaml
            write_text(project.artefacts.code / stage, fingerprint(f"stages.{path.stem}", files) + "\n")
    # With no number of rows in `augment.sizes`, no stage makes these folders, which `compare` depends on.
    for folder in (project.artefacts.augmentation, project.results.scores("augmentation", "").parent):
        folder.mkdir(parents=True, exist_ok=True)


def _adapted(params: Params, root: Path) -> list[Path]:
    """Return the files of an autoencoder that is trained already: its module and its weights."""
    if params.vae.model != ADAPTED:
        return []
    settings = adaptation(params)
    weights = [] if settings.weights is None else [root / settings.weights]
    return [*custom_code([settings.build]), *(path for path in weights if path.is_file())]
