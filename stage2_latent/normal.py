"""The autoencoder's own prior, the baseline that every other density is compared with."""

from __future__ import annotations

from postprior.stage2_latent.diagonal import DiagonalMixture
from postprior.stage2_latent.task import Task


class Normal(DiagonalMixture):
    """The prior p(z) that the autoencoder was trained with, N(0, I) or a mixture of its family; nothing is fitted."""

    name = "normal"
    labelled = False
    fewest_rows = 1

    def _fit(self, task: Task) -> None:
        prior = task.train.codes.prior
        if prior is None:
            raise ValueError(
                "density normal: the codes have no prior, expected the prior of the autoencoder: encode again"
            )
        like = task.train.codes.loc
        self.family = prior.components.name
        self.log_weights = prior.weights.detach().to(like).log().unsqueeze(0)
        self.loc = prior.components.loc.detach().to(like).unsqueeze(0)
        self.scale = prior.components.scale.detach().to(like).expand_as(self.loc[0]).unsqueeze(0)
        self._record_scores(task)
