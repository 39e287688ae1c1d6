"""Stage `compare`: the leaderboard as a table, plots, datasheets and one page, from the results in files alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.pictures import Sheet, sheet, sheet_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import write_bytes, write_text
from postprior.pipelines.report import pairs
from postprior.pipelines.report.datasheet import datasheet
from postprior.pipelines.report.findings.words import listed
from postprior.pipelines.report.gallery import grid, neighbours
from postprior.pipelines.report.metrics import HEADLINES, METRICS
from postprior.pipelines.report.page import Pictures, Plot, render
from postprior.pipelines.report.plots import groups, marks
from postprior.pipelines.report.results import Results, read_results
from postprior.pipelines.report.rows import INTERVAL, Row
from postprior.pipelines.report.table import FIT, known
from postprior.pipelines.settings.params import REFERENCE_ROWS, Params, check_rows, leaves
from postprior.pipelines.storage import folder_hash, load_artefact
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from postprior.pipelines.metrics.latent.code_map import CodeMap

TRANSLATED = ("conditional_coherence", "conditional_gain")


def compare(
    params: Params, root: Path, names: Sequence[str] = (), others: Mapping[str, str] | None = None
) -> None:
    """Write results/comparison.csv, results/plots, results/datasheets and results/report.html.

    Args:
        params: the settings.
        root: the project's root.
        names: densities; those of params.yaml if none.
        others: more results by label: folders of other projects, revisions of git or experiments of DVC.
    """
    if names:
        check_rows(params, names, "NAME")
        params = params.model_copy(update={"densities": tuple(names)})
    results = read_results(params, root, others, names)
    looks = marks([*params.densities, *(row.name for row in results.rows)])
    with track("compare", params, root):
        shown = list(groups(results, looks, code_points(params, root)))
        plots = {figure.name: Plot.of(figure) for group in shown for figure in group.figures}
        write_plots(root / "results/plots", plots.values(), results)
        write_text(root / "results/comparison.csv", table(*leaderboard(results)))
        write_datasheets(root, params, results)
        told = {"Settings": settings(params), "Hashes": hashes(params, root)}
        page = render(
            results,
            looks,
            pictures(params, root),
            shown,
            plots,
            facts(params, results),
            told,
            params.densities,
        )
        write_text(root / "results/report.html", page)


def write_plots(folder: Path, plots: Iterable[Plot], results: Results) -> None:
    """Every figure as a picture and as the table behind it, and the table of tests between densities."""
    for plot in plots:
        write_bytes(folder / f"{plot.figure.name}.png", plot.light)
        write_text(folder / f"{plot.figure.name}.csv", table(plot.figure.header, plot.figure.table))
    if results.pairs:
        write_text(folder / "paired.csv", table(pairs.COLUMNS, pairs.lines(results.pairs)))


def write_datasheets(root: Path, params: Params, results: Results) -> None:
    """A datasheet beside the synthetic set of every density of this project."""
    for name in params.densities:
        dataset = Dataset.load(root / "artefacts/synthetic" / name)
        text = datasheet(results.row(name), results, params, dataset)
        write_text(root / f"results/datasheets/{name}.md", text)


def leaderboard(results: Results) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and lines of comparison.csv: one line a row of the leaderboard, three columns a score that any row has.

    A fourth says why, where a row lacks the score or its interval and knows.
    """
    columns: dict[str, tuple[str, ...]] = {metric.key: metric.keys for metric in METRICS}
    nested: list[tuple[str, ...]] = []
    for group in ("gap_closed", "difference_to_normal"):
        nested += [(group, key) for key in HEADLINES]
    nested += [(group, str(n)) for group in TRANSLATED for n in results.posterior.by_size(TRANSLATED[0])]
    nested += [column.keys for column in FIT]
    columns |= {"_".join(keys): keys for keys in nested}
    columns = {name: keys for name, keys in columns.items() if known(results.rows, keys)}
    why = {name for name, keys in columns.items() if any(row.why(*keys) for row in results.rows)}
    header = ["row"]
    for name in columns:
        header += [name, f"{name}_low", f"{name}_high", *([f"{name}_why"] if name in why else [])]

    def line(row: Row) -> Iterator[Any]:
        yield row.name
        for name, keys in columns.items():
            estimate = row.estimate(*keys)
            yield from (getattr(estimate, part, None) for part in INTERVAL)
            if name in why:
                yield row.why(*keys) or None

    return header, (list(line(row)) for row in results.rows)


def table(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV with a header; what is not known is empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return content.getvalue()


def code_points(params: Params, root: Path) -> CodeMap | None:
    """The map of training, held-out and drawn codes; None without codes of two rows, or of a single dimension."""
    codes = root / "artefacts/codes"
    if not codes.exists():
        return None
    from postprior.pipelines.artefacts.codes import Complete, load_codes
    from postprior.pipelines.metrics.latent.code_map import MOST, chosen, code_map

    train, held_out = (Complete(load_codes(codes / split)).means for split in ("train", "test"))
    if train.shape[1] < 2 or len(train) < 2:
        return None
    folders = {name: root / "artefacts/densities" / name for name in params.densities}
    drawn = {name: codes_drawn(folder, MOST, params.seed) for name, folder in folders.items()}
    train, held_out = (means[chosen(len(means), params.seed)] for means in (train, held_out))
    return code_map(train, held_out, drawn, params.compare.map, params.seed)


def codes_drawn(folder: Path, number: int, seed: int) -> np.ndarray:
    """So many codes (n, D) of a fitted density."""
    from postprior.pipelines.artefacts.density import load_density
    from postprior.pipelines.generation.generator import drawn_codes
    from postprior.pipelines.generation.request import Request

    return drawn_codes(load_density(folder), Request(number, seed)).loc[:, 0].numpy()


def pictures(params: Params, root: Path) -> Pictures:
    """Samples of every row, samples beside their neighbours, and modalities generated from parts."""
    folder = root / "artefacts"
    sets = {name: Dataset.load(folder / "synthetic" / name) for name in params.densities}
    first = next(iter(sets.values()))
    samples = {name: sheet_of(dataset) for name, dataset in sets.items()}
    arrays = load_artefact(folder / "reference", "reference").arrays
    for row in REFERENCE_ROWS:
        data = {m.name: arrays[key] for m in first.modalities if (key := f"gallery.{row}.{m.name}") in arrays}
        if data:
            samples[row] = sheet(first.modalities, data, arrays.get(f"labels.{row}"), first.label_names)
    near = {name: neighbours(folder / "privacy" / name, first.modalities) for name in sets}
    parts = {name: grid(folder / "evaluation" / name, first.modalities) for name in sets}
    return Pictures(_drawn(samples), _drawn(near), _drawn(parts))


def _drawn(sheets: Mapping[str, Sheet | None]) -> dict[str, Sheet]:
    return {name: sheet for name, sheet in sheets.items() if sheet is not None}


def settings(params: Params) -> list[tuple[str, str]]:
    """The settings that led here, by dotted key."""
    return [(key, _spelt(value)) for key, value in leaves(params.chosen(params.densities))]


def _spelt(value: Any) -> str:
    """A value as params.yaml has it, a list without its brackets."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_spelt, value)) or "none"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def hashes(params: Params, root: Path) -> Iterator[tuple[str, str]]:
    """The identities of the artefacts behind the results."""
    names = ["autoencoder", "judges", "reference"]
    names += [f"{kind}/{name}" for kind in ("densities", "synthetic") for name in params.densities]
    for name in names:
        with suppress(UserError):
            yield f"artefacts/{name}", folder_hash(root / "artefacts" / name)[:16]


def facts(params: Params, results: Results) -> list[str]:
    """What was compared, in a few words each."""
    told = [
        f"model {params.vae.model}, {params.vae.latent} latent dimensions",
        f"data {params.data.source}",
        f"{results.row(params.densities[0]).scores['samples']} samples scored a row",
        f"{params.evaluate.resamples} half-samples behind every interval",
    ]
    if others := list(dict.fromkeys(row.source for row in results.rows if row.source)):
        told.append(f"beside {listed(others)}")
    return told
