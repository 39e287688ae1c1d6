"""A small table with columns of every kind, with and without associations."""

import numpy as np

from postprior.pipelines.data.dataset import Dataset
from postprior.stage1_vae.modalities import Column, Modality

COLUMNS = (
    Column("age", "normal"),
    Column("visits", "negative_binomial"),
    Column("group", "categorical", 3),
    Column("sex", "bernoulli"),
    Column("site", "categorical", 4),
)


def table(values, columns=COLUMNS, **rest):
    """A dataset with one table "t"."""
    values = np.asarray(values, np.float32)
    return Dataset((Modality("t", "table", (len(columns),), "columns", columns=columns),), {"t": values}, **rest)


def people(seed, rows=200, linked=True):
    """Columns that hang together, or the same columns without their ties."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, rows)
    age = rng.normal(size=rows) + 2 * group
    visits = rng.poisson(np.exp(0.8 * group))
    sex, site = rng.random(rows) < 0.2 + 0.3 * group, (group + (rng.random(rows) < 0.3)) % 4
    columns = [age, visits, group, sex, site]
    return np.stack(columns if linked else [rng.permutation(column) for column in columns], axis=1)
