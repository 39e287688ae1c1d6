"""A limit on the size of new tensors, for objects that are built from files of unknown origin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from torch import Tensor
from torch.overrides import TorchFunctionMode

CREATING = {"empty", "full", "ones", "rand", "randn", "zeros", "new_empty", "new_full", "new_ones", "new_zeros"}
"""Functions whose first argument, apart from the tensor itself, is the shape of their result."""


class AllocationLimit(TorchFunctionMode):
    """Raises a ValueError, before memory is taken, if new tensors in the block hold more than `most` numbers in all.

    >>> import torch
    >>> with AllocationLimit(1000):
    ...     torch.nn.Linear(10**12, 10**6)
    Traceback (most recent call last):
    ...
    ValueError: its sizes ask for a tensor of 1000000 × 1000000000000 numbers, expected at most 1000 in all
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.left = most, most

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the limit for an object that is rebuilt from these tensors: some times the numbers in them."""
        return cls(4 * sum(tensor.numel() for tensor in tensors.values()) + 10**6)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        shape = created(func, args, kwargs or {})
        self.left -= math.prod(shape)
        if self.left < 0:
            asked = " × ".join(map(str, shape))
            raise ValueError(f"its sizes ask for a tensor of {asked} numbers, expected at most {self.most} in all")
        return func(*args, **(kwargs or {}))


def created(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape of the tensor that a function creates from whole numbers; (0,) for other functions."""
    name = getattr(func, "__name__", "")
    if name in CREATING:
        sizes = args[1:] if name.startswith("new_") else args
        first = kwargs["size"] if "size" in kwargs else sizes[0]
        return tuple(first) if isinstance(first, Sequence) else tuple(size for size in sizes if isinstance(size, int))
    if name in ("arange", "eye", "linspace", "randperm"):
        longest = max(math.ceil(abs(size)) for size in args if isinstance(size, int | float))
        return (longest,) * (1 + (name == "eye"))
    return (0,)
