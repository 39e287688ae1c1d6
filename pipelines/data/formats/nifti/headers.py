"""Headers of NIfTI files as facts of a dataset, and the files that are written with them.

A header is kept as its bytes without texts, which may name a subject. It has the stored type, slope and intercept, both
forms of the affine, the repetition time and all else that an export gives back.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from postprior.pipelines.data.arrays import Values
from postprior.pipelines.data.conversion.columns import as_dtype
from postprior.pipelines.data.formats.files import ends_in
from postprior.pipelines.data.formats.nifti.names import IMAGES

TEXTS = {"descrip", "aux_file", "db_name"}


def packed(image: Any, affine: Values | None = None) -> str:
    """Return the header of an image that was read, with another `affine` if one is given."""
    header = image.header.copy()
    for name in TEXTS & set(header.keys()):
        header[name] = b""
    header["scl_slope"], header["scl_inter"] = image.dataobj.slope, image.dataobj.inter
    if affine is not None:
        header.set_qform(affine, int(header["qform_code"]), strip_shears=True)
        header.set_sform(affine, int(header["sform_code"]) or 1)
    return base64.b64encode(header.binaryblock).decode()


def header_of(facts: dict[str, Any], sample: str, path: Path) -> tuple[Any, Any]:
    """Return the class of image and the header of a sample's file; a new one for samples without a file."""
    import nibabel

    block = base64.b64decode(facts.get("headers", {}).get(sample) or facts.get("header", ""))
    pair = ends_in(path, IMAGES)
    kind: Any
    if len(block) > nibabel.Nifti1Header.sizeof_hdr:
        kind = nibabel.Nifti2Pair if pair else nibabel.Nifti2Image
    else:
        kind = nibabel.Nifti1Pair if pair else nibabel.Nifti1Image
    if block:
        return kind, kind.header_class(block, check=False)
    header = kind.header_class()  # of a dataset whose facts have no header
    header.set_data_dtype(np.dtype(facts.get("stored", "float32")))
    header.set_xyzt_units(*facts["units"])
    for form, code in zip((header.set_qform, header.set_sform), facts["codes"], strict=True):
        form(np.array(facts["affine"]), code)
    return kind, header


def stored(values: Values, header: Any) -> tuple[Values, tuple[float, float]]:
    """Return the numbers that a file stores for these values, and their slope and intercept.

    They have the type, slope and intercept of the header if these give exactly the values; otherwise they are the
    values in their own type.
    """
    from nibabel.volumeutils import apply_read_scaling

    slope, inter = (float(header[name]) for name in ("scl_slope", "scl_inter"))
    if not (np.isfinite([slope, inter]).all() and slope):
        slope, inter = 1.0, 0.0
    scaled = (slope, inter) != (1, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        raw = (values - inter) / slope if scaled else values
        numbers = as_dtype(raw, header.get_data_dtype().newbyteorder("="))
        given = apply_read_scaling(numbers, np.float64(slope), np.float64(inter)) if scaled else numbers
    if np.array_equal(given, values, equal_nan=values.dtype.kind == "f"):
        return numbers, (slope, inter)
    return values, (1.0, 0.0)
