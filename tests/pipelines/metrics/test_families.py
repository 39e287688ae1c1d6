"""Families of metrics have an order: each imports only those before it."""

import ast

from support.project import REPOSITORY

METRICS = REPOSITORY / "pipelines/metrics"
FAMILIES = ("statistics", "features", "fidelity", "tables", "coherence", "latent", "privacy", "imputation", "utility")


def test_families_are_folders_and_import_those_before_them() -> None:
    assert {path.name for path in METRICS.iterdir() if (path / "__init__.py").exists()} == set(FAMILIES)
    for index, family in enumerate(FAMILIES):
        allowed = {*FAMILIES[: index + 1], "registry"}
        for path in (METRICS / family).glob("*.py"):
            imported = [n.module for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
            families = [name.split(".")[3] for name in imported if name and ".pipelines.metrics." in name]
            assert set(families) <= allowed, path
