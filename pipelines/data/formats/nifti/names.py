"""Names of NIfTI files: the sample, the subject and the modality of each, and the name of an exported one."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from postprior.pipelines.data.formats.files import ends_in, files_in, holds, inside

ABOUT = "a folder of NIfTI volumes (.nii, .nii.gz, or pairs of .hdr and .img)"
HEADERS, IMAGES = (".hdr", ".hdr.gz"), (".img", ".img.gz")
SUFFIXES = (".nii", ".nii.gz", *HEADERS)
SUFFIX = re.compile(r"\.(nii|hdr|img)(\.gz)?$", re.IGNORECASE)
BIDS = re.compile(r"(?P<subject>sub-[A-Za-z0-9]+)(?P<session>_ses-[A-Za-z0-9]+)?_(?P<modality>.+)")


@dataclass(frozen=True)
class Volume:
    """One file; if its name is not a BIDS name, the `subject` is the sample and the `folder` is None.

    `pattern` is its file name, with {} in place of the sample, if there is one folder per sample.
    """

    path: Path
    sample: str
    modality: str
    subject: str
    folder: str | None
    pattern: str | None = None


def recognises(path: Path) -> bool:
    """Whether a path is a folder that contains NIfTI files, at any depth."""
    return holds(path, SUFFIXES)


def volumes_in(folder: Path) -> list[Volume]:
    """Return the volumes of a folder; a pair of .hdr and .img is one volume."""
    files = files_in(folder, (*SUFFIXES, *IMAGES))
    images = {_stem(file) for file in files if ends_in(file, IMAGES)}
    volumes = [_named(file) for file in files if not (ends_in(file, HEADERS) and _stem(file) in images)]
    others = [volume for volume in volumes if volume.folder is None]
    by_sample = [_in_folder_of_sample(volume) for volume in others]
    if len({volume.modality for volume in others}) <= len({volume.modality for volume in by_sample}):
        return volumes
    return [volume for volume in volumes if volume.folder is not None] + by_sample


def suffix_of(path: Path) -> str:
    """Return the suffix of a file name, in its original case."""
    match = SUFFIX.search(path.name)
    return match[0] if match else ""


def _stem(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(suffix_of(path)))


def _named(path: Path) -> Volume:
    stem = _stem(path).name
    match = BIDS.fullmatch(stem)
    if match is None:
        return Volume(path, stem, path.parent.name, stem, None)
    subject, session = match["subject"], match["session"] or ""
    folder = "" if path.parent.name.startswith(("sub-", "ses-")) else path.parent.name
    return Volume(path, subject + session, match["modality"], subject, folder)


def _in_folder_of_sample(volume: Volume) -> Volume:
    """Return a volume whose folder is its sample and whose file name is its modality."""
    sample, stem = volume.path.parent.name, volume.sample
    modality = stem.removeprefix(sample).lstrip("_-. ") or stem
    pattern = "{}" + stem.removeprefix(sample) if stem.startswith(sample) else stem
    return replace(volume, sample=sample, subject=sample, modality=modality, pattern=pattern)


def path_of(folder: Path, sample: str, facts: dict[str, Any]) -> Path:
    """Return the path of a sample's file, named in the style of the imported files."""
    suffix = facts.get("suffix", ".nii.gz")
    if pattern := facts.get("pattern"):
        return inside(inside(folder, sample), f"{pattern.replace('{}', sample)}{suffix}")
    if facts["folder"] is None:
        return inside(folder / facts["modality"], f"{sample}{suffix}")
    name = sample if sample.startswith("sub-") else f"sub-{sample}"
    parts = [part for part in re.split("_(?=ses-)", name) if part]
    home = folder.joinpath(*(inside(folder, part).name for part in parts), facts["folder"])
    return inside(home, f"{name}_{facts['modality']}{suffix}")
