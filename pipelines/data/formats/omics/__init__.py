"""AnnData and MuData files (.h5ad, .h5mu, .zarr): matrices of cells × features in their published layout.

X, or a layer in its place, is one modality; matrices of obsm are further ones on request. Rows are matched by cell
names. In a MuData file, obsm/<modality> is true for cells that have the modality. Columns of obs and var come back on
export, also those that no model sees.
"""

from postprior.pipelines.data.formats.omics.reading import read
from postprior.pipelines.data.formats.omics.stores import ABOUT, recognises
from postprior.pipelines.data.formats.omics.writing import write

FACTS: tuple[str, ...] = ("file", "modality", "features", "sparse")
OPTIONS: tuple[str, ...] = ("layer", "obsm", "nan_is_missing", "keep_rare", "repeated")

__all__ = ["ABOUT", "FACTS", "OPTIONS", "read", "recognises", "write"]
