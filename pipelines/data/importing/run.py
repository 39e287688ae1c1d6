"""`postprior import`: convert files into dataset folders, with all facts that are needed to write them back."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from postprior.pipelines.data.arrays import Values, blocks
from postprior.pipelines.data.constraints.kinds import described
from postprior.pipelines.data.conversion import ColumnConversion, Conversion
from postprior.pipelines.data.conversion.forms import PLAIN
from postprior.pipelines.data.conversion.texts import is_restored
from postprior.pipelines.data.dataset import OTHER_SPLITS, SPLITS, Dataset
from postprior.pipelines.data.formats import check_options, read_source
from postprior.pipelines.data.formats.contents import Named, Roles, SourceContents
from postprior.pipelines.data.importing.constraints import found_constraints
from postprior.pipelines.data.importing.joining import Joined, join
from postprior.pipelines.data.importing.labels import class_indices, with_common_labels
from postprior.pipelines.data.importing.limits import limited
from postprior.pipelines.data.importing.summary import Summary, summary
from postprior.pipelines.data.manifest import SUMMARY, files_of
from postprior.pipelines.data.names import keys_of
from postprior.pipelines.data.shards import LARGEST
from postprior.pipelines.errors import UserError
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder, publish, write_text
from postprior.pipelines.storage import manifest_in
from postprior.pipelines.texts import shortened

LONGEST_ID = 1000  # characters
SHARES = (0.1, 0.2)  # of validation and test
FEWEST = {"train": 10, "validation": 2, "test": 3}  # least number of rows per split
WANTED = {"validation": 4, "test": 8}  # subjects that the shares take at least, if enough are left for training
LARGE = 1 << 23  # bytes of sources whose import shows its progress
Step = Callable[[str], None]
Ints = np.ndarray[Any, np.dtype[np.int64]]


def import_data(
    sources: Sequence[Path],
    folder: Path,
    roles: Roles,
    shares: tuple[float, float] = SHARES,
    seed: int = 0,
    largest: int = LARGEST,
) -> Summary:
    """Write the dataset folders train, validation and test and import.txt into `folder`, and return the summary.

    Scales and categories are learned from the training rows. The same sources, roles, shares and seed give the same
    bytes. Arrays of more than `largest` bytes are written as shards.
    """
    check_folder(folder, previous_splits, sources)
    if seed < 0:
        raise UserError(f"--seed: {seed} found, expected a whole number of at least 0; correct the seed")
    check_options(sources, roles)
    contents = []
    with _steps(sources) as step:
        for source in sources:
            contents += read_source(source, roles)
            step(source.name)
        names = [source.name for source in sources]
        return import_contents(contents, names, folder, roles, shares, seed, sources, step, largest)


def import_contents(
    contents: Sequence[SourceContents],
    names_of_sources: Sequence[str],
    folder: Path,
    roles: Roles,
    shares: tuple[float, float] = SHARES,
    seed: int = 0,
    inputs: Sequence[Path] = (),
    step: Step = lambda text: None,
    largest: int = LARGEST,
) -> Summary:
    """Write the dataset folders of sources that have been read, as `import_data` does; `inputs` are their files."""
    joined = join(contents, roles)
    joined, treatment = with_common_labels(joined, roles.rare_labels or ("keep" if roles.keep_rare else "merge"))
    labels, names = class_indices(joined.label)
    groups = None if joined.group is None else as_numpy(joined.group[1])
    if joined.split is not None:
        splits = named_split(joined.split[1], joined.split[0] or "")
    else:
        splits = split_rows(labels, groups, len(joined), shares, np.random.default_rng(seed))
    check_splits(splits, labels, names, groups)
    learned = limited(_learn(joined, splits["train"]), roles)
    targets = [
        ColumnConversion.of_target(name, column, joined.forms.get(name, PLAIN), roles.keep_rare)
        for name, column in joined.targets.items()
    ]
    constraints, lines = found_constraints(joined, learned, splits["train"], roles.drop_constraint)
    joined = replace(joined, notes=(*joined.notes, *lines))
    conversion = _describe(joined, learned, targets)
    if constraints:
        conversion["constraints"] = list(map(described, constraints))
    if treatment:
        conversion["labels"] |= treatment
    provenance = {"source": "import", "sources": list(names_of_sources), "shares": list(shares), "seed": seed}
    told = summary(joined, learned, labels, names, {split: len(rows) for split, rows in splits.items()}, folder)
    with publish(folder, previous_splits, inputs) as temporary:
        for split, rows in splits.items():
            dataset = converted(joined, rows, learned, targets, labels, names)
            replace(dataset, conversion=conversion, provenance=provenance).save(temporary / split, largest=largest)
            step(split)
        write_text(temporary / SUMMARY, told.text)
    return told


def _steps(sources: Sequence[Path]) -> AbstractContextManager[Step]:
    """Show the progress of an import of large sources: one step per source and split."""
    files = chain(sources, *(source.rglob("*") for source in sources if source.is_dir()))
    large = sum(file.stat().st_size for file in files if file.is_file()) >= LARGE
    return progress("import", len(sources) + len(SPLITS)) if large else nullcontext(lambda text: None)


def previous_splits(folder: Path) -> set[Path]:
    """Return the files, relative to a folder, that an earlier import wrote there."""
    files = {
        Path(split) / file
        for split in SPLITS
        if manifest_in(folder / split).get("provenance", {}).get("source") == "import"
        for file in files_of(folder / split, "real")
    }
    return files | {Path(SUMMARY)} if files else files


def as_numpy(column: pa.ChunkedArray) -> Values:
    """Convert a column of ids or subjects to a NumPy array (N,) of whole numbers or texts.

    Each text of the array takes as much memory as the longest.
    """
    if pa.types.is_integer(column.type):
        return column.to_numpy() if pa.types.is_uint64(column.type) else column.cast(pa.int64()).to_numpy()
    texts = column.cast(pa.string())
    if (longest := pc.max(pc.utf8_length(texts)).as_py() or 0) > LONGEST_ID:
        found = f"an id or subject of {longest} characters, '{texts[pc.index(pc.utf8_length(texts), longest)]}', found"
        raise UserError(f"{shortened(found, 100)}, expected at most {LONGEST_ID} characters; use shorter ids")
    return np.array(texts.to_pylist())


def split_rows(
    labels: Ints | None, groups: Ints | None, rows: int, shares: tuple[float, float], rng: np.random.Generator
) -> dict[str, Ints]:
    """Split rows at random, stratified by label, and return the sorted rows of each split.

    Subjects are sorted by their most frequent label and by size, in random order if these are equal. Validation and
    test each take subjects from this order at equal steps, so that each gets its share of all subjects and of each
    label, plus or minus one. Rows without a label, −1, count as one more label. `labels` and `groups` are (N,); without
    groups each row is a subject. `shares` are those of validation and test; for few subjects they are raised, see
    `adapted`. A label that would have no training row gets one.
    """
    validation, test = shares
    if not (validation > 0 and test > 0 and validation + test < 1):
        found = f"{validation:g} for validation and {test:g} for test found"
        raise UserError(f"shares: {found}, expected both above 0 and their sum below 1; correct the shares")
    subjects = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    label, size = _strata(labels, subjects)
    validation, test = adapted(shares, len(size), int((label < 0).sum()))
    order = np.lexsort((rng.random(len(size)), size, label))
    side = np.zeros(len(size), np.int64)  # 0 train, 1 validation, 2 test
    taken = _evenly_spaced(len(order), test, rng)
    side[order[taken]] = 2
    rest = order[~taken]
    side[rest[_evenly_spaced(len(rest), validation / (1 - test), rng)]] = 1
    names, first = np.unique(label, return_index=True)
    side[first[~np.isin(names, label[side == 0])]] = 0
    return {split: np.flatnonzero(side[subjects] == number) for number, split in enumerate(SPLITS)}


def adapted(shares: tuple[float, float], subjects: int, unlabelled: int = 0) -> tuple[float, float]:
    """Return the shares of validation and test, raised for few subjects so that their rows can be scored.

    Each split takes at least as many subjects as `WANTED` says. If fewer than the least number of training rows would
    be left, apart from `unlabelled` ones, all others are divided between validation and test. The given shares stay if
    even these are too few.

    >>> [round(share * 20) for share in adapted((0.1, 0.2), 20)]
    [4, 6]
    >>> [round(share * 20) for share in adapted((0.1, 0.2), 20, unlabelled=2)]
    [3, 5]
    """
    taken = [max(share * subjects, least) for share, least in zip(shares, WANTED.values(), strict=True)]
    if taken == [share * subjects for share in shares]:
        return shares
    spare = subjects - FEWEST["train"] - unlabelled
    if sum(taken) > spare:
        taken = [spare - 2 * spare // 3, 2 * spare // 3]
    if any(count < FEWEST[split] for count, split in zip(taken, WANTED, strict=True)):
        return shares
    return taken[0] / subjects, taken[1] / subjects


def named_split(values: pa.ChunkedArray, name: str) -> dict[str, Ints]:
    """Return the rows of each split as the values (N,) of a column name them."""
    texts = np.array([OTHER_SPLITS.get(text, text) for text in values.cast(pa.string()).to_pylist()])
    if wrong := set(texts) - set(SPLITS):
        expected = f"expected one of {', '.join(SPLITS)} in every row; correct the column"
        raise UserError(f"--split {name}: '{min(wrong)}' found, {expected}")
    return {split: np.flatnonzero(texts == split) for split in SPLITS}


def check_splits(
    splits: dict[str, Ints], labels: Ints | None, names: tuple[str, ...] | None, groups: Values | None
) -> None:
    """Refuse a split with too few rows, a label without training rows, and a subject in two splits."""
    for split, rows in splits.items():
        if len(rows) < (least := FEWEST[split]):
            several = 0 if groups is None else len(np.unique(groups))
            note = f" (all rows of each of {several} subjects stay in one split)" if several else ""
            remedy = f"provide more {'subjects' if several else 'rows'} or change the shares"
            if 0 < several < len(splits):
                remedy = f"provide {len(splits)} subjects or more, or rows without subjects"
            raise UserError(f"{split}: {len(rows)} rows found{note}, expected {least} or more; {remedy}")
    if labels is not None and names is not None:
        known = labels[splits["train"]] >= 0
        if known.sum() < FEWEST["train"]:
            expected = f"expected {FEWEST['train']} or more; label more rows or leave --label out"
            raise UserError(f"train: {known.sum()} rows with a label found, {expected}")
        for label in np.setdiff1d(labels[labels >= 0], labels[splits["train"]])[:1]:
            expected = "expected 3 rows (or subjects) or more; provide more rows or merge it with another label"
            found = f"{(labels == label).sum()} rows found, and none of them in train"
            raise UserError(f"label {names[label]}: {found}, {expected}")
    if groups is not None:
        sides = np.concatenate([np.unique(groups[rows]) for rows in splits.values()])
        subjects, counts = np.unique(sides, return_counts=True)
        if (counts > 1).any():
            expected = "expected all rows in one split; correct the column of the split"
            raise UserError(f"subject {subjects[counts > 1][0]}: rows found in {counts.max()} splits, {expected}")


def _strata(labels: Ints | None, subjects: Ints) -> tuple[Ints, Ints]:
    """Return the most frequent label of each subject, (S,), −1 if no row has one, and its number of rows, (S,)."""
    size = np.bincount(subjects)
    if labels is None:
        return np.zeros_like(size), size
    pairs, counts = np.unique(np.stack([subjects, labels], 1), axis=0, return_counts=True)
    pairs = pairs[np.lexsort((-counts, pairs[:, 1] < 0, pairs[:, 0]))]
    first = np.unique(pairs[:, 0], return_index=True)[1]
    return pairs[first, 1], size


def _evenly_spaced(count: int, share: float, rng: np.random.Generator) -> Values:
    """Return which of `count` places are taken at equal steps so that their fraction is `share`, (count,) bool."""
    steps = np.floor(np.arange(count + 1) * share + rng.random())
    return np.diff(steps) > 0


def _learn(joined: Joined, train: Values) -> list[Conversion]:
    """Learn the conversion of each modality from the training rows that have it, and give it a key."""
    learned, keys = [], keys_of(view.name for view in joined.views)
    for view, places in zip(joined.views, joined.places[train].T, strict=True):
        rows = places[places >= 0]
        if not len(rows):
            expected = "expected at least one; leave the modality out or provide more rows"
            raise UserError(f"{view.name}: no training row has this modality, {expected}")
        learned.append(replace(view.learn(rows), name=keys[view.name], title=view.name))
    return learned


def converted(
    joined: Joined,
    rows: Values,
    learned: Sequence[Conversion],
    targets: Sequence[ColumnConversion],
    labels: Values | None,
    names: tuple[str, ...] | None,
) -> Dataset:
    """Convert the samples at `rows`, with one conversion in `learned` per view; labels (N,) index their `names`."""
    observed, taken = joined.observed[rows], pa.array(rows)
    data, cells, sources = {}, {}, {}
    for m, (view, conversion) in enumerate(zip(joined.views, learned, strict=True)):
        key = conversion.name
        data[key], seen = view.encoded(conversion, joined.places[rows, m])
        if not all(seen[block][observed[block, m]].all() for block in blocks(seen)):
            cells[key] = seen
        sources[key] = view.lost(conversion, joined.rows[rows, m], data[key], seen, joined.mark(view))
    columns, lost = [], {}
    for target in targets:
        numbers, seen = target.encode(joined.targets[target.name].take(taken))
        columns.append(numbers)
        original = joined.originals.get(target.name, joined.targets[target.name]).take(taken)
        if not is_restored(pa.chunked_array([target.decode(numbers, seen)]), original):
            lost[target.name] = original
    sources["ids"] = None if joined.kept is None else joined.kept.take(taken)
    sources["targets"] = pa.table(lost) if lost else None
    if joined.label is not None and labels is not None:
        name, column = joined.label
        original = joined.originals.get(name or "", column).take(taken)
        if not is_restored(column.take(taken), original):
            sources["labels"] = pa.table({"label": original})
    return Dataset(
        tuple(conversion.modality for conversion in learned),
        data,
        mask=None if joined.observed.all() else observed,
        cells=cells,
        labels=None if labels is None else labels[rows],
        targets=np.stack(columns, 1) if columns else None,
        groups=None if joined.group is None else as_numpy(joined.group[1].take(taken)),
        ids=as_numpy(joined.ids[1].take(taken)),
        label_names=names,
        source_values={name: values for name, values in sources.items() if values is not None},
    )


def _describe(joined: Joined, learned: Sequence[Conversion], targets: Sequence[ColumnConversion]) -> dict[str, Any]:
    """Return the entry `conversion` of the manifests."""

    def describe_role(role: Named | None) -> dict[str, Any] | None:
        return None if role is None else {"name": role[0], "type": str(role[1].type)}

    return {
        "modalities": {conversion.name: conversion.describe() for conversion in learned},
        "tables": {
            file: [
                joined.spellings.get(file, {}).get(name, name)
                for name in headers
                if joined.split is None or name != joined.split[0]
            ]
            for file, headers in joined.headers.items()
        },
        "types": {file: dict(types) for file, types in joined.types.items()},
        **({"dialects": {file: dict(d) for file, d in joined.dialects.items()}} if joined.dialects else {}),
        **({"frames": {file: dict(types) for file, types in joined.frames.items()}} if joined.frames else {}),
        "ids": (describe_role(joined.ids) or {}) | ({"headers": dict(joined.id_headers)} if joined.id_headers else {}),
        "labels": describe_role(joined.label),
        "groups": describe_role(joined.group),
        "targets": [target.describe() for target in targets],
    }
