"""Training, validation and test rows: stratified by label, no subject on two sides."""

from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.dataset import OTHER_SPLITS, SPLITS
from postprior.pipelines.errors import UserError

FEWEST = {"train": 10, "validation": 4, "test": 4}
"""Rows that a split must have: fewer teach and show nothing."""
Ints = np.ndarray[Any, np.dtype[np.int64]]


def split_rows(
    labels: Ints | None, groups: Ints | None, rows: int, shares: tuple[float, float], rng: np.random.Generator
) -> dict[str, Ints]:
    """Rows of every split in their order.

    Subjects are put in the order of their most frequent label and their size, shuffled where these are equal, and
    every split takes from that order at equal steps: it gets its share of all and of each label, give or take one.
    `labels` and `groups` are (N,), each row a subject without the latter; `shares` those of validation and test.
    """
    validation, test = shares
    if not (validation > 0 and test > 0 and validation + test < 1):
        found = f"{validation:g} of validation and {test:g} of test found"
        raise UserError(f"shares: {found}, expected both above 0, their sum below 1")
    subjects = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    label, size = _strata(labels, subjects)
    order = np.lexsort((rng.random(len(size)), size, label))
    side = np.zeros(len(size), np.int64)  # 0 train, 1 validation, 2 test
    taken = _every(len(order), test, rng)
    side[order[taken]] = 2
    rest = order[~taken]
    side[rest[_every(len(rest), validation / (1 - test), rng)]] = 1
    return {split: np.flatnonzero(side[subjects] == number) for number, split in enumerate(SPLITS)}


def named_split(values: pa.ChunkedArray, name: str) -> dict[str, Ints]:
    """Rows of every split as a column says."""
    texts = np.array([OTHER_SPLITS.get(text, text) for text in values.cast(pa.string()).to_pylist()])
    if wrong := set(texts) - set(SPLITS):
        raise UserError(f"--split {name}: found '{min(wrong)}', expected one of {', '.join(SPLITS)} in every row")
    return {split: np.flatnonzero(texts == split) for split in SPLITS}


def check_splits(
    splits: dict[str, Ints], labels: Ints | None, names: tuple[str, ...] | None, groups: Values | None
) -> None:
    """Refuse a split with too few rows, a label that training lacks, and a subject on two sides."""
    for split, rows in splits.items():
        if len(rows) < (least := FEWEST[split]):
            several = 0 if groups is None else len(np.unique(groups))
            told = f" (those of each of {several} subjects stay together)" if several else ""
            expected = f"expected {least} or more; give more rows or other shares"
            raise UserError(f"{split}: {len(rows)} rows found{told}, {expected}")
    if labels is not None and names is not None:
        for label in np.setdiff1d(labels, labels[splits["train"]])[:1]:
            expected = "expected 3 or more (or as many subjects); give more rows or merge it with another label"
            found = f"{(labels == label).sum()} rows found and none of them in train"
            raise UserError(f"label {names[label]}: {found}, {expected}")
    if groups is not None:
        sides = np.concatenate([np.unique(groups[rows]) for rows in splits.values()])
        subjects, counts = np.unique(sides, return_counts=True)
        if (counts > 1).any():
            expected = "expected all in one; correct the splits that the data name"
            raise UserError(f"subject {subjects[counts > 1][0]}: rows found in {counts.max()} splits, {expected}")


def _strata(labels: Ints | None, subjects: Ints) -> tuple[Ints, Ints]:
    """The most frequent label of every subject, (S,), and its rows, (S,)."""
    size = np.bincount(subjects)
    if labels is None:
        return np.zeros_like(size), size
    pairs, counts = np.unique(np.stack([subjects, labels], 1), axis=0, return_counts=True)
    pairs = pairs[np.lexsort((-counts, pairs[:, 0]))]
    first = np.unique(pairs[:, 0], return_index=True)[1]
    return pairs[first, 1], size


def _every(count: int, share: float, rng: np.random.Generator) -> Values:
    """Which of `count` places in order are taken at equal steps so that `share` of them is, (count,) bool."""
    steps = np.floor(np.arange(count + 1) * share + rng.random())
    return np.diff(steps) > 0
