"""Settings read and checked: every stage reads its own through `load_params`.

Whatever is wrong with params.yaml becomes one sentence that names the dotted key, what was found there and what was
expected. The options of a model, a density or a data source have no schema of their own: the signature of its
constructor is the schema, so that an option is declared in one place only.
"""

import inspect
import json
import math
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import hint, listed, pick
from postprior.pipelines.settings.params import OTHER_RESULTS, REFERENCE_ROWS, Fitting, Options, Params, Section, Vae
from postprior.pipelines.settings.yaml_text import read_yaml

KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    Any: "a value",
}
LONGEST = 200
"""Characters of a value that a sentence shows."""


def load_params(path: Path | str) -> Params:
    """The settings of a params.yaml; a UserError tells of no such file, no YAML, or what the schema does not expect."""
    path = Path(path)
    content = read_yaml(path)
    try:
        params = Params.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{path.name}: {sentence(error, Params, content)}") from None
    _check_names(params, path.name)
    return params


def check_model(params: Params) -> None:
    """Refuse an unknown model and options that it does not take."""
    from postprior.stage1_vae import MODELS

    model = pick(MODELS, params.vae.model, "vae.model", "model")
    given = {"modalities", "seed", *Vae.model_fields}
    check_options(model, params.vae.chosen, f"vae.options.{params.vae.model}", given)


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
        if name in REFERENCE_ROWS:
            raise UserError(f"{key}: found '{name}', which is always scored; leave it out")
        _check_free(key, name)
        _check_entry(key, name, "density", params.density)
    if len(set(names)) < len(names):
        raise UserError(f"{key}: found a name twice in {', '.join(names)}; expected each once")


def check_options(
    constructor: Callable[..., Any],
    options: Options,
    key: str,
    given: Collection[str] = (),
    base: type[Section] = Section,
) -> None:
    """Refuse options that are unknown, missing or of another type than the parameters of a class or function.

    `key` is the dotted key that they stand under, `given` are parameters that the pipeline passes itself, and `base`
    are settings that may stand beside the options.
    """
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = hints.get(name, Any)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (kind, Field(default, description=words(kind)))
    schema = create_model("Options", __base__=base, **fields)
    try:
        schema.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(sentence(error, schema, options, prefix=key)) from None


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
            _check_free(f"{file}: density", name, REFERENCE_ROWS)
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


def sentence(error: ValidationError, schema: type[BaseModel], content: Any, prefix: str = "") -> str:
    """The most telling fault that pydantic found in `content`, as one sentence: an unknown key, or the deepest.

    The descriptions of the schema's fields say what is expected; `prefix` is the dotted key of the content in its file.
    """
    faults = [(fault, _keys(fault, content)) for fault in error.errors(include_url=False)]
    fault, keys = min(faults, key=lambda found: (found[0]["type"] != "extra_forbidden", -len(found[1])))
    known, expected = _look_up(schema, keys)
    key = ".".join([prefix, *keys] if prefix else keys)
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a known key{hint(keys[-1], known)}; known here: {listed(known)}"
    if fault["type"] == "missing":
        return f"{key} is missing; expected {expected}"
    found = f"found {_found(fault['input'])}, expected {expected}{_remedy(fault['input'])}"
    return f"{key}: {found}" if key else found


def words(kind: Any) -> str:
    """A type annotation in words, as in "a whole number or null"."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is None or kind in KINDS:
        return KINDS.get(kind) or str(getattr(kind, "__name__", kind))
    if origin is Literal:
        return " or ".join(str(choice) for choice in parts)
    if origin in (dict, Mapping):
        return "names with values"
    if issubclass(origin if isinstance(origin, type) else object, Sequence):
        return f"a list ({words(parts[0])} each)"
    return " or ".join(words(part) for part in parts)


def _keys(fault: ErrorDetails, content: Any) -> list[str]:
    """The keys that lead to a fault; pydantic also names the branches of a union, which are in no file."""
    keys = []
    for part in fault["loc"]:
        entries: Any = {str(key): value for key, value in content.items()} if isinstance(content, Mapping) else {}
        if isinstance(part, int) and isinstance(content, list):
            entries = {str(index): value for index, value in enumerate(content)}
        if str(part) in entries:
            content = entries[str(part)]
            keys.append(str(part))
    return keys + [str(part) for part in fault["loc"][-1:] if fault["type"] == "missing"]


def _look_up(schema: type[BaseModel], keys: Iterable[str]) -> tuple[Collection[str], str]:
    """The keys known beside the last of `keys`, and what is expected at the deepest field on the way."""
    section: Any = schema
    known: Collection[str] = schema.model_fields
    expected = f"the keys {listed(known)}"
    for key in keys:
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        known = section.model_fields
        field = section.model_fields.get(key)
        section = field.annotation if field else None
        if isinstance(section, type) and issubclass(section, BaseModel):
            expected = f"the keys {listed(section.model_fields)}"
        elif field:
            expected = field.description or words(field.annotation)
    return known, expected


def _found(value: Any) -> str:
    if isinstance(value, str):
        return f"the text '{_cut(value)}'"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return "a group of keys" if isinstance(value, dict) else _cut(json.dumps(value, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _remedy(value: Any) -> str:
    """How to mend a number that stands in quotes."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    return f"; write {value} without quotes" if math.isfinite(number) else ""
