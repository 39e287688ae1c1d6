"""The vision transformer of DINOv2, built to the shapes of its published weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 64  # width of an attention head in every published size
EPSILON = 1e-6
OFFSET = 0.1  # in the factor by which positions are stretched, as in training


class VisionTransformer(nn.Module):
    """A transformer of patches whose first token, that of the class, is the feature of an image.

    Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929), with the scaled residuals of Touvron et al. 2021
    (https://arxiv.org/abs/2103.17239), as in DINOv2 (Oquab et al. 2024, https://arxiv.org/abs/2304.07193). Names of
    parameters are those of the files dinov2_vits14_pretrain, dinov2_vitb14_pretrain and dinov2_vitl14_pretrain.

    Args:
        tensors: the parameters by name.

    Raises:
        ValueError: they are those of another network.
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
        self.mask_token = nn.Parameter(torch.empty(1, width))  # of training alone
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width, EPSILON)
        try:
            self.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise ValueError(f"not the parameters of a DINOv2 network ({str(error).splitlines()[1].strip()})") from None

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, width) of standardised images (B, 3, H, W), H and W multiples of a patch."""
        patches: Tensor = self.patch_embed["proj"](images)  # (B, width, h, w)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches.flatten(2).mT], 1)
        x = x + self.positions(patches.shape[-2], patches.shape[-1])
        for block in self.blocks:
            x = block(x)
        features: Tensor = self.norm(x)[:, 0]
        return features

    def positions(self, height: int, width: int) -> Tensor:
        """The codes (1, 1 + h·w, width) of positions, stretched from the square that was trained."""
        of_class, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = round(grid.shape[1] ** 0.5)
        if (height, width) == (side, side):
            return self.pos_embed
        square = grid.unflatten(1, (side, side)).permute(0, 3, 1, 2)
        factors = ((height + OFFSET) / side, (width + OFFSET) / side)
        stretched = F.interpolate(square, scale_factor=factors, mode="bicubic")
        return torch.cat([of_class, stretched.flatten(2).mT], 1)


class Block(nn.Module):
    """x + γ₁ attention(norm x), then x + γ₂ mlp(norm x)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // HEAD)
        self.norm1, self.norm2 = nn.LayerNorm(width, EPSILON), nn.LayerNorm(width, EPSILON)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) → the same."""
        x = x + self.ls1["gamma"] * self.attention(self.norm1(x))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(x)))
        changed: Tensor = x + self.ls2["gamma"] * self.mlp["fc2"](hidden)
        return changed

    def attention(self, x: Tensor) -> Tensor:
        """Every token's mean of the tokens that it attends to, (B, tokens, width)."""
        parts = self.attn["qkv"](x).unflatten(-1, (3, self.heads, -1))  # (B, tokens, 3, heads, HEAD)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        mixed: Tensor = self.attn["proj"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return mixed
