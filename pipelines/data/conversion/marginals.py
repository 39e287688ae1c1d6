"""Choose the kind of a column of numbers: that under which held-out values are most probable."""

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, ndtr, xlogy

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.outliers import usual_range
from postprior.pipelines.data.conversion.quantiles import NormalScores

FOLDS = 5
FEWEST = 100
"""Columns with fewer observed training rows keep the kind that was detected."""
MOST = 20_000
"""Greatest number of training rows that the choice takes into account."""
BETTER = 2
"""Another kind is chosen if it is better by so many standard errors of the difference, and by `LEAST_GAIN`."""
LEAST_GAIN = 0.01  # nats per value
LEAST = 1e-12
"""Probabilities below count as so much, so that single values do not decide."""
UNIT = 1e-4
"""The unit of values with any number of decimals, as a share of their interquartile range."""
Marginal = Callable[[Values], Values]
"""Probabilities of values, each together with the numbers that are rounded to it."""


def suited_kind(detected: str, values: Values, half: float) -> str:
    """Return the kind that suits a column of observed training values (n,): `detected`, log or quantile.

    Each kind is scored by the mean log-probability of held-out values, in `FOLDS` folds of the rows: of a normal
    distribution after the transform of the kind, or of a negative binomial for counts. The probability of a value is
    that of all numbers within `half` of it.
    """
    low, high, _ = usual_range(values)
    values = values[(values >= low) & (values <= high)]
    if len(values) < FEWEST or low == high:
        return detected
    values = np.random.default_rng(0).permutation(values)[:MOST]
    kinds = [detected, *(["log"] if low >= 0 and detected == "numeric" else []), "quantile"]
    with np.errstate(all="ignore"):  # values whose squares are not finite
        half = half or UNIT * float(np.subtract(*np.quantile(values, (0.75, 0.25))) or values.std())
        scores = {kind: _held_out(MARGINALS[kind], values, half) for kind in kinds}
    best = detected
    for kind in kinds[1:]:
        gain = scores[kind] - scores[best]
        if gain.mean() > max(LEAST_GAIN, BETTER * gain.std() / np.sqrt(len(gain))):
            best = kind
    return best


def _held_out(fit: Callable[[Values, float], Marginal], values: Values, half: float) -> Values:
    """Return the log-probability of every value (n,) under a marginal of the other folds."""
    fold, probabilities = np.arange(len(values)) % FOLDS, np.empty(len(values))
    for held_out in (fold == number for number in range(FOLDS)):
        probabilities[held_out] = fit(values[~held_out], half)(values[held_out])
    return np.log(np.maximum(probabilities, LEAST))


def _normal(transform: Callable[[Values], Values], values: Values, half: float) -> Marginal:
    x = transform(values)
    mean, scale = x.mean(), x.std() or 1.0
    return lambda v: ndtr((transform(v + half) - mean) / scale) - ndtr((transform(v - half) - mean) / scale)


def _logarithms(values: Values) -> Values:
    return np.log1p(np.maximum(values, -1 + 1e-9))


def _negative_binomial(values: Values, half: float) -> Marginal:
    """Fit the mean μ and the variance μ + μ²/θ."""
    mean, variance = values.mean(), values.var()
    size = min(mean**2 / max(variance - mean, 1e-9), 1e6)

    def probabilities(v: Values) -> Values:
        constant = gammaln(v + size) - gammaln(size) - gammaln(v + 1) + size * np.log(size / (size + mean))
        return np.exp(constant + xlogy(v, mean / (size + mean)))

    return probabilities


MARGINALS: dict[str, Callable[[Values, float], Marginal]] = {
    "numeric": lambda values, half: _normal(lambda v: v, values, half),
    "log": lambda values, half: _normal(_logarithms, values, half),
    "quantile": lambda values, half: _normal(NormalScores.fit(values, half, values.std()), values, half),
    "count": _negative_binomial,
}
