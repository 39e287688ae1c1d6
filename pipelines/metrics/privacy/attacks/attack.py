"""The statistic of an attack (Giomi et al. 2023, https://arxiv.org/abs/2211.10459).

An attacker who has the synthetic rows makes guesses about people. The same attack is made three times:

- main: about training rows, with the success rate r;
- control: about held-out rows, with the success rate c, which is what the attacker learns about people in general;
- naive: without the synthetic rows. Where the main attack is not better than this one, the attack was too weak.

    risk = (r − c) / (1 − c)

It is the share of the guesses that general knowledge gets wrong and the synthetic rows get right because the person was
in the training data: 0 without a leak, 1 if every guess about a training row is right.

Rates are those of Wilson (1927, https://doi.org/10.1080/01621459.1927.10502953): with N attacks of which S succeed,

    rate = (S + z²/2) / (N + z²) ± z / (N + z²) · √(S (N − S) / N + z²/4)

The interval of the risk follows by propagation of these errors: ∂risk/∂r = 1 / (1 − c), ∂risk/∂c = (r − 1) / (1 − c)².
Guesses about the same person are not independent. N is then the effective number of attacks, the number of independent
ones with the same variance (Korn & Graubard 1998), and S the success rate times N.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import hypot, sqrt
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.metrics.statistics.intervals import LEVEL
from postprior.pipelines.metrics.statistics.missing import Missing, Written

MARGIN = 0.05
"""Smallest risk that is flagged: with more attacks, ever smaller risks are significant."""
BOUNDS = (-1.0, 1.0)
"""Of the risk; below 0, the attack succeeds more often on held-out rows, which is no leak of this kind."""
INTERVAL = ("value", "low", "high")


@dataclass(frozen=True)
class Rate:
    """The share of attacks that succeed, and the effective number of attacks."""

    share: float
    size: float

    @classmethod
    def of(cls, successes: NDArray[Any], attacks: NDArray[Any]) -> Self:
        """Return the rate of attacks on n people: `successes` (n,) of `attacks` (n,), which are independent by person.

        The variance is that of a ratio of sums over people. With one attack each, the size is n.
        """
        total = attacks.sum()
        share = float(successes.sum() / total)
        variance = float(np.square(successes - share * attacks).sum() / total**2)
        people = float((attacks > 0).sum())
        size = share * (1 - share) / variance if variance > 0 else people
        return cls(share, min(size, float(total)))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the centre and the half-width of Wilson's interval.

        >>> [round(float(x), 4) for x in Rate(0.5, 100).interval()]
        [0.5, 0.0962]
        """
        z = NormalDist().inv_cdf((1 + level) / 2)
        total = self.size + z**2
        centre = (self.share * self.size + z**2 / 2) / total
        return centre, z / total * sqrt(self.share * (1 - self.share) * self.size + z**2 / 4)

    @property
    def written(self) -> Written:
        """The rate with its interval, as results files store it."""
        centre, half = self.interval()
        return {"value": centre, "low": max(centre - half, 0.0), "high": min(centre + half, 1.0)}


@dataclass(frozen=True)
class Outcome:
    """The rates of the three attacks, and the number of main attacks.

    Attributes:
        main: the rate of the main attack.
        control: the rate of the control attack.
        naive: the share of successes of the naive attack.
        attacks: the number of attacks.
        details: what a results file tells in addition.
        secrets: the rates of main and control attack by the attribute that is inferred, if the attack infers one.
    """

    main: Rate
    control: Rate
    naive: float
    attacks: int
    details: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, tuple[Rate, Rate]] = field(default_factory=dict)

    def risk(self, level: float = LEVEL) -> tuple[float, float, float]:
        """Return the risk and the ends of its interval.

        >>> control, copies = Rate(0.2, 1000), Rate(1.0, 1000)
        >>> [round(x, 3) for x in Outcome(copies, control, 0.0, 1000).risk()]
        [0.998, 0.995, 1.0]
        """
        return _risk(self.main, self.control, level)

    def risks_of_secrets(self, level: float = LEVEL) -> dict[str, tuple[float, float, float]]:
        """Return the risks of the secrets, the clearest first; `level` is that of all their intervals together."""
        corrected = 1 - (1 - level) / max(1, len(self.secrets))
        risks = {name: _risk(*rates, corrected) for name, rates in self.secrets.items()}
        return dict(sorted(risks.items(), key=lambda item: -item[1][1]))

    @property
    def written(self) -> Written:
        """The risk with its interval, and what it follows from, as results files store them."""
        risks = self.risks_of_secrets()
        secrets = [{"attribute": name, **dict(zip(INTERVAL, risk, strict=True))} for name, risk in risks.items()]
        return {
            **dict(zip(INTERVAL, self.risk(), strict=True)),
            "main": self.main.written,
            "control": self.control.written,
            "naive": self.naive,
            "attacks": self.attacks,
            **self.details,
            **({"secrets": secrets} if secrets else {}),
        }


def _risk(main: Rate, control: Rate, level: float) -> tuple[float, float, float]:
    """Return the risk and the ends of its interval, within `BOUNDS`."""
    (r, r_error), (c, c_error) = main.interval(level), control.interval(level)
    risk = (r - c) / (1 - c)
    error = hypot(r_error / (1 - c), c_error * (1 - r) / (1 - c) ** 2)
    lowest, highest = BOUNDS
    return max(risk, lowest), max(risk - error, lowest), min(risk + error, highest)


Outcomes = dict[str, Outcome | Missing]
"""By name of the attack."""


def leaking_attacks(outcomes: Mapping[str, Outcome | Missing], margin: float) -> list[str]:
    """Return the attacks of which the risk, or that of one of their secrets, is significantly above a margin.

    The intervals are one-sided with Bonferroni correction: if no risk is above the margin, the probability that some
    attack is returned is at most (1 − LEVEL) / 2.
    """
    made = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Outcome)}
    tests = len(made) + sum(bool(outcome.secrets) for outcome in made.values())
    level = 1 - (1 - LEVEL) / max(1, tests)
    found = []
    for name, outcome in made.items():
        risks = [outcome.risk(level), *outcome.risks_of_secrets(level).values()]
        if max(low for _, low, _ in risks) > margin:
            found.append(name)
    return found
