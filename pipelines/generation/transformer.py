"""A scikit-learn transformer that encodes tables of multimodal columns as joint latent codes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_feature_names_in, check_is_fitted, validate_data

from postprior.pipelines.artefacts.codes import ROWS
from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.data.names import keys_of
from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.class_numbers import classes_of, numbered
from postprior.pipelines.settings.names import pick
from postprior.pipelines.settings.options import check_options
from postprior.stage1_vae import training
from postprior.stage1_vae.modalities import COLUMNS, LOGARITHMIC, Column, Modality, support
from postprior.stage1_vae.model import MultimodalVAE
from postprior.stage1_vae.randomness import generator_for

Values = np.ndarray[Any, np.dtype[Any]]
Columns = Mapping[str, Sequence[int] | Sequence[str]]
ONLY = "x"  # name of the modality if no modalities are given
SCALED = ("normal", "laplace")  # likelihoods whose values are standardised
LIKELIHOODS = (*SCALED, "bernoulli", *LOGARITHMIC)
DRAWS = 32  # draws that approximate a posterior without a closed form


class MultimodalEncoder(TransformerMixin, BaseEstimator):
    """Train a multimodal autoencoder on the rows and encode each row as the posterior mean of its code.

    NaN marks a missing value. A row whose columns of a modality are all NaN lacks that modality, and its code is
    inferred from the other modalities. If rows lack single values of a modality, training hides more of them
    (`hide_cells` of `training.Settings`). Every row needs at least one value. Columns of normal and laplace modalities
    are standardised by their observed values, and the scales of these likelihoods are learned. Columns of texts and
    categories of a data frame are categorical, whatever the likelihood of their modality.

    Args:
        model: A name in `stage1_vae.MODELS`. Models with a joint encoder are trained on the complete rows and encode
            all rows.
        modalities: Columns of each modality, {name: indices or column names of X}. Every column belongs to exactly one
            modality. None: one modality, `x`, of all columns.
        likelihoods: Likelihood of all modalities, or by name; `normal` if a modality has none. One of `normal`,
            `laplace`, `bernoulli` (values from 0 to 1), `negative_binomial` and `zero_inflated_negative_binomial`
            (counts), `hurdle_lognormal` and `hurdle_softplus` (values of at least 0, of which many are 0; not in a
            modality with texts or categories).
        latent: Dimension D of the shared code.
        width: Width of the networks; hidden layers have eight times as many units.
        epochs, batch_size: Number of passes over the rows, and number of rows per step.
        learning_rate: Initial learning rate of AdamW; it decays to 0 along half a cosine.
        options: Options of the model, such as {"beta": 1.0}.
        device: Device of the training, `cpu`, `cuda`, `mps`, or `auto`: an accelerator if there is one. Rows are
            encoded on the CPU, in double precision.
        random_state: Seed of the initial weights, the order of rows and the posterior draws. None takes a seed from
            NumPy's global generator, as usual in scikit-learn.

    Attributes:
        columns_: Indices of the columns of each modality, by name.
        classes_: Classes of the columns of texts and categories, by index of the column.
        scaler_: The StandardScaler of the columns.
        model_: The trained autoencoder, in double precision.
        loss_curve_: Mean loss per row of each epoch.
        n_features_in_, feature_names_in_: Number and names of the columns of X, as usual in scikit-learn.

    Example:
        >>> X = np.random.default_rng(0).normal(size=(40, 5))
        >>> X[:10, 3:] = np.nan
        >>> encoder = MultimodalEncoder(modalities={"a": [0, 1, 2], "b": [3, 4]}, latent=2, width=2, epochs=1)
        >>> encoder.fit_transform(X).shape
        (40, 2)
    """

    def __init__(
        self,
        model: str = "mvtcae",
        *,
        modalities: Columns | None = None,
        likelihoods: str | Mapping[str, str] = "normal",
        latent: int = 8,
        width: int = 16,
        epochs: int = 100,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        options: Mapping[str, Any] | None = None,
        device: str = "cpu",
        random_state: Any = 0,
    ) -> None:
        self.model = model
        self.modalities = modalities
        self.likelihoods = likelihoods
        self.latent = latent
        self.width = width
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.options = options
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train the autoencoder on X (n, columns); y is ignored.

        Raises:
            ValueError: An argument or a value of X is invalid, or the loss diverges.
        """
        classes = classes_of(X)
        X = validate_data(self, numbered(X, classes), dtype=np.float64, ensure_all_finite="allow-nan")
        self.classes_ = classes
        if (empty := np.isnan(X).all(0)).any():
            name = getattr(self, "feature_names_in_", range(X.shape[1]))[int(np.argmax(empty))]
            raise ValueError(f"X: column {name} holds only NaN, expected at least one value; leave it out")
        self.columns_ = self._read_columns()
        self._modalities = self._read_modalities()
        self.scaler_ = StandardScaler().set_output(transform="default").fit(X)
        self._seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        data = self._dataset(X)
        model = self._build(data)
        settings = training.Settings(
            self.epochs, self.batch_size, self.learning_rate, seed=self._seed, device=self._checked_device()
        )
        try:
            self.loss_curve_ = [epoch.metrics["train_loss"] for epoch in training.train(model, data, settings)]
        except FloatingPointError:
            raise ValueError("fit: the loss is no longer finite; lower learning_rate") from None
        # In double precision, the code of a row does not depend on which other rows are encoded in the same batch.
        self.model_ = model.cpu().double().requires_grad_(False)
        self.model_.zero_grad()
        return self

    def transform(self, X: Any) -> Values:
        """Return posterior means of the codes of X (n, columns): (n, D), including private codes if the model has them.

        The private code of a missing modality is the mean of its prior. A row always has the same code, except with
        `jnf` if the row lacks modalities: that code is a mean of draws.

        Raises:
            ValueError: A value of X is invalid.
        """
        check_is_fitted(self)
        X = numbered(X, self.classes_)
        X = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        data, generator = self._dataset(X), generator_for("cpu", self._seed)
        components = max(DRAWS, 2 ** len(self._modalities))  # no posterior has more
        batches = (data.batch(slice(start, start + ROWS)) for start in range(0, len(X), ROWS))
        with torch.no_grad():
            means = [self.model_.encode(b.to("cpu", torch.float64), generator, components).mean for b in batches]
        return torch.cat(means).numpy()

    def get_feature_names_out(self, input_features: Any = None) -> Values:
        """Return the names of the coordinates: z_0, …, and w_<modality>_0, … of private codes."""
        check_is_fitted(self)
        _check_feature_names_in(self, input_features, generate_names=False)
        names = [f"{block.name}_{index}" for block in self.model_.layout for index in range(block.size)]
        return np.array(names, dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def _read_columns(self) -> dict[str, Values]:
        """Return the column indices of each modality; check that every column belongs to exactly one modality."""
        count = self.n_features_in_
        if self.modalities is None:
            return {ONLY: np.arange(count)}
        names = list(getattr(self, "feature_names_in_", range(count)))
        index_of = {index: index for index in range(count)} | {name: index for index, name in enumerate(names)}
        for name, columns in self.modalities.items():
            for column in columns:
                if column not in index_of:
                    raise ValueError(
                        f"modalities: {name}: found column {column!r}, expected an index below {count} or the name of "
                        "a column of X"
                    )
        indices = {name: [index_of[column] for column in columns] for name, columns in self.modalities.items()}
        times = np.bincount(np.array([i for some in indices.values() for i in some], int), minlength=count)
        if (wrong := np.flatnonzero(times != 1)).size:
            raise ValueError(
                f"modalities: found column {names[wrong[0]]!r} in {times[wrong[0]]} places, expected every column of X "
                "in exactly one; remove columns from X that belong to no modality"
            )
        return {name: np.array(columns, int) for name, columns in indices.items()}

    def _read_modalities(self) -> tuple[Modality, ...]:
        """Describe the columns as modalities of the model."""
        given = self.likelihoods
        by_name = dict(given) if isinstance(given, Mapping) else dict.fromkeys(self.columns_, given)
        if unknown := [name for name in by_name if name not in self.columns_]:
            raise ValueError(f"likelihoods: found modality {unknown[0]!r}, expected one of {', '.join(self.columns_)}")
        for name, likelihood in by_name.items():
            if likelihood not in LIKELIHOODS:
                raise ValueError(f"likelihoods: {name}: found {likelihood!r}, expected one of {', '.join(LIKELIHOODS)}")
        keys = keys_of(self.columns_)
        return tuple(
            self._table(keys[name], name, by_name.get(name, "normal"))
            if self.classes_.keys() & set(columns.tolist())
            else Modality(keys[name], "vector", (len(columns),), by_name.get(name, "normal"), title=name)
            for name, columns in self.columns_.items()
        )

    def _table(self, key: str, name: str, likelihood: str) -> Modality:
        """Describe columns of which some have classes as a table."""
        columns = []
        for index in self.columns_[name].tolist():
            classes = self.classes_.get(index)
            own, count = (likelihood, None) if classes is None else ("categorical", len(classes))
            if own not in COLUMNS:
                expected = f"expected one of {', '.join(COLUMNS)} beside texts and categories"
                raise ValueError(f"likelihoods: {name}: found {likelihood!r}, {expected}; split the modality")
            columns.append(Column(str(self.feature_names_in_[index]), own, count))
        return Modality(key, "table", (len(columns),), "columns", columns=tuple(columns), title=name)

    def _dataset(self, X: Values) -> Dataset:
        """Build the dataset that the model is trained on; missing values are set to 0."""
        has_value, standardised = ~np.isnan(X), self.scaler_.transform(X)
        if not (not_empty := has_value.any(1)).all():
            raise ValueError(
                f"X: row {int(np.argmin(not_empty))} holds only NaN, expected at least one value in every row; "
                "leave it out"
            )
        data, cells = {}, {}
        observed = np.stack([has_value[:, columns].any(1) for columns in self.columns_.values()], 1)
        for m, modality in enumerate(self._modalities):
            columns = self.columns_[modality.title]
            scaled = np.array([likelihood in SCALED for likelihood, _ in _likelihoods(modality)])
            values = np.where(scaled, standardised[:, columns], X[:, columns])
            data[modality.name] = np.nan_to_num(values, nan=0.0).astype(np.float32)
            _check_support(modality, values)
            if not has_value[np.ix_(observed[:, m], columns)].all():
                cells[modality.name] = has_value[:, columns]
        return Dataset(self._modalities, data, observed, cells)

    def _checked_device(self) -> str:
        """Return the device, after a check that torch has it."""
        try:
            return self.device if self.device == "auto" else str(torch.empty(0, device=self.device).device)
        except (RuntimeError, AssertionError):
            expected = "expected auto, cpu, or an accelerator of this machine such as cuda"
            raise ValueError(f"device: found {self.device!r}, {expected}") from None

    def _build(self, data: Dataset) -> MultimodalVAE:
        """Build the untrained model; modalities with missing cells are marked as partial."""
        from postprior.stage1_vae.models import MODELS

        options = dict(self.options or {})
        try:
            constructor = pick(MODELS, self.model, "model", "model")
            check_options(constructor, options, "options", given=("modalities",))
        except UserError as error:
            raise ValueError(str(error)) from None
        modalities = [replace(m, partial=m.name in data.cells) for m in data.modalities]
        sizes: dict[str, Any] = {"latent": self.latent, "width": self.width}
        return constructor(modalities, **sizes, likelihood_scale="learned", seed=self._seed, **options)


def _check_support(modality: Modality, values: Values) -> None:
    """Raise a ValueError if values (n, columns) lie outside the support of the likelihood; NaN is allowed."""
    for (likelihood, classes), column in zip(_likelihoods(modality), values.T, strict=True):
        low, high, whole = support(likelihood, classes)
        wrong = (column < low) | (column > high) | (whole & (column != np.rint(column)) & ~np.isnan(column))
        if wrong.any():
            numbers = "whole numbers" if whole else "numbers"
            bounds = f"from {low:g}" + (f" to {high:g}" if np.isfinite(high) else "")
            raise ValueError(
                f"X: modality {modality.title} holds {column[wrong][0]:g}, expected {numbers} {bounds} for likelihood "
                f"{likelihood}"
            )


def _likelihoods(modality: Modality) -> list[tuple[str, int | None]]:
    """Return the likelihood and the number of classes of each column."""
    if modality.columns:
        return [(column.likelihood, column.classes) for column in modality.columns]
    return [(modality.likelihood, modality.classes)] * modality.shape[0]
