"""The options and learned values of a density, and their storage as plain tensors and a dictionary."""

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
from postprior.stage2_latent.states import check_shapes

SHAPES = {
    "whitening.loc": "D",
    "whitening.root": "D D",
    "classes.labels": "K int64",
    "classes.probabilities": "K",
    "levels": "K L",
}
"""The tensors of every density with their shapes, as `check_shapes` expects them."""


class Stored(ABC):
    """Base class that checks and keeps the keywords of the constructor, and saves and restores the state bit for bit.

    Attributes:
        options: keywords of the constructor.
        layout: blocks of the code vector.
        whitening: map between codes and the values that the methods of a final class get.
        classes: labels of the density and their probabilities.
        levels: quantiles of the scores of held-out codes of each class, (K, QUANTILES), or (K, 0) without scores.
        rows: numbers of training rows {"used": n, "left_out": n, "incomplete": n}; incomplete rows are used rows with
            missing blocks. If some rows have a label and others have none, these are {"inferred": n} used rows of a
            density that is `semi_supervised`, and {"unlabelled": n} rows that another density leaves out.
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
        """Create a density and keep its options, checked against the signature of the constructor."""
        density = super().__new__(cls)
        parameters = inspect.signature(cls).parameters
        for name in options.keys() - parameters.keys():
            known = ", ".join(parameters) or "none"
            raise ValueError(f"density {cls.name}: unknown option {name!r}, expected one of: {known}")
        values = {name: parameter.default for name, parameter in parameters.items()} | options
        # In the types that JSON can hold.
        density.options = {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
        return density

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return named tensors and a JSON-serialisable dictionary that together hold everything learned."""
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
        """Return the density with a state from `state`."""
        if meta.get("density") != cls.name:
            raise ValueError(f"density {cls.name}: the state is of {meta.get('density')!r}, expected {cls.name!r}")
        density = cls(**meta["options"])
        density._load(tensors, meta)
        return density

    def to(self, dtype: torch.dtype) -> Self:
        """Return the same density in another floating-point type; a fitted density has the type of the codes."""
        tensors, meta = self.state()
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
        return self.from_state(cast, meta)

    def _load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        names = meta["label_names"]
        self.layout = tuple(Block.from_description(description) for description in meta["layout"])
        self.rows = dict(meta["rows"])
        self.whitening = Whitening(tensors["whitening.loc"], tensors["whitening.root"])
        self.classes = Classes(
            tensors["classes.labels"],
            tensors["classes.probabilities"],
            None if names is None else tuple(names),
        )
        self.levels = tensors["levels"]
        check_shapes(tensors, SHAPES | self._shapes(meta["learned"]), D=sum(block.size for block in self.layout))
        self._restore(tensors, meta["learned"])

    def _check_fitted(self) -> None:
        if not hasattr(self, "whitening"):
            raise ValueError(f"density {self.name}: not fitted yet, call fit(codes) first")

    # To be implemented by a final class

    @abstractmethod
    def _tensors(self) -> dict[str, Tensor]:
        """Return the learned tensors."""

    @abstractmethod
    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        """Restore the learned values from the results of `_tensors` and `_learned`."""

    def _shapes(self, learned: Mapping[str, Any]) -> dict[str, str]:
        """Return the shapes of those learned tensors that `_restore` takes as they are, as `check_shapes` expects."""
        return {}

    def _learned(self) -> dict[str, Any]:
        """Return the learned values that are not tensors, JSON-serialisable."""
        return {}
