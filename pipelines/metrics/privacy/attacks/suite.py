"""All attacks on the people of a data set: which of them its modalities allow, and on which rows."""

from collections.abc import Sequence

import numpy as np
import torch

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.features.scale import Scale, points_of
from postprior.pipelines.metrics.privacy.attacks.attack import Outcome, Outcomes
from postprior.pipelines.metrics.privacy.attacks.attribute_inference import attribute_inference
from postprior.pipelines.metrics.privacy.attacks.attributes import Attributes
from postprior.pipelines.metrics.privacy.attacks.linkability import (
    euclidean,
    halves,
    linkability,
    split_attributes,
    table_files,
)
from postprior.pipelines.metrics.privacy.attacks.singling_out import singling_out
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints
from postprior.pipelines.metrics.statistics.missing import Missing

SYNTHETIC = 5000  # maximum number of synthetic rows that the attacker uses
FEWEST = 20  # people of each side that are attacked
NAMES = ("attribute_inference", "linkability", "singling_out", "singling_out_univariate")
NO_ATTACK = Missing("privacy.attacks is 0")
NO_TABLES = Missing("the data have no tables or vectors, so that no value is an attribute of its own")
NO_FILES = Missing("the data have only one modality or column, so that there are no two records to link")


def attack_people(
    train: Dataset, held_out: Dataset, synthetic: Dataset, scales: tuple[Scale, ...], attacks: int, seed: int
) -> Outcomes:
    """Attack training rows, and held-out rows as the control, with synthetic rows; return the outcomes by name.

    `attacks` people of each side are attacked, one row of each source, and as many predicates are guessed. The same
    seed attacks the same people. `scales` are those of the distances between rows of all modalities.
    """
    if not attacks:
        return dict.fromkeys(NAMES, NO_ATTACK)
    rng = np.random.default_rng([seed, attacks])
    people = [_people(side, attacks, rng) for side in (train, held_out)]
    if (fewest := min(map(len, people))) < FEWEST:
        few = f"at least {FEWEST} training and held-out rows of different sources are needed, found {fewest}"
        return dict.fromkeys(NAMES, Missing(few))
    attributes = Attributes.fit(train, rng)
    synthetic = synthetic.select(np.sort(rng.permutation(len(synthetic))[:SYNTHETIC]))
    outcomes: Outcomes = dict.fromkeys(NAMES, NO_TABLES)
    if len(attributes):
        known, others = attributes.read(train), attributes.read(held_out)
        records = attributes.read(synthetic)[rng.permutation(len(synthetic))]
        attacked = known[people[0]], others[people[1]]
        outcomes |= singling_out(known, others, records, attributes.classes, attacks, rng)
        outcomes["attribute_inference"] = attribute_inference(attacked[0], attacked[1], records, attributes, rng)
    if all(modality.tabular for modality in train.modalities):
        outcomes["linkability"] = _linked_columns(attacked, records, attributes, rng) if len(attributes) else NO_FILES
    elif len(train.modalities) > 1:
        sides = [(side, chosen) for side, chosen in zip((train, held_out), people, strict=True)]
        outcomes["linkability"] = _linked_modalities(sides, synthetic, scales, rng)
    else:
        outcomes["linkability"] = NO_FILES
    return outcomes


def _people(rows: Dataset, most: int, rng: np.random.Generator) -> Ints:
    """Draw at most `most` rows, each of another source."""
    order = rng.permutation(len(rows))
    _, first = np.unique(rows.sources[order], return_index=True)
    return order[np.sort(first)[:most]]


def _linked_columns(
    people: Sequence[Floats], records: Floats, attributes: Attributes, rng: np.random.Generator
) -> Outcome | Missing:
    """Link rows of tables and vectors, (n, A) and (m, A), that have a value in both files."""
    files = split_attributes(attributes, rng)
    if files is None:
        return NO_FILES
    known = [side[np.all([~np.isnan(side[:, file]).all(1) for file in files], axis=0)] for side in people]
    if missing := _too_few(known):
        return missing
    sides = [[attributes.scaled(side)] * 2 for side in known]
    names = [[attributes.names[a] for a in file] for file in files]
    return linkability(sides, [attributes.scaled(records)] * 2, table_files(attributes, files), rng, {"files": names})


def _linked_modalities(
    sides: Sequence[tuple[Dataset, Ints]], synthetic: Dataset, scales: tuple[Scale, ...], rng: np.random.Generator
) -> Outcome | Missing:
    """Link rows that have all modalities, in the scaled values in which near copies are searched."""
    files = halves([1] * len(scales))

    def records(rows: Dataset, chosen: Ints) -> list[torch.Tensor]:
        parts = [part(chosen[rows.observed[chosen].all(1)]) for part in points_of(rows, scales).parts]
        return [torch.cat([parts[m] for m in file], 1) for file in files]

    known = [records(rows, chosen) for rows, chosen in sides]
    drawn = records(synthetic, np.arange(len(synthetic)))
    if missing := _too_few([side[0] for side in [*known, drawn]]):
        return missing
    names = [[scales[m].modality.title for m in file] for file in files]
    return linkability(known, drawn, [euclidean] * 2, rng, {"files": names})


def _too_few(sides: Sequence[Floats | torch.Tensor]) -> Missing | None:
    """Return the reason if too few rows have a record in both files."""
    fewest = min(map(len, sides))
    why = f"at least {FEWEST} rows of each kind need a value in both halves of the columns, found {fewest}"
    return Missing(why) if fewest < FEWEST else None
