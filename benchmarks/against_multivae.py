"""Compares the training speed of each model with that of MultiVae 1.0.3 (package `multivae`).

Both libraries train the same networks: each model is built with postprior, and the model of MultiVae is built from
copies of its networks. A step consists of the forward pass, the loss, the backward pass and the optimiser step on one
batch of five 3 × 28 × 28 modalities. Codes have 64 dimensions, of which 32 are private in models with private codes.
The steps of the two libraries alternate in one process, so that changes in the load of the machine affect both. The
medians are compared and written to multivae.csv. `make bench-multivae` creates the environment that MultiVae needs.

    .venv-multivae/bin/python benchmarks/against_multivae.py [--rounds 20] [--threads 2] [MODEL …]
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from timing import ROWS, WIDTH, batch, images, optimised, seconds
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # torchvision was built for another version of torch: operators that its import needs are missing
    for operator in ("nms", "qnms"):
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", schema)
import multivae.models
from multivae.data.datasets.base import MultimodalBaseDataset
from multivae.models.nn.base_architectures import BaseJointEncoder, BaseMultilatentEncoder
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn.base_architectures import BaseDecoder
from pythae.models.normalizing_flows.maf import MAF, MAFConfig

from postprior import MODELS
from postprior.stage1_vae.modalities import Batch
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.networks.hierarchical import as_map, as_positions

MODALITIES = images(28)
NAMES = [modality.name for modality in MODALITIES]
SCALE = 0.1
SECONDS = 120.0  # time limit for one comparison; slow models run fewer rounds, but at least three
LATE_EPOCH = 1000  # an epoch after all warm-up of MultiVae: full weight of the divergences, second of two phases
FEATURES, RECONSTRUCTION, POSTERIOR = ("embedding",), ("reconstruction",), ("embedding", "log_covariance")
WITH_PRIVATE = ("embedding", "style_embedding", "log_covariance", "style_log_covariance")
RESULTS = Path(__file__).with_name("multivae.csv")
LINE_FORMAT = "{:10} {:8} {:>8} {:>9} {:>6} {:>7}"
COLUMNS = "model", "variant", "ours_samples_per_s", "multivae_samples_per_s", "ratio", "rounds", "threads"


class Network(BaseMultilatentEncoder, BaseJointEncoder, BaseDecoder):
    """A function of postprior modules as a network of MultiVae.

    The output is split into equal parts, returned under the given names; without names it is returned as a tensor.
    """

    def __init__(self, names: tuple[str, ...], function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.names, self.function, self.parts = names, function, nn.ModuleList(modules)

    def forward(self, x: Any) -> ModelOutput | Tensor:
        output = self.function(x, *self.parts)
        pieces = output.chunk(len(self.names), -1) if len(self.names) > 1 else (output,)
        return ModelOutput(zip(self.names, pieces, strict=True)) if self.names else output


def wrapped(names: tuple[str, ...], networks: nn.ModuleDict) -> dict[str, Network]:
    """Wrap every network as a `Network` with these output names."""
    return {name: Network(names, network) for name, network in networks.items()}


def flat(model: Any) -> dict[str, Any]:
    """Return the networks of a model with one encoder and one decoder per modality."""
    outputs = WITH_PRIVATE if model.private else POSTERIOR
    return {"encoders": wrapped(outputs, model.encoders), "decoders": wrapped(RECONSTRUCTION, model.decoders)}


def joint(model: Any) -> dict[str, Any]:
    """Return the networks of `flat` and a joint encoder."""
    return {**flat(model), "joint_encoder": Network(POSTERIOR, model.joint)}


def flows(model: Any) -> dict[str, Any]:
    """Return the networks of `joint` and flows.

    The flows of MultiVae do not read an encoder, so those of postprior cannot be used. They have the same numbers of
    blocks and units.
    """
    size = {"n_made_blocks": model.flow_blocks, "hidden_size": model.flow_hidden}
    maf_flows = {name: MAF(MAFConfig(input_dim=(model.latent,), **size)) for name in NAMES}
    return {**joint(model), "flows": maf_flows}


def nexus(model: Any) -> dict[str, Any]:
    """Return the networks of both levels of Nexus."""
    return {
        **flat(model),
        "top_encoders": wrapped(FEATURES, model.messages),
        "joint_encoder": Network(POSTERIOR, model.listener),
        "top_decoders": wrapped(RECONSTRUCTION, model.rebuilders),
    }


def hierarchical(model: Any) -> dict[str, Any]:
    """Return the blocks of MHVAE; MultiVae numbers the levels from the bottom."""

    def above(z: Tensor, trunk: nn.Module, *state: nn.Module) -> Tensor:
        inputs = state[0](z) if state else z  # the levels of MultiVae read the nearest latent only
        return trunk.convolutions(as_map(trunk.head(inputs.flatten(1)), trunk.above))

    def factor(x: Tensor, step: nn.Module, lateral: nn.Module) -> Tensor:
        context, features = (as_positions(half) for half in x.chunk(2, 1))
        return step.to_factor(torch.relu(step.context(context) + lateral(features)))

    blocks, steps = defaultdict[str, Any](dict), list(reversed(model.steps))
    for name, encoder in model.encoders.items():
        deepest, *_, first = encoder.used  # numbers of stages before the skip connections
        code = Network(POSTERIOR, lambda x, head: head(as_positions(x).flatten(1)), encoder.head)
        factors = zip(steps, reversed(encoder.laterals), strict=True)
        blocks["encoders"][name] = Network(FEATURES, nn.Sequential(*encoder.stages[:first]))
        blocks["bottom_up_blocks"][name] = [*encoder.stages[first:deepest], code]
        blocks["posterior_blocks"][name] = [Network(POSTERIOR, factor, *pair) for pair in factors]
        last = nn.Sequential(steps[0].to_state, nn.Flatten(), model.decoders[name])
        blocks["decoders"][name] = Network(RECONSTRUCTION, last)
    priors = [Network(POSTERIOR, lambda x, head: head(as_positions(x)), step.to_prior) for step in steps]
    trunks = [
        Network((), above, step.trunk, *(upper.to_state for upper in steps[level : level + 1]))
        for level, step in enumerate(steps, 1)
    ]
    return {**blocks, "top_down_blocks": trunks, "prior_blocks": priors}


class Case(NamedTuple):
    """A model in both libraries."""

    name: str  # its key in MODELS
    multivae_class: str  # its class in MultiVae
    options: Mapping[str, Any] = MappingProxyType({"latent": 64})  # options of the postprior model
    config: Mapping[str, Any] = MappingProxyType({})  # options of the MultiVae model
    networks: Callable[[Any], dict[str, Any]] = flat  # postprior model → networks of the MultiVae model
    variant: str = ""


HALVES = {"latent": 32, "private": 32}
ELBO, MULTIVAE_ELBO = {"draws": 1, "estimator": "iwae"}, {"K": 1, "loss": "iwae_looser"}
DREG, MULTIVAE_DREG = {"draws": 10, "estimator": "dreg"}, {"K": 10, "loss": "dreg_looser"}
PRIVATE, PRIVATE_BY_NAME = {"modalities_specific_dim": 32}, {"modalities_specific_dim": dict.fromkeys(NAMES, 32)}
NORMAL = {**PRIVATE, **MULTIVAE_ELBO, "prior_and_posterior_dist": "normal", "number_of_clusters": 10}
BOTTOM = {"modalities_specific_dim": dict.fromkeys(NAMES, 64), "dropout_rate": 0.2}
CASES = (
    # No random subsets: MultiVae draws larger subsets, which would need more decodings.
    Case("mvae", "MVAE", {"latent": 64, "subsets": 0}, {"k": 0}),
    Case("mmvae", "MMVAE", {"latent": 64, **DREG}, MULTIVAE_DREG, variant="K=10"),
    Case("mopoe", "MoPoE"),
    Case("mvtcae", "MVTCAE"),
    Case("crmvae", "CRMVAE"),
    Case("dmvae", "DMVAE", HALVES, PRIVATE_BY_NAME),
    Case("mmvaeplus", "MMVAEPlus", {**HALVES, **ELBO}, {**PRIVATE, **MULTIVAE_ELBO}, variant="K=1"),
    Case("mmvaeplus", "MMVAEPlus", {**HALVES, **DREG}, {**PRIVATE, **MULTIVAE_DREG}, variant="K=10"),
    Case("cmvae", "CMVAE", {**HALVES, **ELBO, "clusters": 10}, NORMAL, variant="K=1"),
    Case("nexus", "Nexus", {"latent": 64, "bottom": 64, "dropout": 0.2}, BOTTOM, nexus),
    # All subsets, the only choice in MultiVae; postprior draws two per row by default.
    Case("mhvae", "MHVAE", {"latent": 64, "levels": 3, "subsets": 31}, {"n_latent": 3}, hierarchical),
    Case("jmvae", "JMVAE", networks=joint),
    Case("jnf", "JNF", networks=flows),
    Case("telbo", "TELBO", networks=joint),
)


def multivae_model(case: Case, model: MultimodalVAE, scale: float = SCALE) -> nn.Module:
    """Build the MultiVae model of a case from copies of the networks of the postprior model."""
    config = getattr(multivae.models, f"{case.multivae_class}Config")(
        n_modalities=len(model.modalities),
        latent_dim=model.latent,
        input_dims={m.name: m.shape for m in model.modalities},
        decoders_dist=dict.fromkeys(NAMES, "laplace"),
        decoder_dist_params={name: {"scale": scale} for name in NAMES},
        **case.config,
    )
    return getattr(multivae.models, case.multivae_class)(config, **case.networks(copy.deepcopy(model)))


def alternate(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> list[tuple[float, float]]:
    """Return the seconds of alternating steps. The first two of each are left out, because they fill caches."""
    cost = [seconds(ours) + seconds(theirs) for _ in range(2)][-1]
    return [(seconds(ours), seconds(theirs)) for _ in range(max(3, min(rounds, int(SECONDS / cost))))]


def compare(case: Case, data: Batch, rounds: int) -> Iterator[tuple[str, ...]]:
    """Yield one row of results per phase of the model."""
    model = MODELS[case.name](MODALITIES, width=WIDTH, likelihood_scale=SCALE, **case.options)
    inputs, phases, other = MultimodalBaseDataset(data.data), model.phases(), multivae_model(case, model)
    generator = torch.Generator().manual_seed(0)
    for number, phase in enumerate(phases, 1):
        epoch = LATE_EPOCH if number == len(phases) else 1
        model.requires_grad_(False)  # the training loop also freezes parameters that a phase does not train
        nn.ParameterList(phase.parameters).requires_grad_(True)
        loss = partial(phase.objective, data, generator, 1.0)
        ours = optimised(phase.parameters, lambda loss=loss: loss().per_sample.mean().backward())
        theirs = optimised(list(other.parameters()), lambda epoch=epoch: other(inputs, epoch=epoch).loss.backward())
        times = alternate(ours, theirs, rounds)
        our_speed, their_speed = (ROWS / statistics.median(column) for column in zip(*times, strict=True))
        variant = case.variant if len(phases) == 1 else f"phase {number}"
        counts = (str(len(times)), str(torch.get_num_threads()))
        yield case.name, variant, f"{our_speed:.1f}", f"{their_speed:.1f}", f"{our_speed / their_speed:.2f}", *counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the training speed with that of MultiVae.")
    names = list(dict.fromkeys(case.name for case in CASES))
    parser.add_argument("models", nargs="*", default=names, metavar="MODEL", help="models to compare; all by default")
    parser.add_argument("--rounds", type=int, default=20, help="maximum number of steps per model")
    parser.add_argument("--threads", type=int, default=2, help="number of threads of torch")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(names):
        parser.error(f"models: found {', '.join(sorted(unknown))}, expected one or more of {', '.join(names)}")
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, {ROWS} rows per step, samples per second")
    print(LINE_FORMAT.format("model", "variant", "ours", "MultiVae", "ratio", "rounds"))
    rows = [COLUMNS]
    for case in (case for case in CASES if case.name in arguments.models):
        if case.name not in MODELS:
            print(f"{case.name:10} skipped: not in MODELS")
            continue
        for row in compare(case, batch(MODALITIES), arguments.rounds):
            print(LINE_FORMAT.format(*row), flush=True)
            rows.append(row)
            RESULTS.write_text("".join(",".join(line) + "\n" for line in rows))
    ratios = [[float(row[4]) for row in rows[1:] if row[0] == name] for name in names]
    if means := [statistics.geometric_mean(values) for values in ratios if values]:
        print(f"geometric mean over {len(means)} models: {statistics.geometric_mean(means):.2f}")


if __name__ == "__main__":
    main()
