"""Read the results that the comparison shows, from the files of this project and of other sources."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.report.pairs import Pair, read_pairs
from postprior.pipelines.report.rows import Row, over_seeds, ranked
from postprior.pipelines.report.sources import Source, content, find_source, settings
from postprior.pipelines.settings.params import SAMPLER_ROWS, Params, leaves
from postprior.pipelines.settings.profiles import FULL

T = TypeVar("T")

FILES = Project(Path()).results  # paths relative to the root of any source
METRICS = FILES.scores("metrics", "").parent
KINDS = {"real": "data", "reconstruction": "data", "normal": "baseline"}  # kind of the row of each baseline
SCORE_SETTINGS = ("data", "evaluators", "evaluate", "seed")  # they determine how the same samples are scored
COMPARISONS = ("difference_to_normal", "gap_closed")  # scores of a row relative to baselines of its source
MORE_SCORES = ("utility", "privacy", "imputation")  # folders of results/ that rows may have besides their metrics
IMPUTERS = {  # titles of the baseline imputers by key
    "neighbours": "Nearest neighbours",
    "iterative": "Iterative ridge",
    "mice": "Chained equations",
    "forest": "Random forests",
    "mean": "Training mean",
}


@dataclass(frozen=True)
class Results:
    """All rows in the order of the leaderboard, and further results; empty if no stage has written them."""

    rows: tuple[Row, ...]  # also of other sources; densities sorted by joint coherence, without labels by distance
    evaluators: dict[str, Any]
    autoencoder: dict[str, Any]
    training: list[dict[str, str]]  # one row per epoch
    latent: dict[str, Any] = field(default_factory=dict)  # diagnostics of the latent space, from stage `diagnose`
    augmentation: dict[str, Any] = field(
        default_factory=dict
    )  # by number of real rows and arm; see `metrics.utility.augmentation.ArmHits.estimates`
    augmented: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # output of stage `augment` for these
    augmentation_sizes: tuple[int | str, ...] = ()  # the configured numbers of real rows
    imputers: tuple[Row, ...] = ()  # baseline imputers, with scores by task under the key `imputation`
    pairs: tuple[Pair, ...] = ()  # paired tests between the densities of this project
    cautions: tuple[str, ...] = ()  # about other sources
    shortened: dict[str, tuple[Any, Any]] = field(
        default_factory=dict
    )  # settings that differ from those of the profile full: both values, by dotted key

    @property
    def densities(self) -> tuple[Row, ...]:
        """The fitted densities, best first."""
        return tuple(row for row in self.rows if row.kind == "density")

    @property
    def labelled(self) -> bool:
        """Whether every density has a joint coherence, by which densities are then ranked."""
        return all(row.estimate("joint_coherence") for row in self.densities)

    @property
    def posterior(self) -> Row:
        """The autoencoder's own posterior, which generates modalities from others without a fitted density."""
        return Row("posterior", "baseline", self.autoencoder)

    def row(self, name: str) -> Row:
        """The row with a name."""
        return next(row for row in self.rows if row.name == name)

    def baseline_of(self, row: Row, name: str) -> Row:
        """The baseline with a name from the same source as a row, or this project's if that source has none."""
        return next((r for r in self.rows if (r.source, r.own_name) == (row.source, name)), self.row(name))


def read_results(
    params: Params,
    root: Path,
    others: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
    titles: Mapping[str, str] | None = None,
) -> Results:
    """Read the results of a project and of other sources, in the order of the leaderboard.

    Args:
        params: The settings of the project.
        root: The root folder of the project.
        others: Other sources by label: a folder, a git revision or a DVC experiment.
        names: Densities to take from other sources; a source that has none of them gives all its densities.
        titles: Names of modalities for readers, by key.

    Raises:
        UserError: A file or a source is missing; the message names the command that writes the file.
    """
    titles = {key: title for key, title in (titles or {}).items() if title != key}
    own = Source(root, titles=titles)
    found = {label: find_source(label, place, root) for label, place in (others or {}).items()}
    sources = {label: replace(source, titles=titles) for label, source in found.items()}
    trees = {"": json.loads(params.model_dump_json())}
    trees |= {label: settings(source) for label, source in sources.items()}
    commands = dict.fromkeys(KINDS, "score-baselines") | {name: f"evaluate {name}" for name in params.densities}
    rows = [
        _row(own, "", name, _require(content, own, FILES.scores("metrics", name), command))
        for name, command in commands.items()
    ]
    rows += _samplers(own, "")
    for label, source in sources.items():
        densities = list(map(str, trees[label]["densities"]))
        rows += _rows_of(label, source, [name for name in densities if name in names] or densities, real=rows[0])
    return Results(
        _in_order([*rows, *over_seeds(rows, trees)]),
        _require(content, own, FILES.scores("metrics", "evaluators"), "train-evaluators"),
        _require(content, own, FILES.scores("metrics", "autoencoder"), "score-baselines"),
        list(csv.DictReader(io.StringIO(_require(Source.text, own, FILES.training, "train")))),
        content(own, FILES.scores("metrics", "latent")) or {},
        *_augmentation(params, own),
        augmentation_sizes=params.augment.sizes,
        imputers=tuple(_imputers(own)),
        pairs=read_pairs(root, params.densities),
        cautions=tuple(_cautions(rows, trees)),
        shortened={
            key: (values[params.profile], values[FULL])
            for key, values in params.by_profile.items()
            if values[params.profile] != values[FULL]
        },
    )


def _rows_of(label: str, source: Source, densities: list[str], real: Row) -> list[Row]:
    """Return the scored rows of another source; its row `real` only if it differs from this project's."""
    rows = []
    for name in (*densities, *KINDS):
        if scores := content(source, FILES.scores("metrics", name)):
            row = _row(source, label, name, scores)
            rows += [row] if name != real.name or _alone(row) != _alone(real) else []
    rows += _samplers(source, label)
    if not any(row.kind == "density" for row in rows):
        raise UserError(
            f"--with {label}: no results found in {source.place(METRICS)}, expected results of "
            f"{', '.join(densities)}; run `dvc repro` in that project, and commit {FILES.home}/ if it is a revision"
        )
    return rows


def _alone(row: Row) -> dict[str, Any]:
    """Return the scores of a row without its comparisons with baselines, which depend on the autoencoder."""
    return {key: value for key, value in row.scores.items() if key not in COMPARISONS}


def _row(source: Source, label: str, name: str, scores: dict[str, Any]) -> Row:
    """Return a row with its scores of utility, privacy and imputation, if there are any."""
    more = {folder: content(source, FILES.scores(folder, name)) for folder in MORE_SCORES}
    scores = scores | {folder: values for folder, values in more.items() if values}
    return Row(f"{label}: {name}" if label else name, KINDS.get(name, "density"), scores, label)


def _samplers(source: Source, label: str) -> list[Row]:
    """Return the rows of the baseline samplers; other data than tables and vectors have none."""
    results = content(source, FILES.scores("metrics", "samplers")) or {}
    names = {name: f"{label}: {name}" if label else name for name in SAMPLER_ROWS if name in results}
    return [Row(title, "baseline", results[name], label) for name, title in names.items()]


def _imputers(source: Source) -> Iterator[Row]:
    """Yield the baseline imputers that have scores, by task."""
    results = content(source, FILES.scores("imputation", "baselines")) or {}
    tasks = {task: scores for task, scores in results.items() if isinstance(scores, dict)}
    for key, title in IMPUTERS.items():
        if by_task := {task: scores[key] for task, scores in tasks.items() if key in scores}:
            yield Row(title, "imputer", {"imputation": by_task})


def _in_order(rows: list[Row]) -> tuple[Row, ...]:
    """Sort rows: real data, then densities and their means over seeds from best to worst, then baselines."""
    return (
        *(row for row in rows if row.kind == "data"),
        *ranked(row for row in rows if row.kind in ("density", "seeds")),
        *(row for row in rows if row.kind == "baseline"),
    )


def _cautions(rows: list[Row], trees: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a caution for each source whose real rows have other scores than this project's."""
    for row in rows:
        if row.source and row.own_name == "real":
            differing = ", ".join(_differing(trees[""], trees[row.source])) or "code or data"
            yield (
                f"Real rows have other scores in {row.source} than in this project (different: {differing}). Its "
                "evaluators, features or test rows differ, so small differences to its rows are not meaningful."
            )


def _augmentation(params: Params, own: Source) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the estimates of the augmentation and the results of stage `augment`, by configured number of real rows.

    Both are empty without labels.
    """
    from postprior.pipelines.artefacts.augmentation import load_arm_hits

    curve, augmented = {}, {}
    for size in map(str, params.augment.sizes):
        results = content(own, FILES.scores("augmentation", size))
        if results and (found := load_arm_hits(Project(own.root).artefacts.augmentation / size)):
            curve[str(found.rows)], augmented[str(found.rows)] = found.estimates, results
    return dict(sorted(curve.items(), key=lambda entry: int(entry[0]))), augmented


def _differing(tree: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys in which the settings that determine scores differ."""
    one, two = (dict(leaves({key: settings.get(key) for key in SCORE_SETTINGS})) for settings in (tree, other))
    return sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))


def _require(read: Callable[[Source, Path], T | None], source: Source, path: Path, command: str) -> T:
    """Read a file that a command writes; raise a UserError that names the command if the file is missing."""
    if (result := read(source, path)) is None:
        raise UserError(f"{source.place(path)}: no results found; run `postprior {command}` first, or `dvc repro`")
    return result
