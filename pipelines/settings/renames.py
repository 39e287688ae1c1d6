"""Names that earlier versions gave to commands, stages and settings, and the names that replace them."""

from collections.abc import Mapping
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


def renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of any version with their current names, in the same order."""
    return {SETTINGS.get(name, name): value for name, value in settings.items()}
