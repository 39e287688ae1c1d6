"""Autoencoders of other libraries, and of your own, in the place of a trained `MultimodalVAE`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from postprior.stage1_vae.autoencoder import Autoencoder, restrict
from postprior.stage1_vae.distributions import Block, Diagonal, Laplace, Mixture, Normal
from postprior.stage1_vae.foreign import Located, as_likelihood, as_mixture
from postprior.stage1_vae.imports import UserCodeError, running
from postprior.stage1_vae.likelihoods import Likelihood
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import seed_from, seeded


@runtime_checkable
class Adaptable(Protocol):
    """What an object needs so that everything after training works with it.

    Values are those of the user's data, (n, *shape), with channels first, in their own units. All rows of a call have
    the same modalities. Draws may come from the global generator of torch, which is seeded during the calls.

    Three methods are optional:

    `prior()`: the prior of codes, given as the posterior of one row is, (1, D); N(0, I) by default.
    `descend(codes, generator)`: the decoder inputs (n, F) of codes (n, D) of a hierarchical model, with its lower
        levels drawn with the generator, or their means if it is None.
    `candidates(batch, draws, generator)`: K posterior draws of codes (n, K, D), and the decoder inputs of each,
        (n, K, F), with lower levels that depend on the data as well.
    """

    @property
    def layout(self) -> Sequence[Block]:
        """Blocks of the code in the order of its D coordinates: name, shape, and the modality that owns it, if any."""

    def encode(self, batch: Mapping[str, Tensor]) -> Any:
        """Return the posterior of the codes (n, D) given the observed modalities, in one of the forms of `foreign`.

        The coordinates of private codes of modalities that are not in `batch` are ignored: these follow the prior.
        """

    def decode(self, latents: Tensor, names: Sequence[str]) -> Mapping[str, Any]:
        """Return the likelihoods, in one of the forms of `foreign`, of these modalities, given decoder inputs (n, F).

        Decoder inputs are codes unless there is a method `descend`.
        """


class Units(NamedTuple):
    """The values v of a user's data are v = offset + scale · x of the numbers x of a dataset."""

    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0


class Adapted(Autoencoder):
    """An `Adaptable` object as an autoencoder.

    Args:
        source: the object; if it is a module, its tensors are the state of this model.
        modalities: the modalities of the dataset, in order.
        units: units of the modalities by name; by default the numbers of the dataset are the values themselves.
        scales: scales of normal and Laplace likelihoods that `decode` gives by their locations, in the numbers of the
            dataset, by modality; see `fit_scales`.
        tractable: whether posteriors have a density and decoder inputs follow from codes, so that log p(x) can be
            estimated.
        origin: how the object is built again, as the caller of `from_state` knows it: JSON-serialisable entries.

    Raises:
        ValueError: blocks of the layout belong to unknown modalities.
    """

    def __init__(
        self,
        source: Any,
        modalities: Sequence[Modality],
        *,
        units: Mapping[str, Units] | None = None,
        scales: Mapping[str, float] | None = None,
        tractable: bool = True,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.source, self.modalities, self.tractable = source, tuple(modalities), tractable
        self.units = {m.name: (units or {}).get(m.name, Units()) for m in self.modalities}
        self.scales, self.origin = dict(scales or {}), dict(origin or {})
        self.own_code = [self.origin["build"]] if "build" in self.origin else []
        names = [m.name for m in self.modalities]
        owners = {block.owner for block in self.layout} - {None}
        if unknown := owners - {*names}:
            found = ", ".join(sorted(map(str, unknown)))
            raise ValueError(f"layout: found blocks of {found}, expected owners among {', '.join(names)}, or None")

    @property
    def layout(self) -> tuple[Block, ...]:
        return tuple(self.source.layout)

    @property
    def dimensions(self) -> int:
        """D, the number of dimensions of a code."""
        return sum(block.size for block in self.layout)

    def prior(self) -> Mixture:
        if hasattr(self.source, "prior"):
            return self._posteriors("prior", 1)[0]
        zero = torch.zeros(self.dimensions)
        return Mixture.single(Normal(zero, torch.ones_like(zero)))

    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Mixture:
        chosen = batch.observed.unsqueeze(1) if subsets is None else restrict(batch, subsets)  # (B, S, M)
        values, parts, order = self.values(batch), [], []
        for places, pattern in patterns(chosen.flatten(0, 1)):
            seen = {m.name: values[m.name][places // chosen.shape[1]] for m in self._observed(pattern)}
            parts.append(self._without_missing(self._posteriors("encode", len(places), seen), pattern))
            order.append(places)
        q = Mixture.stack(parts)[torch.cat(order).argsort()]
        loc, scale = (x.unflatten(0, chosen.shape[:2]) for x in (q.components.loc, q.components.scale))
        whole = Mixture(q.weights.unflatten(0, chosen.shape[:2]), type(q.components)(loc, scale))
        return whole[:, 0] if subsets is None else whole

    def values(self, batch: Batch) -> dict[str, Tensor]:
        """Return the values (B, *shape) of the modalities in the units of the user's data; missing cells have x = 0."""
        like = self._like
        converted = {}
        for m in self.modalities:
            offset, scale = (torch.as_tensor(part).to(like) for part in self.units[m.name])
            converted[m.name] = offset + scale * batch.encoder_input(m).nan_to_num(0.0).to(like)
        return converted

    def infer(self, batch: Batch, subsets: Tensor, generator: torch.Generator) -> Tensor:
        if not hasattr(self.source, "candidates"):
            return super().infer(batch, subsets, generator)
        chosen = restrict(batch, subsets)
        drawn = [self._candidates(batch, chosen[:, place], 1, generator)[1] for place in range(chosen.shape[1])]
        return torch.cat(drawn, 1)

    def candidates(self, batch: Batch, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        if not hasattr(self.source, "candidates"):
            return super().candidates(batch, draws, generator)
        return self._candidates(batch, batch.observed, draws, generator)

    def _candidates(
        self, batch: Batch, observed: Tensor, draws: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        values, parts, order = self.values(batch), [], []
        for places, pattern in patterns(observed):
            seen = {m.name: values[m.name][places] for m in self._observed(pattern)}
            parts.append([x.float() for x in self._call("candidates", seen, draws, generator)])
            order.append(places)
        back = torch.cat(order).argsort()
        codes, latents = (torch.cat(tensors)[back] for tensors in zip(*parts, strict=True))
        return codes, latents

    def descend(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if not hasattr(self.source, "descend"):
            return z
        latents = self._call("descend", z.flatten(0, -2).to(self._like), generator)
        return latents.float().unflatten(0, z.shape[:-1])

    def decode_one(self, modality: Modality, latents: Tensor) -> Likelihood:
        return self._decoded(modality, latents)[0]

    def _decoded(self, modality: Modality, latents: Tensor) -> tuple[Likelihood, bool]:
        """Return p(x_m | ·), and whether only its location is known."""
        found = self._call("decode", latents.flatten(0, -2).to(self._like), (modality.name,))[modality.name]
        with self._checking("decode"):
            p = as_likelihood(modality, found, 1.0, latents.shape[:-1])
        if not isinstance(p, Diagonal):
            if self.units[modality.name] != Units():
                told = f"{type(p).__name__} for {modality.title}"
                expected = "expected a normal or Laplace likelihood, because its values are scaled"
                raise UserCodeError(f"{type(self.source).__name__}.decode returned {told}, {expected}")
            return p, False
        offset, scale = (torch.as_tensor(part).to(p.loc) for part in self.units[modality.name])
        located = isinstance(found, (Tensor, Located))
        spread = torch.as_tensor(self.scales.get(modality.name, 1.0)).to(p.loc) if located else p.scale / scale
        return type(p)((p.loc - offset) / scale, spread, p.event), located

    @torch.no_grad()
    def fit_scales(self, batch: Batch) -> None:
        """Set the scales of likelihoods that `decode` gives by their locations to the most likely ones.

        The maximum-likelihood scale of all values of a modality together is the root mean square of the errors of their
        reconstructions for a normal and the mean absolute error for a Laplace likelihood (Rybkin et al. 2021,
        https://arxiv.org/abs/2006.13202).
        """
        latents = self.descend(self.posterior(batch).mean)
        for index, m in enumerate(self.modalities):
            (p, located), seen = self._decoded(m, latents), batch.observed[:, index]
            if not (located and isinstance(p, Diagonal) and bool(seen.any())):
                continue
            error = (p.loc - batch.data[m.name])[seen]
            error = error[batch.cells[m.name][seen]] if m.name in batch.cells else error
            mean = error.abs().mean() if isinstance(p, Laplace) else error.square().mean().sqrt()
            self.scales[m.name] = max(float(mean), 1e-3)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = self.source.state_dict() if isinstance(self.source, nn.Module) else {}
        description = {
            "modalities": [{"name": m.name, **m.describe()} for m in self.modalities],
            "adapted": {
                "units": {name: units._asdict() for name, units in self.units.items()},
                "scales": self.scales,
                "tractable": self.tractable,
                "origin": self.origin,
            },
        }
        return {name: tensor.detach() for name, tensor in tensors.items()}, description

    @classmethod
    def from_state(cls, source: Any, tensors: dict[str, Tensor], description: Mapping[str, Any]) -> Adapted:
        """Return the model with a description that `state` returned; `source` is its object, which gets the tensors."""
        modalities = [Modality.from_description(entry["name"], entry) for entry in description["modalities"]]
        own = dict(description["adapted"])
        own["units"] = {
            name: Units(*(tuple(x) if isinstance(x, list) else x for x in (entry["offset"], entry["scale"])))
            for name, entry in own["units"].items()
        }
        model = cls(source, modalities, **own)
        if isinstance(source, nn.Module):
            source.load_state_dict(tensors)
        return model.eval()

    def _observed(self, pattern: Tensor) -> list[Modality]:
        return [m for m, observed in zip(self.modalities, pattern.tolist(), strict=True) if observed]

    def _without_missing(self, q: Mixture, pattern: Tensor) -> Mixture:
        """Return posteriors in which private codes of missing modalities follow the prior."""
        seen = {m.name for m in self._observed(pattern)}
        missing = [
            torch.full((block.size,), block.owner is not None and block.owner not in seen) for block in self.layout
        ]
        if not bool((absent := torch.cat(missing)).any()):
            return q
        prior = self.prior().components
        loc, scale = (
            torch.where(absent, x[0], y)
            for x, y in zip((prior.loc, prior.scale), (q.components.loc, q.components.scale), strict=True)
        )
        return Mixture(q.weights, type(q.components)(loc, scale))

    @property
    def _like(self) -> Tensor:
        """A tensor with the floating-point type of the object."""
        parameters = self.source.parameters() if isinstance(self.source, nn.Module) else iter(())
        return next((torch.zeros((), dtype=p.dtype) for p in parameters if p.is_floating_point()), torch.zeros(()))

    def _posteriors(self, method: str, rows: int, *arguments: Any) -> Mixture:
        found = self._call(method, *arguments)
        with self._checking(method):
            return as_mixture(found, rows, self.dimensions)

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object; report what goes wrong, and leave the global generator as it was."""
        place = f"{type(self.source).__name__}.{method}"
        seed = next((seed_from(x) for x in arguments if isinstance(x, torch.Generator)), 0)
        with seeded(seed), running(place, "what postprior.stage1_vae.adapted.Adaptable describes"):
            return getattr(self.source, method)(*arguments)

    @contextmanager
    def _checking(self, method: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise UserCodeError(f"{type(self.source).__name__}.{method} returned {error}") from error


def patterns(observed: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows (n,) int64 that have the same observed modalities, and these, (M,) bool, of rows (N, M)."""
    found, group = observed.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(found):
        yield (group == number).nonzero()[:, 0], pattern
