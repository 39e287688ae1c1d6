"""Axes of the values of an array, in the order of the source and with channels first."""

import numpy as np

from postprior.pipelines.data.arrays import Values

AXES = {
    **dict.fromkeys(("", "X"), "vector"),
    **dict.fromkeys(("HW", "HWC", "CHW"), "image"),
    **dict.fromkeys(("DHW", "DHWC", "CDHW"), "volume"),
}
"""Axes of one value in the source, and the kind of modality that they define."""


def channels_first(array: Values, axes: str) -> Values:
    """Move the channels of values (n, …) with the given axes to axis 1: (n, channels, …), a vector (n, X)."""
    if axes.endswith("C"):
        return np.moveaxis(array, -1, 1)
    return array[:, None] if axes in ("", "HW", "DHW") else array


def channels_back(array: Values, axes: str) -> Values:
    """Invert `channels_first`."""
    if axes.endswith("C"):
        return np.moveaxis(array, 1, -1)
    return array[:, 0] if axes in ("", "HW", "DHW") else array
