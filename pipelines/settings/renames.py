"""Names that earlier versions gave to commands, stages, settings and files, and the names that replace them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COMMANDS = {
    "judge": "train-evaluators",
    "inspect": "diagnose",
    "reference": "score-baselines",
    "recover": "evaluate-imputation",
}
"""Commands by their old name; the stages of dvc.yaml were named after them."""
STAGES = {**COMMANDS, "recover-baselines": "evaluate-imputation-baselines"}
SETTINGS = {"judge": "evaluators", "recovery": "imputation"}
"""Sections of params.yaml."""
PATHS = {
    Path("artefacts/judges"): Path("artefacts/evaluators"),
    Path("artefacts/reference"): Path("artefacts/baselines"),
    Path("artefacts/recovery"): Path("artefacts/imputation"),
    Path("results/recovery"): Path("results/imputation"),
    Path("results/metrics/judges.json"): Path("results/metrics/evaluators.json"),
}
"""Files and folders, by their path from the root of the project."""


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of any version with their current names, in the same order."""
    return {SETTINGS.get(name, name): value for name, value in settings.items()}


def earlier(path: Path) -> Path | None:
    """Return the path that an earlier version gave to a file of results, None if it had the same."""
    for old, new in PATHS.items():
        if path.is_relative_to(new):
            return old / path.relative_to(new)
    return None
