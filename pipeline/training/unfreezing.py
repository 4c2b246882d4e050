"""Which layers learn in which epoch of a transfer, and at which learning rates (ULMFiT, arXiv 1801.06146)."""

import logging
from collections.abc import Sequence

import keras

from pipeline.models.transfer import Group
from pipeline.training.optimizers import share_rates

log = logging.getLogger(__name__)


class Unfreezing:
    """The head learns alone, then the groups below it join it one by one, each at a lower rate than the one above.

    A frozen layer gets no gradient and no weight decay, and a frozen batch norm computes with its moving statistics,
    which stay. Where a group joins, the optimizer starts afresh: Adam counts steps to correct its moments, and would
    let variables jump that have taken none.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        optimizer: keras.Optimizer,
        *,
        head_epochs: int,
        every: int | None,
        factor: float,
    ) -> None:
        """Slow the optimizer, which was built for all variables of these layers, from each group to the next.

        Args:
            groups: from the head downward.
            every: epochs from one group to the next; 0 lets all join at once, None none.
            factor: of a group's learning rate, for the group below it.
        """
        self.groups, self.head_epochs, self.every, self.factor = groups, head_epochs, every, factor
        self._learning = 0
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        self._initial = [(variable, variable.numpy()) for variable in inner.variables]
        shares = {
            id(variable): factor**depth
            for depth, group in enumerate(groups)
            for layer in group.layers
            for variable in layer.trainable_variables
        }
        share_rates(optimizer, [shares[id(variable)] for variable in inner._trainable_variables])

    @property
    def settled(self) -> int:
        """The number of epochs after which no group joins any more."""
        joining = len(self.groups) - 1
        return 0 if self.every is None or not joining else self.head_epochs + self.every * (joining - 1)

    def learning(self, epoch: int) -> int:
        """Return how many groups learn in an epoch (0 is the first)."""
        if self.every is None or epoch < self.head_epochs:
            return 1
        joined = 1 + (epoch - self.head_epochs) // self.every if self.every else len(self.groups)
        return min(1 + joined, len(self.groups))

    def begin(self, epoch: int, *, whole: bool) -> bool:
        """Freeze the layers that do not learn in an epoch, and say whether these are others than at the last call.

        Args:
            whole: the epoch begins, and does not go on where a run was interrupted.
        """
        learning = self.learning(epoch)
        if whole and epoch and learning != self.learning(epoch - 1):
            for variable, value in self._initial:
                variable.assign(value)
        if learning == self._learning:
            return False
        for depth, group in enumerate(self.groups):
            for layer in group.layers:
                layer.trainable = depth < learning
        rates = [f"{group.name} × {self.factor**depth:.3g}" for depth, group in enumerate(self.groups[:learning])]
        log.info("from epoch %d on these learn: %s", epoch + 1, ", ".join(rates))
        self._learning = learning
        return True

    def end(self) -> None:
        """Thaw all layers, so that the model is like any other."""
        for group in self.groups:
            for layer in group.layers:
                layer.trainable = True
