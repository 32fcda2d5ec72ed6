"""Tokenizers of encoders in Hugging Face's form: their token ids, and which files are taken and refused."""

import json
from pathlib import Path

import pytest
from conftest import SOURCES, pair_lines, train, write
from hugging_face import byte_level_bpe, unigram, wordpiece
from imported_encoders import QUERY, import_flags, imported, tiny_fixture  # noqa: F401 - a fixture

import import_encoder
import train_batch_neg
from checkpoint import load_checkpoint
from tokenizer import Tokenizer


@pytest.mark.parametrize("prefix", ["", QUERY])
@pytest.mark.parametrize("backend", [wordpiece, unigram, byte_level_bpe])
def test_a_ready_made_tokenizer_is_followed(backend, prefix, tmp_path):
    right = backend()
    right.enable_padding()
    right.enable_truncation(5)  # what a file holds of these does not count
    right.save(str(tmp_path / "tokenizer.json"))
    right.no_padding()
    texts = [*SOURCES, "Héllo, how are   you?", "①ＡＢＣ", "", " ", "x" * 200, "a→b"]
    for length in (8, 14, 64):
        right.enable_truncation(length)
        expected = [right.encode(prefix + text).ids for text in texts]
        assert Tokenizer(tmp_path, length, prefix)(texts) == expected
        assert length == 64 or any(len(ids) == length for ids in expected)


@pytest.mark.parametrize("backend, spelt", [(wordpiece, "[SEP]"), (wordpiece, "[PAD]"), (byte_level_bpe, "</s>"),
                                            (byte_level_bpe, "<pad>")])
def test_a_text_that_spells_out_a_special_token_is_read_as_a_text(backend, spelt, tmp_path):
    right = backend()
    right.save(str(tmp_path / "tokenizer.json"))
    special = right.token_to_id(spelt)
    assert special in right.encode(f"a{spelt}a").ids[1:-1]
    ids = Tokenizer(tmp_path, 64)([f"a{spelt}a"])[0]
    assert special not in ids[1:-1] and len(ids) > 5


def test_unigram_reads_a_spelt_special_token_as_such(tmp_path):
    """There it is a piece of the vocabulary like any other, and the likeliest one: nothing tells the two apart."""
    unigram().save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer(tmp_path, 64)(["a</s>a"])[0].count(2) == 2


def test_a_vocab_txt_of_hugging_face_is_read_by_their_rules(tiny, tmp_path):
    """They make no words of symbols, as PaddleNLP does."""
    texts = ["a→b", "9￥9", "x²", "Héllo [SEP] 快递", "hello\u00ad9", "①"]
    folder, right = tiny(), wordpiece()
    right.encode_special_tokens = True
    expected = [right.encode(text).ids for text in texts]
    assert Tokenizer(folder, 64, hugging_face=True)(texts) == expected
    assert Tokenizer(folder, 64)(texts) != expected
    params = imported(folder, tmp_path / "ck")
    assert load_checkpoint(params, 32).tokenizer(texts) == expected
    pairs = write(tmp_path / "t", pair_lines())
    train(train_batch_neg, folder, pairs, tmp_path / "out", "--max_steps", "1")
    assert load_checkpoint(str(tmp_path / "out" / "latest" / "model_state.pdparams"), 32).tokenizer(texts) == expected


@pytest.mark.parametrize("lowercase", [False, True])
def test_a_vocab_txt_is_lowercased_where_its_config_says_so(lowercase, tiny):
    folder = tiny()
    write(Path(folder) / "tokenizer_config.json", json.dumps({"do_lower_case": lowercase}))
    upper, lower = Tokenizer(folder, 64, hugging_face=True)(["HELLO", "hello"])
    assert (upper == lower) == lowercase


@pytest.mark.parametrize("config, text, expected", [
    ({"strip_accents": False}, "é", False), ({}, "é", True), ({"do_lower_case": False}, "é", False),
    ({"do_lower_case": False, "strip_accents": True}, "é", True), ({"strip_accents": None}, "é", True)])
def test_accents_go_as_the_config_says(config, text, expected, tiny):
    folder = tiny()
    write(Path(folder) / "tokenizer_config.json", json.dumps(config))
    found, plain = Tokenizer(folder, 64, hugging_face=True)([text, "e"])
    assert (found == plain) == expected


@pytest.mark.parametrize("name, value", [("do_lower_case", "false"), ("do_lower_case", None), ("strip_accents", 1)])
def test_a_tokenizer_config_of_another_type_ends_in_one_line(name, value, tiny, tmp_path, failure):
    folder = tiny()
    write(Path(folder) / "tokenizer_config.json", json.dumps({name: value}))
    line = failure(import_encoder.main, import_flags(folder, tmp_path / "ck"))
    assert f"tokenizer_config.json: {name} {value!r} is not true or false" in line


def without_ends(kind: dict) -> None:
    kind["post_processor"] = None


def without_padding(kind: dict) -> None:
    kind["added_tokens"] = [token for token in kind["added_tokens"] if token["content"] != "<pad>"]
    kind["model"]["vocab"][1][0] = "<nothing>"


def with_three_ends(kind: dict) -> None:
    kind["post_processor"]["single"].append({"SpecialToken": {"id": "</s>", "type_id": 0}})


def of_no_kind(kind: dict) -> None:
    kind["model"]["type"] = "Telegraph"


@pytest.mark.parametrize("harm, words", [
    (without_ends, ["puts 0 special tokens", "post_processor"]), (with_three_ends, ["puts 3 special tokens"]),
    (without_padding, ["no padding token", "pad_token", "tokenizer_config.json"]), (of_no_kind, ["`tokenizers` can't read it"])])
def test_a_tokenizer_that_cannot_be_used_is_refused(harm, words, tiny, tmp_path, failure):
    path = Path(tiny()) / "tokenizer.json"
    kind = json.loads(unigram().to_str())
    harm(kind)
    path.write_text(json.dumps(kind))
    line = failure(import_encoder.main, import_flags(path.parent, tmp_path / "ck"))
    assert str(path) in line and all(word in line for word in words)


def test_a_damaged_tokenizer_is_refused(tiny, tmp_path, failure):
    path = Path(tiny()) / "tokenizer.json"
    path.write_text(unigram().to_str()[:-60])
    assert f"{path}: `tokenizers` can't read it" in failure(import_encoder.main, import_flags(path.parent, tmp_path / "ck"))


@pytest.mark.parametrize("named", ["[FILL]", {"content": "[FILL]", "lstrip": False}])
def test_the_padding_token_may_be_named(named, tmp_path):
    backend = json.loads(unigram().to_str().replace("<pad>", "[FILL]"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(backend))
    write(tmp_path / "tokenizer_config.json", json.dumps({"pad_token": named}))
    assert Tokenizer(tmp_path, 8).pad_id == 1
