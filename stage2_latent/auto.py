"""The choice among densities, by what held-out codes say of them."""

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
"""Held-out rows, at most, that energy distances are taken between: the cost grows with their square."""
DEFAULT = ("gaussian", "gmm", "vamp", "flow", "flow_matching")
"""What stores no training codes and has an exact score, the simpler ones first."""
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
    """What held-out codes say of a candidate.

    Args:
        name: the candidate.
        log_prob: (N,) log p(z | y) of each held-out row; None without an exact score.
        energy: (n,) terms whose mean is its energy distance to held-out codes.
    """

    name: str
    log_prob: Tensor | None
    energy: Tensor

    def summary(self) -> dict[str, Any]:
        """Means with their standard errors, JSON-able."""
        distance, error = estimate(self.energy, order=2)
        row = {"density": self.name, "energy_distance": distance, "energy_distance_error": error}
        if self.log_prob is not None:
            row["log_likelihood"], row["log_likelihood_error"] = estimate(self.log_prob)
        return row


class Auto(Density):
    """p* = argmax_p Σ log p(z | y) over candidates p and held-out codes: fits them all, and is the one chosen.

    All candidates are fitted to the same rows and scored on the same posterior draws of the same held-out rows, in the
    units of the codes; a density that knows no labels says log p(z) whatever the label. Two rules choose:

    1. Among candidates with an exact score, the first in the list whose mean log-likelihood is within one standard
       error of the highest: of the difference, over rows. So list simpler ones first.
    2. A candidate without one takes its place when its draws are nearer to held-out codes by more than one standard
       error of the difference. Near is the energy distance 2 E|x − z| − E|x − x′| − E|z − z′| (Székely & Rizzo 2013,
       doi 10.1016/j.jspi.2013.03.018) between held-out codes and as many draws of the same labels, whitened.

    A candidate that cannot be fitted is listed with the reason.

    Args:
        candidates: names of densities, or names with their options.
        draws: posterior draws of every held-out row that log-likelihoods are averaged over.

    Attributes:
        chosen: the candidate that it is.
        scores: one row a candidate, in the order of the list.
        why: a sentence.
    """

    name = "auto"

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
        known = [name for name in DENSITIES if name != self.name]
        for name in candidates:
            if name not in known:
                raise ValueError(f"option candidates: found {name!r}, expected some of {', '.join(known)}")
        options = candidates if isinstance(candidates, Mapping) else {name: {} for name in candidates}
        self.candidates = {name: DENSITIES[name](**given) for name, given in options.items()}
        self.draws = integer("draws", draws)

    def _fit(self, task: Task) -> None:
        generator = task.generator
        held_out = HeldOut(task.validation, self.draws, generator)
        seeds = torch.randint(2**31, (len(self.candidates),), generator=generator).tolist()
        view = None if task.encoder is None else PartialEncoder(task.encoder, task.train.rows)
        trials, reasons = [], {}
        for place, (name, candidate) in enumerate(self.candidates.items()):
            own = torch.Generator(generator.device).manual_seed(seeds[place])
            relay = self._relay(task.record, place)
            try:
                candidate.fit(task.train.table(), held_out.codes, own, view, relay)
                trials.append(held_out.trial(candidate, own))
            except ValueError as error:
                reasons[name] = str(error)
        if not trials:
            raise ValueError(f"density auto: no candidate could be fitted: {'; '.join(reasons.values())}")
        name, self.why = choose(trials)
        tried = {trial.name: trial.summary() for trial in trials}
        self.scores = [tried.get(name) or {"density": name, "failed": reasons[name]} for name in self.candidates]
        self._adopt(self.candidates[name])
        if left := self.chosen.rows["left_out"]:  # it can't learn from rows that lack blocks
            out = self.rows["left_out"] + left
            self.rows = {"used": self.rows["used"] - left, "left_out": out, "incomplete": 0}

    def _relay(self, record: Record, place: int) -> Any:
        """Notes the passes of a candidate as its own, with the place of the candidate in the list."""
        shift = float(self.whitening.log_det)  # their rows have it, and `record` adds it

        def relay(row: dict[str, float]) -> None:
            others = dict(row, candidate=place)
            fitted, scored = others.pop("train_log_likelihood"), others.pop("validation_log_likelihood")
            del others["step"]
            record(train=fitted - shift, validation=scored - shift, **others)

        return relay

    def _adopt(self, chosen: Density) -> None:
        """Can what the density can, and sees codes as it does."""
        self.chosen = chosen
        self.whitening, self.classes = chosen.whitening, chosen.classes
        for capability in CAPABILITIES:
            setattr(self, capability, getattr(chosen, capability))

    def _levels(self, held_out: Draws, generator: torch.Generator) -> Tensor:
        return self.chosen.levels  # held out as the chosen one saw it: its classes may be others than those here

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
    """The same draws of the same held-out rows, for every candidate.

    Args:
        draws: the rows.
        times: draws of each.
        generator: source of the draws.
    """

    def __init__(self, draws: Draws, times: int, generator: torch.Generator) -> None:
        self.codes, self.whitening = draws.table(), draws.whitening
        self.z = [self.whitening.inverse(draws.draw(generator)) for _ in range(times)]  # each (N, D)
        self.rows = torch.randperm(len(draws), generator=generator)[:ROWS]

    @torch.no_grad()
    def trial(self, candidate: Density, generator: torch.Generator) -> Trial:
        """Its log-likelihood of the draws, where it has one, and the distance of as many of its own to them."""
        labels = self.codes.labels if candidate.classes.labelled else None
        scores = None
        if candidate.exact_log_prob:
            scores = torch.stack([candidate.log_prob(z, labels) for z in self.z]).double().mean(0)
            if not bool(scores.isfinite().all()):
                raise ValueError(f"density {candidate.name}: scores of held-out codes are not finite")
        asked = None if labels is None else labels[self.rows]
        drawn = candidate.sample(len(self.rows), generator, asked).loc[:, 0]
        x, y = (self.whitening.forward(part).double() for part in (drawn, self.z[0][self.rows]))
        return Trial(candidate.name, scores, energy_terms(x, y))


def choose(trials: Sequence[Trial]) -> tuple[str, str]:
    """The name of the candidate that the two rules choose, and why, in a sentence."""
    scores = {trial.name: trial.log_prob for trial in trials if trial.log_prob is not None}
    nearness = {trial.name: -trial.energy for trial in trials}
    others = {name: terms for name, terms in nearness.items() if name not in scores}
    if not scores:
        chosen, why = first_of_best(others, order=2)
        return chosen, f"{why} as to how near draws come to held-out codes; none has an exact score"
    chosen, why = first_of_best(scores, order=1)
    why = f"{why} as to held-out log-likelihood in nats"
    if not others:
        return chosen, why
    rival, _ = first_of_best(others, order=2)
    gain, error = estimate(nearness[rival] - nearness[chosen], order=2)
    margin = f"by {gain:.3f} ± {error:.3f} in energy distance"
    if gain <= error:
        return chosen, f"{why}; draws of {rival}, which has no exact score, are not clearly nearer: {margin}"
    return (
        rival,
        f"{rival} has no exact score, and its draws are nearer than those of {chosen}, {margin}; {why}",
    )


def first_of_best(terms: Mapping[str, Tensor], order: int) -> tuple[str, str]:
    """The first name whose mean lies within one standard error of the highest, and half a sentence that says so."""
    best = max(terms, key=lambda name: float(terms[name].mean()))
    behind = {name: estimate(terms[best] - terms[name], order) for name in terms}
    chosen = next(name for name, (gap, error) in behind.items() if gap <= error)
    if chosen != best:
        gap, error = behind[chosen]
        return chosen, f"{chosen} stands before {best} and is behind it by {gap:.3f} ± {error:.3f} alone"
    rest = [f"{name} by {gap:.3f} ± {error:.3f}" for name, (gap, error) in behind.items() if name != best]
    return best, f"{best} is ahead of {', '.join(rest)}" if rest else f"{best} stands alone"


def energy_terms(x: Tensor, y: Tensor) -> Tensor:
    """Terms rᵢ (n,) whose mean is the unbiased energy distance of x to y, (n, D) each.

    rᵢ = meanⱼ≠ᵢ |xᵢ − yⱼ| + |xⱼ − yᵢ| − |xᵢ − xⱼ| − |yᵢ − yⱼ|: a U-statistic over pairs (xᵢ, yᵢ).
    """
    cross = torch.cdist(x, y)
    kernel = cross + cross.T - torch.cdist(x, x) - torch.cdist(y, y)
    return kernel.fill_diagonal_(0).sum(1) / max(1, len(x) - 1)


def estimate(terms: Tensor, order: int = 1) -> tuple[float, float]:
    """Mean and standard error of a U-statistic of that order with these terms."""
    return float(terms.mean()), order * float(terms.std(correction=0)) / len(terms) ** 0.5
