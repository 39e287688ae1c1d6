"""Adapters of SCVI, TOTALVI and MULTIVI of scvi-tools 1.4 (Gayoso et al. 2022, https://doi.org/10.1038/s41587-021-01206-w).

Modalities are the genes, the accessible regions and the proteins of a model, in this order, recognised by their numbers
of features; values are counts. The code is the block z beside a block library_<modality> for each size factor of cells:
the logarithm of the library size of genes, and the logit of the factor that MULTIVI gives accessibility. A density is
fitted to all of them, so that samples have library sizes that suit them. The batch is a given covariate: cells are
encoded and decoded in one batch. The background of proteins is the lowest level of the model: it is drawn given z.

scvi-tools is not imported: its models bring their modules along.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, distributions, nn

from postprior.stage1_vae.discrete import NegativeBinomial, NegativeBinomialMixture, ZeroInflatedNegativeBinomial
from postprior.stage1_vae.distributions import LOG_SCALE, Block, Normal

Values = Mapping[str, Tensor]
GENES, REGIONS, PROTEINS = "genes", "regions", "proteins"
CELLS = 2000
"""Cells of the data of a model from which the prior of the size factors is estimated, at most."""
NARROW = LOG_SCALE[0]
"""Logarithm of the scale of a size factor that is a function of the counts."""


class InBatch(NamedTuple):
    """A model of scvi-tools, and the name of the batch in which cells are encoded and decoded."""

    model: Any
    batch: Any


def class_of(model: Any) -> str | None:
    """Return the name of the class of scvi-tools that a model belongs to; None for other objects."""
    model = model.model if isinstance(model, InBatch) else model
    names = [base.__name__ for base in type(model).__mro__ if base.__module__.startswith("scvi.model.")]
    return names[0] if names else None


def adapter(model: Any, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Scvi:
    """Return a model of the class `name` with the methods of `Adaptable`.

    Raises:
        ValueError: the class or one of its options is not supported, the model has other features than the modalities,
            or it has several batches and none is given.
    """
    if name not in ADAPTERS:
        raise ValueError(f"model: found {name} of scvi-tools, expected one of {', '.join(ADAPTERS)}")
    model, batch = model if isinstance(model, InBatch) else (model, None)
    module = copy.deepcopy(model.module).cpu().eval()
    for option, (found, supported) in _options(model, module).items():
        if found not in supported:
            expected = " or ".join(map(str, supported))
            raise ValueError(f"model: found {name} with {option} {found}, expected {expected}")
    source = ADAPTERS[name](module, _named(module, shapes), _batch(model, batch))
    source.set_prior(model)
    return source


def _options(model: Any, module: Any) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Return options of a model that matter here, each with its value and the values that are supported."""
    stats, dispersions = model.summary_stats, (getattr(module, f"{p}dispersion", "") for p in ("", "gene_", "protein_"))
    return {
        "covariates": (sum(stats.get(f"n_extra_{kind}_covs", 0) for kind in ("continuous", "categorical")), (0,)),
        "a dispersion for each label:": (any(str(d).endswith("-label") for d in dispersions), (False,)),
        "a column of size factors:": (bool(module.use_size_factor_key), (False,)),
        "gene_likelihood": (module.gene_likelihood, ("zinb", "nb")),
        "modality_weights": (getattr(module, "modality_weights", "equal"), ("equal", "universal")),
    }


def _named(module: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """Return the modality of each part of a model, the first one that has as many features."""
    one = getattr(module, "n_input", 0)
    sizes = {GENES: one or module.n_input_genes} | {
        part: getattr(module, f"n_input_{part}", 0) for part in (REGIONS, PROTEINS)
    }
    sizes = {part: size for part, size in sizes.items() if size}
    named: dict[str, str] = {}
    for part, size in sizes.items():
        fitting = [m for m, shape in shapes.items() if shape == (size,) and m not in named.values()]
        if fitting:
            named[part] = fitting[0]
    if len(named) < len(sizes) or len(named) < len(shapes):
        found = ", ".join(f"{m} of shape {shape}" for m, shape in shapes.items())
        raise ValueError(f"model: found {found}, expected {', '.join(f'{n} {part}' for part, n in sizes.items())}")
    return named


def _batch(model: Any, batch: Any) -> int:
    """Return the index of the given batch, or of the only one."""
    names = [*model.adata_manager.get_state_registry("batch").categorical_mapping]
    if batch is None and len(names) > 1:
        raise ValueError(f"model: found batches {', '.join(map(str, names))}, expected InBatch(model, batch) with one")
    if batch is not None and batch not in names:
        raise ValueError(f"model: found batch {batch!r}, expected one of {', '.join(map(str, names))}")
    return 0 if batch is None else names.index(batch)


class Scvi(nn.Module):
    """SCVI with the methods of `Adaptable`, and what the other models share.

    Args:
        module: the network of the model.
        named: the modality of each part of the model.
        batch: the index of the batch.
    """

    prior_loc: Tensor
    prior_scale: Tensor

    def __init__(self, module: Any, named: Mapping[str, str], batch: int) -> None:
        super().__init__()
        self.module: Any = module
        self.named, self.batch = dict(named), batch
        self.modalities = tuple(self.named.values())
        self.factors = [self.named[part] for part in (GENES, REGIONS) if part in self.named]
        self.register_buffer("prior_loc", torch.zeros(len(self.factors)))
        self.register_buffer("prior_scale", torch.ones(len(self.factors)))

    @property
    def layout(self) -> tuple[Block, ...]:
        """The block z and a block for each size factor."""
        own = (Block(f"library_{m}", (1,), m) for m in self.factors)
        return (Block("z", (int(self.module.n_latent),)), *own)

    @torch.no_grad()
    def set_prior(self, model: Any) -> None:
        """Set the prior of the size factors to their mean and standard deviation over cells of the model's data."""
        cells = np.unique(np.linspace(0, model.adata.n_obs - 1, CELLS).astype(int))
        found = []
        for tensors in model._make_data_loader(adata=model.adata, indices=cells):
            inputs = {key: x.cpu() if isinstance(x, Tensor) else x for key, x in tensors.items()}
            found.append(self.posterior(self.module._get_inference_input(inputs))[0][:, -len(self.factors) :])
        factors = torch.cat(found)
        self.prior_loc.copy_(factors.mean(0))
        self.prior_scale.copy_(factors.std(0).clamp_min(1e-3))

    def prior(self) -> Normal:
        """Return the prior of the codes of one row: N(0, I) for z, and that of `set_prior` for size factors."""
        zero = self.prior_loc.new_zeros(int(self.module.n_latent))
        loc, scale = torch.cat([zero, self.prior_loc]), torch.cat([zero + 1, self.prior_scale])
        return Normal(loc[None], scale[None])

    def encode(self, batch: Values) -> tuple[Tensor, Tensor]:
        """Return the locations and scales of the normal posteriors of codes, (n, D) each."""
        return self.posterior(self.inputs(batch))

    def inputs(self, batch: Values) -> dict[str, Any]:
        """Return the arguments of `inference`."""
        x = batch[self.named[GENES]]
        return {"x": x, "batch_index": self.index(len(x))}

    def posterior(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the locations and scales of posteriors given the arguments of `inference`."""
        found = self.module._regular_inference(**inputs)
        return self._beside(found["qz"], found["ql"], found["library"].clamp_min(0))

    def _beside(self, qz: Any, ql: Any, library: Tensor) -> tuple[Tensor, Tensor]:
        """Return locations and scales of z and of the logarithm of the library size, observed or with a posterior."""
        loc, scale = (library, torch.full_like(library, NARROW).exp()) if ql is None else (ql.loc, ql.scale)
        return torch.cat([qz.loc, loc], -1), torch.cat([qz.scale, scale], -1)

    def index(self, rows: int) -> Tensor:
        """Return the index of the batch for each row, (rows, 1)."""
        return torch.full((rows, 1), self.batch)

    def split(self, latents: Tensor) -> list[Tensor]:
        """Return z as decoders read it, and the size factors (n, 1) and other decoder inputs beside it."""
        size = int(self.module.n_latent)
        coder = getattr(self.module, self.coder)
        return [coder.z_transformation(latents[:, :size]), *latents[:, size:].split(self.widths(), -1)]

    coder = "z_encoder"

    def widths(self) -> list[int]:
        """Return the numbers of decoder inputs beside z."""
        return [1] * len(self.factors)

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return the likelihood of the counts given codes (n, D)."""
        z, library = self.split(latents)
        return {self.named[GENES]: self.module.generative(z, library, self.index(len(z)))["px"]}

    def counts(self, mean: Tensor, theta: Tensor, dropout: Tensor) -> Any:
        """Return the likelihood of counts of genes."""
        p = negative_binomial(mean, theta)
        return p if self.module.gene_likelihood == "nb" else ZeroInflatedNegativeBinomial(p, dropout)


class WithProteins(Scvi):
    """What models of proteins share: a background of each protein, drawn given z, below the code."""

    def widths(self) -> list[int]:
        proteins = [int(self.module.n_input_proteins)] if PROTEINS in self.named else []
        return [*super().widths(), *proteins]

    def descend(self, codes: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return codes (n, D) beside the logarithms of the background of proteins, drawn or their means: (n, D + P)."""
        if PROTEINS not in self.named:
            return codes
        empty = codes.new_zeros(len(codes), int(self.module.n_input_proteins))
        found = self.generative(*self.split(torch.cat([codes, empty], -1))[:-1])["py_"]
        loc, scale = found["back_alpha"], found["back_beta"]
        noise = empty if generator is None else torch.randn(loc.shape, generator=generator, dtype=loc.dtype)
        return torch.cat([codes, loc + scale * noise], -1)

    def generative(self, z: Tensor, library: Tensor, *others: Tensor) -> dict[str, Any]:
        """Return what the network decodes."""
        raise NotImplementedError

    def proteins(self, py: Mapping[str, Tensor], background: Tensor, efficiency: Tensor | float) -> Any:
        """Return the likelihood of counts of proteins: a background, or a higher foreground."""
        low = efficiency * background.exp()
        first, second = (negative_binomial(mean, py["r"]) for mean in (low, low * py["fore_scale"]))
        return NegativeBinomialMixture(first, second, py["mixing"])


class TotalVI(WithProteins):
    """TOTALVI. Cells without proteins are encoded in the batch in which none were measured, if there is one."""

    coder = "encoder"

    def inputs(self, batch: Values) -> dict[str, Any]:
        x, y = (batch.get(self.named[part]) for part in (GENES, PROTEINS))
        n = len(next(iter(batch.values())))
        zero, index = self.prior_loc.new_zeros, self.index(n)
        if y is None:
            masks = self.module.protein_batch_mask or {}
            index = index.fill_(next((int(b) for b, mask in masks.items() if not np.any(mask)), self.batch))
        x = zero(n, self.module.n_input_genes) if x is None else x
        y = zero(n, self.module.n_input_proteins) if y is None else y
        return {"x": x, "y": y, "batch_index": index, "panel_index": index}

    def posterior(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        found = self.module._regular_inference(**inputs)
        observed = self.module.use_observed_lib_size
        return self._beside(found["qz"], None if observed else found["ql"], found["library_gene"].clamp_min(1).log())

    def generative(self, z: Tensor, library: Tensor, *others: Tensor) -> dict[str, Any]:
        return self.module.generative(z, library.exp(), self.index(len(z)), label=None)

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return the likelihoods of counts of genes and proteins given decoder inputs (n, D + P)."""
        z, library, background = self.split(latents)
        found = self.generative(z, library)
        px = found["px_"]
        decoded = {self.named[GENES]: self.counts(px["rate"], px["r"], px["dropout"])}
        decoded[self.named[PROTEINS]] = self.proteins(found["py_"], background, found["per_batch_efficiency"])
        return {m: decoded[m] for m in names}


class MultiVI(WithProteins):
    """MULTIVI: accessibility is binary; regions, genes or proteins may be missing."""

    coder = "z_encoder_accessibility"

    def inputs(self, batch: Values) -> dict[str, Any]:
        n = len(next(iter(batch.values())))
        zero = self.prior_loc.new_zeros
        sizes = {part: int(getattr(self.module, f"n_input_{part}")) for part in (GENES, REGIONS, PROTEINS)}
        values = {part: batch.get(self.named.get(part, ""), zero(n, size)) for part, size in sizes.items()}
        y = values[PROTEINS] if sizes[PROTEINS] else zero(n, 1)
        x, absent = torch.cat([values[GENES], values[REGIONS]], -1), dict.fromkeys(("cont_covs", "cat_covs", "label"))
        own = {"batch_index": self.index(n), "cell_idx": torch.arange(n), "size_factor": None}
        return {"x": x, "y": y, **own, **absent}

    def posterior(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        found = self.module.inference(**inputs)
        loc, scale = found["qz_m"], found["qz_v"].sqrt()
        factors = {GENES: found["libsize_expr"], REGIONS: found["libsize_acc"].logit(1e-6)}
        own = torch.cat([factors[part] for part in (GENES, REGIONS) if part in self.named], -1)
        return torch.cat([loc, own], -1), torch.cat([scale, torch.full_like(own, NARROW).exp()], -1)

    def generative(self, z: Tensor, library: Tensor, *others: Tensor) -> dict[str, Any]:
        return self.module.generative(z, z, self.index(len(z)), libsize_expr=library)

    def decode(self, latents: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """Return the likelihoods of counts, and of binary accessibility, given decoder inputs (n, D + P)."""
        z, *own = self.split(latents)
        parts = dict(zip([part for part in (GENES, REGIONS, PROTEINS) if part in self.named], own, strict=True))
        found = self.generative(z, parts.get(GENES, torch.zeros_like(z[:, :1])))
        decoded: dict[str, Any] = {}
        if GENES in parts:
            decoded[self.named[GENES]] = self.counts(found["px_rate"], found["px_r"], found["px_dropout"])
        if REGIONS in parts:
            regions = self.module.region_factors
            share = found["p"] * parts[REGIONS].sigmoid() * (1 if regions is None else regions.sigmoid())
            decoded[self.named[REGIONS]] = distributions.Bernoulli(share.clamp(0, 1))
        if PROTEINS in parts:
            decoded[self.named[PROTEINS]] = self.proteins(found["py_"], parts[PROTEINS], 1.0)
        return {m: decoded[m] for m in names}


def negative_binomial(mean: Tensor, theta: Tensor) -> NegativeBinomial:
    """Return counts with the given mean (n, J) and inverse dispersion."""
    log_mean, log_theta = (x.clamp_min(1e-8).log() for x in (mean, theta.expand_as(mean)))
    return NegativeBinomial(log_mean, log_theta, 1)


ADAPTERS: dict[str, type[Scvi]] = {"SCVI": Scvi, "TOTALVI": TotalVI, "MULTIVI": MultiVI}
