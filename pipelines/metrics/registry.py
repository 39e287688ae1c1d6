"""Every metric: what it is called, which way is better, and where its numbers stand. All else reads this table.

A new metric is a function and an entry here, which names the function's file. In fidelity `scores(real, fake)` of that
file returns values (1 + B,) by key; elsewhere the function that returns numbers of its kind returns one more. Bounds of
intervals, comparison.csv, the page and MLflow follow.
"""

from dataclasses import dataclass
from math import inf

Bounds = tuple[float, float]
SIGNED: Bounds = (-inf, inf)
POSITIVE: Bounds = (0.0, inf)
GROUPS = {  # of columns in their order, and the files whose metrics they hold
    "Coherence": ("coherence/agreement",),
    "Pairing": ("coherence/alignment",),
    "Distance": ("fidelity/frechet", "fidelity/kernels"),
    "Overlap": ("fidelity/manifold", "fidelity/supports"),
    "Use": ("utility/classifiers",),
    "Leaks": ("privacy/membership", "privacy/proximity"),
    "Other": (),
}
QUESTIONS = {  # that a metric helps to answer, by its family
    "coherence": "faithful",
    "fidelity": "faithful",
    "utility": "useful",
    "imputation": "useful",
    "privacy": "leaks",
}


@dataclass(frozen=True)
class Metric:
    """A metric."""

    file: str  # of `metrics` that computes it, as "folder/module"
    key: str  # its name in files
    about: str = ""  # what it measures, in a phrase; "" for one that is no column of the leaderboard
    name: str = ""  # for readers; the key in words if none
    better: str = "higher"  # or "lower", what a reader should prefer; "" where neither is better by itself
    bounds: Bounds = (0.0, 1.0)  # of its values and intervals
    decimals: int = 3  # places after the point
    place: tuple[str, ...] = ()  # nested keys in a row's scores; the key alone if none
    headline: bool = False  # densities are ranked and tested by it; it stands in MLflow, beside the gap that it closes
    overview: bool = False  # whether it stands in the short form of the leaderboard
    expected: float | None = None  # its value where nothing is wrong
    neutral: str = ""  # the same in words

    @property
    def family(self) -> str:
        """The folder of `metrics` that computes it."""
        return self.file.split("/")[0]

    @property
    def group(self) -> str:
        """The columns of the leaderboard that it stands with."""
        return next((group for group, files in GROUPS.items() if self.file in files), "Other")

    @property
    def title(self) -> str:
        """Its name for readers."""
        return self.name or self.key.replace("_", " ").capitalize()

    @property
    def heading(self) -> str:
        """The title with the sign."""
        return f"{self.title} {self.arrow}".strip()

    @property
    def arrow(self) -> str:
        """The sign for what is better."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")

    @property
    def keys(self) -> tuple[str, ...]:
        """The nested keys in a row's scores."""
        return self.place or (self.key,)

    @property
    def share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self.bounds == (0.0, 1.0)

    @property
    def question(self) -> str:
        """Which it helps to answer: "faithful", "useful" or "leaks"; "" for what answers rest on."""
        return QUESTIONS.get(self.family, "")


JOINT = ("privacy", "spaces", "joint")  # where numbers of privacy stand in a row, of all modalities together
METRICS = (
    Metric(
        "coherence/agreement",
        "joint_coherence",
        "share of tuples whose modalities all show one label",
        headline=True,
        overview=True,
    ),
    Metric("coherence/agreement", "pairwise_coherence", "share of pairs of modalities that agree"),
    Metric(
        "fidelity/frechet",
        "frechet_distance",
        "distance to real features, mean of the modalities",
        better="lower",
        bounds=POSITIVE,
        decimals=2,
        headline=True,
        overview=True,
    ),
    Metric(
        "coherence/agreement",
        "label_entropy",
        "evenness of the labels shown, 1 when all are equally frequent",
        overview=True,
    ),
    Metric("coherence/agreement", "label_agreement", "share of modalities that show the label drawn"),
    Metric(
        "coherence/alignment",
        "pairing_auc",
        "how well a classifier tells true pairings from shuffled ones",
        "Pairing AUC",
        "",
    ),
    Metric(
        "coherence/alignment",
        "incoherence",
        "what the pairing AUC lacks to that of real rows",
        better="lower",
        bounds=(-1.0, 1.0),
        overview=True,
    ),
    Metric("coherence/alignment", "canonical_correlation", bounds=(-1.0, 1.0)),
    Metric(
        "coherence/alignment",
        "canonical_preservation",
        "canonical correlations between modalities, over those of real rows",
        "Correlations kept",
        bounds=SIGNED,
    ),
    Metric("coherence/agreement", "conditional_coherence", name="Share that shows the row's label"),
    Metric("coherence/agreement", "conditional_gain", name="Difference to the plain posterior", bounds=(-1.0, 1.0)),
    Metric(
        "coherence/agreement", "private_gain", name="What private codes drawn given the others add", bounds=(-1.0, 1.0)
    ),
    Metric("fidelity/reconstruction", "accuracy"),
    Metric("fidelity/reconstruction", "reconstruction_error", better="lower", bounds=POSITIVE),
    Metric("fidelity/reconstruction", "ssim", name="SSIM", bounds=(-1.0, 1.0)),
    Metric("fidelity/reconstruction", "psnr", name="PSNR", bounds=SIGNED),
    Metric("fidelity/reconstruction", "l1", name="L1", better="lower", bounds=POSITIVE),
    Metric(
        "fidelity/frechet",
        "joint_frechet_distance",
        "distance to real features of all modalities together",
        "Joint Frechet distance",
        better="lower",
        bounds=POSITIVE,
        decimals=2,
    ),
    Metric(
        "fidelity/kernels",
        "kernel_distance",
        "squared distance of means under a cubic kernel, unbiased, mean of the modalities",
        better="lower",
        bounds=SIGNED,
        overview=True,
    ),
    Metric("fidelity/kernels", "joint_kernel_distance", better="lower", bounds=SIGNED),
    Metric(
        "fidelity/kernels",
        "mmd",
        "squared distance of means under a Gaussian kernel, all modalities",
        "MMD",
        "lower",
        bounds=SIGNED,
        decimals=4,
    ),
    Metric("fidelity/manifold", "precision", "share of samples that lie among the real ones"),
    Metric("fidelity/manifold", "recall", "share of real rows that lie among the samples"),
    Metric("fidelity/manifold", "density", "how many real neighbourhoods hold a sample, on average", bounds=POSITIVE),
    Metric("fidelity/manifold", "coverage", "share of real neighbourhoods that hold a sample", overview=True),
    Metric(
        "fidelity/supports",
        "alpha_precision",
        "how well samples fall into the typical regions of real rows, of every size",
        "α-precision",
    ),
    Metric(
        "fidelity/supports",
        "beta_recall",
        "how well real rows are covered by the typical regions of the samples, of every size",
        "β-recall",
    ),
    Metric(
        "fidelity/supports",
        "authenticity",
        "share of samples farther from their nearest reference row than that row from its own nearest",
    ),
    Metric("fidelity/tables", "marginal_similarity"),
    Metric("fidelity/tables", "correlation_similarity"),
    Metric(
        "utility/classifiers",
        "utility_ratio",
        "accuracy on real rows after training on synthetic ones, over that after training on real ones",
        "Utility",
        bounds=POSITIVE,
        place=("utility", "ratio_to_real", "joint"),
        overview=True,
        expected=1.0,
        neutral="1 if as good as real rows",
    ),
    Metric("imputation/scores", "energy_score", better="lower", bounds=POSITIVE),
    Metric("imputation/scores", "rmse", name="Error", better="lower", bounds=POSITIVE),
    Metric("imputation/scores", "coverage", name="In 90 % intervals", better="", expected=0.9),
    Metric("imputation/scores", "label_agreement", name="Right label"),
    Metric(
        "privacy/membership",
        "membership_auc",
        "how well an attacker tells training rows from held-out ones; 0.5 is a coin",
        "Attack AUC",
        "lower",
        place=(*JOINT, "membership_auc"),
        overview=True,
        expected=0.5,
        neutral="0.5 is a coin",
    ),
    Metric(
        "privacy/proximity",
        "near_copies",
        "share of samples nearer to a training row than 99 % of held-out rows are; 0.01 of fresh ones",
        better="lower",
        place=(*JOINT, "near_copies"),
        overview=True,
    ),
    Metric("privacy/proximity", "distance_ratio", better="", bounds=POSITIVE, expected=1.0),
    Metric("privacy/proximity", "authenticity"),
    Metric("privacy/proximity", "authenticity_fresh", better=""),
    Metric("latent/representation", "linear_probe"),
    Metric("latent/representation", "knn", name="Nearest neighbours"),
    Metric("latent/representation", "kmeans_accuracy", name="k-means accuracy"),
    Metric("latent/representation", "nmi", name="Mutual information"),
    Metric("latent/representation", "ari", name="Adjusted Rand index", bounds=(-0.5, 1.0)),
)
"""All metrics; columns of comparison.csv stand in this order."""
LEADERBOARD = tuple(metric for metric in METRICS if metric.about)
HEADLINES = tuple(metric.key for metric in METRICS if metric.headline)


def of_family(*families: str) -> dict[str, Metric]:
    """The metrics of families by key."""
    return {metric.key: metric for metric in METRICS if metric.family in families}


def bounds_of(*families: str) -> dict[str, Bounds]:
    """The bounds of the metrics of families by key."""
    return {key: metric.bounds for key, metric in of_family(*families).items()}
