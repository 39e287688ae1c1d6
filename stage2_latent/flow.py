"""Normalizing flow over a mixture of Gaussians a label: the one file of this stage that knows normflows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

import normflows as nf
import torch
from torch import Tensor, nn

from stage2_latent.density import Density, Encoder, Record
from stage2_latent.draws import Draws
from stage2_latent.gaussians import Gaussians, online_em, seed_moments
from stage2_latent.options import choice, number, whole


class AffineCoupling(nf.flows.Flow):
    """z₂ ← z₂ · exp(s) + t with (s, t) a network of z₁ and the label (Dinh et al. 2017, arXiv 1605.08803)."""

    def __init__(self, features: int, hidden: int, context: int) -> None:
        super().__init__()
        self.kept = features // 2
        outputs = 2 * (features - self.kept)
        self.net = nf.nets.ResidualNet(self.kept, outputs, hidden, context_features=context, num_blocks=2)

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Base to codes."""
        log_scale, shift = self._affine(z, context)
        moved = z[:, self.kept :] * log_scale.exp() + shift
        return torch.cat([z[:, : self.kept], moved], dim=1), log_scale.sum(-1)

    def inverse(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Codes to base."""
        log_scale, shift = self._affine(z, context)
        moved = (z[:, self.kept :] - shift) * (-log_scale).exp()
        return torch.cat([z[:, : self.kept], moved], dim=1), -log_scale.sum(-1)

    def _affine(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        raw, shift = self.net(z[:, : self.kept], context).chunk(2, dim=-1)
        return 2 * torch.tanh(raw / 2), shift  # a step's scale stays within e^±2


def _affine(features: int, hidden: int, context: int, bins: int, bound: float) -> nf.flows.Flow:
    coupling = AffineCoupling(features, hidden, context)
    nn.init.zeros_(coupling.net.final_layer.weight)
    nn.init.zeros_(coupling.net.final_layer.bias)
    return coupling


def _spline(features: int, hidden: int, context: int, bins: int, bound: float) -> nf.flows.Flow:
    """Rational-quadratic coupling (Durkan et al. 2019, arXiv 1906.04032), the identity at first and beyond ±bound."""
    coupling = nf.flows.CoupledRationalQuadraticSpline(
        features, 2, hidden, num_context_channels=context, num_bins=bins, tail_bound=bound
    )
    coupling.prqct.unconditional_transform = None  # of the half that passes: the next layers transform it
    final = coupling.prqct.transform_net.final_layer
    nn.init.zeros_(final.weight)
    nn.init.constant_(final.bias, math.log(math.exp(1 - 1e-3) - 1))  # derivatives of 1 at the knots
    return coupling


COUPLINGS: dict[str, Callable[..., nf.flows.Flow]] = {"spline": _spline, "affine": _affine}


class Transport(nn.Module):
    """The invertible map between codes and base, conditioned on the class, and the base's parameters.

    Layers alternate a linear map (a fixed permutation and a learned LU factorisation) and a coupling. At first they
    only permute, so that the base can be fitted to codes that went through them.
    """

    def __init__(self, features: int, classes: int, coupling: str, blocks: int, **sizes: Any) -> None:
        super().__init__()
        self.classes = classes
        make = COUPLINGS[coupling]
        pairs = [
            (nf.flows.LULinearPermute(features), make(features, context=classes, **sizes))
            for _ in range(blocks)
        ]
        self.layers = nn.ModuleList([layer for pair in pairs for layer in pair])

    def to_base(self, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Base points u of codes x (n, D), and log |du/dx| (n,)."""
        return self._through(x, classes, [layer.inverse for layer in reversed(self.layers)])

    def to_codes(self, u: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of base points u (n, D), and log |dx/du| (n,)."""
        return self._through(u, classes, [layer.forward for layer in self.layers])

    def _through(self, x: Tensor, classes: Tensor, steps: list[Any]) -> tuple[Tensor, Tensor]:
        context = nn.functional.one_hot(classes, self.classes).to(x.dtype)
        total = x.new_zeros(len(x))
        for step in steps:
            x, log_det = step(x, context=context)
            total = total + log_det
        return x, total


class Base(nn.Module):
    """Learnable `Gaussians`: the factors' diagonals are exponentials."""

    def __init__(self, mixture: Gaussians) -> None:
        super().__init__()
        diagonal = mixture.factors.diagonal(dim1=-2, dim2=-1).log()
        self.logits = nn.Parameter(mixture.log_weights.clone())
        self.means = nn.Parameter(mixture.means.clone())
        self.raw = nn.Parameter(mixture.factors.tril(-1) + diagonal.diag_embed())

    def forward(self) -> Gaussians:
        """The mixtures as they are now."""
        factors = self.raw.tril(-1) + self.raw.diagonal(dim1=-2, dim2=-1).exp().diag_embed()
        return Gaussians(self.logits.log_softmax(-1), self.means, factors)


class Flow(Density):
    """p(z | y) = p_base(f_y(z) | y) |det ∂f_y/∂z|: invertible layers that see the label, over Gaussian mixtures.

    The base is first fitted by EM to the codes, the layers still being the identity; then both follow the gradient
    of the log-likelihood of fresh posterior draws (AdamW, cosine decay), in the direction of the layers that is
    fast. The weights of the best held-out log-likelihood are kept. Draws go through the layers in double precision,
    where the inverse of a spline does not lose its root to rounding.

    Args:
        coupling: `spline` (rational-quadratic) or `affine`.
        blocks: pairs of a linear layer and a coupling.
        hidden: width of the couplings' networks.
        bins: bins of a spline.
        bound: whitened codes beyond ±bound are left as they are by splines.
        components: Gaussians of the base over all labels, dealt evenly; one a label at least.
        shrinkage: of the base's covariances, as in `gmm`.
        steps: optimisation steps.
        batch: draws in a step, over all labels.
        learning_rate: of AdamW at first; it falls to 0 along a cosine.
        base_learning_rate: the same for the parameters of the base.
        weight_decay: of AdamW, on the layers.
        patience: looks at the validation codes, every 20 steps, without improvement before training ends.
    """

    name = "flow"

    base: Gaussians
    transport: Transport

    EVERY = 20

    def __init__(
        self,
        *,
        coupling: str = "spline",
        blocks: int = 4,
        hidden: int = 64,
        bins: int = 4,
        bound: float = 4.0,
        components: int = 16,
        shrinkage: float = 128.0,
        steps: int = 400,
        batch: int = 512,
        learning_rate: float = 3e-3,
        base_learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        patience: int = 15,
    ) -> None:
        super().__init__()
        self.coupling = choice("coupling", coupling, COUPLINGS)
        self.sizes: dict[str, Any] = {
            "blocks": whole("blocks", blocks),
            "hidden": whole("hidden", hidden),
            "bins": whole("bins", bins, low=2),
            "bound": number("bound", bound, low=1.0),
        }
        self.components = whole("components", components)
        self.shrinkage = number("shrinkage", shrinkage)
        self.steps, self.batch = whole("steps", steps), whole("batch", batch)
        self.learning_rate = number("learning_rate", learning_rate)
        self.base_learning_rate = number("base_learning_rate", base_learning_rate)
        self.weight_decay = number("weight_decay", weight_decay)
        self.patience = whole("patience", patience)

    def _fit(
        self,
        train: Draws,
        validation: Draws,
        generator: torch.Generator,
        encoder: Encoder | None,
        record: Record,
    ) -> None:
        seed = int(torch.randint(2**31, (1,), generator=generator))
        self.transport = self._build(seed).to(train.codes.loc)
        train = train.shuffled(generator)
        base = Base(self._fit_base(train, seed, generator))
        held_out = validation.repeated(4, generator)
        groups = [
            {"params": list(self.transport.parameters()), "lr": self.learning_rate},
            {"params": list(base.parameters()), "lr": self.base_learning_rate, "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        size = max(2, self.batch // len(self.classes))
        best, since, total = -torch.inf, 0, 0.0
        for step in range(self.steps + 1):
            if step % self.EVERY == 0 or step == self.steps:
                self.base = base().detach()
                score = self.mean_log_prob(*held_out)
                record(train=total / self.EVERY if step else score, validation=score)
                total, since = 0.0, since + 1
                if score > best:
                    best, since = score, 0
                    kept = self.base, copy.deepcopy(self.transport.state_dict())
                if since >= self.patience:
                    break
            likelihood = self._likelihood(base(), train.balanced(step, size, generator))
            optimiser.zero_grad()
            (-likelihood).backward()
            nn.utils.clip_grad_norm_(self.transport.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            total += float(likelihood.detach())
        self.base = kept[0]
        self.transport.load_state_dict(kept[1])
        self.transport.requires_grad_(False)

    def _build(self, seed: int) -> Transport:
        """Untrained layers, from their own seed: normflows draws its weights from torch's global generator."""
        features = len(self.whitening.loc)
        if features < 2:
            raise ValueError(
                "density flow: codes have 1 dimension, expected 2 at least to couple: fit gmm instead"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Transport(features, len(self.classes), self.coupling, **self.sizes)

    def _fit_base(self, train: Draws, seed: int, generator: torch.Generator) -> Gaussians:
        """EM of the base on draws that went through the layers."""
        size = min(1024, int(train.counts.max()))

        def draw(turn: int) -> Tensor:
            x = train.balanced(turn, size, generator)
            classes = torch.arange(len(x)).repeat_interleave(size)
            with torch.no_grad():
                return self.transport.to_base(x.flatten(0, 1), classes)[0].unflatten(0, x.shape[:2])

        strength = self.shrinkage / train.counts.to(train.codes.loc)
        components = max(1, self.components // len(self.classes))
        *_, (mixture, _) = online_em(seed_moments(draw(0), components, seed), draw, 40, strength)
        return mixture

    def _likelihood(self, base: Gaussians, x: Tensor) -> Tensor:
        """Mean of log p(x | class) over classes by their probabilities, for points (K, B, D)."""
        classes = torch.arange(len(x)).repeat_interleave(x.shape[1])
        u, log_det = self.transport.to_base(x.flatten(0, 1), classes)
        values = base.log_prob(u.unflatten(0, x.shape[:2])) + log_det.unflatten(0, x.shape[:2])
        return values.mean(-1) @ self.classes.probabilities

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        u, log_det = self.transport.to_base(x, torch.full((len(x),), index))
        return self.base.select(index).log_prob(u.unsqueeze(0)).squeeze(0) + log_det

    def _sample(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        u = self.base.sample(classes, generator)
        transport = copy.deepcopy(self.transport).double()
        with torch.no_grad():
            parts = [
                transport.to_codes(part.double(), of)[0]
                for part, of in zip(u.split(4096), classes.split(4096), strict=True)
            ]
        return torch.cat(parts).to(u.dtype)

    def _floats_per_row(self) -> int:
        spline = len(self.whitening.loc) * 3 * self.sizes["bins"]
        return max(spline, self.base.means[0].numel())

    def _tensors(self) -> dict[str, Tensor]:
        layers = {f"layers.{name}": value for name, value in self.transport.state_dict().items()}
        base = {"log_weights": self.base.log_weights, "means": self.base.means, "factors": self.base.factors}
        return layers | {f"base.{name}": value for name, value in base.items()}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.base = Gaussians(tensors["base.log_weights"], tensors["base.means"], tensors["base.factors"])
        self.transport = self._build(0).to(self.base.means)
        prefix = "layers."
        layers = {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }
        self.transport.load_state_dict(layers)
        self.transport.requires_grad_(False)
