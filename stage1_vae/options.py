"""Checks the options of models and expands them by modality."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from postprior.stage1_vae.distributions import LOG_SCALE
from postprior.stage1_vae.likelihoods import LIKELIHOODS
from postprior.stage1_vae.modalities import Modality

LEARNED, FEATURES = "learned", "features"
Scale = float | str
"""A positive number, `learned` (one number), or `features` (learned, one number per coordinate of a value)."""


class Scales(nn.Module):
    """Scales of the likelihoods by modality: fixed numbers, or learned parameters exp(`log_scale`).

    Args:
        given: the scale of each modality.
        shapes: the shape of a value of each modality.
    """

    START = 0.1
    """Initial value of a learned scale."""

    def __init__(self, given: Mapping[str, Scale], shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        for name, value in given.items():
            if isinstance(value, str) and value not in (LEARNED, FEATURES):
                expected = f"expected a number above 0, {LEARNED} or {FEATURES}"
                raise ValueError(f"likelihood_scale of {name}: found {value!r}, {expected}")
        self.given = {
            name: value if isinstance(value, str) else positive("likelihood_scale", value)
            for name, value in given.items()
        }
        sizes = {name: shapes[name] if v == FEATURES else () for name, v in given.items() if isinstance(v, str)}
        start = math.log(self.START)
        self.log_scale = nn.ParameterDict({name: nn.Parameter(torch.full(size, start)) for name, size in sizes.items()})

    def __getitem__(self, name: str) -> Any:
        """Return the scale of a modality. The value is not used if the likelihood of the modality has no scale."""
        if name in self.log_scale:
            return self.log_scale[name].clamp(*LOG_SCALE).exp()
        return self.given.get(name, self.START)


def check_modalities(modalities: Sequence[Modality]) -> None:
    """Raise an error if there is no modality, two modalities have the same name, or a likelihood is unknown."""
    if not modalities or len({m.name for m in modalities}) < len(modalities):
        names = ", ".join(m.name for m in modalities) or "none"
        raise ValueError(f"modalities: found {names}, expected one or more with different names")
    for modality in modalities:
        if modality.likelihood not in LIKELIHOODS:
            likelihoods = ", ".join(LIKELIHOODS)
            raise ValueError(
                f"likelihood of modality {modality.name}: found {modality.likelihood!r}, expected one of {likelihoods}"
            )


def vector_like(like: Tensor, numbers: Sequence[float]) -> Tensor:
    """Return numbers (n,) with the type and device of `like`: written there, because a copy waits for the device."""
    return torch.stack([like.new_full((), number) for number in numbers])


def check_names(option: str, given: Iterable[str], names: Sequence[str]) -> None:
    """Raise an error if a key of an option is not the name of a modality."""
    for name in given:
        if name not in names:
            raise ValueError(f"{option}: found {name!r}, expected modalities: {', '.join(names)}")


def per_modality(option: str, value: Any, names: Sequence[str], default: Any) -> dict[str, Any]:
    """Return an option by modality, given one value for all or a mapping; the default fills gaps of a mapping."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    check_names(option, value, names)
    return {name: value.get(name, default) for name in names}


def rescaling_weights(
    rescaling: Mapping[str, float] | str | None, modalities: Sequence[Modality]
) -> list[float] | None:
    """Return the weights of the log-likelihoods in the order of the modalities, or None if all weights are equal."""
    if rescaling is None:
        return None
    if isinstance(rescaling, str):
        if rescaling != "dimensions":
            raise ValueError(f"rescaling: found {rescaling!r}, expected none, dimensions, or weights by modality")
        sizes = [math.prod(m.shape) for m in modalities]
        return [max(sizes) / size for size in sizes]
    return weights_of("rescaling", rescaling, modalities)


def weights_of(option: str, value: Any, modalities: Sequence[Modality], default: float = 1.0) -> list[float]:
    """Return positive weights in the order of the modalities, given one for all or a mapping; see `per_modality`."""
    weights = per_modality(option, value, [m.name for m in modalities], default)
    return [positive(option, weight) for weight in weights.values()]


def positive(name: str, value: Any) -> Any:
    """Return `value` if it is above 0, otherwise raise an error."""
    if not value > 0:
        raise ValueError(f"{name}: found {value}, expected a number above 0")
    return value


def not_negative(name: str, value: Any) -> Any:
    """Return `value` if it is at least 0, otherwise raise an error."""
    if not value >= 0:
        raise ValueError(f"{name}: found {value}, expected a number of at least 0")
    return value


def one_of(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of the choices, otherwise raise an error."""
    if value not in choices:
        raise ValueError(f"{name}: found {value!r}, expected one of {', '.join(choices)}")
    return value
