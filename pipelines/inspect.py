"""Stage `inspect`: what the codes say of the labels, and the health of the latent space that holds them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.config import Params
from pipelines.dataset import Dataset
from pipelines.encode import load_codes
from pipelines.errors import UserError
from pipelines.metrics.intervals import FEWEST, half_samples, too_few
from pipelines.storage import MANIFEST, read_json, write_json
from pipelines.tracking import track

if TYPE_CHECKING:
    from pipelines.metrics.intervals import Floats, Ints
    from stage2_latent.codes import Codes


def inspect(params: Params, root: Path) -> None:
    """Score the test split's codes, with what those of the training split teach; results/metrics/latent.json."""
    from pipelines.metrics.health import clusters, health
    from stage1_vae.training import generator_for

    settings, folder = params.evaluate, root / "artefacts"
    data = Dataset.load(folder / "data/test")
    train, test = (complete(folder / "codes" / split) for split in ("train", "test"))
    check_origin(folder / "codes/test", data)
    with track("inspect", params, root) as run:
        run.dataset(folder / "data/test", data.hash)
        rng = np.random.default_rng(settings.seed)
        labels = None if test.codes.labels is None else test.codes.labels.numpy()
        few = too_few(len(test.codes), FEWEST, "test rows with every block of codes")
        found = few.written if few else health(test.codes, generator_for("cpu", settings.seed))
        if not few:
            found["clusters"] = clusters(train.means, test.means, labels, settings.seed)
        written: dict[str, Any] = {"health": found, "samples": len(test.codes)}
        if labels is not None:
            weights = half_samples(data.sources[test.rows], settings.resamples, rng, labels)
            written["representation"] = representations(train.codes, test.codes, weights, settings.seed)
        write_json(root / "results/metrics/latent.json", written)


@dataclass(frozen=True)
class Complete:
    """Codes (n, D) that lack no block, and their rows (n,) in the split."""

    codes: Codes
    rows: Ints

    @property
    def means(self) -> Floats:
        """Posterior means (n, D)."""
        return self.codes.mean.numpy()


def complete(folder: Path) -> Complete:
    """The complete codes in a folder, of which there may be none."""
    codes = load_codes(folder)
    return Complete(codes.select(codes.complete), np.flatnonzero(codes.complete.numpy()))


def representations(train: Codes, test: Codes, weights: Floats, seed: int) -> dict[str, Any]:
    """The scores of whole codes; where some blocks are private to a modality, also `shared`, of the others alone."""
    from pipelines.metrics.representation import Labelled, representation

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
