"""The one schema of params.yaml: every stage reads its settings through `load_params`.

Whatever is wrong with the file becomes one sentence that names the dotted key, what was found there and what
was expected. The options of a model, a density or a data source have no schema of their own: the signature of
its constructor is the schema, so that an option is declared in one place only.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from postprior.pipelines.errors import UserError
from postprior.pipelines.settings.messages import hint, listed, sentence, words
from postprior.pipelines.settings.yaml_text import read_yaml

T = TypeVar("T")

STRICT = ConfigDict(
    frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
)
REFERENCE_ROWS = ("normal", "reconstruction", "real")  # rows that the stage `reference` scores
ALL = "all"  # in place of a number of rows
OTHER_RESULTS = (
    "autoencoder",
    "baselines",
    "judges",
    "latent",
)  # what else stands beside results of densities

Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
NotNegative = Annotated[int, Field(ge=0, description="a whole number of at least 0")]
Positive = Annotated[float, Field(gt=0, description="a number above 0")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, description="a list of seeds, at least one")]
Name = Annotated[str, Field(min_length=1, description="a name")]
Options = dict[str, Any]
Scale = Positive | Literal["learned"]
Sections = Annotated[dict[str, Options], Field(description="names, each with its options (`{}` for none)")]
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
Temperature = Annotated[float, Field(gt=0, le=1, description="a number above 0, 1 at most")]
Quantile = Annotated[float, Field(ge=0, lt=1, description="a number of at least 0, below 1")]


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = STRICT


class Data(BaseModel):
    """Where the samples come from; the keys beside `source` are the options of the sources, by name."""

    model_config = STRICT | ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Options] = Field(init=False)

    source: Name

    @property
    def options(self) -> Options:
        """The options of the chosen source."""
        return dict((self.__pydantic_extra__ or {})[self.source])


class Judge(Section):
    """Training of the classifiers that score, and the extractor of the features in which distances are measured."""

    extractor: Annotated[
        str,
        Field(
            pattern=r"^\w+$|^[\w.]+:\w+$",
            description="auto, classifier, pca, random, inception, dinov2, or package.module:Name of your own",
        ),
    ]
    weights: Annotated[str | None, Field(description="null, or the file of a pretrained extractor's weights")]
    epochs: Count
    features: Count
    batch_size: Count
    learning_rate: Positive


class Vae(Section):
    """The autoencoder: which model, its sizes, and the options of every model by name."""

    model: Name
    latent: Count
    width: Count
    likelihood_scale: Annotated[
        Scale | dict[str, Scale],
        Field(description="a number above 0, learned, or one of both for each modality by name"),
    ]
    rescaling: Annotated[
        dict[str, Positive] | Literal["dimensions"] | None,
        Field(description="null, dimensions, or weights of the modalities by name"),
    ]
    networks: Annotated[
        dict[str, str], Field(description="networks of the modalities by name (`{}`: those of their kinds)")
    ]
    options: Sections

    @property
    def sizes(self) -> Options:
        """The settings that every model takes."""
        return self.model_dump(exclude={"model", "options"})

    @property
    def chosen(self) -> Options:
        """The options of the chosen model."""
        return dict(self.options[self.model])


class Train(Section):
    """The loop that trains the autoencoder."""

    epochs: Count
    batch_size: Count
    learning_rate: Positive
    warmup: NotNegative
    patience: NotNegative
    device: Annotated[
        str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:1")
    ]
    precision: Annotated[Literal["no", "bf16"], Field(description="no or bf16")]


class Encode(Section):
    """Encoding into latent codes; a posterior with more components than `components` is stored as draws."""

    components: Count


class Generate(Section):
    """The synthetic set of every density; `balance` gives label names their shares (null: as learned).

    A temperature below 1 draws with less noise; `truncation` q leaves out what is less likely than all but the share q
    of held-out codes.
    """

    samples: Count
    seed: Seed
    values: Annotated[Literal["mean", "draws"], Field(description="mean or draws")]
    temperature: Temperature
    truncation: Quantile
    balance: Annotated[
        dict[str, Annotated[float, Field(ge=0)]] | None,
        Field(description="null, or label names with their shares (numbers of at least 0)"),
    ]


class Evaluate(Section):
    """Scores of a synthetic set and their intervals."""

    resamples: Annotated[int, Field(ge=20, description="a whole number of at least 20")]
    neighbours: Count
    seed: Seed


class Privacy(Section):
    """The attack on samples: how many times the training rows are drawn, and the dimensions in which it sees them."""

    draws: Count
    dimensions: Count


class Recovery(Section):
    """What test rows are made to lack, and how often it is imputed."""

    draws: Annotated[int, Field(ge=19, description="a whole number of at least 19, for intervals of 90 %")]
    cells: Annotated[float, Field(gt=0, lt=1, description="a share above 0, below 1")]


class Utility(Section):
    """Classifiers that are trained on real or synthetic rows; the widths of their features are those of the judges."""

    seeds: Seeds
    steps: Count
    batch_size: Count
    learning_rate: Positive


class Augment(Section):
    """The augmentation curve: how few rows, and the autoencoder and density that they train.

    `steps` are the autoencoder's, whatever the number of rows; its other settings are those of `vae` and `train`.
    """

    sizes: Annotated[
        tuple[Count | Literal["all"], ...],
        Field(min_length=1, description="a list of numbers of rows, of which one may be all"),
    ]
    seeds: Seeds
    model: Name
    density: Name
    steps: Count


class Compare(Section):
    """The page that compares; `map` is the projection of the latent space that it shows."""

    map: Annotated[Literal["pca", "umap"], Field(description="pca or umap")]


class Fitting(Section):
    """What an entry of `density` may say of how it is fitted, beside the options of its kind.

    Args:
        kind: the density; the name of the entry when not given.
        independent: its blocks are fitted apart, one density each.
        rows: `all`, each encoded from the modalities it has, or `complete`, those that have every modality.
        labels: one density a label, or one that knows no labels.
    """

    kind: str
    independent: bool = False
    rows: Literal["all", "complete"] = "all"
    labels: bool = True


class Params(Section):
    """All settings of the pipeline, as params.yaml has them."""

    seed: Seed
    data: Data
    judge: Judge
    vae: Vae
    train: Train
    encode: Encode
    densities: Annotated[
        tuple[Name, ...], Field(min_length=1, description="a list of densities, at least one")
    ]
    density: Annotated[
        dict[Folder, Options],
        Field(description="names of letters, digits, - and _, each with its options (`{}` for none)"),
    ]
    generate: Generate
    evaluate: Evaluate
    utility: Utility
    privacy: Privacy
    recovery: Recovery
    augment: Augment
    compare: Compare

    def chosen(self, densities: Iterable[str]) -> dict[str, Any]:
        """The settings as a tree, without the options of sources, models and densities that are not chosen."""
        tree = self.model_dump()
        tree["data"] = {"source": self.data.source, self.data.source: self.data.options}
        tree["vae"]["options"] = {self.vae.model: self.vae.chosen}
        tree["density"] = {name: self.density.get(name, {}) for name in densities}
        return tree


def load_params(path: Path | str) -> Params:
    """The validated settings of a params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or a value is not what the schema expects.
    """
    path = Path(path)
    content = read_yaml(path)
    try:
        params = Params.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise UserError(f"{path.name}: {sentence(error, Params, content)}") from None
    _check_names(params, path.name)
    return params


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a tree by their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def check_model(params: Params) -> None:
    """Refuse an unknown model and options that it does not take."""
    from postprior.stage1_vae import MODELS

    model = pick(MODELS, params.vae.model, "vae.model", "model")
    given = {"modalities", "seed", *Vae.model_fields}
    check_options(model, params.vae.chosen, f"vae.options.{params.vae.model}", given)


def check_density(params: Params, name: str) -> None:
    """Refuse an entry of `density` that is missing, of no known kind, or with options that its kind does not take."""
    from postprior.stage2_latent import DENSITIES

    if name in params.density:
        read_entry(name, params.density[name])
        return
    pick({**DENSITIES, **params.density}, name, "density", "density")
    raise UserError(f"density.{name} is missing: add `{name}: {{}}` under `density`, or its options")


def read_entry(name: str, written: Options) -> tuple[Fitting, Options]:
    """How the entry `name` of `density` is fitted, and the options of its kind, both checked."""
    from postprior.stage2_latent import DENSITIES

    settings = {"kind": name, **written}
    key = f"density.{name}"
    place = f"{key}.kind" if "kind" in written else "density"
    density = pick(DENSITIES, str(settings["kind"]), place, "density")
    check_options(density, settings, key, base=Fitting)
    common = {option: value for option, value in settings.items() if option in Fitting.model_fields}
    options = {option: value for option, value in written.items() if option not in Fitting.model_fields}
    return Fitting(**common), options


def check_rows(params: Params, names: Sequence[str], key: str) -> None:
    """Refuse densities that cannot be rows of one leaderboard: no entry, twice there, or a name that is taken."""
    for name in names:
        if name in REFERENCE_ROWS:
            raise UserError(f"{key}: found '{name}', which is always scored; leave it out")
        _check_free(key, name)
        _check_entry(key, name, "density", params.density)
    if len(set(names)) < len(names):
        raise UserError(f"{key}: found a name twice in {', '.join(names)}; expected each once")


def pick(table: Mapping[str, T], name: str, key: str, what: str) -> T:
    """The entry `name` of a table; a UserError lists the names that it has."""
    if name not in table:
        raise UserError(
            f"{key}: found '{name}', which is no {what}{hint(name, table)}; known: {listed(table)}"
        )
    return table[name]


def check_options(
    constructor: Callable[..., Any],
    options: Options,
    key: str,
    given: Collection[str] = (),
    base: type[Section] = Section,
) -> None:
    """Check `options` against the signature of a constructor.

    Args:
        constructor: a class or function; its annotated parameters are the schema.
        options: what the user wrote under `key`.
        key: the dotted key, for the messages.
        given: parameters that the pipeline passes itself, no options.
        base: settings that may stand beside them.

    Raises:
        UserError: an option is unknown, missing or of another type.
    """
    hints = typing.get_type_hints(constructor.__init__ if inspect.isclass(constructor) else constructor)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = hints.get(name, Any)
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (kind, Field(default, description=words(kind)))
    schema = create_model("Options", __base__=base, **fields)
    try:
        schema.model_validate_json(json.dumps(options))
    except ValidationError as error:
        raise UserError(sentence(error, schema, options, prefix=key)) from None


def _check_names(params: Params, file: str) -> None:
    """Refuse names without a section of options: DVC tracks it, and a misspelt name shows at once."""
    extra = params.data.__pydantic_extra__ or {}
    wanted = [
        ("data.source", params.data.source, "data", extra),
        ("vae.model", params.vae.model, "vae.options", params.vae.options),
        ("augment.model", params.augment.model, "vae.options", params.vae.options),
        ("augment.density", params.augment.density, "density", params.density),
    ]
    for key, name, section, sections in wanted:
        _check_entry(f"{file}: {key}", name, section, sections)
    check_rows(params, params.densities, f"{file}: densities")
    for name in params.density:
        if name != "normal":  # which may be fitted, to be looked at
            _check_free(f"{file}: density", name, REFERENCE_ROWS)
    if params.generate.balance is not None and not sum(params.generate.balance.values()) > 0:
        raise UserError(f"{file}: generate.balance: found no share above 0; expected at least one, or null")


def _check_free(key: str, name: str, others: Sequence[str] = ()) -> None:
    """Refuse a density with the name of other results, which its own would replace."""
    if name in (*OTHER_RESULTS, *others):
        raise UserError(f"{key}: found '{name}', the name of another file of results; expected another name")


def _check_entry(key: str, name: str, section: str, sections: Mapping[str, Any]) -> None:
    if name not in sections:
        raise UserError(
            f"{key}: found '{name}', which has no entry under `{section}`{hint(name, sections)}; "
            f"expected one of {listed(sections)}"
        )
