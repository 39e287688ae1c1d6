"""Settings read and checked: every stage reads its own through `load_params`.

Whatever is wrong with params.yaml becomes one sentence that names the dotted key, what was found there and what was
expected. The options of a model, a density or a data source have no schema of their own: the signature of its
constructor is the schema, so that an option is declared in one place only.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import hint, listed, pick
from postprior.pipelines.settings.options import check_options, sentence
from postprior.pipelines.settings.params import BASELINE_ROWS, OTHER_RESULTS, Fitting, Options, Params, Vae
from postprior.pipelines.settings.renames import SETTINGS
from postprior.pipelines.settings.yaml_text import read_yaml


def load_params(path: Path | str) -> Params:
    """The settings of a params.yaml; a UserError tells of no such file, no YAML, or what the schema does not expect."""
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
        UserError: the schema does not expect what was found; `file` is the name that the message begins with.
    """
    try:
        params = Params.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{file}: {sentence(error, Params, content)}") from None
    _check_names(params, file)
    return params


def check_model(params: Params, name: str) -> None:
    """Refuse an unknown model and options of `vae.options` that it does not take."""
    from postprior.stage1_vae.models import MODELS

    model = pick(MODELS, name, "vae.model", "model")
    given = {"modalities", "seed", *Vae.model_fields}
    check_options(model, params.vae.options[name], f"vae.options.{name}", given)


def check_density(params: Params, name: str) -> None:
    """Refuse an entry of `density` that is missing, of no known kind, or with options that its kind does not take."""
    from postprior.stage2_latent import DENSITIES

    if name in params.density:
        read_entry(name, params.density[name])
        return
    pick({**DENSITIES, **params.density}, name, "density", "density")
    raise UserError(f"density.{name} is missing: add `{name}: {{}}` under `density`, or its options")


def read_entry(name: str, written: Options) -> tuple[Fitting, Options]:
    """How the entry `name` of `density` is fitted, and the options of its kind, both checked."""
    from postprior.stage2_latent import DENSITIES

    settings = {"kind": name, **written}
    key = f"density.{name}"
    place = f"{key}.kind" if "kind" in written else "density"
    density = pick(DENSITIES, str(settings["kind"]), place, "density")
    check_options(density, settings, key, base=Fitting)
    common = {option: settings.pop(option) for option in Fitting.model_fields if option in settings}
    return Fitting(**common), settings


def check_rows(params: Params, names: Sequence[str], key: str) -> None:
    """Refuse densities that cannot be rows of one leaderboard: no entry, twice there, or a name that is taken."""
    for name in names:
        if name in BASELINE_ROWS:
            raise UserError(f"{key}: found '{name}', which is always scored; leave it out")
        _check_free(key, name)
        _check_entry(key, name, "density", params.density)
    if len(set(names)) < len(names):
        raise UserError(f"{key}: found a name twice in {', '.join(names)}; expected each once")


def _check_names(params: Params, file: str) -> None:
    """Refuse names without a section of options: DVC tracks it, and a misspelt name shows at once."""
    extra = params.data.__pydantic_extra__ or {}
    _check_entry(f"{file}: data.source", params.data.source, "data", extra)
    _check_entry(f"{file}: vae.model", params.vae.model, "vae.options", params.vae.options)
    _check_entry(f"{file}: augment.model", params.augment.model, "vae.options", params.vae.options)
    _check_entry(f"{file}: augment.density", params.augment.density, "density", params.density)
    check_rows(params, params.densities, f"{file}: densities")
    for name in params.density:
        if name != "normal":  # which may be fitted, to be looked at
            _check_free(f"{file}: density", name, BASELINE_ROWS)
    if params.generate.balance is not None and not sum(params.generate.balance.values()) > 0:
        raise UserError(f"{file}: generate.balance: found no share above 0; expected at least one, or null")


def _check_free(key: str, name: str, others: Sequence[str] = ()) -> None:
    """Refuse a density with the name of other results, which its own would replace."""
    if name in (*OTHER_RESULTS, *others):
        raise UserError(f"{key}: found '{name}', the name of another file of results; expected another name")


def _check_entry(key: str, name: str, section: str, sections: Mapping[str, Any]) -> None:
    if name not in sections:
        found = f"found '{name}', which has no entry under `{section}`{hint(name, sections)}"
        raise UserError(f"{key}: {found}; expected one of {listed(sections)}")
