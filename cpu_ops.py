"""Operators of training that Paddle's CPU build computes slowly, written anew, and the noise of dropout.

In a profile of ERNIE nano Paddle's dropout, which draws 64 bits an element in one thread, took 10 % of the time, the
gradients of GELU and of layer normalization 6 and 8 %, and that of the embedding, which Paddle makes and adds up in the
size of the whole vocabulary for each chunk of a step, 15 %; in one of 4 x 256 the biases' gradients took 9 %.
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
from paddle.nn.layer import norm as norm_layers

_paddles_embedding, _paddles_layer_norm, _paddles_linear = F.embedding, F.layer_norm, F.linear


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
    layers: Any = norm_layers  # whose LayerNorm has taken the name of the function along
    before = F.dropout, F.gelu, F.embedding, F.linear, layers.layer_norm
    functional.dropout, functional.gelu, functional.embedding, functional.linear, layers.layer_norm = (
        dropout, gelu, embedding, linear, layer_norm)
    try:
        yield
    finally:
        functional.dropout, functional.gelu, functional.embedding, functional.linear, layers.layer_norm = before


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


def linear(x, weight, bias=None, name=None):
    """`paddle.nn.functional.linear`: x W + b."""
    return _paddles_linear(x, weight) if bias is None else _Linear.apply(x, weight, bias)


class _Linear(paddle.autograd.PyLayer):
    """Sums over an axis are products with a vector, and what is broadcast is written out: several times as fast."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        product = x @ weight
        return product.add_(bias.expand_as(product))

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensor()
        rows = gradient.reshape([-1, weight.shape[1]])
        of_x = paddle.matmul(rows, weight, transpose_y=True).reshape(x.shape)
        of_weight = paddle.matmul(x.reshape([-1, weight.shape[0]]), rows, transpose_x=True)
        return of_x, of_weight, (paddle.ones([1, len(rows)]) @ rows).squeeze(0)


def layer_norm(x, normalized_shape, weight=None, bias=None, epsilon=1e-5, name=None):
    """`paddle.nn.functional.layer_norm` over the last axis, with weight and bias."""
    return _LayerNorm.apply(x, weight, bias, epsilon)


class _LayerNorm(paddle.autograd.PyLayer):
    """Sums by products and nothing broadcast, as above."""

    @staticmethod
    def forward(ctx, x, weight, bias, epsilon):
        ctx.save_for_backward(x, weight)
        ctx.epsilon = epsilon
        return _paddles_layer_norm(x, x.shape[-1:], weight, bias, epsilon)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensor()
        size = len(weight)
        x, gradients = x.reshape([-1, size]), gradient.reshape([-1, size])
        mean, across, down = paddle.full([size, 1], 1 / size), paddle.ones([1, size]), paddle.ones([1, len(x)])
        normal = x - (x @ mean) @ across
        scale = ((normal * normal) @ mean + ctx.epsilon).rsqrt() @ across
        normal = normal.multiply_(scale)
        of_weight, by_size = gradients * normal, weight.unsqueeze(1) / size
        of_x = (gradients * weight.expand_as(x)).subtract_((gradients @ by_size) @ across)
        of_x = of_x.subtract_(normal.multiply_((of_weight @ by_size) @ across)).multiply_(scale)
        return of_x.reshape(gradient.shape), (down @ of_weight).squeeze(0), (down @ gradients).squeeze(0)
