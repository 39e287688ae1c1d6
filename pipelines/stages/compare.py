"""Stage `compare`: write the leaderboard, plots, datasheets and the report from the stored results only."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from postprior.pipelines.report.writing import write_report
from postprior.pipelines.settings.checks import check_rows
from postprior.pipelines.settings.params import Params
from postprior.pipelines.tracking.runs import track


def compare(
    params: Params,
    root: Path,
    names: Sequence[str] = (),
    others: Mapping[str, str] | None = None,
    shareable: bool = False,
) -> None:
    """Write the files of `write_report`; `names` are densities to compare, those in params.yaml if empty."""
    if names:
        check_rows(params, names, "NAME")
        params = params.model_copy(update={"densities": tuple(names)})
    with track("compare", params, root):
        write_report(params, root, names, others, shareable)
