"""Compares training with half of all modalities missing at random and training on complete rows, on `digits`.

An autoencoder and a mixture are trained on complete rows, and again on the same rows after each modality was removed
with probability one half (at least one remains). Label classifiers trained on complete rows score both on complete test
rows. With incomplete rows the mixture is fitted twice: to all rows with their observed modalities, and to the complete
rows only. The numbers are written to benchmarks/missing.json and docs/imputation.md.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
from zoo import ROOT, project, settings

from postprior import Dataset
from postprior.pipelines.publishing import write_text
from postprior.pipelines.storage import read_json, write_json

WORK = ROOT / ".postprior/missing"
RESULTS = Path(__file__).parent / "missing.json"
PAGE = ROOT / "docs/imputation.md"
BEGIN, END = "<!-- missing -->", "<!-- /missing -->"
SHARE = 0.5
ROWS = 400
"""Number of test rows for which modalities are generated."""
CASES = {"complete": "gmm", "half": "gmm", "half, complete rows": "whole"}
"""Training data → the entry of `density` that is fitted to them."""


def with_missing(data: Dataset, seed: int) -> Dataset:
    """Keep each modality of a row with probability one half, and at least one modality per row."""
    rng = np.random.default_rng(seed)
    mask = rng.random(data.observed.shape) >= SHARE
    mask[np.arange(len(data)), rng.integers(mask.shape[1], size=len(data))] = True
    return replace(data.select(np.arange(len(data))), mask=mask)


def trained(model: str, case: str) -> Path:
    """Return the folder of a project trained on the data of a case; stages that have already run are skipped."""
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.fit import fit
    from postprior.pipelines.stages.prepare import prepare
    from postprior.pipelines.stages.train import train
    from postprior.pipelines.stages.train_evaluators import train_evaluators

    entry = CASES[case]
    folder = WORK / model / case.partition(",")[0]
    tree = settings(model, 0, {"densities": ["gmm", "whole"]})
    tree["density"]["whole"] = {"kind": "gmm", "rows": "complete"}
    params = project(folder, tree)
    if not (folder / "artefacts/codes/test").exists():
        prepare(params, folder)
        train_evaluators(params, folder)
        if case != "complete":
            for seed, split in enumerate(("train", "validation")):
                path = folder / "artefacts/data" / split
                with_missing(Dataset.load(path), seed).save(path)
        train(params, folder)
        encode(params, folder)
    if not (folder / "artefacts/densities" / entry).exists():
        fit(entry, params, folder)
    return folder


def scores(folder: Path, entry: str) -> dict[str, Any]:
    """Return the conditional coherence without and with the density, and the mean log p(z) of test codes."""
    from postprior import Generator
    from postprior.pipelines.artefacts.evaluators import load_evaluators
    from postprior.pipelines.generation.conditional_scores import conditional_scores, density_conditional_scores
    from postprior.pipelines.metrics.statistics.intervals import half_samples

    generator = Generator.load(folder / "artefacts/densities" / entry)
    classifiers = load_evaluators(folder / "artefacts/evaluators").classifiers
    assert classifiers is not None
    test = Dataset.load(folder / "artefacts/data/test")
    test = test.select(np.arange(ROWS))
    weights = half_samples(test.sources, 200, np.random.default_rng(0), test.labels)
    plain = conditional_scores(generator.model, classifiers, test, weights, np.random.default_rng(0))
    through = density_conditional_scores(
        generator.model, generator.density, classifiers, test, weights, np.random.default_rng(0)
    )
    manifest = read_json(folder / "artefacts/densities" / entry / "manifest.json")
    return {
        "plain": plain,
        "through": through["conditional_coherence"],
        "log_likelihood": manifest["log_likelihood"]["test"],
        "rows": manifest.get("rows"),
    }


def write_page(results: dict[str, Any]) -> None:
    """Write the table of docs/imputation.md."""
    sizes = ("1", "2", "3", "4")
    lines = [
        f"| model | training rows | mixture fitted to | {' | '.join(sizes)} | log p(z) |",
        f"|---|---|---|{'---|' * len(sizes)}---|",
    ]
    for model, cases in results.items():
        for case, values in cases.items():
            cells = [f"{values['plain'][size]['value']:.3f} → {values['through'][size]['value']:.3f}" for size in sizes]
            rows, fitted, log_p = case.partition(",")[0], values["rows"]["used"], values["log_likelihood"]
            lines.append(f"| `{model}` | {rows} | {fitted:,} rows | {' | '.join(cells)} | {log_p:.2f} |")
    replace_block(PAGE, BEGIN, END, "\n".join(lines))


def replace_block(page: Path, begin: str, end: str, text: str) -> None:
    """Replace the text of a page between two marks."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    write_text(page, f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}")


def main() -> None:
    results: dict[str, Any] = read_json(RESULTS) if RESULTS.exists() else {}
    for model in sys.argv[1:] or ("mvtcae",):
        results[model] = {case: scores(trained(model, case), entry) for case, entry in CASES.items()}
        write_json(RESULTS, results)
        write_page(results)


if __name__ == "__main__":
    main()
