"""Brain MRI: synthesise one contrast from others, slice by slice, from NIfTI files to NIfTI files.

    pip install 'postprior[examples]'
    python docs/examples/brain_mri.py     # [--out FOLDER] [--lacking 0.5]

The script prints the results of docs/examples/brain_mri.md and draws its figures. The volumes are the MNI152 template
of nilearn: ICBM 2009a, nonlinear, symmetric (Fonov et al. 2009, https://doi.org/10.1016/S1053-8119(09)70884-5).
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
"""Names of the three volumes in this example, and in the files of nilearn."""
SUBJECT = "sub-mni152"
FIELD = 168, 192
"""Size in mm of the region of the axial plane that contains the whole brain."""
SLABS = ("train",) * 15 + ("validation",) * 3 + ("test",) * 10 + ("validation",) * 3
"""Splits of slices of 1 mm from the bottom up, repeated: no test slice is next to a training slice."""
TASKS = {
    "T1 from grey and white": ("T1", ("grey", "white")),
    "T1 from grey": ("T1", ("grey",)),
    "grey from T1": ("grey", ("T1",)),
    "white from T1": ("white", ("T1",)),
}
SETTINGS = {
    "vae.model": "mhvae",
    "vae.latent": 16,
    "vae.width": 16,
    "vae.likelihood_scale": 0.005,
    "vae.options.mhvae.levels": 5,
    "vae.options.mhvae.channels": 4,
    "vae.options.mhvae.finest": "full",
    "train.batch_size": 2,
    "train.learning_rate": 4.0e-3,
    "train.patience": 0,
}
"""Settings in params.yaml that are changed after `postprior init`."""
EPOCHS = 30
"""Epochs if no slice lacks a contrast."""
DENSITY = "gaussian"
MODEL = "MHVAE"
Volumes = dict[str, np.ndarray]
Scores = dict[str, dict[str, np.ndarray]]


def scan(folder: Path, name: str) -> Path:
    """Return the file of a contrast, named as BIDS names it: subject, then contrast."""
    return folder / SUBJECT / f"{SUBJECT}_{name}.nii.gz"


def write_template(folder: Path, voxel: int) -> Volumes:
    """Average the volumes (X, Y, Z) of the template over squares of `voxel` mm in the axial plane, and write scans."""
    import nibabel

    nilearn = find_spec("nilearn")
    if nilearn is None or nilearn.submodule_search_locations is None:
        raise SystemExit(
            "This needs nilearn, which is not installed; install it with: pip install 'postprior[examples]'"
        )
    data = Path(nilearn.submodule_search_locations[0]) / "datasets/data"
    volumes = {}
    for name, key in CONTRASTS.items():
        image = nibabel.load(data / f"mni_icbm152_{key}_tal_nlin_sym_09a_converted.nii.gz")
        voxels = np.asanyarray(image.dataobj)
        count = [length // voxel for length in FIELD]
        first = [(length - n * voxel) // 2 for length, n in zip(voxels.shape, count, strict=False)]
        x, y = (slice(start, start + n * voxel) for start, n in zip(first, count, strict=True))
        squares = voxels[x, y].reshape(count[0], voxel, count[1], voxel, -1)
        to_old = np.diag([voxel, voxel, 1.0, 1.0])
        to_old[:2, 3] = np.array(first) + (voxel - 1) / 2  # centre of the first square
        volumes[name] = np.rint(squares.mean((1, 3))).astype(np.uint8)
        save(scan(folder, name), volumes[name], image.affine @ to_old)
    return volumes


def save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume with units of mm."""
    import nibabel

    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)


def in_split(volumes: Volumes, split: str) -> np.ndarray:
    """Return the numbers of the slices of a split that are not constant in any contrast."""
    depth = volumes["T1"].shape[2]
    varies = np.all([np.ptp(voxels, axis=(0, 1)) > 0 for voxels in volumes.values()], 0)
    return np.flatnonzero((np.resize(SLABS, depth) == split) & varies)


def blank_some(folder: Path, volumes: Volumes, lacking: float) -> None:
    """Blank one contrast, chosen at random, in a share of the training slices of the scans."""
    import nibabel

    rng = np.random.default_rng(0)
    numbers = in_split(volumes, "train")
    numbers = rng.permutation(numbers)[: round(lacking * len(numbers))]
    chosen = rng.integers(len(volumes), size=len(numbers))
    for place, (name, voxels) in enumerate(volumes.items()):
        seen = voxels.copy()
        seen[:, :, numbers[chosen == place]] = 0  # a constant slice counts as missing
        save(scan(folder, name), seen, nibabel.load(scan(folder, name)).affine)


def import_scans(out: Path, depth: int) -> None:
    """Import the scans in `out` as dataset folders, with the split of each slice in a table."""
    with (out / "splits.csv").open("w", newline="") as file:
        rows = [(f"{SUBJECT}_slice-{z:03}", side) for z, side in enumerate(np.resize(SLABS, depth))]
        csv.writer(file).writerows([("slice", "split"), *rows])
    sources = out / "scans", out / "splits.csv"
    postprior("import", *sources, out / "data", "--slices", "axial", "--id", "slice", "--split", "split")


def synthesise(out: Path, params: tuple[str, Path], volumes: Volumes, task: str) -> Path:
    """Blank the held-out slabs of all contrasts that are not given, impute them, and return the folder of the scans."""
    import nibabel

    _, given = TASKS[task]
    home = out / task.replace(" ", "-")
    for name, voxels in volumes.items():
        observed = voxels.copy()
        if name not in given:
            observed[:, :, in_split(volumes, "test")] = 0  # a constant slice counts as missing
        save(scan(home / "scans", name), observed, nibabel.load(scan(out / "scans", name)).affine)
    postprior("import", home / "scans", home / "rows", "--slices", "axial", "--like", out / "data")
    postprior("impute", DENSITY, home / "rows", home / "imputed", *params)
    postprior("export", home / "imputed", home / "filled")
    return home / "filled"


def intact(folder: Path, out: Path, volumes: Volumes, given: tuple[str, ...]) -> bool:
    """Whether the filled scans have the affines, units, types and observed voxels of the originals."""
    import nibabel

    same = True
    for name, voxels in volumes.items():
        before, after = (nibabel.load(scan(root, name)) for root in (out / "scans", folder))
        observed = np.ptp(voxels, axis=(0, 1)) > 0
        if name not in given:
            observed[in_split(volumes, "test")] = False
        same &= np.array_equal(before.affine, after.affine)
        same &= before.header.get_xyzt_units() == after.header.get_xyzt_units()
        same &= before.get_data_dtype() == after.get_data_dtype()
        same &= np.array_equal(voxels[..., observed], np.asanyarray(after.dataobj)[..., observed])
    return bool(same)


def slices(voxels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return axial slices (n, H, W) with values from 0 to 1."""
    return np.moveaxis(voxels[..., numbers], -1, 0) / 255.0


def baselines(volumes: Volumes, target: str, given: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Predict the held-out slices (n, H, W) of a contrast with methods that need no autoencoder."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.neighbors import NearestNeighbors

    train, test = in_split(volumes, "train"), in_split(volumes, "test")
    train_inputs, test_inputs = (np.stack([slices(volumes[g], z) for g in given], -1) for z in (train, test))
    train_targets = slices(volumes[target], train)
    nearest = NearestNeighbors(n_neighbors=1).fit(train_inputs.reshape(len(train), -1))
    place = nearest.kneighbors(test_inputs.reshape(len(test), -1), return_distance=False)[:, 0]
    above = np.searchsorted(train, test).clip(1, len(train) - 1)
    share = (test - train[above - 1]) / (train[above] - train[above - 1])
    share = share.clip(0, 1)[:, None, None]
    voxelwise = HistGradientBoostingRegressor(random_state=0)
    voxelwise.fit(train_inputs.reshape(-1, len(given)), train_targets.ravel())
    shape = len(test), *train_targets.shape[1:]
    return {
        "mean slice": np.broadcast_to(train_targets.mean(0), shape),
        "nearest slice": train_targets[place],
        "interpolation": (1 - share) * train_targets[above - 1] + share * train_targets[above],
        "voxelwise": voxelwise.predict(test_inputs.reshape(-1, len(given))).reshape(shape),
    }


def scores(images: np.ndarray, originals: np.ndarray) -> dict[str, np.ndarray]:
    """Return PSNR, SSIM and L1 of each slice."""
    values = likeness(images[:, None], originals[:, None], 1.0)
    return {name: values[name] for name in ("psnr", "ssim", "l1")}


def table(results: Mapping[str, Scores]) -> list[str]:
    """Format means over the held-out slices; `results` are task → method → score → values (n,)."""
    lines = ["| task | method | PSNR ↑ | SSIM ↑ | L1 ↓ |", "|---|---|---|---|---|"]
    for task, rows in results.items():
        for number, (method, by_score) in enumerate(rows.items()):
            psnr, ssim, l1 = (values.mean() for values in by_score.values())
            lines.append(f"| {'' if number else task} | {method} | {psnr:.1f} | {ssim:.3f} | {l1:.3f} |")
    return lines


def panels(path: Path, rows: Mapping[str, Mapping[str, np.ndarray]], aspect: float = 1.0) -> None:
    """Draw one row of titled images (H, W) per task; a voxel is `aspect` times as high as it is wide."""
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
    """Return a sagittal cut (Y, Z) through a contrast before and after its slabs were filled, and the original."""
    cut = volumes[target].shape[0] * 3 // 7  # next to the gap between the hemispheres
    real, synthesised = (voxels[cut] / 255.0 for voxels in (volumes[target], filled))
    blank = real.copy()
    blank[:, in_split(volumes, "test")] = 0
    return {"held-out slabs blank": blank, "synthesised": synthesised, "original": real}


def run(out: Path, figures: Path, epochs: int, voxel: int, lacking: float) -> list[str]:
    """Run the example from the volumes to the figures, and return the lines of the page."""
    import nibabel

    volumes = write_template(out / "scans", voxel)
    blank_some(out / "scans", volumes, lacking)
    import_scans(out, volumes["T1"].shape[2])
    postprior("init", out / "project", "--from", out / "data")
    params = trained(out / "project", DENSITY, SETTINGS | {"train.epochs": epochs})
    numbers = in_split(volumes, "test")
    middle = len(numbers) // 2
    results: dict[str, Scores] = {}
    pictures: dict[str, dict[str, np.ndarray]] = {}
    same = True
    for task, (target, given) in TASKS.items():
        folder = synthesise(out, params, volumes, task)
        same &= intact(folder, out, volumes, given)
        filled = np.asanyarray(nibabel.load(scan(folder, target)).dataobj)
        if not results:
            panels(figures / "volume.png", {task: slabs(volumes, target, filled)}, 1 / voxel)
        predicted = {MODEL: slices(filled, numbers), **baselines(volumes, target, given)}
        real = slices(volumes[target], numbers)
        results[task] = {method: scores(images, real) for method, images in predicted.items()}
        observed = {f"{name}, given": slices(volumes[name], numbers)[middle] for name in given}
        pictures[task] = observed | {f"{target}, real": real[middle]} | {n: predicted[n][middle] for n in predicted}
    panels(figures / "slices.png", pictures)
    sizes = ", ".join(f"{len(in_split(volumes, split))} of {split}" for split in dict.fromkeys(SLABS))
    size = " × ".join(map(str, volumes["T1"].shape[:2]))
    check = f"Affines, units, types and all observed voxels: {'unchanged' if same else 'CHANGED'}."
    return [f"Slices: {sizes}; {size} voxels each.", "", *table(results), "", check]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--epochs", type=int, help=f"by default {EPOCHS} / (1 - lacking)")
    arguments.add_argument("--voxel", type=int, default=3, help="size of a voxel in the axial plane in mm")
    arguments.add_argument("--lacking", type=float, default=0.0, help="share of training slices that lack a contrast")
    options = arguments.parse_args()
    if not 0 <= options.lacking < 1:
        arguments.error(f"argument --lacking: found {options.lacking}, expected a share of at least 0 and below 1")
    epochs = options.epochs or round(EPOCHS / (1 - options.lacking))
    publish(
        Path(__file__),
        options.out,
        lambda out, figures: run(out, figures, epochs, options.voxel, options.lacking),
    )


if __name__ == "__main__":
    main()
