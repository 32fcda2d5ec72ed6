"""predict.py: scores, labels, embeddings and files, bad flags, ranks."""

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, pair_lines, write

import predict


def test_predict_reports_labels_and_writes_files(trained, tmp_path, capsys):
    pairs = write(tmp_path / "p.tsv", "".join(f"{s}\t{t}\t{i % 2}\n" for i, (s, t) in enumerate(zip(SOURCES, TARGETS))))
    flags = ["--device", "cpu", "--params_path", trained, "--text_pair_file", pairs]
    assert predict.main(flags) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 16 and "Spearman" in err and "AUC" in err
    assert predict.main([*flags, "--output_file", str(tmp_path / "o.tsv")]) == 0
    rows = [line.split("\t") for line in (tmp_path / "o.tsv").read_text().splitlines()]
    assert [row[2] for row in rows] == out.splitlines() and rows[3][:2] == [SOURCES[3], TARGETS[3]]


@pytest.mark.parametrize("flags, words", [
    ([], ["--text_pair_file", "--text_file"]),
    (["--text_file", "{texts}"], ["--output_embeddings"]),
    (["--text_pair_file", "{pairs}", "--pad_to_max_seq_len", "False"], ["unrecognized arguments"]),
    (["--text_pair_file", "{pairs}", "--output_file", "/no/such/folder/o"], ["--output_file", "'/no/such/folder' does not"]),
    (["--text_pair_file", "{pairs}", "--output_file", "{pairs}"], ["--output_file would overwrite", "--text_pair_file"]),
    (["--text_file", "{texts}", "--output_embeddings", "{texts}"], ["--output_embeddings would overwrite", "--text_file"]),
    (["--text_pair_file", "{pairs}", "--batch_size", "0"], ["--batch_size", "'0'"]),
    (["--text_pair_file", "{pairs}", "--text_file", "{texts}", "--output_embeddings", "{texts}.npy"], ["--text_pair_file", "one of"]),
    (["--text_file", "{texts}", "--output_embeddings", "{texts}.npy", "--output_file", "{texts}.o"], ["--output_file goes with"]),
])
def test_bad_flags_of_predict(trained, tmp_path, pair_file, failure, flags, words):
    texts = write(tmp_path / "texts", "a\n")
    flags = [flag.format(texts=texts, pairs=pair_file) for flag in flags]
    line = failure(predict.main, ["--device", "cpu", "--params_path", trained, *flags])
    assert all(word in line for word in words)
    assert (tmp_path / "texts").read_text() == "a\n" and (tmp_path / "pair.tsv").read_text() == pair_lines()


def test_crlf_files_give_what_lf_files_give(trained, tmp_path, capsys):
    flags = ["--device", "cpu", "--params_path", trained, "--text_pair_file"]
    assert predict.main([*flags, write(tmp_path / "lf", pair_lines(4))]) == 0
    plain = capsys.readouterr().out
    assert predict.main([*flags, write(tmp_path / "crlf", pair_lines(4).replace("\n", "\r\n"))]) == 0
    assert capsys.readouterr().out == plain


def test_scores_are_the_cosines_of_the_vectors_and_agree_with_the_labels(trained, tmp_path, capsys):
    rows = [(SOURCES[0], SOURCES[0], 1), (SOURCES[1], TARGETS[7], 0), (SOURCES[2], TARGETS[9], 0)]
    pairs = write(tmp_path / "p", "".join(f"{a}\t{b}\t{label}\n" for a, b, label in rows))
    texts = write(tmp_path / "t", "".join(f"{a}\n{b}\n" for a, b, _ in rows))
    flags = ["--device", "cpu", "--params_path", trained]
    assert predict.main([*flags, "--text_pair_file", pairs]) == 0
    out, err = capsys.readouterr()
    assert predict.main([*flags, "--text_file", texts, "--output_embeddings", str(tmp_path / "v.npy")]) == 0
    vectors = np.load(tmp_path / "v.npy")
    right = [vectors[2 * i] @ vectors[2 * i + 1] for i in range(3)]
    assert [float(line) for line in out.splitlines()] == pytest.approx(right, abs=2e-6)
    assert "AUC 1.0000; best-threshold accuracy 1.0000" in err


def test_rank_0_alone_prints_and_writes(trained, pair_file, tmp_path, monkeypatch, capsys):
    import encoder

    monkeypatch.setenv("PADDLE_TRAINER_ID", "1")
    monkeypatch.setattr(encoder, "rank", lambda: 0)  # one process has all of the work
    flags = ["--device", "cpu", "--params_path", trained]
    assert predict.main([*flags, "--text_pair_file", pair_file]) == 0
    assert predict.main([*flags, "--text_pair_file", pair_file, "--output_file", str(tmp_path / "o.tsv")]) == 0
    texts = write(tmp_path / "texts", "快递\n")
    assert predict.main([*flags, "--text_file", texts, "--output_embeddings", str(tmp_path / "v.npy")]) == 0
    assert capsys.readouterr() == ("", "") and not list(tmp_path.glob("*.npy")) and not list(tmp_path.glob("o.tsv"))
