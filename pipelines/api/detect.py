"""The command `detect`: write a table that scores how unusual rows are, compared with normal training rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.sharing import sharing_of
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
    """Score the rows of a dataset folder with density `name`; return lines that report how many rows were flagged.

    The training rows of the project, artefacts/data/train, define what is normal; all of them must be normal rows.
    Several ranks share the rows; the first one writes and reports.

    Args:
        out: A .csv, .tsv or .parquet file with one line per row, in the order of `folder`: id or number of the row;
            score; p_value; flagged; the statistics, `STATISTIC.MODALITY`; code and distance of the whole row; the
            contributions to the score, `contribution.MODALITY`; the feature with the largest surprisal, and this
            surprisal in nats.
        calibration: A dataset folder of normal rows that were not used in training; artefacts/data/test if None.
        alpha: Rows with a p-value of at most alpha are flagged.

    Raises:
        UserError: The density is unknown, the modalities are not those of the model, the file name ends differently,
            the file exists, or there are too few calibration rows for alpha.
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
            f"alpha: found {alpha}, expected at least {least:.3g}, the smallest p-value possible with {n} calibration "
            "rows; use a larger alpha or more calibration rows (--calibration)"
        )
    data, train = Dataset.load(folder), project.artefacts.data / "train"
    read = [place, train, calibration or project.artefacts.data / "test", folder]
    sharing = sharing_of(project, params, "api.detect", read)
    with track("detect", params, root, density=name) as run:
        run.dataset(folder, data.hash)
        detector = Detector.fit(Generator.load(place), normal, held_out, params.seed)
        detection = detector.shared_score(data, sharing)
        if detection is None:
            return []
        flagged = detection.flagged(alpha)
        with publish_path(out) as path:
            write_table(as_table(detector.normal.modalities, data, detection, flagged), path)
        run.metrics({"flagged": float(flagged.mean())})
    return summary(detection, flagged, alpha, out)


def as_table(modalities: tuple[Modality, ...], data: Dataset, detection: Detection, flagged: np.ndarray) -> pa.Table:
    """Return the table that `detect` writes, with one line per row."""
    columns: dict[str, Any] = {"row": np.arange(len(data))} if data.ids is None else {"id": data.ids}
    columns |= {"score": detection.score, "p_value": detection.p_value, "flagged": flagged}
    for statistic, values in detection.statistics.items():
        columns |= {f"{statistic}.{m.title}": column for m, column in zip(modalities, values.T, strict=True)}
    columns |= detection.row_statistics
    columns |= {f"contribution.{m.title}": x for m, x in zip(modalities, detection.contributions.T, strict=True)}
    if detection.features:
        columns["top_feature"], columns["top_surprise"] = top_features(modalities, detection)
    arrays = {key: pa.array(values, from_pandas=True) for key, values in columns.items()}  # NaN becomes null
    return pa.table(arrays)


def top_features(modalities: tuple[Modality, ...], detection: Detection) -> tuple[np.ndarray, np.ndarray]:
    """Return the feature with the largest surprisal, `MODALITY.FEATURE`, and this surprisal in nats, per row: (N,)."""
    names, surprisals = [], []
    for m in modalities:
        if m.name in detection.features:
            features = [column.name for column in m.columns] or range(m.shape[0])
            names += [f"{m.title}.{feature}" for feature in features]
            surprisals.append(detection.features[m.name])
    surprisal = np.concatenate(surprisals, 1)
    return np.array(names)[surprisal.argmax(1)], surprisal.max(1)


def summary(detection: Detection, flagged: np.ndarray, alpha: float, out: Path) -> list[str]:
    """Report the number of flagged rows, and the expected alarm rate of normal rows by number of calibration rows."""
    lines = [f"{out}: {len(flagged)} rows, {int(flagged.sum())} flagged at alpha {alpha:g}"]
    for n in np.unique(detection.calibrated_on)[::-1].tolist():
        rows = detection.calibrated_on == n
        rate = float(alarm_rate(alpha, n))
        none = f"no row can be flagged, because p-values are at least {1 / (n + 1):.3g}"
        expected = f"on average a share of {rate:.3f} of normal rows is flagged" if rate else none
        lines.append(f"  {int(rows.sum())} rows compared with {n} calibration rows: {expected}")
    return lines
