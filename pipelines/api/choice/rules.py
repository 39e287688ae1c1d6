"""The rules of `init`, by topic: the first one that holds for the data sets the settings of its topic."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from postprior.pipelines.api.choice.facts import Facts, Rule, Settings
from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import SCALED

STEPS = 3000  # training steps of the autoencoder, for any size of the data
EVALUATOR_STEPS = 400  # training steps of the evaluators, for any size of the data
AUGMENTED = 20  # training rows of which half suffice to fit a density
APART = 24  # dimensions of the code of each modality, if there is one for each
LARGEST = 5  # binary logarithm of the most dimensions of a shared code
BETA = 0.2  # weight of the KL terms for tables, whose columns of low entropy codes leave out at a weight of 1


def choices(facts: Facts) -> Iterator[Rule]:
    """Yield the rule of every topic that decides for these data."""
    decided = set()
    for rule in RULES:
        if rule.topic not in decided and rule.holds(facts):
            decided.add(rule.topic)
            yield rule


def settings(splits: Mapping[str, Dataset], model: str | None = None) -> Settings:
    """Choose settings for the data, and for the model if the user chose it; none needs more rows than there are."""
    facts = Facts.of(splits, model)
    return {key: value for rule in choices(facts) for key, value in rule.settings(facts).items()}


def _model(name: str) -> Callable[[Facts], Settings]:
    return lambda facts: {"vae.model": name}


def _size(values: Callable[[Facts], int], **more: Any) -> Callable[[Facts], Settings]:
    """Return what sets the dimensions of a shared code to a power of two of at most so many values."""

    def of(facts: Facts) -> Settings:
        size = 2 ** _within(1, int(math.log2(max(2, values(facts)))), LARGEST)
        return {"vae.latent": size, **{f"vae.options.mvtcae.{name}": value for name, value in more.items()}}

    return of


def _scales(facts: Facts) -> Settings:
    scaled = [m for m in facts.modalities if m.likelihood in SCALED]
    return {"vae.likelihood_scale": {m.name: 0.1 if m.kind in ("image", "volume") else "features" for m in scaled}}


def _learned(facts: Facts) -> bool:
    return any(m.likelihood in SCALED and m.kind not in ("image", "volume") for m in facts.modalities)


def _training(batch: int, patient: bool) -> Callable[[Facts], Settings]:
    """Return what sets the training: as many steps as the digits of this repository take."""

    def of(facts: Facts) -> Settings:
        epochs = _within(10, STEPS * batch // facts.rows, 300)
        patience = max(10, epochs // 5) if patient else 0
        judged = _within(5, EVALUATOR_STEPS * batch // facts.rows, 100)
        return {
            "train.epochs": epochs,
            "train.batch_size": batch,
            "train.patience": patience,
            "evaluators.epochs": judged,
            "evaluators.batch_size": batch,
        }

    return of


def _densities(*names: str, network: Any = ("plain", "blocks"), hidden: int = 192, steps: int = 1200) -> Any:
    """Return what sets the densities and the network of `flow_matching`."""
    options = {"network": network if isinstance(network, str) else list(network), "hidden": hidden, "steps": steps}
    chosen = {"densities": list(names)} | {f"density.flow_matching.{name}": value for name, value in options.items()}
    return lambda facts: chosen


def _components(facts: Facts) -> Settings:
    labels = max(1, facts.labels)
    most = _within(1, facts.rows // (10 * labels), 4 if facts.apart else 16)
    return {
        "density.gmm.components": [n for n in (1, 2, 4, 8, 16) if n <= most],
        "density.vamp.pseudo_inputs": _within(labels, facts.rows // 4, 500),
    }


def _augmentation(facts: Facts) -> Settings:
    sizes = [min(100, facts.labelled // 2)] if facts.labelled >= AUGMENTED else []
    return {"augment.sizes": sizes, "augment.density": "gmm" if facts.small else "flow"}


def _scores(facts: Facts) -> Settings:
    return {
        "evaluators.features": _within(2, facts.half // 2, 64),
        "generate.samples": max(1000, facts.test // 2),
        "evaluate.neighbours": _within(1, facts.half // 4, 5),
        "privacy.dimensions": _within(2, facts.rows // 10, 32),
    }


def _within(low: int, value: int, high: int) -> int:
    return int(np.clip(value, low, high))


RULES = (
    Rule(
        "model",
        "several images or volumes and nothing else; at least 1,000 training rows with a label and all modalities",
        "`unimodal`: a code for each modality",
        "every code keeps the detail of its modality; the density ties them",
        _model("unimodal"),
        lambda facts: facts.apart,
        "600 rows of digits: Fréchet distance 33.2, of `mvtcae` with `gmm` 78.4; joint coherence .657 and .655",
        "docs/quality.md",
    ),
    Rule(
        "model",
        "several images or volumes, but fewer such rows",
        "`mvtcae`: a shared code",
        "it learns from rows with any modalities, labelled or not; `unimodal` was not measured on such rows",
        _model("mvtcae"),
        lambda facts: facts.images,
        "digits, half of all modalities missing: conditional coherence 0.645 to 0.906, of complete rows 0.651 to 0.922",
        "docs/imputation.md",
    ),
    Rule(
        "model",
        "tables alone",
        "`mvtcae`: a shared code",
        "it learns from rows with any modalities and cells, and imputes the others",
        _model("mvtcae"),
        lambda facts: facts.tables,
        "`flchain`, one of three tables hidden: energy score 0.433, of the best other imputer 0.431",
        "docs/imputation.md",
    ),
    Rule(
        "model",
        "",
        "`mvtcae`: a shared code",
        "it learns from rows with any modalities, of any kinds",
        _model("mvtcae"),
        measured="simulated cells, half of which lack genes or proteins: energy score 0.479, of the best other imputer "
        "0.494",
        page="docs/examples/omics.md",
    ),
    Rule(
        "size of the code",
        "a code for each modality",
        "24 dimensions each",
        "enough for the detail of an image, few enough for a density to learn",
        lambda facts: {"vae.latent": APART},
        lambda facts: facts.apart,
        "digits: Fréchet distance of reconstructions 36, of `mvtcae` 80, of real rows 34",
        "docs/models.md",
    ),
    Rule(
        "size of the code",
        "tables alone",
        "as many dimensions as columns, a power of two up to 32; KL terms of weight 0.2",
        "smaller codes, or a weight of 1, leave out columns of low entropy, such as rare conditions",
        _size(lambda facts: sum(facts.sizes), beta=BETA),
        lambda facts: facts.tables,
        "`flchain`: a classifier tells samples from real rows with an AUC of 0.646, those of SDV's best with 0.929",
        "docs/evaluation.md",
    ),
    Rule(
        "size of the code",
        "",
        "half as many dimensions as values, a power of two up to 32",
        "a code as large as the row has nothing to learn",
        _size(lambda facts: sum(facts.sizes) // 2),
        measured="digits, 32 dimensions: joint coherence of reconstructions 0.852, of real rows 0.946",
        page="docs/densities.md",
    ),
    Rule(
        "likelihood",
        "vectors with a normal, Laplace or hurdle likelihood",
        "the scale of every value of a vector is learned; that of images and volumes is 0.1",
        "values of a vector differ in how well they can be told from the code",
        _scales,
        _learned,
    ),
    Rule(
        "likelihood",
        "",
        "the scale of images and volumes is 0.1",
        "values of images are between 0 and 1",
        lambda facts: {"vae.likelihood_scale": 0.1},
    ),
    Rule(
        "weights of modalities",
        "one modality has at least ten times as many values as another",
        "the inverse of their numbers of values",
        "a large modality would outweigh the others",
        lambda facts: {"vae.rescaling": "dimensions"},
        lambda facts: facts.unequal,
    ),
    Rule(
        "weights of modalities",
        "",
        "equal",
        "the likelihood needs none",
        lambda facts: {"vae.rescaling": None},
    ),
    Rule(
        "training",
        "fewer than 1,000 training rows",
        "3,000 steps of 32 rows, at most 300 epochs, which the held-out loss ends early",
        "few rows are soon overfitted",
        _training(32, True),
        lambda facts: facts.small,
        "250 tumours: settings that overfit lost .02 of AUROC in detection",
        "docs/detection.md",
    ),
    Rule(
        "training",
        "",
        "3,000 steps of 64 rows, at least 10 epochs",
        "as many as the digits take, whatever the number of rows",
        _training(64, False),
        measured="digits, four observed modalities: conditional coherence .92 after 40 epochs, .87 after 20",
        page="docs/zoo.md",
    ),
    Rule(
        "densities",
        "a code for each modality",
        "`flow_matching` with the network `blocks`, `gmm`, `vamp`",
        "a mixture does not suffice to tie the codes",
        _densities("flow_matching", "gmm", "vamp", network="blocks", hidden=480, steps=1500),
        lambda facts: facts.apart,
        "600 rows of digits: joint coherence .657, of `gmm` .416",
        "docs/quality.md",
    ),
    Rule(
        "densities",
        "a shared code, fewer than 1,000 training rows",
        "`gmm`, `gaussian`, `vamp`",
        "they are the cheapest; on the digits `flow` was a little better, so compare it too",
        _densities("gmm", "gaussian", "vamp"),
        lambda facts: facts.small,
        "200 rows of digits: joint coherence 0.529 of `gmm`, 0.575 of `flow`, 0.471 of reconstructions",
        "docs/densities.md",
    ),
    Rule(
        "densities",
        "",
        "`gmm`, `flow`, `flow_matching`, `vamp`",
        "all come close to reconstructions, and `gmm` takes seconds; the report says which is best on your data",
        _densities("gmm", "flow", "flow_matching", "vamp"),
        measured="digits: joint coherence 0.847, 0.838, 0.867, 0.802; of reconstructions 0.852, of N(0, I) 0.017",
        page="docs/densities.md",
    ),
    Rule(
        "components",
        "",
        "of `gmm`, up to one for every ten rows of a label, at most 16 (4 if each modality has a code); of `vamp`, one "
        "for every four rows, at most 500",
        "held-out codes choose among the candidates",
        _components,
        measured="digits, full covariance: held-out log-likelihood −13.02 with 1 component for each label, −12.63 with "
        "4, −13.01 with 16",
        page="docs/densities.md",
    ),
    Rule(
        "values of samples",
        "",
        "draws of tables and vectors, means of images, volumes and sequences",
        "draws are as varied as the data; images drawn pixel by pixel look noisy",
        lambda facts: {"generate.values": "auto"},
    ),
    Rule(
        "augmentation test",
        "",
        "half of the labelled rows, at most 100, none below 20; `mopoe` with `flow`, below 1,000 rows with `gmm`",
        "`mopoe` with `flow` has the highest mean accuracy",
        _augmentation,
        measured="100 rows of digits: .838 for classifiers of one modality, .796 of `mvtcae` with `gmm`",
        page="docs/augmentation.md",
    ),
    Rule(
        "scores",
        "",
        "features, neighbours and components for which there are enough rows",
        "a distance in as many dimensions as rows says nothing",
        _scores,
    ),
)
"""The topics in the order in which they are told."""
