"""The scores of the leaderboard: where they stand in a row, and what they say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score of the leaderboard.

    Args:
        key: its name in files of the comparison.
        title: its name for readers.
        decimals: places after the point.
        better: what a reader should prefer, "higher" or "lower"; "" where neither is better by itself.
        about: what it measures, in a phrase.
        share: whether it lies between 0 and 1.
        question: which it answers: "faithful", "useful" or "leaks".
        place: nested keys in a row's scores; the key alone if none.
    """

    key: str
    title: str
    decimals: int
    better: str
    about: str
    share: bool = True
    question: str = "faithful"
    place: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The nested keys in a row's scores."""
        return self.place or (self.key,)

    @property
    def arrow(self) -> str:
        """A sign for what is better."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")


_COHERENCE = (
    Metric(
        "joint_coherence",
        "Joint coherence",
        3,
        "higher",
        "share of tuples whose modalities all show one label",
    ),
    Metric(
        "pairwise_coherence", "Pairwise coherence", 3, "higher", "share of pairs of modalities that agree"
    ),
    Metric(
        "label_entropy",
        "Label entropy",
        3,
        "higher",
        "evenness of the labels shown, 1 when all are equally frequent",
    ),
    Metric(
        "label_agreement", "Label agreement", 3, "higher", "share of modalities that show the label drawn"
    ),
    Metric(
        "pairing_auc", "Pairing AUC", 3, "", "how well a classifier tells true pairings from shuffled ones"
    ),
    Metric(
        "incoherence",
        "Incoherence",
        3,
        "lower",
        "what the pairing AUC lacks to that of real rows",
        share=False,
    ),
    Metric(
        "canonical_preservation",
        "Correlations kept",
        3,
        "higher",
        "canonical correlations between modalities, over those of real rows",
        share=False,
    ),
)
_FIDELITY = (
    Metric(
        "frechet_distance",
        "Frechet distance",
        2,
        "lower",
        "distance to real features, mean of the modalities",
        share=False,
    ),
    Metric(
        "joint_frechet_distance",
        "Joint Frechet distance",
        2,
        "lower",
        "distance to real features of all modalities together",
        share=False,
    ),
    Metric(
        "kernel_distance",
        "Kernel distance",
        3,
        "lower",
        "squared distance of means under a cubic kernel, unbiased, mean of the modalities",
        share=False,
    ),
    Metric(
        "mmd",
        "MMD",
        4,
        "lower",
        "squared distance of means under a Gaussian kernel, all modalities",
        share=False,
    ),
    Metric("precision", "Precision", 3, "higher", "share of samples that lie among the real ones"),
    Metric("recall", "Recall", 3, "higher", "share of real rows that lie among the samples"),
    Metric(
        "density",
        "Density",
        3,
        "higher",
        "how many real neighbourhoods hold a sample, on average",
        share=False,
    ),
    Metric("coverage", "Coverage", 3, "higher", "share of real neighbourhoods that hold a sample"),
    Metric(
        "alpha_precision",
        "α-precision",
        3,
        "higher",
        "how well samples fall into the typical regions of real rows, of every size",
    ),
    Metric(
        "beta_recall",
        "β-recall",
        3,
        "higher",
        "how well real rows are covered by the typical regions of the samples, of every size",
    ),
    Metric(
        "authenticity",
        "Authenticity",
        3,
        "higher",
        "share of samples farther from their nearest reference row than that row from its own nearest",
    ),
)
JOINT = ("privacy", "spaces", "joint")  # where scores of privacy, all modalities together, stand in a row
_USE = (
    Metric(
        "utility_ratio",
        "Utility",
        3,
        "higher",
        "accuracy on real rows after training on synthetic ones, over that after training on real ones",
        share=False,
        question="useful",
        place=("utility", "ratio_to_real", "joint"),
    ),
)
_PRIVACY = (
    Metric(
        "membership_auc",
        "Attack AUC",
        3,
        "lower",
        "how well an attacker tells training rows from held-out ones; 0.5 is a coin",
        question="leaks",
        place=(*JOINT, "membership_auc"),
    ),
    Metric(
        "near_copies",
        "Near copies",
        3,
        "lower",
        "share of samples nearer to a training row than 99 % of held-out rows are; 0.01 of fresh ones",
        question="leaks",
        place=(*JOINT, "near_copies"),
    ),
)
METRICS = (*_COHERENCE[:2], _FIDELITY[0], *_COHERENCE[2:], *_FIDELITY[1:], *_USE, *_PRIVACY)
HEADLINES = ("joint_coherence", "frechet_distance")
