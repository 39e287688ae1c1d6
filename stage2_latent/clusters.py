"""Clusters of codes without labels, in the place of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from postprior.stage1_vae.randomness import seed_from
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.draws import Classes, Draws, fit_filling
from postprior.stage2_latent.moments import Whitening

FEWEST = 50
"""Minimum mean number of rows of a cluster."""
ENOUGH = 4
"""Rows of a cluster for each dimension from which on clusters have covariances of their own."""
ROWS = 20_000
"""Maximum number of rows that mixtures are fitted to."""


def clustered(
    codes: Codes, validation: Codes | None, usable: Callable[[Codes], Tensor], most: int, generator: torch.Generator
) -> tuple[Codes, Codes | None, Classes]:
    """Return codes and validation codes with the index of a cluster as label of each row, and the classes of these.

    Clusters are the components of a mixture of 1, 2, 4, … Gaussians, at most `most`, fitted to one draw per row by
    scikit-learn; their number has the highest log-likelihood of held-out draws. Draws are not whitened, which would
    give the noise of directions without clusters the weight of those with clusters. A row belongs to the component that
    is most probable given its draw. With one cluster, all remain as they are.
    """
    rows, none = usable(codes), Classes.fit(codes, labelled=False)
    sizes = [2**power for power in range(1, 32) if 2**power <= min(most, int(rows.sum()) // FEWEST)]
    if not sizes:
        return codes, validation, none
    whitening = Whitening.fit(codes.select(rows))
    size = whitening.root.square().sum(1).mean().sqrt()  # root mean square of the standard deviations
    filling = None if bool(codes.complete[rows].all()) else fit_filling(codes, rows, none)

    def drawn(source: Codes) -> np.ndarray[Any, np.dtype[np.float64]]:
        """One draw of every row, (N, D); of a row that is not usable, any numbers."""
        every = torch.arange(len(source))
        part = None if bool(source.complete.all()) else filling or fit_filling(codes, rows, none)
        z = Draws(source, every, torch.zeros_like(every), Whitening.identity(whitening.loc), 1, part).draw(generator)
        return ((z - whitening.loc) / size).double().numpy()

    x = drawn(codes)
    y = x[rows.numpy()][::10] if validation is None else drawn(validation)
    learned = x[rows.numpy()] if validation is not None else np.delete(x[rows.numpy()], np.s_[::10], 0)
    mixture = _best(learned[:: -(-len(learned) // ROWS)], y, sizes, seed_from(generator))
    if mixture is None:
        return codes, validation, none
    present, counts = np.unique(mixture.predict(x[rows.numpy()]), return_counts=True)

    def labels(points: np.ndarray[Any, np.dtype[np.float64]]) -> Tensor:
        return torch.from_numpy(mixture.predict_proba(points)[:, present].argmax(1))

    share = torch.from_numpy(counts / counts.sum()).to(codes.loc.dtype)
    classes = Classes(torch.arange(-len(present), 0), share)
    held_out = None if validation is None else replace(validation, labels=labels(y), label_names=None)
    return replace(codes, labels=labels(x), label_names=None), held_out, classes


def _best(x: np.ndarray[Any, Any], held_out: np.ndarray[Any, Any], sizes: list[int], seed: int) -> Any:
    """Return the mixture with the highest mean log-likelihood of held-out points; None if that is one Gaussian."""
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    best, score = None, -np.inf
    with threadpool_limits(limits=1):  # with several threads, the last bits would change from run to run
        for size in [1, *sizes]:
            kind = "full" if len(x) >= ENOUGH * size * x.shape[1] else "tied"
            mixture = GaussianMixture(size, covariance_type=kind, reg_covar=1e-4, random_state=seed % 2**32).fit(x)
            if (found := mixture.score(held_out)) > score:
                best, score = (None if size == 1 else mixture), found
    return best
