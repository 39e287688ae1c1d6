"""Small untrained models of MultiVae, one of each class; imports MultiVae, which has an environment of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # torchvision was built for another version of torch: operators that its import needs are missing
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import multivae.models
from multivae.models.base import BaseEncoder
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn.base_architectures import BaseDecoder

CLASSES = (
    *("MVAE", "MMVAE", "MoPoE", "MVTCAE", "CRMVAE", "DMVAE", "MMVAEPlus", "CMVAE", "JMVAE", "JNF", "TELBO"),
    *("Nexus", "MHVAE"),
)
SIZE = 8  # height and width of the images


class Function(BaseEncoder, BaseDecoder):
    """A module as a network of MultiVae; two outputs are locations and log-variances."""

    def __init__(self, module: nn.Module, *names: str) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, x: Tensor) -> ModelOutput:
        output = self.module(x)
        parts = output.chunk(len(self.names), 1) if len(self.names) > 1 else (output,)
        return ModelOutput(zip(self.names, parts, strict=True))


def _hierarchical(names: list[str]) -> dict[str, Any]:
    """Return the networks of an MHVAE of two levels for images of one channel."""
    gaussian = ("embedding", "log_covariance")
    deepest = lambda: Function(nn.Conv2d(4, 2 * 3, 4, 4), *gaussian)  # noqa: E731
    return {
        "encoders": {m: Function(nn.Conv2d(1, 4, 3, padding=1), "embedding") for m in names},
        "decoders": {m: Function(nn.Conv2d(2, 1, 3, padding=1), "reconstruction") for m in names},
        "bottom_up_blocks": {m: [deepest()] for m in names},
        "top_down_blocks": [nn.ConvTranspose2d(3, 4, 4, 4)],
        "prior_blocks": [Function(nn.Conv2d(4, 2 * 2, 3, padding=1), *gaussian)],
        "posterior_blocks": {m: [Function(nn.Conv2d(8, 2 * 2, 3, padding=1), *gaussian)] for m in names},
    }


def build(
    kind: str,
    names: list[str],
    shape: tuple[int, ...] = (1, SIZE, SIZE),
    latent: int = 4,
    private: int = 2,
    dist: str = "normal",
    seed: int = 0,
    **options: Any,
) -> Any:
    """Return an untrained model of the class `kind` for modalities of one shape."""
    networks = {}
    if kind in ("DMVAE", "Nexus", "MoPoE") and private:
        options["modalities_specific_dim"] = dict.fromkeys(names, private)
    if kind in ("MMVAEPlus", "CMVAE"):
        options["modalities_specific_dim"] = private
    if kind == "CMVAE":
        options["number_of_clusters"] = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "MHVAE":
            networks, options["n_latent"] = _hierarchical(names), 2
        config = getattr(multivae.models, f"{kind}Config")(
            n_modalities=len(names),
            latent_dim=latent,
            input_dims=dict.fromkeys(names, shape),
            decoders_dist=dict.fromkeys(names, dist),
            **options,
        )
        model = getattr(multivae.models, kind)(config, **networks)
        for parameter in model.parameters():  # away from its start, where priors are N(0, I)
            parameter.data += 0.05 * torch.randn(parameter.shape)
    return model.eval()
