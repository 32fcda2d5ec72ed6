"""Each loss and its gradient against an independent float64 NumPy form."""

import math
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from conftest import SOURCES

from data import known_positives, pad_batch
from model import SemanticIndexBase, SemanticIndexBatchNeg, SemanticIndexHardestNeg, SemanticIndexPairwise
from pretrained import open_encoder

MARGIN, SCALE = 0.2, 30.0


def stub():
    layer = paddle.nn.Layer()
    layer.config = SimpleNamespace(hidden_size=8, hidden_dropout_prob=0.0)
    return layer


def batch_neg(q, t, mask):
    rows = []
    for i in range(len(q)):
        logits = [SCALE * (q[i] @ t[j] - MARGIN * (i == j)) for j in range(len(t)) if j == i or not mask[i, j]]
        rows.append(math.log(sum(math.exp(x - max(logits)) for x in logits)) + max(logits)
                    - SCALE * (q[i] @ t[i] - MARGIN))
    return sum(rows) / len(rows)


def hardest_neg(q, t, mask):
    rows = []
    for i in range(len(q)):
        others = [q[i] @ t[j] for j in range(len(t)) if j != i and not mask[i, j]]
        rows.append(max(0.0, MARGIN - q[i] @ t[i] + max(others)) if others else 0.0)
    return sum(rows) / len(rows)


def pairwise(q, t, mask):
    size = len(q)
    rows = [0.0 if mask[i, size + i] else max(0.0, MARGIN - q[i] @ t[i] + q[i] @ t[size + i]) for i in range(size)]
    return sum(rows) / size


def slope(function, q, t, mask, step=1e-6):
    """Central differences of the NumPy loss in each number of q and t."""
    gradients = []
    for array in (q, t):
        gradient = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            kept = array[place]
            values = []
            for moved in (kept + step, kept - step):
                array[place] = moved
                values.append(function(q, t, mask))
            array[place] = kept
            gradient[place] = (values[0] - values[1]) / (2 * step)
        gradients.append(gradient)
    return gradients


def ours(model, q, t, mask):
    q, t = (paddle.to_tensor(x.astype("float32"), stop_gradient=False) for x in (q, t))
    loss = model.loss(q, t, paddle.to_tensor(mask))
    loss.backward()
    return float(loss), q.grad.numpy(), t.grad.numpy()


def unit(rng, count):
    x = rng.normal(size=(count, 8))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


CASES = [
    (SemanticIndexBatchNeg(stub(), margin=MARGIN, scale=SCALE), batch_neg),
    (SemanticIndexHardestNeg(stub(), margin=MARGIN), hardest_neg),
    (SemanticIndexPairwise(stub(), margin=MARGIN), pairwise),
]


@pytest.mark.parametrize("model, oracle", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_loss_and_gradient_equal_the_formula(model, oracle, seed):
    rng = np.random.default_rng(seed)
    columns = 10 if oracle is pairwise else 5 + 2 * seed
    q, t = unit(rng, 5), unit(rng, columns)
    t[3] = t[1]  # a duplicate in the batch
    mask = rng.random((5, columns)) < 0.3
    mask[1, 3] = mask[3, 1] = True
    mask[4] = seed == 3  # a row with nothing left
    np.fill_diagonal(mask, False)
    value, q_gradient, t_gradient = ours(model, q, t, mask)
    assert value == pytest.approx(oracle(q, t, mask), rel=2e-5)
    right_gradients = slope(oracle, q, t, mask)
    if oracle is hardest_neg:  # of two equal columns either may be the hardest one
        for gradient in (t_gradient, right_gradients[1]):
            gradient[1], gradient[3] = gradient[1] + gradient[3], 0
    for got, right in zip((q_gradient, t_gradient), right_gradients):
        assert np.allclose(got, right, atol=1e-4)


@pytest.mark.parametrize("model, oracle", CASES)
def test_a_matryoshka_loss_is_the_mean_over_cut_vectors(model, oracle):
    """Cut vectors have length 1 again, and the gradient goes through that."""
    rng = np.random.default_rng(7)
    q, t = unit(rng, 5), unit(rng, 10)
    mask = np.zeros((5, 10), bool)
    mask[0, 3] = mask[2, 7] = True
    sizes = (8, 4, 2)

    def mean_of_cut(q, t, mask):
        cut = [[x[:, :size] / np.linalg.norm(x[:, :size], axis=1, keepdims=True) for x in (q, t)] for size in sizes]
        return sum(oracle(*vectors, mask) for vectors in cut) / len(sizes)

    made = type(model)(stub(), margin=MARGIN, output_emb_size=8, matryoshka_dims=sizes)
    tensors = [paddle.to_tensor(x.astype("float32"), stop_gradient=False) for x in (q, t)]
    loss = made.matryoshka_loss(*tensors, paddle.to_tensor(mask))
    loss.backward()
    assert float(loss) == pytest.approx(mean_of_cut(q, t, mask), rel=2e-5)
    for tensor, right in zip(tensors, slope(mean_of_cut, q, t, mask)):
        assert np.allclose(tensor.grad.numpy(), right, atol=1e-3)


def test_hardest_neg_learns_from_the_rows_that_it_gets_wrong():
    rng = np.random.default_rng(0)
    q = unit(rng, 4)
    t = np.roll(q, 1, axis=0)  # every row's best column is another row's target
    _, q_gradient, _ = ours(CASES[1][0], q, t, np.zeros((4, 4), bool))
    assert (np.linalg.norm(q_gradient, axis=1) > 0.1).all()
    assert (np.einsum("nd,nd->n", q_gradient, t) < 0).all()  # a step against the gradient pulls the positive closer


@pytest.mark.parametrize("model, oracle", CASES[:2])
def test_a_batch_of_equal_targets_has_no_gradient(model, oracle):
    q = unit(np.random.default_rng(0), 4)
    value, q_gradient, t_gradient = ours(model, q, np.repeat(q[:1], 4, axis=0), ~np.eye(4, dtype=bool))
    assert value == pytest.approx(0, abs=1e-6)
    assert np.abs(q_gradient).max() < 1e-6 and np.abs(t_gradient).max() < 1e-6


@pytest.mark.parametrize("negatives, loss", [(1, 6.0025), (3, 7.0994), (7, 7.9463)])
def test_equal_vectors_cost_what_the_columns_count(negatives, loss):
    same = np.repeat(unit(np.random.default_rng(0), 1), negatives + 1, axis=0)
    mask = np.zeros((negatives + 1,) * 2, bool)
    assert ours(CASES[0][0], same, same, mask)[0] == pytest.approx(loss, abs=1e-4)
    assert ours(CASES[1][0], same, same, mask)[0] == pytest.approx(0.2, abs=1e-6)


def test_known_positives_go_by_text():
    rng = np.random.default_rng(0)
    for _ in range(50):
        positives = {s: set(rng.integers(0, 8, 3).tolist()) for s in range(5)}
        sources, columns = rng.integers(0, 5, 6), rng.integers(0, 8, 9)
        right = [[columns[j] in positives[sources[i]] and i != j for j in range(9)] for i in range(6)]
        assert known_positives(sources, columns, positives).tolist() == right


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_padding_changes_no_vector(pooling, encoder_folder):
    encoder, tokenizer = open_encoder(encoder_folder, 32)
    model = SemanticIndexBase(encoder, 16, pooling)
    model.eval()
    ids = tokenizer(SOURCES[:1])
    bare, padded = (model(*map(paddle.to_tensor, pad_batch(ids, 0, length))).numpy() for length in (0, 30))
    assert np.allclose(bare, padded, atol=1e-6) and np.linalg.norm(bare) == pytest.approx(1, abs=1e-6)


def test_mean_pooling_is_the_mean_over_the_tokens():
    encoder = stub()
    tokens = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
    encoder.forward = lambda ids, attention_mask: (paddle.to_tensor(tokens), None)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], dtype="float32")
    got = SemanticIndexBase(encoder, 0, "mean")(None, paddle.to_tensor(mask)).numpy()
    for vector, mean in zip(got, (tokens[0, :3].mean(axis=0), tokens[1].mean(axis=0))):
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


@pytest.mark.parametrize("own, flag, drops", [(0.5, None, True), (0.5, 0.0, False), (0.0, 0.5, True), (0.0, None, False)])
def test_the_head_drops_in_training_alone(own, flag, drops):
    encoder = stub()
    encoder.config.hidden_dropout_prob = own
    encoder.forward = lambda ids, attention_mask: (None, paddle.ones([64, 8]))
    model = SemanticIndexBase(encoder, 0, dropout=flag)
    assert bool((model(None, None) == 0).any()) == drops
    model.eval()
    assert not bool((model(None, None) == 0).any())


def test_the_projection_starts_small():
    weight = SemanticIndexBase(stub(), 4096).emb_reduce_linear.weight.numpy()
    assert weight.std() == pytest.approx(0.02, rel=0.02)
