"""What replaces Paddle's operators in training computes what they do."""

import contextlib
import math
from collections import Counter

import numpy as np
import paddle
import pytest
from conftest import read_log, train
from paddle.nn import functional as F

import cpu_ops
import train_batch_neg


def test_gelu_is_paddles():
    x = paddle.to_tensor(np.linspace(-9, 9, 2001, dtype=np.float32))
    gradient = paddle.to_tensor(np.random.default_rng(0).normal(size=2001).astype(np.float32))
    found = []
    for gelu in (F.gelu, cpu_ops.gelu):
        leaf = x.clone().detach()
        leaf.stop_gradient = False
        value = gelu(leaf)
        paddle.autograd.backward([value], [gradient])
        found.append((value.numpy(), leaf.grad.numpy()))
    for ours, right in zip(found[1], found[0]):
        assert np.abs(ours - right).max() < 2e-6


@pytest.mark.parametrize("padding_idx", [None, 3])
def test_embeddings_gather_the_gradient_that_paddle_gives(padding_idx):
    rng = np.random.default_rng(0)
    ids = paddle.to_tensor(rng.integers(0, 9, [4, 7]))
    upstream = paddle.to_tensor(rng.normal(size=[4, 7, 5]).astype(np.float32))
    table = rng.normal(size=[9, 5]).astype(np.float32)
    found = []
    for own in (False, True):
        weight = paddle.create_parameter([9, 5], "float32")
        weight.set_value(table)
        for _ in range(2):
            with cpu_ops.remembering_lookups() if own else contextlib.nullcontext([]) as lookups:
                value = (cpu_ops.embedding if own else F.embedding)(ids, weight, padding_idx)
            paddle.autograd.backward([value * 1.0], [upstream])
            assert len(lookups) == own
            cpu_ops.add_gradients(cpu_ops.sum_gradients(lookups))
        found.append((value.numpy(), weight.grad.numpy()))
    assert np.array_equal(found[0][0], found[1][0])
    assert np.abs(found[0][1] - found[1][1]).max() < 1e-5 < np.abs(found[0][1]).max()


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    cpu_ops.seed_noise(1, 2)
    x = paddle.ones([1000, 300])
    x.stop_gradient = False
    dropped = cpu_ops.dropout(x, p)
    values = dropped.numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / (1 - p))}
    assert abs((values == 0).mean() - p) < 4 * math.sqrt(p * (1 - p) / values.size)
    assert abs(np.corrcoef(values[:, 0], values[:, 1])[0, 1]) < 0.15
    dropped.sum().backward()
    assert np.array_equal(x.grad.numpy(), values)
    assert cpu_ops.dropout(x, p, training=False) is x and cpu_ops.dropout(x, 0.0) is x


REPLACED = [(F, "dropout"), (F, "gelu"), (F, "embedding")]


def test_the_layers_use_them_in_training_alone(encoder_folder, tmp_path, pair_file, monkeypatch):
    used, before = Counter(), [getattr(place, name) for place, name in REPLACED]

    def counted(operator, key):
        def call(*args, **kwargs):
            used[key] += 1
            return operator(*args, **kwargs)
        return call

    for _, name in REPLACED:
        monkeypatch.setattr(cpu_ops, name, counted(getattr(cpu_ops, name), name))
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "out", "--max_steps", "1")
    assert all(used[name] > 1 for _, name in REPLACED), used
    assert [getattr(place, name) for place, name in REPLACED] == before
    once = Counter(used)
    train(train_batch_neg, encoder_folder, pair_file, tmp_path / "re", "--max_steps", "1", "--recompute")
    assert used == once and len(read_log(tmp_path / "re")) == 1
