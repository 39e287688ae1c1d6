"""What worked examples share: commands run in this process, settings changed, and pages that hold their numbers."""

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
"""What comes before a density is fitted."""
TITLES = {"mean": "the mean", "neighbours": "nearest neighbours", "iterative": "chained regressions"}
"""Of other imputers."""


def postprior(*words: object) -> None:
    """One command of the product, shown as it is typed."""
    from postprior.pipelines.commands.app import app

    print("$ postprior", *words, flush=True)
    if app([str(word) for word in words], standalone_mode=False):
        raise SystemExit(f"postprior {words[0]} failed")


def trained(project: Path, density: str, changes: Mapping[str, Any]) -> tuple[str, Path]:
    """Train a project that `postprior init` made and fit one density; `--params` and the file that it names.

    Args:
        project: its folder.
        density: a name of params.yaml.
        changes: values by dotted key of params.yaml; None leaves what is there.
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
    path.write_text(json.dumps(tree, indent=2), encoding="utf-8")  # which is YAML, too
    params = "--params", path
    for stage in STAGES:
        postprior(stage, *params)
    postprior("fit", density, *params)
    return params


def results(path: Path) -> dict[str, Any]:
    """The content of a result file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def interval(of: Mapping[str, Any] | None, sign: str = "") -> str:
    """An estimate with its interval, empty where there is none."""
    if of is None or of.get("low") is None:
        return ""
    return f"{of['value']:{sign}.3f} [{of['low']:{sign}.3f}, {of['high']:{sign}.3f}]"


def imputers(project: Path, densities: Sequence[str], task: str) -> list[str]:
    """The table of what the stage `recover` found in a task: densities, then other imputers, the best first."""
    others = results(project / "results/imputation/baselines.json")[task]
    ranked = sorted(others, key=lambda name: float(others[name]["energy_score"]["value"]))
    lines = [
        f"| imputer | energy score ↓ | minus that of {TITLES[ranked[0]]} | error ↓ | coverage of 90 % | right label |",
        "|---|---|---|---|---|---|",
    ]
    found = {f"`{name}`": results(project / f"results/imputation/{name}.json")[task] for name in densities}
    for title, of in (found | {TITLES[name]: others[name] for name in ranked}).items():
        paired = of["against"][ranked[0]]["energy_score"] if "against" in of else None
        scores = [of["energy_score"], of["rmse"], of["coverage"], of.get("label_agreement")]
        energy, *rest = map(interval, scores)
        lines.append(f"| {' | '.join([title, energy, interval(paired, '+'), *rest])} |")
    return lines


def parser(about: str | None) -> argparse.ArgumentParser:
    """The arguments that every example takes."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=None, help="for all files; the page is then left alone")
    return made


def publish(script: Path, out: Path | None, run: Callable[[Path, Path], Sequence[str]]) -> None:
    """Run an example, given folders for its files and its figures, and print the lines that it returns.

    Without `out` the files are temporary, and lines and figures go to the page beside the script.
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
