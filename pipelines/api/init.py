"""The command `init`: create a project in which `dvc repro` runs at once, for imported data or for the demo.

Its settings are those of this repository, except for settings that depend on the size and the kinds of the data. The
demo has all settings of this repository, and its data: digits, which the stage `prepare` makes.
"""

import math
import os
import re
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.api.repository import OF_DVC, Repository, git_pattern
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources.folders import read_folders
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.statistics.intervals import well_observed
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.params import ADAPTED
from postprior.pipelines.settings.round_trip import TEMPLATES, in_flow_style, read_tree, template, yaml_text
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.texts import enumerated, shell_quoted
from postprior.stage1_vae.modalities import SCALED

HOMES = (str(Project(Path()).artefacts.home), str(Project(Path()).results.home))
LEFT = "/.postprior/\n/mlflow.db*\n/mlartifacts/\n/mlruns/\n.*.partial\n"
STEPS = 3000  # training steps of the autoencoder, for any size of the data
EVALUATOR_STEPS = 400  # training steps of the evaluators, for any size of the data
SCORED = 8  # test rows that scores need: two in each half-sample of each half of them
AUGMENTED = 20  # training rows of which half suffice to fit a density
SMALL = 1000  # with fewer training rows, flows have too little data
MANY = 1000  # with as many labelled and complete rows, a density can tie the codes of several modalities together
APART = 24  # dimensions of the code of each modality, if there is one for each
BETA = 0.2  # weight of the KL terms for tables, whose columns of low entropy codes leave out at a weight of 1


def init(project: Path, data: Path, profile: str = "quick", git: bool = True) -> list[str]:
    """Write params.yaml and dvc.yaml for the dataset folders in `data`; return lines that report the chosen settings.

    The files are committed if the project gets a git repository, and staged if it lies in one; without `git`, neither.

    Raises:
        UserError: A project exists, or the project would lie inside the data: DVC tracks the data, and results would
            change them. Or git refuses the repository.
    """
    if not (data / "train" / MANIFEST).exists():
        raise UserError(f"{data}: found no train/{MANIFEST}, expected a folder written by postprior import")
    if project.resolve().is_relative_to(data.resolve()):
        raise UserError(f"{project}: lies inside the data {data}, expected a folder outside of it; use another name")
    splits = read_folders(0, data, "")
    path = Path(os.path.relpath(data.resolve(), project.resolve())).as_posix()
    chosen = {"profile": profile, **settings(splits)}
    repository, recorded = _create(project, path, chosen, git)
    return [
        f"{project / 'params.yaml'}: settings for {len(splits['train'])} training rows",
        *(f"  {key}: {_text(value)}" for key, value in chosen.items()),
        *_too_few(splits["test"]),
        *recorded,
        *repository.exposed(data),
        *_next_steps(project),
    ]


def init_demo(project: Path, profile: str = "quick", git: bool = True) -> list[str]:
    """Write params.yaml and dvc.yaml of the demo, which needs no data; return lines for the user.

    Raises:
        UserError: A project exists, or git refuses the repository.
    """
    _, recorded = _create(project, None, {"profile": profile}, git)
    told = "the demo on real handwritten digits, which scikit-learn contains; nothing is downloaded"
    return [f"{project / 'params.yaml'}: {told}", *recorded, *_next_steps(project)]


def _create(project: Path, path: str | None, chosen: Mapping[str, Any], git: bool) -> tuple[Repository, list[str]]:
    """Write a new project with its repository; return the repository and lines on what it recorded."""
    for name in TEMPLATES:
        if (project / name).exists():
            raise UserError(f"{project / name}: found an existing project; use another folder or remove this one")
    if project.exists() and not project.is_dir():
        raise UserError(f"{project}: found a file, expected a folder or nothing; use another name")
    repository = Repository.around(project, git)
    new = repository.set_up()
    write_project(project, path, chosen)
    return repository, repository.record([*TEMPLATES, ".gitignore", ".dvcignore", *OF_DVC], new)


def _next_steps(project: Path) -> list[str]:
    """Return lines that say what to do in a new project, and what will be there then."""
    return [
        f"dvc repro will write {Project(project).results.page}; postprior plan estimates how long it takes",
        f"Go on with: cd {shell_quoted(project)} && dvc repro",
    ]


def write_project(project: Path, path: str | None, chosen: Mapping[str, Any]) -> None:
    """Write the settings, the pipeline and the files of ignored paths of a project.

    Args:
        project: its folder.
        path: the folder of the data, from the project; None: the data of this repository.
        chosen: settings by dotted key; the others are those of this repository.

    Raises:
        UserError: a key is no setting.
    """
    texts = {name: template(name) for name in TEMPLATES}
    params, pipeline = (read_tree(text) for text in texts.values())
    if path is not None:
        params["data"] = {"source": "folder", "folder": {"path": path}}
        pipeline["stages"]["prepare"]["deps"].append("${data.folder.path}")
    for key, value in chosen.items():
        _put(params, key, value)
    for (name, text), tree in zip(texts.items(), (params, pipeline), strict=True):
        # restore the empty line that is lost with the data section before it
        write_text(project / name, re.sub(r"\n+evaluators:", "\n\nevaluators:", yaml_text(tree, text)))
    _ignore(project / ".gitignore", f"/{HOMES[0]}/\n{LEFT}")
    if path is not None and not path.startswith("../"):
        _ignore(project / ".gitignore", f"{git_pattern(Path(path))}\n")
    _ignore(project / ".dvcignore", LEFT)


def settings(splits: Mapping[str, Dataset]) -> dict[str, Any]:
    """Choose settings for the data, by dotted key.

    The number of training steps is that of the digits in this repository. Codes have at most half as many dimensions as
    a sample has values, but as many for tables: the density has their distribution, whatever it is. Likelihood scales
    of vectors are learned, one per coordinate. No setting needs more rows than there are.

    The model is `mvtcae`, or `unimodal` for many labelled and complete rows of images or volumes: see docs/quality.md.
    """
    train, observed = splits["train"], splits["test"].observed
    each = observed.sum(0) // 2  # the rows of one half that have each modality
    half = int(each[well_observed(each)].min())
    rows, labels, labelled = len(train), len(train.label_names or ("",)), int(train.labelled.sum())
    sizes = [math.prod(m.shape) for m in train.modalities]
    batch = 64 if rows >= SMALL else 32
    epochs = _within(10, STEPS * batch // rows, 300)
    scaled = [m for m in train.modalities if m.likelihood in SCALED]
    scales = {m.name: 0.1 if m.kind in ("image", "volume") else "features" for m in scaled}
    tables = all(m.kind == "table" for m in train.modalities)
    most = sum(sizes) if tables else sum(sizes) // 2
    images = len(sizes) > 1 and all(m.kind in ("image", "volume") for m in train.modalities)
    apart = images and int((train.labelled & train.observed.all(1)).sum()) >= MANY
    most_components = _within(1, rows // (10 * labels), 4 if apart else 16)
    return {
        "evaluators.epochs": _within(5, EVALUATOR_STEPS * batch // rows, 100),
        "evaluators.features": _within(2, half // 2, 64),
        "evaluators.batch_size": batch,
        **_pair(apart, rows, most),
        "vae.likelihood_scale": scales if set(scales.values()) - {0.1} else 0.1,
        "vae.rescaling": "dimensions" if max(sizes) >= 10 * min(sizes) else None,
        **({"vae.options.mvtcae.beta": BETA} if tables else {}),
        "train.epochs": epochs,
        "train.batch_size": batch,
        "train.patience": 0 if rows >= SMALL else max(10, epochs // 5),
        "density.gmm.components": [n for n in (1, 2, 4, 8, 16) if n <= most_components],
        "density.vamp.pseudo_inputs": _within(labels, rows // 4, 500),
        "generate.samples": max(1000, len(observed) // 2),
        "generate.values": "auto",
        "evaluate.neighbours": _within(1, half // 4, 5),
        "augment.sizes": [min(100, labelled // 2)] if labelled >= AUGMENTED else [],
        "augment.density": "flow" if rows >= SMALL else "gmm",
        "privacy.dimensions": _within(2, rows // 10, 32),
    }


def _pair(apart: bool, rows: int, most: int) -> dict[str, Any]:
    """Choose model and densities: one code for each modality, or a shared one of at most `most` dimensions."""
    shared = 2 ** _within(1, int(math.log2(max(2, most))), 5)
    flows = ["flow", "flow_matching"] if rows >= SMALL else ["gaussian"]
    return {
        "vae.model": "unimodal" if apart else "mvtcae",
        "vae.latent": APART if apart else shared,
        "densities": ["flow_matching", "gmm", "vamp"] if apart else ["gmm", *flows, "vamp"],
        "density.flow_matching.network": "blocks" if apart else ["plain", "blocks"],
        "density.flow_matching.hidden": 480 if apart else 192,
        "density.flow_matching.steps": 1500 if apart else 1200,
    }


def _too_few(test: Dataset) -> list[str]:
    """Return a warning if there are too few test rows to compute scores."""
    if len(test) >= SCORED:
        return []
    return [
        f"Found {len(test)} test rows, but scores of samples need {SCORED}; some scores will be missing or have no "
        "interval, each with a reason; import more rows, or use a larger --test-share"
    ]


def _within(low: int, value: int, high: int) -> int:
    return int(np.clip(value, low, high))


def write_settings(file: Path, chosen: Mapping[str, Any]) -> None:
    """Change settings by dotted key in a params.yaml; its comments stay.

    Raises:
        UserError: a key is no setting.
    """
    text = file.read_text(encoding="utf-8")
    tree = read_tree(text)
    for key, value in chosen.items():
        _put(tree, key, value)
    write_text(file, yaml_text(tree, text))


def _put(tree: Any, key: str, value: Any) -> None:
    """Set an existing dotted key, or the options of an autoencoder of the user."""
    *path, last = key.split(".")
    try:
        branch = reduce(getitem, path, tree)
        known = last in branch or key == f"vae.options.{ADAPTED}"
    except (KeyError, TypeError):
        known = False
    if not known:
        raise UserError(f"{key}: found no such setting, expected a dotted key of params.yaml such as train.epochs")
    branch[last] = in_flow_style(value)


def _ignore(path: Path, lines: str) -> None:
    """Add lines to an ignore file, unless it contains them."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if lines not in text:
        write_text(path, f"{text}\n{lines}" if text and not text.endswith("\n") else text + lines)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return enumerated([f"{key} {item}" for key, item in value.items()])
    if isinstance(value, list):
        return enumerated(value)
    return "null" if value is None else str(value)
