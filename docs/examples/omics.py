"""Multi-omics counts: impute a modality that half of the cells lack, and compare with the known truth.

    pip install 'postprior[omics]'
    python docs/examples/omics.py     # [--out FOLDER]

The script simulates cells, writes a .h5mu file without the missing modalities, imputes these with the commands of
postprior, and prints the results of docs/examples/omics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import FEATURES, Cells, draw_counts, read_h5mu, simulate, write_h5mu
from steps import parser, postprior, publish, trained

from postprior import Dataset
from postprior.pipelines.generation.imputation import HiddenValues
from postprior.pipelines.metrics.features.scale import Scale
from postprior.pipelines.metrics.imputation.imputers import NEIGHBOURS, FillBlock, Imputer, Iterative, Mean, Neighbours
from postprior.pipelines.metrics.imputation.scores import by_row, compared, covered, estimated
from postprior.pipelines.metrics.statistics.intervals import half_samples

DENSITY = "gmm"
DRAWS = 39
"""Number of imputations per cell: their 90 % interval excludes the two least and the two greatest."""
OURS, TRUTH = "postprior", "the true distribution"
AVERAGES = {"correlation": np.median, "coverage": np.mean}
"""How the scores of single features are averaged."""
Values = np.ndarray[Any, np.dtype[Any]]
Scores = dict[str, dict[str, Any]]


def intact(path: Path, cells: Cells, names: Values) -> bool:
    """Whether a .h5mu file has all modalities of these cells, and their observed counts unchanged."""
    rows = cells.places(names)
    for name, stored in read_h5mu(path).items():
        counts = np.stack([stored[cell] for cell in names])
        has = cells.has[name][rows]
        if not np.array_equal(counts[has], cells.counts[name][rows][has]):
            return False
    return True


def counts_in(scale: Scale, features: Values) -> Values:
    """Return counts (…, F) from features, which are their scaled logarithms."""
    log = features / scale.factor.numpy() + scale.mean.numpy()
    return np.rint(np.expm1(log)).clip(0)


def features_of(scale: Scale, counts: Values) -> Values:
    """Return the scaled logarithms of counts (…, F)."""
    return (np.log1p(counts) - scale.mean.numpy()) * scale.factor.numpy()


def drawn_from(draws: Mapping[str, Values], scales: Sequence[Scale]) -> FillBlock:
    """Return draws of all counts (R, n, F_m) by modality in the form that the scores need; the guess is their mean."""

    def filled(block: int, rows: Values) -> tuple[Values, Values]:
        features = features_of(scales[block], draws[scales[block].modality.name][:, rows])
        return features, features.mean(0)

    return filled


def baselines(task: HiddenValues, train: Dataset, rng: np.random.Generator) -> dict[str, FillBlock]:
    """Impute the same cells with the imputers of scikit-learn, trained on the same training cells."""
    rows = train.select(np.arange(len(train)))
    learned = np.concatenate(replace(task, original=rows).features(rows, missing_as_nan=True), 1)
    known = np.concatenate(task.features(task.incomplete, missing_as_nan=True), 1)
    widths = [len(scale.source) for scale in task.scales]

    def impute(imputer: Imputer) -> FillBlock:
        return imputer.fit(learned, rng).filled(known, DRAWS, rng)

    near = {k: impute(Neighbours(widths, k)) for k in NEIGHBOURS if k <= len(rows)}
    best = min(near, key=lambda k: float(np.nanmean(task.scores(near[k])["energy_score"])))
    return {"mean": impute(Mean(widths)), f"{best} nearest": near[best], "iterative": impute(Iterative(widths))}


def correlations(guess: Values, rates: Values) -> Values:
    """Return the correlation of guesses with the logarithms of true rates, both (n, F), per feature: (F,)."""
    x, y = (values - values.mean(0) for values in (guess, np.log1p(rates)))
    varies = np.ptp(guess, 0) > 0
    norm = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.where(varies, (x * y).sum(0) / np.where(varies, norm, 1), 0.0)


def coverage(draws: Values, truth: Values, rng: np.random.Generator) -> Values:
    """Return the share of cells (F,) whose count lies in the 90 % interval of its draws (R, n, F).

    A uniform random number from 0 to 1 is added to each hidden and drawn count, which breaks ties: intervals of whole
    numbers would cover too much.
    """
    jittered = [values + rng.random(values.shape) for values in (draws, truth)]
    return covered(*jittered).mean(0)


def scored(task: HiddenValues, filled: FillBlock, cells: Cells, rows: Values, rng: np.random.Generator) -> Scores:
    """Return the scores of each row, and per modality the correlation and coverage of each feature."""
    by_modality: dict[str, Any] = {}
    for m, (scale, lost) in enumerate(zip(task.scales, task.hidden_features, strict=True)):
        name, hidden = scale.modality.name, np.flatnonzero(lost.any(1))
        draws, guess = filled(m, hidden)
        truth = cells.counts[name][rows[hidden]]
        by_modality[name] = {
            "correlation": correlations(guess, cells.rates[name][rows[hidden]]),
            "coverage": coverage(counts_in(scale, draws), truth, rng),
        }
    return {"rows": task.scores(filled), "modalities": by_modality}


def table(scores: Mapping[str, Scores], weights: Values) -> list[str]:
    """Format the scores of all imputers, and the differences of postprior from the other imputers."""
    heads = [f"{score}, {name}" for name in FEATURES for score in ("correlation ↑", "coverage")]
    lines = [f"| imputer | energy score ↓ | RMSE ↓ | {' | '.join(heads)} | energy score, postprior − imputer |"]
    lines.append("|---" * (len(heads) + 4) + "|")
    for name, row in scores.items():
        estimates = [estimated(by_row(row["rows"][key]), weights, key) for key in ("energy_score", "rmse")]
        cells = [f"{estimate['value']:.3f}" for estimate in estimates]
        for values in row["modalities"].values():
            cells += [f"{average(values[score]):.3f}" for score, average in AVERAGES.items()]
        cells.append("" if name == OURS else difference(scores[OURS], row, weights))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def difference(scores: Scores, other: Scores, weights: Values) -> str:
    """Format the difference of two imputers' energy scores, with its interval."""
    score = compared(scores["rows"], other["rows"], weights)["energy_score"]
    return f"{score['value']:+.3f} [{score['low']:+.3f}, {score['high']:+.3f}]"


def draw_features(path: Path, scores: Mapping[str, Scores]) -> None:
    """Draw the correlation with the true rates and the coverage of each feature, one dot per feature, by imputer."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = [name for name in scores if name not in ("mean", TRUTH)]
    figure, axes = plt.subplots(2, 2, figsize=(8.5, 4.6), sharex="row", layout="constrained")
    rng = np.random.default_rng(0)
    titles = {"correlation": "correlation with true rates", "coverage": "coverage of 90 % intervals"}
    for line, (score, title) in zip(axes, titles.items(), strict=True):
        for axis, modality in zip(line, FEATURES, strict=True):
            for height, name in enumerate(names):
                values = scores[name]["modalities"][modality][score]
                colour = "#0072b2" if name == OURS else "#777777"
                axis.scatter(values, height + 0.3 * rng.random(len(values)) - 0.15, s=9, alpha=0.6, color=colour)
                axis.plot([AVERAGES[score](values)] * 2, [height - 0.3, height + 0.3], color=colour)
            axis.set_yticks(range(len(names)), names)
            axis.set_title(f"{modality}: {title}", loc="left", fontsize=9)
            axis.invert_yaxis()
            axis.spines[["top", "right"]].set_visible(False)
            if score == "coverage":
                axis.axvline(0.9, color="black", linewidth=0.8, linestyle=":")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def draw_cells(path: Path, draws: Mapping[str, Values], cells: Cells, rows: Values) -> None:
    """Draw imputed intervals and means of cells, sorted by true rate, for the feature whose rate varies most."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from postprior.pipelines.metrics.imputation.scores import interval

    figure, axes = plt.subplots(1, len(FEATURES), figsize=(8.5, 3.2), layout="constrained")
    for axis, name in zip(axes, FEATURES, strict=True):
        lacking = np.flatnonzero(~cells.has[name][rows])
        rates = cells.rates[name][rows[lacking]]
        feature = int(np.log(rates).std(0).argmax())
        order = lacking[rates[:, feature].argsort()]
        counts, x = draws[name][:, order, feature], np.arange(len(order))
        low, high = interval(counts)
        axis.vlines(x, low, high, color="#9ec9e2", linewidth=2, label="90 % interval")
        axis.plot(x, counts.mean(0), ".", color="#0072b2", markersize=4, label="mean of the draws")
        axis.plot(
            x,
            cells.counts[name][rows[order], feature],
            "x",
            color="#444444",
            markersize=4,
            label="hidden count",
        )
        axis.plot(x, cells.rates[name][rows[order], feature], color="#d55e00", label="true rate")
        axis.set(xlabel="cells that lack it, by true rate", ylabel="count")
        axis.set_title(f"{name}{feature:02}", loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def imputed(out: Path, epochs: int | None) -> list[Dataset]:
    """Import the .h5mu file, return the imputations of its test cells, and export the first one as a .h5mu file."""
    postprior("import", out / "cells.h5mu", out / "data", "--label", "kind")
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", DENSITY, {"train.epochs": epochs})
    flags = "--draws", DRAWS, "--values", "draws"
    postprior("impute", DENSITY, out / "data/test", out / "imputed", *flags, *params)
    postprior("export", out / "imputed/1", out / "exported")
    return [Dataset.load(out / "imputed" / str(draw + 1)) for draw in range(DRAWS)]


def to_score(cells: Cells, train: Dataset, hidden: Dataset, rows: Values) -> HiddenValues:
    """Return the task that scores imputations of the simulated cells at `rows`, which are observed as in `hidden`."""
    complete = replace(hidden, data={name: cells.counts[name][rows] for name in FEATURES}, mask=None)
    scales = tuple(Scale.fit(train, m) for m in train.modalities)
    lost = tuple(~np.repeat(hidden.observed[:, [m]], len(s.source), 1) for m, s in enumerate(scales))
    return HiddenValues(complete, hidden, scales, lost, np.arange(len(hidden)))


def observed_counts_unchanged(test: Dataset, imputations: Sequence[Dataset]) -> bool:
    """Whether the observed counts are unchanged in all imputations."""
    observed = {m.name: has for m, has in zip(test.modalities, test.observed.T, strict=True)}
    pairs = (
        (imputation.data[name][has], test.data[name][has])
        for imputation in imputations
        for name, has in observed.items()
    )
    return all(np.array_equal(*pair) for pair in pairs)


def run(out: Path, figures: Path, n: int, epochs: int | None) -> tuple[list[str], dict[str, Scores]]:
    """Run the example from the simulation to the figures; return the lines of the page, and the scores by imputer."""
    rng = np.random.default_rng(0)
    cells = simulate(n, rng)
    write_h5mu(out / "cells.h5mu", cells)
    imputations = imputed(out, epochs)
    train, test = (Dataset.load(out / "data" / split) for split in ("train", "test"))
    lacking = np.flatnonzero(~test.observed.all(1))
    hidden = test.select(lacking)
    rows = cells.places(hidden.ids)
    task = to_score(cells, train, hidden, rows)
    draws = {name: np.stack([imputation.data[name][lacking] for imputation in imputations]) for name in FEATURES}
    truth = {name: draw_counts(name, cells.rates[name][rows], rng, DRAWS) for name in FEATURES}
    ours, known = (drawn_from(counts, task.scales) for counts in (draws, truth))
    filled = {OURS: ours, **baselines(task, train, rng), TRUTH: known}
    scores = {name: scored(task, draws_of, cells, rows, rng) for name, draws_of in filled.items()}
    figures.mkdir(parents=True, exist_ok=True)
    draw_features(figures / "features.png", scores)
    draw_cells(figures / "cells.png", draws, cells, rows)
    weights = half_samples(hidden.sources, 200, rng, hidden.labels)
    same = observed_counts_unchanged(test, imputations)
    same = same and intact(out / "exported/cells.h5mu", cells, test.ids)
    without = ", ".join(f"{(~cells.has[name][rows]).sum()} {name}" for name in FEATURES)
    lines = [
        f"{n} cells, {len(train)} for training and {len(test)} for test, of which {len(hidden)} lack a modality "
        f"({without}).",
        "",
        *table(scores, weights),
        "",
        f"Observed counts in all {DRAWS} imputations and in the .h5mu file: {'unchanged' if same else 'CHANGED'}.",
    ]
    return lines, scores


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--cells", type=int, default=2000)
    arguments.add_argument("--epochs", type=int, default=None, help="overrides the number that postprior init sets")
    options = arguments.parse_args()
    publish(Path(__file__), options.out, lambda out, figures: run(out, figures, options.cells, options.epochs)[0])


if __name__ == "__main__":
    main()
