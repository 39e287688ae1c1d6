"""Privacy: test whether samples of a density reveal rows that it and its autoencoder were trained on.

Beside these tests, three attacks on single people use the synthetic dataset as it is published: see
`postprior.pipelines.metrics.privacy.attacks`.

Samples are decoded codes. They are smoother than real rows, and for this reason alone closer to all of them, whether
used in training or not. So they are compared with held-out rows that were encoded and decoded as well, from one
posterior draw each; in the space of codes, with these draws themselves. The membership inference attack compares real
rows with real rows and does not need this. Only the attack detects a decoder that repeats training rows whatever the
code is, because then the decoded held-out rows become copies too.

Samples and decoded rows have all values in the other tests. A synthetic dataset that lacks some reveals no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset, joined
from postprior.pipelines.generation.generator import ROWS, Generator, draw_codes
from postprior.pipelines.generation.request import SampleRequest
from postprior.pipelines.metrics.privacy.attacks.attack import MARGIN, leaking_attacks
from postprior.pipelines.metrics.privacy.attacks.suite import attack_people
from postprior.pipelines.metrics.privacy.proximity import (
    CAUTION,
    MARGINS,
    Proximity,
    Vectors,
    estimates,
    leaking_tests,
    near_copies,
    proximity_vectors,
)
from postprior.pipelines.metrics.privacy.splits import MOST, RealSplits
from postprior.pipelines.metrics.statistics.intervals import FEWEST
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import progress, substeps
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import save_artefact, write_json
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.codes import Codes

KIND = "privacy"
NO_ATTACK = Missing("privacy.draws is 0")
REQUEST = ("seed", "labels", "temperature", "truncation")  # settings that determine the codes of samples


@dataclass(frozen=True)
class Privacy:
    """The results of the tests, and the samples with their nearest training rows."""

    results: dict[str, Any]
    arrays: dict[str, np.ndarray]
    origins: dict[str, Any]  # hashes of the samples and of what they were drawn from

    def save(self, project: Project, name: str) -> None:
        """Write results/privacy/<name>.json and artefacts/privacy/<name>."""
        write_json(project.results.scores("privacy", name), self.results)
        save_artefact(project.artefacts.privacy / name, KIND, self.origins, arrays=self.arrays)


def privacy(
    name: str,
    generator: Generator,
    synthetic: Dataset,
    splits: dict[str, Dataset],
    codes: dict[str, Codes],
    params: Params,
) -> Privacy:
    """Test the synthetic dataset of a density, and more draws; `splits` and `codes` are those of the real rows."""
    settings = params.evaluate
    with progress(f"privacy {name}", 4) as step:
        rng = np.random.default_rng(settings.seed)
        real = RealSplits.fit(splits, codes, settings.seed)
        step("real rows")
        train, test = real.splits["train"], real.splits["test"]
        complete = complete_samples(generator, synthetic)
        proximities = compare(real, generator, complete, settings.seed)
        scores = proximity_vectors(proximities, test.data.sources[real.fresh], settings.resamples, rng)
        step("distances")
        drawn = params.privacy.draws * len(train.data)
        untested = real.untested()
        aucs: Vectors = dict.fromkeys(untested, NO_ATTACK)
        rows: dict[str, int] = {}
        if drawn:
            blocks = samples(generator, synthetic.provenance, drawn, settings.seed)
            aucs, rows = real.attack(blocks, params.privacy.dimensions, settings.resamples, rng)
        step("attack")
        people = attack_people(train.data, test.data, synthetic, real.scales, params.privacy.attacks, settings.seed)
        step("attacks on people")
    vectors = {
        space: missing | scores.get(space, {}) | ({"membership_auc": aucs[space]} if space in aucs else {})
        for space, missing in untested.items()
    }
    vectors, pairs = real.joint(vectors)
    flagged, detected = (leaking_tests(vectors, margins, len(real.fresh)) for margins in (MARGINS, {}))
    compared = {"synthetic": min(len(synthetic), MOST), "held_out": len(real.fresh)}
    results = {
        "spaces": {space: estimates(values) for space, values in vectors.items()},
        "near_copies": near_copies(proximities, train.names),
        "attacks": {attack: outcome.written for attack, outcome in people.items()},
        "flagged": [*flagged, *leaking_attacks(people, MARGIN)],
        "detected": [*detected, *leaking_attacks(people, 0.0)],
        "samples": {**compared, "train": len(train.data), "drawn": drawn, **rows},
        "caution": CAUTION,
    } | {key: found for key, found in {"flagged_in": flagged, "detected_in": detected, "pairs": pairs}.items() if found}
    origins = {**generator.provenance, "synthetic": synthetic.hash}
    return Privacy(results, real.gallery(proximities, complete), origins)


def request_of(synthetic: Dataset) -> SampleRequest:
    """Return the request of a synthetic dataset, with all values."""
    drawn = synthetic.provenance
    return SampleRequest(len(synthetic), values=drawn["values"], complete=True, **{key: drawn[key] for key in REQUEST})


def complete_samples(generator: Generator, synthetic: Dataset) -> Dataset:
    """Return samples with all values; if some are missing, their rows up to `MOST` are drawn again."""
    if synthetic.mask is None and not synthetic.cells:
        return synthetic
    blocks = islice(generator.blocks(request_of(synthetic)), -(-min(len(synthetic), MOST) // ROWS))
    return replace(joined([rows for _, rows in blocks]), provenance=synthetic.provenance)


def compare(real: RealSplits, generator: Generator, synthetic: Dataset, seed: int) -> dict[str, Proximity]:
    """Compare the distances of samples and of held-out rows to training rows, by space; empty if rows are too few."""
    if len(real.fresh) < FEWEST:
        return {}
    rows = np.arange(min(len(synthetic), MOST))
    blocks = islice(draw_codes(generator.density, request_of(synthetic)), -(-len(rows) // ROWS))
    codes = torch.cat([codes.loc[:, 0] for _, _, codes, _ in blocks])[: len(rows)]
    noise = generator_for("cpu", seed, 1)
    labels = real.splits["test"].data.labels
    known = None if labels is None else torch.from_numpy(np.asarray(labels, np.int64)[real.fresh])
    values = generator.decode_all(real.fresh_codes, synthetic.provenance["values"], noise, known)
    return real.proximities(synthetic.select(rows), codes, Dataset(generator.modalities, values))


def samples(generator: Generator, drawn: dict[str, Any], rows: int, seed: int) -> Iterator[tuple[Tensor, Dataset]]:
    """Yield blocks of codes (n, D) and rows, drawn like the published ones but with labels as often as in the data."""
    request = SampleRequest(rows, seed, temperature=drawn["temperature"], truncation=drawn["truncation"])
    for _, count, codes, noise in substeps(draw_codes(generator.density, request), -(-rows // ROWS)):
        z = codes.loc[:, 0]
        values = generator.decode(z, drawn["values"], noise, codes.labels)
        yield z[:count], Dataset(generator.modalities, {name: x[:count] for name, x in values.items()})
