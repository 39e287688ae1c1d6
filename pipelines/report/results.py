"""What the stages have written, as the comparison reads it: from files alone, of this project and of others."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.errors import UserError
from postprior.pipelines.report.pairs import Pair, read_pairs
from postprior.pipelines.report.rows import Row, over_seeds, ranked
from postprior.pipelines.report.sources import Source, content, find_source, settings
from postprior.pipelines.settings.params import Params, leaves

T = TypeVar("T")

FILES = Project(Path()).results  # as they lie in any source
METRICS = FILES.scores("metrics", "").parent
BASELINES = {"real": "data", "reconstruction": "data", "normal": "floor"}
YARDSTICK = ("data", "evaluators", "evaluate", "seed")  # settings that scores of the same samples hang on
PARTS = ("utility", "privacy", "imputation")  # folders of results that rows have beside their metrics
IMPUTERS = {  # names for readers of those that densities are set against
    "neighbours": "Nearest neighbours",
    "iterative": "Chained regressions",
    "mean": "Training mean",
}


@dataclass(frozen=True)
class Results:
    """All rows in the order of the leaderboard, and what else is known; what no stage has written is empty."""

    rows: tuple[Row, ...]  # of other sources too; the densities by joint coherence, without labels by distance
    evaluators: dict[str, Any]
    autoencoder: dict[str, Any]
    training: list[dict[str, str]]  # a row an epoch
    latent: dict[str, Any] = field(default_factory=dict)  # of the stage `diagnose`
    augmentation: dict[str, Any] = field(default_factory=dict)  # by size and arm: `metrics.utility.augmentation.curve`
    augmented: tuple[dict[str, Any], ...] = ()  # of every size and seed behind it, what the stage `augment` wrote
    imputers: tuple[Row, ...] = ()  # that densities are set against, with scores by task under the key `imputation`
    pairs: tuple[Pair, ...] = ()  # tests between the densities of this project
    cautions: tuple[str, ...] = ()  # on other sources

    @property
    def densities(self) -> tuple[Row, ...]:
        """The fitted densities, best first."""
        return tuple(row for row in self.rows if row.kind == "density")

    @property
    def labelled(self) -> bool:
        """Whether labels were known wherever there are results, so that coherence by labels ranks them."""
        return all(row.estimate("joint_coherence") for row in self.densities)

    @property
    def posterior(self) -> Row:
        """The autoencoder's own posterior, which generates modalities from others under its prior."""
        return Row("posterior", "floor", self.autoencoder)

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def beside(self, row: Row, name: str) -> Row:
        """The row that stands under a name in another row's source, such as its floor; that of here if it has none."""
        return next((r for r in self.rows if (r.source, r.own_name) == (row.source, name)), self.row(name))


def read_results(
    params: Params, root: Path, others: Mapping[str, str] | None = None, names: Sequence[str] = ()
) -> Results:
    """The results of a project, and of other sources: `real`, `reconstruction`, the densities, then the floors.

    `others` are by label a folder, a revision of git or an experiment of DVC. Of these come the densities `names`, or
    all where they have none of them. A UserError names the command that writes a missing file, or a missing source.
    """
    own = Source(root)
    sources = {label: find_source(label, named, root) for label, named in (others or {}).items()}
    trees = {"": json.loads(params.model_dump_json())}
    trees |= {label: settings(source) for label, source in sources.items()}
    commands = dict.fromkeys(BASELINES, "score-baselines") | {name: f"evaluate {name}" for name in params.densities}
    found = {name: _needed(content, own, FILES.scores("metrics", name), made) for name, made in commands.items()}
    rows = [_row(own, "", name, scores) for name, scores in found.items()]
    for label, source in sources.items():
        known = list(map(str, trees[label]["densities"]))
        rows += _rows_of(label, source, [name for name in known if name in names] or known, real=rows[0])
    return Results(
        _in_order([*rows, *over_seeds(rows, trees)]),
        _needed(content, own, FILES.scores("metrics", "evaluators"), "train-evaluators"),
        _needed(content, own, FILES.scores("metrics", "autoencoder"), "score-baselines"),
        list(csv.DictReader(io.StringIO(_needed(Source.text, own, FILES.training, "train")))),
        content(own, FILES.scores("metrics", "latent")) or {},
        *_augmentation(params, root),
        imputers=tuple(_imputers(own)),
        pairs=read_pairs(root, params.densities),
        cautions=tuple(_cautions(rows, trees)),
    )


def _rows_of(label: str, source: Source, densities: list[str], real: Row) -> list[Row]:
    """The rows of another source, of what has been scored there; its real row only where it is not that of here."""
    rows = []
    for name in (*densities, *BASELINES):
        if scores := content(source, FILES.scores("metrics", name)):
            row = _row(source, label, name, scores)
            rows += [row] if name != real.name or row.scores != real.scores else []
    if not any(row.kind == "density" for row in rows):
        raise UserError(
            f"--with {label}: no results found in {source.place(METRICS)}, expected those of "
            f"{', '.join(densities)}; run `dvc repro` there, and for a revision commit {FILES.home}/"
        )
    return rows


def _row(source: Source, label: str, name: str, scores: dict[str, Any]) -> Row:
    """A row with what is known of its use, its privacy and what it imputes."""
    parts = {part: content(source, FILES.scores(part, name)) for part in PARTS}
    scores = scores | {part: found for part, found in parts.items() if found}
    return Row(f"{label}: {name}" if label else name, BASELINES.get(name, "density"), scores, label)


def _imputers(source: Source) -> Iterator[Row]:
    """The other imputers that have been scored, with what each reached in every task."""
    written = content(source, FILES.scores("imputation", "baselines")) or {}
    tasks = {task: told for task, told in written.items() if isinstance(told, dict)}
    for key, title in IMPUTERS.items():
        if reached := {task: told[key] for task, told in tasks.items() if key in told}:
            yield Row(title, "imputer", {"imputation": reached})


def _in_order(rows: list[Row]) -> tuple[Row, ...]:
    """Data first, then densities and their means over seeds from best to worst, then floors."""
    return (
        *(row for row in rows if row.kind == "data"),
        *ranked(row for row in rows if row.kind in ("density", "seeds")),
        *(row for row in rows if row.kind == "floor"),
    )


def _cautions(rows: list[Row], trees: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Sources whose real rows have other scores than here: their evaluators, features or test rows are others."""
    for row in rows:
        if row.source and row.own_name == "real":
            others = ", ".join(_differing(trees[""], trees[row.source])) or "other code or data"
            yield (
                f"Real rows score otherwise in {row.source} than here ({others}): its evaluators, features or "
                "test rows are others, so small differences to its rows mean little."
            )


def _augmentation(params: Params, root: Path) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """The curve over the sizes and seeds that are asked for, and what is known of each; nothing without labels."""
    from postprior.pipelines.artefacts.cells import load_cells
    from postprior.pipelines.metrics.utility.augmentation import curve

    asked = [f"{size}-{seed}" for size in params.augment.sizes for seed in params.augment.seeds]
    files = [content(Source(root), FILES.scores("augmentation", name)) for name in asked]
    told = {(file["size"], file["seed"]): file for file in files if file}
    cells = [cell for cell in load_cells(Project(root).artefacts.augmentation) if (cell.size, cell.seed) in told]
    return curve(cells), tuple(told[cell.size, cell.seed] for cell in cells)


def _differing(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Dotted keys of the settings that scores hang on and that differ."""
    flat = [dict(leaves({key: tree.get(key) for key in YARDSTICK})) for tree in (ours, theirs)]
    return sorted(key for key in flat[0].keys() | flat[1].keys() if flat[0].get(key) != flat[1].get(key))


def _needed(read: Callable[[Source, Path], T | None], source: Source, path: Path, command: str) -> T:
    """What is read of a file that a command writes."""
    if (found := read(source, path)) is None:
        raise UserError(
            f"{source.place(path)}: there are no such results yet; run `postprior {command}` first, or `dvc repro`"
        )
    return found
