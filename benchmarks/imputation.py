"""Compares imputation of three real tables with the baseline imputers, in the projects that benchmarks/tables.py made.

Values of test rows are hidden, modalities or single cells, and imputed through the first density of `params.yaml` and
by the baseline imputers, which learn from the same training rows. Every run is stored as a file in
benchmarks/imputation; the table of docs/imputation.md is written from these files.

    python benchmarks/imputation.py [TABLE …] [--seeds SEED …] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
from density_page import table
from missing import replace_block
from tables import TABLES, WORK
from zoo import ROOT

from postprior import Generator
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.imputation import ImputationBenchmark, density_scores
from postprior.pipelines.metrics.imputation.scores import RowScores
from postprior.pipelines.scoring.imputation import KIND, baseline_imputer_scores, baseline_scores
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import load_artefact, read_json, write_json

RESULTS = ROOT / "benchmarks/imputation"
PAGE = ROOT / "docs/imputation.md"
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
OURS = "postprior"
SCORES = ("energy_score", "rmse", "coverage")


def scores(name: str, seed: int, work: Path) -> dict[str, Any]:
    """Return the scores of all imputers in both tasks, and our differences to each baseline imputer."""
    folder = work / name / str(seed) / "project"
    project, params = Project(folder), load_params(folder / "params.yaml")
    density = params.densities[0]
    benchmark = ImputationBenchmark.from_splits(project.splits(), params)
    baseline_imputer_scores(benchmark, params.seed).save(project)
    baselines = load_artefact(project.artefacts.baseline_imputers, KIND)
    generator = Generator.load(project.artefacts.densities / density)
    rows = next(iter(benchmark.tasks.values())).original
    forests = generator.cell_forests(benchmark.train, rows, params.seed)
    tasks = {}
    for task in benchmark.tasks:
        known: dict[str, RowScores] = baseline_scores(baselines, task)
        ours = density_scores(generator, None, task, benchmark, known, params.seed, forests)
        summaries = {rival: benchmark.tasks[task].summarise(found, benchmark.weights) for rival, found in known.items()}
        tasks[task] = {
            "scores": {who: {key: each[key] for key in SCORES} for who, each in {OURS: ours, **summaries}.items()},
            "against": {rival: each["energy_score"] for rival, each in ours["against"].items()},
            "drawn_anew": ours.get("drawn_anew", {}),
            "rows": ours["rows"],
        }
    return {"table": name, "seed": seed, "density": density, "draws": params.imputation.draws, "tasks": tasks}


def value(scored: dict[str, Any]) -> float:
    """Return an estimate, NaN if there is none."""
    return float("nan") if scored["value"] is None else float(scored["value"])


def pooled(differences: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Return the mean over S seeds and its 95 % interval, of which the errors of the seeds add up: √(Σ w²) / S."""
    means, widths = ([value(each)] for each in differences), ((each["low"], each["high"]) for each in differences)
    mean = float(np.mean([*means]))
    half = float(np.sqrt(np.sum([((high - low) / 2) ** 2 for low, high in widths]))) / len(differences)
    return mean - half, mean, mean + half


def line(name: str, task: str, runs: list[dict[str, Any]]) -> list[str]:
    """Return a line of the page: scores over the seeds, and the difference to the best baseline imputer."""
    rivals = set.intersection(*(set(run["against"]) for run in runs))

    def mean(who: str, key: str) -> float:
        return float(np.mean([value(run["scores"][who][key]) for run in runs]))

    best = min(sorted(rivals), key=lambda rival: mean(rival, "energy_score"))
    unit = mean(best, "energy_score") / 100
    differences = [run["against"][best] for run in runs]
    low, middle, high = (each / unit for each in pooled(differences))
    return [
        f"`{name}`, {task}",
        f"{mean(OURS, 'energy_score'):.3f}",
        f"{mean(best, 'energy_score'):.3f} (`{best}`)",
        ", ".join(f"{value(each) / unit:+.1f}" for each in differences),
        f"{middle:+.1f} % ({low:+.1f}, {high:+.1f})",
        ", ".join(f"{value(run['scores'][OURS]['coverage']):.3f}" for run in runs),
    ]


def page(results: list[dict[str, Any]]) -> str:
    """Return the table of the page."""
    heads = ["table, task", "`gmm`", "best baseline imputer", "difference by seed (%)", "over seeds (95 % interval)"]
    lines = []
    for name in TABLES:
        for task in ("modalities", "cells"):
            if runs := [result["tasks"][task] for result in results if result["table"] == name]:
                lines.append(line(name, task, runs))
    return table([*heads, "coverage by seed"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES), metavar="TABLE", help="tables; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="seeds of the tables")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the projects")
    arguments = parser.parse_args()
    start = time.process_time()
    for seed in arguments.seeds:
        for name in arguments.tables:
            write_json(RESULTS / f"{name}-{seed}.json", scores(name, seed, arguments.work.resolve()))
            print(f"{name}, seed {seed}: {time.process_time() - start:.0f} s", flush=True)
            replace_block(PAGE, BEGIN, END, page([read_json(path) for path in sorted(RESULTS.glob("*.json"))]))


if __name__ == "__main__":
    main()
