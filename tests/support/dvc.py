"""The whole pipeline under DVC, at a small size."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from support.project import REPOSITORY

DENSITIES = ["gmm_free", "vamp"]  # one entry names its kind, the other is named after it
BINARIES = Path(sys.executable).parent


def settings() -> dict[str, Any]:
    """The settings of the repository, at a size that runs in seconds."""
    tree: dict[str, Any] = yaml.safe_load((REPOSITORY / "params.yaml").read_text())
    tree["data"]["digits"] |= {"train": 200, "validation": 60, "test": 120}
    tree["evaluators"] |= {"epochs": 1, "features": 8}
    tree["vae"] |= {"model": "mvtcae", "latent": 4, "width": 4}
    tree["train"] |= {"epochs": 2, "device": "cpu"}
    tree["densities"] = DENSITIES
    for options, used in ((tree["density"], ("gmm", "vamp")), (tree["vae"]["options"], ("mvtcae", "mopoe"))):
        for name in options.keys() - set(used):  # DVC reads the file once per stage, which takes as long as its size
            del options[name]
    tree["density"]["gmm_free"] = {"kind": "gmm", "labels": False, "components": [1], "passes": 10}
    tree["density"]["vamp"] |= {"pseudo_inputs": 10, "steps": 20}
    tree["generate"]["samples"] = 60
    tree["evaluate"] |= {"resamples": 20, "neighbours": 3}
    tree["utility"] |= {"seeds": [0], "steps": 4}
    tree["augment"] |= {"sizes": [40], "seeds": [0, 1], "steps": 4, "density": "gmm_free"}
    return tree
