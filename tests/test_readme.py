"""What the README promises: its quickstart runs, its commands exist, its numbers are those of the result files."""

import csv
import re
from pathlib import Path
from statistics import geometric_mean

import pytest

from pipelines.cli.commands import COMMANDS
from pipelines.config import Params
from stage1_vae import MODELS
from stage2_latent import DENSITIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = {  # columns of comparison.csv, with the places that the README gives them
    "joint_coherence": 3,
    "frechet_distance": 1,
    "gap_closed_joint_coherence": 2,
    "coverage": 2,
    "utility_ratio": 3,
    "membership_auc": 2,
}
SPEEDS = ("ours_samples_per_s", "multivae_samples_per_s")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_quickstart_runs(trained: tuple[Path, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    code, *_ = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(trained[0])
    exec(compile(code, "README.md", "exec"), {})
    assert (trained[0] / "threes-and-eights/m4.npy").exists()


def test_the_commands_are_there() -> None:
    for command in re.findall(r"postprior (\w+)", README):
        assert command in COMMANDS, command
    targets = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target


def test_every_model_and_density_is_described() -> None:
    for name in [*MODELS, *DENSITIES]:
        assert f"| `{name}` |" in README


def test_the_table_of_capabilities_is_that_of_the_densities() -> None:
    page = (ROOT / "docs/densities.md").read_text()
    for name in DENSITIES:
        density = DENSITIES[name]()
        score = "exact" if density.exact_log_prob else "bound" if density.bound else "none"
        told = [density.labelled, density.conditional, density.marginal, density.incomplete]
        cells = ["yes" if each else "no" for each in (*told, density.stores_training_codes)]
        assert f"| `{name}` | {score} | {' | '.join(cells)} |" in page
        assert f"\n## `{name}`\n" in page


def test_the_table_of_results_is_that_of_the_files() -> None:
    with open(ROOT / "results/comparison.csv") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    table = README.split("<!-- results -->")[1].split("<!-- /results -->")[0]
    lines = re.findall(r"^\| `(\w+)` \|(.*)\|$", table, re.MULTILINE)
    assert {name for name, _ in lines} == set(rows)
    for name, cells in lines:
        for cell, (column, places) in zip(cells.split("|"), RESULTS.items(), strict=False):
            written = rows[name][column] and f"{float(rows[name][column]):.{places}f}"
            if name in ("real", "reconstruction", "normal") and column.startswith("gap_closed"):
                written = ""  # they are its ends
            assert cell.strip() == written, (name, column)


def test_the_table_of_speeds_is_that_of_the_file() -> None:
    with open(ROOT / "benchmarks/multivae.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["model"] for row in rows} == set(MODELS)
    table = README.split("<!-- speed -->")[1].split("<!-- /speed -->")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if "`" in line]
    expected = [
        [
            f"`{row['model']}`",
            row["variant"],
            *(f"{float(row[name]):.0f}" for name in SPEEDS),
            row["ratio"],
        ]
        for row in rows
    ]
    assert lines == expected
    by_model = {row["model"]: [float(r["ratio"]) for r in rows if r["model"] == row["model"]] for row in rows}
    mean = geometric_mean(geometric_mean(ratios) for ratios in by_model.values())
    assert f"geometric mean over the models is {mean:.2f}" in " ".join(README.split())
