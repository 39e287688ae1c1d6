"""The last line of a stage's command: what it wrote, and what comes next. The pipeline in dvc.yaml has both.

No slow module is imported before a stage has run.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from postprior.pipelines.texts import tell


def tell_stage(stage: str, root: Path, item: str = "") -> None:
    """Tell the outputs of a stage, as dvc.yaml has them, and the command of the stage that reads them first.

    Under DVC, which runs the next stage itself, only the outputs are told. After the last stage, it is the report.
    The lines are on stderr, beside the progress: a stage whose work is done does not fail on a log that is full.

    Args:
        stage: name in dvc.yaml.
        root: folder of the project.
        item: the density or the number of rows that the stage has worked on.
    """
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.settings.round_trip import template
    from postprior.pipelines.settings.yaml_text import parse_yaml

    stages: Mapping[str, Any] = parse_yaml(template("dvc.yaml"), "dvc.yaml")["stages"]
    outputs = [Path(path) for path in _filled(_paths(stages[stage]["outs"]), item)]
    shown = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    tell(f"{stage}: wrote {', '.join(str(shown / path) for path in outputs)}", err=True)
    after = list(stages)[list(stages).index(stage) + 1 :]
    reader = next((name for name in after if _reads(stages[name], outputs, item)), None)
    if reader is None:
        tell(f"The report: {Project(shown).results.page}", err=True)
    elif "DVC_STAGE" not in os.environ:
        known = item if stages[reader].get("matrix") == stages[stage].get("matrix") else ""
        tell(f"Go on with: {_filled([stages[reader]['cmd']], known or 'NAME')[0]}", err=True)


def tell_written(out: Path, what: str, follow: str) -> None:
    """Tell what a command wrote outside the pipeline, and what to do with it."""
    tell(f"{out}: {what}", f"Go on with: {follow}")


def _paths(outputs: Iterable[Any]) -> list[str]:
    """Return the paths of outputs, which may have options."""
    return [path for output in outputs for path in (output if isinstance(output, Mapping) else [output])]


def _filled(texts: Iterable[str], item: str) -> list[str]:
    """Put the item of a matrix into texts."""
    return [text.replace("${item.density}", item).replace("${item.size}", item) for text in texts]


def _reads(stage: Mapping[str, Any], outputs: Iterable[Path], item: str) -> bool:
    """Whether a stage depends on one of the outputs, on a part of it, or on a folder in which it lies."""
    read = [Path(path) for path in _filled(stage.get("deps", []), item)]
    return any(a.is_relative_to(b) or b.is_relative_to(a) for a in read for b in outputs)
