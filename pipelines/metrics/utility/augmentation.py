"""The augmentation curve: accuracy by number of real rows, and what each way of adding rows gains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.statistics.intervals import SHARE, Ints, Missing, Score
from postprior.pipelines.metrics.utility.classifiers import Replicates, by_classifier, told

RESAMPLES = 400
BASELINES = {"over_real": "real", "over_classical": "classical"}


@dataclass(frozen=True)
class Cell:
    """Where the classifiers of every arm, trained on `size` rows that `seed` chose, read the test rows rightly.

    Shapes: hits (arms, 1 + M, N), the joint classifier first; groups and labels (N,) and mask (N, M) of the test
    rows, None where each row is its own source, where labels do not matter, and where every modality is observed.
    """

    size: int
    seed: int
    arms: Sequence[str]
    modalities: Sequence[str]
    hits: NDArray[np.bool_]
    groups: Ints | None = None
    labels: Ints | None = None
    mask: NDArray[np.bool_] | None = None

    @property
    def sources(self) -> Ints:
        """The source of each test row (N,)."""
        return np.arange(self.hits.shape[2]) if self.groups is None else self.groups

    @property
    def seen(self) -> NDArray[np.bool_]:
        """The rows that each classifier reads (1 + M, N): the joint one all of them."""
        seen = np.ones(self.hits.shape[1:], bool)
        if self.mask is not None:
            seen[1:] = self.mask.T
        return seen

    @property
    def accuracy(self) -> dict[str, Any]:
        """Accuracies by arm: joint, mean over modalities, each modality; missing of one that no test row has."""

        def tell(score: Score) -> Any:
            return score.written if isinstance(score, Missing) else float(score[0])

        rows = self.seen.sum(1)
        shares = np.where(rows > 0, self.hits.sum(2) / np.maximum(rows, 1), np.nan)  # (arms, 1 + M)
        return {
            arm: by_classifier(own[None], self.modalities, tell) for arm, own in zip(self.arms, shares, strict=True)
        }


def curve(cells: Iterable[Cell]) -> dict[str, dict[str, dict[str, Any]]]:
    """By number of real rows and by arm: `accuracy`, and its gains `over_real` and `over_classical`, with intervals.

    Accuracies are means over seeds. Seeds and sources of the test rows are resampled together, by half-samples of
    each (`postprior.pipelines.metrics.utility.classifiers.Replicates`); gains are paired, by seed and by test row.
    """
    cells = list(cells)
    sizes = sorted({cell.size for cell in cells})
    return {str(size): _of_size([cell for cell in cells if cell.size == size]) for size in sizes}


def _of_size(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Accuracy and gains by arm, of the cells of one size."""
    first = cells[0]
    for cell in cells[1:]:
        if cell.hits.shape != first.hits.shape or list(cell.arms) != list(first.arms):
            raise UserError(
                f"augmentation: found seeds {first.seed} and {cell.seed} of size {first.size} with other arms or test "
                "rows, expected the same; run postprior augment again for both"
            )
    rng = np.random.default_rng(0)
    weights = Replicates.draw(len(cells), first.sources, RESAMPLES, rng, first.labels)
    hits = np.stack([cell.hits for cell in cells], 1)  # (arms, S, 1 + M, N)
    shares = {
        arm: weights.accuracy(own, first.seen) for arm, own in zip(first.arms, hits, strict=True)
    }  # (1 + B, 1 + M)
    found: dict[str, dict[str, Any]] = {}
    for arm, values in shares.items():
        found[arm] = {"accuracy": told(values, first.modalities, SHARE)}
        for gain, baseline in BASELINES.items():
            if arm != baseline and baseline in shares:
                found[arm][gain] = told(values - shares[baseline], first.modalities)
    return found
