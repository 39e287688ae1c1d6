"""A small project with made-up results, in the formats that the stages write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from postprior.pipelines.artefacts.augmentation import save_arm_hits
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.utility.augmentation import ArmHits
from postprior.pipelines.publishing import write_text
from postprior.pipelines.report.results import Results, read_results
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.stage1_vae.modalities import Modality
from support import report_results as made_up
from support.project import REPOSITORY
from support.report_results import ARMS, FITS, NAMES, ROWS

DEFAULTS = REPOSITORY / "params.yaml"
MODALITIES = tuple(Modality(name, "image", (3, 16, 16), "laplace", (0.0, 1.0)) for name in NAMES)
LABELS = tuple("0123456789")
SEEDS = (0, 1, 2)  # of the augmentation
GRID = 4  # rows with conditionally generated modalities


def pictures(seed: int, samples: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 16, dtype=np.float32)
    base = rng.random((samples, 3, 1, 1), dtype=np.float32)
    return {
        m.name: np.clip(base * 0.7 + 0.3 * np.roll(ramp, i * 3) + 0.1 * rng.random((samples, 3, 16, 16)), 0, 1).astype(
            np.float32
        )
        for i, m in enumerate(MODALITIES)
    }


def make_project(root: Path, labels: bool = True) -> Path:
    """Write params.yaml, results/ and the artefacts that the comparison reads; without labels, no label classifiers."""
    settings = yaml.safe_load(DEFAULTS.read_text()) | {"densities": list(FITS), "profile": "full"}
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(settings))
    write_metrics(root, labels)
    for name in FITS:
        write_json(root / f"results/privacy/{name}.json", made_up.privacy(name))
        write_json(root / f"results/imputation/{name}.json", made_up.imputation(name, labels))
    write_json(root / "results/imputation/baselines.json", made_up.baselines())
    if labels:
        write_utility(root)
    write_datasets(root, labels)
    write_arrays(root, labels)
    return root


def results_of(root: Path) -> Results:
    """Read the results of a project."""
    return read_results(load_params(root / "params.yaml"), root)


def without(results: Results, *keys: str) -> Results:
    """The results without some scores, as if their stages had not run."""
    rows = [replace(row, scores={k: value for k, value in row.scores.items() if k not in keys}) for row in results.rows]
    return replace(results, rows=tuple(rows))


def write_metrics(root: Path, labels: bool) -> None:
    """Write results/metrics and results/training.csv."""
    contents = {"evaluators": made_up.evaluators, "autoencoder": made_up.autoencoder, "latent": made_up.latent}
    files: dict[str, Any] = {name: content(labels) for name, content in contents.items()}
    for name in ROWS:
        files[name] = made_up.scores(name, labels) | (made_up.fit(name, labels) if name in FITS else {})
    for name, content in files.items():
        write_json(root / f"results/metrics/{name}.json", content)
    curve = [900 * 0.9**epoch - 2400 for epoch in range(1, 41)]
    lines = [f"{epoch},joint,{loss},{loss + 20 + epoch}" for epoch, loss in enumerate(curve, 1)]
    write_text(root / "results/training.csv", "epoch,phase,train_loss,validation_loss\n" + "\n".join(lines) + "\n")


def write_utility(root: Path) -> None:
    """Write results/utility, and results/augmentation with its artefacts."""
    write_json(root / "results/utility/real.json", made_up.utility_real())
    for name in FITS:
        write_json(root / f"results/utility/{name}.json", made_up.utility(name))
    found = ArmHits(100, SEEDS, list(ARMS), list(NAMES), np.stack([made_up.hits(seed) for seed in SEEDS]))
    write_json(root / "results/augmentation/100.json", made_up.augmentation(found))
    save_arm_hits(root / "artefacts/augmentation/100", found, {})


def write_datasets(root: Path, labels: bool) -> None:
    """Write synthetic datasets, and artefacts of which the comparison reads only the hash."""
    given = {"labels": np.arange(12) % 10, "label_names": LABELS} if labels else {}
    for seed, name in enumerate(FITS):
        provenance = {
            "autoencoder": "a" * 64,
            "density": f"{seed}" * 64,
            "data": "d" * 64,
            "sampler": name,
            "seed": seed,
            "labels": None,
            "labels_from": "density" if labels else None,
            "values": "mean",
            "temperature": 1.0,
            "truncation": 0.0,
            "stores_training_codes": name == "vamp",
        }
        dataset = Dataset(MODALITIES, pictures(seed), provenance=provenance, **given)
        dataset.save(root / "artefacts/synthetic" / name)
        save_artefact(root / "artefacts/densities" / name, "density", {"density": name})
    for name in ("autoencoder", "evaluators"):
        save_artefact(root / "artefacts" / name, name, {"made": "up"})


def write_arrays(root: Path, labels: bool) -> None:
    """Write artefacts/baselines, artefacts/evaluation and artefacts/privacy."""
    arrays = {
        f"gallery.{name}.{m}": array[:8]
        for seed, name in enumerate(("real", "reconstruction", "normal"), 10)
        for m, array in pictures(seed).items()
    }
    arrays |= {f"labels.{name}": np.arange(12) % 10 for name in ("real", "reconstruction") if labels}
    save_artefact(root / "artefacts/baselines", "reference", {}, arrays=arrays)
    for seed, name in enumerate(FITS, 20):
        vectors = made_up.half_samples(name, labels)
        save_artefact(
            root / "artefacts/evaluation" / name,
            "evaluation",
            {"density": f"{seed}" * 32, "reference": "r" * 64, "samples": 1000},
            arrays={f"scores.{key}": values for key, values in vectors.items()} | grid(seed),
        )
        near = pictures(seed + 10, 6)
        shown = {f"nearest.{m}": array for m, array in near.items()}
        shown |= {f"synthetic.{m}": np.clip(array + 0.05, 0, 1) for m, array in near.items()}
        shown |= {
            "distances": np.linspace(0.2, 0.9, 6),
            "ids": np.array([f"train-{31 * i}" for i in range(6)]),
        }
        save_artefact(root / "artefacts/privacy" / name, "privacy", {"density": name}, arrays=shown)


def grid(seed: int) -> dict[str, np.ndarray]:
    """Rows, and what is generated for each given 1, 2, … M − 1 of its modalities in a random order."""
    modalities = len(MODALITIES)
    order = np.stack([np.random.default_rng(row).permutation(modalities) for row in range(GRID)])
    observed = order[:, None] < np.arange(1, modalities)[:, None]  # (R, M - 1, M)
    arrays = {"grid.observed": observed}
    for m, (name, generated) in enumerate(pictures(seed, GRID * (modalities - 1)).items()):
        real = pictures(30, GRID)[name]  # (R, C, H, W)
        seen = observed[:, :, m, None, None, None]
        arrays[f"grid.real.{name}"] = real
        arrays[f"grid.{name}"] = np.where(seen, real[:, None], generated.reshape(*observed.shape[:2], *real.shape[1:]))
    return arrays
