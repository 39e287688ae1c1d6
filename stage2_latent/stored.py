"""Options and learned values of a density, and both as plain tensors and a dictionary."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from postprior.stage1_vae.distributions import Block
from postprior.stage2_latent.draws import Classes
from postprior.stage2_latent.layouts import Layout
from postprior.stage2_latent.moments import Whitening


class Stored(ABC):
    """What is configured by the keywords of its constructor, is fitted, and comes back from its `state` bit by bit.

    Attributes:
        options: the keywords.
        layout: the blocks of the code vector.
        whitening: between codes and what the hooks see.
        classes: the labels that it knows and their probabilities.
        levels: quantiles of the scores of held-out codes of each class, (K, 101).
        rows: numbers of training rows {"used": n, "left_out": n, "incomplete": n}; the last are used and lack blocks.
    """

    name: ClassVar[str]

    options: dict[str, Any]
    layout: Layout
    whitening: Whitening
    classes: Classes
    levels: Tensor
    rows: dict[str, int]

    def __init_subclass__(cls) -> None:
        parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
        cls.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

    def __new__(cls, **options: Any) -> Self:
        """A density that keeps its options, checked against the constructor's signature."""
        density = super().__new__(cls)
        parameters = inspect.signature(cls).parameters
        for name in options.keys() - parameters.keys():
            known = ", ".join(parameters) or "none"
            raise ValueError(f"density {cls.name}: unknown option {name!r}, expected one of: {known}")
        values = {name: parameter.default for name, parameter in parameters.items()} | options
        # As JSON has them.
        density.options = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return density

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Named tensors and a JSON-able dictionary that hold all that was learned."""
        self._check_fitted()
        tensors = {
            "whitening.loc": self.whitening.loc,
            "whitening.root": self.whitening.root,
            "classes.labels": self.classes.labels,
            "classes.probabilities": self.classes.probabilities,
            "levels": self.levels,
            **self._tensors(),
        }
        meta = {
            "density": self.name,
            "options": self.options,
            "layout": [block.describe() for block in self.layout],
            "label_names": None if self.classes.names is None else list(self.classes.names),
            "rows": self.rows,
            "learned": self._learned(),
        }
        return {name: value.detach().clone().contiguous() for name, value in tensors.items()}, meta

    @classmethod
    def from_state(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Self:
        """The density that `state` described."""
        if meta.get("density") != cls.name:
            raise ValueError(f"density {cls.name}: the state is of {meta.get('density')!r}, expected {cls.name!r}")
        density = cls(**meta["options"])
        density._load(tensors, meta)
        return density

    def to(self, dtype: torch.dtype) -> Self:
        """The same density in another floating type; it is fitted in that of the codes."""
        tensors, meta = self.state()
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        return self.from_state(cast, meta)

    def _load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        names = meta["label_names"]
        self.layout = tuple(Block.from_description(each) for each in meta["layout"])
        self.rows = dict(meta["rows"])
        self.whitening = Whitening(tensors["whitening.loc"], tensors["whitening.root"])
        self.classes = Classes(
            tensors["classes.labels"],
            tensors["classes.probabilities"],
            None if names is None else tuple(names),
        )
        self.levels = tensors["levels"]
        self._restore(tensors, meta["learned"])

    def _check_fitted(self) -> None:
        if not hasattr(self, "whitening"):
            raise ValueError(f"density {self.name}: not fitted yet, call fit(codes) first")

    # What a final class fills in

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Learned tensors."""

    @abstractmethod
    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        """Takes learned values back from `_tensors` and `_learned`."""

    def _learned(self) -> dict[str, Any]:
        """Learned values that are not tensors, JSON-able."""
        return {}
