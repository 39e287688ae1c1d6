"""Runs the pipeline of this repository in both profiles, from nothing, and compares their times and their scores.

The numbers are written to benchmarks/profiles.json and docs/evaluation.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from missing import replace_block
from ruamel.yaml import YAML
from zoo import ROOT

from postprior.pipelines.settings.profiles import PROFILES
from postprior.pipelines.storage import read_json, write_json

WORK = ROOT / ".postprior/profiles"
RESULTS = Path(__file__).parent / "profiles.json"
PAGE = ROOT / "docs/evaluation.md"
BEGIN, END = "<!-- profiles -->", "<!-- /profiles -->"
SCORES = {  # column of the page → file of results, and keys in it
    "joint coherence ↑": ("metrics", "joint_coherence"),
    "Frechet distance ↓": ("metrics", "frechet_distance"),
    "utility ↑": ("utility", "ratio_to_real", "joint"),
    "attack AUC ↓": ("privacy", "spaces", "joint", "membership_auc"),
    "imputation error ↓": ("imputation", "modalities", "energy_score"),
}


def run(profile: str) -> dict[str, Any]:
    """Run `dvc repro` in a new project; return the seconds, and the scores of every density with their intervals."""
    folder = WORK / profile
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "dvc.yaml", folder)
    tree = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    with (folder / "params.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(tree | {"profile": profile}, file)
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=folder, env=environment, check=True)
    start = time.monotonic()
    subprocess.run(["dvc", "repro"], cwd=folder, env=environment, check=True)
    seconds = time.monotonic() - start
    scores = {name: {title: score(folder, name, *keys) for title, keys in SCORES.items()} for name in tree["densities"]}
    return {"seconds": round(seconds), "densities": scores}


def score(folder: Path, name: str, kind: str, *keys: str) -> dict[str, float]:
    """Return an estimate of a density in a file of results."""
    value = read_json(folder / "results" / kind / f"{name}.json")
    for key in keys:
        value = value[key]
    return {end: value[end] for end in ("value", "low", "high")}


def page(results: dict[str, Any]) -> str:
    """Return the table of the page: each score in both profiles, with its interval."""
    lines = [
        "| density | profile | " + " | ".join(SCORES) + " |",
        "|---|---|" + "---|" * len(SCORES),
    ]
    for name in results[PROFILES[0]]["densities"]:
        for profile in PROFILES:
            scores = results[profile]["densities"][name].values()
            cells = [f"{s['value']:.3g} ({s['low']:.3g} to {s['high']:.3g})" for s in scores]
            lines.append(f"| `{name}` | {profile} | " + " | ".join(cells) + " |")
    times = " and ".join(f"{results[p]['seconds'] / 60:.1f} minutes in profile {p}" for p in PROFILES)
    return "\n".join([*lines, "", f"On two cores, `dvc repro` of this repository took {times}."])


if __name__ == "__main__":
    results = {profile: run(profile) for profile in PROFILES}
    write_json(RESULTS, results)
    replace_block(PAGE, BEGIN, END, page(results))
