"""Read and check params.yaml; every stage reads its settings through `load_params`.

Every error in params.yaml is reported in one sentence with the dotted key, what was found there and what was expected.
The options of a model, a density or a data source have no separate schema: the signature of the constructor is the
schema, so that each option is declared in one place only.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.adaptation import adaptation
from postprior.pipelines.settings.names import hint, listed, pick
from postprior.pipelines.settings.options import check_options, describe_error
from postprior.pipelines.settings.params import (
    ADAPTED,
    BASELINE_ROWS,
    OTHER_RESULTS,
    SAMPLER_ROWS,
    Fitting,
    Options,
    Params,
    Vae,
)
from postprior.pipelines.settings.profiles import PROFILES, of_profile, values_by_profile
from postprior.pipelines.settings.renames import SETTINGS
from postprior.pipelines.settings.yaml_text import read_yaml


def load_params(path: Path | str) -> Params:
    """Load a params.yaml; a missing file, invalid YAML or settings outside of the schema raise a UserError."""
    path = Path(path)
    content = read_yaml(path)
    if isinstance(content, dict) and (old := next((name for name in SETTINGS if name in content), None)):
        raise UserError(
            f"{path.name}: found {old}, the name of an earlier version, expected {SETTINGS[old]}; "
            "run postprior upgrade, which rewrites params.yaml and dvc.yaml"
        )
    return parse_params(content, path.name)


def parse_params(content: Any, file: str) -> Params:
    """Return the settings that the content of a params.yaml holds.

    Raises:
        UserError: the content does not fit the schema; the message begins with the name `file`.
    """
    values = values_by_profile(content, file)
    profiles = {name: _validated(of_profile(content, name, values), file) for name in PROFILES}
    params = profiles[profiles[PROFILES[0]].profile]
    _check_names(params, file)
    params._by_profile = values
    return params


def _validated(content: Any, file: str) -> Params:
    try:
        return Params.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{file}: {describe_error(error, Params, content)}") from None


def check_model(params: Params, name: str) -> None:
    """Raise a UserError if the model is unknown or does not take its options in `vae.options`."""
    from postprior.stage1_vae.models import MODELS

    if name == ADAPTED:
        adaptation(params)
        return
    model = pick(MODELS, name, "vae.model", "model")
    given = {"modalities", "seed", *Vae.model_fields}
    check_options(model, params.vae.options[name], f"vae.options.{name}", given)


def check_density(params: Params, name: str) -> None:
    """Raise a UserError if an entry of `density` is missing, or its kind is unknown or does not take its options."""
    from postprior.stage2_latent import DENSITIES

    if name in params.density:
        read_entry(name, params.density[name])
        return
    pick({**DENSITIES, **params.density}, name, "density", "density")
    raise UserError(f"density.{name} is missing: add `{name}: {{}}` under `density`, or its options")


def read_entry(name: str, entry: Options) -> tuple[Fitting, Options]:
    """Return how the entry `name` of `density` is fitted, and the options of its kind; both are checked."""
    from postprior.stage2_latent import DENSITIES

    settings = {"kind": name, **entry}
    key = f"density.{name}"
    place = f"{key}.kind" if "kind" in entry else "density"
    density = pick(DENSITIES, str(settings["kind"]), place, "density")
    check_options(density, settings, key, base=Fitting)
    common = {option: settings.pop(option) for option in Fitting.model_fields if option in settings}
    return Fitting(**common), settings


def check_rows(params: Params, names: Sequence[str], key: str) -> None:
    """Raise a UserError if densities cannot be rows of one leaderboard: no entry, duplicate or reserved."""
    for name in names:
        if name in (*BASELINE_ROWS, *SAMPLER_ROWS):
            raise UserError(f"{key}: found '{name}', which is always scored; leave it out")
        _check_free(key, name)
        _check_entry(key, name, "density", params.density)
    if len(set(names)) < len(names):
        raise UserError(
            f"{key}: found a name twice in {', '.join(names)}, expected each name once; remove the duplicate"
        )


def _check_names(params: Params, file: str) -> None:
    """Raise a UserError if a name has no section of options: DVC tracks these, and this finds misspelt names."""
    extra = params.data.__pydantic_extra__ or {}
    _check_entry(f"{file}: data.source", params.data.source, "data", extra)
    _check_entry(f"{file}: vae.model", params.vae.model, "vae.options", params.vae.options)
    _check_entry(f"{file}: augment.model", params.augment.model, "vae.options", params.vae.options)
    if params.augment.model == ADAPTED:
        raise UserError(f"{file}: augment.model: found {ADAPTED}, expected a model that is trained, such as mvtcae")
    _check_entry(f"{file}: augment.density", params.augment.density, "density", params.density)
    check_rows(params, params.densities, f"{file}: densities")
    for name in params.density:
        if name != "normal":  # `normal` may be fitted as well, for inspection
            _check_free(f"{file}: density", name, (*BASELINE_ROWS, *SAMPLER_ROWS))
    if params.generate.values == "refined" and params.refine is None:
        raise UserError(
            f"{file}: generate.values: found refined, but refine is null; set refine: {{}}, or other values"
        )
    if params.generate.balance is not None and not sum(params.generate.balance.values()) > 0:
        raise UserError(f"{file}: generate.balance: found no share above 0, expected at least one, or null")


def _check_free(key: str, name: str, others: Sequence[str] = ()) -> None:
    """Raise a UserError if a density has the name of other results, which its results would overwrite."""
    if name in (*OTHER_RESULTS, *others):
        raise UserError(f"{key}: found '{name}', which names other results, expected a different name")


def _check_entry(key: str, name: str, section: str, sections: Mapping[str, Any]) -> None:
    if name not in sections:
        problem = f"found '{name}', which has no entry under `{section}`{hint(name, sections)}"
        raise UserError(f"{key}: {problem}; expected one of {listed(sections)}")
