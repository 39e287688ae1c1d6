"""Multi-omics counts: cells of which half lack one of two modalities, completed and set against the known truth.

    pip install 'postprior[omics]'
    python docs/examples/omics.py     # [--out FOLDER]

Simulates cells, writes them as a .h5mu file without what they lack, imputes it with the commands of the product, and
prints what docs/examples/omics.md tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cells import FEATURES, Cells, law, read_h5mu, simulate, write_h5mu
from steps import parser, postprior, publish, trained

from postprior import Dataset
from postprior.pipelines.generation.imputation import HiddenValues
from postprior.pipelines.metrics.features.scale import Scale
from postprior.pipelines.metrics.imputation.imputers import NEIGHBOURS, FillBlock, Imputer, Iterative, Mean, Neighbours
from postprior.pipelines.metrics.imputation.scores import by_row, compared, covered, estimated
from postprior.pipelines.metrics.statistics.intervals import half_samples

DENSITY = "gmm"
DRAWS = 39
"""Imputations of every cell: their interval of 90 % leaves out the two least and the two greatest."""
OURS, LAW = "postprior", "the true law"
AVERAGES = {"correlation": np.median, "coverage": np.mean}
"""Of the scores of single features."""
Values = np.ndarray[Any, np.dtype[Any]]
Scores = dict[str, dict[str, Any]]


def intact(path: Path, cells: Cells, names: Values) -> bool:
    """Whether a .h5mu file has all modalities of these cells, and the counts that were there as they were."""
    rows = cells.places(names)
    for name, found in read_h5mu(path).items():
        counts = np.stack([found[cell] for cell in names])
        has = cells.has[name][rows]
        if not np.array_equal(counts[has], cells.counts[name][rows][has]):
            return False
    return True


def counts_in(scale: Scale, features: Values) -> Values:
    """Counts (…, F) whose scaled logarithms are these features."""
    log = features / scale.factor.numpy() + scale.mean.numpy()
    return np.rint(np.expm1(log)).clip(0)


def features_of(scale: Scale, counts: Values) -> Values:
    """Scaled logarithms of counts (…, F)."""
    return (np.log1p(counts) - scale.mean.numpy()) * scale.factor.numpy()


def drawn_from(draws: Mapping[str, Values], scales: Sequence[Scale]) -> FillBlock:
    """Draws of all counts (R, n, F_m) by modality, as the scores take them; the guess is their mean."""

    def filled(block: int, some: Values) -> tuple[Values, Values]:
        features = features_of(scales[block], draws[scales[block].modality.name][:, some])
        return features, features.mean(0)

    return filled


def rivals(task: HiddenValues, train: Dataset, rng: np.random.Generator) -> dict[str, FillBlock]:
    """What scikit-learn's imputers make of the same cells, from the same training cells."""
    rows = train.select(np.arange(len(train)))
    learned = np.concatenate(replace(task, original=rows).features(rows, missing_as_nan=True), 1)
    known = np.concatenate(task.features(task.incomplete, missing_as_nan=True), 1)
    widths = [len(scale.source) for scale in task.scales]

    def of(imputer: Imputer) -> FillBlock:
        return imputer.fit(learned, rng).filled(known, DRAWS, rng)

    near = {k: of(Neighbours(widths, k)) for k in NEIGHBOURS if k <= len(rows)}
    best = min(near, key=lambda k: float(np.nanmean(task.scores(near[k])["energy_score"])))
    return {"mean": of(Mean(widths)), f"{best} nearest": near[best], "iterative": of(Iterative(widths))}


def correlations(guess: Values, rates: Values) -> Values:
    """The correlation of guesses with the logarithms of true rates, both (n, F), a feature each: (F,)."""
    x, y = (values - values.mean(0) for values in (guess, np.log1p(rates)))
    varies = np.ptp(guess, 0) > 0
    norm = np.sqrt((x**2).sum(0) * (y**2).sum(0))
    return np.where(varies, (x * y).sum(0) / np.where(varies, norm, 1), 0.0)


def coverage(draws: Values, truth: Values, rng: np.random.Generator) -> Values:
    """The share of cells (F,) whose count lies in the 90 % interval of its draws (R, n, F), ties broken at random.

    A number from 0 to 1 is added to every count, hidden and drawn: intervals of whole numbers hold too much without.
    """
    spread = [values + rng.random(values.shape) for values in (draws, truth)]
    return covered(*spread).mean(0)


def scored(task: HiddenValues, filled: FillBlock, cells: Cells, rows: Values, rng: np.random.Generator) -> Scores:
    """Scores of every row, and by modality the correlation and coverage of every feature."""
    by_modality: dict[str, Any] = {}
    for m, (scale, lost) in enumerate(zip(task.scales, task.hidden_features, strict=True)):
        name, some = scale.modality.name, np.flatnonzero(lost.any(1))
        draws, guess = filled(m, some)
        truth = cells.counts[name][rows[some]]
        by_modality[name] = {
            "correlation": correlations(guess, cells.rates[name][rows[some]]),
            "coverage": coverage(counts_in(scale, draws), truth, rng),
        }
    return {"rows": task.scores(filled), "modalities": by_modality}


def table(found: Mapping[str, Scores], weights: Values) -> list[str]:
    """The scores of all imputers, and how ours differ from the others'."""
    heads = [f"{of}, {name}" for name in FEATURES for of in ("correlation ↑", "coverage")]
    lines = [f"| imputer | energy score ↓ | error ↓ | {' | '.join(heads)} | energy score, ours less theirs |"]
    lines.append("|---" * (len(heads) + 4) + "|")
    for name, of in found.items():
        cells = [f"{estimated(by_row(of['rows'][key]), weights, key)['value']:.3f}" for key in ("energy_score", "rmse")]
        for values in of["modalities"].values():
            cells += [f"{average(values[score]):.3f}" for score, average in AVERAGES.items()]
        cells.append("" if name == OURS else difference(found[OURS], of, weights))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def difference(ours: Scores, theirs: Scores, weights: Values) -> str:
    found = compared(ours["rows"], theirs["rows"], weights)["energy_score"]
    return f"{found['value']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def draw_features(path: Path, found: Mapping[str, Scores]) -> None:
    """The correlation with the true rates and the coverage of every feature, a dot each, by imputer."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    names = [name for name in found if name not in ("mean", LAW)]
    figure, axes = plt.subplots(2, 2, figsize=(8.5, 4.6), sharex="row", layout="constrained")
    rng = np.random.default_rng(0)
    titles = {"correlation": "correlation with true rates", "coverage": "coverage of 90 % intervals"}
    for line, (score, title) in zip(axes, titles.items(), strict=True):
        for axis, modality in zip(line, FEATURES, strict=True):
            for height, name in enumerate(names):
                values = found[name]["modalities"][modality][score]
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
    """Imputed intervals and means of cells, in the order of their true rates, for the feature that varies most."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    from postprior.pipelines.metrics.imputation.scores import interval

    figure, axes = plt.subplots(1, len(FEATURES), figsize=(8.5, 3.2), layout="constrained")
    for axis, name in zip(axes, FEATURES, strict=True):
        some = np.flatnonzero(~cells.has[name][rows])
        rates = cells.rates[name][rows[some]]
        feature = int(np.log(rates).std(0).argmax())
        order = some[rates[:, feature].argsort()]
        of, x = draws[name][:, order, feature], np.arange(len(order))
        low, high = interval(of)
        axis.vlines(x, low, high, color="#9ec9e2", linewidth=2, label="90 % interval")
        axis.plot(x, of.mean(0), ".", color="#0072b2", markersize=4, label="mean of the draws")
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
    """From the .h5mu file to the imputations of its test cells, and to a .h5mu file of the first of them."""
    postprior("import", out / "cells.h5mu", out / "data", "--label", "kind")
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", DENSITY, {"train.epochs": epochs})
    how = "--draws", DRAWS, "--values", "draws"
    postprior("impute", DENSITY, out / "data/test", out / "imputed", *how, *params)
    postprior("export", out / "imputed/1", out / "exported")
    return [Dataset.load(out / "imputed" / str(draw + 1)) for draw in range(DRAWS)]


def to_score(cells: Cells, train: Dataset, hidden: Dataset, rows: Values) -> HiddenValues:
    """Simulated cells, of which `hidden` has those at `rows`, as what their imputations are scored by."""
    whole = replace(hidden, data={name: cells.counts[name][rows] for name in FEATURES}, mask=None)
    scales = tuple(Scale.fit(train, m) for m in train.modalities)
    lost = tuple(~np.repeat(hidden.observed[:, [m]], len(s.source), 1) for m, s in enumerate(scales))
    return HiddenValues(whole, hidden, scales, lost, np.arange(len(hidden)))


def kept(test: Dataset, made: Sequence[Dataset]) -> bool:
    """Whether imputations have the counts that were there as they were."""
    where = {m.name: has for m, has in zip(test.modalities, test.observed.T, strict=True)}
    pairs = ((each.data[name][has], test.data[name][has]) for each in made for name, has in where.items())
    return all(np.array_equal(*pair) for pair in pairs)


def run(out: Path, figures: Path, n: int, epochs: int | None) -> tuple[list[str], dict[str, Scores]]:
    """Everything from the simulation to the figures: the lines of the page, and the scores by imputer."""
    rng = np.random.default_rng(0)
    cells = simulate(n, rng)
    write_h5mu(out / "cells.h5mu", cells)
    made = imputed(out, epochs)
    train, test = (Dataset.load(out / "data" / split) for split in ("train", "test"))
    lacking = np.flatnonzero(~test.observed.all(1))
    hidden = test.select(lacking)
    rows = cells.places(hidden.ids)
    task = to_score(cells, train, hidden, rows)
    draws = {name: np.stack([each.data[name][lacking] for each in made]) for name in FEATURES}
    truth = {name: law(name, cells.rates[name][rows], rng, DRAWS) for name in FEATURES}
    ours, known = (drawn_from(of, task.scales) for of in (draws, truth))
    filled = {OURS: ours, **rivals(task, train, rng), LAW: known}
    found = {name: scored(task, of, cells, rows, rng) for name, of in filled.items()}
    figures.mkdir(parents=True, exist_ok=True)
    draw_features(figures / "features.png", found)
    draw_cells(figures / "cells.png", draws, cells, rows)
    weights = half_samples(hidden.sources, 200, rng, hidden.labels)
    same = kept(test, made) and intact(out / "exported/cells.h5mu", cells, test.ids)
    without = ", ".join(f"{(~cells.has[name][rows]).sum()} {name}" for name in FEATURES)
    lines = [
        f"{n} cells, {len(train)} for training and {len(test)} for test, of which {len(hidden)} lack a modality "
        f"({without}).",
        "",
        *table(found, weights),
        "",
        f"Counts that were there, in all {DRAWS} imputations and in the .h5mu file: "
        f"{'as they were' if same else 'CHANGED'}.",
    ]
    return lines, found


def main() -> None:
    asked = parser(__doc__)
    asked.add_argument("--cells", type=int, default=2000)
    asked.add_argument("--epochs", type=int, default=None, help="in place of what postprior init sets")
    options = asked.parse_args()
    publish(Path(__file__), options.out, lambda out, figures: run(out, figures, options.cells, options.epochs)[0])


if __name__ == "__main__":
    main()
