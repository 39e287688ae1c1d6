"""The stage `diagnose`: from folders to results/metrics/latent.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.latent import labelled, unlabelled
from support.project import small, write_params

from postprior.pipelines.artefacts.codes import save_codes
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.stages.diagnose import diagnose
from postprior.stage1_vae.modalities import Modality
from postprior.stage2_latent.codes import Codes

MODALITIES = (Modality("a", "vector", (2,), "normal"), Modality("b", "vector", (2,), "normal"))
SCORES = {"kmeans_accuracy", "nmi", "ari", "linear_probe", "knn"}


def same(codes: Codes) -> Codes:
    return codes


def diagnosed(root: Path, change: Callable[[Codes], Codes] = same, data: str = "") -> dict[str, Any]:
    """Run the stage on changed codes of a shared block z and a block w of modality b, and return what it writes."""
    params = write_params(root, small())
    values = {m.name: np.zeros((160, 2), np.float32) for m in MODALITIES}
    folder = root / "artefacts/data/test"
    Dataset(MODALITIES, values, groups=np.arange(160) // 2).save(folder)
    for seed, (split, rows) in enumerate({"train": 300, "test": 160}.items()):
        origin = {"data": data or Dataset.load(folder).hash, "autoencoder": "0"}
        save_codes(root / "artefacts/codes" / split, change(labelled(rows, seed)[0]), origin)
    diagnose(params, root)
    found: dict[str, Any] = json.loads((root / "results/metrics/latent.json").read_text())
    return found


def test_what_the_stage_writes(tmp_path: Path) -> None:
    found = diagnosed(tmp_path)
    assert set(found) == {"representation", "health", "samples"}
    assert found["samples"] == 160
    assert set(found["representation"]) == SCORES | {"shared"}
    assert set(found["representation"]["shared"]) == SCORES
    assert found["health"]["dimensions"] == len(found["health"]["kl_per_dimension"]) == 4
    assert {"number", "silhouette", "label_silhouette"} <= set(found["health"]["clusters"])
    assert found["representation"]["linear_probe"]["low"] > 0.9
    before = (tmp_path / "results/metrics/latent.json").read_bytes()
    diagnosed(tmp_path)
    assert (tmp_path / "results/metrics/latent.json").read_bytes() == before


def test_of_many_rows_a_random_subset_is_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postprior.pipelines.scoring.latent.MOST", 80)
    found = diagnosed(tmp_path)
    assert found["samples"] == 80
    assert found["representation"]["linear_probe"]["low"] > 0.8


def test_what_is_shared_is_scored_alone(tmp_path: Path) -> None:
    """Only the private block depends on the labels."""

    def blind(codes: Codes) -> Codes:
        codes.loc[..., :2] = torch.randn(codes.loc[..., :2].shape, generator=torch.Generator().manual_seed(len(codes)))
        return codes

    found = diagnosed(tmp_path, blind)["representation"]
    assert found["linear_probe"]["low"] > 0.8
    assert abs(found["shared"]["linear_probe"]["value"] - 0.5) < 0.15


def test_one_block_is_not_scored_twice(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, lambda codes: codes.only("z"))
    assert set(found["representation"]) == SCORES


def test_without_labels_there_is_only_health(tmp_path: Path) -> None:
    found = diagnosed(tmp_path, unlabelled)
    assert set(found) == {"health", "samples"}
    assert "label_silhouette" not in found["health"]["clusters"]
    one = diagnosed(tmp_path, lambda codes: replace(codes, labels=torch.zeros(len(codes), dtype=torch.int64)))
    why = "at least 2 labels of training rows with complete codes are needed, found 1"
    assert one["representation"]["linear_probe"] == {"value": None, "why": why}


def test_rows_that_lack_a_block_take_no_part(tmp_path: Path) -> None:
    def without(codes: Codes) -> Codes:
        codes.observed[::4, 1] = False
        codes.loc[::4, :, 2:] = torch.nan
        return codes

    assert diagnosed(tmp_path, without)["samples"] == 120
    none = diagnosed(tmp_path, lambda codes: replace(codes, observed=torch.zeros(len(codes), 2, dtype=torch.bool)))
    missing = {"value": None, "why": "there are no test rows with complete codes"}
    assert none == {"health": missing, "representation": dict.fromkeys(SCORES, missing), "samples": 0}


def test_codes_of_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"found codes of data ffffffffffff, expected .*run postprior encode again"):
        diagnosed(tmp_path, data="f" * 64)
