"""Attribute inference: "a person with these attributes also has that one" (Giomi et al. 2023).

The attacker knows all attributes of a person but one, the secret. The guess is the secret of the synthetic row that is
nearest in the other attributes. It is right if the class is the same, or if the number is within `TOLERANCE` of the
spread of the attribute (see `attributes`). The naive attacker guesses the secret of a random synthetic row.

Every attribute is the secret in turn; of more than `SECRETS`, so many drawn at random. The rates are over all of these
guesses. If the synthetic rows describe the population well, secrets of held-out people are guessed as often.
"""

import numpy as np
import torch

from postprior.pipelines.metrics.privacy.attacks.attack import Outcome, Rate
from postprior.pipelines.metrics.privacy.attacks.attributes import Attributes, distances, in_blocks, total_distances
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.metrics.statistics.missing import Missing

TOLERANCE = 0.05
SECRETS = 20
FEWEST = 20  # people of each side with a secret


def attribute_inference(
    train: Floats, control: Floats, synthetic: Floats, attributes: Attributes, rng: np.random.Generator
) -> Outcome | Missing:
    """Return the outcome of the attack on training rows (n, A) and held-out rows (m, A), with synthetic rows (N, A).

    The file tells the risk of every secret, the largest first.
    """
    if len(attributes) < 2:
        return Missing("at least two attributes that vary are needed")
    secrets = np.sort(rng.permutation(len(attributes))[:SECRETS])
    known = [s for s in secrets.tolist() if not np.isnan(synthetic[:, s]).all()]
    sides = [guesses(people, synthetic, attributes, known) for people in (train, control)]
    trials = [attempts(people)[:, known] for people in (train, control)]
    if min((tried.any(1).sum() for tried in trials), default=0) < FEWEST:
        return Missing(f"at least {FEWEST} training and held-out rows with two attributes are needed")
    right = [
        correct(guess, people[:, known], attributes, known) & tried
        for guess, people, tried in zip(sides, (train, control), trials, strict=True)
    ]
    rates = [Rate.of(hits.sum(1), tried.sum(1)) for hits, tried in zip(right, trials, strict=True)]
    random = synthetic[rng.integers(len(synthetic), size=len(train))][:, known]
    naive = (correct(random, train[:, known], attributes, known) & trials[0]).sum() / trials[0].sum()
    by_secret = []
    for place, secret in enumerate(known):
        own = [tried[:, place] for tried in trials]
        if min(tried.sum() for tried in own) >= FEWEST:
            pair = [Rate.of(hits[tried, place], tried[tried]) for hits, tried in zip(right, own, strict=True)]
            value, low, high = Outcome(pair[0], pair[1], 0.0, 0, {}).risk()
            by_secret.append({"attribute": attributes.names[secret], "value": value, "low": low, "high": high})
    worst_first = sorted(by_secret, key=lambda entry: (-float(entry["low"]), str(entry["attribute"])))
    return Outcome(rates[0], rates[1], float(naive), int(trials[0].sum()), {"secrets": worst_first})


def attempts(people: Floats) -> np.ndarray:
    """Return which attributes (n, A) can be guessed: those that a person has, if another one is known."""
    observed = ~np.isnan(people)
    return observed & (observed.sum(1, keepdims=True) > 1)


def guesses(people: Floats, synthetic: Floats, attributes: Attributes, secrets: list[int]) -> Floats:
    """Return the guess (n, S) of each secret of people (n, A) from synthetic rows (N, A)."""
    records, known = attributes.scaled(synthetic), attributes.scaled(people)
    nearest = np.zeros((len(people), len(secrets)), int)
    for rows, block in in_blocks(known, len(records)):
        total = total_distances(block, records, attributes.classes)
        for place, secret in enumerate(secrets):
            others = total - distances(block[:, secret], records[:, secret], bool(attributes.classes[secret]))
            others[:, records[:, secret].isnan()] = torch.inf
            nearest[rows, place] = others.argmin(1).numpy()
    return synthetic[nearest, secrets]


def correct(guessed: Floats, true: Floats, attributes: Attributes, secrets: list[int] | Ints) -> np.ndarray:
    """Return which guesses (n, S) are right; a missing value never is."""
    reach = np.where(attributes.classes[secrets], 0.0, TOLERANCE * attributes.spread[secrets])
    return np.abs(guessed - true) <= reach
