"""The health of a latent space: what its dimensions carry, and how far the codes lie from the prior.

With q(z | x) the posterior of a row, q(z) = E_x q(z | x) the aggregated posterior and p(z) the prior,

    E_x KL(q(z | x) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z))       (Hoffman & Johnson 2016, "ELBO surgery")

The first term says how much the codes tell, the second how far draws of the prior are from codes.
"""

import math
from typing import Any

import numpy as np
import torch
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from postprior.pipelines.metrics.statistics.intervals import FEWEST, Floats, Ints, too_few
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.distributions import Mixture, Normal
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.moments import moments

DEAD = 0.01  # variance of its posterior means under which a latent dimension says nothing about a sample
COLLAPSED = 0.01  # nats of a dimension's KL under which its posterior is the prior
DRAWS = 64  # a row, where a divergence has no closed form
FLOATS = 2**22  # numbers of double precision held at once
PAIRS = 2**27  # densities of a draw's coordinate under another row's posterior that are computed
CLUSTERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32)  # numbers of clusters that are tried
CLUSTERED = 2000  # codes that they are fitted to, and that silhouettes are taken of

UNUSED = 0.25  # share of dead dimensions from which on a smaller latent space is worth the training
EVEN = 0.5  # least over mean KL of a dimension: while it holds half of the mean, none is being given up
NARROW = 0.01  # share of posteriors in a coordinate's variance: deviations ten times smaller than the codes'
DISTINCT = 0.1  # nats from the information's bound: a row is then known by its code among all others
FAR = 1.0  # nats of `moment_kl`: by moments alone a code is then e times less likely under the prior


@torch.no_grad()
def health(codes: Codes, generator: torch.Generator) -> dict[str, Any]:
    """What the codes of complete rows, two at least, say of their latent space, in numbers.

    A dimension is dead, or not an active unit, where the posterior means hardly vary (Burda, Grosse & Salakhutdinov
    2016, https://arxiv.org/abs/1509.00519), and collapsed where the posteriors are the prior.
    """
    posterior, prior = double(codes.posterior()), double(prior_of(codes))
    dead = dead_dimensions(posterior.mean)
    total, coordinates = divergence_to_prior(posterior, prior, generator)
    found = {
        "dimensions": codes.dimensions,
        "dead_dimensions": dead,
        "collapsed_dimensions": int((coordinates < COLLAPSED).sum()),
        "active_units": codes.dimensions - dead,
        "kl_total": total,
        "kl_per_dimension": coordinates.tolist(),
        "aggregated_to_prior": aggregated_to_prior(codes, total, generator),
    }
    return found | {"advice": advice(found)}


def dead_dimensions(means: Tensor) -> int:
    """Number of latent dimensions whose posterior means (N, D), N ≥ 2, vary by less than `DEAD`."""
    return int((means.var(0) < DEAD).sum())


def advice(found: dict[str, Any]) -> list[str]:
    """Sentences on the latent size and on beta, the divergence's weight, where the numbers ask for a change.

    They never ask for a smaller and for a larger beta at once.
    """
    D, dead, kl = found["dimensions"], found["dead_dimensions"], found["kl_per_dimension"]
    codes, told = found["aggregated_to_prior"], []
    if dead == D:
        return ["No latent dimension tells one row from another: use a smaller beta, or train for longer."]
    distinct = codes["mutual_information"] > codes["mutual_information_bound"] - DISTINCT
    far, narrow = codes["moment_kl"] > FAR, distinct and codes["posterior_share"] < NARROW
    if dead >= UNUSED * D:
        beta = "" if far or narrow else ", or a smaller beta would let the others be used"
        told.append(f"{dead} of {D} latent dimensions carry next to nothing: {D - dead} would do{beta}.")
    if not dead and min(kl) >= EVEN * sum(kl) / D:
        told.append(
            f"All {D} latent dimensions are used, and evenly (KL from {min(kl):.1f} to {max(kl):.1f} nats): more of "
            "them may carry what is lost now."
        )
    if narrow:
        told.append(
            f"Posteriors are {codes['posterior_share'] ** -0.5:.0f} times narrower than the codes' spread, and none "
            "overlaps another: a larger beta would bring neighbouring codes together, at a cost in detail."
        )
    if far:
        told.append(
            f"The Gaussian with the codes' mean and covariance is {codes['moment_kl']:.1f} nats from the prior, "
            "whose draws are unlike codes: a larger beta would bring the two nearer; a fitted density needs none."
        )
    return told


def prior_of(codes: Codes) -> Mixture:
    """The prior that travels with codes."""
    if codes.prior is None:
        raise ValueError("codes: found no prior, expected the autoencoder's")
    return codes.prior


def double(mixture: Mixture) -> Mixture:
    """The same mixture in double precision."""
    parts, full = mixture.components, mixture.components.loc.double()
    scale = parts.scale.double().expand_as(full)
    return Mixture(mixture.weights.double(), type(parts)(full, scale))


def divergence_to_prior(posterior: Mixture, prior: Mixture, generator: torch.Generator) -> tuple[float, Tensor]:
    """KL(q(z | x) ‖ p(z)) in nats, mean over the N rows of the posterior, of whole codes and of each coordinate (D,).

    In closed form where both are one Gaussian, by stratified draws elsewhere. The coordinates' sum is the total where
    both are diagonal; components of a mixture tie coordinates together.
    """
    if gaussian(posterior) and gaussian(prior):
        shift = (posterior.mean - prior.mean).square() / prior.variance
        ratio = posterior.variance / prior.variance
        coordinates = 0.5 * (ratio + shift - 1 - ratio.log()).mean(0)
        return float(coordinates.sum()), coordinates
    (N, C), D = posterior.weights.shape, prior.mean.shape[-1]
    width = max(C, prior.weights.shape[-1])
    total, coordinates = 0.0, torch.zeros(D, dtype=torch.float64)
    for rows in torch.arange(N).split(max(1, FLOATS // (DRAWS * width * D))):
        q = posterior[rows]
        z = q.stratified(DRAWS, generator)  # (K, n, D)
        total += float((q.log_prob(z) - prior.log_prob(z)).mean(0).sum())
        own, priors = (by_coordinate(of).log_prob(z.unsqueeze(-1)) for of in (q, prior))  # (K, n, D)
        coordinates += (own - priors).mean(0).sum(0)
    return total / N, coordinates / N


def gaussian(mixture: Mixture) -> bool:
    """Whether a mixture is one Gaussian."""
    return isinstance(mixture.components, Normal) and mixture.weights.shape[-1] == 1


def by_coordinate(mixture: Mixture) -> Mixture:
    """The marginals of the D coordinates of a mixture of batch shape (…): batch shape (…, D), event (1,)."""
    parts, weights = mixture.components, mixture.weights.unsqueeze(-2)
    loc, scale = (value.mT.unsqueeze(-1) for value in (parts.loc, parts.scale))
    return Mixture(weights.expand(*loc.shape[:-1]), type(parts)(loc, scale))


def aggregated_to_prior(codes: Codes, divergence: float, generator: torch.Generator) -> dict[str, Any]:
    """The aggregated posterior of N complete rows against the prior.

    `shift` and `variance` are a coordinate's mean and variance where the prior's are 0 and 1; `moment_kl` is the
    divergence of the Gaussian with the codes' mean and covariance from that with the prior's: where the prior is
    Gaussian, no more than that of the codes, as KL(q(z) ‖ p) = KL(q(z) ‖ Gaussian) + KL(Gaussian ‖ p). `marginal_kl` is
    this left side with q(z) = 1/N Σ_n q(z | x_n): too large where `mutual_information` comes near its bound, ln N.
    `divergence` is the mean over rows of KL(q(z | x) ‖ p(z)).
    """
    prior, (mean, covariance) = double(prior_of(codes)), (found[0] for found in moments(codes))
    shift = (mean - prior.mean) / prior.variance.sqrt()
    variance = covariance.diagonal() / prior.variance
    posterior = double(codes.posterior())
    rows = torch.randperm(len(codes), generator=generator)[: math.isqrt(PAIRS // codes.loc[0].numel())]
    information = mutual_information(posterior[rows], generator)
    return {
        "shift": shift.tolist(),
        "variance": variance.tolist(),
        "largest_shift": float(shift.abs().max()),
        "least_variance": float(variance.min()),
        "largest_variance": float(variance.max()),
        "posterior_share": float((posterior.variance.mean(0) / covariance.diagonal()).quantile(0.5)),
        "moment_kl": float(kl_divergence(MultivariateNormal(mean, covariance), MultivariateNormal(*moments_of(prior)))),
        "marginal_kl": divergence - information,
        "mutual_information": information,
        "mutual_information_bound": math.log(len(rows)),
    }


def mutual_information(posterior: Mixture, generator: torch.Generator) -> float:
    """E log q(z | x_i) − log 1/N Σ_n q(z | x_n), z a draw of q(z | x_i), of posteriors of N rows: ln N at most."""
    z = posterior.rsample((), generator)  # (N, D)
    own, blocks = posterior.log_prob(z), z.split(max(1, FLOATS // posterior.components.loc.numel()))
    every = [posterior.log_prob(some.unsqueeze(1)).logsumexp(1) - math.log(len(z)) for some in blocks]
    return float((own - torch.cat(every)).mean())


def moments_of(mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of one mixture."""
    parts, mean = mixture.components, mixture.mean
    apart = (parts.loc - mean) * mixture.weights.sqrt().unsqueeze(-1)  # (C, D)
    return mean, apart.mT @ apart + (mixture.weights @ parts.variance).diag()


def clusters(codes: Floats, held_out: Floats, labels: Ints | None, seed: int) -> dict[str, Any]:
    """The number of clusters that the codes (N, D) form, and how well held-out codes (n, D) keep to them.

    The number is that of the Gaussian mixture, its components of one shape, with the least Bayesian information
    criterion (Fraley & Raftery 1998, https://doi.org/10.1093/comjnl/41.8.578). A silhouette runs from −1 to 1, the mean
    of (distance to the next cluster − distance to one's own) / the larger (Rousseeuw 1987,
    https://doi.org/10.1016/0377-0427(87)90125-7), and is 0 where clusters touch; `label_silhouette` takes the labels
    (n,) for clusters. Missing with fewer than two codes on either side.
    """
    for rows, of in ((codes, "training"), (held_out, "test")):
        if few := too_few(len(rows), FEWEST, f"{of} rows with every block of codes"):
            return few.written
    rng = np.random.default_rng(seed)
    some, other = (rng.permutation(len(rows))[:CLUSTERED] for rows in (codes, held_out))
    fitted, seen = codes[some].astype(np.float64), held_out[other].astype(np.float64)
    with threadpool_limits(limits=1):  # sums over several threads end in an order of their own each time
        mixtures = [
            GaussianMixture(count, covariance_type="tied", random_state=seed).fit(fitted)
            for count in CLUSTERS
            if count < len(fitted)
        ]
        best = min(mixtures, key=lambda mixture: mixture.bic(fitted))
        found = {"number": best.n_components, "tried_up_to": mixtures[-1].n_components}
        groupings = {"silhouette": best.predict(seen)}
        if labels is not None:
            groupings["label_silhouette"] = labels[other]
        return found | {name: silhouette(seen, groups) for name, groups in groupings.items()}


def silhouette(codes: Floats, groups: Ints) -> Any:
    """The silhouette of codes (n, D) in these groups (n,); missing where none has a next group, or all stand alone."""
    number = len(np.unique(groups))
    if number < 2:
        return Missing("all held-out codes are in one group").written
    if number == len(codes):
        return Missing("each held-out code is a group of its own").written
    return float(silhouette_score(codes, groups))
