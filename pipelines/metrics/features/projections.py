"""Feature extractors without labels: principal components of the values or of the outputs of random networks."""

from abc import abstractmethod
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.decoded import values_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.extractor import Extractor, observed_values
from postprior.pipelines.metrics.features.label_classifiers import body
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.randomness import seeded

FLOATS = 2**26  # maximum number of values from which principal components are computed
NARROW = 1024  # largest number of dimensions for which the full covariance is decomposed


class Projected(Extractor):
    """Principal components of vectors r(x) that a subclass computes from the values (Pearson 1901).

        f = s Wᵀ (r(x) − μ),    tr Cov f = F

    The columns of W are the F directions of largest variance. Each modality has one scale s, so that all modalities
    have equal weight in a distance between rows.
    """

    @abstractmethod
    def vectors(self, name: str, values: Tensor) -> Tensor:
        """Return the vectors r(x) (B, D) of values (B, *shape) of one modality."""

    def fit(self, dataset: Dataset) -> Self:
        """Fit the moments of the values, then the principal components of the vectors."""
        self.standardise(dataset)
        for index, m in enumerate(self.modalities):
            if not self.raw(m):
                self._project(dataset, index, m)
        return self

    def features(self, name: str, values: Tensor) -> Tensor:
        """Return features (B, F_m) of values (B, *shape)."""
        vectors = self.vectors(name, values)
        if f"{name}_axes" not in self._buffers:
            return vectors
        return (vectors - self.get_buffer(f"{name}_origin")) @ self.get_buffer(f"{name}_axes")

    def raw(self, modality: Modality) -> bool:
        """Whether the vectors of a modality are its features without a projection."""
        return False

    @torch.inference_mode()
    def _project(self, dataset: Dataset, index: int, modality: Modality) -> None:
        from sklearn.decomposition import PCA

        rows = np.flatnonzero(dataset.observed[:, index])
        if len(rows) < 2:
            raise UserError(
                f"{dataset.folder}: modality {modality.title} is observed in {len(rows)} rows, expected at least two; "
                "add rows in which it is observed"
            )
        one = torch.from_numpy(np.asarray(values_of(dataset, modality, rows[:1]), np.float32))
        dimensions = self.vectors(modality.name, one).shape[1]
        rng = np.random.default_rng(self.seed)
        subset = np.sort(rng.permutation(rows)[: max(2, FLOATS // dimensions)])
        values = Dataset((modality,), {modality.name: values_of(dataset, modality, subset)})
        blocks = observed_values(values, modality, self.block)
        vectors = torch.cat([self.vectors(modality.name, block) for block in blocks])
        solver = "covariance_eigh" if dimensions <= NARROW else "randomized"
        pca = PCA(min(self.width, *vectors.shape), svd_solver=solver, random_state=self.seed).fit(vectors.numpy())
        scale = np.sqrt(self.width / max(pca.explained_variance_.sum(), np.finfo(np.float32).tiny))
        axes = torch.from_numpy(pca.components_.T * scale).float()
        self.register_buffer(f"{modality.name}_origin", torch.from_numpy(pca.mean_).float())
        self.register_buffer(f"{modality.name}_axes", axes.contiguous())


class PrincipalComponents(Projected):
    """Principal components of the standardised values, flattened to one vector per modality."""

    def vectors(self, name: str, values: Tensor) -> Tensor:
        """Return standardised values (B, D)."""
        return self.standardised(name, values).flatten(1)


class RandomNetworks(Projected):
    """Principal components of the last hidden layer of untrained networks, convolutional for spatial modalities.

    Suited to data unlike those on which networks are usually trained (Naeem et al. 2020,
    https://arxiv.org/abs/2002.09797).
    """

    def __init__(self, modalities: tuple[Modality, ...], features: int, seed: int = 0) -> None:
        super().__init__(modalities, features, seed)
        with seeded(seed):
            self.bodies = nn.ModuleDict({m.name: body(self.shape(m.name), features) for m in modalities})
        self.requires_grad_(False)

    def vectors(self, name: str, values: Tensor) -> Tensor:
        """Return the last hidden layer (B, F)."""
        return self.bodies[name](self.standardised(name, values))
