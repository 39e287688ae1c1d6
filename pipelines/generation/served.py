"""The code of a registered generator; `mlflow.pyfunc.load_model` runs it instead of unpickling an object."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator

COLUMNS = ("label", "count")  # columns of the input table


class ServedGenerator(PythonModel):
    """A generator that takes a table of labels and counts and returns a dictionary of arrays."""

    generator: Generator

    def load_context(self, context: Any) -> None:
        """Load the registered density and autoencoder."""
        self.generator = Generator.load(context.artifacts["density"], context.artifacts["autoencoder"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Draw samples with `Generator.sample`.

        Samples that lack values have the arrays `mask` and `<modality>.observed` of a dataset folder.

        Args:
            model_input: A table with the columns `label` (name of a label) and `count` (number of samples). If it is
                empty, the density draws the labels.
            params: `n`, the number of samples if the table is empty; `seed`; `temperature`; `complete`.
        """
        labels, settings = counts(model_input), dict(params or {})
        n = settings.pop("n", None)
        drawn = self.generator.sample(None if labels else n, labels=labels, **settings)
        return {name: np.asarray(array) for name, array in drawn.arrays.items()}


def counts(table: pd.DataFrame) -> dict[str, int] | None:
    """Return counts by label; None if the table is empty.

    >>> counts(pd.DataFrame({"label": ["3", "8", "3"], "count": [1, 2, 4]}))
    {'3': 5, '8': 2}
    """
    if table.empty:
        return None
    if missing := set(COLUMNS) - set(table.columns):
        raise UserError(
            f"labels: found no column {' and '.join(sorted(missing))}, expected the columns label and count"
        )
    totals: dict[str, int] = {}
    for label, count in zip(table["label"].astype(str), table["count"], strict=True):
        totals[label] = totals.get(label, 0) + int(count)
    return totals


set_model(ServedGenerator())
