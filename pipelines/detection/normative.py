"""Surprisals of rows under an autoencoder and a density: reconstruction, prediction from other modalities, code."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from postprior.pipelines.artefacts.codes import observed_blocks
from postprior.pipelines.blocks import ALONE, Arrays, Block, Sharing
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.detection.rarity import Floats
from postprior.stage1_vae.autoencoder import Autoencoder
from postprior.stage1_vae.modalities import Batch, Modality
from postprior.stage1_vae.randomness import generator_for
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.layouts import coordinates, split_blocks

ROWS, OF_TABLES = 64, 256  # rows per block, also of tables alone, which are small; every block has its own seed
DRAWS = 16  # posterior draws per row over which surprisals are averaged
LARGEST = 1e30
"""Bound of surprisals: values beyond the floating-point range are clamped to it, so that extreme rows are ranked."""
FARTHEST = 1e15  # bound of the coordinates of codes, for the same reason


@dataclass(frozen=True)
class Surprisals:
    """Surprisals, in nats, of N rows with the same P observed modalities; larger for more unusual rows.

    The surprisal of a modality with missing cells is the mean over the observed cells, times the number of all cells.
    `cells` holds −log p of each value of tabular modalities, in the reconstruction and in the prediction from
    other modalities; NaN in missing cells.
    """

    reconstruction: Floats  # (N, P), −log p(x_m | z), z ~ q(z | x): how badly the row's code explains each modality
    inconsistency: Floats  # (N, P), −log p(x_m | z), z given x without m; (N, 0) if there is only one modality
    code: Floats  # (N, 1 + P), −log f(z) under the density, for the code of the row and of each modality alone
    codes: tuple[Floats, ...]  # means of these codes, 1 + P arrays (N, D) of the blocks that the modalities inform
    cells: dict[str, Floats]  # by modality, (N, 2, J), or (N, 1, J) if there is only one modality

    @classmethod
    def joined(cls, blocks: Sequence[Arrays]) -> Self:
        """Return the surprisals of the rows of all blocks (at least one), given those of each: see `Part.block`."""
        whole = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
        codes = tuple(whole.pop(f"code.{place}") for place in range(whole["code"].shape[1]))
        cells = {name.removeprefix("cells."): whole.pop(name) for name in [*whole] if name.startswith("cells.")}
        return cls(**whole, codes=codes, cells=cells)


@dataclass(frozen=True, eq=False)
class Part:
    """Rows of which only the modalities of a pattern are read.

    Args:
        data: The dataset of the rows.
        rows: Indices of the n rows, (n,).
        pattern: The P modalities that are read, (M,).
        seed: Numbers that determine all draws.
    """

    data: Dataset
    rows: NDArray[np.int64]
    pattern: NDArray[np.bool_]
    seed: tuple[int, ...]

    @property
    def starts(self) -> range:
        """Places in `rows` at which blocks begin."""
        return range(0, len(self.rows), OF_TABLES if all(m.kind == "table" for m in self.data.modalities) else ROWS)

    @property
    def targets(self) -> Floats | None:
        """Targets of the rows (n, T), if the dataset has any."""
        return None if self.data.targets is None else self.data.targets[self.rows]

    def block(self, model: Autoencoder, density: Density, number: int) -> Arrays:
        """Return the surprisals of the rows of a block; the density replaces the prior of the model."""
        start = self.starts[number]
        batch, pattern = self.data.batch(self.rows[start : start + self.starts.step]), torch.from_numpy(self.pattern)
        batch = Batch(batch.data, pattern.expand(len(batch), -1), batch.cells)
        return _block(model, density, batch, pattern, generator_for("cpu", *self.seed, number))


@contextmanager
def surprisals_of(
    model: Autoencoder, density: Density, parts: Sequence[Part], sharing: Sharing = ALONE
) -> Iterator[Iterator[Surprisals] | None]:
    """Yield the surprisals of parts with at least one row, in order, on the first rank, and None on the others."""
    places = [(part, number) for part in parts for number in range(len(part.starts))]

    def compute(numbers: range) -> Iterator[Block]:
        for place in numbers:
            part, number = places[place]
            yield place, part.block(model, density, number)

    with sharing.blocks("detect", [part.seed for part in parts], len(places), compute) as blocks:
        if blocks is None:
            yield None
        else:
            arrays = (block for _, block in blocks)
            yield (Surprisals.joined(list(islice(arrays, len(part.starts)))) for part in parts)


@torch.no_grad()
def _block(
    model: Autoencoder, density: Density, batch: Batch, pattern: Tensor, generator: torch.Generator
) -> dict[str, Floats]:
    """Return the fields of `Surprisals` as arrays by name, with numbered `codes`."""
    single = torch.eye(len(pattern), dtype=torch.bool)[pattern]  # (P, M), patterns of one modality
    modalities = [m for m, observed in zip(model.modalities, pattern.tolist(), strict=True) if observed]
    codes, states = model.candidates(batch, DRAWS, generator)  # (B, K, D)
    alone = model.posterior(batch, single).rsample((DRAWS,), generator)  # (K, B, P, D)
    z = torch.cat([codes.transpose(0, 1).unsqueeze(2), alone], 2)
    z = z.nan_to_num(FARTHEST, FARTHEST, -FARTHEST).clamp(-FARTHEST, FARTHEST)
    latents = model.descend(z[:, :, 0], generator) if states is None else states.transpose(0, 1)
    cells = [_cell_surprisals(model, modalities, batch, latents.unsqueeze(2).expand(-1, -1, len(modalities), -1))]
    if len(modalities) > 1:
        others = (pattern & ~single).repeat(DRAWS, 1)  # one subset per draw, so that encoders run only once
        predicted = model.infer(batch, others, generator).unflatten(1, (DRAWS, len(single)))  # (B, K, P, F)
        if any(block.owner for block in model.layout) and density.conditional:
            predicted = _completed(model, density, predicted, pattern & ~single, generator)
        cells.append(_cell_surprisals(model, modalities, batch, predicted.transpose(0, 1)))
    totals = [torch.stack([_total(by_name[m.name]) for m in modalities], 1) for by_name in cells]
    known = [observed_blocks(model, observed.unsqueeze(0))[0] for observed in (pattern, *single)]
    scores = [_code_log_prob(model, density, z[:, :, place], blocks) for place, blocks in enumerate(known)]
    means = [z[:, :, place].mean(0)[:, coordinates(model.layout, blocks)] for place, blocks in enumerate(known)]
    featured = [m.name for m in modalities if m.tabular]
    surprisals = {"reconstruction": totals[0], "inconsistency": totals[1] if len(totals) > 1 else totals[0][:, :0]}
    surprisals |= {"code": -torch.stack(scores, 1)} | {f"code.{place}": mean for place, mean in enumerate(means)}
    surprisals |= {f"cells.{name}": torch.stack([by_name[name] for by_name in cells], 1) for name in featured}
    return {name: values.double().numpy() for name, values in surprisals.items()}


def _completed(
    model: Autoencoder, density: Density, codes: Tensor, patterns: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw the private codes that each of P patterns of modalities (P, M) lacks, given the others: (B, K, P, D)."""
    codes = codes.nan_to_num(FARTHEST, FARTHEST, -FARTHEST).clamp(-FARTHEST, FARTHEST)
    drawn = []
    for place, known in enumerate(observed_blocks(model, patterns)):
        given = split_blocks(model.layout, codes[:, :, place].flatten(0, 1), known)
        drawn.append(density.condition(given, generator).loc[:, 0].to(codes).unflatten(0, codes.shape[:2]))
    return torch.stack(drawn, 2)


def _cell_surprisals(
    model: Autoencoder, modalities: list[Modality], batch: Batch, latents: Tensor
) -> dict[str, Tensor]:
    """−log p of each value of P modalities, averaged over latents (K, B, P, F): name → (B, *shape), NaN if missing."""
    surprisals = {}
    for place, m in enumerate(modalities):
        values = batch.data[m.name]
        mean = torch.zeros_like(values)
        for draw in latents[:, :, place]:
            mean -= model.decode_one(m, draw).elementwise_log_prob(values) / len(latents)
        mean = mean.nan_to_num(LARGEST, LARGEST, -LARGEST).clamp(-LARGEST, LARGEST)
        surprisals[m.name] = mean.masked_fill(~batch.cells[m.name], torch.nan) if m.name in batch.cells else mean
    return surprisals


def _total(cells: Tensor) -> Tensor:
    """Sum over values (B, *shape), with missing values replaced by the mean of the observed ones: (B,)."""
    return cells.flatten(1).double().nanmean(1) * cells[0].numel()


def _code_log_prob(model: Autoencoder, density: Density, z: Tensor, known: Tensor) -> Tensor:
    """Return log f of the known blocks of codes (K, B, D), averaged over draws: (B,).

    A density that cannot marginalise over the other blocks scores the full vector; these blocks follow the prior.
    """
    flat = z.flatten(0, 1)
    if bool(known.all()) or not density.marginal:
        log_prob = density.log_prob(flat)
    else:
        log_prob = density.log_marginal(split_blocks(model.layout, flat, known))
    mean = log_prob.double().unflatten(0, z.shape[:2]).mean(0)
    return mean.nan_to_num(-LARGEST, LARGEST, -LARGEST).clamp(-LARGEST, LARGEST)
