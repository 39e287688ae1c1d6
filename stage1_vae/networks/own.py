"""User-defined encoders and decoders, with checks of what they return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from postprior.stage1_vae.imports import UserCodeError, file_of, import_class, running
from postprior.stage1_vae.modalities import Modality
from postprior.stage1_vae.networks.inputs import input_layer
from postprior.stage1_vae.randomness import seeded


class OwnNetwork(nn.Module):
    """Base class that comes before a user-defined class: it reports exceptions and outputs of a wrong type or shape.

    It adds neither parameters nor modules, so that the state is that of the user-defined class. A batch without rows
    does not reach the user's code.
    """

    own_place: ClassVar[str]
    own_file: ClassVar[str | None]
    own_modality: ClassVar[Modality]
    own_encodes: ClassVar[bool]

    def __init__(self, shape: tuple[int, ...], features: int, width: int) -> None:
        with running(self.own_place, "a class that is called as Network(shape, features, width)", self.own_file):
            super().__init__(shape, features, width)
            list(self.parameters())  # there are none if the constructor of nn.Module was not called
        self.own_sides = (tuple(shape), (features,)) if self.own_encodes else ((features,), tuple(shape))
        if any(map(is_lazy, self.parameters())):  # drawn now, from the seed of the model
            with torch.no_grad():
                self.eval()(torch.zeros(2, *self.own_sides[0]))
            self.train()

    def forward(self, values: Tensor) -> Tensor:
        """Map (B, *own_sides[0]) to (B, *own_sides[1])."""
        expected = (len(values), *self.own_sides[1])
        if not len(values):
            return values.new_zeros(expected)
        contract = f"a tensor of shape {expected} from one of shape {tuple(values.shape)}"
        with running(self.own_place, contract, self.own_file):
            output = super().forward(values)
        if not isinstance(output, Tensor) or output.shape != expected:
            found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"type {type(output).__name__}"
            raise UserCodeError(f"{self.own_place} returned a value of {found}, expected {contract}")
        return output

    def own_trial(self, values: Tensor) -> None:
        """Compute the output of values (B, *own_sides[0]) and its gradient; both must be possible and finite."""
        output = self(values)
        if output.dtype != values.dtype:
            raise UserCodeError(f"{self.own_place} returned values of {output.dtype}, expected {values.dtype}")
        if not bool(output.isfinite().all()):
            raise UserCodeError(f"{self.own_place} returned NaN or infinite values, expected finite numbers")
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if output.requires_grad and trained:
            with running(self.own_place, "an output that can be differentiated", self.own_file):
                torch.autograd.grad(output.sum(), trained, allow_unused=True)


def own_network(path: str, modality: Modality, encodes: bool) -> type[OwnNetwork]:
    """Import a user-defined encoder or decoder of a modality.

    Raises:
        ValueError: it cannot be imported, or is no subclass of torch.nn.Module.
    """
    base = import_class(path, nn.Module, "torch.nn.Module")
    about = {
        "__module__": base.__module__,
        "own_place": f"vae.networks of {modality.name}: the {'encoder' if encodes else 'decoder'} {path}",
        "own_file": file_of(base),
        "own_modality": modality,
        "own_encodes": encodes,
    }
    return type(base.__name__, (OwnNetwork, base), about)


def try_own_networks(model: nn.Module, examples: Mapping[str, Tensor]) -> None:
    """Run each user-defined network of a model on two rows in training mode and on one row in evaluation mode.

    This changes the buffers of networks such as batch normalisation, so that `model` is not to be trained afterwards.

    Args:
        model: a model that no one needs.
        examples: two values (2, *shape) of each modality, as encoders read them; none of a modality that no row has.

    Raises:
        UserCodeError: a network raises an exception, or returns a value of another type or shape, or NaN.
    """
    for training, rows in ((True, 2), (False, 1)):
        for network in model.train(training).modules():
            if isinstance(network, OwnNetwork) and network.own_modality.name in examples:
                values = input_layer(network.own_modality)(examples[network.own_modality.name])
                codes = torch.zeros(2, *network.own_sides[0])
                with seeded(0):
                    network.own_trial((values if network.own_encodes else codes)[:rows])
