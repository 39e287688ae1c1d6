"""The command `impute`: impute all missing values of a dataset folder, once or several times."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.sharing import sharing_of
from postprior.pipelines.data.dataset import Dataset, conformed
from postprior.pipelines.data.decoded import integer_scales, least_bytes
from postprior.pipelines.data.manifest import ROWWISE, Manifest, files_of
from postprior.pipelines.data.writing import writing
from postprior.pipelines.generation.completion import MOST, filled_fields, row_blocks
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.generation.request import is_drawn
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder, publish
from postprior.pipelines.settings.params import Params
from postprior.pipelines.space import check_space
from postprior.pipelines.texts import enumerated, tell
from postprior.pipelines.tracking.runs import track


def impute(
    name: str,
    folder: Path,
    params: Params,
    root: Path,
    out: Path,
    draws: int = 1,
    values: str | None = None,
    seed: int | None = None,
) -> list[str]:
    """Impute the missing values of a dataset folder with density `name`; return lines that report what was imputed.

    One draw is written to the dataset folder `out`, several draws to its folders 1, 2, …; observed values are identical
    in all of them, bit for bit. `filled.npy` marks the imputed values. Several `draws` of the decoders are calibrated
    on validation rows. Arguments that are None are taken from `generate` in params.yaml; the `values` of one
    draw are then means, the best guess.
    """
    check_folder(out, earlier, [folder])
    project = Project(root)
    generator = Generator.load(project.artefacts.densities / name)
    data = conformed(Dataset.load(folder), generator.modalities, generator.conversion)
    if names := generator.unlearned(data):
        tell(
            f"impute: no training row lacked {enumerated(names)}, so that the autoencoder has not learned to read rows "
            "without; train with train.hide_cells: 0.15, which hides cells of tables and vectors",
            err=True,
        )
    if values is None:
        values = "mean" if draws == 1 else params.generate.values
    seed = params.generate.seed if seed is None else seed
    size = draws * generator.row_bytes
    disk = draws * len(data) * least_bytes(generator.modalities, data.conversion)
    check_space(f"draws: {draws} draws of {len(data)} rows", min(MOST, len(data)) * size, disk, out)
    calibrated = draws > 1 and any(is_drawn(values, m) for m in generator.modalities)
    calibration = None
    if calibrated:
        forests = generator.cell_forests(project.dataset("train"), data, seed)
        calibration = generator.calibration(project.dataset("validation"), data, seed, forests)
    compute = partial(generator.completed, data, draws, seed, values, generator.labels_of(data), calibration)
    fields = filled_fields(data)
    arrays = {key: array for key in ROWWISE if (array := getattr(data, key)) is not None}
    arrays |= {"filled": fields["filled"]}
    arrays |= {f"{modality}.filled": cells for modality, cells in fields["filled_cells"].items()}
    read = [
        project.artefacts.densities / name,
        *(project.artefacts.data / part for part in ("train", "validation")),
        folder,
    ]
    sharing, count = sharing_of(project, params, "api.impute", read), len(row_blocks(data))
    with sharing.blocks(f"impute {name}", [draws, values, seed], count, compute) as blocks:
        if blocks is None:
            return []
        with track("impute", params, root, density=name) as run, ExitStack() as stack:
            run.dataset(folder, data.hash)
            home = stack.enter_context(publish(out, earlier, [folder]))
            places = [home] if draws == 1 else [home / str(draw + 1) for draw in range(draws)]
            provenances = [generator.describe_imputed(data, seed, values, draw) for draw in range(draws)]
            scales = integer_scales(generator.modalities, data.conversion, data)
            manifests = [
                Manifest(generator.modalities, len(data), data.label_names, provenance, data.conversion, scales)
                for provenance in provenances
            ]
            writers = [
                stack.enter_context(writing(place, manifest, (), arrays, source_values=data.source_values))
                for place, manifest in zip(places, manifests, strict=True)
            ]
            with progress(f"impute {name}", count) as step:
                for start, block in blocks:
                    for draw, write in enumerate(writers):
                        write(start, {modality: array[draw] for modality, array in block.items()})
                    step("")
    return summary(fields["filled"], generator, out, draws)


def earlier(out: Path) -> set[Path]:
    """Return the files of an earlier imputation in `out`, relative to it: one dataset, or several numbered datasets."""
    numbered = [path for path in out.iterdir() if path.name.isdecimal()]
    return {place.relative_to(out) / file for place in (out, *numbered) for file in files_of(place, "imputed")}


def summary(filled: np.ndarray, generator: Generator, out: Path, draws: int) -> list[str]:
    """Report where the datasets are and how many rows were imputed, one line per modality."""
    counts = zip(generator.modalities, filled.sum(0).tolist(), strict=True)
    by_modality = [f"  {m.title}: {count} of {len(filled)} rows imputed" for m, count in counts if count]
    places = f"{out}" if draws == 1 else f"{out}/1 … {out}/{draws}"
    return [f"{places}: {int(filled.any(1).sum())} rows had missing values", *by_modality]
