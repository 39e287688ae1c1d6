"""How every evaluator is trained: Adam over one cycle of the learning rate."""

from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR


class Descent:
    """Steps down the losses of a module's parameters, the learning rate rising and falling once (OneCycleLR).

    Args:
        module: whose parameters are trained; it is put into training.
        rate: the learning rate at the top of its cycle.
        steps: their number, two at least.
        decay: decoupled decay of the weights (AdamW); none by default.
    """

    def __init__(self, module: nn.Module, rate: float, steps: int, decay: float = 0.0) -> None:
        module.train()
        self.optimiser = AdamW(module.parameters(), rate, weight_decay=decay, foreach=True)
        self.schedule = OneCycleLR(self.optimiser, rate, total_steps=max(2, steps))

    def step(self, loss: Tensor) -> None:
        """One step down a loss."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
