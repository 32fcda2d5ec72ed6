"""Files and flags of mine_hard_negatives.py: what it reads and writes, that training takes it, and what is refused."""

import json

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, run_process, train, write
from mining_case import OTHERS, PAIRS, flags_of, lines, mine_fixture  # noqa: F401 - a fixture

import mine_hard_negatives
import train_batch_neg
from train_data import read_train_set

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_earlier_negatives_are_replaced(mine, tmp_path, capsys):
    write(tmp_path / "old", lines([*pair, "旧的负例", SOURCES[8]] for pair in PAIRS))
    assert mine(pairs="old", output="again.tsv") == mine()
    assert "mined negatives that it has are left out" in capsys.readouterr().err


def test_json_lines_in_and_out(mine, trained, tmp_path, failure):
    """A text of JSON may hold what columns can't; the output's name tells its form."""
    rows = [json.dumps({"query": source, "pos": target}) for source, target in PAIRS]
    write(tmp_path / "pairs.jsonl", "\n".join(rows) + "\n")
    assert mine(pairs="pairs.jsonl") == mine()
    write(tmp_path / "pairs.jsonl", "\n".join([*rows, json.dumps({"query": "两\n行", "pos": "制表\t符"})]) + "\n")
    line = failure(mine_hard_negatives.main, flags_of(trained, tmp_path, pairs="pairs.jsonl", output="new.tsv"))
    assert "TAB or a line break" in line and ".jsonl" in line and not (tmp_path / "new.tsv").exists()
    mine("--num_negatives", "2", pairs="pairs.jsonl", output="new.jsonl")
    data = read_train_set(str(tmp_path / "new.jsonl"))
    assert [(data.texts[s], data.texts[t]) for s, t in zip(data.sources, data.targets)] == [*PAIRS, ("两\n行", "制表\t符")]
    assert all(len(negatives) == 2 for negatives in data.negatives)


def test_the_rows_train_and_their_negatives_are_used(mine, encoder_folder, tmp_path, monkeypatch):
    import trainer

    rows = mine("--num_negatives", "2")
    data = read_train_set(str(tmp_path / "mined.tsv"))
    assert [[data.texts[text] for text in negatives] for negatives in data.negatives] == [row[2:] for row in rows]
    seen: list[set[str]] = []
    batch_of = trainer.Trainer.batch_of

    def spying(self, numbers, step):
        batch = batch_of(self, numbers, step)
        seen.append({self.data.texts[text] for share in batch[0] for text in share})
        return batch

    monkeypatch.setattr(trainer.Trainer, "batch_of", spying)
    log = train(train_batch_neg, encoder_folder, str(tmp_path / "mined.tsv"), tmp_path / "out", "--max_steps", "1",
                "--batch_size", "64")
    assert len(log) == 1 and np.isfinite(log[0]["loss"])
    assert seen == [{text for row in rows for text in row}]


@pytest.mark.parametrize("flags, words", [
    (["--range_min", "5", "--range_max", "5"], ["--range_min 5", "--range_max 5"]),
    (["--range_min", "60"], ["--range_min 60", "--range_max 50"]),
    (["--recall_result_file", "R", "--corpus_file", "corpus"], ["--recall_result_file", "--corpus_file"]),
    (["--recall_result_file", "R", "--index_dir", "ix"], ["--index_dir"]),
    (["--recall_result_file", "R", "--ann_engine", "hnsw"], ["--ann_engine"]),
    (["--num_negatives", "0"], ["--num_negatives"]),
    (["--max_similarity_ratio", "0"], ["--max_similarity_ratio"]),
    (["--absolute_margin", "-1"], ["--absolute_margin"]),
    (["--output_file", "corpus"], ["would overwrite"]),
    (["--output_file", "pairs.tsv"], ["would overwrite"]),
    (["--train_set_file", "corpus"], ["corpus", "texts alone", "give pairs"]),
])
def test_bad_flags(trained, mine, tmp_path, failure, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    flags = [write(tmp_path / "r", lines([(SOURCES[0], "文本", "0.5")])) if flag == "R" else flag for flag in flags]
    line = failure(mine_hard_negatives.main, flags_of(trained, tmp_path, *flags))
    (tmp_path / "r").unlink(missing_ok=True)
    assert all(word in line for word in words) and {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_has_to_be_named(trained, mine, tmp_path, failure):
    pairs, result = str(tmp_path / "pairs.tsv"), write(tmp_path / "r", lines([(SOURCES[0], "文本", "0.5")]))
    always = ["--train_set_file", pairs, "--output_file", str(tmp_path / "out.tsv")]
    for flags, words in ((["--params_path", trained], ["--params_path and --corpus_file are needed"]),
                         (["--corpus_file", str(tmp_path / "corpus")], ["--params_path and --corpus_file are needed"]),
                         ([], ["--recall_result_file"]),
                         (["--recall_result_file", result, "--max_similarity_ratio", "0.9"], ["--max_similarity_ratio", "--params_path"]),
                         (["--recall_result_file", result, "--absolute_margin", "0"], ["--absolute_margin", "--params_path"])):
        line = failure(mine_hard_negatives.main, [*always, *flags])
        assert all(word in line for word in words) and not (tmp_path / "out.tsv").exists()


def test_a_full_disk_leaves_nothing_half_written(mine, trained, tmp_path, failure, file_size_limit):
    write(tmp_path / "r", lines((source, text, "0.5") for source in dict(PAIRS) for text in OTHERS))
    with file_size_limit(500):
        line = failure(mine_hard_negatives.main, flags_of(trained, tmp_path, "--recall_result_file", str(tmp_path / "r"),
                                                          params=False))
    assert "cannot write" in line and not list(tmp_path.glob("*mined*")) and not list(tmp_path.glob(".*"))


def test_a_named_index_is_used_again_and_only_for_its_own_checkpoint(mine, trained, tmp_path, failure):
    index = ["--index_dir", str(tmp_path / "ix")]
    rows = mine(*index)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "ix" / "parts").iterdir()}
    assert mine(*index) == rows == mine("--ann_engine", "hnsw", "--hnsw_deterministic")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "ix" / "parts").iterdir()} == made
    line = failure(mine_hard_negatives.main, flags_of(trained, tmp_path, *index, "--max_seq_length", "16"))
    assert str(tmp_path / "ix") in line and "32" in line and "16" in line


def test_a_text_that_columns_cannot_hold_is_refused(trained, mine, tmp_path, failure):
    write(tmp_path / "r", lines([(SOURCES[0], "又一条", "0.5")]))
    write(tmp_path / "p.jsonl", json.dumps({"query": SOURCES[0], "pos": "b\r"}) + "\n")
    flags = flags_of(trained, tmp_path, "--recall_result_file", str(tmp_path / "r"), pairs="p.jsonl", params=False)
    assert "'b\\r'" in (line := failure(mine_hard_negatives.main, flags)) and ".jsonl" in line


def test_a_terminal_of_another_encoding_shows_the_sample(tmp_path):
    write(tmp_path / "p", "a😀\tb\n")
    write(tmp_path / "r", "a😀\tc😀\t0.5\n")
    done = run_process("python", str(PROJECT / "mine_hard_negatives.py"), "--train_set_file", "p", "--recall_result_file", "r",
                       "--output_file", "o", cwd=tmp_path, PYTHONIOENCODING="gbk")
    assert done.returncode == 0 and "c\\U0001f600" in done.stdout, done.stderr
    assert (tmp_path / "o").read_text(encoding="utf-8") == "a😀\tb\tc😀\n"
