"""The worked example of images and words: its functions, and the whole example with less training."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("examples")


def test_words_are_restored_from_their_tokens() -> None:
    example = import_module("image_text")
    tokens = example.tokens(example.NAMES)
    assert tokens.shape == (10, 5)
    assert tokens.max() == len(example.LETTERS) - 1
    assert example.decode(tokens.astype(np.float32)).tolist() == list(example.NAMES)
    assert example.tokens(["one"])[0, 3:].tolist() == [0, 0]


def test_the_most_frequent_word_of_each_row() -> None:
    example = import_module("image_text")
    words = np.array([["one", "six", "ten"], ["two", "six", "one"], ["one", "sir", "one"]])
    assert example.most_frequent(words).tolist() == ["one", "six", "one"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_words_and_images_are_drawn_from_one_another(tmp_path: Path) -> None:
    lines, found = import_module("image_text").run(tmp_path, tmp_path / "figures", 60)
    assert lines[-1].endswith("unchanged.")
    named, drawn = found["words from images"], found["images from words"]
    assert named["one draw"] > 0.6 > 4 * named["chance"]
    assert named["most frequent of 19 draws"] >= named["one draw"]
    assert named["draws that are one of the ten words"] > 0.7
    assert drawn["images drawn for a word"] > 0.85
    assert drawn["variety of drawn images relative to real ones"] > 0.3
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["both.png"]
