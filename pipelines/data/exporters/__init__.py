"""Samples back in foreign formats: a table of writers, each the counterpart of an importer.

A writer gets all samples and the conversions of the modalities that are its own, and writes files under a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from postprior.pipelines.data.conversion import Conversion
from postprior.pipelines.data.exporters.huggingface import write_datasets
from postprior.pipelines.data.exporters.images import write_images
from postprior.pipelines.data.exporters.nifti import write_nifti
from postprior.pipelines.data.exporters.npz import write_npz
from postprior.pipelines.data.exporters.omics import write_omics
from postprior.pipelines.data.exporters.samples import Samples
from postprior.pipelines.data.exporters.tables import write_tables

EXPORTERS: dict[str, Callable[[Samples, Sequence[Conversion], Path], None]] = {
    "datasets": write_datasets,
    "npz": write_npz,
    "tables": write_tables,
    "images": write_images,
    "nifti": write_nifti,
    "omics": write_omics,
}
"""Writers by the `source` that a modality's conversion names."""
