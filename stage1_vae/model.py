"""The contract of a multimodal variational autoencoder."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn

from postprior.stage1_vae.bounds import importance_bound
from postprior.stage1_vae.distributions import Block, Diagonal, Mixture, Normal, side_by_side
from postprior.stage1_vae.likelihoods import SCALED, Likelihood, likelihood, observed_log_prob
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.networks import build_networks, decoder, encoder, in_blocks, scatter
from postprior.stage1_vae.options import (
    Scale,
    Scales,
    check_modalities,
    check_names,
    per_modality,
    positive,
    rescaling_weights,
)
from postprior.stage1_vae.phases import Loss, Phase
from postprior.stage1_vae.randomness import seeded


@dataclass(frozen=True)
class Unimodal:
    """What every modality says by itself: q(z | x_m), batch shape (B, M), and q(w_m | x_m) side by side, (B,).

    Entries of missing modalities mean nothing in `shared`, and are those of the prior in `private`.
    """

    shared: Any
    private: Any


class Sizes(TypedDict, total=False):
    """Keywords that every model takes beside its own; `MultimodalVAE` says what they mean."""

    latent: int
    width: int
    likelihood_scale: Scale | Mapping[str, Scale]
    rescaling: Mapping[str, float] | str | None
    networks: Mapping[str, str]
    seed: int


class MultimodalVAE(nn.Module, ABC):
    """Autoencoder of M modalities with a latent code that they share, and in some models private ones beside it.

    A code is one vector, the blocks of `layout` side by side: z, then the private w_m. A subclass says how the
    unimodal posteriors q_m = q(z | x_m) aggregate and which bound is maximised. Every encoder and every decoder runs
    once a step, on the rows that need it. On a row that lacks modalities the model is the one of the observed
    modalities alone: masking is dropping.

    Each constructor keyword is kept as the attribute of that name, from which `state` reads it back.

    Args:
        modalities: the M modalities, in the order of the columns of every mask.
        latent: dimension D of the shared code.
        width: width of the networks (channels of the first convolution).
        likelihood_scale: scale of the normal and laplace likelihoods: a number, `learned`, or one of both by modality.
        rescaling: weights of the modalities' log-likelihoods in the objective, by name; `dimensions` gives each the
            inverse of its number of values, the largest modality weight 1; None weighs them alike.
        networks: networks by modality instead of the kind's own; see `postprior.stage1_vae.networks`.
        private: dimension of the private codes, one for all or by modality.
        seed: seed of the initial parameters; no global generator is touched.

    Raises:
        ValueError: an argument is impossible.
    """

    experts_family: ClassVar[type[Diagonal]] = Normal
    incomplete: ClassVar[bool] = True
    """Trains on rows that lack modalities in every phase."""
    tractable: ClassVar[bool] = True
    """`log_evidence` is there."""

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        latent: int = 32,
        width: int = 16,
        likelihood_scale: Scale | Mapping[str, Scale] = 0.1,
        rescaling: Mapping[str, float] | str | None = None,
        networks: Mapping[str, str] | None = None,
        private: int | Mapping[str, int] = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        check_modalities(self.modalities)
        self.latent, self.width, self.seed = positive("latent", latent), positive("width", width), seed
        self.likelihood_scale, self.rescaling, self.private = likelihood_scale, rescaling, private
        self.networks = dict(networks or {})
        names = [m.name for m in self.modalities]
        scaled = [m.name for m in self.modalities if m.likelihood in SCALED]
        scales = per_modality("likelihood_scale", likelihood_scale, names, 0.1)
        self.scales = Scales({name: scales[name] for name in scaled})
        self.weights = rescaling_weights(rescaling, self.modalities)
        sizes = per_modality("private", private, names, 0)
        self.blocks = tuple(Block(f"w_{name}", (size,), name) for name, size in sizes.items() if size)
        owners = [names.index(str(block.owner)) for block in self.blocks for _ in range(block.size)]
        self.owners: Tensor  # (P,) column of the modality that owns each private coordinate
        self.register_buffer("owners", torch.tensor(owners, dtype=torch.int64), persistent=False)
        check_names("networks", self.networks, names)
        with seeded(seed):
            self.encoders, self.decoders = (
                build_networks(build, self.modalities, features, width, self.networks)
                for build, features in (
                    (encoder, {name: 2 * (latent + size) for name, size in sizes.items()}),
                    (decoder, {name: latent + size for name, size in sizes.items()}),
                )
            )

    @property
    def layout(self) -> tuple[Block, ...]:
        """Blocks of the code, in the order of its coordinates."""
        return (Block("z", (self.latent,)), *self.blocks)

    @abstractmethod
    def aggregate(self, experts: Any, subsets: Tensor) -> Diagonal | Mixture:
        """q(z | x_S) with batch shape (B, S) from experts of batch shape (B, M) and subsets (B, S, M) bool."""

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """The loss of a batch; `kl_weight` ∈ [0, 1] multiplies the weight of the divergences (KL annealing)."""

    def shared_prior(self) -> Any:
        """p(z), event (D,), a diagonal distribution or a mixture: location 0 and scale 1."""
        return self._standard(self.latent)

    def private_prior(self) -> Diagonal:
        """p(w) of all private codes side by side, event (P,): location 0 and scale 1."""
        return self._standard(len(self.owners))

    def prior(self) -> Diagonal | Mixture:
        """The prior of the whole code."""
        return side_by_side(self.shared_prior(), self.private_prior())

    def phases(self) -> list[Phase]:
        """The phases of training, in order."""
        return [Phase("joint", list(self.parameters()), self.loss)]

    def unimodal(self, batch: Batch) -> Unimodal:
        """The posteriors given each modality alone."""
        shared, private = [], []
        for raw in self.outputs(batch):
            expert = self.experts_family.from_raw(raw)
            shared.append((expert.loc[:, : self.latent], expert.scale[:, : self.latent]))
            private.append((expert.loc[:, self.latent :], expert.scale[:, self.latent :]))
        loc, scale = (torch.stack(parts, 1) for parts in zip(*shared, strict=True))
        own_loc, own_scale = (torch.cat(parts, -1) for parts in zip(*private, strict=True))
        own = self.mask_private(self.experts_family(own_loc, own_scale), batch.observed)
        return Unimodal(self.experts_family(loc, scale), own)

    def outputs(self, batch: Batch) -> list[Tensor]:
        """Each encoder's output (B, ·), run once on the rows that have its modality; 0 in the other rows."""
        raw = []
        for index, modality in enumerate(self.modalities):
            rows, values = batch.observed[:, index], batch.encoder_input(modality)
            network = self.encoders[modality.name]
            raw.append(network(values) if bool(rows.all()) else scatter(network(values[rows]), rows))
        return raw

    def mask_private(self, private: Diagonal, subsets: Tensor) -> Diagonal:
        """Private posteriors (…, P) where their modality is in the subset (…, M), the prior elsewhere."""
        prior, inside = self.private_prior(), subsets[..., self.owners]
        return type(private)(
            torch.where(inside, private.loc, prior.loc), torch.where(inside, private.scale, prior.scale)
        )

    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Any:
        """q of the whole code given all that a row has, batch shape (B,), or its part in each of S subsets, (B, S).

        Private codes outside of the subset follow their prior.

        Args:
            batch: rows with any pattern of observed modalities.
            subsets: (S, M) bool, or None.

        Raises:
            ValueError: a row has nothing of a subset.
        """
        chosen = batch.observed.unsqueeze(1) if subsets is None else restrict(batch, subsets)  # (B, S, M)
        unimodal = self.unimodal(batch)
        own = type(unimodal.private)(unimodal.private.loc.unsqueeze(1), unimodal.private.scale.unsqueeze(1))
        q = side_by_side(self.aggregate(unimodal.shared, chosen), self.mask_private(own, chosen))
        return q[:, 0] if subsets is None else q

    def encode(self, batch: Batch, generator: torch.Generator, components: int = 32) -> Mixture:
        """The posterior of every row as a mixture over the whole code, batch shape (B,), of so many components at most.

        The generator chooses which components stay where there are more.
        """
        return self.proposal(batch).thin(components, generator)

    def infer(self, batch: Batch, subsets: Tensor, generator: torch.Generator) -> Tensor:
        """A posterior draw of what the decoders read, for each row and subset (S, M): (B, S, F)."""
        return self.descend(self.posterior(batch, subsets).rsample((), generator), generator)

    def candidates(self, batch: Batch, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Several posterior draws of each row's code, (B, K, D + P), and what the decoders read of each, (B, K, F).

        The latter is None where codes alone say it, by `descend`: lower levels that hear the data too do not follow
        from them.
        """
        return self.posterior(batch).rsample((draws,), generator).transpose(0, 1), None

    def descend(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the decoders read, (…, F), of codes (…, D + P): the codes themselves.

        A hierarchical model draws its lower levels given the code, or takes their means without a generator.
        """
        return z

    def decode(
        self, z: Tensor, generator: torch.Generator | None = None, only: Iterable[str] | None = None
    ) -> dict[str, Likelihood]:
        """p(x_m | z) of codes (…, D + P), for every modality or those named in `only`."""
        wanted = {m.name for m in self.modalities} if only is None else set(only)
        latents = self.descend(z, generator)
        return {m.name: self.decode_one(m, latents) for m in self.modalities if m.name in wanted}

    def decode_one(self, modality: Modality, latents: Tensor) -> Likelihood:
        """p(x_m | ·) of one modality for what the decoders read (…, F): the shared code and its own private one."""
        read = self.decoder_input(modality, latents)
        output = in_blocks(self.decoders[modality.name], read.flatten(0, -2)).unflatten(0, latents.shape[:-1])
        return likelihood(modality, output, self.scales[modality.name])

    def decoder_input(self, modality: Modality, latents: Tensor) -> Tensor:
        """The coordinates of latents (…, D + P) that one decoder reads."""
        if not self.blocks:
            return latents
        sizes = [block.size for block in self.layout]
        return torch.cat(
            [
                part
                for block, part in zip(self.layout, latents.split(sizes, -1), strict=True)
                if block.owner in (None, modality.name)
            ],
            -1,
        )

    def log_prob(self, latents: Tensor, batch: Batch, wanted: Tensor) -> Tensor:
        """log p(x_m | ·) of S latents a row, (B, S, M), for the wanted entries and 0 for the others.

        Cells that a row lacks take no part.

        Args:
            latents: (B, S, F).
            batch: the B rows.
            wanted: (B, S, M) bool; each decoder runs once, on the latents wanted from it.
        """
        columns = []
        for index, modality in enumerate(self.modalities):
            values, chosen = batch.data[modality.name], wanted[..., index]
            seen = batch.cells.get(modality.name)
            if bool(chosen.all()):
                there = None if seen is None else seen.unsqueeze(1)
                columns.append(observed_log_prob(self.decode_one(modality, latents), values.unsqueeze(1), there))
            else:
                rows = chosen.nonzero()[:, 0]
                there = None if seen is None else seen[rows]
                found = observed_log_prob(self.decode_one(modality, latents[chosen]), values[rows], there)
                columns.append(scatter(found, chosen))
        return torch.stack(columns, -1)

    def log_likelihood(self, latents: Tensor, batch: Batch, wanted: Tensor) -> Tensor:
        """`log_prob` as objectives weigh it: times the `rescaling` of each modality, (B, S, M)."""
        values = self.log_prob(latents, batch, wanted)
        return values if self.weights is None else values * values.new_tensor(self.weights)

    @torch.no_grad()
    def log_evidence(self, batch: Batch, generator: torch.Generator, draws: int = 64) -> Tensor:
        """log p(x_S) of what each row has, by importance sampling from its posterior, in nats: (B,).

        log 1/K Σ_k p(x_S | z_k) p(z_k) / q(z_k | x_S) (Burda et al. 2016, arXiv 1509.00519, eq. 8), the draws
        stratified over the components of a mixture, q the whole mixture. Modalities are not rescaled.
        """
        q = self.proposal(batch)
        z = q.stratified(draws, generator)  # (K, B, D + P)
        wanted = batch.observed.unsqueeze(1).expand(-1, draws, -1)
        likelihood = self.log_prob(z.transpose(0, 1), batch, wanted).sum(-1).T
        return importance_bound(likelihood + self.prior().log_prob(z) - q.log_prob(z), 0)

    def proposal(self, batch: Batch) -> Mixture:
        """The whole posterior of every row as a mixture, batch shape (B,): what `log_evidence` draws codes from."""
        q = self.posterior(batch)
        return q if isinstance(q, Mixture) else Mixture.single(q)

    def _standard(self, size: int) -> Diagonal:
        like = next(self.parameters())
        return self.experts_family(like.new_zeros(size), like.new_ones(size))

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


def restrict(batch: Batch, subsets: Tensor) -> Tensor:
    """What each row has of each subset (S, M): (B, S, M) bool.

    Raises:
        ValueError: a row has nothing of a subset.
    """
    chosen = batch.observed.unsqueeze(1) & subsets.to(batch.observed.device)
    if not bool(chosen.any(-1).all()):
        raise ValueError("subsets: found a row that has nothing of a subset, expected one modality of it at least")
    return chosen
