"""Compares the networks of `flow_matching` with a transformer whose tokens are the blocks of the codes.

The codes are those of a run of benchmarks/quality.py (`unimodal`, seed 0), with and without labels. The transformer is
not a part of the package: its divergence has no closed form, so that its likelihood is estimated with random probes.
Finished fits are stored in benchmarks/quality/attention and are not run again; the table in docs/densities.md is
written from them.

    python benchmarks/attention.py [NETWORK …] [--unlabelled]
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that seconds are those of one core
os.environ.setdefault("MLFLOW_TRACKING_URI", "off")

import torch
from density_page import table
from missing import replace_block
from quality import APART, PAIRS, prepared, timed
from quality_page import RESULTS
from quality_temperature import SETS, ValidationScores
from torch import Tensor, nn
from zoo import ROOT

from postprior.pipelines.storage import read_json, write_json
from postprior.stage1_vae.randomness import seeded
from postprior.stage2_latent.flow_matching import FlowMatching

FILES, PAGE = RESULTS / "attention", ROOT / "docs/densities.md"
MARKS = ("<!-- attention -->", "<!-- /attention -->")
NETWORKS = ("plain", "blocks", "attention")
WIDTH, HEADS, LAYERS, STEPS, RATE, DECAY = 128, 4, 2, 1200, 2e-3, 2.0
"""Sizes of the transformer, and its settings of AdamW; the other networks have those of params.yaml."""


class Layer(nn.Module):
    """Attention over tokens and a network of each token, both modulated by a condition (Peebles & Xie 2023, DiT,
    arXiv 2212.09748).
    """

    def __init__(self) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.network = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH))
        self.modulate = zeros(nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Map tokens (n, B, WIDTH) given a condition (n, WIDTH) to tokens."""
        shift, gain, weight, second_shift, second_gain, second = self.modulate(condition).unsqueeze(1).chunk(6, -1)
        heads = self.read(normal(tokens) * (1 + gain) + shift).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads  # (n, HEADS, B, WIDTH / HEADS)
        shares = (queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])).softmax(-1)
        tokens = tokens + (1 + weight) * self.write((shares @ values).transpose(1, 2).flatten(2))
        return tokens + (1 + second) * self.network(normal(tokens) * (1 + second_gain) + second_shift)


class Attention(nn.Module):
    """v(x, t, label, known): a transformer over the blocks of x, with the interface of `Velocity`.

    Args:
        sizes: sizes of the blocks of the code vector, D in total.
        classes: K.
    """

    FREQUENCIES = 3

    def __init__(self, sizes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.sizes, self.classes = list(sizes), classes
        self.read = nn.ModuleList(nn.Linear(size, WIDTH) for size in sizes)
        self.write = nn.ModuleList(zeros(nn.Linear(WIDTH, size)) for size in sizes)
        self.names = nn.Parameter(0.5 * torch.randn(2, len(sizes), WIDTH))  # of moving and of known blocks
        inputs = 2 * self.FREQUENCIES + classes
        self.condition = nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU())
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def modulation(self, t: Tensor, classes: Tensor, known: Tensor) -> Tensor:
        """Return the condition and the masks of known blocks, (n, WIDTH + blocks)."""
        angle = math.pi * t.unsqueeze(-1) * torch.arange(1, self.FREQUENCIES + 1)
        label = nn.functional.one_hot(classes, self.classes).to(t)
        return torch.cat([self.condition(torch.cat([angle.cos(), angle.sin(), label], -1)), known.to(t)], -1)

    def forward(self, x: Tensor, modulation: Tensor, moving: Tensor) -> Tensor:
        """Return v at points x (…, D)."""
        rows = modulation.expand(*x.shape[:-1], -1).flatten(0, -2)
        condition, known = rows[:, :WIDTH], rows[:, WIDTH:, None]
        blocks = x.flatten(0, -2).split(self.sizes, -1)
        tokens = torch.stack([read(block) for read, block in zip(self.read, blocks, strict=True)], 1)
        tokens = tokens + self.names[0].lerp(self.names[1], known)
        for layer in self.layers:
            tokens = layer(tokens, condition)
        outputs = zip(self.write, normal(tokens).unbind(1), strict=True)
        return torch.cat([write(token) for write, token in outputs], -1).view(x.shape) * moving.to(x)

    def fields(self, times: Tensor, label: int, known: Tensor, moving: Tensor) -> list[AttentionField]:
        """Return v and the estimate of its divergence at each of the times (T,)."""
        classes = torch.full((len(times),), label)
        conditions = self.modulation(times, classes, known.expand(len(times), -1))
        return [AttentionField(self, condition, moving) for condition in conditions]


@dataclass(frozen=True, eq=False)
class AttentionField:
    """The velocity of a transformer at one time."""

    network: Attention
    condition: Tensor
    moving: Tensor

    def velocity(self, x: Tensor) -> Tensor:
        """Return v at points (n, D)."""
        velocity: Tensor = self.network(x, self.condition.expand(len(x), -1), self.moving)
        return velocity

    def with_divergence(self, state: Tensor) -> Tensor:
        """Return v and an unbiased estimate of its divergence with one probe per point (Hutchinson), (n, D + 1)."""
        x = state[:, :-1].detach().requires_grad_()
        signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2.0 - 1
        with torch.enable_grad():
            v = self.velocity(x)
            (gradient,) = torch.autograd.grad(v, x, signs)
        return torch.cat([v.detach(), (gradient * signs).sum(-1, keepdim=True)], -1)


class Attending(FlowMatching):
    """`FlowMatching` with the transformer, without the check that its score has converged."""

    EVALUATIONS = 3

    def _build(self, structure: str, seed: int, **sizes: int) -> Any:
        with seeded(seed):
            return Attention([block.size for block in self.layout], len(self.classes))

    def _choose_ode_steps(self, z: Tensor, classes: Tensor, generator: torch.Generator) -> None:
        self.exact_log_prob = False

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        """Keep the fitted network, which is never stored."""


def zeros(layer: nn.Linear) -> nn.Linear:
    """Return a linear layer whose parameters are 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def normal(tokens: Tensor) -> Tensor:
    """Return tokens with mean 0 and variance 1."""
    return nn.functional.layer_norm(tokens, tokens.shape[-1:])


def run(network: str, labelled: bool) -> dict[str, Any]:
    """Fit a network to the codes; return its held-out log-likelihood, scores of samples and processor seconds."""
    from postprior.pipelines.artefacts.autoencoder import load_autoencoder
    from postprior.pipelines.artefacts.codes import load_codes
    from postprior.pipelines.artefacts.evaluators import load_evaluators
    from postprior.pipelines.artefacts.project import Project
    from postprior.pipelines.generation.generator import Generator
    from postprior.pipelines.stages.encode import encode
    from postprior.pipelines.stages.train import train

    params, folder = prepared(PAIRS["unimodal-flow_matching"], 0)
    project = Project(folder)
    artefacts = project.artefacts
    timed(folder, "train", artefacts.autoencoder, partial(train, params, folder))
    timed(folder, "encode", artefacts.codes / "test", partial(encode, params, folder))
    codes = {split: load_codes(artefacts.codes / split) for split in ("train", "validation")}
    if not labelled:
        codes = {split: replace(each, labels=None, label_names=None) for split, each in codes.items()}
    if network == "attention":
        own = {"network": "plain", "steps": STEPS, "learning_rate": RATE, "weight_decay": DECAY}
        density: FlowMatching = Attending(**APART | own)
    else:
        density = FlowMatching(**APART | {"network": network})
    start = time.process_time()
    density.fit(codes["train"], codes["validation"], torch.Generator().manual_seed(0))
    seconds = time.process_time() - start
    (model, _), evaluators = load_autoencoder(artefacts.autoencoder), load_evaluators(artefacts.evaluators)
    scores = ValidationScores(evaluators, project.dataset("validation"))
    samples = Generator(model, density, {}).sample(SETS * scores.rows, seed=1)
    return {
        "network": network,
        "labelled": labelled,
        "weights": sum(each.numel() for each in density.network.parameters()),
        "held_out_log_likelihood": max(density.scores.values()),
        "training_log_likelihood": max(density.history, key=lambda row: row["validation_log_likelihood"])[
            "train_log_likelihood"
        ],
        "samples": scores(samples),
        "real": scores.real,
        "seconds": round(seconds, 1),
    }


def write_table() -> None:
    """Write the table of all finished fits into docs/densities.md."""
    runs = [read_json(path) for path in sorted(FILES.glob("*.json"))]
    lines = [
        [f"`{run['network']}`", "yes" if run["labelled"] else "no", f"{run['weights'] / 1000:.0f}"]
        + [f"{run[key]:.1f}".replace("-", "−") for key in ("held_out_log_likelihood", "training_log_likelihood")]
        + [f"{run['samples']['joint_coherence']:.3f}", f"{run['samples']['frechet_distance']:.1f}"]
        + [f"{run['samples'][key]:.2f}" for key in ("recall", "precision")]
        + [f"{run['seconds']:.0f}"]
        for run in runs
    ]
    heads = ["network", "labels", "thousand weights", "held-out nats ↑", "training nats"]
    heads += ["joint coherence ↑", "Frechet ↓", "recall ↑", "precision ↑", "seconds"]
    replace_block(PAGE, *MARKS, table(heads, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help="networks; all by default"
    )
    parser.add_argument("--unlabelled", action="store_true", help="fit without labels")
    arguments = parser.parse_args()
    for network in arguments.networks:
        file = FILES / f"{network}{'-unlabelled' if arguments.unlabelled else ''}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write_json(file, run(network, not arguments.unlabelled))
            write_table()


if __name__ == "__main__":
    main()
