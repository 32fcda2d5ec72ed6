"""A model in several threads side by side.

Most of Paddle's CPU operators compute in one thread, so that two threads inside each operator gain 15 to 30 % where two
chunks side by side gain 75 %. Each thread has a copy of the model that shares the weights' memory and collects
gradients of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Callable

import paddle
from paddle import nn


class Replicas:
    """A model and copies of it.

    Args:
        model: the only one that an optimizer may change; the copies follow, since its memory is theirs.
        count: models in all, each in a thread of its own. One works in the calling thread.
    """

    def __init__(self, model: nn.Layer, count: int) -> None:
        self.models = [model, *(_copy(model) for _ in range(count - 1))]
        self.pool = ThreadPoolExecutor(count)
        self.halted = False

    def run(self, function: Callable[[nn.Layer, int], Any], shares: Sequence[Sequence[int]]) -> list:
        """`function(model, number)` for the numbers of each share, in their order; a share is one model's.

        Returns:
            What came out, in the order of the numbers, which are 0, 1, ...
        """
        results: dict[int, Any] = {}

        def work(model: nn.Layer, share: Sequence[int]) -> None:
            for number in share:
                if self.halted:
                    return
                results[number] = function(model, number)

        if len(self.models) == 1:
            work(self.models[0], shares[0])
        else:
            working = [self.pool.submit(work, model, share) for model, share in zip(self.models, shares)]
            try:
                for future in working:
                    future.result()
            except BaseException:  # Terminated and KeyboardInterrupt too: nothing may work on behind what follows
                self.halted = True
                wait(working)
                raise
        return [results[number] for number in range(len(results))]

    @paddle.no_grad()
    def sum_gradients(self) -> None:
        """Add the gradients of the copies to the model's, and make theirs zero."""
        for replica in self.models[1:]:
            for own, other in zip(self.models[0].parameters(), replica.parameters()):
                if other is not own and other.grad is not None:
                    assert own.grad is not None  # the model itself has the first chunk
                    own.grad.add_(other.grad)
                    other.clear_gradient()

    def train(self) -> None:
        """Put all of them into training mode."""
        for model in self.models:
            model.train()


def _copy(model: nn.Layer) -> nn.Layer:
    replica = copy.deepcopy(model)
    for layer, other in zip(model.sublayers(), replica.sublayers()):
        if isinstance(layer, nn.Embedding):  # its gradient is not collected here, see cpu_ops.remembering_lookups
            other.weight = layer.weight
    for weight, shared in zip(model.parameters(), replica.parameters()):
        if shared is not weight:
            weight._share_buffer_to(shared)
    return replica
