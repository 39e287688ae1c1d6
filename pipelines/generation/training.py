"""Train the autoencoder of a project."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from postprior.pipelines.artefacts.autoencoder import History, as_user_errors
from postprior.pipelines.errors import UserError
from postprior.pipelines.progress import progress
from postprior.pipelines.settings.params import Params
from postprior.pipelines.texts import tell
from postprior.pipelines.threads import suited_to
from postprior.stage1_vae import training
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.ranks import ALONE, Ranks
from postprior.stage1_vae.resident import StoredRows, resident


def train_autoencoder(
    model: MultimodalVAE,
    data: StoredRows,
    validation: StoredRows,
    params: Params,
    history: Iterable[dict[str, Any]] = (),
    resume: training.Snapshot | None = None,
    log: Callable[[History, training.Epoch], None] | None = None,
    ranks: Ranks = ALONE,
    confirm: Callable[[], None] | None = None,
) -> History:
    """Train a model in place with the settings of a project, and return the metrics of every epoch.

    Args:
        history: The metrics of the epochs before `resume`.
        resume: The state to resume from.
        log: Receives, after each epoch, the metrics of all epochs so far and the epoch.
        ranks: The processes that share each batch.
        confirm: Is called before each batch; raises an error if this process may not go on.

    Raises:
        UserError: The loss diverges, or a phase cannot use the rows.
    """
    tell_what_is_left_out(model, data)
    settings = training.Settings(**params.train.model_dump(), seed=params.seed)
    rows, held_out = (resident(split, training.device_of(settings)) for split in (data, validation))
    confirmed = rows if confirm is None else Confirmed(rows, confirm)
    epochs = training.train(model, confirmed, settings, held_out, resume, ranks)
    total = sum(epochs_by_phase(params, model))
    history = list(history)
    with suited_to(model.modalities), progress(f"train {params.vae.model}", total, len(history)) as step:
        for epoch in as_user_errors(epochs):
            history.append({"epoch": epoch.snapshot.epoch + 1, "phase": epoch.phase, **epoch.metrics})
            if log is not None:
                log(history, epoch)
            step(f"loss {epoch.metrics['train_loss']:.1f}")
    return history


@dataclass(frozen=True)
class Confirmed:
    """Training rows that confirm before each batch that this process may continue to train."""

    data: training.TrainingRows
    confirm: Callable[[], None]

    def __len__(self) -> int:
        return len(self.data)

    @property
    def observed(self) -> Any:
        """Which modalities each row has, bool of shape (N, M)."""
        return self.data.observed

    def batch(self, rows: Any) -> Batch:
        """Return the batch of the given row numbers."""
        self.confirm()
        return self.data.batch(rows)


def tell_what_is_left_out(model: MultimodalVAE, data: training.TrainingRows) -> None:
    """Print a line if some phases cannot be trained on some of the rows."""
    phases = [phase.name for phase in model.phases() if phase.complete]
    left_out = int((~data.observed.all(1)).sum())
    if phases and left_out:
        tell(
            f"train: {left_out} of {len(data)} rows lack a modality, which a joint encoder cannot read; phase "
            f"{', '.join(phases)} is trained on the complete rows only, and all rows are encoded",
            err=True,
        )


def epochs_by_phase(params: Params, model: MultimodalVAE) -> list[int]:
    """Return the epochs that `train.epochs` gives each phase of a model.

    Raises:
        UserError: it lists the epochs of another number of phases.
    """
    try:
        return training.epochs_of(model.phases(), training.Settings(**params.train.model_dump()))
    except ValueError as error:
        raise UserError(f"train.{error}") from None
