"""Score a density in the same way as the baselines.

The synthetic dataset is compared with real data. Through the density, modalities of real rows are generated from the
other ones.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from postprior.pipelines.artefacts.baselines import Baselines, lacking_as
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.conditional_scores import density_conditional_scores, grid
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.memorisation import check_memorisation
from postprior.pipelines.generation.request import REFINED
from postprior.pipelines.metrics.features.evaluators import Evaluators
from postprior.pipelines.metrics.fidelity.holes import add_missing_shares
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.progress import progress
from postprior.pipelines.scoring.patterns import patterned_as
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import folder_hash, save_artefact, write_json
from postprior.pipelines.threads import suited_to
from postprior.stage2_latent.codes import Codes

KIND = "evaluation"
CONDITIONED = 200  # number of rows whose modalities are generated from one another
GRID = 4  # number of rows that the report shows with generated modalities
FITTED = ("log_likelihood", "bound", "rows")  # copied from the manifest of the density if present
USUAL = {"temperature": 1.0, "truncation": 0.0}  # settings of draws, written only if they differ


@dataclass(frozen=True)
class Evaluation:
    """The scores of a density, half-samples of the scores of all modalities together, and rows for pictures."""

    scores: dict[str, Any]
    arrays: dict[str, np.ndarray]
    density: str  # the hash of the density

    def save(self, project: Project, name: str) -> None:
        """Write results/metrics/<name>.json and artefacts/evaluation/<name>."""
        write_json(project.results.scores("metrics", name), self.scores)
        origins = {"density": self.density, "samples": self.scores["samples"]}
        origins["reference"] = folder_hash(project.artefacts.baselines)
        save_artefact(project.artefacts.evaluation / name, KIND, origins, arrays=self.arrays)


def evaluate(
    name: str,
    generator: Generator,
    synthetic: Dataset,
    test: Dataset,
    codes: dict[str, Codes],
    baselines: Baselines,
    evaluators: Evaluators,
    fitted: dict[str, Any],
    params: Params,
) -> Evaluation:
    """Score the samples of a density, and conditional generation with it.

    Args:
        codes: The codes of `train` and `test`.
        fitted: The manifest of the density.

    Raises:
        UserError: There are fewer samples than rows in the reference set.
    """
    if len(synthetic) < len(baselines):
        raise UserError(
            f"{synthetic.folder}: found {len(synthetic)} samples, expected at least {len(baselines)}, the size of the "
            f"reference set; set generate.samples to {len(baselines)} or more and run postprior generate {name}"
        )
    with suited_to(test.modalities), progress(f"evaluate {name}", 4) as step:
        half = test.select(baselines.rows)
        samples = lacking_as(scored_rows(synthetic, half.observed), half)
        outputs = evaluators.outputs(samples)
        step("features")
        scores = baselines.score(outputs, half, samples)
        step("scores")
        memorised = check_memorisation(name, generator.density, fitted, codes["train"], codes["test"], params.seed)
        written = {
            **baselines.row(scores, half, samples),
            **conditional(generator, evaluators, test, baselines, params),
            **facts(synthetic, fitted),
            "memorisation": memorised,
            "samples": len(baselines),
        }
        if synthetic.mask is not None:
            add_missing_shares(written, synthetic)  # those of the scored samples are nearly those of real rows
        step("conditional generation")
        joint_scores = {key: values for key, values in scores.items() if "/" not in key}
        arrays = {f"scores.{key}": values for key, values in joint_scores.items() if not isinstance(values, Missing)}
        grid_rows = test.select(baselines.real[:GRID])
        arrays |= grid(generator.model, generator.density, grid_rows, params.evaluate.seed)
        step("pictures")
    return Evaluation(written, arrays, generator.provenance["density"])


def conditional(
    generator: Generator, evaluators: Evaluators, test: Dataset, baselines: Baselines, params: Params
) -> dict[str, Any]:
    """Score the generation of modalities from others through the density, on rows of `real`; empty without labels."""
    if evaluators.classifiers is None:
        return {}
    rng = np.random.default_rng(params.evaluate.seed)
    chosen = np.flatnonzero(test.labelled[baselines.real])[:CONDITIONED]
    rows, weights = test.select(baselines.real[chosen]), baselines.real_weights[:, chosen]
    return density_conditional_scores(generator.model, generator.density, evaluators.classifiers, rows, weights, rng)


def facts(synthetic: Dataset, density: dict[str, Any]) -> dict[str, Any]:
    """Return facts about the samples and their density, and the settings of draws that differ from the usual ones."""
    drawn = synthetic.provenance
    written = {key: drawn[key] for key in ("labels_from", "stores_training_codes")}
    written |= {key: value for key in FITTED if (value := density.get(key))}
    written |= {key: drawn[key] for key, usual in USUAL.items() if drawn.get(key, usual) != usual}
    written |= {"values": REFINED} if drawn.get("values") == REFINED else {}
    if {"train", "validation"} <= set(likelihood := density["log_likelihood"]):
        train, validation = likelihood["train"], likelihood["validation"]
        missing = next((score for score in (train, validation) if isinstance(score, dict)), None)
        written["overfitting"] = missing or train - validation
    if why := density["learned"].get("why"):
        written["why"] = why
    return written


def scored_rows(synthetic: Dataset, observed: NDArray[np.bool_]) -> Dataset:
    """Return samples with the patterns `observed` (R, M); they have no labels if judges gave them."""
    chosen = patterned_as(synthetic, observed)
    return replace(chosen, labels=None) if synthetic.provenance["labels_from"] == "judges" else chosen
