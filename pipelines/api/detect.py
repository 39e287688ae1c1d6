"""`postprior detect`: how strange rows are beside the normal ones that a project was trained on, as a table."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats.tables import write_table
from postprior.pipelines.detection.detector import Detection, Detector
from postprior.pipelines.detection.rarity import alarm_rate
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.publishing import check_file, publish_path
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import MANIFEST
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae.modalities import Modality

ENDINGS = (".csv", ".tsv", ".parquet")


def detect(
    name: str,
    folder: Path,
    params: Params,
    root: Path,
    out: Path,
    calibration: Path | None = None,
    alpha: float = 0.05,
    force: bool = False,
) -> list[str]:
    """Score the rows of a dataset folder through density `name`; returns lines that say how many were flagged.

    The project's training rows, artefacts/data/train, say what is normal: they must be normal rows.

    Args:
        out: a table that ends in .csv, .tsv or .parquet, one line a row in the order of `folder`: id, or number of the
            row; score; p_value; flagged; the statistics, `STATISTIC.MODALITY`, and code and distance of the whole row;
            `contribution.MODALITY` to the score; the feature that surprises most, and by how many nats.
        calibration: a dataset folder of normal rows that had no part in training; artefacts/data/test if None.
        alpha: rows are flagged whose p-value is not greater.

    Raises:
        UserError: an unknown density, rows of other modalities, another ending, a file in the way, or too few
            calibration rows for alpha.
    """
    pick(dict.fromkeys(ENDINGS), out.suffix, f"{out}", "ending of a table")
    check_file(out, force)
    if not 0 < alpha < 1:
        raise UserError(f"alpha: found {alpha}, expected a number above 0 and below 1, such as 0.05")
    project = Project(root)
    place = project.artefacts.densities / name
    if not (place / MANIFEST).exists():
        fitted = {path.parent.name: path for path in place.parent.glob(f"*/{MANIFEST}")}
        pick(fitted, name, f"{place.parent}", "fitted density")
    normal = project.dataset("train")
    held_out = project.dataset("test") if calibration is None else Dataset.load(calibration)
    if not alarm_rate(alpha, len(held_out)):
        n, least = len(held_out), 1 / (len(held_out) + 1)
        raise UserError(
            f"alpha: found {alpha}, expected {least:.3g} at least, the smallest p-value that {n} calibration rows can "
            "give; take a larger alpha or give more of them (--calibration)"
        )
    data = Dataset.load(folder)
    with track("detect", params, root, density=name) as run:
        run.dataset(folder, data.hash)
        detector = Detector.fit(Generator.load(place), normal, held_out, params.seed)
        found = detector.score(data)
        flagged = found.flagged(alpha)
        with publish_path(out) as path:
            write_table(as_table(detector.normal.modalities, data, found, flagged), path)
        run.metrics({"flagged": float(flagged.mean())})
    return summary(found, flagged, alpha, out)


def as_table(modalities: tuple[Modality, ...], data: Dataset, found: Detection, flagged: np.ndarray) -> pa.Table:
    """A line a row, as `detect` writes it."""
    columns: dict[str, Any] = {"row": np.arange(len(data))} if data.ids is None else {"id": data.ids}
    columns |= {"score": found.score, "p_value": found.p_value, "flagged": flagged}
    for statistic, values in found.statistics.items():
        columns |= {f"{statistic}.{m.name}": column for m, column in zip(modalities, values.T, strict=True)}
    columns |= found.row_statistics
    columns |= {f"contribution.{m.name}": x for m, x in zip(modalities, found.contributions.T, strict=True)}
    if found.features:
        columns["top_feature"], columns["top_surprise"] = top_features(modalities, found)
    arrays = {key: pa.array(values, from_pandas=True) for key, values in columns.items()}  # NaN becomes null
    return pa.table(arrays)


def top_features(modalities: tuple[Modality, ...], found: Detection) -> tuple[np.ndarray, np.ndarray]:
    """The feature of each row that surprises most, `MODALITY.FEATURE`, and its surprise in nats: (N,) each."""
    having = [m for m in modalities if m.name in found.features]
    known = [[column.name for column in m.columns] or range(m.shape[0]) for m in having]
    names = [f"{m.name}.{feature}" for m, features in zip(having, known, strict=True) for feature in features]
    surprise = np.concatenate([found.features[m.name] for m in having], 1)
    return np.array(names)[surprise.argmax(1)], surprise.max(1)


def summary(found: Detection, flagged: np.ndarray, alpha: float, out: Path) -> list[str]:
    """How many rows were flagged, and what is promised of normal ones, a line for each number of calibration rows."""
    lines = [f"{out}: {len(flagged)} rows, {int(flagged.sum())} flagged at alpha {alpha:g}"]
    for n in np.unique(found.calibrated_on)[::-1].tolist():
        rows = found.calibrated_on == n
        rate = float(alarm_rate(alpha, n))
        none = f"none can be flagged, p-values are {1 / (n + 1):.3g} at least"
        promise = f"of normal ones {rate:.3f} are flagged on average" if rate else none
        lines.append(f"  {int(rows.sum())} rows set against {n} calibration rows: {promise}")
    return lines
