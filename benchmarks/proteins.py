"""Compares proteins that TOTALVI of scvi-tools imputes with those that its networks impute through a density.

1,500 cells of docs/examples/cells.py are simulated per seed. A third of them lack the proteins, in a batch of their
own, as scvi-tools expects. TOTALVI is trained on all cells. It imputes the mean of 25 draws of its posterior given the
genes, decoded in the batch with proteins; postprior imputes the mean of 25 draws through `gmm`, without labels. Both
are compared with the hidden counts: the root mean square error of log(1 + count), the difference of squared errors by
cell with its standard error, and the correlation with the true rates, the median over proteins. Results are written to
benchmarks/proteins.json and docs/adapted.md. `make bench-scvi` creates the environment that scvi-tools needs.

    .venv-scvi/bin/python benchmarks/proteins.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import numpy as np
import torch
from anndata import AnnData
from density_page import table
from missing import replace_block
from scvi import settings
from scvi.model import TOTALVI
from zoo import ROOT

sys.path.insert(0, str(ROOT / "docs/examples"))

from cells import simulate

from postprior import InBatch, adapt
from postprior.pipelines.storage import read_json, write_json

RESULTS = Path(__file__).with_suffix(".json")
PAGE, MARKS = ROOT / "docs/adapted.md", ("<!-- proteins -->", "<!-- /proteins -->")
CELLS, LATENT, EPOCHS, DRAWS = 1500, 8, 120, 25
Values = np.ndarray[Any, np.dtype[Any]]


def compared(seed: int) -> dict[str, Any]:
    """Return the errors of both imputers."""
    cells = simulate(CELLS, np.random.default_rng(seed))
    counts, hidden = cells.counts, np.arange(CELLS) % 3 == 0
    data = AnnData(counts["rna"])
    data.obs["panel"] = np.where(hidden, "genes", "whole")
    data.obsm["protein"] = counts["protein"] * ~hidden[:, None]
    TOTALVI.setup_anndata(data, "protein", batch_key="panel")
    settings.seed = seed
    model = TOTALVI(data, n_latent=LATENT)
    start = time.process_time()
    model.train(max_epochs=EPOCHS, accelerator="cpu", enable_progress_bar=False)
    seconds = time.process_time() - start
    guesses = {"TOTALVI": their_means(model, data, hidden), "postprior": our_means(model, counts, hidden, seed)}
    truth, rates = np.log1p(counts["protein"][hidden]), np.log(cells.rates["protein"][hidden])
    errors = {name: (np.log1p(guess) - truth) ** 2 for name, guess in guesses.items()}
    difference = (errors["postprior"] - errors["TOTALVI"]).mean(1)
    return {
        "seed": seed,
        "training_seconds": round(seconds, 1),
        "rmse": {name: float(np.sqrt(error.mean())) for name, error in errors.items()},
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
        "correlation": {name: correlation(np.log1p(guess), rates) for name, guess in guesses.items()},
    }


def their_means(model: Any, data: AnnData, hidden: Values) -> Values:
    """Return the means of proteins by TOTALVI, decoded in the batch with proteins."""
    cells = next(iter(model._make_data_loader(data, indices=np.flatnonzero(hidden), batch_size=len(data))))
    given = {"inference_kwargs": {"n_samples": DRAWS}, "generative_kwargs": {"transform_batch": 1}}
    with torch.no_grad():
        py = model.module.forward(cells, **given, compute_loss=False)[1]["py_norm_"]
        share = py["mixing"].sigmoid()
        return (share * py["rate_back"] + (1 - share) * py["rate_fore"]).mean(0).numpy()


def our_means(model: Any, counts: dict[str, Values], hidden: Values, seed: int) -> Values:
    """Return the means of proteins through a density of the codes of the same model."""
    rows = {"rna": counts["rna"], "protein": np.where(hidden[:, None], np.nan, counts["protein"])}
    generator = adapt(InBatch(model, "whole"), rows, density="gmm", seed=seed, progress=False)
    drawn = generator.impute({m: x[hidden] for m, x in rows.items()}, draws=DRAWS, values="mean", seed=seed)
    return np.mean([np.asarray(part["protein"]) for part in drawn], 0)


def correlation(x: Values, y: Values) -> float:
    """Return the median over features of the correlation of x and y, (n, F) each."""
    return float(np.median([np.corrcoef(*pair)[0, 1] for pair in zip(x.T, y.T, strict=True)]))


def write_page(runs: list[dict[str, Any]]) -> None:
    """Write the table in docs/adapted.md."""
    heading = ["seed", "RMSE, TOTALVI", "RMSE, postprior", "difference of squared errors ± standard error"]
    rows = [
        [
            str(run["seed"]),
            *(f"{run['rmse'][name]:.3f}" for name in ("TOTALVI", "postprior")),
            f"{run['difference']:+.3f} ± {run['standard_error']:.3f}",
            *(f"{run['correlation'][name]:.3f}" for name in ("TOTALVI", "postprior")),
        ]
        for run in runs
    ]
    replace_block(PAGE, *MARKS, table([*heading, "correlation, TOTALVI", "correlation, postprior"], rows))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare imputed proteins with those of TOTALVI.")
    parser.add_argument(
        "--seeds", type=int, default=3, help="number of seeds; one that has its results is not run again"
    )
    runs = read_json(RESULTS)["runs"] if RESULTS.exists() else []  # these seeds are not run again
    for seed in range(len(runs), parser.parse_args().seeds):
        runs.append(compared(seed))
        print(runs[-1], flush=True)
        write_json(RESULTS, {"cells": CELLS, "latent": LATENT, "epochs": EPOCHS, "draws": DRAWS, "runs": runs})
        write_page(runs)


if __name__ == "__main__":
    main()
