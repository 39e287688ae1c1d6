"""What MLflow gets of each stage: hashes of artefacts, files, and the rows of the leaderboard that it scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.metrics.registry import HEADLINES
from postprior.pipelines.settings.params import BASELINE_ROWS, SAMPLER_ROWS
from postprior.pipelines.storage import read_json

PROJECT = Project(Path())  # paths relative to the root of a project
FOLDERS, FILES = PROJECT.artefacts, PROJECT.results
OF_DENSITY = (FOLDERS.autoencoder, FOLDERS.densities / "{density}")
PARTS = ("metrics", "utility", "privacy", "imputation")  # folders of results with one file per row
BASELINES = (*BASELINE_ROWS, *SAMPLER_ROWS)


@dataclass(frozen=True)
class StageOutputs:
    """The files that a stage writes to the project; {density} in a path stands for the name of the density."""

    artefacts: tuple[Path, ...] = ()  # folders that it writes or uses; their hashes become tags
    files: tuple[Path, ...] = ()  # files or folders that are logged unchanged
    rows: tuple[str, ...] = ()  # rows of the leaderboard that it scores


def _of_density(*parts: str, others: tuple[Path, ...] = ()) -> StageOutputs:
    """Return the outputs of a stage that works on one density, with scores in some folders of results."""
    files = tuple(FILES.scores(part, "{density}") for part in parts)
    return StageOutputs((*OF_DENSITY, *others), files, ("{density}",) if parts else ())


RESULTS = {
    "train-evaluators": StageOutputs((FOLDERS.evaluators,), (FILES.scores("metrics", "evaluators"),)),
    "train": StageOutputs((FOLDERS.autoencoder,), (FILES.training,)),
    "refine": StageOutputs((FOLDERS.autoencoder, FOLDERS.refiner)),
    "encode": StageOutputs((FOLDERS.autoencoder,)),
    "diagnose": StageOutputs((FOLDERS.autoencoder,), (FILES.scores("metrics", "latent"),)),
    "score-baselines": StageOutputs(
        (FOLDERS.autoencoder, FOLDERS.evaluators),
        tuple(FILES.scores("metrics", name) for name in (*BASELINE_ROWS, "autoencoder", "samplers")),
        BASELINES,
    ),
    "fit": _of_density(),
    "generate": _of_density(),
    "evaluate": _of_density("metrics", others=(FOLDERS.evaluators,)),
    "utility-real": StageOutputs(files=(FILES.scores("utility", "real"),)),
    "utility": _of_density("utility"),
    "privacy": _of_density("privacy"),
    "evaluate-imputation-baselines": StageOutputs(files=(FILES.scores("imputation", "baselines"),)),
    "evaluate-imputation": _of_density("imputation"),
    "augment": StageOutputs(files=(FILES.scores("augmentation", "").parent,)),
    "register": _of_density(),
    "compare": StageOutputs(
        files=(FILES.summary, FILES.summary_table, FILES.comparison, FILES.page, FILES.plots, FILES.datasheets),
        rows=BASELINES,
    ),
}


def output_path(root: Path, pattern: Path, density: str | None) -> Path:
    """Return the path in a project for a pattern that may contain {density}."""
    return root / str(pattern).format(density=density)


def files_of(root: Path, row: str) -> list[Path]:
    """Return the existing files with scores of a row of the leaderboard."""
    name = "samplers" if row in SAMPLER_ROWS else row
    return [path for part in PARTS if (path := Project(root).results.scores(part, name)).exists()]


def headline_scores(root: Path, row: str) -> dict[str, float]:
    """Return the headline metrics of a row of the leaderboard that have a value, by key; none without its files."""
    scores: dict[str, Any] = {}
    for path in files_of(root, row):
        content = read_json(path)
        if path.parent.name == PARTS[0]:
            scores |= content.get(row, {}) if row in SAMPLER_ROWS else content
        else:
            scores[path.parent.name] = content
    found = {metric.key: reduce(_below, metric.keys, scores) for metric in HEADLINES}
    return numbers(
        {key: _below(entry, "value") if isinstance(entry, Mapping) else entry for key, entry in found.items()}
    )


def curves(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of an epoch that become curves: both losses, and the terms of the loss on validation rows."""
    return {name: value for name, value in metrics.items() if name == "train_loss" or name.startswith("validation_")}


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a mapping."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _below(tree: Any, key: str) -> Any:
    return tree.get(key) if isinstance(tree, Mapping) else None
