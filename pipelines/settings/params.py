"""The schema of params.yaml."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
BASELINE_ROWS = ("normal", "reconstruction", "real")  # rows that the stage `score-baselines` scores
SAMPLER_ROWS = ("gaussian_copula", "independent_columns")  # further rows that it scores, of tables and vectors
ALL = "all"  # may replace a number of rows
ADAPTED = "adapted"  # model: a trained autoencoder of the user, see `Adaptation`
BEST = "best"  # names the best density in results/summary.json
OTHER_RESULTS = ("autoencoder", "baselines", "evaluators", "latent", "samplers", BEST)
"""Other names in the results, which no density may have."""
DRAWING = ("ode_steps", "temperature")
"""Settings of the draws of the refiner."""

Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
NotNegative = Annotated[int, Field(ge=0, description="a whole number of at least 0")]
Positive = Annotated[float, Field(gt=0, description="a number above 0")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, description="a list of seeds, at least one")]
SeedsOrNone = Annotated[tuple[Seed, ...], Field(description="a list of seeds; [] switches the test off")]
Name = Annotated[str, Field(min_length=1, description="a name")]
Options = dict[str, Any]
Scale = Positive | Literal["learned", "features"]
Sections = Annotated[dict[str, Options], Field(description="names, each with its options (`{}` for none)")]
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Temperature = Annotated[float, Field(gt=0, le=1, description="a number above 0 and at most 1")]
Share = Annotated[float, Field(ge=0, lt=1, description="a share of at least 0 and below 1")]
Quantile = Annotated[float, Field(ge=0, lt=1, description="a number of at least 0 and below 1")]

Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:1")]


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = STRICT


class Data(BaseModel):
    """The data source; each other key is the name of a source and holds its options."""

    model_config = STRICT | ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Options] = Field(init=False)

    source: Name

    @property
    def options(self) -> Options:
        """Options of the chosen source."""
        return dict((self.__pydantic_extra__ or {})[self.source])


class EvaluatorSettings(Section):
    """The evaluators: training of the label classifiers, and the extractor of the features for distances."""

    extractor: Annotated[
        str,
        Field(
            pattern=r"^\w+$|^[\w.]+:\w+$",
            description="auto, classifier, pca, random, inception, dinov2, or package.module:Name of your own class",
        ),
    ]
    weights: Annotated[str | None, Field(description="null, or the file of a pretrained extractor's weights")]
    epochs: Count
    features: Count
    batch_size: Count
    learning_rate: Positive


class Vae(Section):
    """The autoencoder: the model, its sizes, and the options of every model by name."""

    model: Name
    latent: Count
    width: Count
    likelihood_scale: Annotated[
        Scale | dict[str, Scale],
        Field(description="a number above 0, learned, features, or one of these for each modality by name"),
    ]
    rescaling: Annotated[
        dict[str, Positive] | Literal["dimensions"] | None,
        Field(description="null, dimensions, or weights of the modalities by name"),
    ]
    networks: Annotated[
        dict[str, str], Field(description="networks of the modalities by name (`{}` for the default of each kind)")
    ]
    options: Sections

    @property
    def sizes(self) -> Options:
        """Settings that every model takes."""
        return self.model_dump(exclude={"model", "options"})

    @property
    def chosen(self) -> Options:
        """Options of the chosen model."""
        return dict(self.options[self.model])

    @property
    def told(self) -> str:
        """The model and its size, for readers."""
        if self.model != ADAPTED:
            return f"{self.model}, latent size {self.latent}"
        return f"trained elsewhere, from {self.chosen.get('build', 'an object in memory')}"


class Adaptation(Section):
    """The options of the model `adapted`: a trained autoencoder of your own or of another library."""

    build: Annotated[
        str, Field(pattern=r"^[\w.]+:[\w.]+$", description="package.module:function, which returns the autoencoder")
    ]
    weights: Annotated[str | None, Field(description="null, or the safetensors file of its weights")] = None
    options: Annotated[Options, Field(description="keyword arguments of the function, by name")] = {}


class Train(Section):
    """Training of the autoencoder."""

    epochs: Annotated[
        Count | Annotated[tuple[Count, ...], Field(min_length=1)],
        Field(description="a whole number of at least 1, or a list of them, one for each phase"),
    ]
    batch_size: Count
    learning_rate: Positive
    warmup: NotNegative
    patience: NotNegative
    hide_cells: Share = 0.0
    hide_modalities: Share = 0.0
    device: Device
    precision: Literal["no", "bf16"]
    compile: Literal["auto", "no"] = "auto"


class Encode(Section):
    """Encoding into latent codes; a posterior with more than `components` components is stored as draws."""

    components: Count


class Refine(Section):
    """Training of the refiner, which draws images and volumes given the means of the decoders; see `Refiner`.

    The options after `precision` are those of the refiner; it is not trained again if those of `DRAWING` change.
    """

    epochs: Count = 8
    batch_size: Count = 32
    learning_rate: Positive = 2e-3
    patience: NotNegative = 3
    device: Device = "auto"
    precision: Literal["no", "bf16"] = "no"
    width: Count = 24
    ode_steps: Count = 6
    temperature: Temperature = 1.0

    @property
    def options(self) -> Options:
        """Options of the refiner."""
        return self.model_dump(include={"width", *DRAWING})

    @property
    def training(self) -> Options:
        """Settings of its training."""
        return self.model_dump(exclude=set(self.options))


class Generate(Section):
    """The synthetic dataset of every density.

    A temperature below 1 draws with less noise. With `truncation` q, codes less likely than the q-quantile of held-out
    codes are drawn again. `balance` gives the shares of the labels by name (null: as learned). Samples lack values as
    training rows do, unless they are `complete`.
    """

    samples: Count
    seed: Seed
    values: Literal["auto", "mean", "draws", "refined"]
    temperature: Temperature
    truncation: Quantile
    balance: Annotated[
        dict[str, Annotated[float, Field(ge=0)]] | None,
        Field(description="null, or label names with their shares (numbers of at least 0)"),
    ]
    complete: bool = False


class Evaluate(Section):
    """Scores of synthetic datasets and their intervals."""

    resamples: Annotated[int, Field(ge=20, description="a whole number of at least 20")]
    neighbours: Count
    seed: Seed


class Privacy(Section):
    """The attacks on training rows.

    The membership inference attack sees `draws` samples per training row, and estimates densities in `dimensions`. The
    attacks on single people are made on `attacks` of them.
    """

    draws: Annotated[int, Field(ge=0, description="a whole number of at least 0, which switches the attack off")]
    dimensions: Count
    attacks: Annotated[
        int, Field(ge=0, description="a whole number of at least 0, which switches the attacks on single people off")
    ] = 0


class ImputationSettings(Section):
    """Evaluation of imputation: the share of hidden cells, and the number of draws per row."""

    draws: Annotated[
        Literal[0] | Annotated[int, Field(ge=19)],
        Field(description="a whole number of at least 19, for intervals of 90 %, or 0, which switches the test off"),
    ]
    cells: Annotated[float, Field(gt=0, lt=1, description="a share above 0 and below 1")]


class Utility(Section):
    """Label classifiers trained on real or synthetic rows; `evaluators.features` is the width of their features."""

    seeds: SeedsOrNone
    steps: Count
    batch_size: Count
    learning_rate: Positive


class Augment(Section):
    """The augmentation curve: numbers of real rows, and the autoencoder and density that are trained on them.

    `steps` is the number of training steps of the autoencoder for every number of rows; its other settings are those of
    `vae` and `train`.
    """

    sizes: Annotated[
        tuple[Count | Literal["all"], ...],
        Field(description="a list of numbers of rows or all (`[]`: no augmentation test)"),
    ]
    seeds: Seeds
    model: Name
    density: Name
    steps: Count


class Compare(Section):
    """The report; `map` is the projection of the latent space that it shows."""

    map: Literal["pca", "umap"]


class Fitting(Section):
    """How an entry of `density` is fitted. It has these settings in addition to the options of its kind.

    Attributes:
        kind: the kind of density; the name of the entry if not given.
        independent: fit a separate density to each block of codes.
        rows: `all`, each encoded from the modalities it has, or `complete`, the rows without a missing modality.
        labels: fit one density per label; if false, one density that does not use labels.
    """

    kind: str
    independent: bool = False
    rows: Literal["all", "complete"] = "all"
    labels: bool = True


class Params(Section):
    """All settings in params.yaml, with the values of the chosen profile."""

    profile: Literal["quick", "full"] = "full"
    seed: Seed
    data: Data
    evaluators: EvaluatorSettings
    vae: Vae
    train: Train
    refine: Annotated[Refine | None, Field(description="null, or settings such as {epochs: 8}")] = None
    encode: Encode
    densities: Annotated[tuple[Name, ...], Field(min_length=1, description="a list of densities, at least one")]
    density: Annotated[
        dict[Folder, Options],
        Field(description="names of letters, digits, - and _, each with its options (`{}` for none)"),
    ]
    generate: Generate
    evaluate: Evaluate
    utility: Utility
    privacy: Privacy
    imputation: ImputationSettings
    augment: Augment
    compare: Compare
    _by_profile: dict[str, dict[str, Any]] = PrivateAttr(default_factory=dict)

    @property
    def by_profile(self) -> dict[str, dict[str, Any]]:
        """The settings with one value per profile, by dotted key: their values by profile."""
        return self._by_profile

    def chosen(self, densities: Iterable[str]) -> dict[str, Any]:
        """Return the settings as a tree, without the options of sources, models and densities that are not chosen."""
        tree = self.model_dump()
        tree["data"] = {"source": self.data.source, self.data.source: self.data.options}
        tree["vae"]["options"] = {self.vae.model: self.vae.chosen}
        tree["density"] = {name: self.density.get(name, {}) for name in densities}
        return tree


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every leaf of a tree."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
