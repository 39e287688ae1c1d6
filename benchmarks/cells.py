"""Judges synthetic single cells: genes of an .h5ad file beside a table of markers, all with defaults.

The file is scanpy's `pbmc68k_reduced` (700 cells, 765 genes; `scanpy.datasets.pbmc68k_reduced()`, in its wheel as
`scanpy/datasets/10x_pbmc68k_reduced.h5ad`). Its `raw.X` holds logarithms of counts divided by the total of their cell.
Fifteen markers become a table, the other genes stay sparse. Every seed splits the cells anew, runs the commands of this
package from `import` to `export` and `evaluate-imputation`, and stores its scores in benchmarks/cells, from which the
tables of docs/evaluation.md are written:

- zeros, negatives, mean absolute correlation of genes, of synthetic and of held-out cells
- C2ST: AUC of a boosted classifier that separates synthetic from held-out cells, and training from held-out cells
- accuracy on held-out cells of a logistic regression of the cell type, trained on as many synthetic as training cells,
  the mean over ten draws of these
- Kolmogorov–Smirnov distance of the totals of the counts, of synthetic and of training cells, to held-out cells
- imputation of the markers given the genes, and of cells: energy scores of all imputers

    python benchmarks/cells.py 10x_pbmc68k_reduced.h5ad [--seeds SEED …] [--work FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from density_page import table
from missing import replace_block
from scipy.sparse import csr_matrix
from scipy.stats import ks_2samp
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from tables import OURS, PAGE, command
from zoo import ROOT

from postprior.pipelines.data.conversion.normalised import counts_of
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import read_json, write_json

anndata.settings.allow_write_nullable_strings = True  # what pandas 3 takes texts for
WORK, RESULTS = ROOT / ".postprior/cells", ROOT / "benchmarks/cells"
PARTS = {"train": 0.6, "validation": 0.1, "test": 0.3}
MARKERS = (
    *(
        "CD3D",
        "CD8A",
        "CD8B",
        "CD4",
        "MS4A1",
        "CD79A",
        "CD79B",
        "GNLY",
        "NKG7",
        "CST3",
        "LYZ",
        "FCER1A",
        "CD34",
        "IL32",
    ),
    *("FCGR3A", "S100A8", "CD74", "PRF1", "GZMB", "CD14", "CD27", "CCL5", "HLA-DRA"),
)
WANTED = 15
"""Markers of the table: the first of `MARKERS` that the file has."""
BEGIN, END = "<!-- cells -->", "<!-- /cells -->"
FOLDS = 5
DRAWS = 10
"""Sets of synthetic cells on which the classifier of the cell type is trained, drawn from all of them."""


def read(path: Path) -> anndata.AnnData:
    """Return `raw.X` of a file in the format of anndata before 0.7, which anndata no longer reads, with its labels."""
    with h5py.File(path) as file:
        raw = [file[f"raw.X/{part}"][:] for part in ("data", "indices", "indptr")]
        names = [name[0].decode() for name in file["raw.var"][:]]
        cells = [name.decode() for name in file["obs"]["index"]]
        labels = file["uns/bulk_labels_categories"][:].astype(str)[file["obs"]["bulk_labels"]]
    obs = pd.DataFrame({"label": pd.Categorical(labels)}, index=cells)
    return anndata.AnnData(csr_matrix(tuple(raw), (len(cells), len(names))), obs, pd.DataFrame(index=names))


def split(cells: anndata.AnnData, folder: Path, seed: int) -> None:
    """Write rna.h5ad and markers.csv, with the part of each cell."""
    markers = [name for name in MARKERS if name in cells.var_names][:WANTED]
    rna = cells[:, [name for name in cells.var_names if name not in markers]].copy()
    rna.obs["part"] = pd.Categorical(np.random.default_rng(seed).choice(list(PARTS), len(rna), p=list(PARTS.values())))
    folder.mkdir(parents=True)
    rna.write_h5ad(folder / "rna.h5ad")
    cells[:, markers].to_df().to_csv(folder / "markers.csv", index_label="id")


def ours(folder: Path) -> dict[str, Any]:
    """Write as many synthetic cells as real ones to `exported`; return the results of imputation."""
    project = folder / "project"
    for old in (project, folder / "data", folder / "synthetic", folder / "exported"):
        shutil.rmtree(old, ignore_errors=True)
    roles = ("--id", "id", "--label", "label", "--split", "part")
    command(folder, "import", "rna.h5ad", "markers.csv", "data", *roles)
    command(folder, "init", "project", "--from", "data", "--no-git")
    density = load_params(project / "params.yaml").densities[0]
    for stage in (["prepare"], ["train"], ["encode"], ["fit", density]):
        command(project, *stage)
    cells = len(pd.read_csv(folder / "markers.csv"))
    command(project, "generate", density, "--samples", str(cells), "--out", "../synthetic")
    command(folder, "export", "synthetic", "exported")
    return imputation(project, density)


def imputation(project: Path, density: str) -> dict[str, Any]:
    """Return by task the energy scores of all imputers, and the paired differences to ours."""
    command(project, "train-evaluators")
    command(project, "evaluate-imputation", "--baselines")
    command(project, "evaluate-imputation", density)
    mine = read_json(project / "results/imputation" / f"{density}.json")
    tasks = {name: mine[name] for name in ("modalities", "cells") if "energy_score" in mine[name]}
    return {
        name: {OURS: task["energy_score"], "coverage": task["coverage"], "against": task["against"]}
        for name, task in tasks.items()
    }


def dense(folder: Path) -> tuple[np.ndarray, np.ndarray, anndata.AnnData]:
    """Return the genes and markers (N, F) of cells in a folder, their labels (N,), and their AnnData."""
    rna = anndata.read_h5ad(folder / "rna.h5ad")
    markers = pd.read_csv(folder / "markers.csv", index_col="id", dtype={"id": str}).loc[rna.obs_names]
    return np.concatenate([rna.to_df(), markers], 1), rna.obs["label"].astype(str).to_numpy(), rna


def judged(folder: Path, seed: int) -> dict[str, Any]:
    """Return the scores of synthetic cells."""
    real, labels, rna = dense(folder)
    synthetic, synthetic_labels, _ = dense(folder / "exported")
    train, test = ((rna.obs["part"] == part).to_numpy() for part in ("train", "test"))
    rng = np.random.default_rng(seed)
    draws = [rng.permutation(len(synthetic))[: train.sum()] for _ in range(DRAWS)]
    sets = [(synthetic[rows], synthetic_labels[rows]) for rows in draws]
    hits = [
        float(LogisticRegression(max_iter=300).fit(x, y).score(real[test], labels[test]))
        for x, y in (*sets, (real[train], labels[train]))
    ]
    genes = rna.n_vars
    return {
        "zeros": [float((x[:, :genes] == 0).mean()) for x in (synthetic, real[test])],
        "negatives": int((synthetic < 0).sum()),
        "correlation": [correlation(x[:, :genes]) for x in (synthetic[: test.sum()], real[test])],
        "c2st_auc": [c2st(x, real[test], rng) for x in (synthetic, real[train])],
        "accuracy": [float(np.mean(hits[:-1])), hits[-1]],
        "log_totals": [totals(x[:, :genes], real[test][:, :genes]) for x in (synthetic, real[train])],
    }


def totals(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Kolmogorov–Smirnov distance of the logarithms of the totals of the counts of cells x and y."""
    sums = [counts_of(np.expm1(each.astype(np.float64)))[0].sum(1) for each in (x, y)]
    return float(ks_2samp(*sums).statistic)


def correlation(x: np.ndarray) -> float:
    """Return the mean absolute correlation of the features (N, F) that vary."""
    varying = x[:, x.std(0) > 0]
    upper = np.triu_indices(varying.shape[1], 1)
    return float(np.abs(np.corrcoef(varying, rowvar=False)[upper]).mean())


def c2st(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
    """Return the cross-validated AUC of a boosted classifier that separates as many cells x as y."""
    n = min(len(x), len(y))
    both = np.concatenate([x[rng.permutation(len(x))[:n]], y[rng.permutation(len(y))[:n]]])
    origin, folds = np.repeat([0, 1], n), StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    classifier = HistGradientBoostingClassifier(random_state=0)
    odds = cross_val_predict(classifier, both, origin, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(origin, odds))


def generation_table(results: list[dict[str, Any]]) -> str:
    """Return the scores of synthetic cells, a line per seed."""

    def pair(values: list[float] | None) -> str:
        return "" if values is None else " / ".join(f"{value:.3f}" for value in values)

    lines = [
        [str(each["seed"]), pair(each["zeros"]), str(each["negatives"])]
        + [pair(each.get(key)) for key in ("correlation", "c2st_auc", "accuracy", "log_totals")]
        for each in results
    ]
    headings = [
        "zeros of genes",
        "negatives",
        "mean absolute correlation",
        "C2ST AUC ↓",
        "accuracy ↑",
        "KS of totals ↓",
    ]
    return table(["seed", *headings], lines)


def imputation_table(results: list[dict[str, Any]]) -> str:
    """Return the scores of imputation, a line per task and seed, against the best baseline imputer."""
    lines = []
    for task in ("modalities", "cells"):
        for each in results:
            scores = each["imputation"][task]
            ours = scores[OURS]["value"]
            difference, best = max((rival["energy_score"]["value"], name) for name, rival in scores["against"].items())
            ends = [scores["against"][best]["energy_score"][end] for end in ("value", "low", "high")]
            percent = "{:+.1f} % ({:+.1f}, {:+.1f})".format(*(100 * end / (ours - difference) for end in ends))
            rival, coverage = f"{ours - difference:.3f} (`{best}`)", f"{scores['coverage']['value']:.3f}"
            lines.append([task, str(each["seed"]), f"{ours:.3f}", rival, percent, coverage])
    return table(["task", "seed", "energy score", "best baseline imputer", "difference", "coverage"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="the .h5ad file")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="seeds of splits")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of the data and projects")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        folder = arguments.work.resolve() / str(seed)
        if not folder.exists():
            split(read(arguments.file), folder, seed)
        imputed = ours(folder)
        result = {"seed": seed, **judged(folder, seed), "imputation": imputed}
        write_json(RESULTS / f"pbmc68k-{seed}.json", result)
        print(result, flush=True)
        stored = [read_json(path) for path in sorted(RESULTS.glob("*.json"))]
        replace_block(PAGE, BEGIN, END, f"{generation_table(stored)}\n\n{imputation_table(stored)}")


if __name__ == "__main__":
    main()
