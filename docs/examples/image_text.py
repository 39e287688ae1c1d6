"""Images and words: generate handwritten digits and their names from each other; half of the rows lack one of them.

    python docs/examples/image_text.py     # [--out FOLDER]

The script prints the results of docs/examples/image_text.md and draws its figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from steps import parser, postprior, publish, trained

from postprior import Dataset

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = " " + "".join(sorted(set("".join(NAMES))))
"""The index of a letter is its token; the blank pads short words."""
TOKENS = max(map(len, NAMES))
MISSING = 0.25
"""Share of the rows that lack the image, and of the rows that lack the word."""
DENSITY = "gmm"
DRAWS = 19
"""Number of words drawn per image."""
IMAGES_PER_WORD = 50
"""Number of images drawn per word."""
SHOWN = 24, 12
"""Numbers of images with their words in the figure, and of images per word."""
Values = np.ndarray[Any, np.dtype[Any]]


def tokens(words: Sequence[str]) -> Values:
    """Encode words (n,) as indices of their letters, (n, TOKENS)."""
    return np.array([[LETTERS.index(letter) for letter in word.ljust(TOKENS)] for word in words])


def decode(text: Values) -> Values:
    """Return the words (n,) of tokens (n, TOKENS)."""
    letters = np.array(list(LETTERS))[np.asarray(text, int)]
    return np.array(["".join(word).rstrip() for word in letters])


def write_digits(path: Path, rng: np.random.Generator) -> tuple[Values, Values]:
    """Write the digits and their names, half of the rows complete; return images (n, 8, 8) and digits (n,)."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images, digits = (source.images / 16).astype(np.float32), source.target
    uniform = rng.random(len(digits))
    np.savez(
        path,
        image=images,
        text=tokens([NAMES[digit] for digit in digits]),
        mask_image=uniform >= MISSING,
        mask_text=uniform < 1 - MISSING,
        ids=np.arange(len(digits)),
    )
    return images, digits


def digit_classifier(images: Values, digits: Values) -> Any:
    """Train a classifier of digits on images (n, 8, 8)."""
    from sklearn.svm import SVC

    return SVC(C=10).fit(images.reshape(len(images), -1), digits)


def learn(out: Path, epochs: int | None) -> tuple[object, ...]:
    """Train a project on the rows in digits.npz; return `--params` and the path of its settings."""
    postprior("import", out / "digits.npz", out / "data", "--kind", "text=tokens")
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", DENSITY, {"train.epochs": epochs})
    postprior("train-evaluators", *params)
    return params


def words_of(out: Path, params: Sequence[object], images: Values) -> Values:
    """Draw words for new images, (DRAWS, n)."""
    np.savez(out / "images.npz", image=images)
    postprior("import", out / "images.npz", out / "images", "--like", out / "data")
    postprior("impute", DENSITY, out / "images", out / "named", "--draws", DRAWS, *params)
    return np.stack([decode(Dataset.load(out / "named" / str(draw + 1)).data["text"]) for draw in range(DRAWS)])


def images_of(out: Path, params: Sequence[object]) -> Values:
    """Draw images for each word, (10, IMAGES_PER_WORD, 8, 8)."""
    np.savez(out / "words.npz", text=tokens(NAMES))
    postprior("import", out / "words.npz", out / "words", "--like", out / "data")
    samples = "--samples", IMAGES_PER_WORD * len(NAMES)
    postprior("generate", DENSITY, "--given", out / "words", *samples, "--out", out / "drawn", *params)
    drawn = Dataset.load(out / "drawn")
    return drawn.data["image"].reshape(IMAGES_PER_WORD, len(NAMES), 8, 8).swapaxes(0, 1)


def observed_values_unchanged(out: Path, params: Sequence[object]) -> bool:
    """Impute the test rows and export them as .npz; return whether observed values are unchanged."""
    postprior("impute", DENSITY, out / "data/test", out / "filled", *params)
    postprior("export", out / "filled", out / "exported")
    with np.load(out / "digits.npz") as before, np.load(out / "exported/digits.npz") as after:
        rows = after["ids"]
        same = [
            np.array_equal(before[name][rows][has], after[name][has])
            for name in ("image", "text")
            if (has := before[f"mask_{name}"][rows]).any()
        ]
        return all(same) and sorted(rows) == sorted(Dataset.load(out / "data/test").ids)


def most_frequent(words: Values) -> Values:
    """Return the most frequent word of each row among draws (R, n), (n,)."""
    return np.array([Counter(column).most_common(1)[0][0] for column in words.T.tolist()])


def from_images(words: Values, digits: Values, images: Values, train: Dataset) -> dict[str, float]:
    """Return the shares of images (n, 8, 8) whose word is the name of their digit (n,), by method."""
    from sklearn.neighbors import KNeighborsClassifier

    truth, pairs = np.array(NAMES)[digits], np.flatnonzero(train.observed.all(1))
    pixels, text = (train.data[name][pairs].reshape(len(pairs), -1) for name in ("image", "text"))
    nearest = KNeighborsClassifier(1).fit(pixels, decode(text))
    return {
        "one draw": float((words == truth).mean()),
        f"most frequent of {DRAWS} draws": float((most_frequent(words) == truth).mean()),
        "word of the nearest training pair": float((nearest.predict(images.reshape(len(images), -1)) == truth).mean()),
        "chance": float(max(Counter(digits.tolist()).values()) / len(digits)),
        "draws that are one of the ten words": float(np.isin(words, NAMES).mean()),
    }


def from_words(drawn: Values, classifier: Any, images: Values, digits: Values) -> dict[str, float]:
    """Return the shares of images classified as the digit of their word, and their variety relative to real ones."""

    def variety(groups: Sequence[Values]) -> float:
        return float(np.sqrt(np.mean([group.var(0).mean() for group in groups])))

    wanted = np.repeat(np.arange(len(NAMES)), drawn.shape[1])
    real = [images[digits == digit] for digit in range(len(NAMES))]
    return {
        "images drawn for a word": float((classifier.predict(drawn.reshape(len(wanted), -1)) == wanted).mean()),
        "real held-out images": float((classifier.predict(images.reshape(len(images), -1)) == digits).mean()),
        "variety of drawn images relative to real ones": variety(list(drawn)) / variety(real),
    }


def draw_both(path: Path, images: Values, words: Values, digits: Values, drawn: Values) -> None:
    """Draw held-out images with their drawn words, and words with their drawn images."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    image_count, per_word = SHOWN
    figure = plt.figure(figsize=(10, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    left.suptitle("words drawn for held-out images", fontsize=10)
    for place, axis in enumerate(left.subplots(4, image_count // 4).flat):
        axis.imshow(images[place], cmap="gray_r", vmin=0, vmax=1)
        word, name = words[place], NAMES[digits[place]]
        if word == name:
            axis.set_title(word, fontsize=9)
        else:
            axis.set_title(f"{word}, not {name}", fontsize=8, color="#d55e00")
        axis.axis("off")
    right.suptitle("images drawn for words", fontsize=10)
    for line, name, row in zip(right.subplots(len(NAMES), 1), NAMES, drawn, strict=True):
        line.imshow(np.concatenate(list(row[:per_word]), 1), cmap="gray_r", vmin=0, vmax=1)
        line.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        line.set(xticks=[], yticks=[])
        line.spines[:].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def run(out: Path, figures: Path, epochs: int | None) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Run the example from the archive to the figure; return the lines of the page, and the scores per direction."""
    images, digits = write_digits(out / "digits.npz", np.random.default_rng(0))
    params = learn(out, epochs)
    train, test = (Dataset.load(out / "data" / split) for split in ("train", "test"))
    unchanged = observed_values_unchanged(out, params)
    trained, held_out = (np.asarray(split.ids)[split.observed[:, 0]] for split in (train, test))
    words, drawn = words_of(out, params, images[held_out]), images_of(out, params)
    classifier = digit_classifier(images[trained], digits[trained])
    scores = {
        "words from images": from_images(words, digits[held_out], images[held_out], train),
        "images from words": from_words(drawn, classifier, images[held_out], digits[held_out]),
    }
    figures.mkdir(parents=True, exist_ok=True)
    draw_both(figures / "both.png", images[held_out], most_frequent(words), digits[held_out], drawn)
    patterns = train.observed.sum(1) == 2, ~train.observed[:, 1], ~train.observed[:, 0]
    complete, no_word, no_image = (int(rows.sum()) for rows in patterns)
    lines = [
        f"{len(train)} training rows: {complete} complete, {no_word} without the word, {no_image} without the image. "
        f"{len(held_out)} held-out images, {len(NAMES) * IMAGES_PER_WORD} images drawn from words.",
    ]
    for title, shares in scores.items():
        lines += [
            "",
            f"| {title} | |",
            "|---|---|",
            *(f"| {key} | {value:.3f} |" for key, value in shares.items()),
        ]
    lines += [
        "",
        f"Observed values in the .npz file of the imputed rows: {'unchanged' if unchanged else 'CHANGED'}.",
    ]
    return lines, scores


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--epochs", type=int, default=None, help="overrides the number that postprior init sets")
    options = arguments.parse_args()
    publish(Path(__file__), options.out, lambda out, figures: run(out, figures, options.epochs)[0])


if __name__ == "__main__":
    main()
