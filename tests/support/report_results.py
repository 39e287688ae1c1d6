"""Made-up contents of result files, in the formats that the stages write."""

from __future__ import annotations

from typing import Any

import numpy as np

from postprior.pipelines.metrics.latent.health import advice
from postprior.pipelines.metrics.privacy.proximity import CAUTION
from postprior.pipelines.metrics.utility.augmentation import ArmHits

NAMES = tuple(f"m{i}" for i in range(5))  # modalities, all images

# coherence, distance and diversity of each row
ROWS = {
    "real": (0.91, 5.1, 0.998),
    "reconstruction": (0.84, 7.4, 0.997),
    "normal": (0.004, 262.0, 0.91),
    "gmm": (0.80, 8.6, 0.995),
    "flow": (0.43, 18.9, 0.991),
    "vamp": (0.82, 9.4, 0.97),
}
# log-likelihood of training and validation codes, conditional coherence given one modality, near copies
FITS = {
    "gmm": (-10.4, -14.9, 0.77, 0.004),
    "flow": (-9.2, -13.6, 0.62, 0.012),
    "vamp": (-13.0, -15.1, 0.75, 0.06),
}
PLAIN = (0.56, 0.76, 0.83, 0.86)  # conditional coherence of the plain posterior, by number of observed modalities
PAIRING = 0.93  # AUC of the pairing classifier on real data

# accuracy on real data after training on synthetic data, AUC of the attack, share of near copies
USES = {"gmm": (0.931, 0.512, 0.0), "flow": (0.74, 0.508, 0.0), "vamp": (0.90, 0.71, 0.06)}
REAL = 0.95  # accuracy after training on real data
SPREAD = {
    "m0": -0.06,
    "m1": -0.02,
    "m2": -0.05,
    "m3": -0.03,
    "m4": -0.07,
}  # accuracy of each modality minus the joint accuracy
# energy score, error and coverage of each imputer on hidden modalities
IMPUTED = {
    "gmm": (0.60, 0.91, 0.902),
    "flow": (0.66, 0.95, 0.884),
    "vamp": (0.62, 0.92, 0.911),
    "neighbours": (0.64, 0.93, 0.887),
    "iterative": (0.65, 0.94, 0.861),
    "mice": (0.66, 0.95, 0.903),
    "forest": (0.67, 0.94, 0.911),
    "mean": (0.97, 1.0, 0.0),
}
BASELINE_IMPUTERS = ("neighbours", "iterative", "mice", "forest", "mean")
ARMS = {  # joint accuracy at n = 100
    "real": 0.71,
    "classical": 0.75,
    "synthetic_1x": 0.74,
    "synthetic_5x": 0.78,
    "both_1x": 0.77,
    "both_5x": 0.80,
}
HALF_SAMPLES = 40
LABELLED = ("joint_coherence", "pairwise_coherence", "label_entropy", "label_agreement")


def estimate(value: float, width: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value * (1 - width), "high": value * (1 + width)}


def share(value: float, reach: float = 0.02) -> dict[str, float]:
    """An estimate between 0 and 1 with a symmetric interval."""
    return {"value": value, "low": max(value - reach, 0.0), "high": min(value + reach, 1.0)}


def scores(name: str, labels: bool = True) -> dict[str, Any]:
    """The content of results/metrics/<name>.json that all rows have."""
    coherence, distance, diversity = ROWS[name]
    floor, ceiling = ROWS["normal"], ROWS["reconstruction"]
    headline = {"joint_coherence": (coherence, 0), "frechet_distance": (distance, 1)}
    judged = {
        "joint_coherence": estimate(coherence),
        "pairwise_coherence": estimate(coherence**0.3),
        "label_entropy": estimate(diversity, 0.002),
        "label_agreement": None if name == "normal" else estimate(coherence**0.3),
        "labels_from": {"normal": "judges", "real": "data", "reconstruction": "data"}.get(name, "density"),
    }
    if not labels:
        del headline["joint_coherence"]
        judged = {"labels_from": None}
    pairing, canonical = PAIRING - 0.4 * (0.91 - coherence) ** 2, 0.9 * coherence**0.2
    return {
        **judged,
        **fidelity(coherence, distance, diversity),
        "joint_frechet_distance": estimate(5.5 * distance, 0.05),
        "joint_kernel_distance": estimate(0.02 * distance, 0.1) | {"standard_error": 0.001 * distance},
        "pairing_auc": share(pairing),
        "incoherence": {
            "value": PAIRING - pairing,
            "low": PAIRING - pairing - 0.03,
            "high": PAIRING - pairing + 0.03,
        },
        "canonical_correlation": share(canonical * 0.8),
        "canonical_preservation": estimate(canonical / (0.9 * 0.91**0.2), 0.03),
        "modalities": {m: fidelity(coherence, distance * (0.8 + 0.1 * i), diversity) for i, m in enumerate(NAMES)},
        "gap_closed": {key: (value - floor[i]) / (ceiling[i] - floor[i]) for key, (value, i) in headline.items()},
        "difference_to_normal": {key: estimate(value - floor[i]) for key, (value, i) in headline.items()},
        "cautions": [],
        "samples": 1000,
        "stores_training_codes": name == "vamp",
    }


def fidelity(coherence: float, distance: float, diversity: float) -> dict[str, Any]:
    """Scores of one modality or of all modalities together."""
    return {
        "frechet_distance": estimate(distance, 0.06),
        "kernel_distance": estimate(0.01 * distance, 0.1) | {"standard_error": 0.0005 * distance},
        "mmd": estimate(0.002 * distance, 0.1),
        "precision": estimate(0.9 * coherence**0.2),
        "recall": estimate(0.8 * diversity),
        "density": estimate(1.1 * coherence**0.2),
        "coverage": estimate(0.75 * diversity * coherence**0.1),
        "alpha_precision": share(0.97 * coherence**0.1),
        "beta_recall": share(0.5 * diversity),
        "authenticity": share(0.7 * diversity),
    }


def table() -> dict[str, Any]:
    """Additional scores of a modality that is a table."""
    columns = {
        "age": {"test": "ks", "statistic": 0.04, "p_value": 0.31},
        "sex": {"test": "chi_square", "statistic": 5.2, "p_value": 0.023},
    }
    return {
        "column_shapes": share(0.94),
        "columns": columns,
    }


def fit(name: str, labels: bool = True) -> dict[str, Any]:
    """Additional content of results/metrics/<name>.json of a fitted density."""
    train, validation, coherence, copies = FITS[name]
    gains = {str(n): (coherence - PLAIN[0]) / n for n in range(1, 5)}
    conditional = {
        "conditional_coherence": {n: estimate(PLAIN[int(n) - 1] + gain) for n, gain in gains.items()},
        "conditional_gain": {n: {"value": gain, "low": gain - 0.03, "high": gain + 0.03} for n, gain in gains.items()},
        "effective_sample_share": estimate(0.2),
        "posterior_draws": 16,
    }
    return {
        "log_likelihood": {"train": train, "validation": validation, "test": validation - 0.1},
        "overfitting": train - validation,
        "memorisation": {"ratio": estimate(1 - copies, 0.01), "near_copies": estimate(copies, 0.4), "samples": 1000},
        "rows": {"used": 4000, "left_out": 1000 if name == "vamp" else 0, "incomplete": 0},
        **(conditional if labels else {}),
    }


def evaluators(labels: bool = True) -> dict[str, Any]:
    """results/metrics/evaluators.json"""
    if not labels:
        return {"samples": 2000}
    accuracies = {m: {"accuracy": estimate(0.97 + 0.004 * i, 0.004)} for i, m in enumerate(NAMES)}
    return {"accuracy": estimate(0.978, 0.003), "modalities": accuracies, "samples": 2000}


def autoencoder(labels: bool = True) -> dict[str, Any]:
    """results/metrics/autoencoder.json"""
    errors = {
        "reconstruction_error": estimate(0.0123),
        "correlation": share(0.91),
        "ssim": share(0.83),
        "psnr": estimate(19.4),
        "l1": estimate(0.061),
    }
    read = {
        "conditional_coherence": {str(n): estimate(value) for n, value in enumerate(PLAIN, 1)},
        "accuracy": estimate(0.95),
    }
    return {
        **errors,
        **(read if labels else {}),
        "dead_dimensions": 8,
        "dimensions": 32,
        "modalities": dict.fromkeys(NAMES, errors),
    }


def latent(labels: bool = True) -> dict[str, Any]:
    """results/metrics/latent.json"""
    values = {"kmeans_accuracy": 0.71, "nmi": 0.66, "ari": 0.58, "linear_probe": 0.93, "knn": 0.95}
    health: dict[str, Any] = {
        "dimensions": 32,
        "dead_dimensions": 8,
        "collapsed_dimensions": 1,
        "active_units": 24,
        "kl_total": 41.5,
        "kl_per_dimension": [round(2.6 * 0.9**i, 3) for i in range(32)],
        "aggregated_to_prior": {
            "posterior_share": 0.2,
            "moment_kl": 0.4,
            "mutual_information": 5.1,
            "mutual_information_bound": 6.9,
        },
        "clusters": {"number": 10, "silhouette": 0.21},
    }
    health["advice"] = advice(health)
    representation = {name: share(value) for name, value in values.items()}
    return {**({"representation": representation} if labels else {}), "health": health, "samples": 1000}


def accuracy(joint: float, reach: float = 0.015) -> dict[str, Any]:
    """Accuracies of the classifiers: the joint one, the mean over modalities, and one per modality."""
    modalities = {m: share(joint + other, reach) for m, other in SPREAD.items()}
    mean = float(np.mean([value["value"] for value in modalities.values()]))
    return {"joint": share(joint, reach), "mean": share(mean, reach), "modalities": modalities}


def utility_real() -> dict[str, Any]:
    """results/utility/real.json"""
    return {"train_real_test_real": accuracy(REAL), "samples": {"train": 5000, "test": 1000}}


def utility(name: str) -> dict[str, Any]:
    """results/utility/<density>.json"""
    return {
        "train_synthetic_test_real": accuracy(USES[name][0]),
        "ratio_to_real": accuracy(USES[name][0] / REAL, 0.01),
        "train_real_test_synthetic": accuracy(USES[name][0] + 0.01),
        "samples": {"train": 5000, "test": 1000},
    }


def augmentation(found: ArmHits) -> dict[str, Any]:
    """results/augmentation/<size>.json"""
    settings = {"model": "mvtcae", "density": "gmm"}
    return {"rows": found.rows, "seeds": list(found.seeds), **settings, "accuracy": found.accuracy}


def hits(seed: int, rows: int = 400) -> np.ndarray:
    """Whether the classifiers of each arm are right on each row, (arms, 1 + M, rows), the joint classifiers first."""
    difficulty = (np.random.default_rng(100 + seed).permutation(rows) + 0.5) / rows
    levels = np.array([[joint, *(joint + other for other in SPREAD.values())] for joint in ARMS.values()])
    return difficulty < levels[..., None] + 0.004 * (seed - 1)


def privacy(name: str) -> dict[str, Any]:
    """results/privacy/<density>.json"""
    _, auc, copies = USES[name]
    leaks = ["near_copies", "membership_auc", "linkability"]
    space = {
        "distance_ratio": share(1 - 2 * copies),
        "near_copies": share(copies, 0.4 * copies),
        "authenticity": share(0.72 - 2 * copies),
        "authenticity_fresh": share(0.72),
        "membership_auc": share(auc, 0.013),
    }
    listed = [
        {
            "sample": 17 * i,
            "record": f"train-{31 * i}",
            "space": "joint",
            "distance": 0.2 + 0.01 * i,
            "ratio": 0.1,
        }
        for i in range(8 if copies else 0)
    ]
    risk = 5 * copies
    rates = {"main": share(0.2 + 0.8 * risk, 0.02), "control": share(0.2, 0.02), "naive": 0.05, "attacks": 2000}
    linked = {"value": risk, "low": risk - 0.04, "high": risk + 0.04, **rates, "files": [["m0"], ["m1"]]}
    no_tables = {
        "value": None,
        "why": "the data have no tables or vectors, so that no value is an attribute of its own",
    }
    untested = ("attribute_inference", "singling_out", "singling_out_univariate")
    return {
        "spaces": dict.fromkeys(("joint", "codes", *NAMES), space),
        "near_copies": listed,
        "attacks": {"linkability": linked, **dict.fromkeys(untested, no_tables)},
        "flagged": leaks if copies else [],
        "detected": {"flow": ["distance_ratio"], "vamp": leaks}.get(name, []),
        "samples": {"synthetic": 1000, "held_out": 1000, "train": 5000, "drawn": 25000},
        "caution": CAUTION,
    }


def imputed(name: str) -> dict[str, Any]:
    """Scores of an imputer on one task, in results/imputation/<name>.json and baselines.json."""
    energy, error, coverage = IMPUTED[name]
    scores = {
        "energy_score": estimate(energy),
        "rmse": estimate(error),
        "coverage": share(coverage, 0.006 if coverage else 0.0),
    }
    return {**scores, "rows": 1000, "modalities": dict.fromkeys(NAMES, scores)}


def baselines(tasks: tuple[str, ...] = ("modalities",)) -> dict[str, Any]:
    """results/imputation/baselines.json"""
    scores = {task: {name: imputed(name) for name in BASELINE_IMPUTERS} for task in tasks}
    return {"draws": 39, "neighbours": 40, **scores}


def imputation(name: str, labels: bool = True, tasks: tuple[str, ...] = ("modalities",)) -> dict[str, Any]:
    """results/imputation/<density>.json"""
    energy, error, _ = IMPUTED[name]
    against = {}
    for other in BASELINE_IMPUTERS:
        value = energy - IMPUTED[other][0]
        against[other] = {
            "energy_score": {"value": value, "low": value - 0.005, "high": value + 0.005},
            "rmse_ratio": estimate(error / IMPUTED[other][1], 0.01),
        }
    task = {**imputed(name), "spread": dict.fromkeys(NAMES, 1.4), "against": against}
    right = {"label_agreement": share(0.98 * ROWS[name][0] ** 0.2)} if labels else {}
    return {"draws": 39} | {of: task | (right if of == "modalities" else {}) for of in tasks}


def half_samples(name: str, labels: bool = True) -> dict[str, np.ndarray]:
    """Scores (1 + B,) of a row by name, the full sample first; half of the noise comes from the reference set."""
    own = np.random.default_rng(sorted(ROWS).index(name))
    common = np.random.default_rng(99).normal(size=HALF_SAMPLES)
    arrays = {}
    for key, value in scores(name).items():
        if isinstance(value, dict) and "value" in value and (labels or key not in LABELLED):
            noise = 0.007 * abs(value["value"]) * (common + own.normal(size=HALF_SAMPLES))
            arrays[key] = value["value"] + np.concatenate([[0.0], noise])
    return arrays
