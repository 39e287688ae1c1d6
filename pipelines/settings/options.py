"""Options of models, densities and data sources, checked against the signatures that declare them."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Collection
from typing import Any

from pydantic import Field, ValidationError, create_model

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.messages import sentence, words
from postprior.pipelines.settings.params import Options, Section


def check_options(
    constructor: Callable[..., Any],
    options: Options,
    key: str,
    given: Collection[str] = (),
    base: type[Section] = Section,
) -> None:
    """Check `options` against the signature of a constructor.

    Args:
        constructor: a class or function; its annotated parameters are the schema.
        options: what the user wrote under `key`.
        key: the dotted key, for the messages.
        given: parameters that the pipeline passes itself, no options.
        base: settings that may stand beside them.

    Raises:
        UserError: an option is unknown, missing or of another type.
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
