"""Baselines: the reference set that samples are compared with, and the scores of the baseline rows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import emptied
from postprior.pipelines.metrics.coherence.alignment import Alignment, Critic, Directions
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.fidelity.holes import add_missing_shares
from postprior.pipelines.metrics.scores import ReferenceSet, row, score
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, Scores
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.metrics.tables.classifier_test import classifier_test
from postprior.pipelines.metrics.tables.column_tests import add_column_tests
from postprior.pipelines.metrics.tables.columns import Limits
from postprior.pipelines.metrics.tables.similarity import table_scores
from postprior.pipelines.storage import load_artefact, rebuilding, save_artefact

KIND = "reference"  # the kind stored in manifests
LIMITS = "limits."  # prefix of the arrays of the limits
GALLERY = 8  # number of tuples per row that are saved as images
WEIGHTS = {  # which weights each baseline row uses
    "real": "real",  # held-out rows
    "reconstruction": "real",  # the same rows, encoded and decoded
    "normal": "synthetic",  # draws from the prior of the model
}


@dataclass(frozen=True)
class Baselines:
    """The reference set that samples are compared with, and the scores of the baseline rows."""

    reference: ReferenceSet
    alignment: Alignment  # alignment of the modalities of the reference set
    rows: Ints  # rows of the test split in the reference set
    weights: Floats  # (1 + B, N), half-samples of the N synthetic rows that are scored
    real: Ints  # rows of the test split that are scored as `real`
    real_weights: Floats  # (1 + B, N), half-samples of the `real` rows
    scores: dict[str, Scores]  # scores of all modalities together by baseline row, the keys of `WEIGHTS`
    manifest: dict[str, Any]  # manifest of the artefact
    limits: Limits | None = None  # values of the tables' columns in the training rows

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the baselines that the stage `score-baselines` saved in a folder."""
        artefact = load_artefact(folder, KIND)
        arrays, manifest = artefact.arrays, artefact.manifest
        with rebuilding(folder):
            features = tuple(arrays[f"features.reference.{name}"] for name in manifest["modalities"])
            outputs = EvaluatorOutputs(features, mask=arrays.get("mask.reference"))
            alignment = Alignment(None, None, manifest["seed"])
            if manifest["critic"] is not None:
                critic = Critic.from_state(artefact.tensors, manifest["critic"])
                alignment = replace(alignment, critic=critic, directions=Directions.fit(outputs.select(outputs.paired)))
            missing = manifest.get("missing", {})
            scores = {row: _load_scores(row, arrays, missing.get(row, {})) for row in WEIGHTS}
            weights = {kind: arrays[f"weights.{kind}"] for kind in ("reference", "real", "synthetic")}
            rows = arrays["rows.reference"], arrays["rows.real"]
            limits = {name.removeprefix(LIMITS): array for name, array in arrays.items() if name.startswith(LIMITS)}
            return cls.fit(outputs, weights, rows, manifest, Limits(**limits) if limits else None, alignment, scores)

    @classmethod
    def fit(
        cls,
        outputs: EvaluatorOutputs,
        weights: dict[str, Floats],
        rows: tuple[Ints, Ints],
        manifest: dict[str, Any],
        limits: Limits | None,
        alignment: Alignment | None = None,
        scores: dict[str, Scores] | None = None,
    ) -> Self:
        """Build baselines from the evaluator outputs of the reference set.

        Args:
            weights: Half-samples of `reference`, `real` and `synthetic` rows.
            rows: Rows of the test split in the reference set, and rows that are scored as `real`.
            manifest: Hashes of the inputs, the settings of `evaluate`, `modalities`, `classes`, and the
                modalities over which means are taken, `averaged`.
            limits: Values of the tables' columns in the training rows; None without tables.
            alignment: Alignment of the reference set; fitted to it if None.
        """
        names, classes = tuple(manifest["modalities"]), manifest["classes"]
        averaged = tuple(manifest.get("averaged", names))
        reference = ReferenceSet.fit(outputs, weights["reference"], manifest["neighbours"], names, classes, averaged)
        alignment = alignment or Alignment.fit(outputs, manifest["seed"])
        reference_rows, real_rows = rows
        synthetic, real = weights["synthetic"], weights["real"]
        return cls(reference, alignment, reference_rows, synthetic, real_rows, real, scores or {}, manifest, limits)

    def save(self, folder: Path, outputs: dict[str, EvaluatorOutputs], sets: dict[str, Dataset]) -> None:
        """Publish the baselines, with evaluator outputs and images of the reference set and of the baseline rows."""
        names = [name for name in self.scores["real"] if "/" not in name and name in self.scores["normal"]]
        tensors, critic = self.alignment.state()
        manifest = self.manifest | {"critic": critic, "scores": names}
        arrays = {
            "rows.reference": self.rows,
            "rows.real": self.real,
            "weights.reference": self.reference.joint.weights,
            "weights.real": self.real_weights,
            "weights.synthetic": self.weights,
        }
        if self.limits is not None:
            arrays |= {f"{LIMITS}{name}": array for name, array in self.limits.arrays.items()}
        for row_name, scores in self.scores.items():
            saved = {name: scores[name] for name in names}
            arrays |= {f"scores.{row_name}.{name}": x for name, x in saved.items() if not isinstance(x, Missing)}
            if reasons := {name: x.why for name, x in saved.items() if isinstance(x, Missing)}:
                manifest["missing"] = manifest.get("missing", {}) | {row_name: reasons}
        for row_name, row_outputs in outputs.items():
            features = zip(self.manifest["modalities"], row_outputs.features, strict=True)
            arrays |= {f"features.{row_name}.{name}": array for name, array in features}
            fields = {field: getattr(row_outputs, field) for field in ("predictions", "labels", "groups", "mask")}
            arrays |= {f"{field}.{row_name}": array for field, array in fields.items() if array is not None}
        for row_name, dataset in sets.items():
            images = [m.name for m in dataset.modalities if m.kind == "image" and len(dataset)]
            arrays |= {f"gallery.{row_name}.{name}": np.asarray(dataset.data[name][:GALLERY]) for name in images}
        save_artefact(folder, KIND, manifest, tensors, arrays)

    def score(
        self, outputs: EvaluatorOutputs, reference: Dataset, rows: Dataset, weights: Floats | None = None
    ) -> Scores:
        """Compute all scores of `rows` from their evaluator outputs.

        Args:
            reference: The rows of the reference set; scores of tables and vectors need them.
            weights: Half-samples of the rows (1 + B, N); those of synthetic rows if None.
        """
        weights = self.weights if weights is None else weights
        scores = self.alignment.score(outputs, weights, self.scores.get("real"))
        sides = reference, self.reference.joint.weights, rows, weights
        scores |= table_scores(*sides, self.limits) | classifier_test(*sides)
        return score(outputs, weights, self.reference) | scores

    def row(self, scores: Scores, reference: Dataset, synthetic: Dataset) -> dict[str, Any]:
        """Return the content of the results file of a sampler, with comparisons to `normal` and `reconstruction`."""
        written = row(scores, self.scores["normal"], self.scores["reconstruction"])
        add_column_tests(written, reference, synthetic, self.limits)
        add_missing_shares(written, synthetic)
        if incomplete := int((~reference.observed.all(1)).sum()):
            written["incomplete_rows"] = incomplete  # of the scored rows, which lack a modality
        return written | {"cautions": self.manifest["cautions"]}

    def __len__(self) -> int:
        """The number of synthetic rows that are scored."""
        return self.weights.shape[1]


def lacking_as(samples: Dataset, reference: Dataset) -> Dataset:
    """Return samples without the modalities and cells that the rows of a reference set of equal size lack.

    Samples that lack values of their own are returned as they are.
    Features of a row depend on what it lacks, so complete samples cannot be compared with rows that are not.
    """
    if samples.mask is not None or samples.cells:
        return samples
    return emptied(replace(samples, mask=reference.mask, cells=reference.cells))


def _load_scores(row_name: str, arrays: dict[str, np.ndarray], missing: dict[str, str]) -> Scores:
    """Return the scores of a baseline row from arrays and reasons written by `Baselines.save`."""
    prefix = f"scores.{row_name}."
    scores: Scores = {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}
    return scores | {name: Missing(why) for name, why in missing.items()}
