"""Labels of samples are drawn given their values, where held-out rows say that these tell more than the density."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from support.equations import seeded

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.generation.fitting import FrozenEncoder
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.missingness.model import Missingness
from postprior.pipelines.generation.relabelling.learning import learned_relabelling
from postprior.pipelines.generation.relabelling.model import Relabelling, offsets_for, softmax
from postprior.pipelines.generation.relabelling.trees import BoostedTrees
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.discrete import Bernoulli
from postprior.stage1_vae.likelihoods import Likelihood
from postprior.stage1_vae.modalities import Column, Modality
from postprior.stage1_vae.models import MODELS
from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density

TABLE = Modality("signs", "table", (2,), "columns", columns=(Column("a", "bernoulli"), Column("b", "bernoulli")))
FLIPPED, LACKING, ROWS = 0.1, 0.3, 2000
NAMES = ("equal", "different")


def patients(modality: Modality, seed: int) -> Dataset:
    """Fair bits a and b, of which b is missing now and then; the label is a xor b, or the contrary in a tenth."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (ROWS, 2))
    labels = bits[:, 0] ^ bits[:, 1] ^ (rng.random(ROWS) < FLIPPED)
    cells = np.stack([np.ones(ROWS, bool), rng.random(ROWS) >= LACKING], 1)
    values = {"signs": np.where(cells, bits, 0).astype(np.float32)}
    return Dataset((modality,), values, cells={"signs": cells}, labels=labels, label_names=NAMES)


def fitted(modality: Modality) -> tuple[Autoencoder, Density]:
    """Decoders of fair bits, and a density whose labels tell nothing about them."""
    model = MODELS["mvae"]([modality], latent=1).eval()

    def decode(modality: Modality, z: torch.Tensor) -> Likelihood:
        return Bernoulli(torch.zeros(*z.shape[:-1], 2), 1)

    model.decode_one = decode  # type: ignore[method-assign]
    labels = torch.arange(1000) % 2
    codes = Codes.empirical(model.layout, torch.randn(1000, 1, generator=seeded()), labels, NAMES)
    return model, DENSITIES["kde"](bandwidth=[0.1]).fit(codes, generator=seeded())


@cache
def learned() -> tuple[Generator, Relabelling | None]:
    """What is learned from training rows, and a generator that draws holes and labels like theirs."""
    (model, density), train = fitted(TABLE), patients(TABLE, 0)
    codes = Codes.empirical(model.layout, torch.zeros(ROWS, 1), torch.from_numpy(np.array(train.labels)), NAMES)
    missingness = Missingness.fit(train, codes, True, seeded())
    found = learned_relabelling(density, train, 0, FrozenEncoder(lambda: (model, train)), missingness)
    return Generator(model, density, {}, missingness=missingness, relabelling=found), found


def agreement(rows: Dataset, whole: Dataset) -> float:
    """The share of rows that have both bits in `rows` whose label is a xor b."""
    seen, bits = ~rows.missing("signs")[:, 1], np.asarray(whole.data["signs"]).astype(int)
    return float((bits[:, 0] ^ bits[:, 1] == rows.labels)[seen].mean())


def test_labels_of_samples_follow_the_law_of_the_training_rows() -> None:
    generator, found = learned()
    assert found is not None
    entropy = -(FLIPPED * np.log(FLIPPED) + (1 - FLIPPED) * np.log(1 - FLIPPED))
    expected = (1 - LACKING) * entropy + LACKING * np.log(2)  # without b, a tells nothing
    assert found.log_loss["values"] == pytest.approx(expected, abs=0.06)
    assert found.log_loss["density"] == pytest.approx(np.log(2), abs=0.03)
    rows, whole = generator.sample(4000), generator.sample(4000, complete=True)
    assert agreement(rows, whole) == pytest.approx(1 - FLIPPED, abs=0.03)
    assert rows.labels is not None
    assert np.array_equal(rows.labels, whole.labels)  # labels do not depend on whether holes are shown
    assert rows.labels.mean() == pytest.approx(0.5, abs=0.03)
    assert rows.provenance["labels_from"] == "values"
    assert np.array_equal(rows.labels[:700], generator.sample(700).labels)


def test_requested_labels_are_kept() -> None:
    generator, _ = learned()
    wanted = np.arange(600) % 2
    rows = generator.sample(labels=wanted)
    assert np.array_equal(rows.labels, wanted)
    assert rows.provenance["labels_from"] == "density"
    assert agreement(rows, rows) == pytest.approx(0.5, abs=0.08)


def test_images_keep_the_labels_of_the_density_and_load_nothing() -> None:
    image = Modality("picture", "image", (1, 2, 2), "bernoulli")
    rows = Dataset((image,), {"picture": np.zeros((4, 1, 2, 2), np.float32)}, labels=np.arange(4) % 2)

    def load() -> tuple[Autoencoder, Dataset]:
        raise AssertionError

    assert learned_relabelling(fitted(TABLE)[1], rows, 0, FrozenEncoder(load), None) is None


@pytest.mark.parametrize("classes", [2, 3])
def test_trees_are_those_that_scikit_learn_grew(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.ensemble

    rng, grown = np.random.default_rng(0), []
    x = rng.normal(size=(300, 4))
    y = (x[:, 0] * x[:, 1] > 0).astype(int) + (classes == 3) * (x[:, 2] > 0.5)

    class Kept(sklearn.ensemble.GradientBoostingClassifier):  # type: ignore[misc]
        def fit(self, *arguments: np.ndarray) -> object:
            grown.append(self)
            return super().fit(*arguments)

    monkeypatch.setattr(sklearn.ensemble, "GradientBoostingClassifier", Kept)
    trees = BoostedTrees.fit(x, y, classes, steps=10, seed=0)
    expected = grown[0].predict_proba(x)
    assert np.allclose(softmax(trees.scores(x)), expected, atol=1e-9)
    assert expected.max() > 0.7


def test_offsets_give_labels_their_shares() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    scores = BoostedTrees.fit(x, (x[:, 0] > 0).astype(int), 2, steps=5, seed=0).scores(x)
    shares = np.array([0.8, 0.2])
    assert np.allclose(softmax(scores + offsets_for(scores, shares)).mean(0), shares, atol=1e-6)


def test_drawn_labels_have_their_probabilities_and_are_allowed_ones() -> None:
    rows = patients(TABLE, 1)
    leaf, number = np.zeros((1, 1)), np.zeros((1, 1), int)
    silent = BoostedTrees(np.zeros(3), number[0], number, leaf, np.stack([number, number]), leaf)
    model = Relabelling(np.array([3, 5, 8]), silent, np.log([0.5, 0.3, 0.2]), {})
    drawn = model.draw(rows, seeded())
    shares = [(drawn == label).mean() for label in (3, 5, 8)]
    assert np.allclose(shares, [0.5, 0.3, 0.2], atol=4 * np.sqrt(0.25 / ROWS))
    allowed = np.tile([True, False, True], (ROWS, 1))
    kept = model.draw(rows, seeded(), allowed)
    assert (kept == 3).mean() == pytest.approx(0.5 / 0.7, abs=4 * np.sqrt(0.25 / ROWS))
    assert not (kept == 5).any()
    arrays, description = replace(model, log_loss={"values": 0.1, "density": 0.2}).state()
    assert np.array_equal(Relabelling.from_state(arrays, description).draw(rows, seeded()), drawn)
