"""The tutorial of multimodal generation on five modalities of digits, from a project whose pipeline has run.

    dvc repro                          # or make demo
    python docs/examples/digits.py     # [--project FOLDER] [--out FOLDER]

Prints what docs/examples/digits.md tells, and draws its figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from steps import imputers, interval, parser, publish, results

from postprior import Dataset, Generator

ROOT = Path(__file__).parents[2]
SHOWN = 10
"""Samples in a figure."""


def shown(data: Dataset, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """The images (rows, H, W, C) of each modality."""
    return [np.moveaxis(np.asarray(data.data[m.name][rows]), 1, -1).clip(0, 1) for m in data.modalities]


def panels(path: Path, sets: dict[str, list[np.ndarray]]) -> None:
    """A column of images a sample and a row a modality, one block a set under its title."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(sets), figsize=(4.2 * len(sets), 2.5), squeeze=False)
    for axis, (title, images) in zip(axes[0], sets.items(), strict=True):
        axis.imshow(np.concatenate([np.concatenate(list(row), 1) for row in images], 0))
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def curves(path: Path, found: dict[str, dict[str, dict[str, float]]]) -> None:
    """Conditional coherence by number of observed modalities, with intervals."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.2))
    for shift, (name, by_size) in enumerate(found.items()):
        x = np.array([int(size) for size in by_size]) + 0.04 * (shift - len(found) / 2)
        value, low, high = (np.array([of[key] for of in by_size.values()]) for key in ("value", "low", "high"))
        axis.errorbar(x, value, [value - low, high - value], marker="o", capsize=3, label=name)
    axis.set(xlabel="observed modalities", ylabel="conditional coherence", ylim=(0, 1))
    axis.set_xticks(range(1, 1 + max(len(of) for of in found.values())))
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def figures(project: Path, out: Path, densities: Sequence[str]) -> None:
    """Reconstructions, translations, samples, and coherence by what is observed."""
    import torch

    out.mkdir(parents=True, exist_ok=True)
    generators = {name: Generator.load(project / "artefacts/densities" / name) for name in densities}
    first = generators[densities[0]]
    test = Dataset.load(project / "artefacts/data/test").select(np.arange(SHOWN))
    codes = first.represent(test).mean
    rebuilt = replace(test, data=first.decode(codes, "mean", None))
    alone = replace(test, mask=np.tile(np.arange(len(test.modalities)) == 0, (SHOWN, 1)))
    (translated,) = first.impute(alone)
    rows = np.arange(SHOWN)
    panels(
        out / "translations.png",
        {
            "real": shown(test, rows),
            "reconstructed": shown(rebuilt, rows),
            f"the first given, {densities[0]} draws the rest": shown(translated, rows),
        },
    )
    noise = first.model.prior().rsample((SHOWN,), torch.Generator().manual_seed(0))
    prior = replace(test, data=first.decode(noise, "mean", None))
    drawn = {name: generator.sample(SHOWN, seed=0) for name, generator in generators.items()}
    panels(
        out / "samples.png",
        {"N(0, I)": shown(prior, rows), **{name: shown(data, rows) for name, data in drawn.items()}},
    )
    scores = {name: results(project / f"results/metrics/{name}.json") for name in ("autoencoder", *densities)}
    found = {"posterior alone": scores.pop("autoencoder")["conditional_coherence"]}
    found |= {f"through {name}": of["conditional_coherence"] for name, of in scores.items()}
    curves(out / "coherence.png", found)


def numbers(project: Path, densities: Sequence[str]) -> list[str]:
    """The tables of the page, from the files that the pipeline wrote."""

    def scores(name: str) -> dict[str, Any]:
        return results(project / f"results/metrics/{name}.json")

    lines = ["| draws of | joint coherence | Frechet distance |", "|---|---|---|"]
    titles = {"normal": "N(0, I)", "reconstruction": "held-out codes"}
    for name in ("normal", *densities, "reconstruction"):
        of = scores(name)
        lines.append(
            f"| {titles.get(name, name)} | {interval(of['joint_coherence'])} | {of['frechet_distance']['value']:.1f} |"
        )
    plain, through = (scores(name)["conditional_coherence"] for name in ("autoencoder", densities[0]))
    lines += ["", f"| observed modalities | {' | '.join(plain)} |", f"|---|{'---|' * len(plain)}"]
    for title, of in (("posterior alone", plain), (f"through {densities[0]}", through)):
        values = [f"{each['value']:.3f}" for each in of.values()]
        lines.append(f"| {title} | {' | '.join(values)} |")
    codes = scores("latent")["representation"]
    told = ", ".join(
        f"{title} {interval(codes[key])}"
        for key, title in (("kmeans_accuracy", "accuracy"), ("nmi", "NMI"), ("ari", "ARI"))
    )
    lines += ["", f"k-means on the codes of test rows, against the digits: {told}."]
    return [*lines, "", *imputers(project, densities, "modalities")]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--project", type=Path, default=ROOT)
    made.add_argument("--densities", nargs="+", default=["gmm", "flow"])
    options = made.parse_args()

    def run(_: Path, folder: Path) -> list[str]:
        figures(options.project, folder, options.densities)
        return numbers(options.project, options.densities)

    publish(Path(__file__), options.out, run)


if __name__ == "__main__":
    main()
