"""Stage `train`: train the autoencoder. A run that was killed and started again ends with the same bytes."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path

from postprior.pipelines import ranks
from postprior.pipelines.artefacts.adapted import adapted_in
from postprior.pipelines.artefacts.autoencoder import KIND, History, build, save_autoencoder
from postprior.pipelines.artefacts.checkpoint import Checkpoint
from postprior.pipelines.artefacts.project import Project
from postprior.pipelines.generation.row_factors import RowFactors
from postprior.pipelines.generation.training import train_autoencoder
from postprior.pipelines.locks import sole_trainer
from postprior.pipelines.publishing import check_folder
from postprior.pipelines.settings.params import ADAPTED, Params
from postprior.pipelines.storage import files_of
from postprior.pipelines.tracking.outputs import curves
from postprior.pipelines.tracking.runs import track
from postprior.stage1_vae.training import Epoch


def train(params: Params, root: Path) -> None:
    """Write artefacts/autoencoder and results/training.csv, after training unless the model is trained already.

    Several ranks share each batch; the first one writes.
    """
    job = ranks.meet()
    project = Project(root)
    check_folder(project.artefacts.autoencoder, partial(files_of, kind=KIND))  # before training, not after hours
    data, validation = project.dataset("train"), project.dataset("validation")
    digest = data.hash  # now: the folder may be replaced during training
    if params.vae.model == ADAPTED:
        if not job.is_first:
            return
        with track("train", params, root) as run:
            run.dataset(project.artefacts.data / "train", digest)
            save_autoencoder(project, adapted_in(params, data, root), params, data, digest, [])
        return
    model = build(params, data)
    checkpoint = Checkpoint.of(project.checkpoints, params, data, validation)
    with sole_trainer(root) if job.is_first else nullcontext(lambda: None) as confirm:
        history, resume = checkpoint.load(job)
        if not job.is_first:
            train_autoencoder(model, data, validation, params, history, resume, ranks=job)
            return
        with track("train", params, root) as run:

            def log(history: History, epoch: Epoch) -> None:
                checkpoint.save(history, epoch.snapshot)
                run.metrics(curves(epoch.metrics), step=len(history))

            run.dataset(project.artefacts.data / "train", digest)
            history = train_autoencoder(model, data, validation, params, history, resume, log, job, confirm)
            factors = RowFactors.fit(model.to("cpu").eval(), validation, params.seed)
            save_autoencoder(project, model, params, data, digest, history, confirm, factors.describe())
        checkpoint.path.unlink(missing_ok=True)
