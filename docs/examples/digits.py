"""Tutorial of multimodal generation on five modalities of digits, for a project whose pipeline has run.

    dvc repro                          # or make demo
    python docs/examples/digits.py     # [--project FOLDER] [--out FOLDER]

The script prints the results of docs/examples/digits.md and draws its figures.
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
"""Number of samples in a figure."""


def images_of(data: Dataset, rows: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Return the images (rows, H, W, C) of each modality."""
    return [np.moveaxis(np.asarray(data.data[m.name][rows]), 1, -1).clip(0, 1) for m in data.modalities]


def panels(path: Path, sets: dict[str, list[np.ndarray]]) -> None:
    """Draw one titled block per set of images, with one column per sample and one row per modality."""
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


def curves(path: Path, coherence: dict[str, dict[str, dict[str, float]]]) -> None:
    """Draw conditional coherence by number of observed modalities, with intervals."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5, 3.2))
    for shift, (name, by_size) in enumerate(coherence.items()):
        x = np.array([int(size) for size in by_size]) + 0.04 * (shift - len(coherence) / 2)
        value, low, high = (np.array([score[key] for score in by_size.values()]) for key in ("value", "low", "high"))
        axis.errorbar(x, value, [value - low, high - value], marker="o", capsize=3, label=name)
    axis.set(xlabel="observed modalities", ylabel="conditional coherence", ylim=(0, 1))
    axis.set_xticks(range(1, 1 + max(len(by_size) for by_size in coherence.values())))
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def figures(project: Path, out: Path, densities: Sequence[str]) -> None:
    """Draw reconstructions, conditional samples, samples, and coherence by number of observed modalities."""
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
            "real": images_of(test, rows),
            "reconstructed": images_of(rebuilt, rows),
            f"the first given, {densities[0]} draws the rest": images_of(translated, rows),
        },
    )
    noise = first.model.prior().rsample((SHOWN,), torch.Generator().manual_seed(0))
    prior = replace(test, data=first.decode(noise, "mean", None))
    drawn = {name: generator.sample(SHOWN, seed=0) for name, generator in generators.items()}
    panels(
        out / "samples.png",
        {"N(0, I)": images_of(prior, rows), **{name: images_of(data, rows) for name, data in drawn.items()}},
    )
    scores = {name: results(project / f"results/metrics/{name}.json") for name in ("autoencoder", *densities)}
    coherence = {"posterior alone": scores.pop("autoencoder")["conditional_coherence"]}
    coherence |= {f"through {name}": content["conditional_coherence"] for name, content in scores.items()}
    curves(out / "coherence.png", coherence)


def numbers(project: Path, densities: Sequence[str]) -> list[str]:
    """Return the tables of the page, from the result files of the pipeline."""

    def scores(name: str) -> dict[str, Any]:
        return results(project / f"results/metrics/{name}.json")

    lines = ["| codes drawn from | joint coherence | Frechet distance |", "|---|---|---|"]
    titles = {"normal": "N(0, I)", "reconstruction": "held-out codes"}
    for name in ("normal", *densities, "reconstruction"):
        row = scores(name)
        coherence, distance = interval(row["joint_coherence"]), row["frechet_distance"]["value"]
        lines.append(f"| {titles.get(name, name)} | {coherence} | {distance:.1f} |")
    posterior, through = (scores(name)["conditional_coherence"] for name in ("autoencoder", densities[0]))
    lines += ["", f"| observed modalities | {' | '.join(posterior)} |", f"|---|{'---|' * len(posterior)}"]
    for title, by_size in (("posterior alone", posterior), (f"through {densities[0]}", through)):
        values = [f"{score['value']:.3f}" for score in by_size.values()]
        lines.append(f"| {title} | {' | '.join(values)} |")
    codes = scores("latent")["representation"]
    clustering = ", ".join(
        f"{title} {interval(codes[key])}"
        for key, title in (("kmeans_accuracy", "accuracy"), ("nmi", "NMI"), ("ari", "ARI"))
    )
    lines += ["", f"k-means on the codes of test rows, against the digits: {clustering}."]
    return [*lines, "", *imputers(project, densities, "modalities")]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--project", type=Path, default=ROOT)
    arguments.add_argument("--densities", nargs="+", default=["gmm", "flow_matching"])
    options = arguments.parse_args()

    def run(_: Path, folder: Path) -> list[str]:
        figures(options.project, folder, options.densities)
        return numbers(options.project, options.densities)

    publish(Path(__file__), options.out, run)


if __name__ == "__main__":
    main()
