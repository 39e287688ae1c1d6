"""`postprior export`: write a real, synthetic or imputed dataset folder as files in the original units and types."""

from dataclasses import replace
from pathlib import Path

from postprior.pipelines.data.conversion import ArrayConversion, Conversion, TableConversion
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.formats import FORMATS, samples_of
from postprior.pipelines.data.formats.samples import Samples
from postprior.pipelines.data.formats.tables import write_table
from postprior.pipelines.data.formats.text_files import stem
from postprior.pipelines.errors import UserError
from postprior.pipelines.publishing import check_folder, publish
from postprior.pipelines.settings.names import pick
from postprior.pipelines.storage import MANIFEST

TABLES = {"csv": ".csv", "parquet": ".parquet"}
CHOICES = (*TABLES, "npz", "images")
MODES = {1: ("HW", "L"), 3: ("HWC", "RGB"), 4: ("HWC", "RGBA")}
"""The axes and mode of an image file, by number of channels."""
FILLED = "postprior-filled.csv"
"""The table of imputed values; the other files have the format of the originals, which cannot mark imputed values."""


def export(folder: Path, out: Path, format: str | None = None, excel_safe: bool = False) -> list[str]:
    """Write the samples of a dataset folder as files under `out`, and return the names of the files.

    Each modality is written in the format that it was imported from, or in `format`. Data that were not imported are
    written as .npz archives and CSVs. Imputed data gets an additional table that lists what was imputed (`FILLED`).
    Observed values are written exactly as in the source file if they are unchanged. With `excel_safe`, other texts in
    CSVs that look like formulas get an apostrophe.
    """
    check_folder(out, inputs=[folder])
    if not (folder / MANIFEST).exists() and (folder / "train" / MANIFEST).exists():
        expected = f"expected one dataset folder; export {folder / 'train'} or another split"
        raise UserError(f"{folder}: a folder of splits found, {expected}")
    samples = replace(samples_of(Dataset.load(folder)), excel_safe=excel_safe)
    if format is not None:
        pick(dict.fromkeys(CHOICES), format, "--format", "format")
        samples = _in_format(samples, format)
    files: dict[tuple[str, str], list[Conversion]] = {
        ("tables", ""): []
    }  # also for tables of labels and covariates only
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
    """Return the samples with conversions to another file format; a UserError if a modality does not fit it."""
    for conversion in samples.conversions:
        if isinstance(conversion, TableConversion) != (format in TABLES):
            kinds, found = "tables" if format in TABLES else "arrays", conversion.modality.kind
            remedy = "choose another format or leave --format out"
            name = conversion.title or conversion.name
            raise UserError(f"--format {format}: {name} is a {found}, expected only {kinds}; {remedy}")
    if format in TABLES:
        names = {file: stem(file) + TABLES[format] for file in samples.tables}
        moved = [replace(c, facts={"source": "tables", "file": names[c.facts["file"]]}) for c in samples.conversions]
        tables = {names[file]: headers for file, headers in samples.tables.items()}
        return replace(samples, conversions=tuple(moved), tables=tables)
    if format == "npz":  # the archive holds labels and targets, so no table is written
        moved = [replace(c, facts={"source": "npz", "file": "data.npz"}) for c in samples.conversions]
        return replace(samples, conversions=tuple(moved), tables={})
    arrays = {c.name: c for c in samples.conversions if isinstance(c, ArrayConversion)}
    images = {name: _as_images(conversion) for name, conversion in arrays.items()}
    originals = samples.dataset.source_values
    unchanged = {name: originals[name] for name in originals if images.get(name) is arrays.get(name)}
    dataset, tables = replace(samples.dataset, source_values=unchanged), samples.tables or {"samples.csv": []}
    return replace(samples, dataset=dataset, conversions=tuple(images.values()), tables=tables)


def _as_images(conversion: ArrayConversion) -> ArrayConversion:
    """Return a conversion from values in [0, 1] to pixels of 8 bits."""
    if conversion.facts["source"] == "images":
        return conversion
    modality = conversion.modality
    if modality.kind != "image" or modality.shape[0] not in MODES or list(modality.range or ()) != [0, 1]:
        found = f"{modality.title} is a {modality.kind} of shape {list(modality.shape)}"
        expected = "expected images of 1, 3 or 4 channels with values from 0 to 1; use --format npz"
        raise UserError(f"--format images: {found}, {expected}")
    channels, *size = modality.shape
    axes, mode = MODES[channels]
    facts = {"source": "images", "folder": conversion.name, "mode": mode, "suffix": ".png"}
    shape, name = (*size, channels)[: len(axes)], conversion.name
    return ArrayConversion(
        name, "numeric", axes, "uint8", shape, scale=255.0, range=(0.0, 1.0), facts=facts, title=modality.title
    )
