"""Adapters of the models of other libraries, which make them `Adaptable`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from postprior.stage1_vae.adapted import Adaptable
from postprior.stage1_vae.adapters import multivae, pythae, scvi_tools


def adaptable(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> Adaptable:
    """Return a model of another library with the methods of `Adaptable`; any other object has to have them already.

    Args:
        model: the trained model: of MultiVae, Pythae or scvi-tools, or any other object.
        shapes: the shapes of the values of its modalities, by name.

    Raises:
        ValueError: the object lacks methods, or is a model of Pythae or scvi-tools that is not supported.
    """
    if (name := multivae.class_of(model)) is not None:
        return multivae.adapter(model, name, shapes)
    if (name := pythae.class_of(model)) is not None:
        return pythae.adapter(model, name, shapes)
    if (name := scvi_tools.class_of(model)) is not None:
        return scvi_tools.adapter(model, name, shapes)
    if missing := [part for part in ("layout", "encode", "decode") if not hasattr(model, part)]:
        found = f"model: found {type(model).__name__} without {', '.join(missing)}"
        libraries = "MultiVae, Pythae or scvi-tools"
        raise ValueError(f"{found}, expected a model of {libraries}, or the methods of stage1_vae.adapted.Adaptable")
    return model
