"""Stage `compare`: the leaderboard as a table, plots and one page, from the results in files alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipelines.config import REFERENCE_ROWS, Params, check_rows, leaves
from pipelines.dataset import Dataset
from pipelines.errors import UserError
from pipelines.report.gallery import Sheet, sheet, sheet_of
from pipelines.report.page import FIT, Plot, render
from pipelines.report.plots import comparison, conditional, foundations, marks
from pipelines.report.results import HEADLINES, METRICS, Estimate, Results, Row, read_results
from pipelines.storage import folder_hash, load_artefact, publish, write_text
from pipelines.tracking import track

TRANSLATION = (
    "Missing modalities of held-out rows, generated from those observed. The plain posterior is the autoencoder's own, "
    "under its prior; a density in its place chooses among draws of it, and draws private codes where there are any. "
    "Differences are paired: the same rows, observed modalities and posterior draws."
)
TRANSLATED = ("conditional_coherence", "conditional_gain")
PARTS = ("value", "low", "high")


def compare(params: Params, root: Path, names: Sequence[str] = ()) -> None:
    """Write results/comparison.csv, results/plots and results/report.html, of some densities (none: of `densities`)."""
    if names:
        check_rows(params, names, "NAME")
        params = params.model_copy(update={"densities": tuple(names)})
    results = read_results(params, root)
    looks = marks(params.densities)
    with track("compare", params, root):
        compared = [Plot.of(figure) for figure in comparison(results, looks)]
        translated = [Plot.of(figure) for figure in conditional(results, looks)]
        founded = [Plot.of(figure) for figure in foundations(results)]
        with publish(root / "results/plots") as folder:
            for plot in (*compared, *translated, *founded):
                (folder / f"{plot.figure.name}.png").write_bytes(plot.light)
                (folder / f"{plot.figure.name}.csv").write_text(table(plot.figure.header, plot.figure.table))
        write_text(root / "results/comparison.csv", table(*leaderboard(results)))
        groups = {
            "Coherence and distance": (
                "The two headline scores at once, and the distance by modality.",
                compared[:2],
            ),
            "Every score": ("All rows with 95 % intervals, in the order of the leaderboard.", compared[2:]),
            "Modalities from modalities": (TRANSLATION, translated),
            "What it rests on": (_autoencoder(results), founded),
        }
        tables = {"Settings": settings(params), "Hashes": hashes(params, root)}
        page = render(results, looks, sheets(params, root), groups, facts(params, results), tables)
        write_text(root / "results/report.html", page)


def leaderboard(results: Results) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and lines of comparison.csv: one line a row of the leaderboard, three columns a score."""
    columns: list[tuple[str, ...]] = [(metric.key,) for metric in METRICS]
    columns += [(group, key) for group in ("gap_closed", "difference_to_normal") for key in HEADLINES]
    columns += [(group, str(n)) for group in TRANSLATED for n in results.posterior.by_size(TRANSLATED[0])]
    columns += [column.keys for column in FIT]
    header = ["row", *("_".join([*keys, *suffix]) for keys in columns for suffix in ([], ["low"], ["high"]))]

    def line(row: Row) -> list[Any]:
        estimates = [row.estimate(*keys) for keys in columns]
        return [row.name, *(getattr(estimate, part, None) for estimate in estimates for part in PARTS)]

    return header, (line(row) for row in results.rows)


def table(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """CSV with a header; what is not known is empty."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return content.getvalue()


def sheets(params: Params, root: Path) -> dict[str, Sheet]:
    """Pictures of the first samples of every row, where there are images."""
    sets = {name: Dataset.load(root / "artefacts/synthetic" / name) for name in params.densities}
    first = next(iter(sets.values()))
    arrays = load_artefact(root / "artefacts/reference", "reference").arrays
    found = {name: sheet_of(dataset) for name, dataset in sets.items()}
    for row in REFERENCE_ROWS:
        data = {
            m.name: arrays[name] for m in first.modalities if (name := f"gallery.{row}.{m.name}") in arrays
        }
        found[row] = sheet(first.modalities, data, arrays.get(f"labels.{row}"), first.label_names)
    return {name: pictures for name, pictures in found.items() if pictures is not None}


def settings(params: Params) -> list[tuple[str, str]]:
    """The settings that led here, by dotted key."""
    return [
        (key, "null" if value is None else str(value))
        for key, value in leaves(params.chosen(params.densities))
    ]


def hashes(params: Params, root: Path) -> Iterator[tuple[str, str]]:
    """The identities of the artefacts behind the results."""
    names = ["autoencoder", "judges", "reference"]
    names += [f"{kind}/{name}" for kind in ("densities", "synthetic") for name in params.densities]
    for name in names:
        with suppress(UserError):
            yield f"artefacts/{name}", folder_hash(root / "artefacts" / name)[:16]


def facts(params: Params, results: Results) -> list[str]:
    """What was compared, in a few words each."""
    return [
        f"model {params.vae.model}, {params.vae.latent} latent dimensions",
        f"data {params.data.source}",
        f"{results.densities[0].scores['samples']} samples scored a row",
        f"{params.evaluate.resamples} half-samples behind every interval",
    ]


def _autoencoder(results: Results) -> str:
    """What is known of the autoencoder beside the figures."""
    known = results.autoencoder
    error, accuracy = Estimate.of(known.get("reconstruction_error")), Estimate.of(known.get("accuracy"))
    told = ["The autoencoder, whose decoders every density shares, and the judges that read its images."]
    if error and accuracy:
        told.append(
            f"Reconstructions of held-out rows have a mean squared error of {error.value:.4f} and are read "
            f"rightly in {100 * accuracy.value:.1f} %."
        )
    if likelihood := Estimate.of(known.get("log_evidence")):
        told.append(
            f"The log-likelihood of held-out rows, by importance sampling, is {likelihood.value:.0f} nats "
            f"[{likelihood.low:.0f}, {likelihood.high:.0f}]."
        )
    if (dead := known.get("dead_dimensions")) is not None:
        told.append(f"Latent dimensions that carry nothing: {dead}.")
    return " ".join(told)
