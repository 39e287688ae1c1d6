"""The training loop over phases, epochs and steps, which can be resumed exactly.

The randomness of an epoch is a function of (seed, phase, epoch) alone, and the snapshot after an epoch holds everything
else. A run that stops after any epoch and resumes from its snapshot therefore ends with the same bytes as a run without
an interruption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from postprior.stage1_vae.adamw import AdamW
from postprior.stage1_vae.compilation import compiled, pays
from postprior.stage1_vae.hiding import has_cells, hide, weights
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.nonfinite import Watch, explain
from postprior.stage1_vae.options import positive
from postprior.stage1_vae.phases import Loss, Phase, Trainable
from postprior.stage1_vae.randomness import generator_for
from postprior.stage1_vae.ranks import ALONE, Ranks


class TrainingRows(Protocol):
    """Rows from which batches are taken."""

    def __len__(self) -> int: ...

    @property
    def observed(self) -> Any:
        """(N, M) bool, the observed modalities of each row."""

    def batch(self, rows: Any) -> Batch:
        """Return the batch of the rows at the given indices, an integer array."""


@dataclass(frozen=True)
class Settings:
    """Settings of training.

    Args:
        epochs: passes over the data, divided between the phases by their shares; or a list, with those of each phase.
        batch_size: rows per step.
        learning_rate: initial learning rate of AdamW; it falls to 0 along half a cosine in each phase.
        warmup: epochs over which the weight of the divergences rises from 0 to its full value, in each phase.
        patience: epochs without a lower held-out loss after which a phase ends early; above 0, a phase also ends with
            the weights of the epoch whose held-out loss is lowest. 0: it ends with the weights of its last epoch.
        hide_cells: share of the cells of partial tables and vectors to hide in each step (`hide`), from 0 to 1.
        hide_modalities: share of the modalities to hide, in phases that use incomplete rows.
        seed: seed of the order of rows, of hidden values and of the posterior draws.
        device: `auto` (an accelerator if there is one), or a torch device.
        precision: `no` or `bf16` (automatic mixed precision).
        compile: `auto` (`torch.compile` where it can pay: `compilation.pays`), or `no`.

    Raises:
        ValueError: a setting is invalid.
    """

    epochs: int | Sequence[int] = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 0
    patience: int = 0
    hide_cells: float = 0.15
    hide_modalities: float = 0.0
    seed: int = 0
    device: str = "auto"
    precision: str = "no"
    compile: str = "auto"

    def __post_init__(self) -> None:
        for name in ("batch_size", "learning_rate"):
            positive(name, getattr(self, name))
        for epochs in (self.epochs,) if isinstance(self.epochs, int) else self.epochs:
            positive("epochs", epochs)


@dataclass(frozen=True)
class Snapshot:
    """State from which a run resumes: model and optimiser after an epoch of a phase."""

    phase: int
    epoch: int
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Epoch:
    """Result of an epoch: the name of its phase, its metrics, and a snapshot of the run after it."""

    phase: str
    metrics: dict[str, float]
    snapshot: Snapshot


def train(
    model: Trainable,
    data: TrainingRows,
    settings: Settings,
    validation: TrainingRows | None = None,
    resume: Snapshot | None = None,
    ranks: Ranks = ALONE,
) -> Iterator[Epoch]:
    """Train a model in place and yield after every epoch; each of several `ranks` does so with its part of every batch.

    Raises:
        FloatingPointError: the loss or a gradient is not finite.
        ConnectionError: another rank has ended.
        ValueError: a phase needs complete rows and there are none, or the settings list epochs for other phases.
    """
    device = device_of(settings)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    model.to(device)
    phases = model.phases()
    for index, (phase, epochs) in enumerate(zip(phases, epochs_of(phases, settings), strict=True)):
        if resume is not None and index < resume.phase:
            continue
        rows, held_out = rows_of(phase, data), None if validation is None else rows_of(phase, validation)
        optimizer = AdamW(phase.parameters, settings.learning_rate)
        fast = settings.compile == "auto" and not settings.hide_modalities and pays(phase, data.observed, device)
        objective = compiled(phase.objective) if fast else phase.objective
        best = Best()
        start = 0
        if resume is not None and index == resume.phase:
            start = resume.epoch + 1
            best = restore(model, optimizer, resume.tensors)
        steps = math.ceil(len(rows) / settings.batch_size)
        for number in range(start, epochs):
            if 0 < settings.patience <= best.age:
                break
            generator = ranks.generator(generator_for(device, settings.seed, index, number))
            order = rows[torch.randperm(len(rows), generator=generator_for("cpu", settings.seed, index, number))]
            kl_weight = min(1.0, (number + 1) / (settings.warmup + 1))
            totals, watch = Totals(), Watch(device)
            load = partial(step_batch, model, phase, data, settings, generator)
            ranks.align(model)
            model.train()
            with freeze_except(model, phase):
                batches = order.split(settings.batch_size)
                for step, batch_rows in enumerate(batches):
                    progress = (number * steps + step) / (epochs * steps)
                    optimizer.learning_rate = settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
                    watch.begin(step, generator)
                    part, weight = ranks.part(batch_rows, generator, phase.scope == "batch")
                    batch = load(part)
                    with autocast:
                        loss = objective(batch, generator, kl_weight)
                    optimizer.zero_grad()
                    row_weights = weights(batch)
                    weighted = loss.per_sample if row_weights is None else loss.per_sample * row_weights
                    (weighted.sum() * weight / len(batch_rows)).backward()
                    losses = ranks.add_gradients(phase.parameters, loss.per_sample)
                    watch.end(losses, phase.parameters)
                    optimizer.step(watch.failed)
                    if (failed := watch.first(last=step == steps - 1)) is not None:
                        place, before = failed
                        generator.set_state(before)
                        # Each rank finds the same in the whole batch. No parameter has changed since that step began.
                        batch = load(ALONE.part(batches[place], generator)[0])
                        with autocast:
                            compute = partial(phase.objective, batch, generator, kl_weight)
                            raise FloatingPointError(explain(model, phase, compute))
                    totals.add(loss, weight)
            metrics = totals.means("train", ranks)
            if validation is not None and held_out is not None:
                model.eval()
                generator = ranks.generator(generator_for(device, settings.seed, index))
                metrics |= evaluate(phase, validation, held_out, settings, generator, ranks)
                best = best.after(metrics["validation_loss"], model if settings.patience else None)
            yield Epoch(phase.name, metrics, Snapshot(index, number, capture(model, optimizer, best)))
        if best.weights:
            model.load_state_dict(best.weights)
    model.eval()


def device_of(settings: Settings) -> torch.device:
    """Return the device of the settings; `auto` is an accelerator if there is one."""
    if settings.device != "auto":
        return torch.device(settings.device)
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def epochs_of(phases: Sequence[Phase], settings: Settings) -> list[int]:
    """Return the maximum number of epochs of each phase.

    Raises:
        ValueError: the settings list the epochs of another number of phases.
    """
    if isinstance(settings.epochs, int):
        return [max(1, round(phase.share * settings.epochs)) for phase in phases]
    if len(settings.epochs) != len(phases):
        raise ValueError(
            f"epochs: found a list of {len(settings.epochs)}, expected one number for each phase of the model "
            f"({', '.join(phase.name for phase in phases)}), or a single number to divide among them"
        )
    return list(settings.epochs)


def rows_of(phase: Phase, data: TrainingRows) -> Tensor:
    """Return the indices (n,) int64 of the rows that a phase uses: all rows, or the complete rows."""
    if not phase.complete:
        return torch.arange(len(data))
    rows = torch.as_tensor(data.observed).all(1).nonzero()[:, 0]
    if not len(rows):
        raise ValueError(
            f"phase {phase.name}: found no complete row, expected some, because a joint encoder reads every modality; "
            "choose a model that trains on incomplete rows"
        )
    return rows


def step_batch(
    model: Trainable,
    phase: Phase,
    data: TrainingRows,
    settings: Settings,
    generator: torch.Generator,
    rows: Tensor,
) -> Batch:
    """Return rows (B,) of the data, of which a part is hidden as the settings say.

    A phase of complete rows keeps all modalities.
    """
    batch = data.batch(rows.numpy()).to(generator.device)
    partial_ones = [m for m in model.modalities if m.partial and has_cells(m)]
    return hide(batch, partial_ones, settings.hide_cells, 0 if phase.complete else settings.hide_modalities, generator)


@contextmanager
def freeze_except(model: Trainable, phase: Phase) -> Iterator[None]:
    """Freeze all parameters that the phase does not train inside the block. Gradients still flow through them."""
    trained = {id(parameter) for parameter in phase.parameters}
    frozen = [p for p in model.parameters() if p.requires_grad and id(p) not in trained]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


@dataclass(frozen=True)
class Best:
    """The lowest held-out loss of a phase, the number of epochs since then, and the weights of the model there."""

    loss: float = math.inf
    age: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)  # empty if they are not kept

    def after(self, loss: float, model: Trainable | None) -> Best:
        """Return the record after one more epoch with the given loss; the weights of a `model` are kept."""
        if not loss < self.loss:
            return replace(self, age=self.age + 1)
        return Best(loss, weights={} if model is None else {n: t.clone() for n, t in model.state_dict().items()})


@torch.no_grad()
def evaluate(
    phase: Phase, data: TrainingRows, rows: Tensor, settings: Settings, generator: torch.Generator, ranks: Ranks
) -> dict[str, float]:
    """Return the means of the loss and terms of a phase over held-out rows, at full weight of the divergences."""
    totals = Totals()
    for batch_rows in rows.split(settings.batch_size):
        part, weight = ranks.part(batch_rows, generator, phase.scope == "batch")
        totals.add(phase.objective(data.batch(part.numpy()).to(generator.device), generator, 1.0), weight)
    return totals.means("validation", ranks)


class Totals:
    """Running sums of losses over an epoch, read once at the end of the epoch."""

    def __init__(self) -> None:
        self.rows = 0.0
        self.sums: dict[str, Tensor] = {}

    def add(self, loss: Loss, weight: float) -> None:
        """Add a batch, or the part of a rank, whose rows have the given weight."""
        self.rows += weight * len(loss.per_sample)
        for name, values in {"loss": loss.per_sample, **loss.terms}.items():
            sums = self.sums.get(name, torch.zeros((), device=values.device))
            self.sums[name] = sums + weight * values.detach().sum()

    def means(self, split: str, ranks: Ranks) -> dict[str, float]:
        """Return the means per row over all ranks, under the names `<split>_<term>`."""
        sums = torch.tensor([self.rows, *map(float, self.sums.values())], dtype=torch.float64)
        rows, *totals = ranks.add(sums).tolist()
        means = {f"{split}_{name}": total / rows for name, total in zip(self.sums, totals, strict=True)}
        for name, value in means.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"training: the mean {name} of an epoch became {value}, expected a finite number; "
                    "lower train.learning_rate or raise vae.likelihood_scale"
                )
        return means


def capture(model: Trainable, optimizer: AdamW, best: Best) -> dict[str, Tensor]:
    """Return CPU copies of all tensors of the model and the optimiser, by name, and the best epoch so far."""
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.weights.items()}
    tensors |= {f"optimizer/{index}/{name}": t for index, state in optimizer.state.items() for name, t in state.items()}
    tensors["best"] = torch.tensor([best.loss, best.age], dtype=torch.float64)
    contiguous = torch.contiguous_format
    return {name: tensor.detach().cpu().clone(memory_format=contiguous) for name, tensor in tensors.items()}


def restore(model: Trainable, optimizer: AdamW, tensors: dict[str, Tensor]) -> Best:
    """Load the tensors that `capture` returned into a model and its optimiser, and return the best epoch."""
    model.load_state_dict({n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")})
    weights = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            like = optimizer.parameters[int(index)]  # averages need the memory layout of their parameter
            restored = torch.empty_like(like).copy_(tensor) if key != "step" else tensor.to(like.device)
            optimizer.state.setdefault(int(index), {})[key] = restored
    loss, age = tensors["best"].tolist()
    return Best(loss, int(age), weights)
