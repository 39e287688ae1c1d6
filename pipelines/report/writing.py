"""Write the leaderboard, plots, datasheets and the report from the stored results only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.progress import progress, substeps
from postprior.pipelines.publishing import write_bytes, write_text
from postprior.pipelines.report import pairs
from postprior.pipelines.report.cells import cells_of
from postprior.pipelines.report.datasheet import datasheet
from postprior.pipelines.report.figures import Mark
from postprior.pipelines.report.gallery import Pictures, code_points, pictures
from postprior.pipelines.report.leaderboard import as_csv, leaderboard
from postprior.pipelines.report.page import Plot, facts, hashes, render, settings
from postprior.pipelines.report.plots import figures, marks
from postprior.pipelines.report.results import Results, read_results
from postprior.pipelines.report.shareable import (
    drawn,
    frequent_labels,
    of_synthetic,
    without_real,
    without_rows,
    without_sources,
)
from postprior.pipelines.report.summary import summary, summary_table
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import write_json


def write_report(
    params: Params,
    root: Path,
    names: Sequence[str] = (),
    others: Mapping[str, str] | None = None,
    shareable: bool = False,
) -> None:
    """Write results/summary.{json,csv}, results/comparison.csv, results/plots, datasheets and results/report.html.

    Args:
        params: the settings; their densities are compared.
        root: the folder of the project.
        names: the densities if they were chosen, instead of those in params.yaml.
        others: additional results by label: folders of other projects, Git revisions or DVC experiments.
        shareable: whether to write results/report-shareable.html too, a page without real rows.
    """
    project = Project(root)
    titles = {m.name: m.title for m in project.synthetic(params.densities[0]).modalities}
    files, results = project.results, read_results(params, root, others, names, titles)
    looks = marks([*params.densities, *(row.name for row in results.rows)])
    with progress("compare", 4) as step:
        cells = cells_of(params, project, results)
        drawings = figures(results, looks, code_points(params, project), cells)
        every = [figure for group in drawings.values() for figure in group]
        plots = {figure.name: Plot.of(figure) for figure in substeps(every, len(every))}
        step("figures")
        write_plots(files.plots, plots.values(), results)
        write_text(files.comparison, as_csv(*leaderboard(results)))
        write_text(files.summary_table, as_csv(*summary_table(results)))
        write_json(files.summary, summary(results), sort_keys=False)
        for name in params.densities:
            text = datasheet(results.row(name), results, params, project.synthetic(name))
            write_text(files.datasheets / f"{name}.md", text)
        step("datasheets")
        gallery, key_facts = pictures(params, project), facts(params, results)
        step("pictures")
        details = {"Settings": settings(params), "Hashes": hashes(params, project)}
        write_text(
            files.page,
            render(results, looks, gallery, drawings, plots, key_facts, details, params.densities, cells=cells),
        )
        if shareable:
            write_text(files.shareable_page, shareable_page(params, project, results, looks, gallery, plots))
        step("page")


def shareable_page(
    params: Params,
    project: Project,
    results: Results,
    looks: Mapping[str, Mark],
    gallery: Pictures,
    plots: Mapping[str, Plot],
) -> str:
    """Return the page without real rows, from what the default page shows; equal figures are not drawn again."""
    shared = without_rows(results)
    cells = cells_of(params, project, shared, shareable=True)
    drawings = figures(shared, looks, cells=cells)
    details = {
        "Settings": without_sources(settings(params)),
        "Hashes": of_synthetic(hashes(params, project), project),
    }
    return render(
        shared,
        looks,
        without_real(gallery, shared, frequent_labels(project)),
        drawings,
        drawn(drawings, plots),
        facts(params, shared),
        details,
        cells=cells,
        shareable=True,
    )


def write_plots(folder: Path, plots: Iterable[Plot], results: Results) -> None:
    """Write every figure as a picture and as the table of its values, and the table of paired tests."""
    for plot in plots:
        write_bytes(folder / f"{plot.figure.name}.png", plot.light)
        write_text(folder / f"{plot.figure.name}.csv", as_csv(plot.figure.header, plot.figure.table))
    if results.pairs:
        write_text(folder / "paired.csv", as_csv(pairs.COLUMNS, map(astuple, results.pairs)))
