"""User-defined extractors that fail: one sentence with the setting, the class, the line and what was expected."""

import re

import numpy as np
import pytest
import torch
from support.extractor import Moments

from postprior.pipelines.data.dataset import Dataset
from postprior.pipelines.errors import UserError
from postprior.pipelines.metrics.features.evaluators import fit_extractor
from postprior.pipelines.metrics.features.extractor import Extractor
from postprior.stage1_vae.imports import UserCodeError
from postprior.stage1_vae.modalities import Modality

DATA = Dataset(
    (Modality("a", "vector", (3,), "normal"),),
    {"a": np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)},
)


class NoFeatures(Extractor):
    def fit(self, dataset):
        return self


class NoSeed(Moments):
    def __init__(self, modalities):
        super().__init__(modalities, 2)


class FitRaises(Moments):
    def fit(self, dataset):
        raise ZeroDivisionError("none left")


class FitReturnsNothing(Moments):
    def fit(self, dataset):
        super().fit(dataset)


class FeaturesRaise(Moments):
    def features(self, name, values):
        return {}[name]


class Spoilt(Moments):
    """Features that a function of a subclass spoils."""

    def features(self, name, values):
        return self.spoil(super().features(name, values))


class Array(Spoilt):
    spoil = staticmethod(torch.Tensor.numpy)


class Flat(Spoilt):
    spoil = staticmethod(torch.flatten)


class Whole(Spoilt):
    spoil = staticmethod(torch.Tensor.long)


class NotANumber(Spoilt):
    spoil = staticmethod(lambda features: features / 0 * 0)


class OfTheBlock(Spoilt):
    spoil = staticmethod(lambda features: features - features.mean(0))


class Forgets(Moments):
    def fit(self, dataset):
        self.mean = 3.0
        return super().fit(dataset)

    def features(self, name, values):
        return super().features(name, values) + self.mean


class Loses(Forgets):
    mean = 0.0


@pytest.mark.parametrize(
    ("name", "did"),
    [
        (
            "NoSeed",
            r"raised TypeError: .* takes 2 positional .* \(FILE\), expected .* Extractor\(modalities, features, seed",
        ),
        ("FitRaises", r"raised ZeroDivisionError: none left \(FILE, line \d+\), expected that fit\(dataset\) returns"),
        ("FitReturnsNothing", r": fit returned a NoneType, expected the extractor itself"),
        (
            "FeaturesRaise",
            r"raised KeyError: 'a' \(FILE, line \d+\), expected .* \(256, features\) from .* \(256, 3\) of a",
        ),
        ("Array", ": features returned a value of type ndarray, expected finite numbers of shape"),
        ("Flat", r": features returned a tensor of shape \(512,\), expected finite numbers of shape \(256, features\)"),
        ("Whole", ": features returned a tensor of torch.int64, expected finite numbers"),
        ("NotANumber", ": features returned NaN or infinite values, expected finite numbers"),
        ("OfTheBlock", ": the features of a row of a change with the other rows of its block"),
        (
            "Forgets",
            "raised AttributeError: .* has no attribute 'mean' .*; keep all that fit learns in parameters and buf",
        ),
        ("Loses", ": found other features of a from its state, expected the same; keep all that fit learns in param"),
    ],
)
def test_an_extractor_that_fails_is_told_where_it_is_fitted(name, did):
    with pytest.raises(UserCodeError) as error:
        fit_extractor(f"{__name__}:{name}", DATA, 4, 0, None)
    did = did.replace("FILE", re.escape(__file__))
    assert re.match(f"evaluators.extractor: {re.escape(__name__)}:{name} ?{did}", str(error.value))
    assert "\n" not in str(error.value)


def test_a_class_without_features_is_refused():
    with pytest.raises(
        UserError, match=r"evaluators.extractor: '.*:NoFeatures' does not define features, expected a cla"
    ):
        fit_extractor(f"{__name__}:NoFeatures", DATA, 4, 0, None)
