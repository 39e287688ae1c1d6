"""The command `init`: create a project in which `dvc repro` runs at once, for imported data or for the demo.

Its settings are those of this repository, except for settings that depend on the size and the kinds of the data. The
demo has all settings of this repository, and its data: digits, which the stage `prepare` makes.
"""

import os
import re
from collections.abc import Mapping
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from postprior.pipelines.api.choice.rules import settings
from postprior.pipelines.api.repository import OF_DVC, Repository, git_pattern
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.sources.folders import read_folders
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.params import ADAPTED
from postprior.pipelines.settings.round_trip import TEMPLATES, in_flow_style, read_tree, template, yaml_text
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.texts import as_text, shell_quoted

HOMES = (str(Project(Path()).artefacts.home), str(Project(Path()).results.home))
LEFT = "/.postprior/\n/mlflow.db*\n/mlartifacts/\n/mlruns/\n.*.partial\n"
SCORED = 8  # test rows that scores need: two in each half-sample of each half of them


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
        *(f"  {key}: {as_text(value)}" for key, value in chosen.items()),
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


def _too_few(test: Dataset) -> list[str]:
    """Return a warning if there are too few test rows to compute scores."""
    if len(test) >= SCORED:
        return []
    return [
        f"Found {len(test)} test rows, but scores of samples need {SCORED}; some scores will be missing or have no "
        "interval, each with a reason; import more rows, or use a larger --test-share"
    ]


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
