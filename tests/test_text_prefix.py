"""--text_prefix: what stands before each text in training, and in all that is done with the checkpoint."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, pair_lines, train, weights, write
from hugging_face import byte_level_bpe, config_of, random_weights, unigram, wordpiece, write_folder
from imported_encoders import QUERY, encoder_of, imported, tiny_fixture, vectors_of  # noqa: F401 - a fixture
from test_recall import run

import predict
import search
import train_batch_neg
from checkpoint import fingerprint_of


@pytest.fixture(scope="module")
def with_prefix(tmp_path_factory) -> str:
    """Parameter file of a checkpoint trained for 2 steps with a prefix; `plain` beside it has it in its texts instead."""
    base = tmp_path_factory.mktemp("prefix")
    config = config_of("bert", wordpiece().get_vocab_size(), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    folder = write_folder(base / "hf", config, random_weights(config))
    rows = [line.split("\t") for line in pair_lines().splitlines()]
    spelt = "".join(f"{QUERY}{a}\t{QUERY}{b}\n" for a, b in rows)
    common = ["--pooling", "mean", "--max_steps", "2", "--learning_rate", "1e-3", "--output_emb_size", "8", "--batch_size", "4"]
    train(train_batch_neg, folder, write(base / "t", pair_lines()), base / "out", "--text_prefix", QUERY, *common)
    train(train_batch_neg, folder, write(base / "s", spelt), base / "plain", *common)
    return str(base / "out" / "latest" / "model_state.pdparams")


@pytest.fixture
def without(with_prefix) -> str:
    return with_prefix.replace("/out/", "/plain/")


def test_training_takes_the_prefix(with_prefix, without):
    trained, right = (weights(Path(path).parents[1]) for path in (with_prefix, without))
    assert trained.keys() == right.keys() and all(np.array_equal(trained[name], right[name]) for name in right)
    assert fingerprint_of(with_prefix) != fingerprint_of(without)
    manifest = json.loads((Path(with_prefix).parent / "semantic_index.json").read_text())
    assert manifest["text_prefix"] == QUERY


def test_predict_takes_the_prefix(with_prefix, without, tmp_path):
    found = vectors_of(with_prefix, SOURCES, tmp_path)
    right = vectors_of(without, [QUERY + text for text in SOURCES], tmp_path)
    assert np.allclose(found, right, atol=1e-6)
    assert not np.allclose(found, vectors_of(without, SOURCES, tmp_path), atol=1e-3)
    assert np.allclose(found, encoder_of(with_prefix).encode(SOURCES), atol=1e-5)
    export, = (Path(with_prefix).parent / "export").glob("*-fp32")
    moved = shutil.copytree(export, tmp_path / "export")
    assert np.array_equal(vectors_of(str(moved), SOURCES, tmp_path), found)


@pytest.mark.usefixtures("compiled_once")
def test_recall_and_search_take_the_prefix(with_prefix, without, tmp_path, corpus_file, pair_file, capsys, failure):
    common = ["--recall_num", "5", "--precision", "fp32"]
    rows = run(with_prefix, pair_file, corpus_file, tmp_path / "o", *common, "--index_dir", str(tmp_path / "ix"))
    pairs = write(tmp_path / "p", "".join(f"{QUERY}{a}\t{QUERY}{b}\n" for a, b in zip(SOURCES, TARGETS)))
    corpus = write(tmp_path / "c", "".join(f"{QUERY}{text}\n" for text in TARGETS + SOURCES[8:]))
    right = run(without, pairs, corpus, tmp_path / "r", *common)
    assert [[QUERY + row[0], QUERY + row[1]] for row in rows] == [row[:2] for row in right] and len(rows) == 80
    assert [float(row[2]) for row in rows] == pytest.approx([float(row[2]) for row in right], abs=2e-6)
    capsys.readouterr()
    question = ["--index_dir", str(tmp_path / "ix"), "--precision", "fp32", "--max_seq_length", "32", "--query", SOURCES[0],
                "--top_k", "5", "--format", "tsv"]
    assert search.main(["--device", "cpu", "--params_path", with_prefix, *question]) == 0
    found = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in found] == [row[:2] for row in rows[:5]]
    assert [float(row[2]) for row in found] == pytest.approx([float(row[2]) for row in rows[:5]], abs=2e-6)
    assert "checkpoint" in failure(search.main, ["--device", "cpu", "--params_path", without, *question])


def test_resume_keeps_the_prefix(tmp_path, tiny, pair_file, failure):
    folder = tiny(lambda state, config: config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    flags = ["--text_prefix", QUERY, "--pooling", "mean", "--batch_size", "4", "--epochs", "1", "--save_steps", "2"]
    train(train_batch_neg, folder, pair_file, tmp_path / "whole", *flags)
    shutil.copytree(tmp_path / "whole", tmp_path / "half", symlinks=True)
    shutil.rmtree(tmp_path / "half" / "model_4")
    (tmp_path / "half" / "latest").unlink()
    (tmp_path / "half" / "latest").symlink_to("model_2")
    common = ["--device", "cpu", "--model_name_or_path", folder, "--train_set_file", pair_file, "--save_dir",
              str(tmp_path / "half"), "--max_seq_length", "32", "--seed", "1", "--resume", *flags]
    for other in ("passage: ", ""):
        line = failure(train_batch_neg.main, [*common, "--text_prefix", other])
        assert "trained with --text_prefix query: , now it is " in line
    train(train_batch_neg, folder, pair_file, tmp_path / "half", "--resume", *flags)
    assert all(np.array_equal(weights(tmp_path / "half")[name], value) for name, value in weights(tmp_path / "whole").items())


@pytest.mark.parametrize("length, fits", [(4, False), (5, True)])
def test_a_prefix_that_leaves_no_room_is_refused(length, fits, tiny, with_prefix, tmp_path, pair_file, failure):
    """[CLS] query : [SEP] are 4 tokens."""
    flags = ["--device", "cpu", "--model_name_or_path", tiny(), "--train_set_file", pair_file, "--save_dir",
             str(tmp_path / "o"), "--max_steps", "1", "--text_prefix", QUERY, "--max_seq_length", str(length)]
    scoring = ["--device", "cpu", "--params_path", with_prefix, "--max_seq_length", str(length), "--text_pair_file", pair_file,
               "--precision", "fp32"]
    if fits:
        assert train_batch_neg.main(flags) == 0 and predict.main(scoring) == 0
    else:
        for main, given in ((train_batch_neg.main, flags), (predict.main, scoring)):
            line = failure(main, given)
            assert "--max_seq_length 4 leaves no room" in line and "'query: '" in line and "use 5 or more" in line


@pytest.mark.parametrize("backend, model_type, blank, lettered", [
    (None, "bert", ["", " ", "\u200b"], ["x", "[", "快"]), (unigram, "xlm-roberta", ["", " "], ["x", "快"]),
    (byte_level_bpe, "roberta", [""], ["x", "a", "快"])])  # there "query: " alone has a token for its blank, as "query: x"
def test_texts_without_tokens_of_their_own_are_counted(backend, model_type, blank, lettered, tmp_path):
    config = config_of(model_type, 500)
    folder = write_folder(tmp_path / "hf", config, random_weights(config), backend and backend())
    for prefix in ("", QUERY):
        encoder = encoder_of(imported(folder, tmp_path / "ck", "mean", "--text_prefix", prefix))
        encoder.encode([*lettered, *blank])
        assert encoder.tokenless == len(blank)
