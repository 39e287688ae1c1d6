"""All stages on data too small to score: nothing stops, and what cannot be computed is null with its reason."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small, write_params

from pipelines.augment import augment
from pipelines.compare import compare
from pipelines.config import Params
from pipelines.dataset import Dataset
from pipelines.encode import encode
from pipelines.evaluate import evaluate
from pipelines.fit import fit
from pipelines.generate import generate
from pipelines.inspect import inspect
from pipelines.judge import judge
from pipelines.privacy import privacy
from pipelines.recover import BASELINES, recover
from pipelines.reference import reference
from pipelines.storage import read_json
from pipelines.tracking import numbers
from pipelines.train import train
from pipelines.utility import REAL, utility
from stage1_vae.modalities import Column, Modality

COLUMNS = (Column("age", "normal"), Column("visits", "negative_binomial"), Column("site", "categorical", 3))
MODALITIES = (
    Modality("record", "table", (3,), "columns", columns=COLUMNS),
    Modality("scan", "vector", (2,), "normal"),
)
SPLITS = {"train": 40, "validation": 8, "test": 12}


def people(rows: int, whole: int, seed: int) -> Dataset:
    """Rows with a record, of which some have a scan too; two labels in turn."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 2
    record = np.stack([rng.normal(size=rows) + label, rng.poisson(2, rows), rng.integers(3, size=rows)], 1)
    scan = rng.normal(size=(rows, 2)) + label[:, None]
    mask = np.ones((rows, 2), bool)
    mask[whole:, 1] = False
    data = {"record": record.astype(np.float32), "scan": scan.astype(np.float32)}
    return Dataset(MODALITIES, data, mask=mask, labels=label, label_names=("a", "b"))


def finished(root: Path, whole: dict[str, int], **settings: Any) -> tuple[Path, Params]:
    """A project whose splits have so many whole rows, after every stage."""
    for seed, (split, rows) in enumerate(SPLITS.items()):
        people(rows, whole[split], seed).save(root / "artefacts/data" / split)
    return scored(root, **settings)


def scored(root: Path, **settings: Any) -> tuple[Path, Params]:
    """A project of data, after every stage."""
    tree = small(judge__features=2, train__epochs=1, vae__latent=2, densities=["gmm"], **settings)
    tree["density"]["gmm"] = {"components": [1], "passes": 5}
    tree["augment"] |= {"sizes": [20], "density": "gmm"}
    tree["recovery"] |= {"draws": 19}
    tree["evaluate"] |= {"neighbours": 1}
    params = write_params(root, tree)
    for stage in (judge, train, encode, inspect, reference):
        stage(params, root)
    for name in (REAL, "gmm"):
        if name != REAL:
            for of_density in (fit, generate, evaluate, privacy):
                of_density(name, params, root)
        utility(name, params, root)
    for name in (BASELINES, "gmm"):
        recover(name, params, root)
    augment("20", params, root, 0)
    compare(params, root)
    return root, params
