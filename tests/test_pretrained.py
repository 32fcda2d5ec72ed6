"""Encoders that training starts from: kinds, weights, configs and vocabularies, fitting and not."""

from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import byte_level_bpe_folder, make_encoder_folder, train, weights, write

import predict
import train_batch_neg
from checkpoint import read_state_dict


@pytest.mark.parametrize("model_type", ["bert", "roberta", "ernie"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_any_bert_like_encoder_trains(model_type, pooling, tmp_path, pair_file, capsys):
    encoder = make_encoder_folder(tmp_path / "e", model_type, hidden_size=24)
    train(train_batch_neg, encoder, pair_file, tmp_path / "out", "--pooling", pooling, "--output_emb_size", "16",
          "--epochs", "1")
    assert "starts from random" in capsys.readouterr().err
    state = weights(tmp_path / "out")
    assert state["emb_reduce_linear.weight"].shape == (24, 16)
    moved = any("pooler" in name for name in state)
    assert moved


def test_english_roberta_trains_and_predicts(tmp_path, capsys):
    """Byte-level BPE, padding id 1."""
    encoder = make_encoder_folder(tmp_path / "e", "roberta", vocab_size=600, pad_token_id=1, max_position_embeddings=66)
    (tmp_path / "e" / "vocab.txt").unlink()
    rows = [("how do I reset my password", "forgot my login password"), ("where is my parcel", "track a delivery")]
    byte_level_bpe_folder(tmp_path / "e", [text for row in rows for text in row])
    pairs = write(tmp_path / "t.tsv", "".join(f"{a}\t{b}\n" for a, b in rows))
    train(train_batch_neg, encoder, pairs, tmp_path / "out", "--epochs", "1")
    capsys.readouterr()
    assert predict.main(["--device", "cpu", "--params_path", str(tmp_path / "out" / "latest"), "--text_pair_file", pairs]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize("form", ["pdparams", "safetensors", "checkpoint", "with heads"])
def test_an_encoder_starts_from_its_weights(form, encoder_folder, trained, tmp_path, pair_file, capsys):
    folder = Path(make_encoder_folder(tmp_path / "e"))
    state = {name.removeprefix("ptm."): value for name, value in read_state_dict(trained).items()
             if name.startswith("ptm.")}
    if form == "safetensors":
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, folder / "model.safetensors")
    else:
        named = {"pdparams": state, "checkpoint": {f"ptm.{n}": v for n, v in state.items()},
                 "with heads": {**{f"ernie.{n}": v for n, v in state.items()}, "cls.predictions.bias": np.zeros(3)}}
        paddle.save({n: paddle.to_tensor(v) for n, v in named[form].items()}, str(folder / "model_state.pdparams"))
    train(train_batch_neg, str(folder), pair_file, tmp_path / "out", "--learning_rate", "1e-12", "--max_steps", "1")
    assert "encoder weights:" in capsys.readouterr().err
    after = weights(tmp_path / "out")
    assert all(np.allclose(after[f"ptm.{name}"], value, atol=1e-9) for name, value in state.items())


def test_encoder_weights_that_do_not_fit_are_refused(trained, tmp_path, pair_file, failure):
    folder = Path(make_encoder_folder(tmp_path / "e", intermediate_size=48))
    paddle.save({n: paddle.to_tensor(v) for n, v in read_state_dict(trained).items()},
                str(folder / "model_state.pdparams"))
    line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", str(folder), "--train_set_file",
                                          pair_file, "--save_dir", str(tmp_path / "o")])
    assert "differs in shape" in line and "[32, 64]" in line and "[32, 48]" in line


def test_a_config_that_makes_no_encoder_is_refused(tmp_path, pair_file, failure):
    for content, word in ((" {", "config.json"), ('{"model_type": "gpt"}', "GPTModel is no BERT-like"), ("{}", "model_type")):
        folder = Path(make_encoder_folder(tmp_path / "e"))
        write(folder / "config.json", content)
        line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", str(folder), "--save_dir",
                                              str(tmp_path / "o"), "--train_set_file", pair_file])
        assert word in line


@pytest.mark.parametrize("changes, flags, words", [
    ({"vocab_size": 60}, [], ["the encoder's config 60"]),
    ({"num_attention_heads": 5}, [], ["divisible"]), ({"num_hidden_layers": 0}, [], ["num_hidden_layers 0"]),
    ({"max_position_embeddings": "a"}, [], ["max_position_embeddings 'a'"]),
    ({"hidden_dropout_prob": 3}, [], ["hidden_dropout_prob 3"]),
    ({"model_type": "roberta"}, ["--max_seq_length", "80"], ["79 tokens"]),  # its positions begin at 1
])
def test_a_config_that_contradicts_the_vocabulary_or_the_length_is_refused(changes, flags, words, tmp_path, pair_file,
                                                                           failure):
    line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", make_encoder_folder(tmp_path / "e", **changes),
                                          "--save_dir", str(tmp_path / "o"), "--train_set_file", pair_file, *flags])
    assert all(word in line for word in words)


def test_a_padding_id_that_contradicts_the_vocabulary_is_told(tmp_path, pair_file, capsys):
    train(train_batch_neg, make_encoder_folder(tmp_path / "e", pad_token_id=3), pair_file, tmp_path / "o", "--max_steps", "1")
    assert "padding is token 0 in the vocabulary, but pad_token_id is 3" in capsys.readouterr().err


def test_roberta_takes_texts_as_long_as_its_positions(tmp_path):
    encoder = make_encoder_folder(tmp_path / "e", "roberta")
    pairs = write(tmp_path / "long.tsv", "".join(f"{'密码' * 60}{i}\t{'快递' * 60}{i}\n" for i in range(4)))
    log = train(train_batch_neg, encoder, pairs, tmp_path / "out", "--max_seq_length", "79", "--epochs", "1")
    assert np.isfinite(log[0]["grad_norm"])


def test_a_missing_pooler_passes_where_none_is_needed(encoder_folder, trained, tmp_path, pair_file, failure):
    folder = Path(make_encoder_folder(tmp_path / "e"))
    state = {name: paddle.to_tensor(value) for name, value in read_state_dict(trained).items()
             if name.startswith("ptm.") and "pooler" not in name}
    paddle.save(state, str(folder / "model_state.pdparams"))
    train(train_batch_neg, str(folder), pair_file, tmp_path / "out", "--max_steps", "1", "--pooling", "mean")
    line = failure(train_batch_neg.main, ["--device", "cpu", "--model_name_or_path", str(folder), "--train_set_file",
                                          pair_file, "--save_dir", str(tmp_path / "o")])
    assert "lacks: pooler.dense.weight, pooler.dense.bias" in line
