"""Normative modelling: a pair trained on normal rows tells how strange other rows are, and what about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.detection.rarity import CodeDistance, Floats, alarm_rate, p_values, surprisals
from postprior.pipelines.errors import UserError

if TYPE_CHECKING:
    from postprior.pipelines.detection.normative import Surprisals
    from postprior.pipelines.generation.generator import Generator

MOST = 2000  # training rows that say what is normal, at most
FEWEST = 10  # the same, at least
STATISTICS = ("reconstruction", "inconsistency", "code", "distance")
TRAIN, CALIBRATION, SCORED = range(3)
"""What draws are for: each has noise of its own, so that calibration rows and normal new ones are exchangeable."""


@dataclass(frozen=True)
class Detection:
    """How strange each of N rows is; everything is larger where a row is stranger."""

    score: Floats  # (N,), the mean surprisal of the statistics in nats, about 1 for normal rows
    p_value: Floats  # (N,), conformal: among normal rows, the chance of a score as large
    calibrated_on: NDArray[np.int64]  # (N,), the number n of calibration rows behind a p-value of 1/(n + 1) at least
    statistics: dict[str, Floats]  # those of `Detector`, (N, M), NaN where a row lacks the modality, or all others
    row_statistics: dict[str, Floats]  # `code` and `distance` of the code of all that the row has, (N,)
    contributions: Floats  # (N, M), what each modality adds to the score, 0 for those that a row lacks; they sum to it
    features: dict[str, Floats]  # by table and vector, (N, J): the surprisal of each value, 0 where it is missing

    def flagged(self, alpha: float) -> NDArray[np.bool_]:
        """(N,) rows whose p-value is `alpha` or less; of normal rows a share of `alarm_rate`, on average."""
        return np.asarray(self.p_value <= alarm_rate(alpha, self.calibrated_on))


@dataclass(frozen=True)
class NormativeModel:
    """What is normal among rows of one pattern of P modalities: the evidence of training rows, and their distances."""

    evidence: Surprisals
    distance: tuple[CodeDistance, ...]  # of the code of the whole row, and of each modality alone
    distances: Floats  # (n, 1 + P)

    @classmethod
    def fit(cls, evidence: Surprisals, covariates: Floats | None, seed: int) -> Self:
        distance = tuple(CodeDistance.fit(codes, covariates, seed) for codes in evidence.codes)
        return cls(evidence, distance, _distances(distance, evidence, covariates))

    def judge(self, evidence: Surprisals, covariates: Floats | None) -> dict[str, Any]:
        """Score, contributions, statistics and features of rows of the pattern, over its P modalities."""
        normal, distances = self.evidence, _distances(self.distance, evidence, covariates)
        reconstruction = surprisals(normal.reconstruction, evidence.reconstruction)  # (N, P)
        inconsistency = surprisals(normal.inconsistency, evidence.inconsistency)  # (N, P or 0)
        code = surprisals(normal.code, evidence.code)  # (N, 1 + P)
        distance = surprisals(self.distances, distances)
        terms = [reconstruction, *([inconsistency] if inconsistency.size else [])]
        terms += [(each[:, :1] + each[:, 1:]) / 2 for each in (code, distance)]
        contributions = np.mean(terms, 0) / reconstruction.shape[1]
        return {
            "score": contributions.sum(1),
            "contributions": contributions,
            "statistics": {
                "reconstruction": evidence.reconstruction,
                "inconsistency": evidence.inconsistency,
                "code": evidence.code[:, 1:],
                "distance": distances[:, 1:],
            },
            "row_statistics": {"code": evidence.code[:, 0], "distance": distances[:, 0]},
            "features": {name: _of_features(normal.cells[name], cells) for name, cells in evidence.cells.items()},
        }


def _distances(distance: tuple[CodeDistance, ...], evidence: Surprisals, covariates: Floats | None) -> Floats:
    """(N, 1 + P)."""
    return np.stack([each(codes, covariates) for each, codes in zip(distance, evidence.codes, strict=True)], 1)


def _of_features(normal: Floats, cells: Floats) -> Floats:
    """The surprisal of each value (N, J): its mean in the reconstruction and the prediction from other modalities."""
    N, kinds, J = cells.shape
    found = surprisals(normal.reshape(len(normal), kinds * J), cells.reshape(N, kinds * J))
    return found.reshape(N, kinds, J).mean(1)


class Detector:
    """Scores rows by a trained pair whose training rows were normal (Lawry Aguila et al. 2023, arXiv 2303.12706).

    Four statistics of a row, each of its modalities m in nats but for the distance:

    - reconstruction, −log p(x_m | z) of the row's code;
    - inconsistency, −log p(x_m | z) of the code of all other modalities: what they predict;
    - code, −log f(z) under the fitted density, of the whole row's code and of that of m alone;
    - distance, the robust Mahalanobis distance of these codes, targets regressed out: see `CodeDistance`.

    Each becomes a surprisal, −log of the share of normal training rows in which it is as large (`surprisals`), and the
    score is their mean: that of the modalities, then half of what each says of a code alone and half of the whole, then
    over the four, as Fisher (1932) adds the logarithms of p-values. No row that is not normal has a part in it.

    Rows that lack modalities are judged among training rows that lose them too, and their p-values rest on calibration
    rows that have at least what they have, and lose the rest. Cells that are missing are left out; calibration rows
    should lack them as often as rows to be scored.

    Example:
        detector = Detector.fit(Generator.load("artefacts/densities/gmm"), train, test)
        detector.score(patients).flagged(alpha=0.05)
    """

    def __init__(self, generator: Generator, normal: Dataset, calibration: Dataset, seed: int) -> None:
        self.generator, self.normal, self.calibration, self.seed = generator, normal, calibration, seed
        self._norms: dict[bytes, tuple[NormativeModel, Floats]] = {}

    @classmethod
    def fit(cls, generator: Generator, train: Dataset, calibration: Dataset, seed: int = 0) -> Self:
        """A detector of rows unlike the normal ones of `train`, of which `MOST` are read.

        The generator is an autoencoder trained on `train` and a density of its codes. Calibration rows are normal ones
        that had no part in training or choices: their ranks are the p-values. The seed is that of the rows that are
        read and of the posterior draws.

        Raises UserError for rows of other modalities, a density without a score, the same rows twice, and targets that
        one of both lacks.
        """
        density = generator.density
        if not (density.exact_log_prob or density.bound):
            raise UserError(
                f"density {density.name}: has no score, expected one that has, such as gmm, flow or gaussian; fit that"
            )
        if calibration is train or (calibration.hash is not None and calibration.hash == train.hash):
            raise UserError(
                "calibration: found the training rows, expected normal rows that had no part in training; give others"
            )
        train, calibration = (
            _present(conformed(data, generator.model.modalities, generator.conversion), of)
            for data, of in ((train, "training rows"), (calibration, "calibration"))
        )
        _check_targets(calibration, train, "calibration")
        if len(train) > MOST:
            rows = np.random.default_rng(seed).choice(len(train), MOST, replace=False)
            train = train.select(np.sort(rows))
        return cls(generator, train, calibration, seed)

    def score(self, data: Dataset) -> Detection:
        """Score rows that have some or all of the modalities.

        Raises UserError for rows of other modalities, rows with nothing in them, targets that are missing, and a
        pattern of modalities that fewer than `FEWEST` training rows have.
        """
        data = _present(conformed(data, self.generator.model.modalities, self.generator.conversion), "data")
        _check_targets(data, self.normal, "data")
        found = _blank(data)
        patterns, group = np.unique(data.observed, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            rows = np.flatnonzero(group.ravel() == number)
            norm, calibration = self._norm(pattern)
            judged = self._judged(norm, data.select(rows), pattern, SCORED)
            found.score[rows] = judged["score"]
            found.p_value[rows] = p_values(calibration, judged["score"])
            found.calibrated_on[rows] = len(calibration)
            here = np.ix_(rows, np.flatnonzero(pattern))
            found.contributions[here] = judged["contributions"]
            for kind, place in {"statistics": here, "row_statistics": rows, "features": rows}.items():
                for name, values in judged[kind].items():
                    if values.size:
                        getattr(found, kind)[name][place] = values
        return found

    def _norm(self, pattern: NDArray[np.bool_]) -> tuple[NormativeModel, Floats]:
        """What is normal under a pattern (M,), and the scores of the calibration rows that have it."""
        key = pattern.tobytes()
        if key not in self._norms:
            sets = (self.normal, self.calibration)  # of each, the rows that have at least the modalities of the pattern
            normal, calibration = (of.select(np.flatnonzero((of.observed | ~pattern).all(1))) for of in sets)
            if len(normal) < FEWEST:
                of = zip(self.generator.model.modalities, pattern, strict=True)
                names = ", ".join(m.name for m, here in of if here)
                raise UserError(
                    f"data: found rows that have {names}, which {len(normal)} training rows have together, expected "
                    f"{FEWEST} at least; leave such rows out"
                )
            norm = NormativeModel.fit(self._evidence(normal, pattern, TRAIN), normal.targets, self.seed)
            judged = self._judged(norm, calibration, pattern, CALIBRATION)
            self._norms[key] = norm, np.sort(judged["score"])
        return self._norms[key]

    def _judged(self, norm: NormativeModel, rows: Dataset, pattern: NDArray[np.bool_], stream: int) -> dict[str, Any]:
        return norm.judge(self._evidence(rows, pattern, stream), rows.targets) if len(rows) else {"score": np.zeros(0)}

    def _evidence(self, rows: Dataset, pattern: NDArray[np.bool_], stream: int) -> Surprisals:
        import torch

        from postprior.pipelines.detection.normative import Surprisals

        pair, observed = self.generator, torch.from_numpy(pattern)
        return Surprisals.of(pair.model, pair.density, rows, observed, self.seed, stream)


def _present(data: Dataset, place: str) -> Dataset:
    """The same rows, a modality all of whose cells are missing counted as missing."""
    if not data.cells:
        return data
    lacking = (data.missing(m.name).reshape(len(data), -1) for m in data.modalities)
    mask = np.stack([~cells.all(1) for cells in lacking], 1)
    if len(empty := np.flatnonzero(~mask.any(1))):
        raise UserError(f"{place}: row {empty[0]} has nothing observed, expected a value at least; drop such rows")
    return replace(data, mask=mask)


def _check_targets(data: Dataset, train: Dataset, place: str) -> None:
    found, expected = (0 if of.targets is None else of.targets.shape[1] for of in (data, train))
    if found != expected:
        raise UserError(
            f"{place}: {found} targets found, expected {expected} as in the training rows: they are regressed out of "
            "the codes; give every set of rows the same"
        )


def _blank(data: Dataset) -> Detection:
    """A detection to be filled in."""
    from postprior.pipelines.detection.normative import FEATURED

    N, M = len(data), len(data.modalities)
    statistics = {name: np.full((N, M), np.nan) for name in STATISTICS}
    whole = {name: np.zeros(N) for name in ("code", "distance")}
    features = {m.name: np.zeros((N, *m.shape)) for m in data.modalities if m.kind in FEATURED}
    return Detection(np.zeros(N), np.ones(N), np.zeros(N, np.int64), statistics, whole, np.zeros((N, M)), features)
