"""The lines that `postprior plan` prints: every stage, whether it is up to date, and about how long it takes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from postprior.pipelines.planning.costs import Estimate, estimates
from postprior.pipelines.planning.workload import measure
from postprior.pipelines.progress import duration
from postprior.pipelines.settings.params import Params

ALL = "all stages"


def plan(params: Params, root: Path) -> list[str]:
    """Return a table of the stages of a project, in the order of the pipeline, with the total time."""
    return table(estimates(measure(params, root)), out_of_date(root))


def table(expected: Iterable[Estimate], waiting: set[str] | None) -> list[str]:
    """Return the lines of the table; `waiting` are the stages that are out of date, None if this is unknown."""
    expected = list(expected)
    total = sum(estimate.seconds for estimate in expected)
    width = max(len(ALL), *(len(estimate.stage) for estimate in expected))
    lines = [f"{'stage':<{width}}  {'about':>12}  {'share':>5}"]
    for estimate in expected:
        state = "  up to date" if waiting is not None and estimate.stage not in waiting else ""
        share = f"{estimate.seconds / total:.0%}"
        lines.append(f"{estimate.stage:<{width}}  {duration(estimate.seconds):>12}  {share:>5}{state}")
    lines.append(f"{ALL:<{width}}  {duration(total):>12}")
    if waiting is not None:
        left = sum(estimate.seconds for estimate in expected if estimate.stage in waiting)
        lines.append(f"{'to run now':<{width}}  {duration(left):>12}")
    return lines


def out_of_date(root: Path) -> set[str] | None:
    """Return the stages that `dvc repro` would run; None if DVC cannot tell, for example outside of its projects.

    They are the stages that changed, those that always run, and all stages that depend on a changed one. `dvc repro`
    leaves out the latter if their inputs turn out to be the same.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import ancestors

    try:
        with Repo(str(root)) as repo:
            changes, graph = repo.status(), repo.index.graph
            stages = [stage for stage in repo.index.stages if Path(stage.path).parent == root]
    except DvcException:
        return None
    always = {stage for stage in stages if stage.always_changed}
    changed = {stage for stage in stages if stage.addressing in changes} - always
    return {stage.name for stage in always.union(changed, *(ancestors(graph, stage) for stage in changed))}
