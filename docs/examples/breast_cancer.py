"""Breast cancer: detect malignant tumours with a model of benign ones, augment 40 patients with synthetic ones, and
impute missing measurements.

    python docs/examples/breast_cancer.py     # [--splits 10] [--out FOLDER], 9 minutes on one idle core

The script prints the results of docs/examples/breast_cancer.md and draws its figures. With `--choose` it prints instead
the scores by which the settings of the autoencoder were chosen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from ruamel.yaml import YAML
from steps import imputers, interval, parser, postprior, publish, trained

from postprior import Dataset, Detector, Roles, import_data
from postprior.pipelines.api.detect import top_features
from postprior.pipelines.detection.detector import Detection
from postprior.pipelines.detection.rarity import alarm_rate, p_values
from postprior.pipelines.generation.augmentation import ARMS, arm_hits, train_generator
from postprior.pipelines.metrics.statistics.intervals import SHARE, estimate, half_samples, weighted_auc
from postprior.pipelines.metrics.utility.augmentation import ArmHits
from postprior.pipelines.settings.params import Params

ROOT = Path(__file__).parents[2]
BENIGN = 250
"""Number of benign patients that the normative model is trained on."""
CALIBRATION = 57
"""Number of the other 107 benign patients that calibrate p-values; the rest are new patients."""
FEW = {"malignant": 15, "benign": 25}
"""The 40 patients that a classifier is trained on."""
TESTED = 269
"""Number of patients that the classifier is tested on, the same for all seeds."""
ALPHAS = (0.05, 0.1, 0.2)
PARTITIONS = 40
"""Number of random partitions of the held-out benign patients of a split into calibration rows and new ones."""
NORMATIVE = {"latent": 4, "width": 8, "steps": 480}
GENERATIVE = {"latent": 4, "width": 2, "steps": 800}
CANDIDATES = [(4, 2, 1920), (4, 4, 960), (8, 4, 960), (4, 8, 480)]
"""Candidate latent dimensions, widths and steps for --choose."""


# ---- the patients --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patients:
    """The means, standard errors and worst values of ten measurements of each patient's tumour.

    `table` has one row per patient, `groups` are its columns by modality, and `benign` is (N,) bool.
    """

    table: pa.Table
    groups: Mapping[str, tuple[str, ...]]
    benign: np.ndarray

    @classmethod
    def load(cls) -> Patients:
        from sklearn.datasets import load_breast_cancer

        source = load_breast_cancer()
        names = [str(name) for name in source.feature_names]
        groups = {"mean": tuple(names[:10]), "error": tuple(names[10:20]), "worst": tuple(names[20:])}
        columns = {"patient": np.arange(len(source.target)), "diagnosis": source.target_names[source.target]}
        columns |= dict(zip(names, source.data.T, strict=True))
        return cls(pa.table(columns), groups, source.target == 1)

    def roles(self, labels: bool, **more: Any) -> Roles:
        """Return the roles of the columns: three modalities of measurements, with log(1 + v) of each."""
        columns = [column for group in self.groups.values() for column in group]
        return Roles(
            id="patient",
            label="diagnosis" if labels else None,
            skip=() if labels else ("diagnosis",),
            modalities=self.groups,
            kinds=dict.fromkeys(columns, "log"),
            **more,
        )

    def split(self, sides: Mapping[str, np.ndarray], labels: bool) -> dict[str, Dataset]:
        """Import the patients of each split, scaled by the training rows only."""
        names = np.full(len(self.benign), "", dtype=object)
        for side, patients in sides.items():
            names[patients] = side
        with TemporaryDirectory() as folder:
            root = Path(folder)
            parquet.write_table(self.table.append_column("side", pa.array(names.tolist())), root / "patients.parquet")
            import_data([root / "patients.parquet"], root / "data", self.roles(labels, split="side"))
            loaded = {side: Dataset.load(root / "data" / side) for side in sides}
            return {side: data.select(np.arange(len(data))) for side, data in loaded.items()}  # into memory


def settings(latent: int, width: int, steps: int) -> Params:
    """Return the settings of params.yaml with a small autoencoder, few full Gaussians, and drawn values."""
    tree = YAML(typ="safe").load(ROOT / "params.yaml")
    tree["vae"] |= {"latent": latent, "width": width}
    tree["train"] |= {"batch_size": 32, "device": "cpu"}
    tree["density"]["gmm"] |= {"components": [1, 2, 4], "covariance": ["full"]}
    tree["augment"] |= {"model": "mvtcae", "density": "gmm", "steps": steps}
    tree["generate"] |= {"values": "draws"}
    return Params.model_validate_json(json.dumps(tree))


# ---- the normative model -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """The results of one split.

    Attributes:
        patients: the held-out patients.
        new: the held-out patients that are not used for calibration.
        scores: the scores of the held-out patients, by method.
        detection: the result of the detector for the new patients.
        top: the features with the greatest surprisal of the new patients, as `top_features` returns them.
    """

    patients: np.ndarray
    new: np.ndarray
    scores: dict[str, np.ndarray]
    detection: Detection
    top: tuple[np.ndarray, np.ndarray]


def sides_of(patients: Patients, seed: int) -> dict[str, np.ndarray]:
    """Assign 250 benign patients to training, 57 to calibration, and all others to test."""
    benign = np.random.default_rng(seed).permutation(np.flatnonzero(patients.benign))
    train, validation, rest = np.split(benign, [BENIGN, BENIGN + CALIBRATION])
    test = np.concatenate([rest, np.flatnonzero(~patients.benign)])
    return {"train": train, "validation": validation, "test": test}


def normative(patients: Patients, seed: int) -> Split:
    """Train on benign patients, and score all others."""
    sides = patients.split(sides_of(patients, seed), labels=False)
    train, calibration, test = sides.values()
    detector = Detector.fit(train_generator(train, settings(**NORMATIVE), seed), train, calibration, seed)
    found = detector.score(test)
    held_out = detector.score(calibration)  # scored like new rows, so that AUROC uses all held-out benign patients
    scores = {"postprior": np.concatenate([held_out.score, found.score])}
    for name, baseline in BASELINES.items():
        scores[name] = baseline(values(train), np.concatenate([values(calibration), values(test)]), seed)
    tested = np.concatenate([calibration.ids, test.ids])
    return Split(tested, test.ids, scores, found, top_features(train.modalities, found))


def values(data: Dataset) -> np.ndarray:
    """Return all values of a dataset, (N, 30)."""
    return np.concatenate([data.data[m.name] for m in data.modalities], 1).astype(np.float64)


def _isolation(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(random_state=seed).fit(train).score_samples(rows)


def _one_class(**options: Any) -> Callable[..., np.ndarray]:
    def score(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
        from sklearn.svm import OneClassSVM

        return -OneClassSVM(**options).fit(train).score_samples(rows)

    return score


def _local_outlier(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.neighbors import LocalOutlierFactor

    return -LocalOutlierFactor(novelty=True).fit(train).score_samples(rows)


def _mixture(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(3, covariance_type="diag", random_state=seed)
    return -mixture.fit(train).score_samples(rows)


def _mahalanobis(train: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.covariance import EmpiricalCovariance

    return EmpiricalCovariance().fit(train).mahalanobis(rows)


BASELINES: dict[str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "isolation forest": _isolation,
    "one-class SVM": _one_class(),
    "local outlier factor": _local_outlier,
    "mixture of 3 Gaussians": _mixture,
    "Mahalanobis distance": _mahalanobis,
    "one-class SVM, nu = 0.05": _one_class(nu=0.05),
}
"""Models of scikit-learn on the same columns; the last one does not have default settings."""


def areas(patients: Patients, splits: list[Split]) -> dict[str, np.ndarray]:
    """Return the AUROC of each method, averaged over splits, under half-samples of splits and of patients: (1 + B,)."""
    rng = np.random.default_rng(0)
    patient_weights = half_samples(np.arange(len(patients.benign)), 400, rng, patients.benign.astype(int))
    split_weights = half_samples(np.arange(len(splits)), 400, rng)
    auroc = {}
    for name in splits[0].scores:
        columns = []
        for split in splits:
            sick = ~patients.benign[split.patients]
            weights, score = patient_weights[:, split.patients], split.scores[name]
            columns.append(weighted_auc(score[sick], score[~sick], weights[:, sick], weights[:, ~sick]))
        auroc[name] = (np.stack(columns, 1) * split_weights).sum(1) / split_weights.sum(1)
    return auroc


def alarms(patients: Patients, splits: list[Split], alphas: Iterable[float]) -> dict[float, float]:
    """Return the share of held-out benign patients that are flagged, averaged over random partitions of each split."""
    rng, shares = np.random.default_rng(0), {alpha: [] for alpha in alphas}
    partitions = max(PARTITIONS, -(-200 // len(splits)))
    for split in splits:
        score = split.scores["postprior"][patients.benign[split.patients]]
        for _ in range(partitions):
            order = rng.permutation(score)
            p = p_values(order[:CALIBRATION], order[CALIBRATION:])
            for alpha, flagged in shares.items():
                flagged.append(np.mean(p <= alpha))
    return {alpha: float(np.mean(flagged)) for alpha, flagged in shares.items()}


def detected(patients: Patients, splits: list[Split], alpha: float) -> float:
    """Return the share of malignant patients that are flagged, averaged over splits."""
    return float(np.mean([s.detection.flagged(alpha)[~patients.benign[s.new]].mean() for s in splits]))


def choose(patients: Patients, seeds: int) -> None:
    """Print the score of each candidate: the mean log evidence of 50 benign patients, given the other 200 of 250."""
    import torch

    for latent, width, steps in CANDIDATES:
        evidence = []
        for seed in range(seeds):
            sides = sides_of(patients, seed)
            inner = {"train": sides["train"][50:], "validation": sides["train"][:50]}
            inner["test"] = np.setdiff1d(np.arange(len(patients.benign)), sides["train"])
            train, held_out, _ = patients.split(inner, labels=False).values()
            model = train_generator(train, settings(latent, width, steps), seed).model
            batch = held_out.batch(slice(None))
            evidence.append(float(model.log_evidence(batch, torch.Generator().manual_seed(seed)).mean()))
        print(f"latent {latent}, width {width}, steps {steps}: {np.mean(evidence):.2f} nats", flush=True)


# ---- few patients and synthetic ones -------------------------------------------------------------------


def augmentation(patients: Patients, seeds: int) -> dict[str, Any]:
    """Return the accuracy of classifiers on 269 patients, trained on 40 others and on synthetic ones, by arm."""
    order = np.random.default_rng(0).permutation(len(patients.benign))
    test, pool = order[:TESTED], order[TESTED:]
    hits = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        drawn = [
            rng.permutation(pool[patients.benign[pool] == (label == "benign")])[:count] for label, count in FEW.items()
        ]
        train = np.concatenate(drawn)
        rows = patients.split({"train": train, "validation": np.setdiff1d(pool, train), "test": test}, labels=True)
        hits.append(arm_hits(rows["train"], rows["test"], settings(**GENERATIVE), seed))
    names = (range(seeds), list(ARMS), list(patients.groups))
    return ArmHits(sum(FEW.values()), *names, np.stack(hits), None, rows["test"].labels).estimates


# ---- missing measurements ------------------------------------------------------------------------------


def imputation(patients: Patients, out: Path) -> list[str]:
    """Hide and impute measurements of all patients, with the commands and the default settings of init."""
    parquet.write_table(patients.table, out / "patients.parquet")
    import_data([out / "patients.parquet"], out / "data", patients.roles(labels=True))
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", "gmm", {})
    postprior("train-evaluators", *params)
    lines = []
    for which in ("--baselines", "gmm"):
        postprior("evaluate-imputation", which, *params)
    titles = {"modalities": "One of the three modalities is hidden.", "cells": "Single cells are hidden."}
    for task, title in titles.items():
        lines += ["", title, "", *imputers(out / "project", ["gmm"], task)]
    return lines


# ---- tables and figures --------------------------------------------------------------------------------


def numbers(patients: Patients, splits: list[Split], arms: dict[str, Any]) -> list[str]:
    """Return the tables of the page."""
    auroc = areas(patients, splits)
    detector = auroc.pop("postprior")
    lines = [
        f"{len(splits)} splits; intervals from half-samples of splits and patients.",
        "",
        "| method | AUROC | difference of this detector from the method, paired |",
        "|---|---|---|",
        f"| **this detector** | **{interval(estimate(detector, SHARE))}** | |",
    ]
    for name, area in sorted(auroc.items(), key=lambda item: -item[1][0]):
        lines.append(f"| {name} | {interval(estimate(area, SHARE))} | {interval(estimate(detector - area), '+')} |")
    measured = alarms(patients, splits, ALPHAS)
    lines += ["", "| alpha | guaranteed rate | benign flagged | malignant flagged |", "|---|---|---|---|"]
    for alpha in ALPHAS:
        guaranteed, sick = float(alarm_rate(alpha, CALIBRATION)), detected(patients, splits, alpha)
        lines.append(f"| {alpha:g} | {guaranteed:.3f} | {measured[alpha]:.3f} | {sick:.3f} |")
    names, counts = leading(patients, splits)
    shares = ", ".join(f"{name} {count:.0%}" for name, count in zip(names[:5], counts[:5], strict=True))
    lines += ["", f"Feature with the greatest surprisal, by share of malignant patients: {shares}."]
    real = arms["real"]["accuracy"]["joint"]
    lines += ["", "| training data | accuracy | gain over the 40 real patients |", "|---|---|---|"]
    lines.append(f"| 40 real patients | {interval(real)} | |")
    for arm, scores in arms.items():
        if arm != "real":
            gain = interval(scores["over_real"]["joint"], "+")
            lines.append(f"| {TITLES[arm]} | {interval(scores['accuracy']['joint'])} | {gain} |")
    return lines


TITLES = {
    "classical": "the same, with noise added",
    "synthetic_1x": "and 40 synthetic ones",
    "synthetic_5x": "and 200 synthetic ones",
    "both_1x": "and 40 synthetic ones, with noise added",
    "both_5x": "and 200 synthetic ones, with noise added",
}


def leading(patients: Patients, splits: list[Split]) -> tuple[np.ndarray, np.ndarray]:
    """Return features and the share of malignant patients in which each has the greatest surprisal, largest first."""
    tops = np.concatenate([split.top[0][~patients.benign[split.new]] for split in splits])
    names, counts = np.unique(tops, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return names[order], counts[order] / len(tops)


def figures(patients: Patients, splits: list[Split], arms: dict[str, Any], out: Path) -> None:
    """Draw scores, alarms, the features with the greatest surprisal, and accuracies."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    score, sick = splits[0].scores["postprior"], ~patients.benign[splits[0].patients]
    bins = np.geomspace(score.min(), score.max(), 24)
    for rows, label, colour in ((~sick, "benign", "#4477aa"), (sick, "malignant", "#cc6677")):
        left.hist(score[rows], bins, label=label, color=colour, alpha=0.7)
    left.set(xscale="log", xlabel="score, first split", ylabel="patients")
    left.margins(y=0.35)
    left.legend(frameon=False, loc="upper right")
    levels = np.arange(1, CALIBRATION + 2) / (CALIBRATION + 1)
    levels = levels[levels <= 0.31]
    middle.plot([0, 0.3], [0, 0.3], color="0.6", lw=1, label="promised at most")
    middle.plot(levels, list(alarms(patients, splits, levels).values()), "#4477aa", label="benign")
    middle.plot(levels, [detected(patients, splits, a) for a in levels], "#cc6677", label="malignant")
    middle.set(xlabel="alpha", ylabel="share flagged", ylim=(0, 1))
    middle.legend(frameon=False, loc="center right")
    names, counts = leading(patients, splits)
    right.barh(names[:8][::-1], counts[:8][::-1], color="#cc6677")
    right.set(xlabel="share of malignant patients", title="most surprising feature")
    _save(figure, out / "detection.png")
    figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
    for place, scores in enumerate(arms.values()):
        joint = scores["accuracy"]["joint"]
        error = [[joint["value"] - joint["low"]], [joint["high"] - joint["value"]]]
        axis.errorbar(joint["value"], -place, xerr=error, fmt="o", color="#4477aa", capsize=3)
    axis.set_yticks([-place for place in range(len(arms))], ["40 real patients", *TITLES.values()])
    axis.set(xlabel="accuracy on 269 other patients")
    _save(figure, out / "augmentation.png")


def _save(figure: Any, path: Path) -> None:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def run(out: Path, folder: Path, splits: int) -> list[str]:
    """Run the example from the patients to the figures, and return the lines of the page."""
    patients = Patients.load()
    results = [normative(patients, seed) for seed in range(splits)]
    arms = augmentation(patients, splits)
    folder.mkdir(parents=True, exist_ok=True)
    figures(patients, results, arms, folder)
    return numbers(patients, results, arms) + imputation(patients, out)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--splits", type=int, default=10)
    arguments.add_argument("--choose", action="store_true", help="print the scores by which the settings were chosen")
    options = arguments.parse_args()
    if options.choose:
        choose(Patients.load(), options.splits)
        return
    publish(Path(__file__), options.out, lambda out, folder: run(out, folder, options.splits))


if __name__ == "__main__":
    main()
