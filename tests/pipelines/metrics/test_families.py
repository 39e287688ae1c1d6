"""Families of metrics stand in one order: each imports those before it alone."""

import ast

from support.project import REPOSITORY

ROOM = REPOSITORY / "pipelines/metrics"
FAMILIES = ("statistics", "features", "fidelity", "coherence", "latent", "privacy", "imputation", "utility")


def test_families_are_folders_and_import_those_before_them() -> None:
    assert {path.name for path in ROOM.iterdir() if (path / "__init__.py").exists()} == set(FAMILIES)
    for place, family in enumerate(FAMILIES):
        allowed = {*FAMILIES[: place + 1], "registry"}
        for path in (ROOM / family).glob("*.py"):
            imported = [n.module for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
            of_metrics = [name.split(".")[3] for name in imported if name and ".pipelines.metrics." in name]
            assert set(of_metrics) <= allowed, path
