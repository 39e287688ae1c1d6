"""Stage `inspect`: what the codes say of the labels, and the health of the latent space that holds them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from postprior.pipelines.artefacts.codes import complete
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.statistics.intervals import FEWEST, half_samples, too_few
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST, read_json, write_json
from postprior.pipelines.tracking.runs import track

if TYPE_CHECKING:
    from postprior.pipelines.metrics.statistics.intervals import Floats
    from postprior.stage2_latent.codes import Codes

COMPLETE = "rows with every block of codes"


def inspect(params: Params, root: Path) -> None:
    """Score the test split's codes, with what those of the training split teach; results/metrics/latent.json."""
    from postprior.pipelines.metrics.latent.health import clusters, health
    from postprior.pipelines.metrics.latent.representation import SCORES
    from postprior.stage1_vae.randomness import generator_for

    settings, folder = params.evaluate, root / "artefacts"
    data = Dataset.load(folder / "data/test")
    train, test = (complete(folder / "codes" / split) for split in ("train", "test"))
    check_origin(folder / "codes/test", data)
    with track("inspect", params, root) as run:
        run.dataset(folder / "data/test", data.hash)
        rng = np.random.default_rng(settings.seed)
        written: dict[str, Any] = {"samples": len(test)}
        few = too_few(len(test), FEWEST, f"test {COMPLETE}")
        if few:
            written["health"] = few.written
        else:
            written["health"] = health(test.codes, generator_for("cpu", settings.seed))
            written["health"]["clusters"] = clusters(train.means, test.means, test.labels, settings.seed)
        few = few or too_few(len(train), FEWEST, f"training {COMPLETE}")
        if test.labels is not None and few:
            written["representation"] = dict.fromkeys(SCORES, few.written)
        elif test.labels is not None:
            weights = half_samples(data.sources[test.rows], settings.resamples, rng, test.labels)
            written["representation"] = representations(train.codes, test.codes, weights, settings.seed)
        write_json(root / "results/metrics/latent.json", written)


def representations(train: Codes, test: Codes, weights: Floats, seed: int) -> dict[str, Any]:
    """The scores of whole codes; where some blocks are private to a modality, also `shared`, of the others alone."""
    from postprior.pipelines.metrics.latent.representation import Labelled, representation

    def score(columns: Any) -> dict[str, Any]:
        learned, scored = (
            Labelled(codes.mean[:, columns].numpy(), np.asarray(codes.labels)) for codes in (train, test)
        )
        return representation(learned, scored, weights, seed)

    sizes = [block.size for block in test.layout]
    shared = np.repeat([block.owner is None for block in test.layout], sizes)
    scores = score(slice(None))
    return scores if shared.all() or not shared.any() else scores | {"shared": score(shared)}


def check_origin(folder: Path, data: Dataset) -> None:
    """Refuse codes of other rows than those of the test split."""
    encoded = read_json(folder / MANIFEST).get("data")
    if encoded != data.hash:
        raise UserError(
            f"{folder}: codes of data {str(encoded)[:12]} found, expected those of {data.folder}, "
            f"{str(data.hash)[:12]}; run postprior encode again"
        )
