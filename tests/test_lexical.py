import itertools
import json
import math
import unicodedata
from collections import Counter

import numpy as np
import pytest
from conftest import PROJECT, SHARED_DATA, SOURCES, TARGETS, pair_lines, run_process, write

import evaluate
import lexical_recall
import metrics
from bm25 import Bm25, best
from data import read_pairs, read_texts
from files import own_folder


def run(pairs, corpus, out, *flags: str) -> list[list[str]]:
    assert lexical_recall.main(flags_of(pairs, corpus, out, *flags)) == 0
    return [line.split("\t") for line in (out / "lexical_result.txt").read_text().splitlines()]


def flags_of(pairs, corpus, out, *flags: str) -> list[str]:
    return ["--similar_text_pair", pairs, "--corpus_file", corpus, "--recall_result_dir", str(out), *flags]


def plain_ngrams(text: str) -> Counter:
    text = unicodedata.normalize("NFKC", text).lower()
    return Counter(text[i : i + n] for n in (1, 2) for i in range(len(text) - n + 1))


def plain_bm25(texts: list[str], query: str, k1: float = 1.2, b: float = 0.75) -> list[tuple[int, float]]:
    """The formula, word for word: (position, score) of all texts, best first, ties in corpus order."""
    counts = [plain_ngrams(text) for text in texts]
    mean = sum(sum(count.values()) for count in counts) / len(texts)
    scores = []
    for count in counts:
        length, score = sum(count.values()), 0.0
        for ngram, times in plain_ngrams(query).items():
            df = sum(ngram in other for other in counts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            score += times * idf * count[ngram] * (k1 + 1) / (count[ngram] + k1 * (1 - b + b * length / mean)) if count[ngram] else 0
        scores.append(score)
    return sorted(enumerate(scores), key=lambda row: (-round(row[1], 7), row[0]))


def random_texts(seed: int, count: int) -> list[str]:
    rng = np.random.default_rng(seed)
    alphabet = list("怎么退款密码忘了快递几天没更新机票改签 ABab12，？") + ["Ａ", "１", "，", "ﬁ"]
    weights = 1 / np.arange(1, len(alphabet) + 1)  # some frequent, most rare, as in a language
    texts = ["".join(rng.choice(alphabet, rng.integers(1, 12), p=weights / weights.sum())) for _ in range(2 * count)]
    return list(dict.fromkeys(texts))[:count]


@pytest.mark.parametrize("k1, b", [(1.2, 0.75), (0, 0), (2, 1), (0.5, 0)])
@pytest.mark.parametrize("k", [1, 4, 50, 500])
def test_bm25_equals_the_plain_formula(k1, b, k):
    texts, queries = random_texts(0, 150), [*random_texts(1, 12), "款款款退", "火", "了"]
    ids, scores = Bm25(texts, k1, b).search(queries, k)
    assert ids.shape == scores.shape == (15, min(k, 150))
    for query, row, values in zip(queries, ids, scores):
        expected = plain_bm25(texts, query, k1, b)[:k]
        assert row.tolist() == [i for i, _ in expected]
        assert values.tolist() == pytest.approx([score for _, score in expected], abs=1e-7)


@pytest.mark.parametrize("flip", [False, True])
def test_equal_scores_are_equal_whatever_order_they_were_summed_in(flip):
    """二 and 五 stand in as many texts, so do the others of a pair: 1 + 2 + 3 against 4 + 5 + 6 is the same sum, backwards."""
    for copies in itertools.product(range(1, 5), repeat=3):
        mirrored = ["四x五y六", "一x二y三"] if flip else ["一x二y三", "四x五y六"]
        others = [f"{a}z{b}{'w' * (20 + i)}" for (a, b), n in zip(("一六", "二五", "三四"), copies) for i in range(n)]
        ids, scores = Bm25([*mirrored, *others], 1.2, 0.75).search(["一二三四五六"], 2)
        assert ids.tolist() == [[0, 1]] and scores[0, 0] == scores[0, 1]


def test_best_against_a_full_sort():
    rng = np.random.default_rng(0)
    for count, k, kinds in itertools.product((1, 7, 64, 3001), (1, 5, 50), (1, 3, 40, 10**9)):
        scores = np.maximum(rng.integers(-kinds, kinds, count), 0).astype(float)
        ids, values = best(scores, min(k, count))
        expected = np.lexsort((np.arange(count), -scores))[:k]
        assert ids.tolist() == expected.tolist() and values.tolist() == scores[expected].tolist()


@pytest.mark.parametrize("keep_self", [[], ["--keep_self"]])
def test_the_file_has_a_block_for_each_pair_line(tmp_path, keep_self):
    texts = [*random_texts(0, 60), SOURCES[0], TARGETS[0]]
    pairs = [(SOURCES[0], TARGETS[0]), (texts[3], texts[4]), (SOURCES[0], texts[7])]
    rows = run(write(tmp_path / "p", "".join(f"{s}\t{t}\n" for s, t in pairs)), write(tmp_path / "c", "\n".join(texts)),
               tmp_path / "o", "--recall_num", "5", "--k1", "0.9", "--b", "0.4", *keep_self)
    expected = []
    for source, _ in pairs:
        ranked = [(texts[i], score) for i, score in plain_bm25(texts, source, 0.9, 0.4) if keep_self or texts[i] != source]
        expected += [[source, text, f"{score:.6f}"] for text, score in ranked[:5]]
    assert rows == expected and len(rows) == 15
    assert all((rows[i][1] == rows[i][0]) == bool(keep_self) for i in (0, 5, 10))


def test_texts_that_share_nothing_with_a_source_are_no_rows_of_it(tmp_path, capsys):
    corpus = write(tmp_path / "c", "快递\n空调\n密码\n快递\n机票\n")
    rows = run(write(tmp_path / "p", "码\t密码\n火\t没有\n"), corpus, tmp_path / "o", "--recall_num", "3")
    assert [row[:2] for row in rows] == [["码", "密码"]] and float(rows[0][2]) > 0
    err = capsys.readouterr().err
    for words in ("1 of 5 lines repeat an earlier text", "1 of 2 targets are not in the corpus (line 2)",
                  "1 of 2 sources share no character", "lexical_result.txt: 1 rows"):
        assert words in err
    run(write(tmp_path / "p", "码\t密码\n"), corpus, tmp_path / "o")
    err = capsys.readouterr().err
    assert "4 different texts, so fewer than --recall_num 50" in err and "share no character" not in err


def test_forms_of_a_character_are_one(tmp_path):
    rows = run(write(tmp_path / "p", "APP１\t空调\n"), write(tmp_path / "c", "空调\nＡｐｐ1\nAP\n"), tmp_path / "o")
    assert [row[1] for row in rows] == ["Ａｐｐ1", "AP"]


def test_evaluate_takes_scores_that_are_no_cosines(tmp_path):
    pairs, corpus = write(tmp_path / "p", pair_lines()), write(tmp_path / "c", "\n".join(TARGETS))
    rows = run(pairs, corpus, tmp_path / "o")
    assert max(float(row[2]) for row in rows) > 2
    result, trec, figures = str(tmp_path / "o" / "lexical_result.txt"), tmp_path / "trec", tmp_path / "figures"
    assert evaluate.main(["--similar_pair_file", pairs, "--recall_result_file", result, "--trec_run", str(trec),
                          "--output_json", str(figures)]) == 0
    hits = sum(TARGETS[plain_bm25(TARGETS, source)[0][0]] == target for source, target in zip(SOURCES, TARGETS))
    assert hits == 13 and json.loads(figures.read_text())["systems"]["lexical_result"]["R@1"]["value"] == hits / 16
    assert len(trec.read_text().splitlines()) == len(rows) == sum(
        bool(set(source) & set(target)) for source in SOURCES for target in TARGETS)


@pytest.mark.parametrize("flags, words", [
    (["--k1", "-1"], ["--k1", "'-1'"]), (["--k1", "nan"], ["--k1", "'nan'"]), (["--k1", "1e300"], ["--k1", "1e+300"]),
    (["--b", "1.1"], ["--b", "'1.1'"]), (["--b", "-0.1"], ["--b", "'-0.1'"]),
    (["--recall_num", "0"], ["--recall_num", "'0'"]), (["--corpus_file", "nope"], ["--corpus_file", "'nope'"]),
    (["--recall_result_file", "a/b"], ["'a/b'", "plain file name"]), (["--recall_result_dir", "/proc/no"], ["/proc/no"]),
    (["--recall_result_dir", "{tmp}", "--recall_result_file", "corpus.txt"], ["would overwrite", "--corpus_file"]),
    (["--corpus_file", "{tmp}/empty"], ["empty: the file is empty"]), (["--corpus_file", "{tmp}/tab"], ["tab: line 2", "TAB"]),
    (["--similar_pair_file", "{tmp}/latin"], ["latin: line 1", "UTF-8"]),
    (["--similar_pair_file", "{tmp}/empty"], ["empty: the file is empty"]), (["--keep_self", "False"], ["unrecognized"]),
])
def test_bad_input(pair_file, corpus_file, tmp_path, failure, flags, words):
    for name, content in (("empty", b""), ("tab", b"a\nb\tc\n"), ("latin", b"caf\xe9\tb\n")):
        (tmp_path / name).write_bytes(content)
    before = (tmp_path / "corpus.txt").read_bytes()
    line = failure(lexical_recall.main, flags_of(pair_file, corpus_file, tmp_path / "o", *(f.format(tmp=tmp_path) for f in flags)))
    assert all(word in line for word in words)
    assert not (tmp_path / "o").exists() and (tmp_path / "corpus.txt").read_bytes() == before


def test_a_full_disk_leaves_nothing_half_written(pair_file, corpus_file, tmp_path, failure, file_size_limit):
    with file_size_limit(4096):
        line = failure(lexical_recall.main, flags_of(pair_file, corpus_file, tmp_path / "o"))
    assert "cannot write" in line and not (tmp_path / "o").exists()


def test_the_result_folder_has_one_owner(pair_file, corpus_file, tmp_path, failure):
    with own_folder(tmp_path / "o"):
        assert "is in use by pid" in failure(lexical_recall.main, flags_of(pair_file, corpus_file, tmp_path / "o"))


def test_a_run_from_the_command_line_needs_no_paddle(pair_file, corpus_file, tmp_path):
    code = "import sys, lexical_recall as s; c = s.main(sys.argv[1:]); sys.exit(c or ('paddle' in sys.modules) * 9)"
    done = run_process("python", "-c", code, *flags_of(pair_file, corpus_file, tmp_path / "o"))
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    count = sum(bool(set(source) & set(text)) and text != source
                for source in SOURCES for text in read_texts(corpus_file))
    assert done.stderr.splitlines()[-1].endswith(f"lexical_result.txt: {count} rows")
    bad = run_process("python", str(PROJECT / "lexical_recall.py"), *flags_of(pair_file, "nope", tmp_path / "o"))
    assert bad.returncode == 2 and bad.stderr.count("\n") == 1 and bad.stderr.startswith("error: ")


def test_the_figures_of_the_benchmark(tmp_path):
    """Those of its README, which were made by other code: scikit-learn's n-grams, and ranks counted without a top k."""
    pair_file = SHARED_DATA / "semantic_similar_pair.tsv"
    if not pair_file.is_file():
        pytest.skip("the benchmark data is not beside the project")
    assert lexical_recall.main(flags_of(str(pair_file), str(SHARED_DATA / "corpus_file"), tmp_path, "--keep_self")) == 0
    result = metrics.read_result(str(tmp_path / "lexical_result.txt"))
    ranks = metrics.rank_cases(read_pairs(str(pair_file)), result, 50, keep_self=True)
    parts = np.array(metrics.read_parts(str(SHARED_DATA / "semantic_similar_pair.part"), len(ranks)))
    for part, wanted in (("", (26.53, 59.83, 67.78)), ("lcqmc", (44.84, 97.56, 99.56)), ("bq", (0.80, 9.35, 24.05)),
                         ("pawsx", (52.78, 98.06, 98.61)), ("oppo", (34.80, 64.40, 76.80)),
                         ("afqmc", (1.60, 10.00, 25.20)), ("epidemic", (28.64, 80.90, 94.47))):
        mine = ranks[parts == part] if part else ranks
        assert [100 * metrics.recall_at(mine, k) for k in (1, 10, 50)] == pytest.approx(wanted, abs=0.05), part
