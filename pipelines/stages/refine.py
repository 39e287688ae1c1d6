"""Stage `refine`: train the refiner, which draws images and volumes given the means of the decoders.

It is off if `refine` is null. A run that was killed and started again ends with the same bytes. The checkpoint of the
last epoch is kept, so that a change of the settings of draws needs no training.
"""

from functools import partial
from pathlib import Path

from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.artefacts.refiner import KIND, save_no_refiner, save_refiner
from postprior.pipelines.progress import progress
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.params import Params
from postprior.pipelines.storage import files_of
from postprior.pipelines.tracking.outputs import curves
from postprior.pipelines.tracking.runs import track


def refine(params: Params, root: Path) -> None:
    """Train the refiner of artefacts/autoencoder on the training rows; write artefacts/refiner."""
    project, settings, seed = Project(root), params.refine, params.seed
    folder = project.artefacts.refiner
    check_folder(folder, partial(files_of, kind=KIND))  # before training, not after it
    if settings is None:
        save_no_refiner(folder)
        return
    from postprior.pipelines.artefacts.autoencoder import load_autoencoder
    from postprior.pipelines.artefacts.checkpoint import Checkpoint
    from postprior.pipelines.generation.refinement import build_refiner, refiner_epochs

    model, artefact = load_autoencoder(project.artefacts.autoencoder)
    train, validation = project.dataset("train"), project.dataset("validation")
    digest = train.hash  # now: the folder may be replaced during training
    refiner = build_refiner(model, train, settings.options, seed)
    checkpoint = Checkpoint.of_refiner(project.checkpoints, params, artefact.hash, train, validation)
    history, resume = checkpoint.load()
    with track("refine", params, root) as run, progress("refine", settings.epochs, len(history)) as step:
        run.dataset(project.artefacts.data / "train", digest)
        for epoch in refiner_epochs(refiner, model, train, validation, settings.training, seed, resume):
            history.append({"epoch": epoch.snapshot.epoch + 1, **epoch.metrics})
            checkpoint.save(history, epoch.snapshot)
            run.metrics(curves(epoch.metrics), step=len(history))
            step(f"held-out loss {epoch.metrics['validation_loss']:.3f}")
        record = {"autoencoder": artefact.hash, "data": digest, "refine": settings.model_dump(), "history": history}
        save_refiner(folder, refiner, record)
    checkpoint.remove_earlier()
