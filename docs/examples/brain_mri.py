"""Brain MRI: one contrast synthesised from others, slice by slice, NIfTI in and NIfTI out.

    pip install 'postprior[examples]'
    python docs/examples/brain_mri.py     # [--out FOLDER]

Prints what docs/examples/brain_mri.md tells, and draws its figures. The volumes are those of the MNI152 template that
nilearn carries: ICBM 2009a, nonlinear, symmetric (Fonov et al. 2009, https://doi.org/10.1016/S1053-8119(09)70884-5).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from steps import parser, postprior, publish, trained

from postprior.pipelines.metrics.fidelity.reconstruction import likeness

CONTRASTS = {"T1": "t1", "grey": "gm", "white": "wm"}
"""Our names of the three volumes, and those in nilearn's files."""
FIELD = 168, 192
"""Millimetres of the axial plane that hold the whole brain."""
SLABS = ("train",) * 15 + ("validation",) * 3 + ("test",) * 10 + ("validation",) * 3
"""Splits of slices of 1 mm from the bottom up, over and over: none of test lies beside one of training."""
TASKS = {
    "T1 from grey and white": ("T1", ("grey", "white")),
    "T1 from grey": ("T1", ("grey",)),
    "grey from T1": ("grey", ("T1",)),
    "white from T1": ("white", ("T1",)),
}
SETTINGS = {
    "vae.model": "mhvae",
    "vae.latent": 16,
    "vae.width": 8,
    "vae.likelihood_scale": "learned",
    "vae.options.mhvae.levels": 4,
    "vae.options.mhvae.channels": 8,
    "train.batch_size": 16,
    "train.learning_rate": 4.0e-3,
    "train.patience": 0,
}
"""What is set in params.yaml after `postprior init`."""
DENSITY = "gaussian"
OURS = "MHVAE"
Volumes = dict[str, np.ndarray]
Scores = dict[str, dict[str, np.ndarray]]


def scan(folder: Path, name: str) -> Path:
    """The file of a contrast: one folder a modality, one file a subject."""
    return folder / name / "mni152.nii.gz"


def write_template(folder: Path, voxel: int) -> Volumes:
    """The volumes (X, Y, Z) of the template, averaged over squares of `voxel` mm in the axial plane, as scans."""
    import nibabel

    nilearn = find_spec("nilearn")
    if nilearn is None or nilearn.submodule_search_locations is None:
        raise SystemExit("nilearn carries the volumes and is not installed; pip install 'postprior[examples]'")
    data = Path(nilearn.submodule_search_locations[0]) / "datasets/data"
    volumes = {}
    for name, key in CONTRASTS.items():
        image = nibabel.load(data / f"mni_icbm152_{key}_tal_nlin_sym_09a_converted.nii.gz")
        voxels = np.asanyarray(image.dataobj)
        count = [length // voxel for length in FIELD]
        first = [(whole - n * voxel) // 2 for whole, n in zip(voxels.shape, count, strict=False)]
        x, y = (slice(start, start + n * voxel) for start, n in zip(first, count, strict=True))
        squares = voxels[x, y].reshape(count[0], voxel, count[1], voxel, -1)
        to_old = np.diag([voxel, voxel, 1.0, 1.0])
        to_old[:2, 3] = np.array(first) + (voxel - 1) / 2  # centres of the first square
        volumes[name] = np.rint(squares.mean((1, 3))).astype(np.uint8)
        save(scan(folder, name), volumes[name], image.affine @ to_old)
    return volumes


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """A volume in millimetres."""
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def in_split(volumes: Volumes, split: str) -> np.ndarray:
    """Numbers of the slices of a split that show something in every contrast."""
    depth = volumes["T1"].shape[2]
    shows = np.all([np.ptp(voxels, axis=(0, 1)) > 0 for voxels in volumes.values()], 0)
    return np.flatnonzero((np.resize(SLABS, depth) == split) & shows)


def import_scans(out: Path, depth: int) -> None:
    """The scans in `out` as dataset folders, split slice by slice as a table says."""
    with (out / "splits.csv").open("w", newline="") as file:
        rows = [(f"mni152_slice-{z:03}", side) for z, side in enumerate(np.resize(SLABS, depth))]
        csv.writer(file).writerows([("slice", "split"), *rows])
    sources = out / "scans", out / "splits.csv"
    postprior("import", *sources, out / "data", "--slices", "axial", "--id", "slice", "--split", "split")


def synthesise(out: Path, params: tuple[str, Path], volumes: Volumes, task: str) -> Path:
    """The scans with the held-out slabs of all contrasts but the given ones blank, filled in; returns their folder."""
    import nibabel

    _, given = TASKS[task]
    home = out / task.replace(" ", "-")
    for name, voxels in volumes.items():
        known = voxels.copy()
        if name not in given:
            known[:, :, in_split(volumes, "test")] = 0  # a slice that shows nothing is a missing one
        save(scan(home / "scans", name), known, nibabel.load(scan(out / "scans", name)).affine)
    postprior("import", home / "scans", home / "rows", "--slices", "axial", "--like", out / "data")
    postprior("impute", DENSITY, home / "rows", home / "imputed", *params)
    postprior("export", home / "imputed", home / "filled")
    return home / "filled"


def intact(folder: Path, out: Path, volumes: Volumes, given: tuple[str, ...]) -> bool:
    """Whether the filled scans have the affines, units and types of the originals, and all voxels that were there."""
    import nibabel

    fine = True
    for name, voxels in volumes.items():
        before, after = (nibabel.load(scan(of, name)) for of in (out / "scans", folder))
        kept = np.ptp(voxels, axis=(0, 1)) > 0
        if name not in given:
            kept[in_split(volumes, "test")] = False
        fine &= np.array_equal(before.affine, after.affine)
        fine &= before.header.get_xyzt_units() == after.header.get_xyzt_units()
        fine &= before.get_data_dtype() == after.get_data_dtype()
        fine &= np.array_equal(voxels[..., kept], np.asanyarray(after.dataobj)[..., kept])
    return bool(fine)


def slices(voxels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Axial slices (n, H, W) with values from 0 to 1."""
    return np.moveaxis(voxels[..., numbers], -1, 0) / 255.0


def others(volumes: Volumes, target: str, given: tuple[str, ...]) -> dict[str, np.ndarray]:
    """What takes no autoencoder: predictions (n, H, W) of the held-out slices of a contrast."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.neighbors import NearestNeighbors

    known, wanted = in_split(volumes, "train"), in_split(volumes, "test")
    seen, asked = (np.stack([slices(volumes[g], z) for g in given], -1) for z in (known, wanted))
    answer = slices(volumes[target], known)
    nearest = NearestNeighbors(n_neighbors=1).fit(seen.reshape(len(known), -1))
    place = nearest.kneighbors(asked.reshape(len(wanted), -1), return_distance=False)[:, 0]
    above = np.searchsorted(known, wanted).clip(1, len(known) - 1)
    share = (wanted - known[above - 1]) / (known[above] - known[above - 1])
    share = share.clip(0, 1)[:, None, None]
    voxelwise = HistGradientBoostingRegressor(random_state=0)
    voxelwise.fit(seen.reshape(-1, len(given)), answer.ravel())
    return {
        "mean slice": np.broadcast_to(answer.mean(0), (len(wanted), *answer.shape[1:])),
        "nearest slice": answer[place],
        "interpolation": (1 - share) * answer[above - 1] + share * answer[above],
        "voxelwise": voxelwise.predict(asked.reshape(-1, len(given))).reshape(len(wanted), *answer.shape[1:]),
    }


def scores(images: np.ndarray, originals: np.ndarray) -> dict[str, np.ndarray]:
    """PSNR, SSIM and L1 of every slice."""
    found = likeness(images[:, None], originals[:, None], 1.0)
    return {name: found[name] for name in ("psnr", "ssim", "l1")}


def table(found: Mapping[str, Scores]) -> list[str]:
    """Means over the held-out slices: task → what predicts → score → values (n,)."""
    lines = ["| task | by | PSNR ↑ | SSIM ↑ | L1 ↓ |", "|---|---|---|---|---|"]
    for task, rows in found.items():
        for number, (name, of) in enumerate(rows.items()):
            psnr, ssim, l1 = (values.mean() for values in of.values())
            lines.append(f"| {'' if number else task} | {name} | {psnr:.1f} | {ssim:.3f} | {l1:.3f} |")
    return lines


def panels(path: Path, rows: Mapping[str, Mapping[str, np.ndarray]], aspect: float = 1.0) -> None:
    """A row of images (H, W) a task, each under its title; a voxel is `aspect` times as high as it is wide."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    columns = max(map(len, rows.values()))
    size = 1.5 * columns, 1.9 * len(rows)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for line, images in zip(axes, rows.values(), strict=True):
        for axis, (title, image) in zip(line[columns - len(images) :], images.items(), strict=True):
            axis.imshow(image.T, cmap="gray", vmin=0, vmax=1, origin="lower", aspect=aspect)
            axis.set_title(title, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)


def slabs(volumes: Volumes, target: str, filled: np.ndarray) -> dict[str, np.ndarray]:
    """A sagittal cut (Y, Z) through a contrast before and after its held-out slabs were filled, and the original."""
    cut = volumes[target].shape[0] * 3 // 7  # beside the gap between the hemispheres
    real, made = (of[cut] / 255.0 for of in (volumes[target], filled))
    blank = real.copy()
    blank[:, in_split(volumes, "test")] = 0
    return {"held-out slabs blank": blank, "synthesised": made, "original": real}


def run(out: Path, figures: Path, epochs: int, voxel: int) -> list[str]:
    """Everything from the volumes to the figures; the lines of the page."""
    import nibabel

    volumes = write_template(out / "scans", voxel)
    import_scans(out, volumes["T1"].shape[2])
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", DENSITY, SETTINGS | {"train.epochs": epochs})
    numbers = in_split(volumes, "test")
    middle = len(numbers) // 2
    found: dict[str, Scores] = {}
    shown: dict[str, dict[str, np.ndarray]] = {}
    whole = True
    for task, (target, given) in TASKS.items():
        folder = synthesise(out, params, volumes, task)
        whole &= intact(folder, out, volumes, given)
        filled = np.asanyarray(nibabel.load(scan(folder, target)).dataobj)
        if not found:
            panels(figures / "volume.png", {task: slabs(volumes, target, filled)}, 1 / voxel)
        made = {OURS: slices(filled, numbers), **others(volumes, target, given)}
        real = slices(volumes[target], numbers)
        found[task] = {name: scores(images, real) for name, images in made.items()}
        observed = {f"{name}, given": slices(volumes[name], numbers)[middle] for name in given}
        shown[task] = observed | {f"{target}, real": real[middle]} | {n: made[n][middle] for n in made}
    panels(figures / "slices.png", shown)
    sizes = ", ".join(f"{len(in_split(volumes, split))} of {split}" for split in dict.fromkeys(SLABS))
    size = " × ".join(map(str, volumes["T1"].shape[:2]))
    kept = "as they were" if whole else "CHANGED"
    told = f"Affines, units, types and all voxels that were there: {kept}."
    return [f"Slices: {sizes}; {size} voxels each.", "", *table(found), "", told]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--epochs", type=int, default=400)
    made.add_argument("--voxel", type=int, default=3, help="millimetres in the axial plane")
    options = made.parse_args()
    publish(
        Path(__file__),
        options.out,
        lambda out, figures: run(out, figures, options.epochs, options.voxel),
    )


if __name__ == "__main__":
    main()
