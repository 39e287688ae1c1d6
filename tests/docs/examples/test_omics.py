"""The worked example of omics: its simulation, its scores, and the whole example on fewer cells."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.contents import Roles
from postprior.pipelines.data.importing.run import import_data

pytest.importorskip("h5py")
pytestmark = pytest.mark.usefixtures("examples")


def test_simulated_counts_follow_their_distribution() -> None:
    cells = import_module("cells")
    rate = np.array([[0.5, 3.0, 40.0]])
    for name, theta in cells.DISPERSION.items():
        drawn = cells.draw_counts(name, rate, np.random.default_rng(0), 200_000)[:, 0]
        np.testing.assert_allclose(drawn.mean(0), rate[0], rtol=0.02)
        np.testing.assert_allclose(drawn.var(0), (rate + rate**2 / theta)[0], rtol=0.03)


def test_half_of_the_cells_lack_a_modality_and_none_lacks_both(tmp_path: Path) -> None:
    cells = import_module("cells")
    made = cells.simulate(200, np.random.default_rng(0))
    has = np.stack(list(made.has.values()), 1)
    assert has.any(1).all()
    assert has.sum(0).tolist() == [150, 150]
    cells.write_h5mu(tmp_path / "cells.h5mu", made)
    import_data([tmp_path / "cells.h5mu"], tmp_path / "data", Roles(label="kind"))
    train = Dataset.load(tmp_path / "data/train")
    rows = made.places(train.ids)
    np.testing.assert_array_equal(train.observed, has[rows])
    for m, name in enumerate(cells.FEATURES):
        there = has[rows, m]
        np.testing.assert_array_equal(train.data[name][there], made.counts[name][rows][there])
    assert train.label_names is not None
    assert train.labels is not None
    kinds = np.array(list(cells.TYPES))[made.kinds[rows]]
    np.testing.assert_array_equal(np.array(train.label_names)[train.labels], kinds)


def test_intervals_of_the_true_distribution_have_their_nominal_coverage() -> None:
    """The coverage is right even if many counts are equal: here two of three are 0."""
    cells, omics, rng = import_module("cells"), import_module("omics"), np.random.default_rng(0)
    rate = np.full((4000, 2), 0.4)
    draws, truth = (cells.draw_counts("rna", rate, rng, *shape) for shape in ((39,), ()))
    assert omics.coverage(draws, truth, rng) == pytest.approx([0.9, 0.9], abs=0.015)
    wide = np.broadcast_to(truth, draws.shape)
    assert omics.coverage(wide + 1, truth, rng).max() == 0


def test_correlations_agree_with_numpy() -> None:
    omics, rng = import_module("omics"), np.random.default_rng(0)
    rates, guess = rng.gamma(2.0, size=(30, 3)), rng.normal(size=(30, 3))
    guess[:, 2] = 1  # a constant guess has correlation 0
    found = omics.correlations(guess, rates)
    expected = [np.corrcoef(guess[:, j], np.log1p(rates[:, j]))[0, 1] for j in range(2)]
    np.testing.assert_allclose(found, [*expected, 0])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_imputed_counts_are_better_than_those_of_baseline_imputers(tmp_path: Path) -> None:
    omics, figures = import_module("omics"), tmp_path / "figures"
    lines, found = omics.run(tmp_path, figures, 1200, None)
    assert lines[-1].endswith("unchanged.")
    energy = {name: np.nanmean(of["rows"]["energy_score"]) for name, of in found.items()}
    neighbours = next(value for name, value in energy.items() if name.endswith("nearest"))
    assert energy[omics.TRUTH] < energy[omics.OURS] <= 1.02 * neighbours
    assert energy[omics.OURS] < 0.7 * energy["mean"]
    for of in found[omics.OURS]["modalities"].values():
        assert np.median(of["correlation"]) > 0.8
        assert 0.8 < of["coverage"].mean() < 0.97
    exported = omics.read_h5mu(tmp_path / "exported/cells.h5mu")
    assert [len(cells) for cells in exported.values()] == [len(Dataset.load(tmp_path / "data/test"))] * 2
    assert {path.name for path in figures.iterdir()} == {"features.png", "cells.png"}
