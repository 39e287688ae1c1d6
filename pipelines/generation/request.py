"""Requests for samples: their number, their labels, and the options of the draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.options import check_value
from postprior.pipelines.settings.params import Generate, Quantile, Seed, Temperature
from postprior.stage1_vae.modalities import Modality
from postprior.stage2_latent.density import Density

K = TypeVar("K")
REFINED = "refined"
VALUES = ("auto", "mean", "draws", REFINED)
Labels = Sequence[int] | np.ndarray | Mapping[str, int]


@dataclass(frozen=True)
class SampleRequest:
    """A request for samples; the same request to the same generator gives the same bytes.

    Args:
        n: Number of rows. If `labels` holds counts, n is None or their sum.
        labels: Labels of the samples. None: the density draws them from its label distribution. A sequence of n
            labels: these labels, in this order. A mapping from label name to count: this number of samples per label,
            in an order drawn from the seed.
        values: `mean` of the decoders; `draws` from their likelihoods; `auto`: draws of tables and vectors, and means
            of other modalities; or `refined`: like `auto`, with images and volumes drawn by the refiner. Draws have the
            spread and the shape of the data's distribution, means are the most typical values. All stay in the range of
            the training rows and have their decimals.
        temperature: Temperature of the density's noise, in (0, 1]; below 1, codes are closer to its modes.
        truncation: Quantile in [0, 1); codes less likely than this quantile of held-out codes are drawn again.
        complete: Whether samples have all values. If not, they lack modalities and cells as often as training rows do
            that are like them; the values that they have are the same.

    Raises:
        UserError: `values` is unknown, or seed, temperature or truncation are out of their range.
    """

    n: int | None = None
    seed: int = 0
    labels: Labels | None = None
    values: str = "auto"
    temperature: float = 1.0
    truncation: float = 0.0
    complete: bool = False

    def __post_init__(self) -> None:
        check_values(self.values)
        for key, kind in (("seed", Seed), ("temperature", Temperature), ("truncation", Quantile)):
            check_value(key, getattr(self, key), kind)

    @classmethod
    def from_settings(
        cls,
        settings: Generate,
        n: int | None = None,
        labels: Mapping[str, int] | None = None,
        **changes: float | str | None,
    ) -> Self:
        """Build the request of params.yaml; arguments that are not None replace its settings.

        Without `labels`, the label counts follow the setting `balance`, if it is set.
        """
        if n is None:
            n = settings.samples if labels is None else sum(labels.values())
        if labels is None and settings.balance is not None:
            labels = apportion(settings.balance, n)
        given = {key: value for key, value in changes.items() if value is not None}
        return cls(n, labels=labels, **given | settings.model_dump(exclude={"samples", "balance", *given}))

    @property
    def size(self) -> int:
        """The number of rows that are requested, before their labels are checked; 0 if there is none."""
        counts = self.labels.values() if isinstance(self.labels, Mapping) else ()
        return sum(counts) if counts else self.n or 0

    def rows_and_labels(self, density: Density) -> tuple[int, np.ndarray | None]:
        """Return the number of rows and their labels, (n,) int64; labels are None if the density draws them.

        Raises:
            UserError: No rows are requested, a label is unknown, the density has no labels, or truncation is requested
                from a density without an exact score.
        """
        labels = self._labels(density)
        rows = self.n if labels is None else len(labels)
        if rows is None or rows < 1:
            raise UserError(f"samples: found {rows}, expected a whole number of at least 1; request one sample or more")
        if self.truncation and not density.exact_log_prob:
            raise UserError(
                f"truncation: found {self.truncation} for density {density.name}, which has no exact score; set it to 0"
            )
        return rows, labels

    def _labels(self, density: Density) -> np.ndarray | None:
        if self.labels is None:
            return None
        classes = density.classes
        if not classes.labelled:
            raise UserError(f"labels: density {density.name} was fitted without labels, expected none; leave them out")
        numbers = classes.labels.tolist()
        if isinstance(self.labels, Mapping):
            by_name = {classes.names[number] if classes.names else str(number): number for number in numbers}
            chosen = [pick(by_name, label, "labels", "label of the codes") for label in self.labels]
            counts = list(self.labels.values())
            if any(count < 0 for count in counts):
                raise UserError(f"labels: found counts {counts}, expected whole numbers of at least 0")
            labels = np.random.default_rng(self.seed).permutation(np.repeat(np.array(chosen, np.int64), counts))
        else:
            labels = np.asarray(self.labels, np.int64)
        if self.n is not None and labels.shape != (self.n,):
            raise UserError(f"labels: found {labels.size} labels for {self.n} samples, expected one label per sample")
        if len(unknown := np.setdiff1d(labels, numbers)):
            raise UserError(f"labels: found {unknown[0]}, expected labels among {', '.join(map(str, numbers))}")
        return labels

    @property
    def condition(self) -> dict[str, int] | str | None:
        """The labels, as the provenance of a dataset records them."""
        if isinstance(self.labels, Mapping):
            return dict(self.labels)
        return None if self.labels is None else "a label a row"


def is_drawn(values: str, modality: Modality) -> bool:
    """Whether the values of a modality are drawn from the likelihood, not means of the decoder.

    `auto` and `refined` draw tabular ones. Neighbouring pixels, voxels and tokens depend on one another; the likelihood
    draws each for itself, which looks like noise.
    """
    return values == "draws" or (values in ("auto", REFINED) and modality.tabular)


def check_values(values: str) -> None:
    """Raise a UserError if `values` is unknown."""
    if values not in VALUES:
        raise UserError(f"values: found {values!r}, expected one of {', '.join(VALUES)}")


def apportion(shares: Mapping[K, float], rows: int) -> dict[K, int]:
    """Distribute `rows` in proportion to the shares, by the largest-remainder method.

    >>> apportion({"a": 1.0, "b": 2.0}, 10)
    {'a': 3, 'b': 7}
    """
    exact = np.array(list(shares.values())) / sum(shares.values()) * rows
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: rows - counts.sum()]] += 1
    return dict(zip(shares, counts.tolist(), strict=True))
