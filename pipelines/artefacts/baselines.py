"""The baselines: half of the test rows that samples are scored against, and the rows scored already."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.metrics.coherence.alignment import Alignment, Critic, Directions
from postprior.pipelines.metrics.features.evaluator_outputs import EvaluatorOutputs
from postprior.pipelines.metrics.fidelity.tables import add_column_tests, table_scores
from postprior.pipelines.metrics.scores import ReferenceSet, row, score
from postprior.pipelines.metrics.statistics.intervals import Floats, Ints, Scores
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.pipelines.storage import load_artefact, rebuilding, save_artefact

KIND = "reference"
GALLERY = 8  # tuples of every row that are kept as images
WEIGHTS = {  # of each row that is scored
    "real": "real",
    "reconstruction": "real",  # held-out rows, encoded and decoded
    "normal": "synthetic",  # draws of the model's own prior
}


@dataclass(frozen=True)
class Baselines:
    """What samples are scored against, and the rows scored already."""

    reference: ReferenceSet  # the reference half
    alignment: Alignment  # how its modalities go together
    rows: Ints  # of the test split that are the reference half
    weights: Floats  # (1 + B, N), of as many synthetic rows as are scored
    real: Ints  # rows of the test split that are scored as `real`
    real_weights: Floats  # (1 + B, N), theirs
    scores: dict[str, Scores]  # of whole tuples, by row: the keys of `WEIGHTS`
    manifest: dict[str, Any]  # of the artefact

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The baselines that the stage left in a folder."""
        artefact = load_artefact(folder, KIND)
        arrays, manifest = artefact.arrays, artefact.manifest
        with rebuilding(folder):
            outputs = EvaluatorOutputs(tuple(arrays[f"features.reference.{name}"] for name in manifest["modalities"]))
            alignment = Alignment(None, None, manifest["seed"])
            if manifest["critic"] is not None:
                critic = Critic.from_state(artefact.tensors, manifest["critic"])
                alignment = replace(alignment, critic=critic, directions=Directions.fit(outputs.features))
            missing = manifest.get("missing", {})
            scores = {of: _known(of, arrays, missing.get(of, {})) for of in WEIGHTS}
            weights = {of: arrays[f"weights.{of}"] for of in ("reference", "real", "synthetic")}
            rows = arrays["rows.reference"], arrays["rows.real"]
            return cls.fit(outputs, weights, rows, manifest, alignment, scores)

    @classmethod
    def fit(
        cls,
        outputs: EvaluatorOutputs,
        weights: dict[str, Floats],
        rows: tuple[Ints, Ints],
        manifest: dict[str, Any],
        alignment: Alignment | None = None,
        scores: dict[str, Scores] | None = None,
    ) -> Self:
        """The baselines of a reference half with these outputs.

        Args:
            weights: half-samples of `reference`, `real` and `synthetic` rows.
            rows: of the test split: the half, and those scored as `real`.
            manifest: where all comes from, the settings of `evaluate`, `modalities` and `classes`.
            alignment: of the half; learned from it if None.
        """
        names, classes = tuple(manifest["modalities"]), manifest["classes"]
        reference = ReferenceSet.fit(outputs, weights["reference"], manifest["neighbours"], names, classes)
        alignment = alignment or Alignment.fit(outputs, manifest["seed"])
        (half, real), ours, theirs = rows, weights["synthetic"], weights["real"]
        return cls(reference, alignment, half, ours, real, theirs, scores or {}, manifest)

    def save(self, folder: Path, outputs: dict[str, EvaluatorOutputs], sets: dict[str, Dataset]) -> None:
        """Publish the baselines, with outputs of the half and of every row scored, and some images of these."""
        whole = [name for name in self.scores["real"] if "/" not in name and name in self.scores["normal"]]
        tensors, critic = self.alignment.state()
        manifest = self.manifest | {"critic": critic, "scores": whole}
        arrays = {
            "rows.reference": self.rows,
            "rows.real": self.real,
            "weights.reference": self.reference.joint.weights,
            "weights.real": self.real_weights,
            "weights.synthetic": self.weights,
        }
        for of, found in self.scores.items():
            chosen = {name: found[name] for name in whole}
            arrays |= {f"scores.{of}.{name}": x for name, x in chosen.items() if not isinstance(x, Missing)}
            if why := {name: x.why for name, x in chosen.items() if isinstance(x, Missing)}:
                manifest["missing"] = manifest.get("missing", {}) | {of: why}
        for of, seen in outputs.items():
            features = zip(self.manifest["modalities"], seen.features, strict=True)
            arrays |= {f"features.{of}.{name}": array for name, array in features}
            told = {field: getattr(seen, field) for field in ("predictions", "labels", "groups")}
            arrays |= {f"{field}.{of}": array for field, array in told.items() if array is not None}
        for of, dataset in sets.items():
            images = [m.name for m in dataset.modalities if m.kind == "image" and len(dataset)]
            arrays |= {f"gallery.{of}.{name}": np.asarray(dataset.data[name][:GALLERY]) for name in images}
        save_artefact(folder, KIND, manifest, tensors, arrays)

    def score(self, outputs: EvaluatorOutputs, half: Dataset, rows: Dataset, weights: Floats | None = None) -> Scores:
        """Every score of rows and their outputs, with weights (1 + B, N), those of synthetic rows if None.

        The reference half is for tables.
        """
        weights = self.weights if weights is None else weights
        own = self.alignment.score(outputs, weights, self.scores.get("real"))
        own |= table_scores(half, self.reference.joint.weights, rows, weights)
        return score(outputs, weights, self.reference) | own

    def row(self, scores: Scores, half: Dataset, synthetic: Dataset) -> dict[str, Any]:
        """Scores as written, beside those of the model's own prior and of reconstructions."""
        written = row(scores, self.scores["normal"], self.scores["reconstruction"])
        add_column_tests(written, half, synthetic)
        return written | {"cautions": self.manifest["cautions"]}

    def __len__(self) -> int:
        """The number of rows that are scored."""
        return self.weights.shape[1]


def _known(of: str, arrays: dict[str, np.ndarray], missing: dict[str, str]) -> Scores:
    """The scores of a row that `Baselines.save` put there."""
    place = f"scores.{of}."
    found: Scores = {key.removeprefix(place): values for key, values in arrays.items() if key.startswith(place)}
    return found | {name: Missing(why) for name, why in missing.items()}
