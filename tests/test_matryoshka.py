"""Vectors that may be cut: --matryoshka_dims while training, --output_dim wherever vectors are made."""

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, write

import predict
import recall
import search
import train_batch_neg


@pytest.fixture(scope="module")
def cut_model(encoder_folder, tmp_path_factory):
    """A checkpoint whose vectors may be cut to 64 and 16 of 128 dimensions."""
    base = tmp_path_factory.mktemp("matryoshka")
    pairs = write(base / "pairs", "".join(f"{s}\t{t}\n" for s, t in zip(SOURCES, TARGETS)))
    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pairs,
                                 "--save_dir", str(base / "out"), "--max_steps", "3", "--batch_size", "4",
                                 "--output_emb_size", "128", "--matryoshka_dims", "128,64,16"]) == 0
    return str(base / "out" / "latest")


def vectors_of(model, folder, *flags):
    texts = write(folder / "texts", "".join(f"{text}\n" for text in SOURCES))
    code = predict.main(["--device", "cpu", "--params_path", model, "--precision", "fp32", "--text_file", texts,
                         "--output_embeddings", str(folder / "v.npy"), *flags])
    return np.load(folder / "v.npy") if code == 0 else code


def test_cut_vectors_are_the_first_dimensions_at_length_one(cut_model, tmp_path):
    whole, cut = vectors_of(cut_model, tmp_path), vectors_of(cut_model, tmp_path, "--output_dim", "16")
    assert whole.shape[1] == 128 and cut.shape[1] == 16
    assert np.allclose(cut, whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True), atol=1e-6)


def test_an_index_of_cut_vectors_is_searched_with_cut_vectors(cut_model, tmp_path, capsys, failure):
    corpus = write(tmp_path / "corpus", "".join(f"{text}\n" for text in TARGETS))
    pairs = write(tmp_path / "pairs", "".join(f"{s}\t{t}\n" for s, t in zip(SOURCES, TARGETS)))
    flags = ["--device", "cpu", "--params_path", cut_model, "--precision", "fp32"]
    assert recall.main([*flags, "--corpus_file", corpus, "--similar_text_pair", pairs, "--recall_num", "3",
                        "--recall_result_dir", str(tmp_path / "r"), "--ann_engine", "flat", "--output_dim", "16"]) == 0
    rows = [row.split("\t") for row in (tmp_path / "r" / "recall_result.txt").read_text(encoding="utf-8").splitlines()]
    queries = vectors_of(cut_model, tmp_path, "--output_dim", "16")
    texts = dict(zip(SOURCES, queries))
    assert len(rows) == 3 * len(SOURCES) and set(texts) == {row[0] for row in rows}
    index = ["--index_dir", str(tmp_path / "r" / "index"), "--query", SOURCES[0], "--top_k", "1"]
    capsys.readouterr()
    assert search.main([*flags, *index, "--output_dim", "16", "--format", "tsv"]) == 0
    assert rows[0][1] in capsys.readouterr().out
    assert "16" in failure(search.main, [*flags, *index])  # vectors of 128 do not belong to this index


@pytest.mark.parametrize("flags, reason", [
    (["--output_dim", "32"], "can be cut to 128, 64, 16"), (["--output_dim", "0"], "whole number above 0")])
def test_other_sizes_are_refused(cut_model, tmp_path, failure, flags, reason):
    texts = write(tmp_path / "texts", "a\n")
    assert reason in failure(predict.main, ["--device", "cpu", "--params_path", cut_model, "--text_file", texts,
                                            "--output_embeddings", str(tmp_path / "v.npy"), *flags])


def test_a_model_that_was_not_trained_so_is_not_cut(trained, tmp_path, failure):
    texts = write(tmp_path / "texts", "a\n")
    assert "was trained without --matryoshka_dims" in failure(
        predict.main, ["--device", "cpu", "--params_path", trained, "--text_file", texts, "--output_embeddings",
                       str(tmp_path / "v.npy"), "--output_dim", "16"])


@pytest.mark.parametrize("dims, reason", [
    ("64,16", "has to begin with 128"), ("16,128", "descending"), ("128,128", "descending"), ("128,0", "above 0"),
    ("128;64", "above 0"), ("", "above 0")])
def test_sizes_that_can_t_be_are_refused(encoder_folder, tmp_path, failure, dims, reason):
    pairs = write(tmp_path / "pairs", "".join(f"{s}\t{t}\n" for s, t in zip(SOURCES, TARGETS)))
    assert reason in failure(train_batch_neg.main, [
        "--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pairs, "--save_dir",
        str(tmp_path / "out"), "--max_steps", "1", "--output_emb_size", "128", "--matryoshka_dims", dims])
