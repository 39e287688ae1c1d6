"""Diagnostics of the latent space: its health, and what the codes predict about the labels."""

from typing import Any

import numpy as np
import torch

from postprior.pipelines.artefacts.codes import CompleteCodes
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.latent.health import clusters, health
from postprior.pipelines.metrics.latent.representation import MOST, SCORES, whole_and_shared
from postprior.pipelines.metrics.statistics.intervals import FEWEST, half_samples, too_few
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Evaluate
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes

COMPLETE = "rows with complete codes"


def latent_scores(codes: dict[str, Codes], data: Dataset, settings: Evaluate) -> dict[str, Any]:
    """Return the content of latent.json: scores of the codes of `test`, by models fitted to those of `train`.

    A random subset of `MOST` rows of each split is used if there are more; `data` are the test rows.
    """
    rows = {
        split: np.sort(np.random.default_rng(settings.seed).permutation(len(codes[split]))[:MOST])
        for split in ("train", "test")
    }
    train, test = (CompleteCodes(codes[split].select(torch.from_numpy(kept))) for split, kept in rows.items())
    with progress("diagnose", 3) as step:
        rng = np.random.default_rng(settings.seed)
        written: dict[str, Any] = {"samples": len(test)}
        missing = too_few(len(test), FEWEST, f"test {COMPLETE}")
        if missing:
            written["health"] = missing.written
        else:
            written["health"] = health(test.codes, generator_for("cpu", settings.seed))
            step("latent dimensions")
            written["health"]["clusters"] = clusters(train.means, test.means, test.labels, settings.seed)
            step("clusters")
        missing = missing or too_few(len(train), FEWEST, f"training {COMPLETE}")
        if test.labels is not None and missing:
            written["representation"] = dict.fromkeys(SCORES, missing.written)
        elif test.labels is not None:
            weights = half_samples(data.sources[rows["test"]][test.rows], settings.resamples, rng, test.labels)
            written["representation"] = whole_and_shared(train.codes, test.codes, weights, settings.seed)
            step("labels")
    return written
