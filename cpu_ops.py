"""Two operators of training that Paddle's CPU build computes slowly, written anew, and the noise of dropout.

In a profile of ERNIE nano Paddle's dropout, which draws 64 bits an element in one thread, took 10 % of the time, and
the gradient of GELU 6 %.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

_noise = np.random.Generator(np.random.SFC64(0))


@contextlib.contextmanager
def replacing_paddles() -> Iterator[None]:
    """Layers that are built meanwhile use this module's dropout and GELU. For training: exports need Paddle's."""
    functional: Any = F
    before = F.dropout, F.gelu
    functional.dropout, functional.gelu = dropout, gelu
    try:
        yield
    finally:
        functional.dropout, functional.gelu = before


def seed_noise(*key: int) -> None:
    """Make all dropout that follows a function of `key`, on every device."""
    global _noise
    _noise = np.random.Generator(np.random.SFC64(key))
    paddle.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def dropout(x, p=0.5, axis=None, training=True, mode="upscale_in_train", name=None, inplace=False):
    """`paddle.nn.functional.dropout` on a CPU, from 16 random bits an element: `p` is rounded to 1/65536."""
    if not training or p == 0:
        return x
    drawn = _noise.integers(0, 65536, size=x.shape, dtype=np.uint16)
    kept = (drawn >= round(p * 65536)).astype(np.float32)
    kept *= np.float32(1 / (1 - p))
    return x * paddle.to_tensor(kept)


def gelu(x, approximate=False, name=None):
    """`paddle.nn.functional.gelu`: x Phi(x), with Phi the cumulative distribution of the standard normal."""
    return _Gelu.apply(x)


class _Gelu(paddle.autograd.PyLayer):
    @staticmethod
    def forward(ctx, x):
        cumulative = paddle.erf(x * 0.5**0.5).scale_(0.5, bias=0.5)
        ctx.save_for_backward(x, cumulative)
        return x * cumulative

    @staticmethod
    def backward(ctx, gradient):
        x, cumulative = ctx.saved_tensor()
        density = (x * x).scale_(-0.5).exp_().scale_((2 * np.pi) ** -0.5)
        return density.multiply_(x).add_(cumulative).multiply_(gradient)
