"""The code of a registered generator: what `mlflow.pyfunc.load_model` runs in place of unpickling an object."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from postprior.pipelines.errors import UserError
from postprior.pipelines.generation.generator import Generator

COLUMNS = ("label", "count")  # of the table that asks for labels


class Served(PythonModel):
    """A generator whose input is a table of labels and counts, and whose output is a dictionary of arrays."""

    generator: Generator

    def load_context(self, context: Any) -> None:
        """Load the density and the autoencoder that were registered."""
        self.generator = Generator.load(context.artifacts["density"], context.artifacts["autoencoder"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> dict[str, np.ndarray]:
        """Whole samples, as `Generator.sample` draws them.

        Args:
            model_input: a row for each label that is asked for, with columns `label` (its name) and `count`; an empty
                table for labels as the density learned them.
            params: `n`, the number of samples where the table is empty; `seed`; `temperature`.
        """
        asked, settings = counts(model_input), dict(params or {})
        n = settings.pop("n", None)
        drawn = self.generator.sample(None if asked else n, labels=asked, **settings)
        return dict(drawn.data) if drawn.labels is None else {**drawn.data, "labels": drawn.labels}


def counts(table: pd.DataFrame) -> dict[str, int] | None:
    """Counts by label, None of an empty table.

    >>> counts(pd.DataFrame({"label": ["3", "8", "3"], "count": [1, 2, 4]}))
    {'3': 5, '8': 2}
    """
    if table.empty:
        return None
    if missing := set(COLUMNS) - set(table.columns):
        raise UserError(f"labels: found a table without {' and '.join(sorted(missing))}, expected label and count")
    found: dict[str, int] = {}
    for label, count in zip(table["label"].astype(str), table["count"], strict=True):
        found[label] = found.get(label, 0) + int(count)
    return found


set_model(Served())
