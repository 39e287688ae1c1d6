"""Image features of networks pretrained on photographs, with weights from a local file.

Nothing is downloaded. Weights are .safetensors files; convert a file in PyTorch's format once:

    python -c "import sys; from torch import load; from safetensors.torch import save_file; \
tensors = load(sys.argv[1], weights_only=True); \
save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, sys.argv[2])" FILE.pth FILE.safetensors
"""

import importlib.util
import io
import sys
from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.extractor import observed_values
from postprior.pipelines.metrics.features.projections import Projected
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.randomness import seeded
from postprior.stage2_latent.states import strip_prefix

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the photographs on which DINOv2 was trained
HEAD = 64  # width of an attention head in all published sizes of DINOv2
EPSILON = 1e-6
OFFSET = 0.1  # added to the grid size when position embeddings are interpolated, as in training


class Pretrained(Projected):
    """Features of a pretrained network for images; principal components for other modalities.

    If the network has at most `features` features, they are used unchanged, so that distances are comparable with
    published ones; otherwise their principal components are used. An image without exactly three channels is replaced
    by the mean of its channels, repeated for each colour. `weights` is the .safetensors file of the network's weights.
    They become part of the state, so `from_state` needs no file.
    """

    name: ClassVar[str]
    block = 32  # smaller than `BLOCK`: the networks' input images are large

    def __init__(
        self, modalities: tuple[Modality, ...], features: int, seed: int = 0, weights: Path | None = None
    ) -> None:
        super().__init__(modalities, features, seed)
        self.weights = weights
        self.network: nn.Module | None = None
        for m in self.images():
            self.register_buffer(f"{m.name}_range", torch.tensor([0.0, 1.0]))

    @abstractmethod
    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Build the network with these weights; raise ValueError if they belong to another network."""

    @abstractmethod
    def network_features(self, images: Tensor) -> Tensor:
        """Return the network's features (B, D) of images (B, 3, H, W) with values from 0 to 255."""

    def fit(self, dataset: Dataset) -> Self:
        """Load the weights, set the value range of images, then fit principal components where needed."""
        tensors = self._read_weights()
        try:
            self.load_network(tensors)
        except ValueError as error:
            raise UserError(f"evaluators.weights: {self.weights}: {error}; expected weights of {self.name}") from None
        for m in self.images():
            low, high = m.range or _range(dataset, m)
            self.get_buffer(f"{m.name}_range").copy_(torch.tensor([low, high]))
        return super().fit(dataset)

    def load_network(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the network with these weights."""
        with seeded(self.seed):  # layers draw initial parameters before the weights replace them
            self.network = self.build(tensors).requires_grad_(False).eval()

    def images(self) -> list[Modality]:
        """Return the image modalities, to which the network applies."""
        return [m for m in self.modalities if m.kind == "image"]

    def vectors(self, name: str, values: Tensor) -> Tensor:
        """Return the network's features (B, D) of images, or standardised values (B, D) of other modalities."""
        if f"{name}_range" not in self._buffers:
            return self.standardised(name, values).flatten(1)
        low, high = self.get_buffer(f"{name}_range")
        images = ((values - low) / (high - low)).clamp(0, 1) * 255
        if images.shape[1] != 3:
            images = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return self.network_features(images)

    def raw(self, modality: Modality) -> bool:
        """Whether the network has at most `features` features, which are then used unchanged."""
        if modality not in self.images():
            return False
        return self.vectors(modality.name, torch.zeros(1, *modality.shape)).shape[1] <= self.width

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> Self:
        """Rebuild the extractor from what `state` returned."""
        remaining = {name: tensor for name, tensor in tensors.items() if not name.startswith("network.")}
        extractor = super().from_state(remaining, description)
        extractor.load_network(strip_prefix("network.", tensors))
        return extractor.eval()

    def _read_weights(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.weights is None:
            raise UserError(
                f"evaluators.weights: found null, but extractor {self.name} loads its network from a file; "
                "expected the path of its weights, a .safetensors file"
            )
        try:
            return load_file(self.weights)
        except FileNotFoundError:
            raise UserError(
                f"evaluators.weights: {self.weights} does not exist; expected the weights of {self.name}"
            ) from None
        except SafetensorError as error:
            raise UserError(
                f"evaluators.weights: {self.weights} is not a .safetensors file ({error}); convert it with the command "
                "in pipelines/metrics/features/pretrained.py"
            ) from None


class Inception(Pretrained):
    """The 2048 features of the Inception v3 of Frechet inception distances (Heusel et al. 2017, arXiv:1706.08500).

    The network comes from torch-fidelity (`pip install postprior[features]`). Convert its weights,
    weights-inception-2015-12-05-6726825d.pth, with the command at the top of this module. torch-fidelity depends on
    torchvision, which is not imported here: it may be installed with --no-deps.
    """

    name = "inception"

    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Build torch-fidelity's network; it loads only PyTorch's format, here from a buffer in memory."""
        module = _torch_fidelity("feature_extractor_inceptionv3")
        file = io.BytesIO()
        torch.save(dict(tensors), file)
        file.seek(0)
        try:
            return module.FeatureExtractorInceptionV3(self.name, ["2048"], feature_extractor_weights_path=file)
        except RuntimeError as error:
            raise ValueError(f"found other tensors ({str(error).splitlines()[1].strip()})") from None

    def network_features(self, images: Tensor) -> Tensor:
        """Return the last pooling layer (B, 2048)."""
        assert self.network is not None
        return self.network(images.to(torch.uint8))[0]


class DINOv2(Pretrained):
    """The class token of DINOv2 (Oquab et al. 2024, https://arxiv.org/abs/2304.07193) for images of 224 × 224.

    Convert the weights dinov2_vits14_pretrain.pth, or those of size b or l, with the command at the top of this
    module. torch-fidelity offers this network only as a download, so it is implemented here.
    """

    name = "dinov2"
    SIDE = 224

    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """Build a transformer of the size of the weights."""
        return VisionTransformer(tensors)

    def network_features(self, images: Tensor) -> Tensor:
        """Return the class token (B, width)."""
        assert self.network is not None
        x = F.interpolate(images, size=(self.SIDE, self.SIDE), mode="bilinear", align_corners=False) / 255
        mean, deviation = (x.new_tensor(moment).view(3, 1, 1) for moment in (MEAN, DEVIATION))
        return self.network((x - mean) / deviation)


class VisionTransformer(nn.Module):
    """A vision transformer; its class token is the feature vector of an image.

    Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929), with the scaled residuals of Touvron et al. 2021
    (https://arxiv.org/abs/2103.17239), as in DINOv2 (Oquab et al. 2024, https://arxiv.org/abs/2304.07193). Parameter
    names are those in the files dinov2_vits14_pretrain, dinov2_vitb14_pretrain and dinov2_vitl14_pretrain. Raises
    ValueError for the weights of another network.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        try:
            width, patch = tensors["cls_token"].shape[-1], tensors["patch_embed.proj.weight"].shape[-1]
            positions = tensors["pos_embed"].shape[1]
        except KeyError as error:
            raise ValueError(f"the tensor {error} of a DINOv2 network is missing") from None
        depth = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, positions, width))
        self.mask_token = nn.Parameter(torch.empty(1, width))  # used only in training
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPSILON)
        try:
            self.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise ValueError(f"not the parameters of a DINOv2 network ({str(error).splitlines()[1].strip()})") from None

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, width) of standardised images (B, 3, H, W), H and W multiples of the patch size."""
        patches: Tensor = self.patch_embed["proj"](images)  # (B, width, h, w)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], 1)
        x = x + self.positions(patches.shape[-2], patches.shape[-1])
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def positions(self, height: int, width: int) -> Tensor:
        """Return position embeddings (1, 1 + h·w, width), interpolated from the square grid used in training."""
        class_position, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(grid.shape[1] ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        square = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        factors = ((height + OFFSET) / side, (width + OFFSET) / side)
        stretched = F.interpolate(square, scale_factor=factors, mode="bicubic")
        return torch.cat([class_position, stretched.flatten(2).mT], 1)


class Block(nn.Module):
    """A transformer block: x + γ₁ attention(norm x), then x + γ₂ mlp(norm x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.norm1, self.norm2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, tokens, width) to tokens of the same shape."""
        x = x + self.ls1["gamma"] * self.attention(self.norm1(x))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        return x + self.ls2["gamma"] * self.mlp["fc2"](hidden)

    def attention(self, x: Tensor) -> Tensor:
        """Return the multi-head self-attention of every token, (B, tokens, width)."""
        parts = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1))  # (B, tokens, 3, heads, HEAD)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        return self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _torch_fidelity(name: str) -> Any:
    """Import a module of torch-fidelity without its package's imports, which need torchvision; no metric needs that."""
    package = "torch_fidelity"
    if package in sys.modules:
        return import_module(f"{package}.{name}")
    if (spec := importlib.util.find_spec(package)) is None:
        raise UserError(
            "evaluators.extractor: inception needs torch-fidelity, which is not installed; "
            "run pip install 'postprior[features]'"
        )
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        return import_module(f"{package}.{name}")
    finally:
        del sys.modules[package]


def _range(dataset: Dataset, modality: Modality) -> tuple[float, float]:
    """Return the smallest and the largest observed value of a modality."""
    blocks = [block for block in observed_values(dataset, modality) if len(block)]
    low = float(min(block.min() for block in blocks))
    return low, max(float(max(block.max() for block in blocks)), low + 1e-6)
