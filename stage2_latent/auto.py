"""Selection among several densities by their scores on held-out codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from postprior.stage2_latent import DENSITIES
from postprior.stage2_latent.density import Density
from postprior.stage2_latent.draws import Draws
from postprior.stage2_latent.nested import gather, rebuild
from postprior.stage2_latent.options import integer
from postprior.stage2_latent.task import PartialEncoder, Record, Task

ROWS = 2000
"""Maximum number of held-out rows for energy distances, whose cost grows with the square of the rows."""
DEFAULT = ("gaussian", "gmm", "vamp", "flow", "flow_matching")
"""Densities that store no training codes and have an exact score, in order of increasing complexity."""
CAPABILITIES = (
    "exact_log_prob",
    "bound",
    "conditional",
    "marginal",
    "labelled",
    "stores_training_codes",
    "proposals",
)


@dataclass(frozen=True, eq=False)
class Trial:
    """The scores of a candidate on held-out codes.

    Args:
        name: name of the candidate.
        log_prob: (N,) log p(z | y) of each held-out row; None without an exact score.
        energy: (n,) terms whose mean is the energy distance between draws and held-out codes.
    """

    name: str
    log_prob: Tensor | None
    energy: Tensor

    def summary(self) -> dict[str, Any]:
        """Return the means with their standard errors, JSON-serialisable."""
        distance, error = estimate(self.energy, order=2)
        row = {"density": self.name, "energy_distance": distance, "energy_distance_error": error}
        if self.log_prob is not None:
            row["log_likelihood"], row["log_likelihood_error"] = estimate(self.log_prob)
        return row


class Auto(Density):
    """p* = argmax_p Σ log p(z | y) over candidates p and held-out codes: fits all candidates and becomes the best one.

    All candidates are fitted to the same rows and scored on the same posterior draws of the same held-out rows, in the
    units of the codes. A density without labels is scored by log p(z) for every label. There are two selection rules:

    1. Among the candidates with an exact score, select the first in the list whose mean log-likelihood is within one
       standard error of the highest. The error is that of the paired difference over rows. List simpler candidates
       first.
    2. A candidate without an exact score replaces the selected one if its draws are closer to held-out codes by more
       than one standard error of the difference. Closeness is measured by the energy distance 2 E|x − z| − E|x − x′| −
       E|z − z′| (Székely & Rizzo 2013, doi 10.1016/j.jspi.2013.03.018) between whitened held-out codes and the same
       number of draws with the same labels.

    A candidate that cannot be fitted is listed with the reason.

    Args:
        candidates: names of densities, or a mapping from names to options.
        draws: number of posterior draws per held-out row over which log-likelihoods are averaged.

    Attributes:
        chosen: the selected density.
        scores: one row per candidate, in the order of the list.
        why: the reason for the selection, in one sentence.
    """

    name = "auto"
    semi_supervised = True  # its candidates decide

    chosen: Density
    scores: list[dict[str, Any]]
    why: str

    def __init__(
        self,
        *,
        candidates: Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT,
        draws: int = 4,
    ) -> None:
        super().__init__()
        if not isinstance(candidates, Mapping | list | tuple) or not candidates:
            raise ValueError(
                f"option candidates: found {candidates!r}, expected names of densities, or names with options"
            )
        names = [name for name in DENSITIES if name != self.name]
        for name in candidates:
            if name not in names:
                raise ValueError(f"option candidates: found {name!r}, expected some of {', '.join(names)}")
        options = candidates if isinstance(candidates, Mapping) else {name: {} for name in candidates}
        self.candidates = {name: DENSITIES[name](**given) for name, given in options.items()}
        self.draws = integer("draws", draws)

    @property
    def checks(self) -> int:
        return sum(candidate.checks for candidate in self.candidates.values())

    def _fit(self, task: Task) -> None:
        generator = task.generator
        held_out = HeldOut(task.validation, self.draws, generator)
        seeds = torch.randint(2**31, (len(self.candidates),), generator=generator).tolist()
        rows = torch.cat([task.train.rows, task.train.unlabelled])
        table = task.train.codes.select(rows)
        encoder = None if task.encoder is None else PartialEncoder(task.encoder, rows)
        trials, reasons = [], {}
        for place, (name, candidate) in enumerate(self.candidates.items()):
            candidate_generator = torch.Generator(generator.device).manual_seed(seeds[place])
            progress = self._relay(task.record, place)
            try:
                candidate.fit(table, held_out.codes, candidate_generator, encoder, progress)
                trials.append(held_out.trial(candidate, candidate_generator))
            except ValueError as error:
                reasons[name] = str(error)
        if not trials:
            raise ValueError(f"density auto: no candidate could be fitted: {'; '.join(reasons.values())}")
        name, self.why = choose(trials)
        summaries = {trial.name: trial.summary() for trial in trials}
        self.scores = [summaries.get(name) or {"density": name, "failed": reasons[name]} for name in self.candidates]
        self._adopt(self.candidates[name])
        left_out = self.chosen.rows["left_out"]  # rows with missing blocks or without a label
        totals = {"used": self.rows["used"] - left_out, "left_out": self.rows["left_out"] + left_out}
        self.rows = self.chosen.rows | totals | ({} if left_out else {"incomplete": self.rows["incomplete"]})

    def _relay(self, record: Record, place: int) -> Any:
        """Return a progress callback that records the passes of a candidate, with the index of the candidate."""
        shift = float(self.whitening.log_det)  # the candidate's rows include it, and `record` adds it

        def relay(row: dict[str, float]) -> None:
            extra = dict(row, candidate=place)
            train, validation = extra.pop("train_log_likelihood"), extra.pop("validation_log_likelihood")
            del extra["step"]
            record(train=train - shift, validation=validation - shift, **extra)

        return relay

    def _adopt(self, chosen: Density) -> None:
        """Take over the density, with its capabilities, whitening and classes."""
        self.chosen = chosen
        self.whitening, self.classes = chosen.whitening, chosen.classes
        for capability in CAPABILITIES:
            setattr(self, capability, getattr(chosen, capability))

    def _levels(self, held_out: Draws, generator: torch.Generator) -> Tensor:
        return self.chosen.levels  # indexed by the classes of the chosen density, which may differ

    def estimate_log_prob(self, z: Tensor, generator: torch.Generator) -> Tensor:
        return self.chosen.estimate_log_prob(z, generator)

    def _log_prob(self, x: Tensor, index: int) -> Tensor:
        return self.chosen._log_prob(x, index)

    def _sample(self, classes: Tensor, generator: torch.Generator, temperature: float) -> Tensor:
        return self.chosen._sample(classes, generator, temperature)

    def _condition(
        self, z: Tensor, known: Tensor, classes: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        return self.chosen._condition(z, known, classes, generator)

    def _marginal(self, z: Tensor, known: Tensor, classes: Tensor | None) -> Tensor:
        return self.chosen._marginal(z, known, classes)

    def _floats_per_row(self) -> int:
        return self.chosen._floats_per_row()

    def _tensors(self) -> dict[str, Tensor]:
        return gather({"chosen": self.chosen})[0]

    def _learned(self) -> dict[str, Any]:
        return gather({"chosen": self.chosen})[1] | {"scores": self.scores, "why": self.why}

    def _restore(self, tensors: Mapping[str, Tensor], learned: Mapping[str, Any]) -> None:
        self.scores, self.why = list(learned["scores"]), learned["why"]
        self._adopt(rebuild(tensors, {"chosen": learned["chosen"]})["chosen"])


class HeldOut:
    """Held-out rows, with the same posterior draws for every candidate.

    Args:
        draws: draws of the held-out rows.
        times: number of draws per row.
        generator: source of all random numbers.
    """

    def __init__(self, draws: Draws, times: int, generator: torch.Generator) -> None:
        self.codes, self.whitening = draws.table(), draws.whitening
        self.z = [self.whitening.inverse(draws.draw(generator)) for _ in range(times)]  # each (N, D)
        self.rows = torch.randperm(len(draws), generator=generator)[:ROWS]

    @torch.no_grad()
    def trial(self, candidate: Density, generator: torch.Generator) -> Trial:
        """Score a candidate by its log-likelihood, if exact, and by the energy distance of draws to held-out codes."""
        labels = self.codes.labels if candidate.classes.labelled else None
        scores = None
        if candidate.exact_log_prob:
            scores = torch.stack([candidate.log_prob(z, labels) for z in self.z]).double().mean(0)
            if not bool(scores.isfinite().all()):
                raise ValueError(f"density {candidate.name}: the scores of held-out codes are not finite")
        drawn_labels = None if labels is None else labels[self.rows]
        drawn = candidate.sample(len(self.rows), generator, drawn_labels).loc[:, 0]
        x, y = (self.whitening.forward(z).double() for z in (drawn, self.z[0][self.rows]))
        return Trial(candidate.name, scores, energy_terms(x, y))


def choose(trials: Sequence[Trial]) -> tuple[str, str]:
    """Return the name of the candidate that the two rules select, and the reason in one sentence."""
    scores = {trial.name: trial.log_prob for trial in trials if trial.log_prob is not None}
    closeness = {trial.name: -trial.energy for trial in trials}
    unscored = {name: terms for name, terms in closeness.items() if name not in scores}
    if not scores:
        chosen, why = first_of_best(unscored, "lowest", "energy distance to held-out codes", order=2)
        return chosen, f"{why}; no candidate has an exact score"
    chosen, why = first_of_best(scores, "highest", "held-out log-likelihood", order=1, unit=" nats")
    if not unscored:
        return chosen, why
    rival, _ = first_of_best(unscored, "lowest", "energy distance to held-out codes", order=2)
    gain, error = estimate(closeness[rival] - closeness[chosen], order=2)
    difference = f"their energy distance is lower by {gain:.3f} ± {error:.3f}"
    if gain <= error:
        return chosen, f"{why}; draws of {rival}, which has no exact score, are not clearly closer: {difference}"
    return (
        rival,
        f"{rival} has no exact score, but its draws are closer to held-out codes than those of {chosen}: "
        f"{difference}; {why}",
    )


def first_of_best(terms: Mapping[str, Tensor], rank: str, score: str, order: int, unit: str = "") -> tuple[str, str]:
    """Return the first name whose mean is within one standard error of the highest, and the reason in a sentence.

    Args:
        terms: terms of a score by name of the candidate, where higher is better.
        rank: `highest` or `lowest`, the best value of the score as it is reported.
        score: name of the score.
        order: order of the U-statistic.
        unit: unit of the score.
    """
    best = max(terms, key=lambda name: float(terms[name].mean()))
    gaps = {name: estimate(terms[best] - terms[name], order) for name in terms}
    chosen = next(name for name, (gap, error) in gaps.items() if gap <= error)
    texts = {name: f"{gap:.3f} ± {error:.3f}{unit}" for name, (gap, error) in gaps.items()}
    if chosen != best:
        return (
            chosen,
            f"{best} has the {rank} {score}, but {chosen} comes earlier in the list and is only {texts[chosen]} worse",
        )
    margins = ", ".join(f"{text} better than {name}" for name, text in texts.items() if name != best)
    if not margins:
        return best, f"{best} is the only candidate compared by {score}"
    return best, f"{best} has the {rank} {score}, {margins}"


def energy_terms(x: Tensor, y: Tensor) -> Tensor:
    """Return terms rᵢ (n,) whose mean is the unbiased energy distance of x to y, (n, D) each.

    rᵢ = meanⱼ≠ᵢ |xᵢ − yⱼ| + |xⱼ − yᵢ| − |xᵢ − xⱼ| − |yᵢ − yⱼ|: a U-statistic over pairs (xᵢ, yᵢ).
    """
    cross = torch.cdist(x, y)
    kernel = cross + cross.T - torch.cdist(x, x) - torch.cdist(y, y)
    return kernel.fill_diagonal_(0).sum(1) / max(1, len(x) - 1)


def estimate(terms: Tensor, order: int = 1) -> tuple[float, float]:
    """Return the mean and the standard error of a U-statistic of the given order with these terms."""
    return float(terms.mean()), order * float(terms.std(correction=0)) / len(terms) ** 0.5
