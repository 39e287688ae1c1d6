"""Which settings of a project differ from the package's own."""

from collections.abc import Sequence
from typing import Any

from postprior.pipelines.settings.checks import parse_params
from postprior.pipelines.settings.params import Params, leaves
from postprior.pipelines.settings.round_trip import template
from postprior.pipelines.settings.yaml_text import parse_yaml

DISPLAY = ("densities", "compare")
"""Settings that choose which results are shown and do not change any result."""


def chosen_settings(params: Params, densities: Sequence[str]) -> dict[str, Any]:
    """Return the settings that determine results, by dotted key, without those of what is not chosen."""
    tree = params.chosen(densities)
    return dict(leaves({key: value for key, value in tree.items() if key not in DISPLAY}))


def differing(params: Params, densities: Sequence[str]) -> dict[str, Any]:
    """Return the chosen settings that are not those of the package's params.yaml, by dotted key.

    Both sides have the values of the profile of `params`; an entry of `density` with a name of its own is compared with
    the entry of its kind.
    """
    content = parse_yaml(template("params.yaml"), "params.yaml")
    own_profile = content["profile"]
    default = parse_params(content | {"profile": params.profile}, "params.yaml")
    known = dict(leaves(default.model_dump())) | {"profile": own_profile}
    for name in densities:
        entry = default.density.get(name) or default.density.get(params.density.get(name, {}).get("kind", name), {})
        known |= leaves(entry, f"density.{name}.")
    chosen = chosen_settings(params, densities)
    return {key: value for key, value in chosen.items() if key not in known or known[key] != value}
