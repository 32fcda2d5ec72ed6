"""Mined negatives against a brute-force oracle in plain NumPy, through the command line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, SOURCES, TARGETS, read_log, run_process, train, write
from test_recall import run as recall_rows
from test_recall import vectors_of

import mine_hard_negatives
import train_batch_neg
from train_data import read_train_set

pytestmark = pytest.mark.usefixtures("compiled_once")

# Sources with several positives, the reverse of a pair, a source that is a target, and a variant of a source.
PAIRS = [*zip(SOURCES, TARGETS), (SOURCES[0], TARGETS[1]), (TARGETS[2], SOURCES[3]), (TARGETS[4], TARGETS[5]),
         (SOURCES[6] + "？", TARGETS[7]), (SOURCES[0], TARGETS[2])]
# Beside all their texts, variants of positives and sources, and texts of nobody.
OTHERS = [SOURCES[i] + TARGETS[j] for i, j in ((0, 3), (1, 4), (2, 5), (3, 6), (4, 7), (5, 8), (6, 9), (7, 10), (8, 1))]
VARIANTS = ["登录密码忘了，如何重新设置？", " 登录 密码忘了如何重新设置", "怎么重置登录密码!!", "物流信息好几天不动怎么办。", "「开票信息填错怎么修改」",
            "信用卡怎么提额…", "空调不制冷 怎么办?", "\u3000装宽带要等几天\u3000"]
CORPUS = [*TARGETS, *OTHERS, *VARIANTS, *SOURCES]


def lines(rows) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


@pytest.fixture
def mine(trained, tmp_path):
    """`mine(flags)` returns the rows that are written; the corpus is mined unless the flags name a result file."""
    write(tmp_path / "pairs.tsv", lines(PAIRS))
    write(tmp_path / "corpus", lines([text] for text in CORPUS))

    def run(*flags: str, pairs="pairs.tsv", output="mined.tsv", corpus="corpus", params=True) -> list[list[str]]:
        assert mine_hard_negatives.main(flags_of(trained, tmp_path, *flags, pairs=pairs, output=output, corpus=corpus,
                                                 params=params)) == 0
        return [line.split("\t") for line in (tmp_path / output).read_text(encoding="utf-8").split("\n")[:-1]]
    return run


def flags_of(trained, folder: Path, *flags: str, pairs="pairs.tsv", output="mined.tsv", corpus="corpus",
             params=True) -> list[str]:
    own = [*(["--params_path", trained, "--device", "cpu", "--max_seq_length", "32"] if params else []),
           *(["--corpus_file", str(folder / corpus)] if "--recall_result_file" not in flags else [])]
    return [*own, "--train_set_file", str(folder / pairs), "--output_file", str(folder / output), *flags]


def same(text: str) -> str:
    """Brute force: letters, numbers, symbols and marks alone, of one width and case."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if unicodedata.category(c)[0] in "LNSM")


def excluded(source: str, pairs) -> set[str]:
    both = [*pairs, *(pair[::-1] for pair in pairs)]
    return {same(source)} | {same(target) for other, target in both if same(other) == same(source)}


@pytest.fixture
def oracle(trained, tmp_path):
    """What may be drawn for each row: texts in the window, left by exclusion and filters."""
    texts = list(dict.fromkeys([*CORPUS, *(text for pair in PAIRS for text in pair)]))
    vector = dict(zip(texts, vectors_of(trained, texts, tmp_path)))

    def allowed(low: int, high: int, ratio=None, margin=None, corpus=CORPUS, pairs=PAIRS,
                once=True) -> list[set[str]]:
        found = []
        for source, target in pairs:
            cosines = np.array([vector[text] @ vector[source] for text in corpus])
            order = [i for i in np.argsort(-cosines, kind="stable") if same(corpus[i]) not in excluded(source, pairs)]
            best_of_alike = {same(corpus[i]): i for i in reversed(order)}.values()
            order = sorted(best_of_alike, key=lambda i: (-cosines[i], i)) if once else order
            own = vector[source] @ vector[target]
            found.append({corpus[i] for i in order[low:high]
                          if (ratio is None or cosines[i] <= max(own, 0) * ratio)
                          and (margin is None or cosines[i] <= own - margin)})
        return found
    return allowed


def assert_drawn(rows, allowed, count: int) -> None:
    """The right number for each row, without repeats, and from what is allowed; all of it where no more is wanted."""
    assert [tuple(row[:2]) for row in rows] == PAIRS
    for row, right in zip(rows, allowed):
        assert len(set(row[2:])) == len(row) - 2 == min(count, len(right)) and set(row[2:]) <= right, row


WINDOWS = [(0, 5, {}), (3, 7, {}), (0, 12, {"ratio": 0.9}), (2, 12, {"margin": 0.1}), (0, 20, {"ratio": 0.8, "margin": 0.05}),
           (0, 100, {}), (30, 60, {})]


@pytest.mark.parametrize("low, high, filters", WINDOWS)
def test_all_that_may_be_drawn_is_what_a_plain_numpy_search_allows(mine, oracle, low, high, filters):
    flags = ["--range_min", str(low), "--range_max", str(high)]
    flags += ["--max_similarity_ratio", str(filters["ratio"])] if "ratio" in filters else []
    flags += ["--absolute_margin", str(filters["margin"])] if "margin" in filters else []
    right = oracle(low, high, **filters)
    sizes = {len(texts) for texts in right}
    assert len(sizes) > 1 or sizes == {high - low}, "the case has to tell something"
    assert_drawn(mine("--num_negatives", "100", *flags), right, 100)
    assert_drawn(mine("--num_negatives", "2", *flags), right, 2)


def test_rows_of_one_source_draw_each_for_itself_and_by_its_own_target(mine, oracle):
    right = oracle(0, 20, ratio=0.9)
    places = [0, 16, 20]  # rows of SOURCES[0]
    assert len({frozenset(right[i]) for i in places}) > 1
    assert_drawn(mine("--num_negatives", "50", "--range_max", "20", "--max_similarity_ratio", "0.9"), right, 50)


def test_a_window_is_full_however_many_positives_and_variants_stand_before_it(mine, trained, tmp_path):
    """The source's likes fill the first places: a search that stops at the window's size finds nothing else."""
    signs = "!?。，、；：“”（）【】《》…—·.,;:'\"()[]{}-_/\\&%#@*"
    likes = [SOURCES[0] + one + two for one in signs for two in signs[:3]]
    reverse = [(f"{SOURCES[0]}{i}号", SOURCES[0]) for i in range(30)]
    write(tmp_path / "many", lines([text] for text in [*likes, *(text for text, _ in reverse), *TARGETS]))
    write(tmp_path / "pairs.tsv", lines([(SOURCES[0], TARGETS[0]), *reverse]))
    row = mine("--range_max", "15", "--num_negatives", "15", corpus="many")[0]
    assert set(row[2:]) == set(TARGETS[1:]) and len(row) == 2 + 15


def test_what_differs_from_a_positive_in_signs_alone_is_never_taken(mine, tmp_path):
    positives = ["Ａｐｐ 登录密码", "怎么重置", "50%", "?!"]
    likes = ["app登录密码", "APP，登录密码！", "ａｐｐ\u3000登录密码。", "怎么\u200b重置？", "怎 么 重 置", "５０％", "50"]
    others = ["apq登录密码", "怎么重置吗", "500", "?", "+50", "怎么重置了"]
    write(tmp_path / "c", lines([text] for text in [*likes, *positives, *others, "   ", "\u3000"]))
    write(tmp_path / "p", lines(("宽带多久能装好", target) for target in positives))
    write(tmp_path / "back", lines((target, "宽带多久能装好") for target in positives[:3]) + lines([("宽带多久能装好", "?!")]))
    for pairs in ("p", "back"):
        row = mine("--num_negatives", "50", corpus="c", pairs=pairs)[-1]
        assert row[:2] == ["宽带多久能装好", "?!"] and sorted(row[2:]) == sorted(others)  # blank texts are none either
    write(tmp_path / "r", lines(("宽带多久能装好", text, "0.5") for text in [*likes, "", " ", *others, *positives]))
    row = mine("--num_negatives", "50", "--recall_result_file", str(tmp_path / "r"), pairs="p", params=False)[0]
    assert sorted(row[2:]) == sorted(others)
    read_train_set(str(tmp_path / "mined.tsv"))


def test_the_same_seed_is_the_same_bytes_and_another_another_draw(mine, tmp_path, capsys):
    made, told = [], []
    for seed in "0010":
        capsys.readouterr()
        mine("--range_max", "20", "--num_negatives", "2", "--seed", seed)
        made.append((tmp_path / "mined.tsv").read_bytes())
        told.append(capsys.readouterr().out)
    assert made[0] == made[1] == made[3] != made[2] and told[0] == told[1] == told[3] != told[2]


def test_the_draw_is_uniform_in_the_window(mine, tmp_path):
    """One source 2,000 times over, with a result file: ranks 5 to 14 are drawn 200 times each, and no other."""
    ranked = [f"文本{i}" for i in range(30)]
    write(tmp_path / "p", lines([(SOURCES[0], TARGETS[0])] * 200))
    write(tmp_path / "r", lines((SOURCES[0], text, f"{0.9 - i / 100:.6f}") for i, text in enumerate(ranked)))
    counts = np.zeros(30, dtype=int)
    for seed in range(5):
        rows = mine("--recall_result_file", str(tmp_path / "r"), "--range_min", "5", "--range_max", "15",
                    "--num_negatives", "2", "--seed", str(seed), params=False, pairs="p")
        assert all(len(set(row[2:])) == 2 for row in rows)
        np.add.at(counts, [ranked.index(text) for row in rows for text in row[2:]], 1)
    assert counts.sum() == 2000 and counts[5:15].sum() == 2000
    assert ((counts[5:15] - 200) ** 2 / 200).sum() < 33  # chi-square of 9 degrees: p = 1e-4


@pytest.mark.parametrize("params", [True, False])
def test_a_result_file_gives_what_the_search_gives(mine, oracle, trained, tmp_path, params, capsys):
    recall_rows(trained, str(tmp_path / "pairs.tsv"), str(tmp_path / "corpus"), tmp_path / "r", "--recall_num", "60",
                "--ann_engine", "flat")
    result = ["--recall_result_file", str(tmp_path / "r" / "recall_result.txt")]
    capsys.readouterr()
    assert_drawn(mine(*result, "--range_min", "2", "--range_max", "9", "--num_negatives", "9", params=params), oracle(2, 9), 9)
    assert ("mean cosine of source and target" in capsys.readouterr().out) == params
    if params:
        rows = mine(*result, "--range_max", "20", "--num_negatives", "50", "--max_similarity_ratio", "0.9")
        assert_drawn(rows, oracle(0, 20, ratio=0.9), 50)


def test_a_result_files_own_order_is_the_ranking_and_the_checkpoint_judges(mine, oracle, tmp_path):
    """As of lexical_recall.py: its scores are no cosines."""
    rng = np.random.default_rng(0)
    order = [CORPUS[i] for i in rng.permutation(len(CORPUS))]
    write(tmp_path / "r", lines((source, text, f"{900 - i}.5") for source in dict(PAIRS) for i, text in enumerate(order)))
    rows = mine("--recall_result_file", str(tmp_path / "r"), "--range_min", "1", "--range_max", "9", "--num_negatives", "9",
                "--absolute_margin", "0.05")
    near = oracle(0, 1000, margin=0.05, once=False)
    for row, right in zip(rows, near):
        first = {same(text): text for text in reversed(order)}.values()
        window = [text for text in order if text in first and same(text) not in excluded(row[0], PAIRS)][1:9]
        assert set(row[2:]) == set(window) & right
    assert {len(row) - 2 for row in rows} > {8}  # the margin has left some out


def test_sources_without_rows_get_no_negatives_and_strange_files_are_refused(mine, trained, tmp_path, failure, capsys):
    write(tmp_path / "r", lines((SOURCES[0], text, "0.5") for text in OTHERS))
    capsys.readouterr()
    rows = mine("--recall_result_file", str(tmp_path / "r"), params=False)
    assert [len(row) for row in rows] == [3 if row[0] == SOURCES[0] else 2 for row in rows]
    out, err = capsys.readouterr()
    assert "no rows for 18 of 19 sources" in err and "21 rows, 3 negatives; 3 rows have all 1, 18 have none" in out
    for content, words in ((lines([("别的", "文本", "0.5")]), "has rows for none of the sources"), ("a\tb\n", "2 columns where 3 belong")):
        before = (tmp_path / "mined.tsv").read_bytes()
        line = failure(mine_hard_negatives.main, flags_of(trained, tmp_path, "--recall_result_file",
                                                          write(tmp_path / "r", content), params=False))
        assert words in line and (tmp_path / "mined.tsv").read_bytes() == before


def test_a_corpus_smaller_than_the_window_gives_fewer(mine, tmp_path, capsys):
    write(tmp_path / "c", lines([[TARGETS[0]], [TARGETS[1]], [OTHERS[0]], [OTHERS[1]]]))
    rows = mine("--num_negatives", "3", corpus="c")
    assert len(rows[0]) == 2 + 2 and len(rows[5]) == 2 + 3 and set(rows[0][2:]) == set(OTHERS[:2])
    out = capsys.readouterr().out
    assert "21 rows, 60 negatives; 18 rows have all 3, 0 have none" in out
    rows = mine("--range_min", "4", corpus="c")
    assert rows == [list(pair) for pair in PAIRS] and "0 negatives; 0 rows have all 1, 21 have none" in capsys.readouterr().out


def test_statistics_and_sample_are_those_of_the_rows(mine, oracle, trained, tmp_path, capsys):
    texts = list(dict.fromkeys([*CORPUS, *(text for pair in PAIRS for text in pair)]))
    vector = dict(zip(texts, vectors_of(trained, texts, tmp_path)))
    capsys.readouterr()
    rows = mine("--num_negatives", "2", "--range_max", "20", "--max_similarity_ratio", "0.9")
    out = capsys.readouterr().out.splitlines()
    negatives = [vector[row[0]] @ vector[text] for row in rows for text in row[2:]]
    left_out = sum(len(every) - len(left) for every, left in zip(oracle(0, 20), oracle(0, 20, ratio=0.9)))
    full, none = (sum(len(row) == wanted for row in rows) for wanted in (4, 2))
    assert out[:4] == [f"{tmp_path / 'mined.tsv'}: 21 rows, {len(negatives)} negatives; {full} rows have all 2, {none} have none",
                       f"candidates left out as too near: {left_out}", f"mean score of the negatives: {np.mean(negatives):.4f}",
                       f"mean cosine of source and target: {np.mean([vector[s] @ vector[t] for s, t in PAIRS]):.4f}"]
    shown = [sample.split("\n") for sample in "\n".join(out[5:]).split("\n\n")]
    assert len(shown) == 5
    for sample in shown:
        row = next(row for row in rows if sample[0] == row[0] and sample[1].endswith(f"\t{row[1]}"))
        assert sample[1:] == [f"  +  {vector[row[0]] @ vector[row[1]]:.3f}\t{row[1]}",
                              *(f"  -  {vector[row[0]] @ vector[text]:.3f}\t{text}" for text in row[2:])]


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


def test_of_texts_that_count_as_one_only_the_first_is_a_candidate(mine, tmp_path):
    write(tmp_path / "r", lines((SOURCES[0], text, "0.5") for text in ["别的一条", "别的一条？", "别的 一条", "又一条"]))
    rows = mine("--recall_result_file", str(tmp_path / "r"), "--num_negatives", "4", params=False)
    assert sorted(rows[0][2:]) == sorted(["别的一条", "又一条"])


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


# scripts/mine_and_train.sh

SCRIPT = str(PROJECT / "scripts" / "mine_and_train.sh")
SMALL = ["--batch_size", "4", "--max_steps", "2", "--output_emb_size", "16"]


@pytest.fixture(scope="module")
def rounds(tmp_path_factory, encoder_folder) -> tuple[Path, str]:
    """Folder with data and with the output of an undisturbed run, and what that run said."""
    folder = tmp_path_factory.mktemp("rounds")
    (folder / "data").mkdir()
    for name, rows in (("semantic_pair_train.tsv", PAIRS), ("corpus_file", [[t] for t in CORPUS])):
        write(folder / "data" / name, lines(rows))
    done = start(folder, encoder_folder, "right")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def start(folder: Path, encoder: str, out: str, *flags: str, data: str = "data",
          **environment: str) -> subprocess.CompletedProcess:
    return run_process("bash", SCRIPT, data, out, *SMALL, *flags, cwd=folder, **environment_of(encoder, environment))


def environment_of(encoder: str, more: dict[str, str]) -> dict[str, str]:
    return {"DEVICE": "cpu", "MODEL": encoder, "MAX_SEQ_LENGTH": "32", "MINING": "--num_negatives 1 --range_max 20", **more}


def made(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When what was written that is not to be written again."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*")
            if path.is_file() and path.suffix in (".tsv", ".pdparams", ".pdopt", ".txt", ".md", ".npy")}


def test_rounds_alternate_mining_and_training(rounds, encoder_folder):
    folder, told = rounds
    right = folder / "right"
    assert [line.split(" (")[0][3:] for line in told.splitlines() if line.startswith("== ")] == [
        "round 1: train", "round 2: mine", "round 2: train",
        "the last round's model: right/round_2/latest/model_state.pdparams"]
    assert not (right / "round_1" / "train_mined.tsv").exists() and not list(right.rglob("mining_index"))
    mined = read_train_set(str(right / "round_2" / "train_mined.tsv"))
    assert len(mined) == len(PAIRS) and all(len(row) == 1 for row in mined.negatives)
    facts = [json.loads((right / name / "latest" / "semantic_index.json").read_text()) for name in ("round_1", "round_2")]
    assert [fact["training"]["init_from_ckpt"] for fact in facts] == [None, "right/round_1/latest/model_state.pdparams"]
    assert [len(read_log(right / name)) for name in ("round_1", "round_2")] == [2, 2]


def test_what_is_finished_is_not_done_again_and_other_flags_are_refused(rounds, encoder_folder):
    folder, _ = rounds
    before = made(folder)
    again = start(folder, encoder_folder, "right")
    assert again.returncode == 0 and made(folder) == before, again.stderr
    assert "mine" not in again.stdout
    other = start(folder, encoder_folder, "right", "--learning_rate", "1e-2")
    assert other.returncode == 2 and "--learning_rate 0.001, now it is 0.01" in other.stderr
    assert made(folder) == before


def test_a_kill_in_the_middle_ends_in_the_same_files(rounds, encoder_folder):
    """With START the first round mines too."""
    folder, _ = rounds
    first = "right/round_1/latest/model_state.pdparams"
    settings = {"ROUNDS": "1", "START": first}
    out, index = folder / "killed" / "round_1", folder / "killed" / "round_1" / "mining_index"
    env = {**os.environ, **environment_of(encoder_folder, settings), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["bash", SCRIPT, "data", "killed", *SMALL], cwd=folder, env=env, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and not index.exists() and time.monotonic() < until:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and index.exists()
    done = start(folder, encoder_folder, "killed", **settings)
    assert done.returncode == 0 and not index.exists(), done.stderr
    assert mine_hard_negatives.main([
        "--device", "cpu", "--params_path", str(folder / first), "--max_seq_length", "32", "--train_set_file",
        str(folder / "data" / "semantic_pair_train.tsv"), "--corpus_file", str(folder / "data" / "corpus_file"),
        "--output_file", str(folder / "alone.tsv"), "--range_max", "20", "--seed", "1"]) == 0
    assert (out / "train_mined.tsv").read_bytes() == (folder / "alone.tsv").read_bytes()
    training = json.loads((out / "latest" / "semantic_index.json").read_text())["training"]
    assert training["init_from_ckpt"] == first and training["train_set_file"] == "killed/round_1/train_mined.tsv"
    before = made(folder)
    other = start(folder, encoder_folder, "killed", **settings, MINING="--num_negatives 2")
    assert other.returncode == 2 and "error: killed/round_1/train_mined.tsv was mined with --max_seq_length 32" in other.stderr
    shutil.copytree(folder / "data", folder / "other")
    with open(folder / "other" / "corpus_file", "a", encoding="utf-8") as file:
        file.write("又一条\n")
    other = start(folder, encoder_folder, "killed", data="other", **settings)
    assert other.returncode == 2 and "was mined with" in other.stderr
    shutil.rmtree(folder / "other")
    assert made(folder) == before


def test_wrong_settings_end_at_once(rounds, tmp_path):
    data = str(rounds[0] / "data")
    for words, environment in ((["data"], {}), (["data", "out"], {}), ([data, "out"], {"ROUNDS": "0"}), ([data, "out"], {"ROUNDS": "two"}),
                               ([data, "out", "--max_seq_length", "64"], {}), ([data, "--epochs"], {})):
        done = run_process("bash", SCRIPT, *words, cwd=tmp_path, **environment)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and not list(tmp_path.iterdir())
