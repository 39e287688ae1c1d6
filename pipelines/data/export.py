"""`postprior export`: a dataset folder, real, synthetic or imputed, as files in their own units and types."""

from dataclasses import replace
from pathlib import Path

from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import FORMATS, samples_of
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.tables import write_table
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import check_folder, publish
from postprior.pipelines.settings.names import pick
from postprior.pipelines.storage import MANIFEST

TABLES = {"csv": ".csv", "parquet": ".parquet"}
CHOICES = (*TABLES, "npz", "images")
MODES = {1: ("HW", "L"), 3: ("HWC", "RGB"), 4: ("HWC", "RGBA")}
"""Channels of an image, and the axes and mode of the file that holds them."""
FILLED = "postprior-filled.csv"
"""The table of what was imputed: the other files are as their originals, which have no place for it."""


def export(folder: Path, out: Path, format: str | None = None, excel_safe: bool = False) -> list[str]:
    """Write the samples of a dataset folder under `out`; returns the names of the files.

    Every modality goes back into the kind of file that it came from, or into `format`. Data that were never imported
    become .npz archives and CSVs. Beside imputed ones stands a table that says what was filled in (`FILLED`). What
    nobody filled in is as its file had it, if it still stands there; `excel_safe` guards the other texts of CSVs.
    """
    check_folder(out, inputs=[folder])
    if not (folder / MANIFEST).exists() and (folder / "train" / MANIFEST).exists():
        expected = f"expected one dataset; give {folder / 'train'} or another of them"
        raise UserError(f"{folder}: a folder of splits found, {expected}")
    samples = replace(samples_of(Dataset.load(folder)), excel_safe=excel_safe)
    if format is not None:
        pick(dict.fromkeys(CHOICES), format, "--format", "format")
        samples = _in_format(samples, format)
    files: dict[tuple[str, str], list[Conversion]] = {("tables", ""): []}  # of labels and covariates alone, too
    for conversion in samples.conversions:
        source = conversion.facts["source"]
        file = "" if source == "tables" else conversion.facts.get("file", "")
        files.setdefault((source, file), []).append(conversion)
    with publish(out, inputs=[folder]) as temporary:
        for (source, file), chosen in files.items():
            FORMATS[source].write(samples, chosen, temporary / file)
        if samples.dataset.filled is not None:
            write_table(samples.filled, temporary / FILLED)
        return sorted({path.relative_to(temporary).parts[0] for path in temporary.rglob("*")})


def _in_format(samples: Samples, format: str) -> Samples:
    """The samples for another kind of file; a modality that does not fit there is refused."""
    for conversion in samples.conversions:
        if isinstance(conversion, TableConversion) != (format in TABLES):
            kinds, found = "tables" if format in TABLES else "arrays", conversion.modality.kind
            raise UserError(f"--format {format}: {conversion.name} is a {found}, expected {kinds} alone")
    if format in TABLES:
        names = {file: Path(file).with_suffix(TABLES[format]).name for file in samples.tables}
        moved = [replace(c, facts={"source": "tables", "file": names[c.facts["file"]]}) for c in samples.conversions]
        tables = {names[file]: headers for file, headers in samples.tables.items()}
        return replace(samples, conversions=tuple(moved), tables=tables)
    if format == "npz":  # an archive has labels and targets of its own
        moved = [replace(c, facts={"source": "npz", "file": "data.npz"}) for c in samples.conversions]
        return replace(samples, conversions=tuple(moved), tables={})
    arrays = {c.name: c for c in samples.conversions if isinstance(c, ArrayConversion)}
    images = {name: _as_images(conversion) for name, conversion in arrays.items()}
    known = samples.dataset.source_values
    kept = {name: known[name] for name in known if images.get(name) is arrays.get(name)}
    dataset, tables = replace(samples.dataset, source_values=kept), samples.tables or {"samples.csv": []}
    return replace(samples, dataset=dataset, conversions=tuple(images.values()), tables=tables)


def _as_images(conversion: ArrayConversion) -> ArrayConversion:
    """Pixels of 8 bits from values in 0 … 1."""
    if conversion.facts["source"] == "images":
        return conversion
    modality = conversion.modality
    if modality.kind != "image" or modality.shape[0] not in MODES or list(modality.range or ()) != [0, 1]:
        found = f"{modality.name} is a {modality.kind} of shape {list(modality.shape)}"
        raise UserError(f"--format images: {found}, expected images of 1, 3 or 4 channels with values from 0 to 1")
    channels, *size = modality.shape
    axes, mode = MODES[channels]
    facts = {"source": "images", "folder": conversion.name, "mode": mode, "suffix": ".png"}
    shape, name = (*size, channels)[: len(axes)], conversion.name
    return ArrayConversion(name, "numeric", axes, "uint8", shape, scale=255.0, range=(0.0, 1.0), facts=facts)
