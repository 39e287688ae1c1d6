"""Attribute inference: "a person with these attributes also has that one" (Giomi et al. 2023).

The attacker knows all attributes of a person but one, the secret. The guess is the secret of the synthetic row that is
nearest in the other attributes. It is right if the class is the same, or if the number is within `TOLERANCE` of the
spread of the attribute (see `attributes`). The naive attacker guesses the secret of a random synthetic row.

Every attribute is the secret in turn; of more than `SECRETS`, so many drawn at random. The rates are over all of these
guesses. If the synthetic rows describe the population well, secrets of held-out people are guessed as often.
"""

import numpy as np
import torch
from numpy.typing import NDArray

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

    It also has the rates of each secret.
    """
    if len(attributes) < 2:
        return Missing("at least two attributes that vary are needed")
    drawn = np.sort(rng.permutation(len(attributes))[:SECRETS])
    secrets = drawn[~np.isnan(synthetic[:, drawn]).all(0)]
    sides = train, control
    trials = [attempts(people)[:, secrets] for people in sides]
    if min(tried.any(1).sum() for tried in trials) < FEWEST:
        return Missing(f"at least {FEWEST} training and held-out rows with two attributes are needed")
    right = [
        correct(guesses(people, synthetic, attributes, secrets), people[:, secrets], attributes, secrets) & tried
        for people, tried in zip(sides, trials, strict=True)
    ]
    main, held_out = (Rate.of(hits.sum(1), tried.sum(1)) for hits, tried in zip(right, trials, strict=True))
    random = synthetic[rng.integers(len(synthetic), size=len(train))][:, secrets]
    naive = (correct(random, train[:, secrets], attributes, secrets) & trials[0]).sum() / trials[0].sum()
    by_secret = {
        attributes.names[secret]: (
            Rate.of(right[0][:, place], trials[0][:, place]),
            Rate.of(right[1][:, place], trials[1][:, place]),
        )
        for place, secret in enumerate(secrets)
        if min(tried[:, place].sum() for tried in trials) >= FEWEST
    }
    return Outcome(main, held_out, float(naive), int(trials[0].sum()), secrets=by_secret)


def attempts(people: Floats) -> NDArray[np.bool_]:
    """Return which attributes (n, A) can be guessed: those that a person has, if another one is known."""
    observed = ~np.isnan(people)
    return observed & (observed.sum(1, keepdims=True) > 1)


def guesses(people: Floats, synthetic: Floats, attributes: Attributes, secrets: Ints) -> Floats:
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


def correct(guessed: Floats, true: Floats, attributes: Attributes, secrets: Ints) -> NDArray[np.bool_]:
    """Return which guesses (n, S) are right; a missing value never is."""
    reach = np.where(attributes.classes[secrets], 0.0, TOLERANCE * attributes.spread[secrets])
    return np.abs(guessed - true) <= reach
