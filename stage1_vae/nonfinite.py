"""Finds what in a training step is not finite: the term of the loss, the network, and the modality."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from postprior.stage1_vae.modalities import SCALED, Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.phases import Loss, Phase, Trainable

LIKELIHOOD = "the log-likelihood of "


def not_finite(losses: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return whether a loss of a step or a gradient is not finite, () bool, on their device."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients, 1)  # NaN if one is NaN; faster than the largest gradient
    return ~(losses.detach().isfinite().all() & norm.isfinite())


class Watch:
    """Finds the first step of an epoch that is not finite, without waiting for an accelerator after each step.

    On a CPU the answer is read after each step. On another device it is read after each `INTERVAL` steps and after the
    last one. From the first step that is not finite until then, no step changes a parameter: `failed` skips them.

    Attributes:
        failed: () float32, 1 if a step was not finite.
    """

    INTERVAL = 50

    def __init__(self, device: torch.device) -> None:
        self.failed = torch.zeros((), device=device)
        self._passed = torch.zeros((), device=device)  # number of steps before the first one that is not finite
        self._interval = 1 if device.type == "cpu" else self.INTERVAL
        self._begun: dict[int, Tensor] = {}

    def begin(self, step: int, generator: torch.Generator) -> None:
        """Note the state of the generator before a step."""
        self._begun[step] = generator.get_state()

    def end(self, losses: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Note the losses and gradients of the step."""
        self.failed = torch.maximum(self.failed, not_finite(losses, parameters).to(self.failed))
        self._passed += 1 - self.failed

    def first(self, last: bool) -> tuple[int, Tensor] | None:
        """Return the number of the first step that was not finite, and the state of the generator before it.

        None if there was none, or the answer is not read after this step; it is read after the `last` one.
        """
        if not last and len(self._begun) < self._interval:
            return None
        if not bool(self.failed):
            self._begun.clear()
            return None
        step = int(self._passed)
        return step, self._begun[step]


def all_finite(values: Tensor) -> bool:
    """Return whether all values are finite."""
    return bool(values.isfinite().all())


def explain(model: Trainable, phase: Phase, compute: Callable[[], Loss]) -> str:
    """Return a sentence that names what is not finite in a step, and the remedy.

    This is the first term of the loss whose values are not finite. If all are finite, it is the first term whose
    gradient is not. The place is the first layer or log-likelihood with such values, or the first parameter with such a
    gradient.

    Args:
        model: the model, with the parameters before the step.
        phase: the phase of training.
        compute: computes the loss of the step again, with the same draws.
    """
    with places_not_finite(model) as places:
        loss = compute()
    values = {f"the term {name}": term for name, term in loss.terms.items()} | {"the loss": loss.per_sample}
    term = next((name for name, value in values.items() if not all_finite(value)), None)
    if term:
        found = f"{term} became {float(values[term].detach().sum())}" + "".join(f" in {place}" for place in places[:1])
    else:
        gradients = {name: gradients_not_finite(model, phase, value) for name, value in values.items()}
        term, places = next(((name, p) for name, p in gradients.items() if p), ("the loss", []))
        more = f", the first of {len(places)} such parameters" if places[1:] else ""
        found = f"the gradient of {term} became infinite or NaN" + "".join(f" in {p}{more}" for p in places[:1])
    return f"training: phase {phase.name}: {found}, expected finite numbers; {remedy(model, places)}"


def remedy(model: Trainable, places: Sequence[str]) -> str:
    """Return what to change if values or gradients are not finite in these places, the first one first."""
    first = places[0] if places else ""
    for modality in model.modalities:
        if first == LIKELIHOOD + modality.name and modality.likelihood in SCALED:
            return f"lower train.learning_rate, or raise vae.likelihood_scale of {modality.name}"
        if modality.name in first.split(".") and ":" in model.networks.get(modality.name, ""):
            return f"check the classes in vae.networks of {modality.name}, or lower train.learning_rate"
    return "lower train.learning_rate"


def gradients_not_finite(model: Trainable, phase: Phase, value: Tensor) -> list[str]:
    """Return the names of the trained parameters for which the gradient of the summed values is not finite."""
    if not value.requires_grad:
        return []
    gradients = torch.autograd.grad(value.sum(), phase.parameters, retain_graph=True, allow_unused=True)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    pairs = zip(phase.parameters, gradients, strict=True)
    return [names[id(parameter)] for parameter, g in pairs if g is not None and not all_finite(g)]


@contextmanager
def places_not_finite(model: Trainable) -> Iterator[list[str]]:
    """Collect the names of layers and log-likelihoods with values that are not finite, in order, inside the block."""
    found: list[str] = []

    def note(name: str, values: object) -> None:
        if isinstance(values, Tensor) and not all_finite(values):
            found.append(name)

    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: note(name, output))
        for name, layer in model.named_modules()
        if name
    ]
    with ExitStack() as undo:
        for hook in hooks:
            undo.callback(hook.remove)
        if isinstance(model, MultimodalVAE):
            undo.enter_context(noting_likelihoods(model, note))
        yield found


@contextmanager
def noting_likelihoods(model: MultimodalVAE, note: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Pass the log-likelihoods of each modality to `note`, under their names, inside the block."""

    def log_prob(latents: Tensor, batch: Batch, wanted: Tensor) -> Tensor:
        columns = type(model).log_prob(model, latents, batch, wanted)
        for modality, column in zip(model.modalities, columns.unbind(-1), strict=True):
            note(LIKELIHOOD + modality.name, column)
        return columns

    model.log_prob = log_prob  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.log_prob
