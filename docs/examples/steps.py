"""Functions shared by the worked examples: run commands in this process, change settings, and update pages."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

from ruamel.yaml import YAML

BEGIN, END = "<!-- numbers -->", "<!-- /numbers -->"
STAGES = ("prepare", "train", "encode")
"""Stages that run before a density is fitted."""
TITLES = {
    "mean": "the mean",
    "neighbours": "nearest neighbours",
    "iterative": "iterative ridge regressions",
    "mice": "chained equations (mice)",
    "forest": "random forests",
}
"""Titles of the baseline imputers."""


def postprior(*arguments: object) -> None:
    """Print and run one command of postprior."""
    from postprior.pipelines.commands.app import app

    print("$ postprior", *arguments, flush=True)
    if app([str(argument) for argument in arguments], standalone_mode=False):
        raise SystemExit(f"postprior {arguments[0]} failed")


def trained(project: Path, density: str, changes: Mapping[str, Any]) -> tuple[str, Path]:
    """Train a project that `postprior init` made, and fit one density.

    Args:
        project: the folder of the project.
        density: the name of a density in params.yaml.
        changes: values by dotted key of params.yaml; None leaves the value unchanged.

    Returns:
        `--params` and the path of params.yaml, as arguments for further commands.
    """
    path = project / "params.yaml"
    tree = YAML(typ="safe").load(path)
    for key, value in changes.items():
        *names, last = key.split(".")
        branch = tree
        for name in names:
            branch = branch[name]
        if value is not None:
            branch[last] = value
    path.write_text(json.dumps(tree, indent=2), encoding="utf-8")  # JSON is valid YAML
    params = "--params", path
    for stage in STAGES:
        postprior(stage, *params)
    postprior("fit", density, *params)
    return params


def results(path: Path) -> dict[str, Any]:
    """Read a result file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def interval(score: Mapping[str, Any] | None, sign: str = "") -> str:
    """Format an estimate with its interval; the text is empty if there is no interval."""
    if score is None or score.get("low") is None:
        return ""
    return f"{score['value']:{sign}.3f} [{score['low']:{sign}.3f}, {score['high']:{sign}.3f}]"


def imputers(project: Path, densities: Sequence[str], task: str) -> list[str]:
    """Return the table of `evaluate-imputation` for a task: densities, then baseline imputers from best to worst."""
    baselines = results(project / "results/imputation/baselines.json")[task]
    scored = [name for name, row in baselines.items() if row["energy_score"]["value"] is not None]
    ranked = sorted(scored, key=lambda name: float(baselines[name]["energy_score"]["value"]))
    difference = f"difference from {TITLES[ranked[0]]}"
    lines = [
        f"| imputer | energy score ↓ | {difference} | RMSE ↓ | coverage of the 90 % interval | label agreement |",
        "|---|---|---|---|---|---|",
    ]
    rows = {f"`{name}`": results(project / f"results/imputation/{name}.json")[task] for name in densities}
    for title, row in (rows | {TITLES[name]: baselines[name] for name in ranked}).items():
        paired = row["against"][ranked[0]]["energy_score"] if "against" in row else None
        scores = [row["energy_score"], row["rmse"], row["coverage"], row.get("label_agreement")]
        energy, *rest = map(interval, scores)
        lines.append(f"| {' | '.join([title, energy, interval(paired, '+'), *rest])} |")
    return lines


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that all examples have."""
    arguments = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    help_text = "folder for all files; if it is given, the page is not changed"
    arguments.add_argument("--out", type=Path, default=None, help=help_text)
    return arguments


def publish(script: Path, out: Path | None, run: Callable[[Path, Path], Sequence[str]]) -> None:
    """Run an example, given folders for its files and its figures, and print the lines that it returns.

    Without `out` the files are temporary, and the lines and figures are written to the page next to the script.
    """
    page = script.with_suffix(".md")
    with _folder(out) as home:
        lines = run(home, home / "figures")
        print("\n".join(["", *lines]))
        if out is None:
            shutil.copytree(home / "figures", page.with_suffix(""), dirs_exist_ok=True)
            before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
            text = "\n".join(lines)
            page.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)
