"""What the rules read of the data, and what a rule is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.statistics.intervals import well_observed
from postprior.stage1_vae.modalities import Modality

SMALL = 1000
"""With fewer training rows, flows have too little data."""
MANY = 1000
"""With as many labelled and complete training rows, a density can tie the codes of several modalities together."""
UNEQUAL = 10
"""How many times as many values as the smallest modality the largest one has, if they need weights."""

Settings = dict[str, Any]
"""Settings of params.yaml by dotted key."""


@dataclass(frozen=True)
class Facts:
    """The modalities, and how many rows there are of which sort."""

    modalities: tuple[Modality, ...]
    rows: int  # of the training split
    complete: int  # training rows that have all modalities
    labelled: int  # training rows that have a label
    whole: int  # training rows that have both
    labels: int  # classes; 0 without labels
    test: int  # rows of the test split
    half: int  # fewest rows of one half of the test split that have a modality
    model: str | None = None  # that the user chose; None: the rules choose it

    @classmethod
    def of(cls, splits: Mapping[str, Dataset], model: str | None = None) -> Self:
        """Count in the training split and in the test split."""
        train, observed = splits["train"], splits["test"].observed
        each, complete = observed.sum(0) // 2, train.observed.all(1)
        return cls(
            train.modalities,
            rows=len(train),
            complete=int(complete.sum()),
            labelled=int(train.labelled.sum()),
            whole=int((train.labelled & complete).sum()),
            labels=len(train.label_names or ()),
            test=len(observed),
            half=int(each[well_observed(each)].min()),
            model=model,
        )

    @property
    def sizes(self) -> list[int]:
        """The number of values of each modality."""
        return [math.prod(m.shape) for m in self.modalities]

    @property
    def small(self) -> bool:
        """Whether there are few training rows."""
        return self.rows < SMALL

    @property
    def tables(self) -> bool:
        """Whether all modalities are tables."""
        return all(m.kind == "table" for m in self.modalities)

    @property
    def images(self) -> bool:
        """Whether there are several modalities, all of them images or volumes."""
        return len(self.modalities) > 1 and all(m.kind in ("image", "volume") for m in self.modalities)

    @property
    def apart(self) -> bool:
        """Whether each modality gets a code of its own."""
        return self.images and self.whole >= MANY if self.model is None else self.model == "unimodal"

    @property
    def unequal(self) -> bool:
        """Whether modalities differ much in their numbers of values."""
        return max(self.sizes) >= UNEQUAL * min(self.sizes)


@dataclass(frozen=True)
class Rule:
    """What to choose for some data, why, and what was measured. The texts are Markdown.

    `condition` says in words what `holds` computes; it is empty if the rule holds whenever no earlier one of its topic
    does. `measured` is empty if nothing was compared; otherwise `page` is the page of the documentation with these
    numbers.
    """

    topic: str
    condition: str
    choice: str
    reason: str
    settings: Callable[[Facts], Settings]
    holds: Callable[[Facts], bool] = lambda facts: True
    measured: str = ""
    page: str = ""
