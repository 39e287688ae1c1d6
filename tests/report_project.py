"""A small project whose results are made up, in the formats that the stages write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pipelines.dataset import Dataset
from pipelines.storage import save_artefact, write_json, write_text
from stage1_vae.modalities import Modality

DEFAULTS = Path(__file__).parents[1] / "params.yaml"
MODALITIES = tuple(Modality(f"m{i}", "image", (3, 16, 16), "laplace", (0.0, 1.0)) for i in range(5))
LABELS = tuple("0123456789")

# coherence, distance, diversity of every row
ROWS = {
    "real": (0.91, 5.1, 0.998),
    "reconstruction": (0.84, 7.4, 0.997),
    "normal": (0.004, 262.0, 0.91),
    "gmm": (0.80, 8.6, 0.995),
    "flow": (0.43, 18.9, 0.991),
    "vamp": (0.82, 9.4, 0.97),
}


def estimate(value: float, width: float = 0.02) -> dict[str, float]:
    return {"value": value, "low": value * (1 - width), "high": value * (1 + width)}


# log-likelihood of training and validation codes, coherence of what is generated from one modality, near copies
FITS = {
    "gmm": (-10.4, -14.9, 0.77, 0.004),
    "flow": (-9.2, -13.6, 0.62, 0.012),
    "vamp": (-13.0, -15.1, 0.75, 0.06),
}
PLAIN = (0.56, 0.76, 0.83, 0.86)  # of the plain posterior, by number of observed modalities


def fit(name: str) -> dict[str, Any]:
    """What results/metrics/<name>.json holds of a fitted density beside its scores."""
    train, validation, coherence, copies = FITS[name]
    gains = {str(n): (coherence - PLAIN[0]) / n for n in range(1, 5)}
    return {
        "log_likelihood": {"train": train, "validation": validation, "test": validation - 0.1},
        "overfitting": train - validation,
        "memorisation": {"ratio": estimate(1 - copies, 0.01), "near_copies": estimate(copies, 0.4)},
        "rows": {"used": 4000, "left_out": 1000 if name == "vamp" else 0, "incomplete": 0},
        "conditional_coherence": {n: estimate(PLAIN[int(n) - 1] + gain) for n, gain in gains.items()},
        "conditional_gain": {
            n: {"value": gain, "low": gain - 0.03, "high": gain + 0.03} for n, gain in gains.items()
        },
        "effective_sample_share": estimate(0.2),
        "posterior_draws": 16,
    }


def scores(name: str) -> dict[str, Any]:
    """The content of results/metrics/<name>.json."""
    coherence, distance, diversity = ROWS[name]
    floor, ceiling = ROWS["normal"], ROWS["reconstruction"]
    headline = {"joint_coherence": (coherence, 0), "frechet_distance": (distance, 1)}
    return {
        "joint_coherence": estimate(coherence),
        "pairwise_coherence": estimate(coherence**0.3),
        "label_entropy": estimate(diversity, 0.002),
        "label_agreement": None if name == "normal" else estimate(coherence**0.3),
        "frechet_distance": estimate(distance, 0.06),
        "precision": estimate(0.9 * coherence**0.2),
        "recall": estimate(0.8 * diversity),
        "density": estimate(1.1 * coherence**0.2),
        "coverage": estimate(0.75 * diversity * coherence**0.1),
        "modalities": {
            m.name: {"frechet_distance": estimate(distance * (0.8 + 0.1 * i), 0.08)}
            for i, m in enumerate(MODALITIES)
        },
        "gap_closed": {
            key: (value - floor[i]) / (ceiling[i] - floor[i]) for key, (value, i) in headline.items()
        },
        "difference_to_normal": {key: estimate(value - floor[i]) for key, (value, i) in headline.items()},
        "samples": 1000,
        "labels_from": {"normal": "judges", "real": "data", "reconstruction": "data"}.get(name, "density"),
        "stores_training_codes": name == "vamp",
    }


def pictures(seed: int, samples: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    base = rng.random((samples, 3, 1, 1), dtype=np.float32)
    return {
        m.name: np.clip(
            base * 0.7 + 0.3 * np.roll(ramp, i * 3) + 0.1 * rng.random((samples, 3, 16, 16)), 0, 1
        ).astype(np.float32)
        for i, m in enumerate(MODALITIES)
    }


def make_project(root: Path) -> Path:
    """params.yaml, results/ and the artefacts that the comparison reads."""
    settings = yaml.safe_load(DEFAULTS.read_text()) | {"densities": list(FITS)}
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    labels = np.arange(12) % 10
    for name in ROWS:
        write_json(root / f"results/metrics/{name}.json", scores(name) | (fit(name) if name in FITS else {}))
    accuracies = {m.name: {"accuracy": estimate(0.97 + 0.004 * i, 0.004)} for i, m in enumerate(MODALITIES)}
    write_json(
        root / "results/metrics/judges.json", {"accuracy": estimate(0.978, 0.003), "modalities": accuracies}
    )
    autoencoder = {
        "conditional_coherence": {str(n): estimate(value) for n, value in enumerate(PLAIN, 1)},
        "reconstruction_error": estimate(0.0123),
        "accuracy": estimate(0.95),
        "dead_dimensions": 3,
    }
    write_json(root / "results/metrics/autoencoder.json", autoencoder)
    curve = [900 * 0.9**epoch - 2400 for epoch in range(1, 41)]
    lines = [f"{epoch},joint,{loss},{loss + 20 + epoch}" for epoch, loss in enumerate(curve, 1)]
    write_text(
        root / "results/training.csv", "epoch,phase,train_loss,validation_loss\n" + "\n".join(lines) + "\n"
    )
    for seed, name in enumerate(FITS):
        dataset = Dataset(
            MODALITIES, pictures(seed), labels=labels, label_names=LABELS, provenance={"seed": seed}
        )
        dataset.save(root / "artefacts/synthetic" / name)
        save_artefact(root / "artefacts/densities" / name, "density", {"density": name})
    for name in ("autoencoder", "judges"):
        save_artefact(root / "artefacts" / name, name, {"made": "up"})
    arrays = {
        f"gallery.{name}.{m}": array[:8]
        for seed, name in enumerate(("real", "reconstruction", "normal"), 10)
        for m, array in pictures(seed).items()
    }
    arrays |= {f"labels.{name}": labels for name in ("real", "reconstruction")}
    save_artefact(root / "artefacts/reference", "reference", {}, arrays=arrays)
    return root
