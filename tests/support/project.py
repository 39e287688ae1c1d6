"""The settings of the repository at a size that trains in seconds, and projects made of them."""

from pathlib import Path
from typing import Any

import yaml
from typer.main import get_group

from postprior.pipelines.commands.app import app
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.params import Params

REPOSITORY = Path(__file__).parents[2]


COMMANDS = list(get_group(app).commands)


def small(**changes: Any) -> dict[str, Any]:
    """The settings of the repository at a size that trains in seconds; each keyword, as `vae__model`, changes one."""
    tree: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    tree["data"]["digits"] |= {"train": 300, "validation": 60, "test": 120}
    tree["evaluators"] |= {"epochs": 2, "features": 16}  # fewer than half of the test rows
    tree["vae"] |= {"model": "mvtcae", "latent": 4, "width": 4}
    tree["train"] |= {"epochs": 2, "device": "cpu"}
    tree["generate"]["samples"] = 60
    tree["evaluate"]["resamples"] = 20
    tree["utility"] |= {"seeds": [0, 1], "steps": 6}
    tree["augment"] |= {"sizes": [40], "seeds": [0], "steps": 4, "density": "kde"}
    for key, value in changes.items():
        *path, last = key.split("__")
        branch = tree
        for name in path:
            branch = branch[name]
        branch[last] = value
    return tree


def write_params(root: Path, tree: dict[str, Any]) -> Params:
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tree))
    return load_params(root / "params.yaml")
