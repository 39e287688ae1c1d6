"""The health of a latent space: how much information its dimensions carry, and how far codes are from the prior.

With q(z | x) the posterior of a row, q(z) = E_x q(z | x) the aggregated posterior and p(z) the prior,

    E_x KL(q(z | x) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z))       (Hoffman & Johnson 2016, "ELBO surgery")

The first term is the information of the codes about the data, the second the distance between codes and prior draws.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from postprior.pipelines.metrics.statistics.intervals import FEWEST, Floats, Ints, too_few
from postprior.pipelines.metrics.statistics.missing import Missing
from postprior.stage1_vae.distributions import Mixture, Normal
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.moments import moments

DEAD = 0.01  # variance of posterior means below which a latent dimension carries no information
COLLAPSED = 0.01  # KL of a dimension in nats below which its posterior equals the prior
DRAWS = 64  # draws per row for a divergence without a closed form
FLOATS = 2**22  # double-precision values in memory
CACHED_FLOATS = 2**17  # the same of a table that is read several times: it should fit the cache of a processor core
PAIRS = 2**27  # maximum number of densities of a draw's coordinate under another row's posterior
CLUSTERS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32)  # numbers of clusters that are tried
CLUSTERED = 2000  # maximum number of codes for fitting clusters and for silhouettes

UNUSED = 0.25  # share of dead dimensions above which a smaller latent space is advised
USED = 0.1  # nats of KL above which a dimension is used
EVEN = 0.5  # ratio of the smallest to the mean KL of a dimension above which no dimension is about to die
NARROW = 0.01  # share of posteriors in a coordinate's variance: standard deviations ten times smaller than the codes'
DISTINCT = 0.1  # nats below the bound of the mutual information: the code then identifies its row among all others
FAR = 1.0  # nats of `moment_kl`: judged by moments, a code is then e times less likely under the prior


@torch.no_grad()
def health(codes: Codes, generator: torch.Generator) -> dict[str, Any]:
    """Compute diagnostics of the latent space from the codes of at least two complete rows.

    A dimension is dead, the opposite of an active unit, if the posterior means hardly vary (Burda, Grosse &
    Salakhutdinov 2016, https://arxiv.org/abs/1509.00519). It is collapsed if the posteriors equal the prior.
    """
    posterior, prior = double(codes.posterior()), double(prior_of(codes))
    dead = dead_dimensions(posterior.mean)
    total, coordinates = divergence_to_prior(posterior, prior, generator)
    numbers = {
        "dimensions": codes.dimensions,
        "dead_dimensions": dead,
        "collapsed_dimensions": int((coordinates < COLLAPSED).sum()),
        "active_units": codes.dimensions - dead,
        "kl_total": total,
        "kl_per_dimension": coordinates.tolist(),
        "aggregated_to_prior": aggregated_to_prior(codes, total, generator),
    }
    return numbers | {"advice": advice(numbers)}


def dead_dimensions(means: Tensor) -> int:
    """Return the number of latent dimensions whose posterior means (N, D), N ≥ 2, have a variance below `DEAD`."""
    return int((means.var(0) < DEAD).sum())


def advice(numbers: dict[str, Any]) -> list[str]:
    """Return sentences that advise another latent size or another `beta`, the weight of the KL divergence, if needed.

    They never advise a smaller and a larger `beta` at once.
    """
    D, dead, kl = numbers["dimensions"], numbers["dead_dimensions"], numbers["kl_per_dimension"]
    codes: dict[str, Any] = numbers["aggregated_to_prior"]
    if dead == D:
        return [
            "All latent dimensions are dead, so codes do not depend on the data: use a smaller beta or train longer."
        ]
    sentences = []
    distinct = codes["mutual_information"] > codes["mutual_information_bound"] - DISTINCT
    far, narrow = codes["moment_kl"] > FAR, distinct and codes["posterior_share"] < NARROW
    if dead >= UNUSED * D:
        beta = "" if far or narrow else ", or a smaller beta to activate the others"
        carry = "carries" if dead == 1 else "carry"
        sentences.append(f"{dead} of {D} latent dimensions {carry} almost no information: use {D - dead} in all{beta}.")
    if not dead and min(kl) >= max(EVEN * sum(kl) / D, USED):
        used = f"All {D} latent dimensions are used about equally" if D > 1 else "The only latent dimension is used"
        sentences.append(
            f"{used} (KL from {min(kl):.1f} to {max(kl):.1f} nats): with more dimensions, codes may keep more detail."
        )
    if narrow:
        sentences.append(
            f"Posteriors are {codes['posterior_share'] ** -0.5:.0f} times narrower than the spread of the codes and do "
            "not overlap: a larger beta would bring neighbouring codes together, but lose detail."
        )
    if far:
        sentences.append(
            f"A Gaussian with the mean and covariance of codes has a KL divergence of {codes['moment_kl']:.1f} nats "
            "from the prior, so draws from the prior differ from codes: fit a density, or use a larger beta."
        )
    return sentences


def prior_of(codes: Codes) -> Mixture:
    """Return the prior that is stored with the codes."""
    if codes.prior is None:
        raise ValueError("codes: found no prior, expected that of the autoencoder")
    return codes.prior


def double(mixture: Mixture) -> Mixture:
    """Return the mixture in double precision."""
    components, loc = mixture.components, mixture.components.loc.double()
    scale = components.scale.double().expand_as(loc)
    return Mixture(mixture.weights.double(), type(components)(loc, scale))


def divergence_to_prior(posterior: Mixture, prior: Mixture, generator: torch.Generator) -> tuple[float, Tensor]:
    """Return KL(q(z | x) ‖ p(z)) in nats, averaged over N rows, for whole codes and for each coordinate (D,).

    It is computed in closed form if both are single Gaussians, otherwise by stratified draws. The coordinates sum to
    the total if both are diagonal; in a mixture, components make coordinates dependent.
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
        log_q, log_p = (by_coordinate(mixture).log_prob(z.unsqueeze(-1)) for mixture in (q, prior))  # (K, n, D)
        coordinates += (log_q - log_p).mean(0).sum(0)
    return total / N, coordinates / N


def gaussian(mixture: Mixture) -> bool:
    """Return whether a mixture is a single Gaussian."""
    return isinstance(mixture.components, Normal) and mixture.weights.shape[-1] == 1


def by_coordinate(mixture: Mixture) -> Mixture:
    """Return the marginals of the D coordinates of a mixture of batch shape (…): batch shape (…, D), event (1,)."""
    components, weights = mixture.components, mixture.weights.unsqueeze(-2)
    loc, scale = (value.mT.unsqueeze(-1) for value in (components.loc, components.scale))
    return Mixture(weights.expand(*loc.shape[:-1]), type(components)(loc, scale))


def aggregated_to_prior(codes: Codes, divergence: float, generator: torch.Generator) -> dict[str, Any]:
    """Compare the aggregated posterior of N complete rows with the prior.

    `divergence` is the mean over rows of KL(q(z | x) ‖ p(z)).

    `shift` and `variance` are each coordinate's mean and variance in units in which those of the prior are 0 and 1.
    `moment_kl` is the KL divergence of the Gaussian with the codes' moments from the Gaussian with the prior's moments.
    If the prior is Gaussian, it is a lower bound: KL(q(z) ‖ p) = KL(q(z) ‖ Gaussian) + KL(Gaussian ‖ p). `marginal_kl`
    is KL(q(z) ‖ p) with q(z) = 1/N Σ_n q(z | x_n); it is too large if `mutual_information` is close to its bound, ln N.
    """
    prior, (mean, covariance) = double(prior_of(codes)), (moment[0] for moment in moments(codes))
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
    """Estimate E log q(z | x_i) − log 1/N Σ_n q(z | x_n) with one draw z of q(z | x_i) per row; at most ln N."""
    z = posterior.rsample((), generator)  # (N, D)
    log_q, blocks = posterior.log_prob(z), z.split(max(1, CACHED_FLOATS // posterior.components.loc.numel()))
    aggregated = [posterior.log_prob(block.unsqueeze(1)).logsumexp(1) - math.log(len(z)) for block in blocks]
    return float((log_q - torch.cat(aggregated)).mean())


def moments_of(mixture: Mixture) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and covariance (D, D) of one mixture."""
    components, mean = mixture.components, mixture.mean
    deviations = (components.loc - mean) * mixture.weights.sqrt().unsqueeze(-1)  # (C, D)
    return mean, deviations.mT @ deviations + (mixture.weights @ components.variance).diag()


def clusters(codes: Floats, held_out: Floats, labels: Ints | None, seed: int) -> dict[str, Any]:
    """Return the number of clusters of codes (N, D), and silhouettes of held-out codes (n, D).

    The number of clusters minimises the Bayesian information criterion of a Gaussian mixture whose components share one
    covariance (Fraley & Raftery 1998, https://doi.org/10.1093/comjnl/41.8.578). A silhouette, between −1 and 1, is the
    mean of (distance to the nearest other cluster − distance within the cluster) / the larger of both (Rousseeuw 1987,
    https://doi.org/10.1016/0377-0427(87)90125-7); it is 0 if clusters touch. `label_silhouette` uses the labels (n,),
    where rows have one, as clusters. The result is missing with fewer than two training codes or two held-out codes.
    """
    for rows, side in ((codes, "training"), (held_out, "test")):
        if missing := too_few(len(rows), FEWEST, f"{side} rows with complete codes"):
            return missing.written
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    train_rows, test_rows = (rng.permutation(len(rows))[:CLUSTERED] for rows in (codes, held_out))
    fitted, tested = codes[train_rows].astype(np.float64), held_out[test_rows].astype(np.float64)
    with threadpool_limits(limits=1):  # the order of sums over several threads would vary
        mixtures = [
            GaussianMixture(count, covariance_type="tied", random_state=seed).fit(fitted)
            for count in CLUSTERS
            if count < len(fitted)
        ]
        best = min(mixtures, key=lambda mixture: mixture.bic(fitted))
        numbers = {"number": best.n_components, "tried_up_to": mixtures[-1].n_components}
        groupings = {"silhouette": best.predict(tested)}
        if labels is not None:
            groupings["label_silhouette"] = labels[test_rows]
        return numbers | {name: silhouette(tested, groups) for name, groups in groupings.items()}


def silhouette(codes: Floats, groups: Ints) -> Any:
    """Return the silhouette of codes (n, D) in groups (n,); missing if there is one group, or each code is a group.

    Codes of the group −1 are in no group and are left out.
    """
    codes, groups = codes[groups >= 0], groups[groups >= 0]
    number = len(np.unique(groups))
    if number < 2:
        return Missing("all held-out codes are in one group").written
    if number == len(codes):
        return Missing("each held-out code is in a separate group").written
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(codes, groups))
