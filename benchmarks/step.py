"""The cost of a training step over that of the network passes it needs, for every phase of every model.

A step is run once with hooks on the modules; the bare passes then call the same networks on inputs of the same sizes,
forward, backward and optimiser included, with no probability in between. Both are timed in turns in one process; the
ratio of the medians is printed.

    python benchmarks/step.py [--rounds 30] [--seconds 20] [--draws 10] [MODEL …]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timing import ROWS, WIDTH, batch, images, optimised, seconds
from torch import Tensor, nn

from postprior import MODELS
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.phases import Phase
from postprior.stage1_vae.training import freeze_except

MODALITIES = images(16)


@dataclass(frozen=True)
class Call:
    """A network's call in a step: its arguments, cut from the graph, and whether gradients were wanted."""

    network: nn.Module
    arguments: tuple[Any, ...]
    gradients: bool

    def again(self) -> Any:
        with torch.set_grad_enabled(self.gradients):
            return self.network(*self.arguments)


def calls(model: MultimodalVAE, phase: Phase, data: Batch) -> list[Call]:
    """The outermost networks that a step calls, in their order; the model itself is not called."""
    found: list[Call] = []
    inside: list[nn.Module] = []

    def enter(network: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not inside and any(True for _ in network.parameters()):
            fixed = tuple(x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in arguments)
            found.append(Call(network, fixed, torch.is_grad_enabled()))
        inside.append(network)

    def leave(*_: Any) -> None:
        inside.pop()

    hooks = [
        hook
        for network in model.modules()
        if network is not model
        for hook in (network.register_forward_pre_hook(enter), network.register_forward_hook(leave))
    ]
    with freeze_except(model, phase):
        phase.objective(data, torch.Generator().manual_seed(0), 1.0)
    for hook in hooks:
        hook.remove()
    return found


def tensors(output: Any) -> list[Tensor]:
    """The tensors of a network's output that a gradient comes back to."""
    if isinstance(output, Tensor):
        return [output] if output.requires_grad else []
    return [part for item in output for part in tensors(item)] if isinstance(output, list | tuple) else []


def step(model: MultimodalVAE, phase: Phase, data: Batch) -> Callable[[], None]:
    """A training step of a phase."""
    generator = torch.Generator().manual_seed(0)
    return optimised(phase.parameters, lambda: phase.objective(data, generator, 1.0).per_sample.mean().backward())


def bare(model: MultimodalVAE, phase: Phase, data: Batch) -> Callable[[], None]:
    """The network passes of that step, and its optimiser, alone."""
    needed = calls(model, phase, data)

    def backward() -> None:
        outputs = [part for call in needed for part in tensors(call.again())]
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])

    return optimised(phase.parameters, backward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20, help="time for one line, at the most")
    parser.add_argument("--draws", type=int, default=10, help="K of MMVAE")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {ROWS} rows a step")
    print(f"{'model':10} {'phase':10} {'step ms':>9} {'bare ms':>9} {'ratio':>6} {'samples/s':>10}")
    for name in given.models:
        options = {"draws": given.draws} if name == "mmvae" else {}
        model, data = MODELS[name](MODALITIES, width=WIDTH, **options).train(), batch(MODALITIES)
        for phase in model.phases():
            with freeze_except(model, phase):
                ours, passes = (make(model, phase, data) for make in (step, bare))
                slowest = max(seconds(action) for action in (ours, passes) * 2)
                rounds = max(3, min(given.rounds, round(given.seconds / (2 * slowest))))
                pairs = [(seconds(ours), seconds(passes)) for _ in range(rounds)]
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            row = f"{mine * 1e3:9.1f} {theirs * 1e3:9.1f} {mine / theirs:6.2f} {ROWS / mine:10.0f}"
            print(f"{name:10} {phase.name:10} {row}", flush=True)


if __name__ == "__main__":
    main()
