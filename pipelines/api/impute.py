"""`postprior impute`: a dataset folder with all that its rows lack filled in, once or several times."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.data.dataset import Dataset, conformed, writing
from postprior.pipelines.data.manifest import ROWWISE, Manifest, files_of
from postprior.pipelines.generation.completion import ROWS, filled_fields
from postprior.pipelines.generation.generator import Generator
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder, publish
from postprior.pipelines.settings.params import Params
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
    """Complete the rows of a dataset folder through density `name`; returns lines that say what was filled in.

    One draw is the dataset folder `out`; several are its folders 1, 2, …, in which all that was observed is the same to
    the bit. `filled.npy` marks the values that were imputed. How far several draws of the decoders lie apart is
    calibrated on validation rows. What is None is taken from `generate` in params.yaml.
    """
    check_folder(out, earlier, [folder])
    project = Project(root)
    generator = Generator.load(project.artefacts.densities / name)
    data = conformed(Dataset.load(folder), generator.modalities, generator.conversion)
    values = params.generate.values if values is None else values
    seed = params.generate.seed if seed is None else seed
    calibrated = values == "draws" and draws > 1
    spread = generator.spread(project.dataset("validation"), data, seed) if calibrated else None
    blocks = generator.completed(data, draws, seed, values, spread=spread)
    fields = filled_fields(data)
    known = {key: array for key in ROWWISE if (array := getattr(data, key)) is not None}
    known |= {"filled": fields["filled"]}
    known |= {f"{name}.filled": cells for name, cells in fields["filled_cells"].items()}
    with track("impute", params, root, density=name) as run, ExitStack() as stack:
        run.dataset(folder, data.hash)
        home = stack.enter_context(publish(out, earlier, [folder]))
        places = [home] if draws == 1 else [home / str(draw + 1) for draw in range(draws)]
        told = [generator.describe_imputed(data, seed, values, draw) for draw in range(draws)]
        manifests = [Manifest(generator.modalities, len(data), data.label_names, of, data.conversion) for of in told]
        writers = [
            stack.enter_context(writing(place, manifest, False, known, source_values=data.source_values))
            for place, manifest in zip(places, manifests, strict=True)
        ]
        with progress(f"impute {name}", -(-len(data) // ROWS)) as step:
            for start, block in blocks:
                for draw, write in enumerate(writers):
                    write(start, {of: array[draw] for of, array in block.items()})
                step("")
    return summary(fields["filled"], generator, out, draws)


def earlier(out: Path) -> set[Path]:
    """The files, relative to `out`, of what was imputed there before: one dataset or several, numbered."""
    several = [path for path in out.iterdir() if path.name.isdecimal()]
    return {place.relative_to(out) / file for place in (out, *several) for file in files_of(place, "imputed")}


def summary(filled: np.ndarray, generator: Generator, out: Path, draws: int) -> list[str]:
    """Which values were filled in, a line a modality, and where they are."""
    counts = zip(generator.modalities, filled.sum(0).tolist(), strict=True)
    told = [f"  {m.name}: {count} of {len(filled)} rows filled in" for m, count in counts if count]
    where = f"{out}" if draws == 1 else f"{out}/1 … {out}/{draws}"
    return [f"{where}: {int(filled.any(1).sum())} rows lacked something", *told]
