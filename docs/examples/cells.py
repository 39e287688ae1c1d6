"""Simulate cells with counts of two modalities and known true rates, and read and write their .h5mu file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import h5py
import numpy as np

FEATURES = {"rna": 50, "protein": 12}
"""Numbers of genes and proteins."""
LEVEL = {"rna": 4.0, "protein": 60.0}
"""Typical counts of a feature that is switched on: few transcripts, many antibodies."""
DISPERSION = {"rna": 4.0, "protein": 12.0}
"""Inverse dispersions θ: counts of mean μ have variance μ + μ²/θ."""
TYPES = {"B cell": 0.3, "T cell": 0.25, "NK cell": 0.2, "monocyte": 0.15, "platelet": 0.1}
"""Kinds of cells and their shares; the cells are simulated, and only the names are real."""
STATES = 3
"""Dimensions of the state of a cell, which determines its counts together with its size."""
Values = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Cells:
    """N simulated cells: kinds (N,), and per modality true rates and counts (N, F_m), and which cells have it (N,)."""

    kinds: Values
    rates: dict[str, Values]
    counts: dict[str, Values]
    has: dict[str, Values]

    @property
    def names(self) -> Values:
        """Names of the cells (N,), in alphabetical order."""
        return np.array([f"cell{place:06}" for place in range(len(self.kinds))])

    def places(self, names: Values | None) -> Values:
        """Return the row numbers of the cells with these names."""
        return np.searchsorted(self.names, names)


def simulate(n: int, rng: np.random.Generator) -> Cells:
    """Simulate cells whose state switches features on: μ = size · level · (1/20 + σ(w · state − threshold)).

    Counts are negative binomial. A quarter of the cells lacks the first modality, and another quarter the second.
    """
    kinds = rng.choice(len(TYPES), n, p=list(TYPES.values()))
    state = 1.5 * rng.normal(size=(len(TYPES), STATES))[kinds] + 0.6 * rng.normal(size=(n, STATES))
    size = np.exp(0.25 * rng.normal(size=(n, 1)))
    rates, counts = {}, {}
    for name, count in FEATURES.items():
        direction = rng.normal(size=(STATES, count))
        direction *= 1.5 / np.linalg.norm(direction, axis=0)
        on = 1 / (1 + np.exp(rng.normal(size=count) - state @ direction))
        level = LEVEL[name] * np.exp(0.5 * rng.normal(size=count))
        rates[name] = size * level * (0.05 + on)
        counts[name] = draw_counts(name, rates[name], rng)
    lacks = rng.permutation(np.resize(["rna", "protein", "", ""], n))
    return Cells(kinds, rates, counts, {name: lacks != name for name in FEATURES})


def draw_counts(name: str, rate: Values, rng: np.random.Generator, *draws: int) -> Values:
    """Draw counts (*draws, n, F) given the true rates (n, F): Poisson with gamma rates."""
    theta = DISPERSION[name]
    return rng.poisson(rate * rng.gamma(theta, 1 / theta, (*draws, *rate.shape))).astype(np.float32)


def write_h5mu(path: Path, cells: Cells) -> None:
    """Write a MuData file in its published layout, as muon and mudata do; it omits modalities that a cell lacks."""
    features = {name: [f"{name}{place:02}" for place in range(count)] for name, count in FEATURES.items()}
    everything = list(chain.from_iterable(features.values()))
    with h5py.File(path, "w") as file:
        _put(file, "MuData", "0.1.0", axis=0)
        modalities = file.create_group("mod")
        modalities.attrs["mod-order"] = list(FEATURES)
        _frame(file, "obs", cells.names, kind=np.array(list(TYPES), object)[cells.kinds])
        _frame(file, "var", everything)
        for name, has in cells.has.items():
            group = _put(modalities.create_group(name), "anndata", "0.1.0")
            _put(group.create_dataset("X", data=cells.counts[name][has]), "array", "0.2.0")
            _frame(group, "obs", cells.names[has])
            _frame(group, "var", features[name])
            _put(file.create_dataset(f"obsm/{name}", data=has), "array", "0.2.0")
            place = np.where(has, np.cumsum(has), 0).astype(np.uint32)
            _put(file.create_dataset(f"obsmap/{name}", data=place), "array", "0.2.0")


def _put(stored: Any, encoding: str, version: str, **more: Any) -> Any:
    stored.attrs.update({"encoding-type": encoding, "encoding-version": version, **more})
    return stored


def _frame(group: Any, name: str, index: Sequence[str] | Values, **columns: Values) -> None:
    """Write a data frame whose columns are texts."""
    frame = _put(group.create_group(name), "dataframe", "0.2.0", _index="_index")
    frame.attrs.create("column-order", list(columns), dtype=h5py.string_dtype())
    for key, texts in {"_index": index, **columns}.items():
        stored = frame.create_dataset(key, data=np.array(texts, object), dtype=h5py.string_dtype())
        _put(stored, "string-array", "0.2.0")


def read_h5mu(path: Path) -> dict[str, dict[str, Values]]:
    """Return the counts (F,) of each cell of a .h5mu file, by modality and name of the cell."""
    counts = {}
    with h5py.File(path) as file:
        for name in FEATURES:
            group = file[f"mod/{name}"]
            stored = group["obs"]["_index"].asstr()[()]
            counts[name] = dict(zip(stored, group["X"][()], strict=True))
    return counts
