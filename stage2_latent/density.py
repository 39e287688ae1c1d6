"""The contract that every density of latent codes keeps."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor

from postprior.stage2_latent.categorical import draw_component
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.draws import Classes, Draws, split
from postprior.stage2_latent.layouts import join_blocks
from postprior.stage2_latent.moments import Whitening
from postprior.stage2_latent.stored import Stored
from postprior.stage2_latent.task import Encoder, Record, Task

Progress = Callable[[dict[str, float]], None]

FLOATS = 2**24
"""Numbers that a temporary of `log_prob` may hold: rows beyond are evaluated in further chunks."""
MAX_ROUNDS = 200
"""Times that draws are drawn again, at most, by truncation."""


class Density(Stored):
    """p(z), or p(z | label), over the code vector of all blocks at once: what replaces the autoencoder's prior.

    A final class names itself, declares what it can do, and fills in the hooks at the end; checks, labels,
    whitening with its log-determinant, chunking and the state are written here, once.

    - `fit` draws fresh posterior samples at every pass. A block that a row lacks is drawn given those it has, at every
      pass anew; a density that can't learn so leaves such rows out, and counts them. Codes with labels give one
      conditional density a label and p(label) as counted. Without validation codes a tenth of the rows is set apart.
    - `log_prob(z, labels)` is log p(z | label); without labels it is log p(z) = log Σ_y p(y) p(z | y), and gradients
      flow to z. It is normalised when `exact_log_prob` is declared, a lower bound of that when `bound` is; a density
      that declares neither has no score.
    - `sample(n, labels=…)` draws rows independently, the i-th for the i-th label asked for; without labels they are
      drawn from p(label) first. Codes drawn carry their labels where the density has labels.
    - `condition({block: values})` draws the other blocks given these, when `conditional` is declared, and
      `log_marginal` scores them, when `marginal` is.
    - `state()` gives plain tensors and a JSON-able dictionary, from which `from_state` rebuilds the density bit by bit.
    - Every random number comes from the generator handed in (None: a new one with seed 0); global ones are untouched.

    Constructor keywords are the options: unknown ones and impossible values raise a ValueError of one sentence, as does
    every other misuse.

    Attributes, beside those of `Stored`:
        history: one row a pass, {"step", "train_log_likelihood", "validation_log_likelihood", …}: means of
            log p(z | y) in nats.
    """

    # Capabilities: of a class, or of an object whose parts decide.
    exact_log_prob: bool = True
    """`log_prob` is a normalised density."""
    bound: bool = False
    """`log_prob` is a lower bound of a normalised density."""
    conditional: bool = False
    """`condition` is there."""
    marginal: bool = False
    """`log_marginal` is there."""
    labelled: bool = True
    """Learns p(z | label) from codes with labels."""
    incomplete: bool = True
    """Learns from rows that lack blocks."""
    needs_encoder: bool = False
    """`fit` must be handed an encoder."""
    stores_training_codes: bool = False
    """The state holds codes of training rows: it memorises, and says so."""
    proposals: int = 64
    """Posterior draws of a row that are worth scoring, at most, where several are chosen by their score."""
    whitens: bool = True
    """The hooks see whitened codes; otherwise the codes as they are."""

    history: list[dict[str, float]]

    def __init__(self) -> None:
        self.history = []

    # What users call

    def fit(
        self,
        codes: Codes,
        validation: Codes | None = None,
        generator: torch.Generator | None = None,
        encoder: Encoder | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fits the density to codes; `progress` is called with each new row of `history`."""
        generator = generator or torch.Generator().manual_seed(0)
        if self.needs_encoder and encoder is None:
            raise ValueError(f"density {self.name}: no encoder was given, expected fit(codes, encoder=…)")
        self._check_pair(codes, validation)
        usable = self._usable(codes)
        used = codes.select(usable)
        self.layout, self.history = codes.layout, []
        self.rows = {
            "used": len(used),
            "left_out": len(codes) - len(used),
            "incomplete": int((~used.complete).sum()),
        }
        self.classes = Classes.fit(used, self.labelled)
        like = codes.loc[0, 0]
        self.whitening = Whitening.fit(used) if self.whitens else Whitening.identity(like)
        train, held_out = split(codes, validation, self.classes, self.whitening, self._usable, generator)
        self._fit(Task(train, held_out, generator, encoder, self._recorder(progress)))
        self.levels = self._levels(held_out, generator)
        self._load(*self.state())  # the same memory layout as when it is loaded, hence the same bits
        return self

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(z | label) of codes (N, D), or log p(z) without labels: (N,)."""
        z = self._check_codes(z)
        if not (self.exact_log_prob or self.bound):
            raise ValueError(f"density {self.name}: has no score, expected one that has, such as gmm or flow")
        if labels is not None:
            classes = self.classes.resolve(labels, len(z))
            return self._log_prob_of_classes(self.whitening.forward(z), classes) + self.whitening.log_det
        return torch.cat([self._log_prob_over_classes(part) for part in z.split(self._rows_per_chunk())])

    def log_marginal(self, given: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        """log p of some blocks {name: (N, *shape)}, the others integrated out, given labels or over all: (N,)."""
        if not self.marginal:
            raise ValueError(f"density {self.name}: has no marginals, expected one that has, such as gmm")
        z, known, classes = self._parse_given(given, labels)
        parts = [slice(i, i + self._rows_per_chunk()) for i in range(0, len(z), self._rows_per_chunk())]
        return torch.cat([self._marginal(z[p], known, None if classes is None else classes[p]) for p in parts])

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        truncation: float = 0.0,
    ) -> Codes:
        """n independent draws, as empirical codes.

        Args:
            n: their number.
            generator: source of all noise.
            labels: (n,), the label of each draw; None draws them as often as in the data.
            temperature: factor in (0, 1] on the noise that draws are made of: lower is nearer to the modes.
            truncation: draws that are less likely under their label than this share of held-out codes are drawn again.
        """
        self._check_fitted()
        if n < 1:
            raise ValueError(f"density {self.name}: {n} samples asked for, expected 1 at least")
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature: found {temperature}, expected a number above 0, up to 1")
        if not 0 <= truncation < 1:
            raise ValueError(f"truncation: found {truncation}, expected a share from 0 to below 1")
        if truncation and not self.exact_log_prob:
            raise ValueError(f"truncation: density {self.name} has no exact score, expected truncation 0")
        generator = generator or torch.Generator().manual_seed(0)
        if labels is None:
            chosen = draw_component(
                self.classes.probabilities.unsqueeze(0), torch.zeros(n, dtype=torch.int64), generator
            )
        else:
            chosen = self.classes.resolve(labels, n)
        x = self._sample(chosen, generator, temperature)
        if truncation:
            x = self._truncated(x, chosen, generator, temperature, truncation)
        return self._as_codes(self.whitening.inverse(x), chosen)

    def condition(
        self,
        given: Mapping[str, Tensor],
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Codes:
        """One draw of the whole vector for each row of the blocks given, {name: (N, *shape)}, which it keeps."""
        self._check_fitted()
        if not self.conditional:
            raise ValueError(f"density {self.name}: cannot draw some blocks given others, expected gmm or vamp")
        z, known, asked = self._parse_given(given, labels)
        generator = generator or torch.Generator().manual_seed(0)
        drawn, chosen = self._condition(z, known, asked, generator)
        return self._as_codes(torch.where(known, z, drawn), chosen)

    # What a final class fills in. `x` are codes (n, D), whitened if `whitens`; classes are indices 0 … K − 1

    @abstractmethod
    def _fit(self, task: Task) -> None:
        """Learns p(x | class) of each class."""

    @abstractmethod
    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        """log p(x | class index), (n,)."""

    @abstractmethod
    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        """A draw x for each of the classes (n,), its noise times the temperature: (n, D)."""

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draws (n, D) given the coordinates of z marked in `known` (D,), not whitened, and their classes (n,)."""
        raise NotImplementedError

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        """log p of the coordinates of z (n, D) marked in `known` (D,), not whitened, of classes (n,) or any: (n,)."""
        raise NotImplementedError

    def _floats_per_row(self) -> int:
        """Numbers that `log_prob` holds at once for a row."""
        return len(self.whitening.loc)

    # Shared parts

    def _record_scores(self, task: Task) -> None:
        """Records the score of one draw of every row, where nothing is learned in passes."""
        train, validation = (
            self.mean_log_prob(*draws.repeated(1, task.generator)) for draws in (task.train, task.validation)
        )
        task.record(train=train, validation=validation)

    def mean_log_prob(self, x: Tensor, classes: Tensor) -> float:
        """Mean of log p(x | class) over rows of whitened codes, as `record` wants it."""
        with torch.no_grad():
            return float(self._log_prob_of_classes(x, classes).mean())

    def _rows_per_chunk(self) -> int:
        """Rows that are scored at once."""
        return max(1, FLOATS // self._floats_per_row())

    def _log_prob_over_classes(self, z: Tensor) -> Tensor:
        x = self.whitening.forward(z)
        joint = torch.stack([self._log_prob(x, index) for index in range(len(self.classes))], dim=-1)
        return (joint + self.classes.probabilities.log()).logsumexp(-1) + self.whitening.log_det

    def _log_prob_of_classes(self, x: Tensor, classes: Tensor) -> Tensor:
        """log p(x | class) of each row, evaluated class by class."""
        rows = [(index, part) for index in classes.unique().tolist() for part in self._row_chunks(classes == index)]
        values = torch.cat([self._log_prob(x[row], index) for index, row in rows])
        return values[torch.cat([row for _, row in rows]).argsort()]

    def _row_chunks(self, chosen: Tensor) -> tuple[Tensor, ...]:
        return chosen.nonzero().squeeze(-1).split(self._rows_per_chunk())

    def _usable(self, codes: Codes) -> Tensor:
        """Rows that are learned from, (N,) bool."""
        return codes.observed.any(-1) if self.incomplete else codes.complete

    @torch.no_grad()
    def _levels(self, held_out: Draws, generator: torch.Generator) -> Tensor:
        """Quantiles of log p(x | class) of held-out codes of each class, (K, 101); of all classes for those without."""
        like = held_out.codes.loc
        if not self.exact_log_prob:
            return like.new_zeros(len(self.classes), 0)
        share = torch.linspace(0, 1, 101).to(like)
        values = self._log_prob_of_classes(held_out.draw(generator), held_out.classes)
        own = [values[held_out.classes == index] for index in range(len(self.classes))]
        return torch.stack([(each if len(each) else values).quantile(share) for each in own])

    def _truncated(
        self, x: Tensor, classes: Tensor, generator: torch.Generator, temperature: float, share: float
    ) -> Tensor:
        """The same draws, those below the level of their class drawn again until none is left."""
        place = 100 * share
        below, above = self.levels[:, int(place)], self.levels[:, int(place) + 1]
        level = below.lerp(above, place - int(place))[classes]
        rows = torch.arange(len(x), device=x.device)
        for _ in range(MAX_ROUNDS):
            rows = rows[self._log_prob_of_classes(x[rows], classes[rows]) < level[rows]]
            if not len(rows):
                return x
            x[rows] = self._sample(classes[rows], generator, temperature)
        raise ValueError(
            f"truncation: found {share}, and after {MAX_ROUNDS} rounds {len(rows)} of {len(x)} draws are still less "
            "likely, expected a smaller share"
        )

    def _parse_given(self, given: Mapping[str, Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Code vectors of some blocks, the mask of their coordinates, and classes of labels."""
        self._check_fitted()
        z, known = join_blocks(self.layout, given)
        z = self._check_codes(z)
        return z, known, None if labels is None else self.classes.resolve(labels, len(z))

    def _recorder(self, progress: Progress | None) -> Record:
        def record(train: float, validation: float, **extra: float) -> None:
            shift = float(self.whitening.log_det)
            row = {
                "step": len(self.history) + 1,
                "train_log_likelihood": train + shift,
                "validation_log_likelihood": validation + shift,
                **extra,
            }
            self.history.append(row)
            if progress is not None:
                progress(row)

        return record

    def _as_codes(self, z: Tensor, classes: Tensor) -> Codes:
        labels = self.classes.labels[classes] if self.classes.labelled else None
        return Codes.empirical(self.layout, z, labels, self.classes.names)

    # Checks

    def _check_pair(self, codes: Codes, validation: Codes | None) -> None:
        if (usable := int(self._usable(codes).sum())) < 2:
            blocks = "a block" if self.incomplete else "every block"
            raise ValueError(
                f"density {self.name}: {usable} rows of the codes have {blocks} observed, expected 2 at least: "
                "encode more rows"
            )
        if validation is not None and validation.layout != codes.layout:
            raise ValueError(
                f"density {self.name}: validation codes have the blocks {validation.layout}, "
                f"expected those of the training codes, {codes.layout}"
            )

    def _check_codes(self, z: Tensor) -> Tensor:
        self._check_fitted()
        D = len(self.whitening.loc)
        if z.ndim != 2 or z.shape[1] != D or not len(z):
            raise ValueError(f"density {self.name}: codes have shape {tuple(z.shape)}, expected (N, {D})")
        if not bool(z.isfinite().all()):
            raise ValueError(f"density {self.name}: codes hold NaN or infinity, expected finite numbers")
        return z.to(self.whitening.loc)
