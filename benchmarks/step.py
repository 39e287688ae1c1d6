"""The cost of a training step over that of the network passes it needs, for every model.

The bare passes run each encoder once on the batch and each decoder once on all the draws that the model decodes,
forward, backward and optimiser included, with no probability in between. Both are timed in turns in one process;
the ratio of the medians is printed.

    python benchmarks/step.py [--rounds 30] [--draws 10] [MODEL …]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from stage1_vae import MODELS
from stage1_vae.modalities import Batch, Modality
from stage1_vae.model import MultimodalVAE

MODALITIES = tuple(Modality(f"m{index}", "image", (3, 16, 16), "laplace", (0, 1)) for index in range(5))
ROWS = 128


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    data = {m.name: torch.rand(ROWS, *m.shape, generator=generator) for m in MODALITIES}
    return Batch(data, torch.ones(ROWS, len(MODALITIES), dtype=torch.bool))


def decoded_rows(model: MultimodalVAE, data: Batch) -> dict[str, int]:
    """Rows that each decoder is run on in a step, counted in one."""
    counts: dict[str, int] = {}
    hooks = [
        decoder.register_forward_hook(lambda _, given, __, name=name: counts.__setitem__(name, len(given[0])))
        for name, decoder in model.decoders.items()
    ]
    model.loss(data, torch.Generator().manual_seed(0))
    for hook in hooks:
        hook.remove()
    return counts


def step(model: MultimodalVAE, data: Batch) -> Callable[[], None]:
    """A training step of the model."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    generator = torch.Generator().manual_seed(0)

    def run() -> None:
        loss = model.loss(data, generator)
        optimizer.zero_grad(set_to_none=True)
        loss.per_sample.mean().backward()
        optimizer.step()

    return run


def bare(model: MultimodalVAE, data: Batch) -> Callable[[], None]:
    """The network passes of that step, and its optimiser, alone."""
    counts = decoded_rows(model, data)
    networks = [*model.encoders.parameters(), *model.decoders.parameters()]
    optimizer = torch.optim.AdamW(networks, 1e-4, fused=True)

    def run() -> None:
        codes = sum(model.encoders[name](x)[:, : model.latent] for name, x in data.data.items())
        outputs: list[Tensor] = []
        for name, rows in counts.items():
            repeated = codes.repeat(-(-rows // ROWS), 1)[:rows]
            outputs.append(model.decoders[name](repeated))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        optimizer.step()

    return run


def seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--draws", type=int, default=10, help="K of MMVAE")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads, {ROWS} rows a step")
    print(f"{'model':8} {'step ms':>9} {'bare ms':>9} {'ratio':>6} {'samples/s':>10}")
    for name in given.models:
        options = {"draws": given.draws} if name == "mmvae" else {}
        rounds = max(3, given.rounds // (given.draws if name == "mmvae" else 1))
        ours, passes = (make(MODELS[name](MODALITIES, **options), batch()) for make in (step, bare))
        for action in (ours, passes) * 2:
            action()
        pairs = [(seconds(ours), seconds(passes)) for _ in range(rounds)]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{name:8} {mine * 1e3:9.1f} {theirs * 1e3:9.1f} {mine / theirs:6.2f} {ROWS / mine:10.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
