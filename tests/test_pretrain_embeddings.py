"""Embeddings from co-occurrence, against a plain NumPy form; what becomes of the checkpoint; bad input."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import SOURCES, TARGETS, make_encoder_folder, pair_lines, read_log, train, write

import predict
import pretrain_embeddings
import train_batch_neg
from checkpoint import read_state_dict
from pretrain_embeddings import count_neighbours, embeddings
from pretrained import open_encoder

TABLE = "ptm.embeddings.word_embeddings.weight"


def plain_counts(texts: list[list[int]], tokens: int, window: int) -> np.ndarray:
    counts = np.zeros((tokens, tokens))
    for text in texts:
        for i, one in enumerate(text):
            for j, other in enumerate(text):
                if 0 < abs(i - j) <= window:
                    counts[one, other] += 1 / abs(i - j)
    return counts


@pytest.fixture(scope="module")
def texts() -> list[list[int]]:
    """Of 40 tokens, some much more frequent than others; the last two stand alone, without neighbours."""
    rng = np.random.default_rng(0)
    return [*(np.minimum(rng.geometric(0.08, rng.integers(1, 12)), 37).tolist() for _ in range(400)), [38], [39], []]


@pytest.mark.parametrize("window", [1, 3, 20])
def test_neighbours_are_counted_within_their_text_alone(texts, window):
    found = count_neighbours([texts[:100], texts[100:101], texts[101:]], 40, window).toarray()
    assert np.allclose(found, plain_counts(texts, 40, window), atol=1e-9) and found[38:].sum() == 0


def test_embeddings_have_the_angles_of_the_singular_vectors(texts):
    counts = plain_counts(texts, 40, 3)
    known = np.flatnonzero(counts.sum(axis=1))
    counts = counts[np.ix_(known, known)]
    share = counts.sum(axis=1) / counts.sum()
    smoothed = share**0.75 / (share**0.75).sum()
    information = np.zeros(counts.shape)
    for a, b in np.argwhere(counts):
        information[a, b] = max(0.0, np.log(counts[a, b] / counts.sum() / (share[a] * smoothed[b])))
    left, values, _ = np.linalg.svd(information)
    right = left[:, :8] * np.sqrt(values[:8])
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    from scipy.sparse import csr_matrix

    found = embeddings(csr_matrix(counts), 8)
    assert found.shape == (len(known), 8)
    assert np.allclose(found @ found.T, right @ right.T, atol=1e-6)
    wide = embeddings(csr_matrix(counts), 200)  # more numbers than tokens
    assert wide.shape == (len(known), 200) and np.allclose(np.linalg.norm(wide, axis=1), 1)
    spread = found.std(axis=0)
    assert spread.max() < 3 * spread.min()  # as singular vectors come the first is much larger than the last


def flags_of(folder: str, path: str, out: Path, *flags: str) -> list[str]:
    return ["--model_name_or_path", folder, "--train_set_file", path, "--save_dir", str(out), *flags]


@pytest.fixture
def text_file(tmp_path) -> str:
    """So many tokens that a small encoder's embeddings have a meaning."""
    return write(tmp_path / "texts", "".join(f"{text}\n" for text in SOURCES + TARGETS))


@pytest.fixture
def small_folder(tmp_path) -> str:
    return make_encoder_folder(tmp_path / "encoder")


def test_a_run_starts_from_them(small_folder, text_file, tmp_path, capsys):
    assert pretrain_embeddings.main(flags_of(small_folder, text_file, tmp_path / "warm")) == 0
    assert "32 different texts" in capsys.readouterr().err
    state = read_state_dict(str(tmp_path / "warm" / "model_state.pdparams"))
    paddle.seed(1000)
    encoder, tokenizer = open_encoder(small_folder, None)
    start = {f"ptm.{name}": value.numpy() for name, value in encoder.state_dict().items()}
    neighbours: dict[int, set[int]] = defaultdict(set)
    for ids in tokenizer(SOURCES + TARGETS):
        for token in ids[1:-1]:
            neighbours[token] |= {*ids[1:-1]} - {token}
    known = sorted(token for token, others in neighbours.items() if others)
    unknown = np.setdiff1d(np.arange(len(state[TABLE])), known)
    assert state.keys() == start.keys()
    assert all(np.array_equal(state[name], start[name]) for name in start if name != TABLE)
    assert np.array_equal(state[TABLE][unknown], start[TABLE][unknown])
    lengths = np.linalg.norm(state[TABLE][known], axis=1)
    assert np.allclose(lengths, np.linalg.norm(start[TABLE][known], axis=1).mean(), rtol=1e-5)
    assert pretrain_embeddings.main(flags_of(small_folder, text_file, tmp_path / "again")) == 0
    assert np.array_equal(state[TABLE], read_state_dict(str(tmp_path / "again" / "model_state.pdparams"))[TABLE])

    pairs = write(tmp_path / "pairs", pair_lines())
    train(train_batch_neg, str(tmp_path / "warm"), pairs, tmp_path / "out", "--max_steps", "2", "--learning_rate", "1e-12")
    trained = read_state_dict(str(tmp_path / "out" / "latest" / "model_state.pdparams"))
    assert np.allclose(trained[TABLE], state[TABLE], atol=1e-9) and len(read_log(tmp_path / "out")) == 2


def test_an_earlier_one_is_replaced_and_nothing_else(small_folder, text_file, trained, tmp_path, failure):
    for window in ("1", "2"):
        assert pretrain_embeddings.main(flags_of(small_folder, text_file, tmp_path / "warm", "--window", window)) == 0
    assert json.loads((tmp_path / "warm" / "semantic_index.json").read_text())["training"]["window"] == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("warm")
    for name in ("other", "link", Path(trained).parent):
        line = failure(pretrain_embeddings.main, flags_of(small_folder, text_file, tmp_path / name))
        assert str(tmp_path / name) in line and "not written by this script" in line


def test_it_gives_no_vectors_by_itself(small_folder, text_file, tmp_path, failure):
    assert pretrain_embeddings.main(flags_of(small_folder, text_file, tmp_path / "warm")) == 0
    line = failure(predict.main, ["--device", "cpu", "--params_path", str(tmp_path / "warm"), "--text_file", text_file,
                                  "--output_embeddings", str(tmp_path / "v.npy")])
    assert "gives no vectors" in line and "--model_name_or_path" in line


def test_what_cannot_be_warmed_up_ends_in_one_line(small_folder, text_file, trained, tmp_path, failure):
    few = write(tmp_path / "few", "快递\n快\n")
    for folder, path, words in ((str(Path(trained).parent), text_file, ["has weights"]), ("no-such", text_file, ["no-such' is no folder"]),
                                (small_folder, few, [few, "2 different tokens have neighbours"])):
        line = failure(pretrain_embeddings.main, flags_of(folder, path, tmp_path / "warm"))
        assert all(word in line for word in words) and not (tmp_path / "warm").exists()
