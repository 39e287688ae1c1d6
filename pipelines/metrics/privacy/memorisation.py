"""Whether a density repeats its training codes: how near its draws come to them, against how near held-out codes do.

A code's distance is that to the nearest training code, in units in which the aggregated posterior has covariance I (the
Mahalanobis distance), which no affine change of the latent space alters. Everything compared is one draw: a draw of
the density, one posterior draw of each held-out row, one of each training row; and there are as many of the first as
of the second. A density that has learned no more than the distribution comes as near as held-out codes do.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.metrics.privacy.proximity import compared, written
from postprior.pipelines.metrics.statistics.intervals import FEWEST, Floats, half_samples, too_few
from postprior.pipelines.metrics.statistics.neighbours import nearest
from postprior.stage1_vae.randomness import seed_from
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.moments import Whitening

MOST = 2000  # held-out codes, and draws of the density, that are compared
RESAMPLES = 200  # half-samples behind the intervals


@torch.no_grad()
def memorisation(density: Density, train: Codes, held_out: Codes, generator: torch.Generator) -> dict[str, Any]:
    """The content of `memorisation` in a density's manifest: medians of the distances, their ratio, and near copies.

    `ratio` is the median distance of the density's draws over that of the held-out codes: 1 where nothing is
    memorised, 0 where the draws are copies. `near_copies` is the share of draws nearer to a training code than all but
    the share `NEAR` of held-out codes, hence `NEAR` where nothing is memorised. Those are codes of other rows than the
    density was fitted to, of the same distribution.
    """
    known, held = (codes.complete.nonzero().squeeze(-1) for codes in (train, held_out))
    for side, there in {"training": known, "held-out": held}.items():
        if few := too_few(len(there), FEWEST, f"{side} rows with every block of codes"):
            return dict.fromkeys(("ratio", "near_copies"), few.written)
    rows = held[torch.randperm(len(held), generator=generator)[:MOST]]
    whitening = Whitening.fit(train)
    targets = whitening.forward(train.draw(generator, known))
    sets = held_out.draw(generator, rows), density.sample(len(rows), generator).loc[:, 0]
    real, new = (_distance(whitening.forward(z), targets) for z in sets)
    return scored(real, new, np.random.default_rng(seed_from(generator)))


def scored(held_out: Floats, drawn: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """Distances of n held-out codes and of n draws (both (n,)), in numbers with 95 % intervals from half-samples."""
    rows = np.arange(len(held_out))
    fresh, samples = (half_samples(rows, RESAMPLES, rng) for _ in range(2))
    found = written(compared(drawn, held_out, (samples, fresh)))
    return {
        "ratio": found["distance_ratio"],
        "near_copies": found["near_copies"],
        "medians": {"held_out": float(np.median(held_out)), "drawn": float(np.median(drawn))},
        "samples": len(held_out),
    }


def _distance(points: Tensor, targets: Tensor) -> Floats:
    """Euclidean distance of each of the points (n, D) to the nearest target (N, D): (n,)."""
    return (points - targets[nearest(points, targets)[:, 0]]).norm(dim=1).double().numpy()
