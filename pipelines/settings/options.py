"""Check options of models, densities and data sources against the signatures that declare them."""

import inspect
import json
import math
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import hint, listed
from postprior.pipelines.settings.params import Options, Section

KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    Any: "a value",
}
LONGEST = 200
"""Number of characters of a value that an error message shows."""


def check_options(
    constructor: Callable[..., Any],
    options: Options,
    key: str,
    given: Collection[str] = (),
    base: type[Section] = Section,
) -> None:
    """Raise a UserError if options are unknown, missing or of another type than the parameters of a class or function.

    Args:
        constructor: the class or function.
        options: the options, by name.
        key: the dotted key of the options in params.yaml.
        given: parameters that the pipeline passes itself.
        base: settings that are allowed in addition to the options.
    """
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = hints.get(name, Any)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (kind, Field(default, description=describe_type(kind)))
    schema = create_model("Options", __base__=base, **fields)
    try:
        schema.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(describe_error(error, schema, options, prefix=key)) from None


def check_value(key: str, value: Any, kind: Any) -> None:
    """Raise a UserError if a value that does not come from params.yaml is outside of an annotated type of its schema.

    >>> from postprior.pipelines.settings.params import Temperature
    >>> check_value("temperature", 0.5, Temperature)
    >>> check_value("temperature", float("nan"), Temperature)
    Traceback (most recent call last):
    postprior.pipelines.errors.UserError: temperature: found NaN, expected a number above 0 and at most 1
    """
    try:
        TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
    except ValidationError:
        expected = next(part.description for part in kind.__metadata__ if isinstance(part, FieldInfo))
        raise UserError(f"{key}: found {_describe_value(value)}, expected {expected}") from None


def describe_error(error: ValidationError, schema: type[BaseModel], content: Any, prefix: str = "") -> str:
    """Describe the most informative error that pydantic found in `content`, in one sentence.

    That is an unknown key, or else the most deeply nested error. The descriptions of the schema's fields say what is
    expected; `prefix` is the dotted key of the content in its file.
    """
    faults = [(fault, _keys(fault, content)) for fault in error.errors(include_url=False)]
    fault, keys = min(faults, key=lambda pair: (pair[0]["type"] != "extra_forbidden", -len(pair[1])))
    known, expected = _look_up(schema, keys)
    key = ".".join([prefix, *keys] if prefix else keys)
    if fault["type"] == "extra_forbidden":
        return f"{key} is not a known key{hint(keys[-1], known)}; known here: {listed(known)}"
    if fault["type"] == "missing":
        return f"{key} is missing; expected {expected}"
    problem = f"found {_describe_value(fault['input'])}, expected {expected}{_remedy(fault['input'])}"
    return f"{key}: {problem}" if key else problem


def describe_type(kind: Any) -> str:
    """Describe a type annotation in plain words, such as "a whole number or null"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is None or kind in KINDS:
        return KINDS.get(kind) or str(getattr(kind, "__name__", kind))
    if origin is Literal:
        return " or ".join(str(choice) for choice in arguments)
    if origin in (dict, Mapping):
        return "names with values"
    if issubclass(origin if isinstance(origin, type) else object, Sequence):
        return f"a list (each item {describe_type(arguments[0])})"
    return " or ".join(describe_type(argument) for argument in arguments)


def _keys(fault: ErrorDetails, content: Any) -> list[str]:
    """Return the keys that lead to an error, without the branches of a union, which pydantic names as well."""
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
    """Return the keys that are allowed at the level of the last of `keys`, and what its deepest known field expects."""
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
            expected = field.description or describe_type(field.annotation)
    return known, expected


def _describe_value(value: Any) -> str:
    if isinstance(value, str):
        return f"the text '{_cut(value)}'"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    return "a group of keys" if isinstance(value, dict) else _cut(json.dumps(value, default=str))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _remedy(value: Any) -> str:
    """Return how to mend a number in quotes, or an empty text."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    return f"; write {value} without quotes" if math.isfinite(number) else ""
