"""The registry of metrics: name, direction, bounds and place in the results of every metric.

To add a metric, write a function and add an entry here that names the function's module. In `fidelity`, the function
`scores(real, fake)` of that module returns values (1 + B,) by key; in other families, extend the function that returns
the family's scores. Interval bounds, comparison.csv and the report page follow from the entry.

The entries with `headline=True` are the ten metrics by which runs are compared. Runs in MLflow, results/summary.json,
which `dvc metrics show` and `dvc exp show` print, and the short form of the leaderboard have these and no others.
"""

from dataclasses import dataclass
from math import inf

Bounds = tuple[float, float]
SIGNED: Bounds = (-inf, inf)
POSITIVE: Bounds = (0.0, inf)
GROUPS = {  # groups of columns in order, and the modules of their metrics
    "Coherence": ("coherence/agreement",),
    "Pairing": ("coherence/alignment",),
    "Distance": ("fidelity/frechet", "fidelity/kernels"),
    "Overlap": ("fidelity/manifold", "fidelity/supports"),
    "Tables": ("tables/similarity", "tables/classifier_test"),
    "Use": ("utility/classifiers",),
    "Leaks": (
        "privacy/membership",
        "privacy/proximity",
        *(f"privacy/attacks/{attack}" for attack in ("attribute_inference", "linkability", "singling_out")),
    ),
    "Other": (),
}
QUESTIONS = {  # the question that a metric helps to answer, by family
    "coherence": "faithful",
    "fidelity": "faithful",
    "tables": "faithful",
    "utility": "useful",
    "imputation": "useful",
    "privacy": "leaks",
}


@dataclass(frozen=True)
class Metric:
    """A metric: how it is named, displayed, bounded and stored."""

    file: str  # module below `metrics` that computes it, as "folder/module"
    key: str  # name in results files
    about: str = ""  # definition in one phrase; "" if it is not a column of the leaderboard
    name: str = ""  # name for readers; "": derived from the key
    better: str = "higher"  # "higher" or "lower"; "" if neither is better
    bounds: Bounds = (0.0, 1.0)  # of values and intervals
    decimals: int = 3  # decimal places
    place: tuple[str, ...] = ()  # nested keys in a row's scores; (): the key
    headline: bool = False  # whether MLflow, DVC and the short form of the leaderboard show it
    tested: bool = False  # whether densities are ranked and tested in pairs by it, with the share of the gap closed
    expected: float | None = None  # value of ideal samples
    neutral: str = ""  # explanation of that value for readers
    percent: bool = False  # whether sentences give it as a percentage

    @property
    def family(self) -> str:
        """The folder of its module."""
        return self.file.split("/")[0]

    @property
    def group(self) -> str:
        """The group of columns in the leaderboard."""
        return next((group for group, files in GROUPS.items() if self.file in files), "Other")

    @property
    def title(self) -> str:
        """The name for readers."""
        return self.name or self.key.replace("_", " ").capitalize()

    @property
    def heading(self) -> str:
        """The title with the arrow."""
        return f"{self.title} {self.arrow}".strip()

    @property
    def arrow(self) -> str:
        """The arrow that points in the better direction."""
        return {"higher": "↑", "lower": "↓"}.get(self.better, "")

    @property
    def keys(self) -> tuple[str, ...]:
        """The nested keys in a row's scores."""
        return self.place or (self.key,)

    @property
    def share(self) -> bool:
        """Whether values lie between 0 and 1."""
        return self.bounds == (0.0, 1.0)

    @property
    def question(self) -> str:
        """The question that it helps to answer: "faithful", "useful" or "leaks"; "" if none."""
        return QUESTIONS.get(self.family, "")


JOINT = ("privacy", "spaces", "joint")  # nested keys of the joint privacy scores in a row
ATTACKS = ("privacy", "attacks")  # nested keys of the attacks on single people
METRICS = (
    Metric(
        "coherence/agreement",
        "joint_coherence",
        "share of rows in which all observed modalities have the same predicted label",
        headline=True,
        tested=True,
        percent=True,
    ),
    Metric(
        "coherence/agreement",
        "pairwise_coherence",
        "share of pairs of observed modalities with the same predicted label",
        percent=True,
    ),
    Metric(
        "fidelity/frechet",
        "frechet_distance",
        "Frechet distance between features of samples and of real rows, mean over modalities",
        better="lower",
        bounds=POSITIVE,
        decimals=2,
        headline=True,
        tested=True,
    ),
    Metric(
        "coherence/agreement",
        "label_entropy",
        "entropy of the predicted labels over its maximum; 1 if all labels are equally frequent",
    ),
    Metric(
        "coherence/agreement",
        "label_agreement",
        "share of modalities whose predicted label is the label drawn with the sample",
        percent=True,
    ),
    Metric(
        "coherence/alignment",
        "pairing_auc",
        "AUC of the pairing classifier, trained on real rows to separate rows from rows with shuffled modalities",
        "Pairing AUC",
        "",
    ),
    Metric(
        "coherence/alignment",
        "incoherence",
        "pairing AUC of real rows minus that of the samples",
        better="lower",
        bounds=(-1.0, 1.0),
        headline=True,
    ),
    Metric("coherence/alignment", "canonical_correlation", bounds=(-1.0, 1.0)),
    Metric(
        "coherence/alignment",
        "canonical_preservation",
        "canonical correlation between modalities, divided by that of real rows",
        "Relative canonical correlation",
        bounds=SIGNED,
    ),
    Metric("coherence/agreement", "conditional_coherence", name="Share with the row's label"),
    Metric("coherence/agreement", "conditional_gain", name="Difference to the plain posterior", bounds=(-1.0, 1.0)),
    Metric("coherence/agreement", "private_gain", name="Gain over private codes of the prior", bounds=(-1.0, 1.0)),
    Metric("fidelity/reconstruction", "accuracy"),
    Metric("fidelity/reconstruction", "reconstruction_error", better="lower", bounds=POSITIVE),
    Metric("fidelity/reconstruction", "correlation", bounds=(-1.0, 1.0)),
    Metric("fidelity/reconstruction", "ssim", name="SSIM", bounds=(-1.0, 1.0)),
    Metric("fidelity/reconstruction", "psnr", name="PSNR", bounds=SIGNED),
    Metric("fidelity/reconstruction", "l1", name="L1", better="lower", bounds=POSITIVE),
    Metric(
        "fidelity/frechet",
        "joint_frechet_distance",
        "Frechet distance between concatenated features of all modalities",
        "Joint Frechet distance",
        better="lower",
        bounds=POSITIVE,
        decimals=2,
    ),
    Metric(
        "fidelity/kernels",
        "kernel_distance",
        "unbiased squared MMD with a cubic polynomial kernel (KID), mean over modalities",
        better="lower",
        bounds=SIGNED,
    ),
    Metric("fidelity/kernels", "joint_kernel_distance", better="lower", bounds=SIGNED),
    Metric(
        "fidelity/kernels",
        "mmd",
        "unbiased squared MMD with a Gaussian kernel, joint space of all modalities",
        "MMD",
        "lower",
        bounds=SIGNED,
        decimals=4,
    ),
    Metric(
        "fidelity/manifold",
        "precision",
        "share of samples inside a k-nearest-neighbour ball of a real row",
        percent=True,
    ),
    Metric(
        "fidelity/manifold",
        "recall",
        "share of real rows inside a k-nearest-neighbour ball of a sample",
        headline=True,
        percent=True,
    ),
    Metric(
        "fidelity/manifold",
        "density",
        "mean number of real k-nearest-neighbour balls that contain a sample, divided by k",
        bounds=POSITIVE,
    ),
    Metric(
        "fidelity/manifold",
        "coverage",
        "share of real k-nearest-neighbour balls that contain a sample",
        headline=True,
        percent=True,
    ),
    Metric(
        "fidelity/supports",
        "alpha_precision",
        "how closely the share of samples in the α-support of real rows follows α, over all α",
        "α-precision",
    ),
    Metric(
        "fidelity/supports",
        "beta_recall",
        "how closely the share of real rows covered by the β-support of samples follows β, over all β",
        "β-recall",
    ),
    Metric(
        "fidelity/supports",
        "authenticity",
        "share of samples farther from their nearest reference row than that row is from its own nearest neighbour",
        percent=True,
    ),
    Metric(
        "tables/similarity",
        "column_shapes",
        "tables: similarity of the distributions of single columns, mean over columns (SDMetrics)",
        percent=True,
    ),
    Metric(
        "tables/similarity",
        "column_pair_trends",
        "tables: similarity of the associations of two columns, mean over associated pairs (SDMetrics)",
        percent=True,
    ),
    Metric(
        "tables/similarity",
        "quality",
        "tables: mean of column shapes and column pair trends (SDMetrics)",
        "Table quality",
        headline=True,
        percent=True,
    ),
    Metric(
        "tables/similarity",
        "validity",
        "tables: share of cells inside the range of the training rows, or with one of their categories, mean over "
        "columns (SDMetrics)",
        percent=True,
    ),
    Metric(
        "tables/classifier_test",
        "c2st_auc",
        "tables and vectors: AUC of a boosted classifier that tells samples from held-out rows; 0.5 if it cannot",
        "C2ST AUC",
        "lower",
        headline=True,
        tested=True,
        expected=0.5,
        neutral="0.5 if nothing tells samples from real rows",
    ),
    Metric(
        "utility/classifiers",
        "utility_ratio",
        "accuracy on real test rows after training on samples, divided by that after training on real rows",
        "Utility",
        bounds=POSITIVE,
        place=("utility", "ratio_to_real", "joint"),
        headline=True,
        expected=1.0,
        neutral="100\u202f% if as good as real rows",
        percent=True,
    ),
    Metric("imputation/scores", "energy_score", better="lower", bounds=POSITIVE),
    Metric("imputation/scores", "rmse", name="Error", better="lower", bounds=POSITIVE),
    Metric("imputation/scores", "coverage", name="Coverage of 90 % intervals", better="", expected=0.9),
    Metric("imputation/scores", "label_agreement", name="Label agreement"),
    Metric(
        "privacy/membership",
        "membership_auc",
        "AUC of a membership inference attack on training rows against held-out rows; 0.5 is chance level",
        "Attack AUC",
        "lower",
        place=(*JOINT, "membership_auc"),
        headline=True,
        expected=0.5,
        neutral="0.5 is chance level",
    ),
    Metric(
        "privacy/proximity",
        "near_copies",
        "share of samples closer to a training row than 99 % of held-out rows are; 0.01 is expected without leaks, and "
        "more if there are fewer than a thousand held-out rows",
        better="lower",
        place=(*JOINT, "near_copies"),
        headline=True,
        percent=True,
    ),
    Metric(
        "privacy/attacks/attribute_inference",
        "attribute_inference",
        "tables and vectors: risk that an unknown attribute of a person in the training data is inferred, beyond what "
        "is inferred of held-out people",
        "Inference risk",
        "lower",
        (-1.0, 1.0),
        place=(*ATTACKS, "attribute_inference"),
        expected=0.0,
        neutral="0 if being in the training data makes no difference",
    ),
    Metric(
        "privacy/attacks/linkability",
        "linkability",
        "risk that two partial records of a person in the training data are linked, beyond those of held-out people",
        "Linkability risk",
        "lower",
        (-1.0, 1.0),
        place=(*ATTACKS, "linkability"),
        expected=0.0,
        neutral="0 if being in the training data makes no difference",
    ),
    Metric(
        "privacy/attacks/singling_out",
        "singling_out",
        "tables and vectors: risk that a combination of attributes isolates a person in the training data, beyond what "
        "isolates a held-out one",
        "Singling-out risk",
        "lower",
        (-1.0, 1.0),
        place=(*ATTACKS, "singling_out"),
        expected=0.0,
        neutral="0 if being in the training data makes no difference",
    ),
    Metric(
        "privacy/attacks/singling_out",
        "singling_out_univariate",
        name="Singling-out risk, one attribute",
        better="lower",
        bounds=(-1.0, 1.0),
        place=(*ATTACKS, "singling_out_univariate"),
        expected=0.0,
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
"""All metrics; the columns of comparison.csv have this order."""
LEADERBOARD = tuple(metric for metric in METRICS if metric.about)
HEADLINES = tuple(metric for metric in METRICS if metric.headline)
TESTED = tuple(metric.key for metric in METRICS if metric.tested)


def of_family(*families: str) -> dict[str, Metric]:
    """Return the metrics of these families by key."""
    return {metric.key: metric for metric in METRICS if metric.family in families}


def bounds_of(*families: str) -> dict[str, Bounds]:
    """Return the bounds of the metrics of these families by key."""
    return {key: metric.bounds for key, metric in of_family(*families).items()}
