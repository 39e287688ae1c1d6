"""The base class of all densities over latent codes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from postprior.stage2_latent.categorical import draw_component
from postprior.stage2_latent.clusters import clustered
from postprior.stage2_latent.codes import Codes
from postprior.stage2_latent.draws import Classes, Draws, split
from postprior.stage2_latent.layouts import join_blocks
from postprior.stage2_latent.moments import Whitening
from postprior.stage2_latent.stored import Stored
from postprior.stage2_latent.task import Encoder, Record, Task

Progress = Callable[[dict[str, float]], None]

FLOATS = 2**24
"""Maximum number of floats in a temporary tensor of `log_prob`; more rows are evaluated in chunks."""
QUANTILES = 101
"""Number of quantiles of the scores of held-out codes, from 0 to 1."""
MAX_ROUNDS = 200
"""Maximum number of times that truncation redraws samples."""


class Density(Stored):
    """Joint density p(z), or p(z | label), over the code vector of all blocks; replaces the autoencoder's prior.

    A final class sets its name and capabilities and implements the abstract methods below. This base class implements
    the checks, labels, whitening with its log-determinant, chunking and the state.

    - `fit` draws fresh posterior samples in every pass. A missing block of a row is drawn given its observed blocks,
      again in every pass. A density that cannot learn this way leaves such rows out and counts them. Codes with labels
      give one conditional density per label, with p(label) from label frequencies. Rows without a label, among others
      that have one, are counted; they are left out unless the density is `semi_supervised`. Without validation codes, a
      tenth of the rows is held out.
    - `log_prob(z, labels)` returns log p(z | label); without labels it returns log p(z) = log Σ_y p(y) p(z | y).
      Gradients flow to z. The value is normalised if `exact_log_prob` is true, and a lower bound of the normalised
      value if `bound` is true. A density with neither has no score.
    - `sample(n, labels=…)` draws independent rows, the i-th given the i-th label. Without `labels`, labels are drawn
      from p(label) first. The samples carry their labels if the density has labels.
    - `condition({block: values})` draws the other blocks given these, if `conditional` is true. `log_marginal` scores
      the given blocks, if `marginal` is true.
    - `state()` returns plain tensors and a JSON-serialisable dictionary; `from_state` rebuilds the density from them
      bit for bit.
    - All random numbers come from the generator that the caller passes (None: a new generator with seed 0). Global
      generators are not touched.

    The keywords of the constructor are the options. Unknown options, invalid values and every other misuse raise a
    ValueError with a message of one sentence.

    Attributes, in addition to those of `Stored`:
        history: one row per pass, {"step", "train_log_likelihood", "validation_log_likelihood", …}, with means of
            log p(z | y) in nats.
    """

    # Capabilities, set per class, or per object if they depend on the densities that it contains.
    exact_log_prob: bool = True
    """Whether `log_prob` is a normalised log-density."""
    bound: bool = False
    """Whether `log_prob` is a lower bound of a normalised log-density."""
    conditional: bool = False
    """Whether `condition` is available."""
    marginal: bool = False
    """Whether `log_marginal` is available."""
    labelled: bool = True
    """Whether codes with labels give p(z | label)."""
    semi_supervised: bool = False
    """Whether p(z | label) is also learned from rows without a label, whose label is inferred."""
    incomplete: bool = True
    """Whether the density learns from rows with missing blocks."""
    needs_encoder: bool = False
    """Whether `fit` needs an encoder."""
    fewest_rows: int = 10
    """Minimum number of rows of a fit: from fewer, variances are too uncertain for any score."""
    stores_training_codes: bool = False
    """Whether the state holds codes of training rows, so that the density memorises them."""
    proposals: int = 64
    """Maximum number of posterior draws per row to score when draws are selected by their score."""
    clusters: int = 1
    """Maximum number of clusters, with a conditional density each, if codes have no labels."""
    whitens: bool = True
    """Whether the abstract methods get whitened codes; otherwise they get the codes unchanged."""

    history: list[dict[str, float]]

    def __init__(self) -> None:
        self.history = []

    # Public methods

    @property
    def checks(self) -> int:
        """The largest number of rows of `history` after a fit; one that stops early has fewer."""
        return 1

    def fit(
        self,
        codes: Codes,
        validation: Codes | None = None,
        generator: torch.Generator | None = None,
        encoder: Encoder | None = None,
        progress: Progress | None = None,
    ) -> Self:
        """Fit the density to codes; `progress` is called with each new row of `history`."""
        generator = generator or torch.Generator().manual_seed(0)
        if self.needs_encoder and encoder is None:
            raise ValueError(f"density {self.name}: no encoder was given, expected one: call fit(codes, encoder=…)")
        usable = self._usable(codes)
        self.classes = Classes.fit(codes.select(usable), self.labelled)
        if self.clusters > 1 and not self.classes.labelled:
            codes, validation, self.classes = clustered(codes, validation, self._usable, self.clusters, generator)
        unlabelled = usable & (self.classes.of(codes) < 0)
        used = codes.select(usable if self.semi_supervised else usable & ~unlabelled)
        self._check_pair(codes, used, validation)
        self.layout, self.history = codes.layout, []
        self.rows = {
            "used": len(used),
            "left_out": len(codes) - len(used),
            "incomplete": int((~used.complete).sum()),
        }
        if bool(unlabelled.any()):
            self.rows["inferred" if self.semi_supervised else "unlabelled"] = int(unlabelled.sum())
        like = codes.loc[0, 0]
        self.whitening = Whitening.fit(used) if self.whitens else Whitening.identity(like)
        train, held_out = split(codes, validation, self.classes, self.whitening, self._usable, generator)
        self._fit(Task(train, held_out, generator, encoder, self._recorder(progress)))
        self.levels = self._levels(held_out, generator)
        self._load(*self.state())  # same memory layout as a loaded density, hence the same bits
        return self

    def log_prob(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log p(z | label) of codes (N, D), or log p(z) without labels; shape (N,)."""
        z = self._check_codes(z)
        if not (self.exact_log_prob or self.bound):
            raise ValueError(f"density {self.name}: has no score, expected a density with one, such as gmm or flow")
        if labels is not None:
            classes = self.classes.resolve(labels, len(z))
            return self._log_prob_of_classes(self.whitening.forward(z), classes) + self.whitening.log_det
        return torch.cat([self._log_prob_over_classes(chunk) for chunk in z.split(self._rows_per_chunk())])

    def estimate_log_prob(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """Return the log of an unbiased estimate of p(z) for codes (N, D), shape (N,).

        It serves as a weight in importance resampling. The estimate is `log_prob` itself if that is cheap.
        """
        return self.log_prob(z)

    def log_marginal(self, given: Mapping[str, Tensor], labels: Tensor | None = None) -> Tensor:
        """Return the marginal log p of blocks {name: (N, *shape)}, given labels or over all labels; shape (N,)."""
        if not self.marginal:
            raise ValueError(f"density {self.name}: has no marginals, expected a density with marginals, such as gmm")
        z, known, classes = self._parse_given(given, labels)
        chunks = [slice(i, i + self._rows_per_chunk()) for i in range(0, len(z), self._rows_per_chunk())]
        return torch.cat(
            [self._marginal(z[rows], known, None if classes is None else classes[rows]) for rows in chunks]
        )

    def sample(
        self,
        n: int,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
        temperature: float = 1.0,
        truncation: float = 0.0,
    ) -> Codes:
        """Return n independent samples as empirical codes.

        Args:
            n: number of samples.
            generator: source of all random numbers.
            labels: (n,), the label of each sample; None draws labels from p(label), their frequencies in the data.
            temperature: factor in (0, 1] on the noise of each sample; lower values give samples nearer to the modes.
            truncation: share q of held-out codes; a sample whose log p(z | label) is below the q-quantile of held-out
                codes with its label is drawn again.
        """
        self._check_fitted()
        if n < 1:
            raise ValueError(f"density {self.name}: found n = {n} samples, expected at least 1")
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature: found {temperature}, expected a number above 0 and at most 1")
        if not 0 <= truncation < 1:
            raise ValueError(f"truncation: found {truncation}, expected a share of at least 0 and below 1")
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
        """Draw one code vector for each row of the given blocks {name: (N, *shape)}; these blocks keep their values."""
        self._check_fitted()
        if not self.conditional:
            raise ValueError(
                f"density {self.name}: has no conditional draws, expected a density with them, such as gmm or vamp"
            )
        z, known, classes = self._parse_given(given, labels)
        generator = generator or torch.Generator().manual_seed(0)
        drawn, chosen = self._condition(z, known, classes, generator)
        return self._as_codes(torch.where(known, z, drawn), chosen)

    # To be implemented by a final class. `x` are codes (n, D), whitened if `whitens`; classes are indices 0 … K − 1

    @abstractmethod
    def _fit(self, task: Task) -> None:
        """Learn p(x | class) for each class."""

    @abstractmethod
    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        """Return log p(x | class index), shape (n,)."""

    @abstractmethod
    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        """Draw x for each of the classes (n,), with its noise multiplied by the temperature; shape (n, D)."""

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw (n, D) given the coordinates of z marked in `known` (D,), not whitened; also return the classes (n,)."""
        raise NotImplementedError

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        """Return the log p of the coordinates of z (n, D) marked in `known` (D,), not whitened; shape (n,).

        It is conditional on classes (n,), or summed over all classes if `classes` is None.
        """
        raise NotImplementedError

    def _floats_per_row(self) -> int:
        """Number of floats that `log_prob` holds per row."""
        return len(self.whitening.loc)

    # Shared by all densities

    def _record_scores(self, task: Task) -> None:
        """Record the mean score of one draw per row; for densities that are not learned in passes."""
        train, validation = (
            self.mean_log_prob(*draws.repeated(1, task.generator)) for draws in (task.train, task.validation)
        )
        task.record(train=train, validation=validation)

    def mean_log_prob(self, x: Tensor, classes: Tensor) -> float:
        """Return the mean of log p(x | class) over rows of whitened codes, as `record` expects it.

        If classes are clusters, it is the mean of log p(x, class), a lower bound of log p(x).
        """
        share = classes.new_zeros(()) if self.classes.labelled else self.classes.probabilities[classes].log()
        with torch.no_grad():
            return float((self._log_prob_of_classes(x, classes) + share).mean())

    def _rows_per_chunk(self) -> int:
        """Number of rows that are scored at once."""
        return max(1, FLOATS // self._floats_per_row())

    def _log_prob_over_classes(self, z: Tensor) -> Tensor:
        x = self.whitening.forward(z)
        joint = torch.stack([self._log_prob(x, index) for index in range(len(self.classes))], dim=-1)
        return (joint + self.classes.probabilities.log()).logsumexp(-1) + self.whitening.log_det

    def _log_prob_of_classes(self, x: Tensor, classes: Tensor) -> Tensor:
        """Return log p(x | class) of each row, evaluated class by class."""
        rows = [(index, chunk) for index in classes.unique().tolist() for chunk in self._row_chunks(classes == index)]
        values = torch.cat([self._log_prob(x[row], index) for index, row in rows])
        return values[torch.cat([row for _, row in rows]).argsort()]

    def _row_chunks(self, chosen: Tensor) -> tuple[Tensor, ...]:
        return chosen.nonzero().squeeze(-1).split(self._rows_per_chunk())

    def _load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        super()._load(tensors, meta)
        if self.exact_log_prob and self.levels.shape[1] != QUANTILES:
            raise ValueError(f"tensor levels has {self.levels.shape[1]} quantiles, expected {QUANTILES}")

    def _usable(self, codes: Codes) -> Tensor:
        """Return the mask of the rows that the density can learn from, (N,) bool."""
        return codes.observed.any(-1) if self.incomplete else codes.complete

    @torch.no_grad()
    def _levels(self, held_out: Draws, generator: torch.Generator) -> Tensor:
        """Return quantiles of log p(x | class) of held-out codes of each class, (K, QUANTILES).

        A class without held-out codes gets the quantiles over all classes.
        """
        like = held_out.codes.loc
        if not self.exact_log_prob:
            return like.new_zeros(len(self.classes), 0)
        share = torch.linspace(0, 1, QUANTILES).to(like)
        values = self._log_prob_of_classes(held_out.draw(generator), held_out.classes)
        by_class = [values[held_out.classes == index] for index in range(len(self.classes))]
        return torch.stack([(of_class if len(of_class) else values).quantile(share) for of_class in by_class])

    def _truncated(
        self, x: Tensor, classes: Tensor, generator: torch.Generator, temperature: float, share: float
    ) -> Tensor:
        """Redraw the draws below the level of their class, until none is left; return all draws."""
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
            f"truncation: found {share}, for which {len(rows)} of {len(x)} samples are still below the level after "
            f"{MAX_ROUNDS} rounds, expected a smaller share"
        )

    def _parse_given(self, given: Mapping[str, Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the code vectors of the given blocks, the mask of their coordinates, and the classes of the labels."""
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

    def _check_pair(self, codes: Codes, used: Codes, validation: Codes | None) -> None:
        if len(used) < self.fewest_rows:
            blocks = "at least one observed block" if self.incomplete else "all blocks observed"
            blocks += "" if self.semi_supervised or not self.classes.labelled else " and a label"
            raise ValueError(
                f"density {self.name}: {len(used)} rows of codes have {blocks}, expected at least {self.fewest_rows}: "
                "encode more rows"
            )
        if validation is not None and validation.layout != codes.layout:
            raise ValueError(
                f"density {self.name}: validation codes have the blocks {validation.layout}, "
                f"expected the blocks of the training codes, {codes.layout}"
            )

    def _check_codes(self, z: Tensor) -> Tensor:
        self._check_fitted()
        D = len(self.whitening.loc)
        if z.ndim != 2 or z.shape[1] != D or not len(z):
            raise ValueError(f"density {self.name}: codes have shape {tuple(z.shape)}, expected (N, {D})")
        if not bool(z.isfinite().all()):
            raise ValueError(f"density {self.name}: codes hold NaN or infinity, expected finite numbers")
        return z.to(self.whitening.loc)
