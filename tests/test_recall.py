import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SOURCES, TARGETS, launch, write

import predict
import recall
from files import own_folder


def run(trained, pair, corpus, out, *flags: str) -> list[list[str]]:
    assert recall.main(flags_of(trained, pair, corpus, out, *flags)) == 0
    return [line.split("\t") for line in (Path(out) / "recall_result.txt").read_text().splitlines()]


def flags_of(trained, pair, corpus, out, *flags: str) -> list[str]:
    return ["--device", "cpu", "--params_path", trained, "--similar_text_pair", pair, "--corpus_file", corpus,
            "--recall_result_dir", str(out), "--max_seq_length", "32", "--hnsw_m", "16", *flags]


def vectors_of(trained, texts, tmp_path, *flags: str) -> np.ndarray:
    out = tmp_path / "v.npy"
    assert predict.main(["--device", "cpu", "--params_path", trained, "--max_seq_length", "32", *flags, "--text_file",
                         write(tmp_path / "texts", "".join(f"{t}\n" for t in texts)), "--output_embeddings",
                         str(out)]) == 0
    return np.load(out)


@pytest.mark.parametrize("engine", ["flat", "hnsw"])
def test_recall_equals_a_plain_numpy_search(trained, pair_file, corpus_file, tmp_path, engine):
    rows = run(trained, pair_file, corpus_file, tmp_path / "out", "--recall_num", "7", "--ann_engine", engine)
    texts = TARGETS + SOURCES[8:]
    corpus, queries = vectors_of(trained, texts, tmp_path), vectors_of(trained, SOURCES, tmp_path)
    assert corpus.dtype == np.float32 and np.allclose(np.linalg.norm(corpus, axis=1), 1, atol=1e-6)
    expected = []
    for source, query in zip(SOURCES, queries):
        order = np.argsort(-(corpus @ query), kind="stable")
        expected += [(source, texts[i], float(corpus[i] @ query)) for i in order if texts[i] != source][: 7]
    expected = [row for i in range(16) for row in expected[7 * i : 7 * i + 7]]
    assert [row[0] for row in rows] == [row[0] for row in expected]
    assert [float(row[2]) for row in rows] == pytest.approx([row[2] for row in expected], abs=2e-6)
    assert sum(row[1] == right[1] for row, right in zip(rows, expected)) > 0.95 * len(rows)


def test_the_source_takes_no_place(trained, tmp_path):
    corpus = write(tmp_path / "c", "密码\n快递\n空调\n快递\n")
    pairs = write(tmp_path / "p", "快递\t密码\n快递\t空调\n机票\t密码\n")
    rows = run(trained, pairs, corpus, tmp_path / "out", "--recall_num", "2")
    assert [row[0] for row in rows] == ["快递", "快递", "快递", "快递", "机票", "机票"]
    assert {row[1] for row in rows[:2]} == {"密码", "空调"}
    kept = run(trained, pairs, corpus, tmp_path / "out", "--recall_num", "2", "--keep_self")
    assert kept[0][1:] == ["快递", "1.000000"] and len(kept) == 6


def test_texts_that_the_encoder_cannot_tell_apart_keep_corpus_order(trained, tmp_path):
    emoji = [chr(0x1F600 + i) for i in range(40)]
    corpus = write(tmp_path / "c", "".join(f"{e}\n" for e in emoji))
    for engine in ("flat", "hnsw"):
        rows = run(trained, write(tmp_path / "p", "🚀\t😀\n"), corpus, tmp_path / "out", "--recall_num", "5",
                   "--ann_engine", engine)
        assert [row[1] for row in rows] == emoji[:5] and {row[2] for row in rows} == {"1.000000"}


def test_notices_of_what_limits_the_result(trained, tmp_path, capsys):
    rows = run(trained, write(tmp_path / "p", "甲\t乙\n丙\t没有\n"), write(tmp_path / "c", "乙\n丁\n乙\n"), tmp_path / "out")
    err = capsys.readouterr().err
    assert len(rows) == 4
    for words in ("1 of 2 targets are not in the corpus (line 2)", "2 different texts", "1 of 3 lines repeat"):
        assert words in err


def test_a_saved_index_is_used_again_and_only_for_the_same_things(trained, pair_file, corpus_file, tmp_path, failure,
                                                                  capsys):
    index = ["--index_dir", str(tmp_path / "ix")]
    first = run(trained, pair_file, corpus_file, tmp_path / "a", *index)
    capsys.readouterr()
    assert run(trained, pair_file, corpus_file, tmp_path / "b", *index) == first
    assert capsys.readouterr().err.count("used again") == 1 and first
    other = write(tmp_path / "other", "别的\n")
    for change, words in (((trained, pair_file, other), ["corpus"]),
                          ((trained, pair_file, corpus_file, "--max_seq_length", "16"), ["32", "16"]),
                          ((trained, pair_file, corpus_file, "--hnsw_m", "8"), ["16", "8"])):
        line = failure(recall.main, flags_of(*change[:3], tmp_path / "c", *index, *change[3:]))
        assert all(word in line for word in [str(tmp_path / "ix"), *words])
    assert not (tmp_path / "c" / "recall_result.txt").exists()
    # Without --index_dir the folder is the program's own, and is built again with a notice.
    run(trained, pair_file, corpus_file, tmp_path / "own")
    run(trained, pair_file, other, tmp_path / "own")
    assert "is built again" in capsys.readouterr().err


def test_an_index_of_another_checkpoint_is_refused(trained, encoder_folder, pair_file, corpus_file, tmp_path, failure):
    import train_batch_neg

    assert train_batch_neg.main(["--device", "cpu", "--model_name_or_path", encoder_folder, "--train_set_file", pair_file,
                                 "--save_dir", str(tmp_path / "m"), "--max_steps", "1", "--output_emb_size", "128"]) == 0
    run(trained, pair_file, corpus_file, tmp_path / "a", "--index_dir", str(tmp_path / "ix"))
    line = failure(recall.main, flags_of(str(tmp_path / "m" / "latest"), pair_file, corpus_file, tmp_path / "b",
                                         "--index_dir", str(tmp_path / "ix")))
    assert "checkpoint" in line and "256" in line and "128" in line


@pytest.mark.parametrize("name", ["parts/0000000000-0000000024.npy", "parts/0000000000-0000000024.txt", "parts/0000000000-0000000024.json",
                                  "repeated-24.npy", "hnsw-24.bin", "manifest.json"])
def test_a_damaged_index_is_refused(trained, pair_file, corpus_file, tmp_path, failure, name):
    index = tmp_path / "ix"
    run(trained, pair_file, corpus_file, tmp_path / "a", "--index_dir", str(index))
    raw = bytearray((index / name).read_bytes())
    for damage in (raw[: len(raw) // 2], raw[:-9] + b"\xff" + raw[-8:]):
        (index / name).write_bytes(damage)
        line = failure(recall.main, flags_of(trained, pair_file, corpus_file, tmp_path / "b", "--index_dir", str(index)))
        assert str(index / name) in line
    (index / name).write_bytes(raw)
    run(trained, pair_file, corpus_file, tmp_path / "b", "--index_dir", str(index))


@pytest.mark.parametrize("limit", [100, 4096, 20_000])
def test_a_full_disk_leaves_nothing_half_written(trained, pair_file, corpus_file, tmp_path, failure, file_size_limit,
                                                 limit):
    with file_size_limit(limit):
        line = failure(recall.main, flags_of(trained, pair_file, corpus_file, tmp_path / "out"))
    assert "cannot write" in line and "free some space" in line
    assert not list(tmp_path.rglob("*.tmp")) and not (tmp_path / "out" / "recall_result.txt").exists()
    run(trained, pair_file, corpus_file, tmp_path / "out")


def test_two_ranks_recall_what_one_does(trained, pair_file, corpus_file, tmp_path):
    one = run(trained, pair_file, corpus_file, tmp_path / "one", "--recall_num", "5", "--batch_size", "4")
    result = launch(2, "recall.py", *flags_of(trained, pair_file, corpus_file, tmp_path / "two", "--recall_num", "5",
                                              "--batch_size", "4"), cwd=tmp_path)
    assert result.returncode == 0, result.stdout
    two = [line.split("\t") for line in (tmp_path / "two" / "recall_result.txt").read_text().splitlines()]
    vectors = [np.concatenate([np.load(part) for part in sorted((tmp_path / name / "index" / "parts").glob("*.npy"))])
               for name in ("one", "two")]
    assert np.abs(vectors[0] - vectors[1]).max() < 1e-6
    assert [row[:2] for row in one] == [row[:2] for row in two]


def test_manifest_names_what_an_index_is_made_from(trained, pair_file, corpus_file, tmp_path):
    run(trained, pair_file, corpus_file, tmp_path / "o")
    manifest = json.loads((tmp_path / "o" / "index" / "manifest.json").read_text())
    assert set(manifest["vectors"]) == {"checkpoint", "precision", "max_seq_length", "dimension", "metric"}
    assert manifest["engines"]["hnsw"]["settings"] == {"hnsw_m": 16, "hnsw_ef": 100}
    assert manifest["texts"] == 24 and [part[:2] for part in manifest["parts"]] == [[0, 24]] and len(manifest["corpus"]) == 64


def test_the_share_of_exact_is_told_of_the_wanted_number(trained, pair_file, corpus_file, tmp_path, monkeypatch, capsys):
    import ann_util

    monkeypatch.setattr(ann_util, "share_of_exact", lambda index, queries, found: found.size / 1000)
    run(trained, pair_file, corpus_file, tmp_path / "o", "--recall_num", "7")
    assert "hnsw: 11.20 % of the exact top 7 found, on 16 sources" in capsys.readouterr().err


def test_an_index_of_another_version_is_refused(trained, pair_file, corpus_file, tmp_path, failure):
    index = tmp_path / "ix"
    run(trained, pair_file, corpus_file, tmp_path / "a", "--index_dir", str(index))
    manifest = json.loads((index / "manifest.json").read_text())
    write(index / "manifest.json", json.dumps({**manifest, "format": 2}))
    line = failure(recall.main, flags_of(trained, pair_file, corpus_file, tmp_path / "b", "--index_dir", str(index)))
    assert "format 2, this version reads 3" in line


@pytest.mark.parametrize("name", ["out", "ix"])
def test_result_and_index_folder_have_one_owner(trained, pair_file, corpus_file, tmp_path, failure, name):
    with own_folder(tmp_path / name):
        line = failure(recall.main, flags_of(trained, pair_file, corpus_file, tmp_path / "out", "--index_dir",
                                             str(tmp_path / "ix")))
    assert f"{tmp_path / name} is in use by pid" in line


def test_a_reference_form_file_recalls_with_its_encoder_named(trained, encoder_folder, pair_file, corpus_file, tmp_path):
    path = shutil.copy(trained, tmp_path)  # without its manifest
    rows = run(path, pair_file, corpus_file, tmp_path / "o", "--model_name_or_path", encoder_folder, "--recall_num", "3")
    assert len(rows) == 48


def test_vectors_stand_in_the_order_of_their_texts(trained, tmp_path):
    alone = np.concatenate([vectors_of(trained, [text], tmp_path) for text in SOURCES[:5]])
    assert len({len(text) for text in SOURCES[:5]}) > 2
    assert np.allclose(vectors_of(trained, SOURCES, tmp_path)[:5], alone, atol=1e-6)
