"""The contract of a multimodal variational autoencoder."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn

from stage1_vae.distributions import Block, Diagonal, Mixture, Normal
from stage1_vae.likelihoods import LIKELIHOODS, Likelihood, likelihood
from stage1_vae.modalities import Batch, Modality
from stage1_vae.networks import decoder, encoder


@dataclass(frozen=True)
class Loss:
    """The quantity to minimise, per sample (B,), and its named terms, each (B,)."""

    per_sample: Tensor
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Phase:
    """One phase of training: what is trained, and on which objective (batch, generator, warmth) → Loss."""

    name: str
    parameters: list[nn.Parameter]
    objective: Callable[[Batch, torch.Generator, float], Loss]


class Sizes(TypedDict, total=False):
    """Keywords that every model takes beside its own; `MultimodalVAE` says what they mean."""

    latent: int
    width: int
    likelihood_scale: float
    seed: int


class MultimodalVAE(nn.Module, ABC):
    """Autoencoder of M modalities with one latent code shared by all.

    A subclass says how the unimodal posteriors q_m = q(z | x_m) aggregate and which bound is maximised. Every
    encoder and every decoder runs once a step, on the rows that need it. On a row that lacks modalities the model
    is the one of the observed modalities alone: masking is dropping.

    Each constructor keyword is kept as the attribute of that name, from which `state` reads it back.

    Args:
        modalities: the M modalities, in the order of the columns of every mask.
        latent: dimension D of the code.
        width: width of the networks (channels of the first convolution).
        likelihood_scale: scale of the normal and laplace likelihoods.
        seed: seed of the initial parameters; no global generator is touched.

    Raises:
        ValueError: an argument is impossible.
    """

    experts_family: ClassVar[type[Diagonal]] = Normal

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        latent: int = 32,
        width: int = 32,
        likelihood_scale: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.latent, self.width = positive("latent", latent), positive("width", width)
        self.likelihood_scale, self.seed = positive("likelihood_scale", likelihood_scale), seed
        if not self.modalities or len({m.name for m in self.modalities}) < len(self.modalities):
            names = ", ".join(m.name for m in self.modalities) or "none"
            raise ValueError(f"modalities: found {names}, expected one or more with different names")
        for modality in self.modalities:
            if modality.likelihood not in LIKELIHOODS:
                known = ", ".join(LIKELIHOODS)
                raise ValueError(
                    f"likelihood of modality {modality.name}: found {modality.likelihood!r}, expected one of {known}"
                )
        with seeded(seed):
            self.encoders = nn.ModuleDict({m.name: encoder(m, 2 * latent, width) for m in self.modalities})
            self.decoders = nn.ModuleDict({m.name: decoder(m, latent, width) for m in self.modalities})

    @property
    def layout(self) -> tuple[Block, ...]:
        """Blocks of the code, in the order of its coordinates."""
        return (Block("z", (self.latent,)),)

    @abstractmethod
    def aggregate(self, experts: Any, subsets: Tensor) -> Diagonal | Mixture:
        """q(z | x_S) with batch shape (B, S) from experts of batch shape (B, M) and subsets (B, S, M) bool."""

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator, warmth: float = 1.0) -> Loss:
        """The loss of a batch; `warmth` ∈ [0, 1] multiplies the weight of the divergences (KL annealing)."""

    def prior(self) -> Diagonal:
        """p(z), event (D,): N(0, I)."""
        like = next(self.parameters())
        return Normal(like.new_zeros(self.latent), like.new_ones(self.latent))

    def phases(self) -> list[Phase]:
        """The phases of training, in order."""
        return [Phase("joint", list(self.parameters()), self.loss)]

    def experts(self, batch: Batch) -> Any:
        """The unimodal posteriors q(z | x_m), batch shape (B, M). Those of missing modalities mean nothing."""
        raw = []
        for index, modality in enumerate(self.modalities):
            rows = batch.observed[:, index]
            values = batch.data[modality.name]
            network = self.encoders[modality.name]
            raw.append(network(values) if bool(rows.all()) else scatter(network(values[rows]), rows))
        return self.experts_family.from_raw(torch.stack(raw, 1))

    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Diagonal | Mixture:
        """q(z | x_S): given all that a row has, batch shape (B,), or its part in each of S subsets, (B, S).

        Args:
            batch: rows with any pattern of observed modalities.
            subsets: (S, M) bool, or None.

        Raises:
            ValueError: a row has nothing of a subset.
        """
        chosen = batch.observed.unsqueeze(1)  # (B, 1, M)
        if subsets is None:
            return self.aggregate(self.experts(batch), chosen)[:, 0]
        chosen = chosen & subsets.to(chosen.device)  # (B, S, M)
        if not bool(chosen.any(-1).all()):
            raise ValueError(
                "subsets: found a row that has nothing of a subset, expected one modality of it at least"
            )
        return self.aggregate(self.experts(batch), chosen)

    def encode(self, batch: Batch) -> Mixture:
        """The posterior of every row as a mixture over the whole code, batch shape (B,)."""
        q = self.posterior(batch)
        return q if isinstance(q, Mixture) else Mixture.single(q)

    def decode(self, z: Tensor, only: Iterable[str] | None = None) -> dict[str, Likelihood]:
        """p(x_m | z) of codes (…, D), for every modality or those named in `only`."""
        wanted = {m.name for m in self.modalities} if only is None else set(only)
        return {m.name: self.decode_one(m, z) for m in self.modalities if m.name in wanted}

    def decode_one(self, modality: Modality, z: Tensor) -> Likelihood:
        """p(x_m | z) of one modality for codes (…, D)."""
        output = self.decoders[modality.name](z.flatten(0, -2)).unflatten(0, z.shape[:-1])
        return likelihood(modality, output, self.likelihood_scale)

    def log_likelihood(self, z: Tensor, batch: Batch, wanted: Tensor) -> Tensor:
        """log p(x_m | z) of S codes a row, (B, S, M), for the wanted entries and 0 for the others.

        Args:
            z: (B, S, D).
            batch: the B rows.
            wanted: (B, S, M) bool; each decoder runs once, on the codes wanted from it.
        """
        columns = []
        for index, modality in enumerate(self.modalities):
            values, chosen = batch.data[modality.name], wanted[..., index]
            if bool(chosen.all()):
                columns.append(self.decode_one(modality, z).log_prob(values.unsqueeze(1)))
            else:
                rows = chosen.nonzero()[:, 0]
                columns.append(scatter(self.decode_one(modality, z[chosen]).log_prob(values[rows]), chosen))
        return torch.stack(columns, -1)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Parameters by name, and a JSON-able description from which `from_state` rebuilds the model."""
        names = [*inspect.signature(type(self)).parameters, *Sizes.__annotations__]
        options = {name: getattr(self, name) for name in names if name not in ("modalities", "sizes")}
        modalities = [{"name": m.name, **m.describe()} for m in self.modalities]
        tensors = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        return tensors, {"modalities": modalities, "options": options}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> MultimodalVAE:
        """The model that gave this state."""
        modalities = [Modality.from_description(entry["name"], entry) for entry in description["modalities"]]
        model = cls(modalities, **description["options"])
        model.load_state_dict(tensors)
        return model.eval()


def positive(name: str, value: Any) -> Any:
    """`value`, checked to be above 0."""
    if not value > 0:
        raise ValueError(f"{name}: found {value}, expected a number above 0")
    return value


def scatter(values: Tensor, where: Tensor) -> Tensor:
    """Zeros of shape (*where.shape, …) that hold `values` (n, …) at the n places marked in `where`."""
    full = values.new_zeros(*where.shape, *values.shape[1:])
    return full.masked_scatter(where.reshape(*where.shape, *[1] * (values.dim() - 1)).expand_as(full), values)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global generator set to `seed` inside the block and given back as it was.

    Layers draw their initial parameters from the global generator and take no other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
