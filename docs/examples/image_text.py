"""Images and words: handwritten digits and their names, each drawn from the other; half of the rows lack one of them.

    python docs/examples/image_text.py     # [--out FOLDER]

Prints what docs/examples/image_text.md tells, and draws its figure.
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
"""A letter's place is its token; the first pads short words."""
TOKENS = max(map(len, NAMES))
LACKING = 0.25
"""Share of the rows that lack the image, and of those that lack the word."""
DENSITY = "gmm"
DRAWS = 19
"""Words drawn for every image."""
EACH = 50
"""Images drawn for every word."""
SHOWN = 24, 12
"""Images with their words in the figure, and images of every word."""
Values = np.ndarray[Any, np.dtype[Any]]


def tokens(words: Sequence[str]) -> Values:
    """Words (n,) as places of their letters, (n, TOKENS)."""
    return np.array([[LETTERS.index(letter) for letter in word.ljust(TOKENS)] for word in words])


def read(text: Values) -> Values:
    """The words (n,) of tokens (n, TOKENS)."""
    letters = np.array(list(LETTERS))[np.asarray(text, int)]
    return np.array(["".join(word).rstrip() for word in letters])


def write_digits(path: Path, rng: np.random.Generator) -> tuple[Values, Values]:
    """The digits of scikit-learn with their names, half of them whole; images (n, 8, 8) and digits (n,)."""
    from sklearn.datasets import load_digits

    source = load_digits()
    images, digits = (source.images / 16).astype(np.float32), source.target
    lot = rng.random(len(digits))
    np.savez(
        path,
        image=images,
        text=tokens([NAMES[digit] for digit in digits]),
        mask_image=lot >= LACKING,
        mask_text=lot < 1 - LACKING,
        ids=np.arange(len(digits)),
    )
    return images, digits


def reader(images: Values, digits: Values) -> Any:
    """A classifier (n, 8, 8) → digits."""
    from sklearn.svm import SVC

    return SVC(C=10).fit(images.reshape(len(images), -1), digits)


def learn(out: Path, epochs: int | None) -> tuple[object, ...]:
    """A trained project of the rows in digits.npz; `--params` and the file that it names."""
    postprior("import", out / "digits.npz", out / "data", "--kind", "text=tokens")
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", DENSITY, {"train.epochs": epochs})
    postprior("train-evaluators", *params)
    return params


def words_of(out: Path, params: Sequence[object], images: Values) -> Values:
    """Words drawn for new images, (DRAWS, n)."""
    np.savez(out / "images.npz", image=images)
    postprior("import", out / "images.npz", out / "images", "--like", out / "data")
    postprior("impute", DENSITY, out / "images", out / "named", "--draws", DRAWS, *params)
    return np.stack([read(Dataset.load(out / "named" / str(draw + 1)).data["text"]) for draw in range(DRAWS)])


def images_of(out: Path, params: Sequence[object]) -> Values:
    """Images drawn for every word, (10, EACH, 8, 8)."""
    np.savez(out / "words.npz", text=tokens(NAMES))
    postprior("import", out / "words.npz", out / "words", "--like", out / "data")
    many = "--samples", EACH * len(NAMES)
    postprior("generate", DENSITY, "--given", out / "words", *many, "--out", out / "drawn", *params)
    drawn = Dataset.load(out / "drawn")
    return drawn.data["image"].reshape(EACH, len(NAMES), 8, 8).swapaxes(0, 1)


def filled(out: Path, params: Sequence[object]) -> bool:
    """Fill in the test rows and write them back as .npz; whether all that was there is as it was."""
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


def commonest(words: Values) -> Values:
    """The word that most draws (R, n) give a row, (n,)."""
    return np.array([Counter(column).most_common(1)[0][0] for column in words.T.tolist()])


def from_images(words: Values, digits: Values, images: Values, train: Dataset) -> dict[str, float]:
    """Shares of images (n, 8, 8) whose word is that of their digit (n,)."""
    from sklearn.neighbors import KNeighborsClassifier

    truth, pairs = np.array(NAMES)[digits], np.flatnonzero(train.observed.all(1))
    shown, named = (train.data[name][pairs].reshape(len(pairs), -1) for name in ("image", "text"))
    nearest = KNeighborsClassifier(1).fit(shown, read(named))
    return {
        "one draw": float((words == truth).mean()),
        f"the commonest of {DRAWS} draws": float((commonest(words) == truth).mean()),
        "word of the nearest training pair": float((nearest.predict(images.reshape(len(images), -1)) == truth).mean()),
        "chance": float(max(Counter(digits.tolist()).values()) / len(digits)),
        "draws that are one of the ten words": float(np.isin(words, NAMES).mean()),
    }


def from_words(drawn: Values, judge: Any, images: Values, digits: Values) -> dict[str, float]:
    """Shares of images that the judge reads as the digit of their word, and how much they vary beside real ones."""

    def variety(of: Sequence[Values]) -> float:
        return float(np.sqrt(np.mean([group.var(0).mean() for group in of])))

    wanted = np.repeat(np.arange(len(NAMES)), drawn.shape[1])
    real = [images[digits == digit] for digit in range(len(NAMES))]
    return {
        "drawn for their word": float((judge.predict(drawn.reshape(len(wanted), -1)) == wanted).mean()),
        "real, held out": float((judge.predict(images.reshape(len(images), -1)) == digits).mean()),
        "variety of the drawn, over that of the real": variety(list(drawn)) / variety(real),
    }


def draw_both(path: Path, images: Values, words: Values, digits: Values, drawn: Values) -> None:
    """Held-out images with the words drawn for them, and words with the images drawn for them."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    many, each = SHOWN
    figure = plt.figure(figsize=(10, 5.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    left.suptitle("words drawn for held-out images", fontsize=10)
    for place, axis in enumerate(left.subplots(4, many // 4).flat):
        axis.imshow(images[place], cmap="gray_r", vmin=0, vmax=1)
        word, name = words[place], NAMES[digits[place]]
        if word == name:
            axis.set_title(word, fontsize=9)
        else:
            axis.set_title(f"{word}, not {name}", fontsize=8, color="#d55e00")
        axis.axis("off")
    right.suptitle("images drawn for words", fontsize=10)
    for line, name, row in zip(right.subplots(len(NAMES), 1), NAMES, drawn, strict=True):
        line.imshow(np.concatenate(list(row[:each]), 1), cmap="gray_r", vmin=0, vmax=1)
        line.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        line.set(xticks=[], yticks=[])
        line.spines[:].set_visible(False)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def run(out: Path, figures: Path, epochs: int | None) -> tuple[list[str], dict[str, dict[str, float]]]:
    """Everything from the archive to the figure: the lines of the page, and the scores of both directions."""
    images, digits = write_digits(out / "digits.npz", np.random.default_rng(0))
    params = learn(out, epochs)
    train, test = (Dataset.load(out / "data" / split) for split in ("train", "test"))
    kept = filled(out, params)
    known, held_out = (np.asarray(split.ids)[split.observed[:, 0]] for split in (train, test))
    words, drawn = words_of(out, params, images[held_out]), images_of(out, params)
    judge = reader(images[known], digits[known])
    found = {
        "words from images": from_images(words, digits[held_out], images[held_out], train),
        "images from words": from_words(drawn, judge, images[held_out], digits[held_out]),
    }
    figures.mkdir(parents=True, exist_ok=True)
    draw_both(figures / "both.png", images[held_out], commonest(words), digits[held_out], drawn)
    patterns = train.observed.sum(1) == 2, ~train.observed[:, 1], ~train.observed[:, 0]
    whole, no_word, no_image = (int(rows.sum()) for rows in patterns)
    lines = [
        f"{len(train)} rows for training: {whole} whole, {no_word} without the word, {no_image} without the image. "
        f"{len(held_out)} held-out images, {len(NAMES) * EACH} images drawn from words.",
    ]
    for title, of in found.items():
        lines += [
            "",
            f"| {title} | |",
            "|---|---|",
            *(f"| {key} | {value:.3f} |" for key, value in of.items()),
        ]
    lines += [
        "",
        f"What was there, in the .npz file of the rows filled in: {'as it was' if kept else 'CHANGED'}.",
    ]
    return lines, found


def main() -> None:
    asked = parser(__doc__)
    asked.add_argument("--epochs", type=int, default=None, help="in place of what postprior init sets")
    options = asked.parse_args()
    publish(Path(__file__), options.out, lambda out, figures: run(out, figures, options.epochs)[0])


if __name__ == "__main__":
    main()
