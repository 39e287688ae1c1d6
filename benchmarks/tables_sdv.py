"""Draws synthetic tables with SDV and judges synthetic tables, in the environment that `make bench-tables` creates.

    python benchmarks/tables_sdv.py draw FOLDER copula|tvae|ctgan SEED    writes NAME.csv, and CPU seconds to NAME.json
    python benchmarks/tables_sdv.py judge FOLDER NAME|real                prints scores of NAME.csv, or of the test rows

FOLDER has train.csv, test.csv and table.json, as benchmarks/tables.py writes them.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

EPOCHS = {"tvae": 300, "ctgan": 200}
FOLDS = 5


def read(folder: Path, name: str, facts: dict[str, Any]) -> pd.DataFrame:
    """Return a table whose numbers are floats; categories are texts, whether or not the file has cells without one."""
    frame = pd.read_csv(folder / f"{name}.csv")
    for column in frame:
        if column not in facts["categories"]:
            frame[column] = frame[column].astype(float)
        elif pd.api.types.is_numeric_dtype(frame[column]):
            frame[column] = frame[column].map(lambda value: f"{value:g}", na_action="ignore").astype(object)
    return frame


def draw(folder: Path, name: str, seed: int, facts: dict[str, Any]) -> None:
    """Fit a synthesiser of SDV to the training rows and draw as many synthetic rows."""
    import torch
    from sdv.metadata import Metadata
    from sdv.single_table import CTGANSynthesizer, GaussianCopulaSynthesizer, TVAESynthesizer

    train = read(folder, "train", facts)
    kinds = {"copula": GaussianCopulaSynthesizer, "tvae": TVAESynthesizer, "ctgan": CTGANSynthesizer}
    np.random.seed(seed)  # noqa: NPY002 SDV draws from the global generators
    torch.manual_seed(seed)
    metadata = Metadata.load_from_dict({"tables": {"table": description(train, facts)}})
    options = {"epochs": EPOCHS[name]} if name in EPOCHS else {}
    synthesiser = kinds[name](metadata, **options)
    times = [time.process_time()]
    synthesiser.fit(train)
    times.append(time.process_time())
    rows = synthesiser.sample(len(train))
    times.append(time.process_time())
    rows.to_csv(folder / f"{name}.csv", index=False)
    fit_seconds, draw_seconds = np.diff(times)
    (folder / f"{name}.json").write_text(json.dumps({"fit_seconds": fit_seconds, "draw_seconds": draw_seconds}))


def description(frame: pd.DataFrame, facts: dict[str, Any]) -> dict[str, Any]:
    """Return which columns are numbers and which are categories, as SDV and SDMetrics read it."""
    return {
        "columns": {name: {"sdtype": "categorical" if name in facts["categories"] else "numerical"} for name in frame}
    }


def judge(folder: Path, name: str, facts: dict[str, Any]) -> dict[str, float]:
    """Return the scores of a synthetic table; those of `real` are the scores of the held-out rows."""
    from sdmetrics.reports.single_table import DiagnosticReport, QualityReport

    train, test = (read(folder, part, facts) for part in ("train", "test"))
    synthetic = test if name == "real" else read(folder, name, facts)[train.columns]
    scores: dict[str, float] = {}
    for key, report in (("quality", QualityReport()), ("diagnostic", DiagnosticReport())):
        report.generate(train, synthetic, description(train, facts), verbose=False)
        scores[key] = report.get_score()
        properties = report.get_properties()
        scores |= dict(zip(properties["Property"].str.lower().str.replace(" ", "_"), properties["Score"], strict=True))
    label = facts["label"]
    if name == "real":
        scores["c2st_auc"], scores["utility"] = c2st(train, test, facts), 1.0
    else:
        scores["c2st_auc"] = c2st(synthetic, test, facts)
        scores["utility"] = utility(synthetic, test, label, facts) / utility(train, test, label, facts)
    return scores | {"missing": float(synthetic.isna().mean().mean())}


def encoded(frames: list[pd.DataFrame], facts: dict[str, Any]) -> tuple[list[np.ndarray], list[int]]:
    """Return tables as numbers, with NaN for missing cells, and the positions of the columns of categories."""
    whole = pd.concat(frames, ignore_index=True)
    categories = [position for position, column in enumerate(whole) if column in facts["categories"]]
    for column in whole.columns[categories]:
        codes, _ = pd.factorize(whole[column], sort=True)
        whole[column] = np.where(codes < 0, np.nan, codes)
    ends = np.cumsum([len(frame) for frame in frames])[:-1]
    return np.split(whole.to_numpy(float), ends), categories


def c2st(synthetic: pd.DataFrame, real: pd.DataFrame, facts: dict[str, Any]) -> float:
    """Return the cross-validated AUC of a boosted classifier that separates synthetic rows from held-out rows."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows, categories = encoded([synthetic, real], facts)
    origin = np.repeat([0, 1], [len(synthetic), len(real)])
    classifier = HistGradientBoostingClassifier(categorical_features=categories, random_state=0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    odds = cross_val_predict(classifier, np.concatenate(rows), origin, cv=folds, method="predict_proba")[:, 1]
    return float(roc_auc_score(origin, odds))


def utility(train: pd.DataFrame, test: pd.DataFrame, label: str, facts: dict[str, Any]) -> float:
    """Return the AUC on the test rows of a boosted classifier of a binary label, trained on `train`."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    train, test = (frame[frame[label].notna()] for frame in (train, test))
    (x, x_test), categories = encoded([train.drop(columns=label), test.drop(columns=label)], facts)
    classifier = HistGradientBoostingClassifier(categorical_features=categories, random_state=0).fit(x, train[label])
    return float(roc_auc_score(test[label] == classifier.classes_[1], classifier.predict_proba(x_test)[:, 1]))


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    action, place, name, *rest = sys.argv[1:]
    facts = json.loads((Path(place) / "table.json").read_text())
    if action == "draw":
        draw(Path(place), name, int(*rest), facts)
    else:
        print(json.dumps(judge(Path(place), name, facts)))
