"""AnnData and MuData in memory are read as their files are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from postprior.pipelines.data.formats import memory
from postprior.pipelines.data.formats.contents import ArrayView, Roles, SourceContents
from postprior.pipelines.data.formats.omics import read


def cells(rows: int = 30) -> Any:
    anndata = pytest.importorskip("anndata")
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(rng.choice(["T", "B"], rows))}, [f"cell{row}" for row in range(rows)])
    return anndata.AnnData(sparse.csr_matrix(rng.poisson(1, (rows, 6)).astype(np.float32)), obs)


def alike(one: list[SourceContents], other: list[SourceContents]) -> None:
    assert [source.place for source in one] == [source.place for source in other]
    for mine, theirs in zip(one, other, strict=True):
        assert (mine.ids, mine.label, mine.kept) == (theirs.ids, theirs.label, theirs.kept)
        for view, expected in zip(mine.views, theirs.views, strict=True):
            assert isinstance(view, ArrayView)
            assert isinstance(expected, ArrayView)
            assert (view.name, view.kind, view.facts) == (expected.name, expected.kind, expected.facts)
            np.testing.assert_array_equal(view.content[:], expected.content[:])


def test_anndata(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    data = cells()
    with anndata.settings.override(allow_write_nullable_strings=True):
        data.copy().write_h5ad(tmp_path / "rna.h5ad")
    alike(memory.read({"rna": data}, Roles(label="type")), read(tmp_path / "rna.h5ad", Roles(label="type")))


def test_mudata(tmp_path: Path) -> None:
    anndata, mudata = pytest.importorskip("anndata"), pytest.importorskip("mudata")
    data = mudata.MuData({"rna": cells(), "protein": cells()[:20].copy()})
    data.obs["type"] = data["rna"].obs["type"]
    with anndata.settings.override(allow_write_nullable_strings=True):
        data.write_h5mu(tmp_path / "cells.h5mu")
    alike(memory.read({"cells": data}, Roles(label="type")), read(tmp_path / "cells.h5mu", Roles(label="type")))
