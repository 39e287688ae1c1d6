"""Normative modelling: score how unusual rows are under a generator trained on normal rows, and what is unusual."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.blocks import ALONE, Sharing
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.detection.rarity import CodeDistance, Floats, alarm_rate, p_values, surprisals
from postprior.pipelines.errors import UserError
from postprior.pipelines.texts import enumerated

if TYPE_CHECKING:
    from postprior.pipelines.detection.normative import Part, Surprisals
    from postprior.pipelines.generation.generator import Generator

MOST = 2000  # largest number of training rows that represent normal rows
FEWEST = 10  # smallest number of training rows that represent normal rows
STATISTICS = ("reconstruction", "inconsistency", "code", "distance")
TRAIN, CALIBRATION, SCORED = range(3)
"""Random streams by purpose; with independent noise, calibration rows and new normal rows are exchangeable."""


@dataclass(frozen=True)
class Detection:
    """Scores of N rows; larger values are more unusual, except p-values."""

    score: Floats  # (N,), mean surprisal of the statistics in nats, about 1 for normal rows
    p_value: Floats  # (N,), conformal p-value: the probability that a normal row has a score at least as large
    calibrated_on: NDArray[np.int64]  # (N,), number n of calibration rows; p-values are at least 1/(n + 1)
    statistics: dict[str, Floats]  # statistics of `Detector`, (N, M); NaN if the row lacks the modality or all others
    row_statistics: dict[str, Floats]  # `code` and `distance` of the code of all observed modalities, (N,)
    contributions: Floats  # (N, M), contribution of each modality to the score, 0 if missing; they sum to the score
    features: dict[str, Floats]  # by table and vector, (N, J): surprisal of each value, 0 if the value is missing

    def record(self, part: Part, scored: dict[str, Any], calibration: Floats) -> None:
        """Fill in the scores of a part of the rows, given the sorted scores of its calibration rows."""
        rows, observed = part.rows, np.ix_(part.rows, np.flatnonzero(part.pattern))
        self.score[rows] = scored["score"]
        self.p_value[rows] = p_values(calibration, scored["score"])
        self.calibrated_on[rows] = len(calibration)
        self.contributions[observed] = scored["contributions"]
        for kind, place in {"statistics": observed, "row_statistics": rows, "features": rows}.items():
            for name, values in scored[kind].items():
                if values.size:
                    getattr(self, kind)[name][place] = values

    def flagged(self, alpha: float) -> NDArray[np.bool_]:
        """Return which rows (N,) have a p-value of at most `alpha`; on average a share `alarm_rate` of normal rows."""
        return np.asarray(self.p_value <= alarm_rate(alpha, self.calibrated_on))


@dataclass(frozen=True)
class NormativeModel:
    """Statistics of normal training rows with one pattern of P observed modalities."""

    surprisals: Surprisals  # of n training rows
    distance: tuple[CodeDistance, ...]  # distance of the code of the row, and of each modality alone
    distances: Floats  # (n, 1 + P), of the training rows

    @classmethod
    def fit(cls, normal: Surprisals, covariates: Floats | None, seed: int) -> Self:
        distance = tuple(CodeDistance.fit(codes, covariates, seed) for codes in normal.codes)
        return cls(normal, distance, _distances(distance, normal, covariates))

    def score(self, rows: Surprisals, covariates: Floats | None) -> dict[str, Any]:
        """Return score, contributions, statistics and features of rows with the pattern, over its P modalities."""
        normal, distances = self.surprisals, _distances(self.distance, rows, covariates)
        reconstruction = surprisals(normal.reconstruction, rows.reconstruction)  # (N, P)
        inconsistency = surprisals(normal.inconsistency, rows.inconsistency)  # (N, P or 0)
        code = surprisals(normal.code, rows.code)  # (N, 1 + P)
        distance = surprisals(self.distances, distances)  # (N, 1 + P)
        terms = [reconstruction, *([inconsistency] if inconsistency.size else [])]
        terms += [(each[:, :1] + each[:, 1:]) / 2 for each in (code, distance)]
        contributions = np.mean(terms, 0) / reconstruction.shape[1]
        return {
            "score": contributions.sum(1),
            "contributions": contributions,
            "statistics": {
                "reconstruction": rows.reconstruction,
                "inconsistency": rows.inconsistency,
                "code": rows.code[:, 1:],
                "distance": distances[:, 1:],
            },
            "row_statistics": {"code": rows.code[:, 0], "distance": distances[:, 0]},
            "features": {name: _feature_surprisals(normal.cells[name], cells) for name, cells in rows.cells.items()},
        }


def _distances(distance: tuple[CodeDistance, ...], rows: Surprisals, covariates: Floats | None) -> Floats:
    """Return the distances of the codes of rows, (N, 1 + P)."""
    return np.stack([measure(codes, covariates) for measure, codes in zip(distance, rows.codes, strict=True)], 1)


def _feature_surprisals(normal: Floats, cells: Floats) -> Floats:
    """Return the surprisal of each value (N, J), averaged over reconstruction and prediction from other modalities."""
    N, kinds, J = cells.shape
    values = surprisals(normal.reshape(len(normal), kinds * J), cells.reshape(N, kinds * J))
    return values.reshape(N, kinds, J).mean(1)


@dataclass(frozen=True)
class Reference:
    """What rows with one pattern of modalities are compared with."""

    normative: NormativeModel
    scores: Floats  # of the calibration rows, sorted


class Detector:
    """Score rows with a generator trained on normal rows only (Lawry Aguila et al. 2023, arXiv 2303.12706).

    Four statistics are computed for every modality m of a row, in nats except for the distance:

    - reconstruction, −log p(x_m | z) given the code of the row;
    - inconsistency, −log p(x_m | z) given the code of all other modalities, that is, under their prediction;
    - code, −log f(z) under the fitted density, for the code of the row and for the code of m alone;
    - distance, the robust Mahalanobis distance of these codes after regressing out targets: see `CodeDistance`.

    Every statistic is converted to a surprisal, −log of the share of normal training rows with a value at least as
    large (`surprisals`). Surprisals of `code` and `distance` are averaged with equal weight over the code of the row
    and the code of m alone. The score is the mean over modalities and over the four statistics, as Fisher (1932) sums
    the logarithms of p-values. Only normal rows are used for fitting.

    A row that lacks modalities is compared with training rows from which the same modalities are removed. Its p-value
    uses the calibration rows that have at least the modalities of the row; their other modalities are removed. Missing
    cells are left out; calibration rows should lack cells as often as the rows to score.

    Example:
        detector = Detector.fit(Generator.load("artefacts/densities/gmm"), train, test)
        detector.score(patients).flagged(alpha=0.05)
    """

    def __init__(self, generator: Generator, normal: Dataset, calibration: Dataset, seed: int) -> None:
        self.generator, self.normal, self.calibration, self.seed = generator, normal, calibration, seed
        self._references: dict[bytes, Reference] = {}

    @classmethod
    def fit(cls, generator: Generator, train: Dataset, calibration: Dataset, seed: int = 0) -> Self:
        """Fit a detector of rows that differ from the normal rows of `train`.

        Args:
            generator: An autoencoder trained on `train` and a density fitted to its codes.
            train: Normal rows; a random subset of `MOST` is used if there are more.
            calibration: Normal rows that were not used for training or model selection; p-values are ranks among them.
            seed: Seed of the random subset and of the posterior draws.

        Raises:
            UserError: The modalities are not those of the model, the density has no score, calibration and training
                rows are the same, or only one of the two has targets.
        """
        density = generator.density
        if not (density.exact_log_prob or density.bound):
            raise UserError(
                f"density {density.name}: has no log-likelihood, expected a density with one; fit gmm, flow or gaussian"
            )
        if calibration is train or (calibration.hash is not None and calibration.hash == train.hash):
            raise UserError(
                "calibration: found the training rows, expected normal rows that were not used in training; pass others"
            )
        train, calibration = (
            _mask_empty(conformed(data, generator.model.modalities, generator.conversion), place)
            for data, place in ((train, "training rows"), (calibration, "calibration"))
        )
        _check_targets(calibration, train, "calibration")
        if len(train) > MOST:
            rows = np.random.default_rng(seed).choice(len(train), MOST, replace=False)
            train = train.select(np.sort(rows))
        return cls(generator, train, calibration, seed)

    def score(self, data: Dataset) -> Detection:
        """Score rows with some or all of the modalities.

        Raises:
            UserError: The modalities are not those of the model, a row has no observed value, targets are missing, or
                fewer than `FEWEST` training rows have the modalities of a row.
        """
        detection = self.shared_score(data, ALONE)
        assert detection is not None  # there is one rank
        return detection

    def shared_score(self, data: Dataset, sharing: Sharing) -> Detection | None:
        """Return what `score` does, computed by the ranks of a job; None on all but the first."""
        from postprior.pipelines.detection.normative import surprisals_of

        data = _mask_empty(conformed(data, self.generator.model.modalities, self.generator.conversion), "data")
        _check_targets(data, self.normal, "data")
        parts = self._parts(data)
        with surprisals_of(self.generator.model, self.generator.density, parts, sharing) as found:
            if found is None:
                return None
            detection, references = _empty_detection(data), dict(self._references)
            for part, surprisals in zip(parts, found, strict=True):
                purpose, key = part.seed[-1], part.pattern.tobytes()
                if purpose == TRAIN:
                    normative = NormativeModel.fit(surprisals, part.targets, self.seed)
                    references[key] = Reference(normative, np.zeros(0))
                    continue
                reference = references[key]
                scored = reference.normative.score(surprisals, part.targets)
                if purpose == CALIBRATION:
                    references[key] = replace(reference, scores=np.sort(scored["score"]))
                else:
                    detection.record(part, scored, reference.scores)
        self._references = references
        return detection

    def _parts(self, data: Dataset) -> list[Part]:
        """Return the rows of each pattern of modalities, after normal and calibration rows of a pattern that is new."""
        from postprior.pipelines.detection.normative import Part

        parts = []
        patterns, group = np.unique(data.observed, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if pattern.tobytes() not in self._references:
                normal, calibration = (  # rows that have at least the modalities of the pattern
                    np.flatnonzero((rows.observed | ~pattern).all(1)) for rows in (self.normal, self.calibration)
                )
                self._check_enough(pattern, normal)
                parts.append(Part(self.normal, normal, pattern, (self.seed, TRAIN)))
                if len(calibration):
                    parts.append(Part(self.calibration, calibration, pattern, (self.seed, CALIBRATION)))
            parts.append(Part(data, np.flatnonzero(group.ravel() == number), pattern, (self.seed, SCORED)))
        return parts

    def _check_enough(self, pattern: NDArray[np.bool_], normal: NDArray[np.int64]) -> None:
        """Raise a UserError if fewer than `FEWEST` training rows have the modalities of a pattern (M,)."""
        if len(normal) < FEWEST:
            modalities = zip(self.generator.model.modalities, pattern, strict=True)
            names = enumerated([m.title for m, observed in modalities if observed])
            raise UserError(
                f"data: found rows with {names}, but only {len(normal)} training rows have these modalities, "
                f"expected at least {FEWEST}; leave such rows out"
            )


def _mask_empty(data: Dataset, place: str) -> Dataset:
    """Mark modalities as missing in rows that lack all of their cells."""
    if not data.cells:
        return data
    missing = (data.missing(m.name).reshape(len(data), -1) for m in data.modalities)
    mask = np.stack([~cells.all(1) for cells in missing], 1)
    if len(empty := np.flatnonzero(~mask.any(1))):
        raise UserError(f"{place}: row {empty[0]} has no observed value, expected at least one; remove such rows")
    return replace(data, mask=mask)


def _check_targets(data: Dataset, train: Dataset, place: str) -> None:
    found, expected = (0 if rows.targets is None else rows.targets.shape[1] for rows in (data, train))
    if found != expected:
        raise UserError(
            f"{place}: found {found} targets, expected {expected} as in the training rows, because targets are "
            "regressed out of the codes; give all datasets the same targets"
        )


def _empty_detection(data: Dataset) -> Detection:
    """Allocate a detection; its values are filled in later."""
    N, M = len(data), len(data.modalities)
    statistics = {name: np.full((N, M), np.nan) for name in STATISTICS}
    row_statistics = {name: np.zeros(N) for name in ("code", "distance")}
    features = {m.name: np.zeros((N, *m.shape)) for m in data.modalities if m.tabular}
    return Detection(
        np.zeros(N), np.ones(N), np.zeros(N, np.int64), statistics, row_statistics, np.zeros((N, M)), features
    )
