"""Base class of all multimodal variational autoencoders."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor

from postprior.stage1_vae.autoencoder import Autoencoder, restrict
from postprior.stage1_vae.distributions import Block, Diagonal, Mixture, Normal, side_by_side
from postprior.stage1_vae.hiding import unweighted
from postprior.stage1_vae.likelihoods import Likelihood, likelihood
from postprior.stage1_vae.modalities import SCALED, Batch, Modality
from postprior.stage1_vae.networks import build_networks, decoder, encoder, in_blocks, scatter
from postprior.stage1_vae.options import (
    Scale,
    Scales,
    check_modalities,
    check_names,
    per_modality,
    positive,
    rescaling_weights,
    vector_like,
)
from postprior.stage1_vae.phases import Loss, Phase, Trainable
from postprior.stage1_vae.randomness import seeded


@dataclass(frozen=True)
class Unimodal:
    """The unimodal posteriors: q(z | x_m), batch shape (B, M), and all q(w_m | x_m) concatenated, batch shape (B,).

    For missing modalities, the entries of `shared` are meaningless and the entries of `private` are the prior.
    """

    shared: Any
    private: Any


class Sizes(TypedDict, total=False):
    """Keyword arguments that every model accepts in addition to its own; `MultimodalVAE` documents them."""

    latent: int
    width: int
    likelihood_scale: Scale | Mapping[str, Scale]
    rescaling: Mapping[str, float] | str | None
    networks: Mapping[str, str]
    seed: int


class MultimodalVAE(Autoencoder, Trainable):
    """Autoencoder of M modalities with a shared latent code and, in some models, a private code per modality.

    A code is one vector, the concatenated blocks of `layout`: z, then the private codes w_m. A subclass defines how the
    unimodal posteriors q_m = q(z | x_m) are aggregated and which bound is maximised. Every encoder and every decoder
    runs once per step, on the rows that need it. For a row with missing modalities the model is that of the observed
    modalities alone: masking a modality equals dropping it.

    Each keyword argument of the constructor is stored as the attribute of that name, from which `state` reads it.

    Args:
        modalities: the M modalities, in the order of the columns of every mask.
        latent: dimension D of the shared code.
        width: width of the networks (channels of the first convolution).
        likelihood_scale: scale of the normal and laplace likelihoods, and of the normal variable of hurdle models: a
            number, `learned` or, for one number per coordinate, `features`; for all modalities or by modality.
        rescaling: weights of the log-likelihoods of the modalities in the objective, by name. `dimensions` makes the
            weights inversely proportional to the numbers of values; the largest modality has weight 1. None gives all
            modalities the same weight.
        networks: networks by modality instead of the defaults of the kind; see `postprior.stage1_vae.networks`.
        private: dimension of the private codes, one for all modalities or by name; 0 where it is not given, if there is
            a shared code.
        seed: seed of the initial parameters; the state of the global generator does not change.

    Raises:
        ValueError: an argument is invalid.
    """

    experts_family: ClassVar[type[Diagonal]] = Normal
    """Family of the unimodal posteriors."""
    incomplete: ClassVar[bool] = True
    """Whether every phase of training uses incomplete rows."""
    static: bool = True
    """Whether the shapes in the loss are the same for all batches of complete rows of one size; see `Phase`."""
    shares: ClassVar[bool] = True
    """Whether modalities share a code z. Without it, a private code has `latent` dimensions unless `private` says
    otherwise, but at most as many as its modality has values."""

    def __init__(
        self,
        modalities: Iterable[Modality],
        *,
        latent: int = 32,
        width: int = 16,
        likelihood_scale: Scale | Mapping[str, Scale] = 0.1,
        rescaling: Mapping[str, float] | str | None = None,
        networks: Mapping[str, str] | None = None,
        private: int | Mapping[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        check_modalities(self.modalities)
        self.latent, self.width, self.seed = positive("latent", latent), positive("width", width), seed
        self.likelihood_scale, self.rescaling, self.private = likelihood_scale, rescaling, private
        self.networks = dict(networks or {})
        self.own_code = [path for text in self.networks.values() if ":" in text for path in text.split(",")]
        names = [m.name for m in self.modalities]
        shapes = {m.name: m.shape for m in self.modalities if m.likelihood in SCALED}
        scales = per_modality("likelihood_scale", likelihood_scale, names, 0.1)
        self.scales = Scales({name: scales[name] for name in shapes}, shapes)
        self.weights = rescaling_weights(rescaling, self.modalities)
        self.shared = self.latent if self.shares else 0
        given = per_modality("private", private, names, None)
        own = {m.name: 0 if self.shares else min(self.latent, math.prod(m.shape)) for m in self.modalities}
        sizes = {name: own[name] if size is None else size for name, size in given.items()}
        self.blocks = tuple(Block(f"w_{name}", (size,), name) for name, size in sizes.items() if size)
        owners = [torch.full((block.size,), names.index(str(block.owner))) for block in self.blocks]
        self.owners: Tensor  # (P,) index of the modality that owns each private coordinate
        self.register_buffer("owners", torch.cat([torch.empty(0, dtype=torch.int64), *owners]), persistent=False)
        check_names("networks", self.networks, names)
        with seeded(seed):
            self.encoders, self.decoders = (
                build_networks(build, self.modalities, features, width, self.networks)
                for build, features in (
                    (encoder, {name: 2 * (self.shared + size) for name, size in sizes.items()}),
                    (decoder, {name: self.shared + size for name, size in sizes.items()}),
                )
            )

    @property
    def layout(self) -> tuple[Block, ...]:
        """Blocks of the code, in the order of its coordinates."""
        return (*([Block("z", (self.shared,))] if self.shared else []), *self.blocks)

    @abstractmethod
    def aggregate(self, experts: Any, subsets: Tensor) -> Diagonal | Mixture:
        """Return q(z | x_S), batch shape (B, S), from experts of batch shape (B, M) and subsets (B, S, M) bool."""

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator, kl_weight: float = 1.0) -> Loss:
        """Return the loss of a batch; `kl_weight` ∈ [0, 1] multiplies the weight of the divergences (KL annealing)."""

    def shared_prior(self) -> Any:
        """Return p(z), event (D,), a diagonal distribution or a mixture. By default: location 0 and scale 1."""
        return self._standard(self.shared)

    def private_prior(self) -> Diagonal:
        """Return p(w) of all private codes, concatenated, event (P,): location 0 and scale 1."""
        return self._standard(len(self.owners))

    def prior(self) -> Diagonal | Mixture:
        """Return the prior of the whole code."""
        return side_by_side(self.shared_prior(), self.private_prior())

    def phases(self) -> list[Phase]:
        return [Phase("joint", list(self.parameters()), self.loss, static=self.static)]

    def unimodal(self, batch: Batch) -> Unimodal:
        """Return the posteriors given each modality alone."""
        raw = [output.unflatten(-1, (2, -1)) for output in self.outputs(batch)]  # (B, 2, ·): locations, log-scales
        shared = torch.stack([part[..., : self.shared] for part in raw], 1)  # (B, M, 2, D)
        private = torch.cat([part[..., self.shared :] for part in raw], -1)  # (B, 2, P)
        experts, own = (self.experts_family.from_raw(part.flatten(-2)) for part in (shared, private))
        return Unimodal(experts, self.mask_private(own, batch.observed) if self.blocks else own)

    def outputs(self, batch: Batch) -> list[Tensor]:
        """Return the output (B, ·) of each encoder, run once on the rows with its modality; 0 in the other rows."""
        raw = []
        for index, modality in enumerate(self.modalities):
            rows, values = batch.observed[:, index], batch.encoder_input(modality)
            network = self.encoders[modality.name]
            whole = batch.complete or bool(rows.all())
            output = network(values) if whole else scatter(network(values[rows]), rows)
            raw.append(unweighted(output, batch))
        return raw

    def mask_private(self, private: Diagonal, subsets: Tensor) -> Diagonal:
        """Replace private posteriors (…, P) by the prior where their modality is not in the subset (…, M)."""
        prior, inside = self.private_prior(), subsets[..., self.owners]
        return type(private)(
            torch.where(inside, private.loc, prior.loc), torch.where(inside, private.scale, prior.scale)
        )

    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Any:
        chosen = batch.observed.unsqueeze(1) if subsets is None else restrict(batch, subsets)  # (B, S, M)
        unimodal = self.unimodal(batch)
        private = type(unimodal.private)(unimodal.private.loc.unsqueeze(1), unimodal.private.scale.unsqueeze(1))
        q = side_by_side(self.aggregate(unimodal.shared, chosen), self.mask_private(private, chosen))
        return q[:, 0] if subsets is None else q

    def decode_one(self, modality: Modality, latents: Tensor) -> Likelihood:
        """Return p(x_m | ·) given the decoder inputs (…, F): the shared code and the private code of the modality."""
        inputs = self.decoder_input(modality, latents)
        output = in_blocks(self.decoders[modality.name], inputs.flatten(0, -2)).unflatten(0, latents.shape[:-1])
        return likelihood(modality, output, self.scales[modality.name])

    def decoder_input(self, modality: Modality, latents: Tensor) -> Tensor:
        """Return the coordinates of latents (…, D + P) that the decoder of one modality reads."""
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

    def log_likelihood(self, latents: Tensor, batch: Batch, wanted: Tensor) -> Tensor:
        """Return `log_prob` times the `rescaling` weight of each modality, as the objectives use it: (B, S, M)."""
        values = self.log_prob(latents, batch, wanted)
        return values if self.weights is None else values * vector_like(values, self.weights)

    def _standard(self, size: int) -> Diagonal:
        like = next(self.parameters())
        return self.experts_family(like.new_zeros(size), like.new_ones(size))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parameters by name, and the JSON-serialisable description that `from_state` needs."""
        names = [*inspect.signature(type(self)).parameters, *Sizes.__annotations__]
        options = {name: getattr(self, name) for name in names if name not in ("modalities", "sizes")}
        modalities = [{"name": m.name, **m.describe()} for m in self.modalities]
        tensors = {name: tensor.detach() for name, tensor in self.state_dict().items()}
        return tensors, {"modalities": modalities, "options": options}

    @classmethod
    def from_state(cls, tensors: dict[str, Tensor], description: dict[str, Any]) -> MultimodalVAE:
        """Build the model from what `state` returned."""
        modalities = [Modality.from_description(entry["name"], entry) for entry in description["modalities"]]
        model = cls(modalities, **description["options"])
        model.load_state_dict(tensors)
        return model.eval()
