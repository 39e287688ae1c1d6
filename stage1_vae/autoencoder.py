"""The contract of a trained autoencoder: what encoding, generation, imputation, detection and scores ask of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from postprior.stage1_vae.bounds import importance_bound
from postprior.stage1_vae.distributions import Block, Diagonal, Mixture
from postprior.stage1_vae.likelihoods import Likelihood, observed_log_prob
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.networks import scatter
from postprior.stage1_vae.phases import Phase


class Autoencoder(nn.Module, ABC):
    """An autoencoder of M modalities: posteriors of codes given any of them, and likelihoods given a code.

    A code is one vector, the concatenated blocks of `layout`, which belong to all modalities or to one of them. This
    class has no networks and no objective; `MultimodalVAE` adds them.
    """

    modalities: tuple[Modality, ...]
    """The M modalities, in the order of the columns of every mask."""
    tractable: bool = True
    """Whether `log_evidence` is available."""

    own_code: Sequence[str] = ()
    """Import paths, package.module:Name, of the user's classes and functions from which the model is built."""

    @property
    @abstractmethod
    def layout(self) -> tuple[Block, ...]:
        """Blocks of the code, in the order of its coordinates."""

    @abstractmethod
    def prior(self) -> Diagonal | Mixture:
        """Return the prior of the whole code."""

    @abstractmethod
    def posterior(self, batch: Batch, subsets: Tensor | None = None) -> Any:
        """Return q of the whole code given all observed modalities, batch shape (B,).

        With S subsets, return q given the observed modalities of each subset, batch shape (B, S). Private codes of
        modalities outside of the subset follow their prior.

        Args:
            batch: rows with any pattern of observed modalities.
            subsets: (S, M) bool, or None.

        Raises:
            ValueError: a row has no observed modality of a subset.
        """

    @abstractmethod
    def decode_one(self, modality: Modality, latents: Tensor) -> Likelihood:
        """Return p(x_m | ·) of one modality given the decoder inputs (…, F)."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the parameters by name, and the JSON-serialisable description from which the class is built again."""

    def phases(self) -> Sequence[Phase]:
        """Return the phases of training, in order. By default there are none: the model is trained already."""
        return []

    def encode(self, batch: Batch, generator: torch.Generator, components: int = 32) -> Mixture:
        """Return the posterior of every row as a mixture over the whole code, batch shape (B,).

        If a posterior has more than `components` components, the generator draws that many of them.
        """
        return self.proposal(batch).thin(components, generator)

    def infer(self, batch: Batch, subsets: Tensor, generator: torch.Generator) -> Tensor:
        """Return a posterior draw of the decoder inputs for each row and each subset (S, M): (B, S, F)."""
        return self.descend(self.posterior(batch, subsets).rsample((), generator), generator)

    def candidates(self, batch: Batch, draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Return K posterior draws of the code per row, (B, K, D + P), and the decoder inputs of each, (B, K, F).

        The decoder inputs are None if they follow from the codes through `descend`. They do not if lower levels also
        depend on the data.
        """
        return self.posterior(batch).rsample((draws,), generator).transpose(0, 1), None

    def descend(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the decoder inputs (…, F) of codes (…, D + P). By default they are the codes themselves.

        A hierarchical model draws its lower levels given the code, or uses their means if there is no generator.
        """
        return z

    def decode(
        self, z: Tensor, generator: torch.Generator | None = None, only: Iterable[str] | None = None
    ) -> dict[str, Likelihood]:
        """Return p(x_m | z) given codes (…, D + P), for every modality or for those named in `only`."""
        wanted = {m.name for m in self.modalities} if only is None else set(only)
        latents = self.descend(z, generator)
        return {m.name: self.decode_one(m, latents) for m in self.modalities if m.name in wanted}

    def log_prob(self, latents: Tensor, batch: Batch, wanted: Tensor) -> Tensor:
        """Return log p(x_m | ·) given S latents per row, (B, S, M), for the wanted entries; 0 for all others.

        Missing cells are ignored.

        Args:
            latents: (B, S, F).
            batch: the B rows.
            wanted: (B, S, M) bool; or (S, M) bool on the host, the same for every row, of which a row has the entries
                of its observed modalities. Each decoder runs once, on its wanted latents. On an accelerator only the
                second form, with complete rows, does not wait for the device.
        """
        pattern = wanted if wanted.dim() == 2 else None
        if pattern is not None and not batch.complete:
            wanted = batch.observed.unsqueeze(1) & pattern.to(batch.observed.device)
        columns = []
        for index, modality in enumerate(self.modalities):
            values, chosen = batch.data[modality.name], wanted[..., index]
            cells = batch.cells.get(modality.name)
            mask = None if cells is None else cells.unsqueeze(1)
            if bool(chosen.all()):
                columns.append(observed_log_prob(self.decode_one(modality, latents), values.unsqueeze(1), mask))
            elif chosen.dim() == 1:
                places = chosen.nonzero()[:, 0].tolist()
                part = torch.stack([latents[:, place] for place in places], 1)
                log_probs = observed_log_prob(self.decode_one(modality, part), values.unsqueeze(1), mask)  # (B, n)
                found = dict(zip(places, log_probs.unbind(1), strict=True))
                absent = torch.zeros_like(log_probs[:, 0])
                columns.append(torch.stack([found.get(place, absent) for place in range(len(chosen))], 1))
            else:
                rows = chosen.nonzero()[:, 0]
                mask = None if cells is None else cells[rows]
                log_probs = observed_log_prob(self.decode_one(modality, latents[chosen]), values[rows], mask)
                columns.append(scatter(log_probs, chosen))
        return torch.stack(columns, -1)

    def each_modality(self, draws: int = 1) -> Tensor:
        """Return (S, M) bool, all true: every latent of S draws is decoded into every modality, for `log_prob`."""
        return torch.ones(draws, len(self.modalities), dtype=torch.bool)

    def own_modality(self) -> Tensor:
        """Return (M, M) bool: each of M latents is decoded into the modality of its number only, for `log_prob`."""
        return torch.eye(len(self.modalities), dtype=torch.bool)

    @torch.no_grad()
    def log_evidence(self, batch: Batch, generator: torch.Generator, draws: int = 64) -> Tensor:
        """Estimate log p(x_S) of the observed modalities of each row by importance sampling, in nats: (B,).

        The estimate is log 1/K Σ_k p(x_S | z_k) p(z_k) / q(z_k | x_S) (Burda et al. 2016, arXiv 1509.00519, eq. 8). If
        the posterior is a mixture, the draws are stratified over its components and q is the density of the whole
        mixture. Modalities are not rescaled.
        """
        q = self.proposal(batch)
        z = q.stratified(draws, generator)  # (K, B, D + P)
        likelihood = self.log_prob(z.transpose(0, 1), batch, self.each_modality(draws)).sum(-1).T
        return importance_bound(likelihood + self.prior().log_prob(z) - q.log_prob(z), 0)

    def proposal(self, batch: Batch) -> Mixture:
        """Return the posterior of every row as a mixture, batch shape (B,), from which `log_evidence` draws codes."""
        q = self.posterior(batch)
        return q if isinstance(q, Mixture) else Mixture.single(q)


def restrict(batch: Batch, subsets: Tensor) -> Tensor:
    """Return the observed modalities of each row in each subset (S, M): (B, S, M) bool.

    Raises:
        ValueError: a row has no observed modality of a subset.
    """
    chosen = batch.observed.unsqueeze(1) & subsets.to(batch.observed.device)
    if not bool(chosen.any(-1).all()):
        raise ValueError("subsets: found a row with no modality of a subset, expected at least one observed modality")
    return chosen
