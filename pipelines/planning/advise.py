"""The command `advise`: what suits the data, why, what was measured, and how long it takes here. It writes nothing."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from postprior.pipelines.api.choice.alternatives import alternatives
from postprior.pipelines.api.choice.facts import Facts, Rule
from postprior.pipelines.api.choice.rules import choices, settings
from postprior.pipelines.api.init import write_project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data
from postprior.pipelines.data.sources.folders import read_folders
from postprior.pipelines.planning.costs import Estimate, estimates
from postprior.pipelines.planning.workload import measure
from postprior.pipelines.progress import duration
from postprior.pipelines.settings.checks import load_params
from postprior.pipelines.settings.round_trip import TEMPLATES
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.texts import as_text, enumerated

WIDTH = 120
"""Characters of a line where nothing says how many a terminal has."""
TRAINED = ("train-evaluators", "train", "refine")
"""Stages that train networks on rows."""


def is_imported(sources: Sequence[Path]) -> bool:
    """Whether the only source is a folder that `postprior import` wrote."""
    return len(sources) == 1 and (sources[0] / "train" / MANIFEST).exists()


def advise(
    sources: Sequence[Path], roles: Roles | None = None, profile: str = "quick", device: str = "auto"
) -> list[str]:
    """Return lines with the settings that `init` would choose, their reasons and the expected time, and alternatives.

    Args:
        sources: files and folders that `postprior import` reads, or the folder that it wrote.
        roles: of their columns, as for an import.
        profile: of the scores whose time is estimated.
        device: on which training is timed, as `train.device`.

    Raises:
        UserError: a source cannot be imported.
    """
    with TemporaryDirectory(prefix="postprior-") as home:
        root = Path(home)
        folder = sources[0].resolve() if is_imported(sources) else root / "data"
        if not is_imported(sources):
            import_data(sources, folder, roles or Roles())
        splits = read_folders(0, folder, "")
        chosen = {"profile": profile, "train.device": device, **settings(splits)}
        write_project(root, str(folder), chosen)
        facts = Facts.of(splits)
        expected = estimates(measure(load_params(root / TEMPLATES[0]), root))
        return [*_told(splits, facts), *_tables(facts), *_time(expected, device)]


def _told(splits: Mapping[str, Dataset], facts: Facts) -> Iterator[str]:
    """Yield lines with what decides."""
    names = [
        f"{m.title or m.name} ({m.kind} of {size:,})" for m, size in zip(facts.modalities, facts.sizes, strict=True)
    ]
    yield f"modalities, with their numbers of values: {enumerated(names)}"
    labels = f", {facts.labelled:,} with one of {facts.labels} labels" if facts.labels else ", without labels"
    held_out = " and ".join(f"{len(splits[split]):,} for {split}" for split in ("validation", "test"))
    yield f"rows: {facts.rows:,} for training, {facts.complete:,} of them with all modalities{labels}; {held_out}"


def _tables(facts: Facts) -> Iterator[str]:
    """Yield the lines of the table of the settings, and of that of the alternatives."""
    chosen = (
        (rule, f"{rule.choice}; {rule.reason}" if rule.condition else f"{rule.choice}: {rule.reason}")
        for rule in choices(facts)
    )
    yield from _table(("choice of init", "settings", "why", "measured"), facts, chosen)
    others = ((rule, f"{rule.choice}: {rule.reason}") for rule in alternatives(facts))
    yield from _table(("if you want", "settings", "why", "measured"), facts, others)


def _table(header: Iterable[str], facts: Facts, rules: Iterable[tuple[Rule, str]]) -> Iterator[str]:
    """Yield the lines of a table with a row for each rule and its reason, as wide as the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, leading=1)
    for title in header:
        table.add_column(title, overflow="fold")
    for rule, why in rules:
        lines = "\n".join(f"{key}: {as_text(value)}" for key, value in rule.settings(facts).items())
        measured = f"{rule.measured} ({rule.page})" if rule.measured else "not compared"
        cells = (rule.topic, lines, why.replace("`", ""), measured.replace("`", ""))
        table.add_row(*map(Text, cells))
    text = StringIO()
    Console(file=text, width=shutil.get_terminal_size((WIDTH, 0)).columns).print(table)
    yield from (line.rstrip() for line in text.getvalue().splitlines())


def _time(expected: Sequence[Estimate], device: str) -> Iterator[str]:
    """Yield lines with the expected time of all stages, by what they do."""

    def told(holds: Callable[[str], bool]) -> str:
        return duration(sum(estimate.seconds for estimate in expected if holds(estimate.stage)))

    fits = [estimate for estimate in expected if estimate.stage.startswith("fit@")]
    each = ", ".join(f"{fit.stage.partition('@')[2]} {duration(fit.seconds)}" for fit in fits)
    yield f"dvc repro will take about {told(lambda stage: True)} on this machine (train.device: {device}):"
    yield f"  training: {told(TRAINED.__contains__)}"
    yield f"  densities: {each}"
    rest = told(lambda stage: stage not in TRAINED and not stage.startswith("fit@"))
    yield f"  samples, scores and the report: {rest}"
