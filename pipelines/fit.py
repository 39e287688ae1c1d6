"""Stage `fit`: a density of the training codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import Params
from pipelines.dataset import Dataset
from pipelines.encode import SPLITS, load_codes
from pipelines.errors import UserError
from pipelines.generator import KIND
from pipelines.progress import progress
from pipelines.storage import load_artefact, save_artefact
from pipelines.tracking import track
from pipelines.train import load_autoencoder

if TYPE_CHECKING:
    from torch import Tensor

    from stage1_vae.distributions import Mixture
    from stage1_vae.model import MultimodalVAE
    from stage2_latent.codes import Codes
    from stage2_latent.density import Density


def fit(name: str, params: Params, root: Path) -> None:
    """Fit density `name` to artefacts/codes/train; artefacts/densities/<name>."""
    from stage1_vae.training import generator_for
    from stage2_latent import DENSITIES

    codes = {split: load_codes(root / "artefacts/codes" / split) for split in SPLITS}
    origin = load_artefact(root / "artefacts/codes/train", "codes")
    with track("fit", params, root, density=name) as run, progress(f"fit {name}", None) as step:

        def report(row: dict[str, Any]) -> None:
            run.metrics({key: value for key, value in row.items() if key != "step"}, step=int(row["step"]))
            step(f"held-out log-likelihood {row['validation_log_likelihood']:.2f}")

        try:
            density = DENSITIES[name](**params.density[name])
            encoder = (
                FrozenEncoder.load(root, origin.manifest["autoencoder"]) if density.needs_encoder else None
            )
            density.fit(
                codes["train"], codes["validation"], generator_for("cpu", params.seed), encoder, report
            )
        except ValueError as error:
            raise UserError(f"density.{name}: {str(error).removeprefix(f'density {name}: ')}") from None
        likelihood = log_likelihoods(density, codes, params.seed)
        run.metrics({f"log_likelihood_{split}": value for split, value in likelihood.items()})
        tensors, meta = density.state()
        origins = {"autoencoder": origin.manifest["autoencoder"], "codes": origin.hash}
        manifest = {**meta, **origins, "log_likelihood": likelihood}
        save_artefact(root / "artefacts/densities" / name, KIND, manifest, tensors)


def log_likelihoods(density: Density, codes: dict[str, Codes], seed: int) -> dict[str, float]:
    """Mean log p(z) of one posterior draw of every row of each split, in nats; nothing without exact scores."""
    import torch

    from stage1_vae.training import generator_for

    if not density.exact_log_prob:
        return {}
    with torch.no_grad():
        return {
            split: float(density.log_prob(table.draw(generator_for("cpu", seed, 1))).mean())
            for split, table in codes.items()
        }


class FrozenEncoder:
    """The trained encoder as a density sees it: training inputs by row, and posteriors of inputs.

    Args:
        model: the autoencoder; its parameters are frozen.
        data: the rows that the codes were made from.
    """

    def __init__(self, model: MultimodalVAE, data: Dataset) -> None:
        self.model, self.data = model.requires_grad_(False), data

    @classmethod
    def load(cls, root: Path, autoencoder: str) -> FrozenEncoder:
        """The encoder that the codes in a project came from, and their data."""
        model, artefact = load_autoencoder(root / "artefacts/autoencoder")
        if artefact.hash != autoencoder:
            raise UserError(
                f"artefacts/codes/train: codes of autoencoder {autoencoder[:12]}, found {artefact.hash[:12]} in "
                "artefacts/autoencoder; run postprior encode"
            )
        return cls(model, Dataset.load(root / "artefacts/data/train"))

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Data of some rows, one tensor (n, *shape) a modality; what a row lacks is the mean of those that have it."""
        batch = self.data.batch(rows.numpy())
        for index, (name, values) in enumerate(batch.data.items()):
            observed = batch.observed[:, index]
            if not bool(observed.all()):
                values[~observed] = values[observed].mean(0) if bool(observed.any()) else values.mean(0)
                batch.data[name] = values
        return batch.data

    def __call__(self, inputs: dict[str, Tensor]) -> Mixture:
        """Posteriors of complete inputs, batch shape (n,), differentiable in them.

        Pseudo-inputs may leave the modalities' ranges: they stand for posteriors, not for data, and clamped to the
        ranges they would stop learning at the bounds.
        """
        import torch

        from stage1_vae.modalities import Batch
        from stage1_vae.training import generator_for

        rows = len(next(iter(inputs.values())))
        complete = Batch(dict(inputs), torch.ones(rows, len(inputs), dtype=torch.bool))
        return self.model.encode(complete, generator_for("cpu", 0))
