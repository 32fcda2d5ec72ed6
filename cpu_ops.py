"""Operators of training that Paddle's CPU build computes slowly, written anew, and the noise of dropout.

In a profile of ERNIE nano Paddle's dropout, which draws 64 bits an element in one thread, took 10 % of the time, the
gradient of GELU 6 %, and that of the embedding, which Paddle makes and adds up in the size of the whole vocabulary for
each chunk of a step, 15 %.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
from paddle.nn import functional as F

_paddles_embedding = F.embedding


class _OfThread(threading.local):
    noise = np.random.Generator(np.random.SFC64(0))
    lookups: list[Lookup] | None = None


_here = _OfThread()


@dataclass
class Lookup:
    """Rows that were taken out of an embedding's table: a leaf of the graph, which gathers their gradient."""

    table: paddle.Tensor
    ids: paddle.Tensor
    rows: paddle.Tensor
    padding_idx: int | None


@contextlib.contextmanager
def replacing_paddles() -> Iterator[None]:
    """Layers use this module's operators meanwhile. For training: exports need Paddle's."""
    functional: Any = F
    before = F.dropout, F.gelu, F.embedding
    functional.dropout, functional.gelu, functional.embedding = dropout, gelu, embedding
    try:
        yield
    finally:
        functional.dropout, functional.gelu, functional.embedding = before


def seed_noise(*key: int) -> None:
    """Make all dropout that follows in this thread a function of `key`, on every device."""
    _here.noise = np.random.Generator(np.random.SFC64(key))
    paddle.seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def dropout(x, p=0.5, axis=None, training=True, mode="upscale_in_train", name=None, inplace=False):
    """`paddle.nn.functional.dropout` on a CPU, from 16 random bits an element: `p` is rounded to 1/65536."""
    if not training or p == 0:
        return x
    words = _here.noise.integers(0, 2**64, size=x.size // 4 + 1, dtype=np.uint64)  # faster than 16 bits each
    kept = (words.view(np.uint16)[: x.size].reshape(x.shape) >= round(p * 65536)).astype(np.float32)
    kept *= np.float32(1 / (1 - p))
    return x * paddle.to_tensor(kept)


@contextlib.contextmanager
def remembering_lookups() -> Iterator[list[Lookup]]:
    """Embeddings that this thread computes meanwhile give no gradient to their tables, but list what they took."""
    lookups: list[Lookup] = []
    _here.lookups = lookups
    try:
        yield lookups
    finally:
        _here.lookups = None


@paddle.no_grad()
def sum_gradients(lookups: list[Lookup]) -> list[tuple]:
    """(table, ids, gradient of these rows of the table) of each lookup, once its rows have their gradient.

    Summed over the tokens that are equal: kept for all chunks of a large batch, those of every token would fill memory.
    """
    summed = []
    for taken in lookups:
        assert taken.rows.grad is not None
        ids, place = np.unique(taken.ids.numpy(), return_inverse=True)
        gradient = taken.rows.grad.reshape([-1, taken.table.shape[1]])
        rows = paddle.zeros([len(ids), taken.table.shape[1]])
        gradient = paddle.index_add(rows, paddle.to_tensor(place.ravel()), 0, gradient)
        if taken.padding_idx is not None:
            gradient *= paddle.to_tensor((ids != taken.padding_idx).astype(np.float32)[:, None])
        summed.append((taken.table, paddle.to_tensor(ids), gradient))
    return summed


@paddle.no_grad()
def add_gradients(summed: list[tuple]) -> None:
    """Add what `sum_gradients` found to the gradients of the tables."""
    for table, ids, gradient in summed:
        if table.grad is None:
            table.grad = paddle.zeros_like(table)
        paddle.index_add_(table.grad, ids, 0, gradient)


def embedding(x, weight, padding_idx=None, *args, **kwargs):
    """`paddle.nn.functional.embedding`; see `remembering_lookups`."""
    if _here.lookups is None or not paddle.is_grad_enabled() or weight.stop_gradient:
        return _paddles_embedding(x, weight, padding_idx, *args, **kwargs)
    rows = _paddles_embedding(x, weight.detach(), padding_idx, *args, **kwargs)
    rows.stop_gradient = False
    _here.lookups.append(Lookup(weight, x, rows, padding_idx))
    return rows


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
        density = (x * x).scale_(-0.5, bias=-0.5 * math.log(2 * math.pi)).exp_()
        return density.multiply_(x).add_(cumulative).multiply_(gradient)
