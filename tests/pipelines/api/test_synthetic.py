"""Rows of a dataset as AnnData and MuData; real rows take the same way as drawn ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from postprior.pipelines.api.objects import given_rows
from postprior.pipelines.api.synthetic import SyntheticDataset
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import memory
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.formats.memory import filling
from postprior.pipelines.data.importing.run import import_contents
from postprior.pipelines.errors import UserError

N = 40
ROLES = Roles(label="type", nan_is_missing=True)


def cells(kind: str, rows: int = N) -> Any:
    """Counts in a sparse matrix, or numbers with a hole in a dense one."""
    anndata, sparse = pytest.importorskip("anndata"), pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(rng.choice(["T", "B"], N))}, [f"cell{row}" for row in range(N)])
    dense = rng.normal(size=(rows, 3))
    dense[2, 1] = np.nan
    matrix = sparse.csr_matrix(rng.poisson(1, (rows, 6)).astype(np.float32)) if kind == "rna" else dense
    return anndata.AnnData(matrix, obs[:rows])


def imported(data: dict[str, Any], folder: Path) -> SyntheticDataset:
    import_contents(memory.read(data, ROLES), [f"{name}.h5ad" for name in data], folder, ROLES)
    return SyntheticDataset.of(Dataset.load(folder / "train"))


def test_anndata_comes_back(tmp_path: Path) -> None:
    data = cells("rna")
    back = imported({"rna": data}, tmp_path / "data").to_anndata()
    rows = data[back.obs_names]
    assert (back.X != rows.X).nnz == 0
    assert back.X.dtype == np.float32
    assert back.obs["type"].astype(str).tolist() == rows.obs["type"].astype(str).tolist()


def test_a_table_beside_anndata_is_in_obs(tmp_path: Path) -> None:
    data = cells("rna")
    labs = pd.DataFrame({"crp": np.random.default_rng(1).normal(size=N).round(2)}, data.obs_names)
    back = imported({"rna": data, "labs": labs}, tmp_path / "data").to_anndata()
    assert back.obs["crp"].tolist() == labs["crp"][back.obs_names].tolist()
    assert back.obs["type"].tolist() == data.obs["type"][back.obs_names].tolist()


def test_several_vectors_are_mudata(tmp_path: Path) -> None:
    samples = imported({"rna": cells("rna"), "protein": cells("protein", 30)}, tmp_path / "data")
    with pytest.raises(UserError, match="found the vectors rna, protein, expected one; use to_mudata"):
        samples.to_anndata()
    pytest.importorskip("mudata")
    assert {name: part.shape[1] for name, part in samples.to_mudata().mod.items()} == {"rna": 6, "protein": 3}


def test_holes_of_anndata_are_filled(tmp_path: Path) -> None:
    """Imputed rows are the real ones with another number in place of what is missing."""
    data = cells("protein")
    trained = imported({"protein": data}, tmp_path / "data")
    given = given_rows(data, trained)
    values = given.dataset.data["protein"].copy()
    values[given.dataset.missing("protein")] = 0
    filled = given.dataset.missing("protein").any(1)[:, None]
    imputed = Dataset(**vars(given.dataset) | {"data": {"protein": values}, "cells": {}, "filled": filled})
    result = filling.filled(given.objects, given.contents, imputed)["protein"]
    holes = np.isnan(data.X)
    assert holes.sum() == 1
    assert not np.isnan(result.X).any()
    np.testing.assert_array_equal(result.X[~holes], data.X[~holes])
