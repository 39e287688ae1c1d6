"""Settings with one value per profile, written as `{quick: 100, full: 200}` in params.yaml."""

from collections.abc import Mapping
from typing import Any

from postprior.pipelines.errors import UserError

FULL = "full"
PROFILES = ("quick", FULL)
SECTIONS = ("evaluate", "utility", "augment", "privacy", "imputation")
"""Sections whose settings may have one value per profile; the stages that read them depend on `profile`."""
SINGLE = ("augment.sizes",)
"""Settings of these sections that have one value only: DVC makes a stage of each item."""


def values_by_profile(tree: Any, file: str) -> dict[str, dict[str, Any]]:
    """Return the settings that have one value per profile, by dotted key.

    Raises:
        UserError: a setting has a value for one profile but not for the others, or may have one value only.
    """
    values = {}
    for section in SECTIONS:
        settings = tree.get(section) if isinstance(tree, Mapping) else None
        for name, value in settings.items() if isinstance(settings, Mapping) else ():
            if not isinstance(value, Mapping) or not value.keys() & set(PROFILES):
                continue
            key, expected = f"{section}.{name}", "one value, because DVC makes a stage of each item"
            if key not in SINGLE:
                expected = f"one value, or one each for {' and '.join(PROFILES)}"
            if key in SINGLE or set(value) != set(PROFILES):
                raise UserError(f"{file}: {key}: found values for {', '.join(value)}, expected {expected}")
            values[key] = dict(value)
    return values


def of_profile(tree: Any, profile: str, values: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the settings with the value of one profile wherever there is one per profile."""
    if not values:
        return tree
    resolved = {section: dict(tree[section]) for section in {key.partition(".")[0] for key in values}}
    for key, by_profile in values.items():
        section, _, name = key.partition(".")
        resolved[section][name] = by_profile[profile]
    return {**tree, **resolved}
