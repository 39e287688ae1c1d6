"""Compares the cost of a training step with that of the network passes in it, for every phase of every model.

A step runs once with hooks on the modules, which record the calls. The bare passes then call the same networks with the
same inputs, including the backward pass and the optimiser step, but without computing likelihoods and divergences. Full
steps and bare passes alternate in one process, and the ratio of the medians is printed.

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
    """A call of a network in a step: its arguments, detached from the graph, and whether gradients were enabled."""

    network: nn.Module
    arguments: tuple[Any, ...]
    gradients: bool

    def repeat(self) -> Any:
        """Call the network again with the same arguments."""
        with torch.set_grad_enabled(self.gradients):
            return self.network(*self.arguments)


def calls(model: MultimodalVAE, phase: Phase, data: Batch) -> list[Call]:
    """Return the calls of the outermost networks in a step, in order. The model itself is not called."""
    recorded: list[Call] = []
    stack: list[nn.Module] = []

    def enter(network: nn.Module, arguments: tuple[Any, ...]) -> None:
        if not stack and any(True for _ in network.parameters()):
            leaves = tuple(
                x.detach().requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x for x in arguments
            )
            recorded.append(Call(network, leaves, torch.is_grad_enabled()))
        stack.append(network)

    def leave(*_: Any) -> None:
        stack.pop()

    hooks = [
        hook
        for network in model.modules()
        if network is not model
        for hook in (network.register_forward_pre_hook(enter), network.register_forward_hook(leave))
    ]
    with freeze_except(model, phase):
        phase.objective(data, torch.Generator(data.observed.device).manual_seed(0), 1.0)
    for hook in hooks:
        hook.remove()
    return recorded


def tensors(output: Any) -> list[Tensor]:
    """Return the tensors of a network's output that require a gradient."""
    if isinstance(output, Tensor):
        return [output] if output.requires_grad else []
    return [tensor for item in output for tensor in tensors(item)] if isinstance(output, list | tuple) else []


def step(model: MultimodalVAE, phase: Phase, data: Batch) -> Callable[[], None]:
    """Return a training step of a phase."""
    generator = torch.Generator(data.observed.device).manual_seed(0)
    return optimised(phase.parameters, lambda: phase.objective(data, generator, 1.0).per_sample.mean().backward())


def bare(model: MultimodalVAE, phase: Phase, data: Batch) -> Callable[[], None]:
    """Return a function that runs only the network passes and the optimiser of the step."""
    recorded = calls(model, phase, data)

    def backward() -> None:
        outputs = [tensor for call in recorded for tensor in tensors(call.repeat())]
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])

    return optimised(phase.parameters, backward)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help="models; all by default")
    parser.add_argument("--rounds", type=int, default=30, help="maximum number of steps per phase")
    parser.add_argument("--seconds", type=float, default=20, help="time limit per phase")
    parser.add_argument("--draws", type=int, default=10, help="number K of draws per expert of MMVAE")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {ROWS} rows per step")
    print(f"{'model':10} {'phase':10} {'step ms':>9} {'bare ms':>9} {'ratio':>6} {'samples/s':>10}")
    for name in arguments.models:
        options = {"draws": arguments.draws} if name == "mmvae" else {}
        model, data = MODELS[name](MODALITIES, width=WIDTH, **options).train(), batch(MODALITIES)
        for phase in model.phases():
            with freeze_except(model, phase):
                full, passes = (make(model, phase, data) for make in (step, bare))
                slowest = max(seconds(action) for action in (full, passes) * 2)
                rounds = max(3, min(arguments.rounds, round(arguments.seconds / (2 * slowest))))
                pairs = [(seconds(full), seconds(passes)) for _ in range(rounds)]
            full_time, bare_time = (statistics.median(column) for column in zip(*pairs, strict=True))
            times = f"{full_time * 1e3:9.1f} {bare_time * 1e3:9.1f} {full_time / bare_time:6.2f}"
            row = f"{times} {ROWS / full_time:10.0f}"
            print(f"{name:10} {phase.name:10} {row}", flush=True)


if __name__ == "__main__":
    main()
