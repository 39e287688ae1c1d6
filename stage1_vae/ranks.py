"""Ranks: the processes of one job, each of which computes some rows of every batch.

Losses and gradients are sums over rows, and ranks add these sums. The steps of R ranks are therefore those of a single
process up to rounding, whatever rows each of them has. All ranks have the same sums, and take the same step.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn

from postprior.stage1_vae.randomness import SharedGenerator


@dataclass(frozen=True)
class Ranks:
    """The place of a process in its job.

    With a `size` above 1, the default process group of torch.distributed must have been started; all ranks then call
    the same methods in the same order.

    Args:
        rank: number of this process, from 0 to size − 1.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone writes files."""
        return self.rank == 0

    def generator(self, generator: torch.Generator) -> torch.Generator:
        """Return a generator with the same state from which `part` lets each rank draw the noise of its own rows."""
        return generator if self.size == 1 else SharedGenerator.of(generator)

    def part(self, rows: Tensor, generator: torch.Generator, together: bool = False) -> tuple[Tensor, float]:
        """Return the rows of a batch (B,) that this rank computes, and the weight of their losses; prepare their noise.

        The weight is 1, or 0 for rows that another rank computes as well: a rank without rows of its own takes one of
        another rank, and `together`, for losses that are statistics of the batch, each rank takes the whole batch.
        """
        count, weight = len(rows), 1.0
        first, last = count * self.rank // self.size, count * (self.rank + 1) // self.size
        if together:
            first, last, weight = 0, count, float(self.is_first)
        elif first == last:
            first, last, weight = 0, 1, 0.0
        if isinstance(generator, SharedGenerator):
            generator.total, generator.rows = count, slice(first, last)
        return rows[first:last], weight

    def add(self, values: Tensor) -> Tensor:
        """Return the sum over the ranks of values of the same shape and type.

        Raises:
            ConnectionError: another rank has ended or cannot be reached.
        """
        if self.size > 1:
            with self._connected():
                distributed.all_reduce(values)
        return values

    def add_gradients(self, parameters: Sequence[nn.Parameter], losses: Tensor) -> Tensor:
        """Replace the gradient of each parameter by its sum over the ranks; also return the sum of all losses.

        In a job of one process, return the losses as they are.
        """
        if self.size == 1:
            return losses
        pieces = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        has = pieces[0].new_tensor([p.grad is not None for p in parameters])  # without a gradient, a step changes none
        flat = [piece.flatten() for piece in pieces]
        total = self.add(torch.cat([*flat, has, losses.detach().sum().to(has).reshape(1)]))
        *sums, has, loss = total.split([*map(len, flat), len(has), 1])
        for parameter, piece, value, there in zip(parameters, pieces, sums, has.tolist(), strict=True):
            parameter.grad = piece.copy_(value.view_as(piece)) if there else None
        return loss

    def align(self, model: nn.Module) -> None:
        """Give all ranks the parameters and buffers of rank 0, which other processors may have rounded differently."""
        if self.size == 1:
            return
        by_type: dict[torch.dtype, list[Tensor]] = {}
        for tensor in model.state_dict().values():
            by_type.setdefault(tensor.dtype, []).append(tensor)
        for tensors in by_type.values():
            flat = torch.cat([tensor.flatten() for tensor in tensors])
            with self._connected():
                distributed.broadcast(flat, 0)
            for tensor, values in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def from_first(self, content: bytes = b"") -> bytes:
        """Return the content that rank 0 gives to all ranks."""
        if self.size == 1:
            return content
        length = torch.tensor([len(content)])
        with self._connected():
            distributed.broadcast(length, 0)
            given = torch.zeros(int(length), dtype=torch.uint8)
            if self.is_first:
                given = torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else given
            distributed.broadcast(given, 0)
        return given.numpy().tobytes()

    def wait(self) -> None:
        """Wait until all ranks have come here."""
        self.add(torch.zeros(1))

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Turn the error of a collective call into a ConnectionError."""
        try:
            yield
        except RuntimeError as error:
            raise ConnectionError(
                f"rank {self.rank} of {self.size}: another rank has ended or cannot be reached ({brief(error)}), "
                "expected all ranks to run; start the job again, and it goes on from what is done"
            ) from error


def brief(error: Exception) -> str:
    """Return what an error of torch.distributed says, without the place in its code and without advice.

    >>> brief(RuntimeError("[/a/pair.cc:553] Connection closed by peer [127.0.0.1]:57494. This is typically …"))
    'Connection closed by peer [127.0.0.1]:57494'
    """
    return re.sub(r"^\[\S*:\d+\] |[.,] This .*|\n.*", "", str(error).strip(), flags=re.DOTALL)


ALONE = Ranks()
"""A job of one process."""
