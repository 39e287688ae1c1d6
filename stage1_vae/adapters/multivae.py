"""Adapters of the thirteen models of MultiVae 1.0.3 (Senellart et al. 2025, https://github.com/AgatheSenellart/MultiVae).

Posteriors and reconstructions are those of `encode` and `decode`, which draw from the posteriors that are returned
here as distributions. Shared codes are the block z and the codes of one modality the block w_<modality>. Where MultiVae
draws from one component of a mixture at random (MMVAE, MMVAE+, CMVAE), the posterior is the mixture. MoPoE has the
product of all given modalities, from which `encode` draws, although its loss averages over the products of all subsets.

MultiVae is not imported: its models bring their modules along.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, distributions, nn

from postprior.stage1_vae.distributions import FAMILIES, Block, Diagonal, Laplace, Mixture, Normal, side_by_side
from postprior.stage1_vae.foreign import Located
from postprior.stage1_vae.hmc import hamiltonian_draws
from postprior.stage1_vae.randomness import seed_from, seeded

Values = dict[str, Tensor]
Private = Mapping[str, Diagonal]
DRAWS = 16
"""Draws per row of posteriors of JNF that are not normal."""
LAPLACE = "laplace_with_softmax"


def class_of(model: Any) -> str | None:
    """Return the name of the class of MultiVae that a model belongs to; None for other objects."""
    names = [base.__name__ for base in type(model).__mro__ if base.__module__.startswith("multivae.models.")]
    return next((name for name in names if name in (*POSTERIORS, *LEVELS)), None)


def adapter(model: Any, name: str, shapes: Mapping[str, tuple[int, ...]]) -> OneLevel | Nexus | MHVAE:
    """Return a model of the class `name` with the methods of `Adaptable`."""
    return LEVELS[name](model, shapes) if name in LEVELS else OneLevel(model, POSTERIORS[name])


class Model(nn.Module):
    """What all adapters share: the model, its modalities, and its likelihoods."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model.eval()
        self.modalities = tuple(model.encoders)
        config = model.model_config
        self.kinds = dict(config.decoders_dist)
        self.fixed = {m: (config.decoder_dist_params or {}).get(m, {}).get("scale") for m in self.modalities}

    def inputs(self, batch: Mapping[str, Tensor]) -> Values:
        """Return the values in the order of the encoders; classes are one-hot vectors in the last dimension.

        One row becomes two, because some networks of MultiVae drop the dimension of a single row.
        """
        values = {m: batch[m] for m in self.modalities if m in batch}
        for m in (m for m in values if self.kinds[m] == "categorical"):
            classes = int(self.model.input_dims[m][-1])
            values[m] = nn.functional.one_hot(values[m].long(), classes).to(values[m].dtype)
        return {m: x.expand(2, *x.shape[1:]) if len(x) == 1 else x for m, x in values.items()}

    def likelihood(self, name: str, output: Tensor) -> Any:
        """Return the likelihood of a modality given the output of its decoder.

        Without a scale in the configuration, MultiVae uses 1, which says nothing about the data; the scale is then left
        to `Adapted.fit_scales`.
        """
        kind, scale = self.kinds[name], self.fixed[name]
        if kind == "bernoulli":
            return distributions.Bernoulli(logits=output)
        if kind == "categorical":
            return distributions.Categorical(logits=output)
        if scale is None:
            return Located(output, FAMILIES[kind])
        return FAMILIES[kind](output, torch.as_tensor(scale).to(output), output.dim() - 1)


class OneLevel(Model):
    """A model whose decoders read the codes, of all modalities and possibly of their own."""

    def __init__(self, model: Any, posterior: Callable[[Any, Values], tuple[Mixture, Private]]) -> None:
        super().__init__(model)
        self.posterior = posterior
        private = model.style_dims if getattr(model, "multiple_latent_spaces", False) else {}
        self.private = {m: int(private[m]) for m in self.modalities if m in private}

    @property
    def layout(self) -> tuple[Block, ...]:
        """The shared block and the private blocks."""
        own = (Block(f"w_{m}", (size,), m) for m, size in self.private.items())
        return (Block("z", (self.model.latent_dim,)), *own)

    def prior(self) -> Mixture:
        """Return the prior of the codes of one row: that from which `encode` draws codes of missing modalities."""
        like = next(self.parameters())
        shared, private = PRIORS.get(str(class_of(self.model)), _standard)(self.model, like)
        return side_by_side(shared, self._concatenated(private, shared.components))

    def encode(self, batch: Mapping[str, Tensor]) -> Mixture:
        """Return the posteriors of all codes."""
        shared, private = self.posterior(self.model, self.inputs(batch))
        q = side_by_side(shared, self._concatenated(private, shared.components))
        return q[: len(next(iter(batch.values())))]

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return the likelihoods of modalities given codes (n, D)."""
        parts = latents.split([block.size for block in self.layout], -1)
        own = {block.owner: part for block, part in zip(self.layout, parts, strict=True)}
        decoded = {}
        for m in names:
            z = torch.cat([own[None], own[m]], -1) if self.private else latents
            decoded[m] = self.likelihood(m, self.model.decoders[m](z).reconstruction)
        return decoded

    def _concatenated(self, private: Private, like: Diagonal) -> Diagonal:
        """Return the private codes of all modalities side by side; those of missing modalities have any parameters."""
        rows = like.loc.shape[0]
        empty = {m: like.loc.new_ones(rows, size) for m, size in self.private.items()}
        loc, scale = (
            torch.cat(
                [like.loc[:, 0, :0], *(getattr(private[m], part) if m in private else empty[m] for m in self.private)],
                -1,
            )
            for part in ("loc", "scale")
        )
        return type(like)(loc, scale)


def normal(loc: Tensor, log_variance: Tensor) -> Normal:
    """Return a normal distribution, as MultiVae parametrises it."""
    return Normal(loc, torch.exp(0.5 * log_variance))


def single(loc: Tensor, log_variance: Tensor) -> tuple[Mixture, Private]:
    """Return a normal posterior of a model without private codes."""
    return Mixture.single(normal(loc, log_variance)), {}


def unimodal(model: Any, values: Values) -> dict[str, Any]:
    """Return the outputs of the encoders."""
    return {m: model.encoders[m](x) for m, x in values.items()}


def product(outputs: Mapping[str, Any], prior: bool) -> tuple[Mixture, Private]:
    """Return the product of unimodal posteriors, with N(0, I) as a further expert or without."""
    loc = [output.embedding for output in outputs.values()]
    log_variance = [output.log_covariance for output in outputs.values()]
    if prior:
        loc, log_variance = ([*part, torch.zeros_like(part[0])] for part in (loc, log_variance))
    return single(*_fusion("stable_poe")(torch.stack(loc), torch.stack(log_variance)))


def _fusion(name: str) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return getattr(import_module("multivae.models.base.base_utils"), name)


def mvae(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Product of experts, with the prior."""
    return single(*model.compute_mu_log_var_subset(SimpleNamespace(data=values), list(values)))


def mvtcae(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Product of experts, without the prior."""
    return single(*model._inference(SimpleNamespace(data=values))["joint"])


def crmvae(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Product of experts, without the prior."""
    joint = model._infer_all_latent_parameters(SimpleNamespace(data=values))["joint"]
    return single(joint.embedding, joint.log_covariance)


def dmvae(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Product of experts with the prior for shared codes, beside private codes."""
    loc, log_variance, _, private = model._infer_latent_parameters(SimpleNamespace(data=values), list(values))
    return Mixture.single(normal(loc, log_variance)), {m: normal(*part) for m, part in private.items()}


def mopoe(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Product of experts of the given modalities, with the prior if all are given.

    Codes of single modalities, which are in the mixture of the loss, agree less: a density that is fitted to the whole
    mixture draws modalities that agree less often.
    """
    outputs, private = unimodal(model, values), {}
    if model.multiple_latent_spaces:
        private = {m: normal(o.style_embedding, o.style_log_covariance) for m, o in outputs.items()}
    parts = ([getattr(o, part) for o in outputs.values()] for part in ("embedding", "log_covariance"))
    return Mixture.single(normal(*model._poe_fusion(*map(torch.stack, parts)))), private


def mixture(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Mixture of the unimodal posteriors of MMVAE, MMVAE+ and CMVAE, with equal weights."""
    family, deviation = _family(model)
    outputs = unimodal(model, values)
    loc = torch.stack([output.embedding for output in outputs.values()], 1)
    scale = torch.stack([deviation(output.log_covariance) for output in outputs.values()], 1)
    shared = Mixture.uniform(family(loc, scale), torch.ones_like(loc[..., 0], dtype=torch.bool))
    if not hasattr(model, "style_dims"):
        return shared, {}
    return shared, {m: family(o.style_embedding, deviation(o.style_log_covariance)) for m, o in outputs.items()}


def _family(model: Any) -> tuple[type[Diagonal], Callable[[Tensor], Tensor]]:
    """Return the family of the posteriors of a mixture of experts, and its scale as a function of encoder outputs."""
    deviation = model.log_var_to_std if hasattr(model, "log_var_to_std") else model._log_var_to_std
    return Laplace if model.model_config.prior_and_posterior_dist == LAPLACE else Normal, deviation


def jmvae(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Joint encoder given all modalities; product of the unimodal posteriors given some."""
    return _joint(model, values) or product(unimodal(model, values), prior=False)


def telbo(model: Any, values: Values) -> tuple[Mixture, Private]:
    """Joint encoder given all modalities, unimodal encoder given one.

    MultiVae has no posterior given several but not all; the product of experts with the prior of Vedantam et al. 2018
    is used there.
    """
    return _joint(model, values) or product(unimodal(model, values), prior=len(values) > 1)


def jnf(model: Any, values: Values) -> tuple[Mixture, Private] | Any:
    """Joint encoder given all modalities, else draws: of the flow given one, of a Markov chain given more.

    The target of the chain is that of MultiVae, the product of the flows divided by one prior.
    """
    if (joint := _joint(model, values)) is not None:
        return joint
    experts = {m: normal(o.embedding, o.log_covariance) for m, o in unimodal(model, values).items()}
    first, q = next(iter(experts.items()))
    generator = torch.Generator().manual_seed(torch.initial_seed())
    base = q.rsample((DRAWS,), generator)  # (K, n, D)
    draws = model.flows[first].inverse(base.flatten(0, 1)).out.view_as(base)
    if len(experts) > 1:

        def target(z: Tensor) -> Tensor:
            outputs = {m: model.flows[m](z) for m in experts}
            terms = [experts[m].log_prob(out.out) + out.log_abs_det_jac for m, out in outputs.items()]
            return torch.stack(terms).sum(0) + 0.5 * z.square().sum(-1)

        draws = hamiltonian_draws(target, draws[0], generator, draws=DRAWS)
    loc = draws.transpose(0, 1)
    narrow = Normal(loc, torch.full_like(loc, NARROW))
    return Mixture.uniform(narrow, torch.ones_like(loc[..., 0], dtype=torch.bool)), {}


def _joint(model: Any, values: Values) -> tuple[Mixture, Private] | None:
    """Return the posterior of the joint encoder; None if a modality is missing."""
    if len(values) < len(model.encoders):
        return None
    output = model.joint_encoder(values)
    return single(output.embedding, output.log_covariance)


NARROW = math.exp(-7.0)
"""Scale of a component that stands for a draw."""
POSTERIORS: dict[str, Callable[[Any, Values], tuple[Mixture, Private]]] = {
    "MVAE": mvae,
    "MVTCAE": mvtcae,
    "CRMVAE": crmvae,
    "DMVAE": dmvae,
    "MoPoE": mopoe,
    "MMVAE": mixture,
    "MMVAEPlus": mixture,
    "CMVAE": mixture,
    "JMVAE": jmvae,
    "TELBO": telbo,
    "JNF": jnf,
}
"""Class of a model with one level of codes → posteriors of shared codes, and of private codes of some modalities."""


def _standard(model: Any, like: Tensor) -> tuple[Mixture, Private]:
    zero = like.new_zeros(1, model.latent_dim)
    private = model.style_dims if getattr(model, "multiple_latent_spaces", False) else {}
    own = {m: like.new_zeros(1, int(size)) for m, size in private.items()}
    return single(zero, zero)[0], {m: normal(w, w) for m, w in own.items()}


def _mmvae_prior(model: Any, like: Tensor) -> tuple[Mixture, Private]:
    return Mixture.single(_family(model)[0](*model.pz_params)), {}


def _mmvaeplus_prior(model: Any, like: Tensor) -> tuple[Mixture, Private]:
    family, deviation = _family(model)
    loc, scale = (part[:, : model.latent_dim] for part in model.pz_params)
    if model.reconstruction_option == "single_prior":
        own = {m: (model.mean_priors[m], model.logvars_priors[m]) for m in model.encoders}
    else:
        rest = [part["shared"][:, model.latent_dim :] for part in (model.mean_priors, model.logvars_priors)]
        own = dict.fromkeys(model.encoders, (rest[0], rest[1]))
    return Mixture.single(family(loc, scale)), {m: family(w, deviation(v)) for m, (w, v) in own.items()}


def _cmvae_prior(model: Any, like: Tensor) -> tuple[Mixture, Private]:
    family, deviation = _family(model)
    loc = torch.stack(list(model.mean_clusters), 1)  # (1, C, D)
    scale = torch.stack([deviation(part) for part in model.logvar_clusters], 1)
    if model.model_config.reconstruction_option == "single_prior":
        own = {m: (model.r_mean_priors[m], model.r_logvars_priors[m]) for m in model.encoders}
    else:
        own = dict.fromkeys(model.encoders, (model.w_mean_prior, model.w_logvar_prior))
    shared = Mixture(model.pc_params[None], family(loc, scale))
    return shared, {m: family(w, deviation(v)) for m, (w, v) in own.items()}


PRIORS: dict[str, Callable[[Any, Tensor], tuple[Mixture, Private]]] = {
    "MMVAE": _mmvae_prior,
    "MMVAEPlus": _mmvaeplus_prior,
    "CMVAE": _cmvae_prior,
}
"""Class of a model whose prior is not N(0, I) → the prior of one row."""


class Nexus(Model):
    """Nexus: the code is that of the top level; decoder inputs are the codes of the bottom level, side by side.

    As in `encode` with the mean of the posterior, messages are those of the means of the bottom posteriors.
    """

    def __init__(self, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(model)
        self.layout = (Block("z", (model.latent_dim,)),)
        with torch.no_grad():
            zero = next(self.parameters()).new_zeros(2, model.latent_dim)
            self.sizes = [model.top_decoders[m](zero).reconstruction.shape[-1] for m in self.modalities]

    def encode(self, batch: Mapping[str, Tensor]) -> Normal:
        """Return the posterior of the top code."""
        codes = {m: output.embedding for m, output in unimodal(self.model, self.inputs(batch)).items()}
        messages = [self.model.top_encoders[m](z).embedding for m, z in codes.items()]
        top = self.model.joint_encoder(torch.stack(messages).mean(0))
        return normal(top.embedding, top.log_covariance)[: len(next(iter(batch.values())))]

    def descend(self, codes: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return the bottom codes of all modalities, side by side, given top codes (n, D)."""
        return torch.cat([self.model.top_decoders[m](codes).reconstruction for m in self.modalities], -1)

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return the likelihoods of modalities given bottom codes."""
        bottom = dict(zip(self.modalities, latents.split(self.sizes, -1), strict=True))
        return {m: self.likelihood(m, self.model.decoders[m](bottom[m]).reconstruction) for m in names}


class MHVAE(Model):
    """MHVAE: the code is that of the deepest level; decoder inputs are the codes of the level that decoders read."""

    def __init__(self, model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__(model)
        like = next(self.parameters())
        with torch.no_grad():
            levels = self._levels({m: like.new_zeros(2, *shapes[m]) for m in self.modalities})
            self.shape, self.bottom = levels[f"z_{model.n_latent}"].shape[1:], levels["z_1"].shape[1:]
        self.layout = (Block("z", tuple(self.shape)),)

    def encode(self, batch: Mapping[str, Tensor]) -> Normal:
        """Return the posterior of the deepest code: the product of the unimodal posteriors and the prior."""
        outputs, _ = self.model.modality_encode(self.inputs(batch))
        loc, log_variance = (
            torch.stack([*parts, torch.zeros_like(parts[0])])
            for parts in (
                [output.embedding for output in outputs.values()],
                [output.log_covariance for output in outputs.values()],
            )
        )
        q = normal(*(part.flatten(1) for part in _fusion("poe")(loc, log_variance)))
        return q[: len(next(iter(batch.values())))]

    def descend(self, codes: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return codes of the first level, drawn through p(z_l | z_l+1), or the means, given the deepest codes."""
        z = codes.unflatten(-1, self.shape)
        for level in range(self.model.n_latent - 1, 0, -1):
            p = self.model.prior_blocks[level - 1](self.model.top_down_blocks[level - 1](z))
            q = normal(p.embedding, p.log_covariance)
            z = q.mean if generator is None else q.rsample((), generator)
        return z.flatten(1)

    def candidates(self, batch: Mapping[str, Tensor], draws: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw all levels given the data; return the deepest codes (n, K, D) and the first level's (n, K, F)."""
        rows = len(next(iter(batch.values())))
        repeated = {m: x.repeat_interleave(draws, 0) for m, x in batch.items()}
        with seeded(seed_from(generator)):
            levels = self._levels(self.inputs(repeated))
        deepest, first = (levels[name].flatten(1)[: rows * draws] for name in (f"z_{self.model.n_latent}", "z_1"))
        return deepest.unflatten(0, (rows, draws)), first.unflatten(0, (rows, draws))

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return the likelihoods of modalities given codes of the first level."""
        z = latents.unflatten(-1, self.bottom)
        return {m: self.likelihood(m, self.model.decoders[m](z).reconstruction) for m in names}

    def _levels(self, values: Values) -> dict[str, Tensor]:
        """Draw the codes of all levels, by name, from the posterior given the modalities in `values`."""
        deepest, skips = self.model.modality_encode(values)
        return self.model.subset_encode(deepest, skips, list(values), SimpleNamespace(data=values))[0]


LEVELS: dict[str, Callable[[Any, Mapping[str, tuple[int, ...]]], Any]] = {"Nexus": Nexus, "MHVAE": MHVAE}
"""Class of a model with several levels of codes → its adapter."""
