"""`postprior upgrade`: bring a project of an earlier version up to date."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postprior.pipelines.api.repository import DVC_IGNORE, DVC_IGNORED, PLOTS_PAGE, plots_page
from postprior.pipelines.artefacts.project import MOVED
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_text
from postprior.pipelines.settings.checks import parse_params
from postprior.pipelines.settings.renames import SETTINGS, STAGES, renamed
from postprior.pipelines.settings.round_trip import TEMPLATES, in_flow_style, read_tree, template, yaml_text
from postprior.pipelines.settings.yaml_text import read_yaml

OPEN = ("data", "density", "vae.options")
"""Sections whose entries the user chooses; none is added."""


@dataclass(frozen=True)
class Upgrade:
    """What an upgrade changes in a project."""

    root: Path
    old: Mapping[str, str]  # the text of each file; empty if there is none
    new: Mapping[str, str]
    moves: Mapping[Path, Path]  # from the root

    @classmethod
    def of(cls, root: Path) -> "Upgrade":
        """Compare the files of a project with those of this version; nothing is written.

        Raises:
            UserError: a file is missing or not valid YAML, or params.yaml is not valid after the upgrade.
        """
        if missing := next((name for name in TEMPLATES if not (root / name).is_file()), None):
            raise UserError(f"{root / missing}: found no such file, expected the folder of a project; give its path")
        contents = {name: read_yaml(root / name) for name in TEMPLATES}  # refuses what is no YAML, or too large
        for name, content in contents.items():
            if not isinstance(content, Mapping):
                raise UserError(f"{root / name}: found no sections, expected the {name} of a project")
        settings, stages = contents["params.yaml"], contents["dvc.yaml"].get("stages") or {}
        if both := next((name for name, new in SETTINGS.items() if name in settings and new in settings), None):
            raise UserError(
                f"{root / 'params.yaml'}: found both {both} and {SETTINGS[both]}, two names of one section, "
                f"expected one; remove {both}"
            )
        if not isinstance(stages, Mapping) or not all(isinstance(stage, Mapping) for stage in stages.values()):
            raise UserError(
                f"{root / 'dvc.yaml'}: found stages that are no sections, expected stages of DVC; correct it"
            )
        defaults = parse_params(renamed(settings), "params.yaml").model_dump(mode="json")
        old = {name: (root / name).read_text(encoding="utf-8") for name in TEMPLATES}
        params, pipeline = (read_tree(text) for text in old.values())
        new = {"params.yaml": _params(params, defaults), "dvc.yaml": _pipeline(pipeline)}
        likes = {"params.yaml": old["params.yaml"], "dvc.yaml": template("dvc.yaml")}
        texts = {name: yaml_text(tree, likes[name]) for name, tree in new.items()}
        if (root / ".dvc").is_dir() and not (root / DVC_IGNORE).exists():  # without it, git would store DVC's cache
            old[str(DVC_IGNORE)], texts[str(DVC_IGNORE)] = "", DVC_IGNORED
        if (root / ".dvc").is_dir():
            for name, text in plots_page(root).items():
                old[name] = (root / name).read_text(encoding="utf-8") if (root / name).exists() else ""
                texts[name] = text
        moves = {a: b for a, b in MOVED.items() if (root / a).exists() and not (root / b).exists()}
        return cls(root, old, texts, moves)

    def lines(self) -> list[str]:
        """Return the difference that `write` makes, as a unified diff and one line per move; none without a change."""
        lines: list[str] = []
        for name in self.new:
            sides = self.old[name].splitlines(), self.new[name].splitlines()
            if name == str(PLOTS_PAGE):  # too long to show
                lines += [f"write {name}, the page of `dvc plots`"] if sides[0] != sides[1] else []
                continue
            lines += difflib.unified_diff(*sides, name, f"{name} (upgraded)", lineterm="")
        return lines + [f"move {a} → {b}" for a, b in self.moves.items()]

    def write(self) -> None:
        """Make the changes. After an interruption, a second upgrade makes those that are left."""
        for old, new in self.moves.items():
            (self.root / old).rename(self.root / new)
        for name in reversed(list(self.new)):
            if self.new[name] != self.old[name]:
                write_text(self.root / name, self.new[name])


def _params(tree: Any, defaults: Mapping[str, Any]) -> Any:
    """The settings under their current names, with the default of each setting that is new."""
    for old, new in SETTINGS.items():
        if old in tree and new not in tree:
            _rename(tree, old, new)
    _complete(tree, read_tree(template("params.yaml")), defaults)
    return tree


def _complete(tree: Any, current: Any, defaults: Mapping[str, Any], path: str = "") -> None:
    """Add the settings that the current file has and the tree lacks, with their comments."""
    for place, name in enumerate(current):
        key = f"{path}{name}"
        if name not in tree:
            tree.insert(min(place, len(tree)), name, in_flow_style(defaults[name]))
            if comment := current.ca.items.get(name):
                tree.ca.items[name] = comment
        elif key not in OPEN and isinstance(current[name], Mapping) and isinstance(tree[name], Mapping):
            _complete(tree[name], current[name], defaults[name], f"{key}.")


def _pipeline(tree: Any) -> Any:
    """This version's pipeline, with the stages, data and entries that the user added."""
    pipeline = read_tree(template("dvc.yaml"))
    stages = tree.get("stages") or {}
    prepare = (stages.get("prepare") or {}).get("deps") or []
    pipeline["stages"]["prepare"]["deps"] += [path for path in prepare if str(path).startswith("${data.")]
    for name, stage in stages.items():
        if name not in pipeline["stages"] and name not in STAGES:
            pipeline["stages"][name] = stage
    for name, entry in tree.items():
        if name not in pipeline:
            pipeline[name] = entry
    return pipeline


def _rename(tree: Any, old: str, new: str) -> None:
    """Rename a key of a mapping; its place and comments stay."""
    place, comments = list(tree).index(old), tree.ca.items.pop(old, None)
    tree.insert(place, new, tree.pop(old))
    if comments is not None:
        tree.ca.items[new] = comments
