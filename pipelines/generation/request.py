"""What is asked of a generator: how many samples, of which labels, and how they are drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.params import Generate
from postprior.stage2_latent.density import Density

K = TypeVar("K")
VALUES = ("mean", "draws")
Labels = Sequence[int] | np.ndarray | Mapping[str, int]


@dataclass(frozen=True)
class SampleRequest:
    """Samples that are asked for; the same request of the same generator gives the same bytes.

    Args:
        n: number of rows; their sum when `labels` holds counts.
        labels: None draws them as the density learned them; n labels ask for these, in their order; counts by label
            name ask for so many of each, in an order drawn from the seed.
        values: `mean` of the decoders, or `draws` from their likelihoods; both clipped to the modality's range,
            counts rounded.
        temperature: of the density's noise, above 0 and 1 at most; below 1 the codes are nearer to its modes.
        truncation: codes less likely than all but this share of held-out ones are drawn again.

    Raises:
        UserError: values that no decoder gives.
    """

    n: int | None = None
    seed: int = 0
    labels: Labels | None = None
    values: str = "mean"
    temperature: float = 1.0
    truncation: float = 0.0

    def __post_init__(self) -> None:
        check_values(self.values)

    @classmethod
    def of(
        cls,
        settings: Generate,
        n: int | None = None,
        labels: Mapping[str, int] | None = None,
        **changes: float | str | None,
    ) -> Self:
        """What params.yaml asks for, with other values where these are not None; labels in its balance."""
        if n is None:
            n = settings.samples if labels is None else sum(labels.values())
        if labels is None and settings.balance is not None:
            labels = apportion(settings.balance, n)
        changed = {key: value for key, value in changes.items() if value is not None}
        return cls(n, labels=labels, **changed | settings.model_dump(exclude={"samples", "balance", *changed}))

    def rows_and_labels(self, density: Density) -> tuple[int, np.ndarray | None]:
        """The number of rows, and the label asked for each, (n,) int64, or None where the density draws them.

        Raises:
            UserError: no rows, labels that the density does not know or has none of, or a truncation of one that has no
                exact score.
        """
        labels = self._labels(density)
        rows = self.n if labels is None else len(labels)
        if rows is None or rows < 1:
            raise UserError(f"samples: found {rows}, expected a whole number of at least 1; ask for one sample or more")
        if self.truncation and not density.exact_log_prob:
            raise UserError(
                f"truncation: found {self.truncation} for density {density.name}, which has no exact score, expected 0"
            )
        return rows, labels

    def _labels(self, density: Density) -> np.ndarray | None:
        if self.labels is None:
            return None
        classes = density.classes
        if not classes.labelled:
            raise UserError(f"labels: density {density.name} has none, expected no labels; leave them out")
        numbers = classes.labels.tolist()
        if isinstance(self.labels, Mapping):
            known = {classes.names[number] if classes.names else str(number): number for number in numbers}
            named = [pick(known, label, "labels", "label of the codes") for label in self.labels]
            counts = list(self.labels.values())
            if any(count < 0 for count in counts):
                raise UserError(f"labels: found counts {counts}, expected whole numbers of at least 0")
            asked = np.random.default_rng(self.seed).permutation(np.repeat(np.array(named, np.int64), counts))
        else:
            asked = np.asarray(self.labels, np.int64)
        if self.n is not None and asked.shape != (self.n,):
            raise UserError(f"labels: found {asked.size} for {self.n} samples, expected one for each sample")
        if len(unknown := np.setdiff1d(asked, numbers)):
            raise UserError(f"labels: found {unknown[0]}, expected some of {', '.join(map(str, numbers))}")
        return asked

    @property
    def condition(self) -> dict[str, int] | str | None:
        """The labels, as the provenance of a dataset tells them."""
        if isinstance(self.labels, Mapping):
            return dict(self.labels)
        return None if self.labels is None else "a label a row"


def check_values(values: str) -> None:
    """Refuse what decoders do not give."""
    if values not in VALUES:
        raise UserError(f"values: found {values!r}, expected one of {', '.join(VALUES)}")


def apportion(shares: Mapping[K, float], rows: int) -> dict[K, int]:
    """Counts that sum to `rows` in proportion to the shares, by largest remainders.

    >>> apportion({"a": 1.0, "b": 2.0}, 10)
    {'a': 3, 'b': 7}
    """
    exact = np.array(list(shares.values())) / sum(shares.values()) * rows
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: rows - counts.sum()]] += 1
    return dict(zip(shares, counts.tolist(), strict=True))
