"""NIfTI volumes and series of volumes, whole or cut into slices.

sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz    sample sub-01_ses-1 of subject sub-01, modality T1w
sub-01/anat/sub-01_acq-fast_T1w.nii          other entities are part of the modality: acq-fast_T1w
T1/0001.nii.gz                               one folder per modality: sample 0001, modality T1
0001/0001-t1.nii.gz                          one folder per sample: sample 0001, modality t1
"""

from postprior.pipelines.data.formats.nifti.grids import check_grid
from postprior.pipelines.data.formats.nifti.names import ABOUT, recognises
from postprior.pipelines.data.formats.nifti.reading import read
from postprior.pipelines.data.formats.nifti.writing import write

FACTS: tuple[str, ...] = ("modality", "folder", "affine", "affines", "codes", "units", "volume", "axis")
OPTIONS: tuple[str, ...] = ("slices", "series", "resample", "nan_is_missing")

__all__ = ["ABOUT", "FACTS", "OPTIONS", "check_grid", "read", "recognises", "write"]
